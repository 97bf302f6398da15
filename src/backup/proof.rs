//! The proof that the log tells all that changed since the parent began; or why not, and then everything is read.
//!
//! `docs/CHANGES.md` says what the log shows and what it does not. What is asked here besides: that the parent is of
//! this path of timelines, and that what pages look like on disk is the same (checksums, versions, no damage).
//!
//! May not live here: which extents follow from it ([`untouched`](super::untouched)).

use crate::backup::context::BackupContext;
use crate::backup::parent::ParentHead;
use crate::error::{Error, Kind};
use crate::fsio::{self, Problem, file_error};
use crate::limits::MAX_LOCAL_WAL_BYTES;
use crate::pg::changes::{ChangeSet, Collector, Incomplete};
use crate::pg::scan::{Scanner, Segment};
use crate::pg::{Lsn, SegmentHead, SegmentName, Timeline, WalFileName};
use crate::repo::catalog::{ChangesBetween, Path};
use std::io;

/// What is known of the changes since the parent began.
pub(crate) enum Proof {
    /// All of them.
    Complete(ChangeSet),
    /// Not all: this is missing.
    Missing(String),
}

/// Looks for the changes from the parent's start to that of this backup, in the catalog and, where segments are not
/// archived yet, in `pg_wal`.
///
/// # Errors
/// [`Kind::Server`]; unreachable; as the caller's, who is asked whether to go on. That something cannot be read is no
/// error, but a reason.
pub(crate) fn prove(backup: &BackupContext<'_>, parent: &ParentHead, start: Lsn) -> Result<Proof, Error> {
    if let Some(why) = differs(backup, parent) {
        return Ok(Proof::Missing(why));
    }
    let timeline = Timeline(backup.source.timeline(backup.control.timeline)?);
    match changes(backup, parent, timeline, start) {
        Ok(Ok(changes)) => Ok(match changes.is_everything() {
            Some(everything) => {
                let segment = SegmentName::from_number(timeline, everything.segment, backup.source.wal_segment_size);
                let segment = segment.map_or_else(String::new, |segment| format!(" (WAL segment {segment} or before it)"));
                Proof::Missing(format!("{everything}{segment}"))
            }
            None => Proof::Complete(changes),
        }),
        Ok(Err(why)) => Ok(Proof::Missing(why)),
        // Nothing depends on it: whatever the matter is with the catalog, or with pg_wal, all files can be read.
        Err(error) if matches!(error.kind, Kind::Damaged | Kind::Denied | Kind::Target | Kind::Config) => {
            Ok(Proof::Missing(error.what))
        }
        Err(error) => Err(error),
    }
}

/// What makes the pages of two backups different without a record.
fn differs(backup: &BackupContext<'_>, parent: &ParentHead) -> Option<String> {
    let (parent, control) = (&parent.summary, &backup.control);
    let id = parent.id;
    if backup.request.read_all {
        return Some("--read-all".to_owned());
    }
    if parent.pages.damaged > 0 {
        return Some(format!("backup {id} has damaged pages"));
    }
    if parent.pages.enabled != control.page_checksums {
        let now = if control.page_checksums { "on" } else { "off" };
        return Some(format!("page checksums were switched {now} since backup {id}"));
    }
    if parent.catalog_version != control.catalog_version {
        return Some(format!("backup {id} is of another version of PostgreSQL"));
    }
    if parent.wal_segment_bytes != backup.source.wal_segment_size.bytes() {
        return Some(format!("WAL segments had another size when backup {id} was taken"));
    }
    None
}

