//! What `list` answers.

use crate::format::manifest::{BackupSummary, Database};
use crate::pg::scan::Parameters;
use crate::raw_text::RawText;
use crate::report::pin::PinnedUntil;
use crate::report::segments::SegmentRange;
use crate::report::setting::Setting;
use crate::report::time::Time;
use crate::report::verified::LastVerification;
use serde::Serialize;

/// One repository.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ListReport {
    /// URL.
    pub repository: String,
    /// Whether its objects are encrypted.
    pub encrypted: bool,
    /// By name.
    pub clusters: Vec<ListedCluster>,
}

/// One cluster.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ListedCluster {
    /// Its name.
    pub cluster: String,
    /// Its system identifiers, oldest first; the last is the current one.
    pub systems: Vec<ListedSystem>,
}

/// What is stored of one system identifier.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ListedSystem {
    /// System identifier, decimal text: it does not fit into the numbers of every JSON reader.
    pub system_id: String,
    /// PostgreSQL major version when the first file was pushed, where known.
    pub postgres_major: Option<u16>,
    /// Size of a segment.
    pub wal_segment_bytes: u64,
    /// By number.
    pub timelines: Vec<ListedTimeline>,
    /// Names of the stored timeline history files.
    pub histories: Vec<String>,
    /// Stored bytes of all these objects.
    pub stored_bytes: u64,
    /// Base backups, newest first.
    pub backups: Vec<ListedBackup>,
    /// The last verification of each mode, the newest first; null where that is not known.
    pub last_verifications: Option<Vec<LastVerification>>,
}

/// What is stored of one timeline.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ListedTimeline {
    /// Its number.
    pub timeline: u32,
    /// Number of segments.
    pub segments: u64,
    /// Name of the first.
    pub first_segment: Option<String>,
    /// Name of the last.
    pub last_segment: Option<String>,
    /// Number of runs of missing segments between first and last.
    pub missing_runs: u64,
    /// The first of them.
    pub missing: Vec<SegmentRange>,
    /// Number of `.partial` files.
    pub partials: u64,
    /// Number of backup history files.
    pub backup_histories: u64,
    /// Stored bytes.
    pub stored_bytes: u64,
}

/// A base backup.
#[derive(Debug, Serialize)]
#[serde(untagged)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum ListedBackup {
    /// Its manifest can be read.
    Readable(Box<ReadableBackup>),
    /// It cannot.
    Damaged {
        /// Its id.
        backup_id: String,
        /// What is wrong with it.
        damage: String,
    },
}

/// What is known of a base backup.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReadableBackup {
    /// Its id.
    pub backup_id: String,
    /// What the operator called it.
    pub label: String,
    /// When it began, by the clock of the database host.
    pub started_at: Option<Time>,
    /// When its last file was read.
    pub stopped_at: Option<Time>,
    /// How long that took, in seconds.
    pub duration_s: f64,
    /// Where recovery begins: the redo position of its checkpoint.
    pub start_lsn: String,
    /// The record of that checkpoint.
    pub checkpoint_lsn: String,
    /// Where a restored cluster is consistent.
    pub stop_lsn: String,
    /// The timeline that it was taken on.
    pub timeline: u32,
    /// System identifier, decimal.
    pub system_id: String,
    /// `server_version_num`.
    pub postgres_version_num: u32,
    /// Catalog version, part of the name of tablespace directories.
    pub catalog_version: u32,
    /// Size of a WAL segment.
    pub wal_segment_bytes: u64,
    /// Whether a standby was read.
    pub from_standby: bool,
    /// Number of files.
    pub files: u64,
    /// Their length.
    pub bytes: u64,
    /// What was stored for it, compressed, without the manifest.
    pub new_bytes: u64,
    /// Of the files' length, what earlier backups had stored already.
    pub reused_bytes: u64,
    /// What a restore has to read, compressed.
    pub stored_bytes: u64,
    /// Whether the cluster has page checksums.
    pub page_checksums: bool,
    /// Pages whose checksum fits.
    pub pages_verified: u64,
    /// Damaged pages.
    pub pages_damaged: u64,
    /// Id of the backup that it was compared with.
    pub parent_backup_id: Option<String>,
    /// The data directory that was read.
    pub data_directory: RawText,
    /// Number of files that were read at once.
    pub jobs: u32,
    /// What was skipped or odd: the first few.
    pub warnings: Vec<String>,
    /// Number of all warnings.
    pub warnings_total: u64,
    /// The server's settings that a hot standby has to match, where they are known.
    pub server_settings: Option<Vec<Setting>>,
    /// From when and where on it can be recovered: where it is consistent.
    pub window_from: WindowEnd,
    /// To when and where: where the archive ends that leads on from it; null if its WAL is not there.
    pub window_until: Option<WindowEnd>,
    /// Whether the WAL that it needs is there, where that is known.
    pub has_wal: Option<bool>,
    /// The pin that keeps it, if one does.
    pub pin: Option<PinnedUntil>,
    /// Its databases, if one was asked for.
    pub databases: Option<Vec<Database>>,
    /// Manifest, packs and WAL of it were all last verified after this moment; null if not all of them ever were, or if
    /// that is not known.
    pub verified_at: Option<Time>,
    /// How many of these were damaged then.
    pub damaged_objects: Option<u64>,
}

