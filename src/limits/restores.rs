//! Bounds of restores and of the search for where recovery stops.

use super::units::MIB;

/// A batch of small files is full with this many bytes, so that thousands of them cost few requests.
pub const RESTORE_BATCH_BYTES: u64 = 8 * MIB as u64;
/// Or with this many files.
pub const RESTORE_BATCH_FILES: usize = 2048;
/// Threads of a restore for each processor, where the operator does not say how many: each reads, then works, then
/// writes, and the processors are kept busy only while some of the others wait for the repository or the disk.
pub const RESTORE_JOBS_PER_CORE: usize = 4;
/// Most threads of a restore where the operator does not say how many.
pub const MAX_DEFAULT_RESTORE_JOBS: usize = 32;
/// Room that is left for the first WAL segments of recovery.
pub const SPARE_SEGMENTS: u64 = 2;
/// Tables of extents that wait to be asked for what of them is zeros.
pub const TABLES_ASKED: usize = 128;
/// Longest `postgresql.auto.conf` that is read: the server itself writes it, with a line per setting.
pub const MAX_AUTO_CONF_BYTES: usize = 16 * MIB;
/// Longest file that marks a directory as that of an unfinished restore: it lists those of the tablespaces.
pub const MAX_MARKER_BYTES: usize = MIB;

/// How far back from the server's own stop another one is looked for, in segments.
pub const MAX_BACK_SEGMENTS: u64 = 8;
/// How far back from there a snapshot of running transactions is looked for, in segments: the server logs
/// one every 15 s.
pub const MAX_SNAPSHOT_SEGMENTS: u64 = 4;
/// Most relations and locks that are remembered meanwhile: a few MB.
pub const MAX_REMEMBERED_LOCKS: usize = 100_000;
