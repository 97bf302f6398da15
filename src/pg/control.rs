//! `global/pg_control`: which cluster a data directory is (`catalog/pg_control.h`).

use super::lsn::{Lsn, Timeline, WalSegmentSize};
use super::page_checksum::{PAGE_BYTES, PAGES_PER_SEGMENT};
use super::scan::Parameters;

/// Size of the file; the content is shorter.
pub const PG_CONTROL_BYTES: usize = 8192;
// Offsets, the same in all versions from 13 to 18.
const CATALOG_VERSION_AT: usize = 12;
const STATE_AT: usize = 16;
const CHECKPOINT_AT: usize = 32;
const REDO_AT: usize = 40;
const TIMELINE_AT: usize = 48;
const MIN_RECOVERY_POINT_AT: usize = 136;
const MIN_RECOVERY_TIMELINE_AT: usize = 144;
const WAL_LEVEL_AT: usize = 172;
const WAL_LOG_HINTS_AT: usize = 176;
const MAX_CONNECTIONS_AT: usize = 180;
const MAX_WORKER_PROCESSES_AT: usize = 184;
const MAX_WAL_SENDERS_AT: usize = 188;
const MAX_PREPARED_TRANSACTIONS_AT: usize = 192;
const MAX_LOCKS_PER_TRANSACTION_AT: usize = 196;
const TRACK_COMMIT_TIMESTAMP_AT: usize = 200;
const PAGE_SIZE_AT: usize = 216;
const PAGES_PER_SEGMENT_AT: usize = 220;
const WAL_SEGMENT_SIZE_AT: usize = 228;
const CHECKSUM_VERSION_AT: usize = 252;

/// What the cluster is doing, or was when it stopped (`DBState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    /// Being started, or never was.
    StartingUp,
    /// Stopped in good order.
    ShutDown,
    /// Stopped in good order, as a standby.
    ShutDownInRecovery,
    /// Stopping.
    ShuttingDown,
    /// Recovering after a crash.
    CrashRecovery,
    /// Recovering from an archive, or following a primary.
    ArchiveRecovery,
    /// Running (or crashed while it ran).
    InProduction,
}

impl ClusterState {
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::StartingUp,
            1 => Self::ShutDown,
            2 => Self::ShutDownInRecovery,
            3 => Self::ShuttingDown,
            4 => Self::CrashRecovery,
            5 => Self::ArchiveRecovery,
            6 => Self::InProduction,
            _ => return None,
        })
    }
}

/// What Walvis needs of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlFile {
    /// System identifier.
    pub system_id: u64,
    /// `pg_control_version`: 1300 for 13 to 16, 1700, 1800.
    pub control_version: u32,
    /// WAL segment size.
    pub wal_segment_size: WalSegmentSize,
    /// `catalog_version_no`, part of the name of tablespace directories.
    pub catalog_version: u32,
    /// What the cluster is doing.
    pub state: ClusterState,
    /// Position of the last checkpoint's record.
    pub checkpoint: Lsn,
    /// Where recovery from that checkpoint begins.
    pub redo: Lsn,
    /// The timeline of that checkpoint.
    pub timeline: Timeline,
    /// On a standby, how far recovery has to come before the files are consistent; 0 elsewhere.
    pub min_recovery_point: Lsn,
    /// The timeline of that position.
    pub min_recovery_timeline: Timeline,
    /// Settings of the server that wrote it, or, on a standby, of the primary as far as it was followed.
    pub parameters: Parameters,
    /// Whether data pages carry checksums.
    pub page_checksums: bool,
    /// `BLCKSZ` of the build.
    pub page_bytes: u32,
    /// `RELSEG_SIZE` of the build.
    pub pages_per_file: u32,
}

/// Why the bytes are not a readable `pg_control`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlFileError {
    /// Too short.
    #[error("pg_control has only {0} bytes")]
    Short(usize),
    /// Written by a version that Walvis does not know.
    #[error("pg_control version {0} is of no PostgreSQL from 13 to 18")]
    Version(u32),
    /// CRC-32C does not fit: damaged, or read while it was being written (read it again).
    #[error("pg_control is damaged: its checksum does not fit")]
    Checksum,
    /// A segment size that no cluster can have.
    #[error("pg_control says an impossible WAL segment size, {0}")]
    SegmentSize(u32),
    /// A state that no cluster can have.
    #[error("pg_control says an unknown state, {0}")]
    State(u32),
}

impl ControlFile {
    /// Whether the server was built with the sizes of pages and relation files that every distribution uses.
    pub fn has_usual_layout(&self) -> bool {
        self.page_bytes as usize == PAGE_BYTES && u64::from(self.pages_per_file) == PAGES_PER_SEGMENT
    }

