//! Whether WAL in a repository is what the server has. A name proves nothing: a volume that was set back to a snapshot
//! writes other content under names that are taken, and so does a second server under the same cluster name.

use crate::codec::Digest;
use crate::error::{Error, Kind};
use crate::fsio::{self, Problem, file_error};
use crate::pg::{Lsn, SegmentName, Timeline, WalFileName, WalSegmentSize};
use crate::postgres::Server;
use crate::repo::{ClusterName, Facts, Fetched, Repository};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// How a stored file compares with the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The same content.
    Same,
    /// Something else has its name.
    Other,
    /// The server's file is gone, or cannot be read: nothing is said.
    Unknown,
    /// Nothing is stored under the name.
    Absent,
}

/// Compares a whole file with what is stored under its name.
///
/// # Errors
/// As the store's; [`Kind::Config`] when the disk fails.
pub fn compare(
    repository: &Repository,
    cluster: &ClusterName,
    facts: Facts,
    file: &WalFileName,
    local: &Path,
) -> Result<Held, Error> {
    let Some(stored) = repository.wal_metadata(cluster, facts.system_id, file)? else { return Ok(Held::Absent) };
    let Some(local) = open(local)? else { return Ok(Held::Unknown) };
    let digest =
        Digest::of(&mut fsio::reader(&local)).map_err(|e| Error::new(Kind::Config, format!("cannot read {file}: {e}")))?;
    let is_same = (digest.bytes, digest.blake3) == (stored.plaintext_bytes, stored.plaintext_blake3);
    Ok(if is_same { Held::Same } else { Held::Other })
}

/// Compares the beginning of a file, which a standby may not have received whole, with what is stored under its name.
///
/// # Errors
/// As [`compare`].
pub fn compare_beginning(
    repository: &Repository,
    cluster: &ClusterName,
    facts: Facts,
    file: &WalFileName,
    local: &Path,
    bytes: u64,
) -> Result<Held, Error> {
    let Some(local) = open(local)? else { return Ok(Held::Unknown) };
    let mut sink = Compare { local, at: 0, until: bytes, differs: false };
    match repository.get_wal(cluster, facts, file, &mut sink)? {
        Fetched::Served(_) => Ok(if sink.differs { Held::Other } else { Held::Same }),
        Fetched::Absent | Fetched::Missing { .. } => Ok(Held::Absent),
    }
}

fn open(path: &Path) -> Result<Option<File>, Error> {
    match fsio::open_regular(path) {
        Ok((file, _)) => Ok(Some(file)),
        // Recycled meanwhile, or for the eyes of the server's user only.
        Err(e) if matches!(e.problem, Problem::Absent | Problem::Denied) => Ok(None),
        Err(e) => Err(file_error(Kind::Config, e)),
    }
}

/// Holds what is written against a file, up to a position.
struct Compare {
    local: File,
    at: u64,
    until: u64,
    differs: bool,
}

impl Write for Compare {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.until.saturating_sub(self.at)).unwrap_or(usize::MAX).min(bytes.len());
        let mut own = vec![0; wanted];
        let read = fsio::read_full_at(&self.local, Path::new("a WAL file"), &mut own, self.at).map_err(io::Error::other)?;
        self.differs |= read < wanted || bytes.get(..wanted) != Some(own.as_slice());
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What to say of a file whose name is taken by other content.
pub fn other_content(file: &WalFileName, repository: &Repository) -> Error {
    Error::new(
        Kind::Conflict,
        format!("{file} in {} is not the server's {file}: other content is stored under its name", repository.location()),
    )
    .hint(WAY_OUT)
}

const WAY_OUT: &str = "the server was set back to an earlier state, or another server writes under this cluster's name; nothing that it wrote since is \
    archived. Restore it with 'walvis pitr-restore', which begins a new timeline, or give it another cluster name with --cluster";

/// Refuses a primary behind which the repository has WAL already: whatever it writes next has a name that is taken.
///
/// # Errors
/// [`Kind::Conflict`]; as the store's; [`Kind::Server`].
pub fn refuse_set_back(repository: &Repository, cluster: &ClusterName, facts: Facts, server: &Server) -> Result<(), Error> {
    let Some((timeline, before)) = position(server, facts.wal_segment_size)? else { return Ok(()) };
    let mut last = None;
    repository.visit_segments(cluster, facts, timeline, (before, u64::MAX), &mut |number, _| last = Some(number))?;
    let Some(last) = last else { return Ok(()) };
    // Asked for after the list: what the server has archived meanwhile is behind this position.
    let Some((_, now)) = position(server, facts.wal_segment_size)? else { return Ok(()) };
    match SegmentName::from_number(timeline, last, facts.wal_segment_size) {
        Some(name) if last >= now => Err(Error::new(
            Kind::Conflict,
            format!("{} holds {name}, which the server has not written yet", repository.location()),
        )
        .hint(WAY_OUT)),
        _ => Ok(()),
    }
}

/// The timeline that a primary writes, and the number of the segment that it has not finished.
fn position(server: &Server, size: WalSegmentSize) -> Result<Option<(Timeline, u64)>, Error> {
    if server.value("SELECT pg_catalog.pg_is_in_recovery()")? == "t" {
        return Ok(None);
    }
    let row = server.row("SELECT lsn, pg_catalog.pg_walfile_name(lsn) FROM pg_catalog.pg_current_wal_insert_lsn() AS lsn")?;
    let row = row.unwrap_or_default();
    let [Some(lsn), Some(name)] = row.as_slice() else { return Ok(None) };
    let (Ok(Lsn(lsn)), Some(name)) = (lsn.parse(), SegmentName::parse(name)) else { return Ok(None) };
    Ok(Some((name.timeline, lsn / size.bytes())))
}
