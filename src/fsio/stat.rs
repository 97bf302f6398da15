//! The state of a file: what it is, whose, and whether it has changed.

use crate::limits::FILE_TIME_STEP;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag};

use super::{FsError, Problem};

/// What a name in a directory stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ItemKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Pipe, socket, device.
    Other,
    /// A symbolic link, or the file system does not say: ask [`Dir::stat`](super::Dir::stat).
    Unknown,
}

/// What identifies a state of a file: a changed file differs in at least one field (on a file system that keeps times;
/// the change time cannot be set by a program).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stat {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Number of names.
    pub links: u64,
    /// Owner.
    pub uid: u32,
    /// Permissions, set-id and sticky bits.
    pub mode: u32,
    /// Size in bytes.
    pub size_bytes: u64,
    /// What it takes on the disk, in bytes: holes take nothing.
    pub allocated_bytes: u64,
    /// Time of the last change of content: Unix seconds and nanoseconds.
    pub modified: (i64, i64),
    /// Time of the last change of content or attributes: Unix seconds and nanoseconds.
    pub changed: (i64, i64),
    /// What it is.
    pub kind: ItemKind,
}

/// The unit of `st_blocks`, whatever the file system's blocks are.
const ST_BLOCK: u64 = 512;

impl Stat {
    fn of(meta: &std::fs::Metadata) -> Self {
        let kind = if meta.is_file() {
            ItemKind::File
        } else if meta.is_dir() {
            ItemKind::Directory
        } else {
            ItemKind::Other
        };
        Self {
            dev: meta.dev(),
            ino: meta.ino(),
            links: meta.nlink(),
            uid: meta.uid(),
            mode: meta.mode() & 0o7777,
            size_bytes: meta.size(),
            allocated_bytes: meta.blocks().saturating_mul(ST_BLOCK),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            kind,
        }
    }
}

impl From<FileStat> for Stat {
    // The types of these fields differ between architectures.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    fn from(stat: FileStat) -> Self {
        let kind = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => ItemKind::File,
            SFlag::S_IFDIR => ItemKind::Directory,
            SFlag::S_IFLNK => ItemKind::Unknown,
            _ => ItemKind::Other,
        };
        Self {
            dev: stat.st_dev as u64,
            ino: stat.st_ino as u64,
            links: stat.st_nlink as u64,
            uid: stat.st_uid,
            mode: (stat.st_mode & 0o7777) as u32,
            size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
            allocated_bytes: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(ST_BLOCK),
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
            kind,
        }
    }
}

/// The state of an open file, which has to be a regular one.
///
/// # Errors
/// [`Problem::Unsupported`] when it is not; [`Problem::Failed`].
pub fn stat_open(file: &File, path: &Path) -> Result<Stat, FsError> {
    let stat = Stat::of(&file.metadata().map_err(|e| FsError::new("stat", path, e))?);
    if stat.kind == ItemKind::File {
        Ok(stat)
    } else {
        Err(FsError::because(Problem::Unsupported, "open", path, "it is not a regular file"))
    }
}

/// The state of what a path leads to, symbolic links followed; `None` when it is proven that nothing is there.
///
/// # Errors
/// Whatever keeps the answer from being known, [`Problem::Denied`] above all.
pub fn stat(path: &Path) -> Result<Option<Stat>, FsError> {
    match std::fs::metadata(path) {
        Ok(meta) => Ok(Some(Stat::of(&meta))),
        // ENOTDIR: a parent is a file, so nothing can be below it.
        Err(e) if matches!(e.raw_os_error().map(Errno::from_raw), Some(Errno::ENOENT | Errno::ENOTDIR)) => Ok(None),
        Err(e) => Err(FsError::new("stat", path, e)),
    }
}

/// The state of what has a name, a symbolic link itself and not what it leads to ([`ItemKind::Unknown`]); `None` when
/// it is proven that nothing is there.
///
/// # Errors
/// As [`stat`].
pub fn stat_no_follow(path: &Path) -> Result<Option<Stat>, FsError> {
    match nix::sys::stat::lstat(path) {
        Ok(stat) => Ok(Some(Stat::from(stat))),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(e) => Err(FsError::new("stat", path, e)),
    }
}

/// Whether something is there. "Cannot tell" is an error, never `false`.
///
/// # Errors
/// As [`stat`].
pub fn exists(path: &Path) -> Result<bool, FsError> {
    Ok(stat(path)?.is_some())
}

/// Who owns a file or directory, symbolic links followed.
///
/// # Errors
/// As [`stat`], and when it does not exist.
pub fn owner(path: &Path) -> Result<u32, FsError> {
    Ok(std::fs::metadata(path).map_err(|e| FsError::new("stat", path, e))?.uid())
}

/// Whether the last change of a file is so long ago that one yet to come will show in its times.
pub fn is_settled(stat: &Stat) -> bool {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let (Ok(seconds), Ok(nanoseconds)) = (u64::try_from(stat.changed.0), u32::try_from(stat.changed.1)) else { return false };
    now.checked_sub(Duration::new(seconds, nanoseconds.min(999_999_999))).is_some_and(|age| age >= FILE_TIME_STEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem<T>(outcome: Result<T, FsError>) -> Option<Problem> {
        outcome.err().map(|e| e.problem)
    }

    #[test]
    fn absence_is_told_from_ignorance() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        assert!(!exists(&file).unwrap());
        std::fs::write(&file, b"").unwrap();
        assert!(exists(&file).unwrap());
        assert!(!exists(&file.join("below")).unwrap());
        let loop_ = place.path().join("loop");
        std::os::unix::fs::symlink(&loop_, &loop_).unwrap();
        assert_eq!(problem(exists(&loop_)), Some(Problem::Unsupported));
    }

    #[test]
    fn what_changed_a_moment_ago_is_not_settled() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        std::fs::write(&path, "").unwrap();
        let mut changed = stat(&path).unwrap().unwrap();
        changed.changed.0 -= 1;
        assert!(is_settled(&changed));
        changed.changed.0 += 3600;
        assert!(!is_settled(&changed), "the clock was set back");
    }
}
