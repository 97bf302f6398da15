//! Changing what has a name: renaming and removing files.

use std::path::Path;

use nix::libc;

use super::FsError;

/// Renames a file over whatever file has the new name, atomically, within one file system. Not made durable.
///
/// # Errors
/// [`Absent`](super::Problem::Absent), [`Unsupported`](super::Problem::Unsupported) across file systems,
/// [`Denied`](super::Problem::Denied), others.
pub fn rename_over(from: &Path, to: &Path) -> Result<(), FsError> {
    std::fs::rename(from, to).map_err(|e| {
        let mut error = FsError::new("rename", from, e);
        error.detail = format!("to {}: {}", to.display(), error.detail);
        error
    })
}

/// Removes a file. Says whether it was there. Not made durable.
///
/// # Errors
/// [`Denied`](super::Problem::Denied), [`ReadOnly`](super::Problem::ReadOnly),
/// [`Unsupported`](super::Problem::Unsupported) for a directory, others.
pub fn remove_file(path: &Path) -> Result<bool, FsError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(FsError::new("remove", path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsio::Problem;

    fn problem<T>(outcome: Result<T, FsError>) -> Option<Problem> {
        outcome.err().map(|e| e.problem)
    }

    #[test]
    fn files_are_moved_and_removed() {
        let place = tempfile::tempdir().unwrap();
        let (from, to) = (place.path().join("from"), place.path().join("to"));
        assert_eq!(problem(rename_over(&from, &to)), Some(Problem::Absent));
        std::fs::write(&from, b"new").unwrap();
        std::fs::write(&to, b"old").unwrap();
        rename_over(&from, &to).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"new");
        assert!(remove_file(&to).unwrap());
        assert!(!remove_file(&to).unwrap());
        assert!(problem(remove_file(place.path())).is_some());
    }
}
