//! From copied files to a backup that counts: its manifest, what is known of it, and the check that nothing happened
//! meanwhile that keeps a database from coming back.

use crate::backup::context::BackupContext;
use crate::backup::copy_cluster::CopiedCluster;
use crate::backup::progress::Progress;
use crate::backup::source::Source;
use crate::backup::unrestorable;
use crate::backup::wal::{self, NeededWal};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::manifest::{BackupFacts, BackupSummary, DamagedPage, Database, PageChecksums};
use crate::limits::{MAX_SUMMARY_WARNINGS, MAX_WARNINGS};
use crate::pg::{SegmentName, Timeline};
use crate::repo::ObjectSet;
use crate::repo::backups::{BackupWal, FinishedManifest};
use crate::report::backup::Read;

/// A backup whose manifest is complete. It counts when its WAL has arrived and the manifest is stored.
pub(crate) struct FinishedBackup {
    /// Its manifest.
    pub manifest: FinishedManifest,
    /// The head of it.
    pub facts: BackupFacts,
    /// What is known of it without its manifest.
    pub summary: BackupSummary,
    /// The timeline of the stop.
    pub stop_timeline: Timeline,
    /// What was read of the files.
    pub read: Read,
}

impl FinishedBackup {
    /// The timelines of the start and of the stop.
    fn timelines(&self) -> (Timeline, Timeline) {
        (Timeline(self.summary.timeline), self.stop_timeline)
    }
}

/// Puts the manifest of a backup together.
///
/// # Errors
/// [`Kind::Bug`] for what a manifest cannot hold.
pub(crate) fn finish_manifest(
    backup: &BackupContext<'_>,
    copied: CopiedCluster,
    label: String,
    started: jiff::Timestamp,
) -> Result<FinishedBackup, Error> {
    let source = backup.source;
    let CopiedCluster { stopped, mut manifest, attachments, tablespaces, hash_key, packed, parent, stop_timeline, reading } =
        copied;
    let (files, bytes, stored_bytes) = (manifest.files, manifest.bytes, manifest.stored_bytes());
    let told = std::mem::take(&mut manifest.told);
    let pages = PageChecksums { enabled: backup.control.page_checksums, verified: told.verified, damaged: told.damaged };
    let read = Read { read_bytes: reading.read_bytes, taken_over_bytes: told.taken_bytes, read_all_because: reading.because };
    let mut damage: Vec<DamagedPage> = told
        .damage
        .into_iter()
        .map(|damage| DamagedPage { file: damage.path.into(), block: damage.block, relation: None, detail: damage.detail })
        .collect();
    source.name_relations(&mut damage);
    let mut warnings = told.warnings;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    warnings.truncate(MAX_WARNINGS);
    let facts = BackupFacts {
        hash_key: hex::encode(hash_key),
        databases: source.databases.clone(),
        tablespaces,
        annotations: backup.request.annotations.clone(),
        damage,
        warnings,
        attachments,
        verified_up_to: reading.verified_up_to,
    };
    let summary = BackupSummary {
        id: backup.id,
        label,
        started_unix_us: started.as_microsecond(),
        stopped_unix_us: jiff::Timestamp::now().as_microsecond(),
        start_lsn: stopped.label.start,
        checkpoint_lsn: stopped.label.checkpoint,
        stop_lsn: stopped.stop,
        timeline: stopped.label.timeline.0,
        system_id: source.system_id.to_string(),
        postgres_version_num: source.version_num,
        catalog_version: backup.control.catalog_version,
        wal_segment_bytes: source.wal_segment_size.bytes(),
        from_standby: stopped.label.from_standby,
        files,
        bytes,
        new_bytes: packed.stored_bytes,
        reused_bytes: told.reused_bytes,
        stored_bytes,
        pages,
        parent: parent.as_ref().map(|parent| parent.summary.id),
        data_directory: source.data_directory.as_path().into(),
        jobs: u32::try_from(backup.workers).unwrap_or(u32::MAX),
        warnings: facts.warnings.iter().take(MAX_SUMMARY_WARNINGS).cloned().collect(),
        warnings_total: facts.warnings.len() as u64,
        parameters: Some(backup.control.parameters),
    };
    let manifest = manifest.finish(&facts, |pack| {
        let of_parent = || parent.as_ref().and_then(|parent| parent.packs.total_bytes(pack));
        packed.packs.get(&pack).copied().or_else(of_parent)
    })?;
    Ok(FinishedBackup { manifest, facts, summary, stop_timeline, read })
}

