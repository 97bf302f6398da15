//! The file system, raw: the only module that opens, writes, renames or removes files.
//!
//! Lives here: directory handles ([`Dir`]), reading a tree that others write to ([`scan_live`]), whose rights root works with ([`Identity`], [`Rooted`]), the durable publish of one file ([`AtomicFile`]), a tree of published files ([`Tree`]), and
//! the few helpers that the rest needs ([`read_bounded`], [`open_regular`], [`create_secret`], …). `clippy.toml` bans the calls of
//! `std::fs` everywhere else, so that no caller can forget an fsync. May not live here: what the bytes mean, retries, store
//! errors. Depends on `limits` only.
//!
//! Every error names the path, what was being done, what the system said, and where possible what the operator can do.

#![allow(clippy::disallowed_methods)] // The one place where they are allowed.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;

use crate::raw_text::shown;

mod append;
mod atomic_file;
mod below;
mod dir;
mod direct;
mod identity;
mod kernel;
mod live;
mod named;
mod private_dir;
mod restore_tree;
mod rooted;
mod temp;
mod tree;
mod trust;

pub use append::append_line;
pub use atomic_file::{AtomicFile, Durability, Published};
pub use below::{Lock, unfinished_name};
pub use dir::{Dir, Item, ItemKind};
pub use direct::{DirectReader, DirectWriter};
pub use identity::{Entered, Identity};
pub use kernel::{
    Process, SharedMemory, Worker, booted_unix_s, may_write, process, sees_every_process, shared_memory, workers_in,
};
pub use live::{
    Attributes, LiveDir, LiveKind, OwnerNames, attributes, link_target, open_live, present_size, read_full_at, real_path,
    scan_live,
};
pub use named::{as_owner_of, as_owner_of_all, directory_of, file_error, local_error};
pub use private_dir::{
    Boot, Held, TIME_STEP, detach, free_bytes, is_locked, is_settled, lock, make_own_dir, own_user, owner, private_dir,
    write_volatile,
};
pub use restore_tree::{Owner, RestoreTree, available_bytes, zero_range};
pub use rooted::{Found, Missing, Rooted};
pub use temp::{TEMP_PREFIX, TempFiles, sweep};
pub use tree::{TEMP_DIR, Tree};
pub use trust::{ChangeableBy, Exposure, changeable_by_others};

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
                Some(format!("give user {} access: see owner and mode of it and its parents", Identity::current().name()))
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

/// What identifies a state of a file: a changed file differs in at least one field (on a file system that keeps times; the change
/// time cannot be set by a program).
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
    /// Time of the last change of content: Unix seconds and nanoseconds.
    pub modified: (i64, i64),
    /// Time of the last change of content or attributes: Unix seconds and nanoseconds.
    pub changed: (i64, i64),
    /// What it is.
    pub kind: ItemKind,
}

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
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            kind,
        }
    }
}

