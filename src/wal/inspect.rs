//! A WAL file on this host, looked at before it is sent: is it what its name says, of which cluster is it, and what is
//! in it?
//!
//! Lives here: [`inspect`]. May not live here: where the file goes ([`deliver`](crate::wal::deliver)).
//!
//! The file is read through one open descriptor, and as a rule once: to check, hash, scan and compress it. What is too
//! long to wait in memory, or changed a moment ago, is read again for each repository, and checked against the hash of
//! the first pass.

use crate::codec::{Compressed, Compressing, Digest, SharedCompressed};
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::changes;
use crate::fsio::{self, Stat, file_error};
use crate::limits::{MAX_CONTENTS_IN_MEMORY, MAX_HISTORY_FILE_BYTES, MAX_SUMMARY_BYTES};
use crate::pg::changes::Collector;
use crate::pg::scan::{End, Scanner, Segment};
use crate::pg::{BackupHistory, SegmentHead, TimelineHistory, WalFileName, WalSegmentSize};
use crate::postgres::control_file;
use crate::repo::{Facts, SystemId};
use std::fs::File;
use std::io::{self, Read, Write};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

/// A file that is what its name says.
pub struct InspectedFile {
    /// Its name.
    pub name: WalFileName,
    /// Open for reading.
    pub file: File,
    /// Its state when it was opened.
    pub stat: Stat,
    /// Hash and length of the content.
    pub digest: Digest,
    /// The encoded summary of what the scan found; `None` for files without WAL.
    pub wal_summary: Option<Vec<u8>>,
    /// The encoded set of what it changed; `None` for all but segments.
    pub wal_changes: Option<Vec<u8>>,
    /// The content, where one pass was enough.
    pub compressed: SharedCompressed,
    /// The facts of its cluster.
    pub facts: Facts,
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::new(Kind::Config, format!("cannot read {}: {error}", path.display()))
}

/// Opens a file, checks it against its name and the data directory that it lies in, and reads it: all before anything
/// is sent.
///
/// # Errors
/// [`Kind::Usage`]: it has no WAL file's name; [`Kind::Config`]: it cannot be read; [`Kind::Damaged`]: it is not what
/// its name says; [`Kind::Refused`]: it is of another cluster.
pub fn inspect(path: &Path, config: &Config, deadline: &Deadline) -> Result<InspectedFile, Error> {
    inspect_and_keep(path, config, deadline, true)
}

/// As [`inspect`] does, several files that are sent together. Only of the first few the content waits in memory; all
/// others are read again when they are sent, so that any number of them takes no more.
///
/// # Errors
/// As [`inspect`]: the first one's.
pub fn inspect_all(paths: &[&Path], config: &Config, deadline: &Deadline) -> Result<Vec<InspectedFile>, Error> {
    let inspect = |(index, path): (usize, &&Path)| inspect_and_keep(path, config, deadline, index < MAX_CONTENTS_IN_MEMORY);
    paths.iter().enumerate().map(inspect).collect()
}

