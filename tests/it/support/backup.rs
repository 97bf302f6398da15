//! Base backups that nobody took.

use walvis::format::extent::BackupId;
use walvis::format::manifest::{BackupSummary, PageChecksums};
use walvis::pg::Lsn;
use walvis::repo::SystemId;

/// The summary of a backup of no files, of a cluster with segments of 16 MiB.
pub fn made_up(id: BackupId, system_id: SystemId) -> BackupSummary {
    BackupSummary {
        id,
        label: "nightly".to_owned(),
        started_unix_us: id.started_unix_s * 1_000_000,
        stopped_unix_us: id.started_unix_s * 1_000_000,
        start_lsn: Lsn(0x100_0028),
        checkpoint_lsn: Lsn(0x100_0060),
        stop_lsn: Lsn(0x100_0100),
        timeline: 1,
        system_id: system_id.to_string(),
        postgres_version_num: 160_004,
        catalog_version: 202_307_071,
        wal_segment_bytes: 16 << 20,
        from_standby: false,
        files: 0,
        bytes: 0,
        new_bytes: 0,
        reused_bytes: 0,
        stored_bytes: 0,
        pages: PageChecksums::default(),
        parent: None,
        data_directory: "/var/lib/postgresql/16/main".into(),
        warnings: Vec::new(),
        warnings_total: 0,
        parameters: None,
        jobs: 1,
    }
}