fn changes(
    backup: &BackupContext<'_>,
    parent: &ParentHead,
    timeline: Timeline,
    start: Lsn,
) -> Result<Result<ChangeSet, String>, Error> {
    let catalog = backup.repository.catalog(backup.cluster, backup.source.facts())?;
    let path = catalog.path(timeline)?;
    let parent = &parent.summary;
    let (from, stop) = (parent.start_lsn, parent.stop_lsn);
    // What a backup stored until its stop is of its own timeline.
    let leg = path.legs().iter().find(|leg| leg.timeline.0 == parent.timeline);
    if !leg.is_some_and(|leg| leg.begin <= from && stop <= leg.end) {
        return Ok(Err(format!("backup {} is not in the past of this server, which is on timeline {timeline}", parent.id)));
    }
    // A standby begins where it last was consistent on disk. What the parent stored later would be of the future for a
    // recovery that ends between here and there.
    if start < stop {
        return Ok(Err(format!("backup {} ended at {stop}, and this one begins at {start} already", parent.id)));
    }
    let mut between = catalog.changes(&path, from, start)?;
    if let Err(why) = add_local(backup, &path, &mut between, (from, start))? {
        return Ok(Err(why.to_string()));
    }
    tracing::debug!(
        "changes since {from}: {} nodes, {} segments, {} of them scanned",
        between.nodes,
        between.segments,
        between.scanned
    );
    Ok(between.finish(start).map_err(|why| match why {
        Incomplete::Unknown(_) => format!("{why}: 'walvis catalog rebuild' finds it out"),
        _ => why.to_string(),
    }))
}

/// Adds what is in `pg_wal` and not stored yet: as a rule the segment in which the backup begins, which the server is
/// still writing. All that comes before the backup's start is on disk.
fn add_local(
    backup: &BackupContext<'_>,
    path: &Path,
    between: &mut ChangesBetween,
    (from, to): (Lsn, Lsn),
) -> Result<Result<(), Incomplete>, Error> {
    let until = between.joined.until().unwrap_or(Lsn(from.0 - from.0 % path.segment_size().bytes()));
    if until >= to {
        return Ok(Ok(()));
    }
    // The first that is not stored, and nothing else, may be what ended the union.
    let next = path.number(until);
    let Some(name) = path.leg_name(next) else { return Ok(Err(Incomplete::NoRange)) };
    match between.stopped {
        None => {}
        Some(Incomplete::Missing(missing)) if missing == name => {}
        Some(_) => return Ok(Ok(())),
    }
    let last = path.number(Lsn(to.0.saturating_sub(1)));
    if (last - next).saturating_mul(path.segment_size().bytes()) > MAX_LOCAL_WAL_BYTES {
        return Ok(Err(Incomplete::Missing(name)));
    }
    for number in next..=last {
        (backup.hooks.go_on)()?;
        let Some(name) = path.leg_name(number) else { return Ok(Err(Incomplete::NoRange)) };
        if let Err(why) = add_segment(backup, path, between, name)? {
            return Ok(Err(why));
        }
    }
    between.stopped = None;
    Ok(Ok(()))
}

/// Scans a segment in `pg_wal`.
fn add_segment(
    backup: &BackupContext<'_>,
    path: &Path,
    between: &mut ChangesBetween,
    name: SegmentName,
) -> Result<Result<(), Incomplete>, Error> {
    let missing = Ok(Err(Incomplete::Missing(name)));
    let file = backup.source.wal_directory().join(WalFileName::Segment(name).to_string());
    let (open, stat) = match fsio::open_regular(&file) {
        Ok(opened) => opened,
        // Archived and used for another one meanwhile.
        Err(e) if e.problem == Problem::Absent => return missing,
        Err(e) => return Err(file_error(Kind::Config, e)),
    };
    let unreadable = |e: io::Error| Error::new(Kind::Config, format!("cannot read {}: {e}", file.display()));
    let head = SegmentHead::read(fsio::reader(&open)).map_err(unreadable)?;
    let is_its_own = head.check(name, stat.size_bytes).is_ok_and(|page| page.system_id == backup.source.system_id.0);
    let Some(segment) = Segment::new(name, path.segment_size()).filter(|_| is_its_own) else { return missing };
    let mut scanner = Scanner::new(segment, Collector::new(path.segment_size().bytes()));
    io::copy(&mut fsio::reader(&open), &mut scanner).map_err(unreadable)?;
    let scanned = scanner.finish();
    between.scanned += 1;
    Ok(between.joined.push(&scanned.summary, &scanned.visitor.finish()))
}