/// Opens a regular file for reading. Anything else (directory, pipe, device) is refused without blocking.
///
/// # Errors
/// [`Problem::Absent`], [`Problem::Denied`], [`Problem::Unsupported`] when it is not a regular file, [`Problem::Failed`].
pub fn open_regular(path: &Path) -> Result<(File, Stat), FsError> {
    // O_NONBLOCK: opening a pipe without a writer would wait forever. It has no effect on regular files.
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(|e| FsError::new("open", path, e))?;
    let stat = stat_open(&file, path)?;
    Ok((file, stat))
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

/// Reads a whole small file.
///
/// # Errors
/// As [`open_regular`]; [`Problem::TooLarge`] when it has more than `max_bytes` bytes.
pub fn read_bounded(path: &Path, max_bytes: usize) -> Result<Vec<u8>, FsError> {
    let (file, stat) = open_regular(path)?;
    read_open(file, &stat, path, max_bytes)
}

fn read_open(file: File, stat: &Stat, path: &Path, max_bytes: usize) -> Result<Vec<u8>, FsError> {
    let expected = usize::try_from(stat.size_bytes).unwrap_or(usize::MAX).min(max_bytes);
    let mut bytes = Vec::with_capacity(expected.saturating_add(1));
    let limit = u64::try_from(max_bytes).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(|e| FsError::new("read", path, e))?;
    if bytes.len() > max_bytes {
        return Err(FsError::because(Problem::TooLarge, "read", path, format!("it is larger than {max_bytes} bytes")));
    }
    Ok(bytes)
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

/// The state of what has a name, a symbolic link itself and not what it leads to ([`ItemKind::Unknown`]); `None` when it is proven
/// that nothing is there.
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

/// Reads an open file from its beginning, wherever others read in it: the same file twice, even if its name is gone by then.
pub fn reader(file: &File) -> impl Read + '_ {
    reader_from(file, 0)
}

/// As [`reader`], from an offset on.
pub fn reader_from(file: &File, offset: u64) -> impl Read + '_ {
    struct From<'a>(&'a File, u64);
    impl Read for From<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let n = std::os::unix::fs::FileExt::read_at(self.0, out, self.1)?;
            self.1 += n as u64;
            Ok(n)
        }
    }
    From(file, offset)
}

/// A file without a name in the directory for temporary files, for what is too long for memory: nobody else can open it, and it is
/// gone when the process ends, however that is.
///
/// # Errors
/// When it cannot be made.
pub fn scratch() -> Result<File, FsError> {
    let directory = std::env::temp_dir();
    // The environment names it, and so it is for this process, whomever a thread works as.
    let _as = Identity::own().enter()?;
    tempfile::tempfile_in(&directory).map_err(|e| {
        FsError::new("make a temporary file in", directory, e).with_hint("set TMPDIR to a directory that can be written to")
    })
}

/// Whether the directory for temporary files takes any, so that it is known before hours of work rather than in the middle of them.
///
/// # Errors
/// When it does not.
pub fn try_scratch() -> Result<(), FsError> {
    const TRIED_BYTES: usize = 64 * 1024;
    let mut file = scratch()?;
    file.write_all(&[1; TRIED_BYTES]).and_then(|()| file.sync_data()).map_err(|e| {
        FsError::new("write a temporary file in", std::env::temp_dir(), e).with_hint("set TMPDIR to a directory with room")
    })
}

/// Whether everybody may read a file, for a warning about secrets. `false` when it cannot be told.
pub fn others_can_read(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o004 != 0)
}

/// Whether its group, or everybody, may write a file, for the same. `false` when it cannot be told.
pub fn others_can_write(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o022 != 0)
}

/// Whether everybody may write to a file or directory. `false` when it cannot be told.
pub fn everybody_can_write(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o002 != 0)
}

/// Whether something is there. "Cannot tell" is an error, never `false`.
///
/// # Errors
/// As [`stat`].
pub fn exists(path: &Path) -> Result<bool, FsError> {
    Ok(stat(path)?.is_some())
}

/// The names in a directory in byte order, `.` and `..` left out.
///
/// # Errors
/// [`Problem::Absent`], [`Problem::Denied`], [`Problem::Unsupported`] when it is not a directory, [`Problem::Failed`].
pub fn list_dir(path: &Path) -> Result<Vec<OsString>, FsError> {
    let mut names: Vec<OsString> = Dir::open(path)?.items()?.into_iter().map(|item| item.name).collect();
    names.sort_unstable();
    Ok(names)
}

/// The name of a user, or the number where it has none.
pub fn user_name(uid: u32) -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| format!("id {uid}"), |user| user.name)
}

/// The name of a user, and the directory where he is at home; `None` for one whom the system does not know.
pub fn user_and_home(uid: u32) -> Option<(String, PathBuf)> {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten()?;
    Some((user.name, user.dir))
}

