//! The error of the file system: what was being done, to what, what the system said, and what the operator can do.

use std::path::PathBuf;

use nix::errno::Errno;

use super::users::{thread_user, user_name};
use crate::raw_text::shown;

/// What went wrong, in the terms that decide what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Problem {
    /// The path, or a directory on the way to it, does not exist.
    Absent,
    /// The path exists and must not be touched.
    Exists,
    /// File system or quota full.
    NoSpace,
    /// A read-only file system.
    ReadOnly,
    /// Permissions.
    Denied,
    /// Somebody else can change where it leads to, or has a hand in what is there: root keeps out.
    Unsafe,
    /// The file system or the kind of file cannot do what is needed.
    Unsupported,
    /// Larger than the bound of the caller.
    TooLarge,
    /// Everything else: I/O error, stale mount, too many open files.
    Failed,
}

/// An error of the file system.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {detail}", shown(path))]
pub struct FsError {
    /// What decides what to do.
    pub problem: Problem,
    /// What was being done, present tense: `open`, `sync`.
    pub action: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the system said, one line.
    pub detail: String,
    /// What the operator can do.
    pub hint: Option<String>,
}

impl FsError {
    /// Makes an error from what the system said.
    pub fn new(action: &'static str, path: impl Into<PathBuf>, error: impl Into<std::io::Error>) -> Self {
        let error = error.into();
        let path = path.into();
        let problem = error.raw_os_error().map_or(Problem::Failed, problem_of);
        let hint = match problem {
            Problem::NoSpace => Some("free space on that file system, or raise the quota, and try again".to_owned()),
            Problem::ReadOnly => Some("mount that file system read-write".to_owned()),
            Problem::Denied => {
                Some(format!("give user {} access: see owner and mode of it and its parents", user_name(thread_user())))
            }
            Problem::Failed => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EMFILE | Errno::ENFILE) => Some("raise the limit on open files (ulimit -n)".to_owned()),
                Some(Errno::EIO | Errno::ESTALE | Errno::ENODEV | Errno::ENXIO | Errno::ENOTCONN) => {
                    Some("check the disk or the mount; the kernel log says more".to_owned())
                }
                _ => None,
            },
            Problem::Unsupported if error.raw_os_error() == Some(Errno::EFBIG as i32) => Some(
                "raise the limit on the size of files (ulimit -f, LimitFSIZE=), or use a file system that can hold it".to_owned(),
            ),
            Problem::Absent | Problem::Exists | Problem::Unsupported | Problem::TooLarge | Problem::Unsafe => None,
        };
        Self { problem, action, path, detail: error.to_string(), hint }
    }

    /// Makes an error that the system did not report.
    pub fn because(problem: Problem, action: &'static str, path: impl Into<PathBuf>, detail: impl Into<String>) -> Self {
        Self { problem, action, path: path.into(), detail: detail.into(), hint: None }
    }

    /// Says what the operator can do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<FsError> for std::io::Error {
    fn from(error: FsError) -> Self {
        Self::other(error)
    }
}

fn problem_of(raw: i32) -> Problem {
    match Errno::from_raw(raw) {
        Errno::ENOENT => Problem::Absent,
        Errno::EEXIST | Errno::ENOTEMPTY => Problem::Exists,
        Errno::ENOSPC | Errno::EDQUOT => Problem::NoSpace,
        Errno::EROFS => Problem::ReadOnly,
        Errno::EACCES | Errno::EPERM => Problem::Denied,
        Errno::EOPNOTSUPP
        | Errno::ENOSYS
        | Errno::EXDEV
        | Errno::ENAMETOOLONG
        | Errno::ELOOP
        | Errno::ENOTDIR
        | Errno::EISDIR
        | Errno::EFBIG
        | Errno::EMLINK => Problem::Unsupported,
        _ => Problem::Failed,
    }
}
