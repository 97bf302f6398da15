//! How far a backup is, for its observers.

/// How far a backup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Waiting for the checkpoint that the backup begins with.
    Starting,
    /// Reading.
    Reading {
        /// So much was read.
        done_bytes: u64,
        /// Of so much.
        total_bytes: u64,
        /// Of this many files.
        files: u64,
    },
    /// Waiting for WAL to be archived.
    WaitingForWal,
}