/// Writes a new file that only its owner can read (mode 0600), durably. Never overwrites.
///
/// # Errors
/// [`Problem::Exists`] when there is something under that name; [`Problem::Absent`] when its directory does not exist; others.
pub fn create_secret(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    let mut draft = AtomicFile::beside(path, 0o600)?;
    draft.append(bytes)?;
    match draft.publish_new()? {
        Published::New => Ok(()),
        Published::Exists => Err(FsError::because(Problem::Exists, "create", path, "there is a file of that name already")
            .with_hint("choose another name; the file was not touched")),
    }
}

/// Makes a directory and whatever is missing above it, mode 0750 less the umask, and makes them durable. Finding them there is
/// fine, and then they are made durable too: who made them may have been killed before that.
///
/// # Errors
/// [`Problem::Exists`] or [`Problem::Unsupported`] when something on the way is not a directory; [`Problem::Denied`], others.
pub fn make_dirs(path: &Path) -> Result<(), FsError> {
    use std::os::unix::fs::DirBuilderExt;
    let path = std::path::absolute(path).map_err(|e| FsError::new("find", path, e))?;
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(&path).map_err(|e| FsError::new("make directory", &path, e))?;
    let mut child = stat(&path)?;
    for parent in path.ancestors().skip(1) {
        // A mount point was not made by us, and what is above it is another file system's business. So is a directory that
        // may be passed but not read: nothing could have been made in it either.
        let here = stat(parent)?;
        if here.map(|s| s.dev) != child.map(|s| s.dev) {
            break;
        }
        match Dir::open(parent) {
            Ok(dir) => dir.sync()?,
            Err(e) if e.problem == Problem::Denied => {}
            Err(e) => return Err(e),
        }
        child = here;
    }
    Ok(())
}

/// As [`make_dirs`]; as root they are made for `owner` where nobody else's directory is on the way, and by whomever that belongs to where
/// one is. Says whose the directory is now.
///
/// # Errors
/// As [`make_dirs`] and [`Rooted::open_or_make`]; [`Problem::Denied`] when that user could not reach it.
pub fn make_dirs_for(path: &Path, owner: Identity) -> Result<Identity, FsError> {
    if !nix::unistd::geteuid().is_root() {
        return make_dirs(path).map(|()| Identity::own());
    }
    let path = std::path::absolute(path).map_err(|e| FsError::new("find", path, e))?;
    let rooted = match Rooted::open_or_make(&path, owner, Missing::All) {
        // Somebody else has made it just now.
        Err(e) if e.problem == Problem::Exists => Rooted::open_or_make(&path, owner, Missing::All)?,
        rooted => rooted?,
    };
    let identity = rooted.identity();
    let _as = identity.enter()?;
    // By its path, as that user will.
    Dir::open(&path).map_err(|e| match e.problem {
        Problem::Denied => e.with_hint(format!("let user {} pass the directories above it (chmod o+x)", identity.name())),
        _ => e,
    })?;
    // It is there: this makes it durable.
    make_dirs(&path).map(|()| identity)
}