/// Refuses a backup that needs WAL which a tombstone names: what is stored under these names, now or soon, may be
/// deleted at any time.
///
/// # Errors
/// [`Kind::Refused`].
pub(crate) fn refuse_wal_that_goes(
    backup: &BackupContext<'_>,
    finished: &FinishedBackup,
    tombstoned: &ObjectSet,
) -> Result<(), Error> {
    let size = backup.source.wal_segment_size;
    let (Timeline(first), Timeline(last)) = finished.timelines();
    for timeline in (first..=last).map(Timeline) {
        let named = BackupWal::of(&finished.summary).segments(size).find(|number| tombstoned.has_segment(timeline, *number));
        if let Some(name) = named.and_then(|number| SegmentName::from_number(timeline, number, size)) {
            let what = format!(
                "the backup needs WAL segment {name}, and a tombstone in {} says that what is stored under this name shall go: the \
                 backup does not count",
                backup.repository.location()
            );
            return Err(Error::new(Kind::Refused, what).hint(
                "this server was set back to an earlier state, and writes its past anew: give it a timeline of its own (a recovery that \
                 ends does), or run 'walvis expire --confirm' until the tombstone is gone; then take the backup again",
            ));
        }
    }
    Ok(())
}

/// Waits until the repository holds the WAL that the backup needs. `deadline` says how long nothing may happen.
///
/// # Errors
/// [`Kind::Server`] when it does not arrive; as the store's.
pub(crate) fn wait_for_wal(backup: &BackupContext<'_>, finished: &FinishedBackup, deadline: Deadline) -> Result<(), Error> {
    (backup.hooks.progress)(Progress::WaitingForWal);
    if let Some(primary) = &backup.request.primary {
        wal::switch_on_primary(primary, backup.source.facts(), deadline)?;
    }
    let needed = NeededWal {
        repository: backup.repository,
        cluster: backup.cluster,
        facts: backup.source.facts(),
        start: finished.summary.start_lsn,
        stop: finished.summary.stop_lsn,
        timelines: finished.timelines(),
    };
    needed.wait(backup.source, deadline.limit(), backup.hooks.go_on)
}

/// Refuses a backup that a database could not be restored from, by what the WAL says was done to databases meanwhile.
///
/// # Errors
/// [`Kind::Problems`]; as the catalog's.
pub(crate) fn check_databases(backup: &BackupContext<'_>, finished: &FinishedBackup) -> Result<(), Error> {
    let source = backup.source;
    let range = (finished.summary.start_lsn, finished.summary.stop_lsn);
    let found = unrestorable::databases(backup.repository, backup.cluster, source.facts(), finished.timelines(), range)?;
    match unrestorable::error(&found, &|oid| name_of(source, oid)) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// What a database is called, for a message.
fn name_of(source: &Source<'_>, oid: u32) -> String {
    let known = source.databases.iter().find(|database: &&Database| database.oid == oid).map(|database| database.name.clone());
    let asked = || {
        let expression = format!("(SELECT datname FROM pg_catalog.pg_database WHERE oid = {oid})");
        source.server.text(&expression).ok().flatten()
    };
    known.or_else(asked).map_or_else(|| format!("with oid {oid}"), |name| format!("{name} (oid {oid})"))
}
