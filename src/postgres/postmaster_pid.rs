//! `postmaster.pid`: what a server that runs, or ran, in a data directory wrote about itself.
//!
//! The one reader of that file. May not live here: what follows from it; [`running`](super::running) has whether that
//! server still runs.
//!
//! The lines are those of `miscadmin.h` (`LOCK_FILE_LINE_…`): 1 the process, 2 the data directory, 3 the start, 4 the
//! port, 5 the first directory for sockets, 6 the first address it listens at, 7 its shared memory, 8 its state. They
//! come one after the other while it starts.

use crate::fsio::{self, Dir, FsError, Problem};
use crate::limits::MAX_POSTMASTER_PID_BYTES;
use crate::raw_text::RawText;
use std::path::Path;

const NAME: &str = "postmaster.pid";

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostmasterPid {
    lines: Vec<RawText>,
}

impl PostmasterPid {
    /// Reads that of a data directory; `None` where there is none.
    ///
    /// # Errors
    /// As of reading a file.
    pub fn read(data_directory: &Path) -> Result<Option<Self>, FsError> {
        match fsio::read_bounded(&data_directory.join(NAME), MAX_POSTMASTER_PID_BYTES) {
            Ok(bytes) => Ok(Some(Self::parse(&bytes))),
            Err(e) if e.problem == Problem::Absent => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// As [`read`](Self::read), in an open directory, with the rights of its owner; with the time at which the file was
    /// changed last, in seconds since 1970 UTC.
    ///
    /// # Errors
    /// As of reading a file.
    pub fn read_in(data_directory: &Dir) -> Result<Option<(Self, i64)>, FsError> {
        let Some(bytes) = data_directory.read_bounded(NAME, MAX_POSTMASTER_PID_BYTES)? else { return Ok(None) };
        // Gone meanwhile.
        let Some(stat) = data_directory.stat(NAME)? else { return Ok(None) };
        Ok(Some((Self::parse(&bytes), stat.changed.0)))
    }

    fn parse(bytes: &[u8]) -> Self {
        Self { lines: bytes.split(|byte| *byte == b'\n').map(|line| RawText::from(line.trim_ascii())).collect() }
    }

    /// A line, counted from 1; empty where it is not there yet.
    fn line(&self, number: usize) -> &[u8] {
        self.lines.get(number - 1).map_or(&[], RawText::as_bytes)
    }

    fn text(&self, number: usize) -> &str {
        std::str::from_utf8(self.line(number)).unwrap_or_default()
    }

    /// The id of the server's process, as it is written: that of a server for one user is negative.
    pub fn process(&self) -> Option<i32> {
        self.text(1).parse().ok()
    }

    /// When the server started, in seconds since 1970 UTC.
    pub fn started_unix_s(&self) -> Option<i64> {
        self.text(3).parse().ok()
    }

    /// The port, as it is written.
    pub fn port(&self) -> RawText {
        RawText::from(self.line(4))
    }

    /// The first directory for sockets; empty where there is none.
    pub fn socket_directory(&self) -> RawText {
        RawText::from(self.line(5))
    }

    /// Key and id of the server's shared memory.
    pub fn shared_memory(&self) -> Option<(u64, u64)> {
        let mut numbers = self.text(7).split_whitespace().map(str::parse::<u64>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    }

    /// What the server says of itself: `starting`, `stopping`, `ready`, or `standby` where it recovers with
    /// `hot_standby` off.
    pub fn state(&self) -> &str {
        self.text(8)
    }

    /// A connection string that leads to the server; `None` when it listens nowhere yet.
    pub fn conninfo(&self) -> Option<String> {
        let line = |number: usize| Some(String::from_utf8_lossy(self.line(number))).filter(|line| !line.is_empty());
        let port = line(4)?;
        let host = match (line(5), line(6)) {
            (Some(directory), _) => directory,
            (None, Some(address)) => match address.as_ref() {
                "*" | "0.0.0.0" => "127.0.0.1".into(),
                "::" => "::1".into(),
                _ => address,
            },
            (None, None) => return None,
        };
        let quoted = host.replace('\\', "\\\\").replace('\'', "\\'");
        Some(format!("host='{quoted}' port={port}"))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    fn with(socket: &str, address: &str) -> PostmasterPid {
        PostmasterPid::parse(
            format!("12\n/data\n1700000000\n5433\n{socket}\n{address}\n  5432001        37\nready   \n").as_bytes(),
        )
    }

    #[test]
    fn every_line_is_read() {
        let pid = with("/run/postgresql", "localhost");
        assert_eq!((pid.process(), pid.started_unix_s(), pid.state()), (Some(12), Some(1_700_000_000), "ready"));
        assert_eq!((pid.port().as_bytes(), pid.socket_directory().as_bytes()), (&b"5433"[..], &b"/run/postgresql"[..]));
        assert_eq!(pid.shared_memory(), Some((5_432_001, 37)));
        // A server that is starting has written only the first lines; one for one user writes its id negative.
        let early = PostmasterPid::parse(b"-7\n/data\n");
        assert_eq!((early.process(), early.started_unix_s(), early.shared_memory()), (Some(-7), None, None));
        assert_eq!((early.port().as_bytes(), early.state()), (&b""[..], ""));
        assert_eq!(PostmasterPid::parse(b"").process(), None);
    }

    #[test]
    fn a_server_is_found_where_it_listens() {
        assert_eq!(with("/run/it's", "localhost").conninfo().unwrap(), "host='/run/it\\'s' port=5433");
        assert_eq!(with("", "*").conninfo().unwrap(), "host='127.0.0.1' port=5433");
        assert_eq!(with("", "::").conninfo().unwrap(), "host='::1' port=5433");
        assert_eq!(with("", "").conninfo(), None);
        assert_eq!(PostmasterPid::parse(b"12\n/data\n").conninfo(), None);
    }

    #[test]
    fn a_directory_without_one_is_no_error() {
        let place = tempfile::tempdir().unwrap();
        let dir = Dir::open(place.path()).unwrap();
        assert_eq!(PostmasterPid::read(place.path()).unwrap(), None);
        assert_eq!(PostmasterPid::read_in(&dir).unwrap(), None);
        std::fs::write(place.path().join(NAME), "12\n").unwrap();
        let read = PostmasterPid::read(place.path()).unwrap().unwrap();
        assert_eq!(read.process(), Some(12));
        assert_eq!(PostmasterPid::read_in(&dir).unwrap().unwrap().0, read);
    }
}