/// Renames a file over whatever file has the new name, atomically, within one file system. Not made durable.
///
/// # Errors
/// [`Problem::Absent`], [`Problem::Unsupported`] across file systems, [`Problem::Denied`], others.
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
/// [`Problem::Denied`], [`Problem::ReadOnly`], [`Problem::Unsupported`] for a directory, others.
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
    use std::os::unix::fs::PermissionsExt;

    fn problem<T>(outcome: Result<T, FsError>) -> Option<Problem> {
        outcome.err().map(|e| e.problem)
    }

    #[test]
    fn small_files_are_read_whole_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        assert_eq!(problem(read_bounded(&path, 10)), Some(Problem::Absent));
        std::fs::write(&path, b"0123456789").unwrap();
        assert_eq!(read_bounded(&path, 10).unwrap(), b"0123456789");
        let error = read_bounded(&path, 9).unwrap_err();
        assert_eq!(error.problem, Problem::TooLarge);
        assert_eq!(error.to_string(), format!("cannot read {}: it is larger than 9 bytes", path.display()));
        // A file whose size the system does not tell beforehand.
        assert!(!read_bounded(Path::new("/proc/self/status"), 1 << 20).unwrap().is_empty());
        assert_eq!(problem(read_bounded(Path::new("/proc/self/status"), 5)), Some(Problem::TooLarge));
        assert_eq!(problem(read_bounded(place.path(), 10)), Some(Problem::Unsupported));
    }

    #[test]
    fn only_regular_files_are_opened_and_without_waiting() {
        let place = tempfile::tempdir().unwrap();
        let pipe = place.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(problem(open_regular(&pipe)), Some(Problem::Unsupported));
        assert_eq!(problem(open_regular(place.path())), Some(Problem::Unsupported));
        let path = place.path().join("file");
        std::fs::write(&path, b"123").unwrap();
        let (_, stat) = open_regular(&path).unwrap();
        assert_eq!((stat.size_bytes, stat.kind, stat.links), (3, ItemKind::File, 1));
        assert_eq!(super::stat(&path).unwrap(), Some(stat));
        // A change of content or attributes shows.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::fs::write(&path, b"1234").unwrap();
        assert_ne!(super::stat(&path).unwrap(), Some(stat));
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
        assert_eq!(problem(list_dir(&file)), Some(Problem::Unsupported));
        assert_eq!(problem(list_dir(&place.path().join("none"))), Some(Problem::Absent));
        assert_eq!(list_dir(place.path()).unwrap(), ["file", "loop"]);
    }

    #[test]
    fn a_secret_is_private_and_never_replaces() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("key");
        create_secret(&path, b"secret").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let error = create_secret(&path, b"other").unwrap_err();
        assert_eq!(error.problem, Problem::Exists);
        assert!(error.hint.is_some());
        assert_eq!(std::fs::read(&path).unwrap(), b"secret");
        assert_eq!(problem(create_secret(&place.path().join("none/key"), b"")), Some(Problem::Absent));
        assert_eq!(list_dir(place.path()).unwrap(), ["key"]);
    }

    #[test]
    fn publishing_over_replaces_files_and_nothing_else() {
        for files in [TempFiles::Auto, TempFiles::Named] {
            for durability in [Durability::Durable, Durability::Volatile] {
                let place = tempfile::tempdir().unwrap();
                let path = place.path().join("file");
                let publish = |path: &Path, body: &[u8]| {
                    let mut draft = AtomicFile::beside_with(path, 0o600, files)?;
                    std::io::Write::write_all(&mut draft, body).unwrap();
                    assert_eq!(draft.len_bytes(), body.len() as u64);
                    draft.publish_over(durability)
                };
                publish(&path, b"first, longer").unwrap();
                publish(&path, b"second").unwrap();
                assert_eq!(std::fs::read(&path).unwrap(), b"second");
                std::fs::create_dir(place.path().join("dir")).unwrap();
                assert_eq!(problem(publish(&place.path().join("dir"), b"x")), Some(Problem::Unsupported));
                assert_eq!(problem(publish(&place.path().join("none/x"), b"x")), Some(Problem::Absent));
                drop(AtomicFile::beside_with(&path, 0o600, files).unwrap());
                assert_eq!(list_dir(place.path()).unwrap(), ["dir", "file"], "{files:?}");
            }
        }
    }

    #[test]
    fn directories_are_made_and_files_moved_and_removed() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("a/b/c");
        make_dirs(&dir).unwrap();
        make_dirs(&dir).unwrap();
        let (from, to) = (dir.join("from"), place.path().join("to"));
        assert_eq!(problem(rename_over(&from, &to)), Some(Problem::Absent));
        std::fs::write(&from, b"new").unwrap();
        std::fs::write(&to, b"old").unwrap();
        rename_over(&from, &to).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"new");
        assert!(remove_file(&to).unwrap());
        assert!(!remove_file(&to).unwrap());
        assert!(problem(remove_file(&dir)).is_some());
        std::fs::write(&to, b"").unwrap();
        assert!(matches!(problem(make_dirs(&to.join("x"))), Some(Problem::Unsupported | Problem::Exists)));
    }
}
