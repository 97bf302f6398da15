//! When what a recovery needs was last verified. It is said, and nothing is refused because of it; where evidence
//! cannot be read, that is said instead.
//!
//! Lives here: putting evidence beside what is needed. May not live here: what evidence is (`repo`), verifying.

use crate::error::Error;
use crate::format::extent::BackupId;
use crate::pg::{Lsn, Timeline};
use crate::repo::backups::BackupReferences;
use crate::repo::{Catalog, ClusterName, Facts, Remembered, Repository, SystemId, Verified};
use crate::report::resolve::ResolveReport;
use crate::report::verified;

/// What the newest evidence of a system identifier tells, as far back as it can say anything; `None`, with a line in
/// the log, where it cannot be read.
pub fn remembered(repository: &Repository, cluster: &ClusterName, system_id: SystemId) -> Option<Remembered> {
    match repository.lately_remembered(cluster, system_id, &mut |remembered| remembered.has_all()) {
        Ok(remembered) => {
            remembered.problems.iter().for_each(|problem| tracing::warn!("{problem}"));
            Some(remembered)
        }
        Err(error) => {
            tracing::warn!("when anything was last verified is not known: {error}");
            None
        }
    }
}

/// Adds to an answer when what it needs was last verified.
pub(super) fn add(repository: &Repository, cluster: &ClusterName, facts: Facts, report: &mut ResolveReport) {
    if !report.reachable || report.wal.is_none() {
        return;
    }
    match needed(repository, cluster, facts, report) {
        Ok(verified) => report.verified = Some(verified.into()),
        Err(error) => report.notes.push(format!("when this was last verified is not known: {error}")),
    }
}

/// What is known of the backup and the WAL of an answer.
fn needed(repository: &Repository, cluster: &ClusterName, facts: Facts, report: &ResolveReport) -> Result<Verified, Error> {
    let remembered = repository.lately_remembered(cluster, facts.system_id, &mut |remembered| remembered.has_all())?;
    let mut verified = Verified::default();
    let backup = report.backup.as_ref().and_then(|backup| backup.backup_id.as_deref()).and_then(BackupId::parse);
    if let Some(backup) = backup {
        let read = repository.read_manifest_head(cluster, facts.system_id, backup)?;
        // Names of packs and manifests are used once.
        if let Some((summary, head)) = read {
            let references = BackupReferences::of(&summary, &head);
            verified.extend(&remembered.checked.stored_backup(&references));
        }
    }
    for (timeline, range) in report.wal.iter().flat_map(|wal| &wal.ranges) {
        repository.visit_listed_segments(cluster, facts, *timeline, *range, &mut |number, object| {
            verified.add_stored(remembered.checked.segment(*timeline, number), object.modified_unix_s);
        })?;
    }
    Ok(verified)
}

/// What evidence says of the segments of a timeline that hold the log from one position up to another, by their names.
pub fn window(
    catalog: &Catalog<'_>,
    remembered: &Remembered,
    timeline: Timeline,
    (from, until): (Lsn, Lsn),
) -> verified::Verified {
    let size = catalog.facts().wal_segment_size;
    let (mut first, mut last) = (from.0 / size.bytes(), until.0.saturating_sub(1) / size.bytes());
    // What is open at an end goes no further than what is stored.
    let stored = catalog.timelines().iter().find(|info| info.timeline == timeline).and_then(|info| info.segments);
    if let Some((begin, end)) = stored.and_then(|(begin, end)| begin.number(size).zip(end.number(size))) {
        (first, last) = (first.max(begin), last.min(end));
    }
    remembered.checked.segments(timeline, first, last).into()
}
