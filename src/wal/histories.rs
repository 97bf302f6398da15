//! Timeline histories that no archiver sends.
//!
//! A server that promotes with `archive_mode = off` never offers its `.history`, nor later when archiving is on: it
//! stays in `pg_wal` without a `.ready` file. But recovery to a numbered timeline ends at once where that timeline's
//! history is missing. So the history is stored with the WAL of its timeline, and anybody who counts on that WAL makes
//! sure of it.

use crate::codec::Digest;
use crate::config::Config;
use crate::error::{Error, Kind};
use crate::fsio::{self, Problem, Stat, directory_of, file_error};
use crate::limits::MAX_HISTORY_FILE_BYTES;
use crate::pg::{Timeline, TimelineHistory, WalFileName};
use crate::repo::{ClusterName, Content, Repository, SystemId};
use crate::wal::archive_status::is_never_offered;
use crate::wal::spool::Spool;
use std::path::{Path, PathBuf};

/// A history that goes with a segment of its timeline, because the server never offers it.
pub struct UnofferedHistory {
    path: PathBuf,
    /// Where to note that it is stored, so that not every call asks for it anew.
    record: Option<StoredRecord>,
}

struct StoredRecord {
    spool: Spool,
    name: WalFileName,
    /// Taken before it is stored: what is replaced meanwhile does not count.
    stat: Stat,
    descriptors: String,
}

