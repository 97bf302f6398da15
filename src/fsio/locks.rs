//! Locks that end with their holder, however that ends: one function tries, everything else says what the outcome
//! means.

use crate::limits::{LOCK_ATTEMPTS, LOCK_PAUSE};
use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;

use super::{Dir, FsError, open_regular};

/// The outcome of trying to lock an open file.
#[derive(Debug)]
pub(super) enum Tried {
    /// It is locked until the file is closed.
    Locked,
    /// Another process has locked it.
    Busy,
    /// The file system has no locks, or the system says something else.
    Unsupported(std::io::Error),
}

/// Tries to lock an open file.
pub(super) fn try_lock(file: &File) -> Tried {
    outcome(file.try_lock())
}

fn outcome(tried: Result<(), TryLockError>) -> Tried {
    match tried {
        Ok(()) => Tried::Locked,
        Err(TryLockError::WouldBlock) => Tried::Busy,
        Err(TryLockError::Error(e)) => Tried::Unsupported(e),
    }
}

/// A lock that is held until it is dropped, or its process ends.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Whether this path still leads to what is locked. If not, the lock keeps nobody away any more.
    pub fn is_at(&self, path: &Path) -> bool {
        let own = nix::sys::stat::fstat(&self.0).ok();
        let there = nix::sys::stat::lstat(path).ok();
        own.zip(there).is_some_and(|(own, there)| (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino))
    }
}

/// Takes a lock that belongs to one process at a time; `None` when another holds it, or locks do not work there.
///
/// # Errors
/// When its file cannot be made.
pub fn lock(path: &Path) -> Result<Option<Lock>, FsError> {
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(|e| FsError::new("open", path, e))?;
    // Who only looks holds it for a moment.
    for _ in 0..LOCK_ATTEMPTS {
        match try_lock(&file) {
            Tried::Locked => return Ok(Some(Lock(file))),
            Tried::Busy => std::thread::sleep(LOCK_PAUSE),
            Tried::Unsupported(_) => return Ok(None),
        }
    }
    Ok(None)
}

/// Whether a process holds this lock. `false` when it is not known.
pub fn is_locked(path: &Path) -> bool {
    let Ok((file, _)) = open_regular(path) else { return false };
    matches!(outcome(file.try_lock_shared()), Tried::Busy)
}

impl Dir {
    /// Locks it; `None` when another process has locked it.
    ///
    /// # Errors
    /// When the file system does not answer.
    pub fn lock(&self) -> Result<Option<Lock>, FsError> {
        // An open file of its own: the lock goes with it.
        let file = self.open_file(".", OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0)?;
        let file = file.ok_or_else(|| FsError::new("open directory", self.path(), Errno::ENOENT))?;
        match try_lock(&file) {
            Tried::Locked => Ok(Some(Lock(file))),
            Tried::Busy => Ok(None),
            // Without locks two restores at once cannot be told, and the restore works all the same.
            Tried::Unsupported(e) if e.raw_os_error() == Some(Errno::ENOLCK as i32) => Ok(Some(Lock(file))),
            Tried::Unsupported(e) => Err(FsError::new("lock", self.path(), e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_by_one_and_seen_by_others() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("lock");
        assert!(!is_locked(&path));
        let held = lock(&path).unwrap().unwrap();
        assert!(is_locked(&path) && lock(&path).unwrap().is_none() && held.is_at(&path));
        std::fs::rename(&path, place.path().join("renamed")).unwrap();
        assert!(!held.is_at(&path));
        let other = lock(&path).unwrap().unwrap();
        assert!(!held.is_at(&path) && other.is_at(&path), "a file of the same name is another lock");
        drop((held, other));
        assert!(!is_locked(&path) && lock(&path).unwrap().is_some());
    }

    #[test]
    fn a_locked_directory_is_told() {
        let place = tempfile::tempdir().unwrap();
        let dir = Dir::open(place.path()).unwrap();
        let held = dir.lock().unwrap();
        assert!(held.is_some() && dir.lock().unwrap().is_none());
        drop(held);
        assert!(dir.lock().unwrap().is_some());
    }
}
