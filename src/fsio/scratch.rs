//! Files without a name in the directory for temporary files.

use crate::limits::SCRATCH_TRIED_BYTES;
use std::fs::File;
use std::io::Write as _;

use super::{FsError, Identity};

/// A file without a name in the directory for temporary files, for what is too long for memory: nobody else can open
/// it, and it is gone when the process ends, however that is.
///
/// # Errors
/// When it cannot be made.
pub fn scratch() -> Result<File, FsError> {
    let directory = std::env::temp_dir();
    // The environment names it, and so it is for this process, no matter whom a thread works as.
    let _as = Identity::own().enter()?;
    tempfile::tempfile_in(&directory).map_err(|e| {
        FsError::new("make a temporary file in", directory, e).with_hint("set TMPDIR to a directory that can be written to")
    })
}

/// Whether the directory for temporary files takes any, so that it is known before hours of work rather than in the
/// middle of them.
///
/// # Errors
/// When it does not.
pub fn try_scratch() -> Result<(), FsError> {
    let mut file = scratch()?;
    file.write_all(&[1; SCRATCH_TRIED_BYTES]).and_then(|()| file.sync_data()).map_err(|e| {
        FsError::new("write a temporary file in", std::env::temp_dir(), e).with_hint("set TMPDIR to a directory with room")
    })
}