impl UnofferedHistory {
    /// The histories that recovery needs on the timeline of this segment and that the server never offers, except those
    /// that a call of the last minutes stored.
    pub fn find(config: &Config, segment: &Path) -> Vec<Self> {
        let looked = unoffered_beside(segment).into_iter().filter_map(|path| {
            let Some((spool, name)) = Spool::of_file(config, &path) else { return Some(Self { path, record: None }) };
            if spool.pushed(&name, &path).is_some() {
                return None;
            }
            let record = match (fsio::stat(&path), spool.descriptors()) {
                (Ok(Some(stat)), Some(descriptors)) => Some(StoredRecord { spool, name, stat, descriptors }),
                _ => None,
            };
            Some(Self { path, record })
        });
        looked.collect()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes that it is stored in every required repository.
    pub fn record_stored(self) {
        tracing::debug!("{} is stored: the server never offered it", self.path.display());
        let Some(StoredRecord { spool, name, stat, descriptors }) = self.record else { return };
        if let Err(error) = spool.record_pushed(&name, &stat, &descriptors, &[], &[]) {
            tracing::debug!(%error, "cannot put on record that {name} is stored");
        }
    }
}

/// The histories of a segment's timeline and its ancestors that lie beside it, and that the server neither offered nor
/// is about to. What cannot be read is left out: it is a help, and not what was asked for.
fn unoffered_beside(path: &Path) -> Vec<PathBuf> {
    let Some(WalFileName::Segment(segment)) = path.file_name().and_then(|name| name.to_str()).and_then(WalFileName::parse) else {
        return Vec::new();
    };
    let directory = directory_of(path);
    let names = with_ancestors(directory, segment.timeline).into_iter().map(WalFileName::History);
    names.filter(|name| is_never_offered(directory, name)).map(|name| directory.join(name.to_string())).collect()
}

/// A timeline, after its ancestors: each of them only if its history lies in this directory.
fn with_ancestors(directory: &Path, timeline: Timeline) -> Vec<Timeline> {
    if timeline.0 <= 1 {
        return Vec::new();
    }
    let Ok(Some((history, _))) = read(directory, timeline) else { return Vec::new() };
    let there = |timeline: Timeline| timeline.0 > 1 && matches!(read(directory, timeline), Ok(Some(_)));
    let ancestors = history.ancestors.iter().map(|entry| entry.timeline).filter(|timeline| there(*timeline));
    ancestors.chain([timeline]).collect()
}

/// A history in `pg_wal`, and its bytes.
fn read(directory: &Path, timeline: Timeline) -> Result<Option<(TimelineHistory, Vec<u8>)>, Error> {
    let path = directory.join(WalFileName::History(timeline).to_string());
    let bytes = match fsio::read_bounded(&path, usize::try_from(MAX_HISTORY_FILE_BYTES).unwrap_or(usize::MAX)) {
        Ok(bytes) => bytes,
        Err(e) if e.problem == Problem::Absent => return Ok(None),
        Err(e) => return Err(file_error(Kind::Config, e)),
    };
    let history = TimelineHistory::parse(timeline, &bytes)
        .map_err(|e| Error::new(Kind::Damaged, format!("{} is no timeline history: {e}", path.display())))?;
    Ok(Some((history, bytes)))
}

/// Sees to it that a repository holds the history of a timeline, and of its ancestors those that lie in
/// `wal_directory`, too.
///
/// # Errors
/// [`Kind::Server`] when that of the timeline itself is neither in the repository nor in `wal_directory`;
/// [`Kind::Conflict`] when the repository holds another one; as the store's.
pub fn ensure(
    repository: &Repository,
    cluster: &ClusterName,
    system_id: SystemId,
    timeline: Timeline,
    wal_directory: &Path,
) -> Result<(), Error> {
    if timeline.0 <= 1 {
        return Ok(());
    }
    for known in with_ancestors(wal_directory, timeline) {
        let Some((_, bytes)) = read(wal_directory, known)? else { continue };
        let digest = Digest::of(&mut bytes.as_slice()).map_err(|e| Error::new(Kind::Bug, format!("hash a history: {e}")))?;
        // Stored once: the same content again is the answer that it is there.
        let content = Content::known(digest, || Box::new(bytes.as_slice()));
        match repository.put_wal(cluster, system_id, &WalFileName::History(known), &content) {
            Ok(_) => {}
            // No recovery on this timeline asks for the history of another one.
            Err(error) if known != timeline && error.kind == Kind::Conflict => {
                tracing::warn!("the history of timeline {known}: {error}");
            }
            Err(error) => return Err(error),
        }
    }
    if is_stored(repository, cluster, system_id, timeline)? {
        return Ok(());
    }
    Err(missing(timeline, repository))
}

/// Whether a repository holds the history of a timeline; that of the first is not needed.
///
/// # Errors
/// As the store's.
pub fn is_stored(repository: &Repository, cluster: &ClusterName, system_id: SystemId, timeline: Timeline) -> Result<bool, Error> {
    Ok(timeline.0 <= 1 || repository.wal_metadata(cluster, system_id, &WalFileName::History(timeline))?.is_some())
}

/// What to say where it does not.
pub fn missing(timeline: Timeline, repository: &Repository) -> Error {
    let name = WalFileName::History(timeline);
    Error::new(
        Kind::Server,
        format!("{name}, the history of the server's timeline, is not in {}: no recovery could reach this timeline", repository.location()),
    )
    .hint(format!(
        "find it, in pg_wal of this server or of one that it was made from, and run 'walvis push-wal pg_wal/{name}' in the data directory"
    ))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_server_does_not_offer_is_found() {
        let place = tempfile::tempdir().unwrap();
        let wal = place.path().join("pg_wal");
        std::fs::create_dir(&wal).unwrap();
        let segment = wal.join("000000040000000000000009");
        let names = |path: &Path| -> Vec<String> {
            unoffered_beside(path).iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
        };
        let write = |name: &str, text: &str| std::fs::write(wal.join(name), text).unwrap();
        write("00000004.history", "1\t0/1000000\tx\n2\t0/2000000\tx\n3\t0/3000000\tx\n");
        write("00000002.history", "1\t0/1000000\tx\n");
        assert!(names(&segment).is_empty(), "no pg_wal");
        std::fs::create_dir(wal.join("archive_status")).unwrap();
        assert_eq!(names(&segment), ["00000002.history", "00000004.history"]);
        write("archive_status/00000002.history.done", "");
        assert_eq!(names(&segment), ["00000004.history"]);
        write("archive_status/00000004.history.ready", "");
        assert!(names(&segment).is_empty());
        for other in ["000000010000000000000009", "000000030000000000000009", "00000004.history", "x"] {
            assert!(names(&wal.join(other)).is_empty(), "{other}");
        }
    }
}
