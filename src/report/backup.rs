//! What `base-backup` reports.

use crate::format::manifest::{BackupFacts, BackupSummary, DamagedPage, Database, Tablespace};
use crate::raw_text::RawText;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// A backup that was taken.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BackupReport {
    /// URL of the repository.
    pub repository: String,
    /// Name of the cluster.
    pub cluster: String,
    /// System identifier, decimal.
    pub system_id: String,
    /// The backup's name.
    pub backup_id: String,
    /// What the operator called it.
    pub label: String,
    /// `server_version_num`.
    pub postgres_version_num: u32,
    /// Whether a standby was read.
    pub from_standby: bool,
    /// The data directory that was read.
    pub data_directory: RawText,
    /// Where recovery begins.
    pub start_lsn: String,
    /// Where a restored cluster is consistent.
    pub stop_lsn: String,
    /// The timeline that it was taken on.
    pub timeline: u32,
    /// Number of files.
    pub files: u64,
    /// Their length.
    pub bytes: u64,
    /// What was stored for it, compressed, without the manifest.
    pub new_bytes: u64,
    /// How long the manifest is, as it is stored.
    pub manifest_bytes: u64,
    /// How much was read of the files.
    pub read_bytes: u64,
    /// Of the files' length, what was taken over from the parent, since the log says that nothing changed it.
    pub taken_over_bytes: u64,
    /// Why everything was read, where there was an earlier backup.
    pub read_all_because: Option<String>,
    /// Of the files' length, what earlier backups had stored already.
    pub reused_bytes: u64,
    /// What a restore has to read.
    pub stored_bytes: u64,
    /// The backup it was compared with.
    pub parent_backup_id: Option<String>,
    /// Whether the cluster has page checksums.
    pub page_checksums: bool,
    /// Pages whose checksum fits.
    pub pages_verified: u64,
    /// Damaged pages.
    pub pages_damaged: u64,
    /// The first of them.
    pub damaged_pages: Vec<DamagedPage>,
    /// Databases.
    pub databases: Vec<Database>,
    /// Tablespaces outside the data directory.
    pub tablespaces: Vec<Tablespace>,
    /// Files outside the data directory that are in the backup, too.
    pub attachments: Vec<Attached>,
    /// What the operator noted.
    pub annotations: BTreeMap<String, String>,
    /// What was skipped or odd.
    pub warnings: Vec<String>,
    /// How many read at once.
    pub jobs: u32,
    /// From the start to the manifest, in seconds.
    pub duration_s: f64,
    /// Of these, waiting for the last WAL to be archived.
    pub waited_for_wal_s: f64,
}

/// What was read of the files.
#[derive(Debug)]
pub struct Read {
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Of the files' length, what was taken over from the parent.
    pub taken_over_bytes: u64,
    /// Why everything was read, where there was a parent.
    pub read_all_because: Option<String>,
}

/// What is known of a backup when it is stored, and not in it.
#[derive(Debug)]
pub struct Outcome {
    /// How long the manifest is, as it is stored.
    pub manifest_bytes: u64,
    /// What was read of the files.
    pub read: Read,
    /// From the start to the manifest.
    pub whole: Duration,
    /// Of these, waiting for the last WAL to be archived.
    pub waited_for_wal: Duration,
}

/// A file outside the data directory.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Attached {
    /// Where it was.
    pub path: RawText,
    /// The setting that leads to it.
    pub setting: String,
    /// Its length.
    pub bytes: u64,
}

impl BackupReport {
    /// Of a backup whose manifest is stored.
    pub fn new(repository: &str, cluster: &str, summary: BackupSummary, facts: BackupFacts, outcome: Outcome) -> Self {
        let Outcome { manifest_bytes, read, whole, waited_for_wal } = outcome;
        Self {
            repository: repository.to_owned(),
            cluster: cluster.to_owned(),
            system_id: summary.system_id,
            backup_id: summary.id.to_string(),
            label: summary.label,
            postgres_version_num: summary.postgres_version_num,
            from_standby: summary.from_standby,
            data_directory: summary.data_directory,
            start_lsn: summary.start_lsn.to_string(),
            stop_lsn: summary.stop_lsn.to_string(),
            timeline: summary.timeline,
            files: summary.files,
            bytes: summary.bytes,
            new_bytes: summary.new_bytes,
            manifest_bytes,
            read_bytes: read.read_bytes,
            taken_over_bytes: read.taken_over_bytes,
            read_all_because: read.read_all_because,
            reused_bytes: summary.reused_bytes,
            stored_bytes: summary.stored_bytes,
            parent_backup_id: summary.parent.map(|id| id.to_string()),
            page_checksums: summary.pages.enabled,
            pages_verified: summary.pages.verified,
            pages_damaged: summary.pages.damaged,
            damaged_pages: facts.damage,
            databases: facts.databases,
            tablespaces: facts.tablespaces,
            attachments: facts
                .attachments
                .into_iter()
                .map(|file| Attached { path: file.path, setting: file.setting, bytes: file.size_bytes })
                .collect(),
            annotations: facts.annotations,
            warnings: facts.warnings,
            jobs: summary.jobs,
            duration_s: whole.as_secs_f64(),
            waited_for_wal_s: waited_for_wal.as_secs_f64(),
        }
    }
}
