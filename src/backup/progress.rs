//! How far a backup is, for the display of progress.

/// How far a backup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Waiting for the checkpoint that the backup begins with.
    Starting,
    /// Reading.
    Reading {
        /// Read so far.
        done_bytes: u64,
        /// Length of all files.
        total_bytes: u64,
        /// Number of files.
        files: u64,
    },
    /// Waiting for WAL to be archived.
    WaitingForWal,
}
