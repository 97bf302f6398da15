//! WAL in the `pg_wal` of a data directory that is taken over, and nowhere else: what was committed last, most often.
//! It would be gone with the directory.

use crate::codec::Digest;
use crate::error::{Error, Kind};
use crate::fsio::{self, Dir};
use crate::limits::MAX_NAMES_IN_MESSAGE;
use crate::pg::scan::{Head, Scanner, Segment, Summary};
use crate::pg::{Lsn, SegmentHead, SegmentName, Timeline, WalFileName};
use crate::raw_text::shown;
use crate::repo::Facts;
use crate::repo::catalog::Catalog;
use crate::report::restore::UnarchivedFile;
use crate::report::time::Time;
use crate::restore::files::Source;
use crate::restore::target_directory::local;
use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What to say when there is some, and nobody allowed it to go.
pub(crate) fn refusal(pgdata: &Path, location: &str, files: &[UnarchivedFile]) -> Error {
    let mut names: Vec<String> = files.iter().take(MAX_NAMES_IN_MESSAGE).map(UnarchivedFile::describe).collect();
    if files.len() > MAX_NAMES_IN_MESSAGE {
        names.push(format!("and {} more", files.len() - MAX_NAMES_IN_MESSAGE));
    }
    let what = format!(
        "{}/pg_wal has WAL that is not in {location}, and --delta would throw it away: {}",
        shown(pgdata),
        names.join(", ")
    );
    Error::new(Kind::Refused, what).hint(
        "start that server and stop it in good order: it archives them then ('walvis push-wal FILE' stores one that waits); or go on \
         without them: --discard-unarchived-wal",
    )
}

/// Looks for WAL that is nowhere else, ascending by name.
///
/// # Errors
/// As of reading the directory and the repository.
pub(crate) fn find(pgdata: &Dir, source: &Source<'_>, facts: Facts) -> Result<Vec<UnarchivedFile>, Error> {
    // It may be a link. What is read there the directory's user could read himself.
    let Some(directory) = pgdata.open_below("pg_wal").map_err(local)? else { return Ok(Vec::new()) };
    let names = directory.sorted_names().map_err(local)?;
    let states: HashSet<String> = match directory.open_below("archive_status").map_err(local)? {
        Some(states) => states.sorted_names().map_err(local)?.into_iter().filter_map(|name| name.into_string().ok()).collect(),
        None => HashSet::new(),
    };
    let mut look = Look { directory: &directory, source, facts, catalog: None };
    let mut found = Vec::new();
    for name in names {
        let Some(file) = name.to_str().and_then(WalFileName::parse) else { continue };
        if states.contains(&format!("{file}.done")) {
            continue;
        }
        let waits = states.contains(&format!("{file}.ready"));
        match file {
            WalFileName::Segment(segment) | WalFileName::Partial(segment) => found.extend(look.segment(&file, segment, waits)?),
            WalFileName::History(_) if waits => found.extend(look.other(&file)?),
            // No recovery needs it.
            WalFileName::History(_) | WalFileName::Backup(..) => {}
        }
    }
    Ok(found)
}

struct Look<'a> {
    directory: &'a Dir,
    source: &'a Source<'a>,
    facts: Facts,
    /// Opened when it is needed.
    catalog: Option<Catalog<'a>>,
}

impl<'a> Look<'a> {
    fn is_stored(&self, file: &WalFileName, digest: &Digest) -> Result<bool, Error> {
        let Source { repository, cluster, system_id, .. } = *self.source;
        Ok(repository.wal_metadata(cluster, system_id, file)?.is_some_and(|metadata| digest.matches(&metadata)))
    }

    fn other(&self, file: &WalFileName) -> Result<Option<UnarchivedFile>, Error> {
        let path = self.directory.path().join(file.to_string());
        let Some((open, _)) = self.directory.open_regular(file.to_string()).map_err(local)? else { return Ok(None) };
        let digest = Digest::of(&mut fsio::reader(&open)).map_err(|e| unreadable(&path, &e))?;
        let found = || UnarchivedFile { file: file.to_string(), waits: true, commits: Some(0), last_commit_at: None };
        Ok((!self.is_stored(file, &digest)?).then(found))
    }