fn inspect_and_keep(path: &Path, config: &Config, deadline: &Deadline, keeps: bool) -> Result<InspectedFile, Error> {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(WalFileName::parse).ok_or_else(|| {
        Error::new(Kind::Usage, format!("{} is not the name of a file that PostgreSQL archives", path.display()))
            .hint("use archive_command = 'walvis push-wal %p'")
    })?;
    let (file, stat) = fsio::open_regular(path).map_err(|e| file_error(Kind::Config, e))?;
    let control = match data_directory(path) {
        Some(directory) => control_file::of_data_directory(&directory, deadline)?,
        None => None,
    };
    let as_named = match name {
        WalFileName::Segment(segment) | WalFileName::Partial(segment) => {
            let head = SegmentHead::read(fsio::reader(&file)).map_err(|e| unreadable(path, &e))?;
            match head.check(segment, stat.size_bytes) {
                Ok(page) => Ok(Some(Facts {
                    system_id: SystemId(page.system_id),
                    wal_segment_size: page.segment_size,
                    postgres_major: Some(page.major),
                })),
                Err(e) => Err(not_as_named(path, &e.to_string())),
            }
        }
        WalFileName::Backup(..) | WalFileName::History(_) => check_text(&name, path, &file).map(|()| None),
    };
    let facts = match (as_named, name) {
        (Ok(Some(facts)), _) => facts,
        (Ok(None), _) => control.ok_or_else(|| unknown_cluster(path))?,
        // Recovery never asks for these: damaged on this disk, they must not keep what it needs from being archived.
        (Err(error), WalFileName::Partial(_) | WalFileName::Backup(..)) if error.kind == Kind::Damaged => {
            let facts = control.ok_or_else(|| unknown_cluster(path))?;
            tracing::warn!("{}: it is archived all the same, as it is: recovery never asks for it", error.what);
            facts
        }
        (Err(error), _) => return Err(error),
    };
    if let Some(expected) = control.map(|c| c.system_id).filter(|expected| *expected != facts.system_id) {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "{} is of system identifier {}, its data directory is {expected}: a foreign file, not archived",
                path.display(),
                facts.system_id
            ),
        )
        .hint("find out how a file of another cluster came into pg_wal"));
    }
    let level = config.repositories.first().map_or(1, |repository| repository.compression_level);
    let takers = config.repositories.iter().filter(|repository| repository.compression_level == level).count();
    // Content of one pass counts only if nobody wrote meanwhile, which the time of change tells unless it is of this
    // very moment.
    let compressed_at = (keeps && fsio::is_settled(&stat)).then_some((level, stat.size_bytes));
    let FileContent { digest, wal_summary, wal_changes, compressed } =
        read_content(&name, &file, facts.wal_segment_size, compressed_at).map_err(|e| unreadable(path, &e))?;
    if fsio::stat_open(&file, path).map_err(|e| file_error(Kind::Config, e))?.changed != stat.changed {
        return Err(Error::new(
            Kind::Damaged,
            format!("{}: the file changed while it was read; nothing was stored", path.display()),
        )
        .hint("PostgreSQL never changes a file that is ready to be archived: find out who writes into pg_wal"));
    }
    let compressed = SharedCompressed::for_takers(takers, compressed);
    Ok(InspectedFile { name, file, stat, digest, wal_summary, wal_changes, compressed, facts })
}

/// What one pass over a file gives.
struct FileContent {
    digest: Digest,
    wal_summary: Option<Vec<u8>>,
    wal_changes: Option<Vec<u8>>,
    compressed: Option<Compressed>,
}

