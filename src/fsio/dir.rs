//! An open directory. Whatever is done relative to it happens in this very directory, also when somebody removes it and makes
//! another of the same name meanwhile: then the call fails instead of going astray.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag};

use super::{FsError, Problem, Stat};

/// An open directory and the path to it, for messages. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Dir {
    fd: Arc<OwnedFd>,
    path: PathBuf,
}

/// What a name in a directory stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ItemKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Pipe, socket, device.
    Other,
    /// A symbolic link, or the file system does not say: ask [`Dir::stat`].
    Unknown,
}

/// A name in a directory.
#[derive(Debug, Clone)]
pub struct Item {
    /// The name.
    pub name: OsString,
    /// What it stands for.
    pub kind: ItemKind,
}

const OPEN_DIR: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

impl Dir {
    /// Opens a directory.
    ///
    /// # Errors
    /// [`Problem::Absent`], [`Problem::Denied`], [`Problem::Unsupported`] when it is not a directory, others.
    pub fn open(path: &Path) -> Result<Self, FsError> {
        let fd = nix::fcntl::open(path, OPEN_DIR, Mode::empty()).map_err(|e| FsError::new("open directory", path, e))?;
        Ok(Self { fd: Arc::new(fd), path: path.to_owned() })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of something in it, for messages.
    pub(super) fn path_of(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Opens a directory below it; `None` when nothing has that name.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for `Absent`.
    pub fn open_below(&self, name: impl AsRef<Path>) -> Result<Option<Self>, FsError> {
        let path = self.path_of(&name);
        match nix::fcntl::openat(self.fd(), name.as_ref(), OPEN_DIR, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd: Arc::new(fd), path })),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(FsError::new("open directory", path, e)),
        }
    }

    /// Makes a directory in it. Finding it there is fine. `false` when this directory itself was removed meanwhile.
    pub(super) fn make_below(&self, name: impl AsRef<Path>) -> Result<bool, FsError> {
        match nix::sys::stat::mkdirat(self.fd(), name.as_ref(), Mode::from_bits_truncate(0o750)) {
            Ok(()) | Err(Errno::EEXIST) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(e) => Err(FsError::new("make directory", self.path_of(name), e)),
        }
    }

    /// Opens something in it; `None` when nothing has that name.
    pub(super) fn open_file(&self, name: impl AsRef<Path>, flags: OFlag, mode: u32) -> Result<Option<File>, FsError> {
        let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
        match nix::fcntl::openat(self.fd(), name.as_ref(), flags, Mode::from_bits_truncate(mode)) {
            Ok(fd) => Ok(Some(File::from(fd))),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(FsError::new("open", self.path_of(name), e)),
        }
    }

    /// The state of what a name leads to, symbolic links followed; `None` when nothing has that name.
    ///
    /// # Errors
    /// [`Problem::Failed`] also for a symbolic link that leads nowhere: something was meant to be there.
    pub fn stat(&self, name: impl AsRef<Path>) -> Result<Option<Stat>, FsError> {
        match nix::sys::stat::fstatat(self.fd(), name.as_ref(), AtFlags::empty()) {
            Ok(stat) => Ok(Some(Stat::from(stat))),
            Err(Errno::ENOENT) if self.is_link(&name)? => {
                Err(FsError::because(Problem::Failed, "follow", self.path_of(name), "the symbolic link leads nowhere")
                    .with_hint("mount what it leads to, or remove the link"))
            }
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(FsError::new("stat", self.path_of(name), e)),
        }
    }

    fn is_link(&self, name: impl AsRef<Path>) -> Result<bool, FsError> {
        match nix::sys::stat::fstatat(self.fd(), name.as_ref(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFLNK),
            Err(Errno::ENOENT) => Ok(false),
            Err(e) => Err(FsError::new("stat", self.path_of(name), e)),
        }
    }

    /// The state of the directory itself. No names left (`links` is 0) means that it was removed.
    pub(super) fn stat_self(&self) -> Result<Stat, FsError> {
        nix::sys::stat::fstat(self.fd()).map(Stat::from).map_err(|e| FsError::new("stat", &self.path, e))
    }

    /// Everything in it but `.` and `..`, in no order. Memory grows with the number of names.
    ///
    /// # Errors
    /// [`Problem::Denied`], [`Problem::Failed`]: a directory that could not be read to its end is never passed off as whole.
    pub fn items(&self) -> Result<Vec<Item>, FsError> {
        let mut items = Vec::new();
        self.scan(|item| {
            items.push(item);
            true
        })?;
        Ok(items)
    }

    /// Only the names, for directories with very many of them.
    ///
    /// # Errors
    /// As [`items`](Self::items).
    pub(super) fn names(&self) -> Result<Vec<OsString>, FsError> {
        let mut names = Vec::new();
        self.scan(|item| {
            names.push(item.name);
            true
        })?;
        Ok(names)
    }

    /// Whether a regular file is in it, those with a dot in front not counted: nobody publishes them. Reads no more of it than it
    /// takes to find one.
    pub(super) fn holds_a_file(&self) -> Result<bool, FsError> {
        let mut unknown = Vec::new();
        let mut found = false;
        self.scan(|item| {
            if item.name.as_bytes().starts_with(b".") {
                return true;
            }
            found = item.kind == ItemKind::File;
            if item.kind == ItemKind::Unknown {
                unknown.push(item.name);
            }
            !found
        })?;
        for name in unknown {
            // lstat: a link to a file is not a file that was published here.
            let stat = nix::sys::stat::fstatat(self.fd(), name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
            found = found || stat.is_ok_and(|s| Stat::from(s).kind == ItemKind::File);
        }
        Ok(found)
    }

    /// Shows every name until the visitor says `false`.
    fn scan(&self, mut visit: impl FnMut(Item) -> bool) -> Result<(), FsError> {
        let fail = |e: Errno| FsError::new("read directory", &self.path, e);
        // A handle of its own: the reading position is shared by all clones of a descriptor.
        let mut dir = nix::dir::Dir::openat(self.fd(), ".", OPEN_DIR, Mode::empty()).map_err(fail)?;
        for entry in dir.iter() {
            let entry = entry.map_err(fail)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                Some(nix::dir::Type::File) => ItemKind::File,
                Some(nix::dir::Type::Directory) => ItemKind::Directory,
                Some(nix::dir::Type::Symlink) | None => ItemKind::Unknown,
                Some(_) => ItemKind::Other,
            };
            if !visit(Item { name: name.to_owned(), kind }) {
                break;
            }
        }
        Ok(())
    }

    /// Makes the names in it durable.
    pub(super) fn sync(&self) -> Result<(), FsError> {
        match nix::unistd::fsync(self.fd()) {
            // EINVAL: this file system knows no fsync of directories (some network and FUSE ones); PostgreSQL takes it so too.
            Ok(()) | Err(Errno::EINVAL) => Ok(()),
            Err(e) => Err(FsError::new("sync directory", &self.path, e)),
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
            size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
            kind,
        }
    }
}