    fn segment(&mut self, file: &WalFileName, name: SegmentName, waits: bool) -> Result<Option<UnarchivedFile>, Error> {
        let path = self.directory.path().join(file.to_string());
        let unknown = || UnarchivedFile { file: file.to_string(), waits, commits: None, last_commit_at: None };
        let Some((open, stat)) = self.directory.open_regular(file.to_string()).map_err(local)? else { return Ok(None) };
        let head = SegmentHead::read(fsio::reader(&open)).map_err(|e| unreadable(&path, &e))?;
        // One that was made or renamed for later use has no content of its name yet.
        let is_its_own = head
            .check(name, stat.size_bytes)
            .is_ok_and(|page| page.system_id == self.facts.system_id.0 && page.segment_size == self.facts.wal_segment_size);
        let Some(segment) = Segment::new(name, self.facts.wal_segment_size).filter(|_| is_its_own) else {
            return Ok(waits.then(unknown));
        };
        let mut scan = Scanner::new(segment, ());
        let digest = Digest::of_copied(&mut fsio::reader(&open), &mut scan).map_err(|e| unreadable(&path, &e))?;
        if self.is_stored(file, &digest)? {
            return Ok(None);
        }
        let summary = scan.finish().summary;
        let Some(commits) = commits_of(&summary) else { return Ok(Some(unknown())) };
        let mut missing = commits;
        // The same commits may be in the same segment as it was completed, or on a timeline that this one left, or that
        // left this one.
        if !missing.is_empty() || ends_a_record(&summary) {
            let stored = self.stored(name)?;
            if stored.is_empty() && ends_a_record(&summary) && !waits {
                return Ok(Some(unknown()));
            }
            for stored in &stored {
                let Some(known) = commits_of(stored) else { return Ok(Some(unknown())) };
                missing.retain(|commit| !known.contains(commit));
            }
        }
        if missing.is_empty() && !waits {
            return Ok(None);
        }
        Ok(Some(UnarchivedFile {
            commits: Some(missing.len() as u64),
            last_commit_at: missing.iter().map(|commit| commit.2).max().and_then(Time::from_unix_us),
            ..unknown()
        }))
    }

    /// What is stored of the segment's number, on each timeline.
    fn stored(&mut self, name: SegmentName) -> Result<Vec<Summary>, Error> {
        let Source { repository, cluster, system_id, .. } = *self.source;
        let mut found = Vec::new();
        if let Some(metadata) = repository.wal_metadata(cluster, system_id, &WalFileName::Partial(name))? {
            found.extend(metadata.wal_summary.and_then(|bytes| Summary::decode(&bytes).ok()));
        }
        let catalog = match &mut self.catalog {
            Some(catalog) => catalog,
            none => none.insert(repository.catalog(cluster, self.facts)?),
        };
        let timelines: Vec<Timeline> = catalog.timelines().iter().map(|info| info.timeline).collect();
        for timeline in timelines {
            found.extend(catalog.summary(SegmentName { timeline, ..name })?.map(Arc::unwrap_or_clone));
        }
        Ok(found)
    }
}

/// A commit: where, of which transaction, when.
type Commit = (Lsn, Option<u32>, i64);

/// The commits of a segment; `None` when the list of them was left out.
fn commits_of(summary: &Summary) -> Option<Vec<Commit>> {
    let Some(list) = &summary.xacts else { return summary.xact_stats.is_none().then(Vec::new) };
    let commits = list.iter().filter(|entry| entry.end.kind.is_commit());
    Some(
        commits
            .map(|entry| (entry.lsn, entry.end.xid.map(|xid| xid.get()), entry.end.time.unix_us().unwrap_or(i64::MAX)))
            .collect(),
    )
}

/// Whether a record that began in the segment before ends in this one: what it says is not in the summary.
fn ends_a_record(summary: &Summary) -> bool {
    matches!(&summary.head, Head::Continuation { rem_len, piece, dead: false } if piece.len() == u64::from(*rem_len))
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::new(Kind::Config, format!("cannot read {}: {error}", shown(path)))
        .hint("nothing was touched: find out what is wrong with the disk, or move that file away")
}