/// An end of a window.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WindowEnd {
    /// Position.
    pub lsn: String,
    /// Time, where one is known: when the backup ended, or the last transaction after it did.
    pub time: Option<Time>,
    /// The timeline that it is on.
    pub timeline: u32,
}

/// A stored file: a line of `list --files`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StoredFile {
    /// URL.
    pub repository: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Its name.
    pub file: String,
    /// Its stored size.
    pub stored_bytes: u64,
}

impl ReadableBackup {
    /// Of what the manifest says, without an end of its window.
    pub fn new(summary: &BackupSummary) -> Self {
        let took_us = summary.stopped_unix_us.saturating_sub(summary.started_unix_us);
        let stopped_at = Time::from_unix_us(summary.stopped_unix_us);
        Self {
            backup_id: summary.id.to_string(),
            label: summary.label.clone(),
            started_at: Time::from_unix_us(summary.started_unix_us),
            stopped_at,
            duration_s: took_us as f64 / 1e6,
            start_lsn: summary.start_lsn.to_string(),
            checkpoint_lsn: summary.checkpoint_lsn.to_string(),
            stop_lsn: summary.stop_lsn.to_string(),
            timeline: summary.timeline,
            system_id: summary.system_id.clone(),
            postgres_version_num: summary.postgres_version_num,
            catalog_version: summary.catalog_version,
            wal_segment_bytes: summary.wal_segment_bytes,
            from_standby: summary.from_standby,
            files: summary.files,
            bytes: summary.bytes,
            new_bytes: summary.new_bytes,
            reused_bytes: summary.reused_bytes,
            stored_bytes: summary.stored_bytes,
            page_checksums: summary.pages.enabled,
            pages_verified: summary.pages.verified,
            pages_damaged: summary.pages.damaged,
            parent_backup_id: summary.parent.map(|id| id.to_string()),
            data_directory: summary.data_directory.clone(),
            jobs: summary.jobs,
            warnings: summary.warnings.clone(),
            warnings_total: summary.warnings_total,
            server_settings: summary.parameters.as_ref().map(settings_of),
            window_from: WindowEnd { lsn: summary.stop_lsn.to_string(), time: stopped_at, timeline: summary.timeline },
            window_until: None,
            has_wal: None,
            pin: None,
            databases: None,
            verified_at: None,
            damaged_objects: None,
        }
    }
}

/// As the server shows them.
fn settings_of(parameters: &Parameters) -> Vec<Setting> {
    let wal_level = match parameters.wal_level {
        0 => "minimal".to_owned(),
        1 => "replica".to_owned(),
        2 => "logical".to_owned(),
        other => other.to_string(),
    };
    let switch = |on: bool| if on { "on" } else { "off" }.to_owned();
    vec![
        Setting::new("max_connections", parameters.max_connections.to_string()),
        Setting::new("max_worker_processes", parameters.max_worker_processes.to_string()),
        Setting::new("max_wal_senders", parameters.max_wal_senders.to_string()),
        Setting::new("max_prepared_transactions", parameters.max_prepared_transactions.to_string()),
        Setting::new("max_locks_per_transaction", parameters.max_locks_per_transaction.to_string()),
        Setting::new("wal_level", wal_level),
        Setting::new("wal_log_hints", switch(parameters.wal_log_hints)),
        Setting::new("track_commit_timestamp", switch(parameters.track_commit_timestamp)),
    ]
}