/// Hashes a file, scans what has WAL in it, and compresses it if a level and its length are given: all in one pass.
/// What the scan finds wrong is for the summary to say, and never keeps a file from being archived: it may be all that
/// is left.
fn read_content(
    name: &WalFileName,
    file: &File,
    size: WalSegmentSize,
    compressed_at: Option<(i32, u64)>,
) -> io::Result<FileContent> {
    let which = match name {
        WalFileName::Segment(segment) | WalFileName::Partial(segment) => Segment::new(*segment, size),
        WalFileName::Backup(..) | WalFileName::History(_) => None,
    };
    let plain = || {
        let digest = Digest::of(&mut fsio::reader(file))?;
        Ok(FileContent { digest, wal_summary: None, wal_changes: None, compressed: None })
    };
    let Some(which) = which else { return plain() };
    // A defect of the scan must not keep a segment from being archived either.
    let scanned = catch_unwind(|| {
        let compressing = compressed_at.map(|(level, bytes)| Compressing::new(level, bytes)).transpose()?;
        let mut consumer = ScanAndCompress { scan: Scanner::new(which, Collector::new(size.bytes())), compressing };
        let digest = Digest::of_copied(&mut fsio::reader(file), &mut consumer)?;
        // Of another length than it had: two passes will tell.
        let compressed = consumer.compressing.and_then(|compressing| compressing.finish().ok().flatten());
        let scanned = consumer.scan.finish();
        Ok::<_, io::Error>((digest, scanned.summary, scanned.visitor.finish(), compressed))
    });
    let (digest, summary, changed, compressed) = match scanned {
        Ok(scanned) => scanned?,
        Err(_) => {
            tracing::error!("{name}: the scan failed by a defect of Walvis; it is archived unscanned");
            return plain();
        }
    };
    // A .partial ends in the middle of the log: what follows is whatever the file held before.
    if matches!(name, WalFileName::Segment(_)) {
        match &summary.end {
            End::Damaged(damage) => {
                tracing::warn!("{name}: recovery will stop in it, at {}: {damage}; it is archived all the same", damage.at);
            }
            End::EndOfData { at } => {
                tracing::warn!("{name}: recovery will stop in it, at {at}: there is no more data; it is archived all the same");
            }
            End::Full | End::Continues(_) | End::Continuation | End::Switch { .. } => {}
        }
    }
    // Of what a .partial changed nobody asks.
    let span = matches!(name, WalFileName::Segment(_)).then(|| changes::span_of(which)).flatten();
    let wal_changes = span.map(|span| changes::encode(span, &changed));
    let left = MAX_SUMMARY_BYTES.saturating_sub(wal_changes.as_ref().map_or(0, Vec::len));
    Ok(FileContent { digest, wal_summary: summary.encode_within(left), wal_changes, compressed })
}

/// Hands what is read to the scan and to the compression.
struct ScanAndCompress {
    scan: Scanner<Collector>,
    compressing: Option<Compressing>,
}

impl Write for ScanAndCompress {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.scan.push(bytes);
        if let Some(compressing) = &mut self.compressing
            && compressing.write_all(bytes).is_err()
        {
            // It became longer than it was: two passes will tell.
            self.compressing = None;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn unknown_cluster(path: &Path) -> Error {
    Error::new(
        Kind::Config,
        format!("cannot tell which cluster {} belongs to: it does not lie in a data directory", path.display()),
    )
    .hint("run it in the data directory, as PostgreSQL does: cd DATA_DIRECTORY && walvis push-wal pg_wal/NAME")
}

/// `<data directory>/pg_wal/<file>`; a relative path is relative to the data directory, where PostgreSQL runs the
/// command.
fn data_directory(path: &Path) -> Option<PathBuf> {
    let parent = path.parent()?;
    let directory = parent.parent()?;
    Some(if directory.as_os_str().is_empty() { PathBuf::from(".") } else { directory.to_owned() })
}

fn check_text(name: &WalFileName, path: &Path, file: &File) -> Result<(), Error> {
    let mut bytes = Vec::new();
    fsio::reader(file).take(MAX_HISTORY_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|e| unreadable(path, &e))?;
    if bytes.len() as u64 > MAX_HISTORY_FILE_BYTES {
        return Err(not_as_named(path, &format!("it has more than {MAX_HISTORY_FILE_BYTES} bytes")));
    }
    let checked = match name {
        WalFileName::History(timeline) => TimelineHistory::parse(*timeline, &bytes).map(drop),
        WalFileName::Backup(segment, _) => BackupHistory::parse(*segment, &bytes).map(drop),
        WalFileName::Segment(_) | WalFileName::Partial(_) => Ok(()),
    };
    checked.map_err(|e| not_as_named(path, &e.to_string()))
}

fn not_as_named(path: &Path, why: &str) -> Error {
    Error::new(Kind::Damaged, format!("{} is not what its name says: {why}", path.display())).hint(
        "it was not archived; PostgreSQL will offer it again; if it stays so, the file is damaged on disk: look for a good copy on a standby, take a new base \
         backup, and check the disk",
    )
}