    /// Reads it. The checksum covers everything before it, at byte 288 (13 to 17) or 292 (18).
    ///
    /// # Errors
    /// See [`ControlFileError`]; only `Checksum` can pass by reading again.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlFileError> {
        let short = || ControlFileError::Short(bytes.len());
        let u32_at = |i: usize| -> Option<u32> { bytes.get(i..)?.first_chunk().map(|b| u32::from_le_bytes(*b)) };
        let control_version = u32_at(8).ok_or_else(short)?;
        let crc_at = match control_version {
            1300 | 1700 => 288,
            1800 => 292,
            other => return Err(ControlFileError::Version(other)),
        };
        let covered = bytes.get(..crc_at).ok_or_else(short)?;
        if crc32c::crc32c(covered) != u32_at(crc_at).ok_or_else(short)? {
            return Err(ControlFileError::Checksum);
        }
        let segment_bytes = u32_at(WAL_SEGMENT_SIZE_AT).ok_or_else(short)?;
        let wal_segment_size =
            WalSegmentSize::new(u64::from(segment_bytes)).ok_or(ControlFileError::SegmentSize(segment_bytes))?;
        let u64_at = |i: usize| bytes.get(i..).and_then(|b| b.first_chunk()).map(|b| u64::from_le_bytes(*b)).ok_or_else(short);
        let u32_at = |i: usize| u32_at(i).ok_or_else(short);
        let i32_at = |i: usize| u32_at(i).map(u32::cast_signed);
        let flag_at = |i: usize| bytes.get(i).map(|byte| *byte != 0).ok_or_else(short);
        let state = u32_at(STATE_AT)?;
        Ok(Self {
            system_id: u64_at(0)?,
            control_version,
            wal_segment_size,
            catalog_version: u32_at(CATALOG_VERSION_AT)?,
            state: ClusterState::from_number(state).ok_or(ControlFileError::State(state))?,
            checkpoint: Lsn(u64_at(CHECKPOINT_AT)?),
            redo: Lsn(u64_at(REDO_AT)?),
            timeline: Timeline(u32_at(TIMELINE_AT)?),
            min_recovery_point: Lsn(u64_at(MIN_RECOVERY_POINT_AT)?),
            min_recovery_timeline: Timeline(u32_at(MIN_RECOVERY_TIMELINE_AT)?),
            parameters: Parameters {
                max_connections: i32_at(MAX_CONNECTIONS_AT)?,
                max_worker_processes: i32_at(MAX_WORKER_PROCESSES_AT)?,
                max_wal_senders: i32_at(MAX_WAL_SENDERS_AT)?,
                max_prepared_transactions: i32_at(MAX_PREPARED_TRANSACTIONS_AT)?,
                max_locks_per_transaction: i32_at(MAX_LOCKS_PER_TRANSACTION_AT)?,
                wal_level: i32_at(WAL_LEVEL_AT)?,
                wal_log_hints: flag_at(WAL_LOG_HINTS_AT)?,
                track_commit_timestamp: flag_at(TRACK_COMMIT_TIMESTAMP_AT)?,
            },
            page_checksums: u32_at(CHECKSUM_VERSION_AT)? != 0,
            page_bytes: u32_at(PAGE_SIZE_AT)?,
            pages_per_file: u32_at(PAGES_PER_SEGMENT_AT)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u32, crc_at: usize) -> Vec<u8> {
        let mut bytes = vec![0; PG_CONTROL_BYTES];
        bytes[0..8].copy_from_slice(&7_123_456_789u64.to_le_bytes());
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        bytes[216..220].copy_from_slice(&8192u32.to_le_bytes());
        bytes[220..224].copy_from_slice(&131_072u32.to_le_bytes());
        bytes[228..232].copy_from_slice(&(64u32 << 20).to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..crc_at]);
        bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn it_reads_every_layout_and_refuses_damage() {
        for (version, crc_at) in [(1300, 288), (1700, 288), (1800, 292)] {
            let good = file(version, crc_at);
            let control = ControlFile::parse(&good).unwrap();
            assert_eq!((control.system_id, control.wal_segment_size.bytes()), (7_123_456_789, 64 << 20));
            assert!(control.has_usual_layout() && !control.page_checksums);
            for i in 0..crc_at + 4 {
                let mut bad = good.clone();
                bad[i] ^= 1;
                assert!(ControlFile::parse(&bad).is_err(), "byte {i}");
            }
            for len in 0..crc_at + 4 {
                assert!(ControlFile::parse(&good[..len]).is_err());
            }
        }
        assert_eq!(ControlFile::parse(&file(1201, 288)), Err(ControlFileError::Version(1201)));
    }
}
