//! An open directory. Whatever is done relative to it happens in this very directory, also when somebody removes it and
//! makes another of the same name meanwhile: then the call fails instead of going astray. And it is done under the
//! identity that the directory was opened under, no matter who asks.
//!
//! What lies below it by more than one name is reached with `*_beneath`: no symbolic link is followed, and nothing
//! outside is reached.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::{Mode, SFlag};

use super::attempts::attempts;
use super::identity::{Entered, Identity};
use super::{FsError, ItemKind, Problem, Stat};

/// An open directory and the path to it, for messages. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Dir {
    fd: Arc<OwnedFd>,
    path: PathBuf,
    identity: Identity,
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
        Ok(Self::opened(fd, path.to_owned(), Identity::current()))
    }

    pub(super) fn opened(fd: OwnedFd, path: PathBuf, identity: Identity) -> Self {
        Self { fd: Arc::new(fd), path, identity }
    }

    /// The identity that everything is done under that is done with names in it.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Takes that identity, for calls that are made with the descriptor itself.
    ///
    /// # Errors
    /// As [`Identity::enter`].
    pub fn enter(&self) -> Result<Entered, FsError> {
        self.identity.enter()
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
        let _as = self.enter()?;
        match nix::fcntl::openat(self.fd(), name.as_ref(), OPEN_DIR, Mode::empty()) {
            Ok(fd) => Ok(Some(Self::opened(fd, path, self.identity))),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(FsError::new("open directory", path, e)),
        }
    }

    /// Makes a directory in it. Finding it there is fine. `false` when this directory itself was removed meanwhile.
    pub(super) fn make_below(&self, name: impl AsRef<Path>) -> Result<bool, FsError> {
        let _as = self.enter()?;
        match nix::sys::stat::mkdirat(self.fd(), name.as_ref(), Mode::from_bits_truncate(0o750)) {
            Ok(()) | Err(Errno::EEXIST) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(e) => Err(FsError::new("make directory", self.path_of(name), e)),
        }
    }

    /// Opens something in it; `None` when nothing has that name.
    pub(super) fn open_file(&self, name: impl AsRef<Path>, flags: OFlag, mode: u32) -> Result<Option<File>, FsError> {
        let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
        let _as = self.enter()?;
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
        let _as = self.enter()?;
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
        let _as = self.enter()?;
        match nix::sys::stat::fstatat(self.fd(), name.as_ref(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFLNK),
            Err(Errno::ENOENT) => Ok(false),
            Err(e) => Err(FsError::new("stat", self.path_of(name), e)),
        }
    }

    /// The state of the directory itself. No names left (`links` is 0) means that it was removed.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn stat_self(&self) -> Result<Stat, FsError> {
        nix::sys::stat::fstat(self.fd()).map(Stat::from).map_err(|e| FsError::new("stat", &self.path, e))
    }

    /// Everything in it but `.` and `..`, in no order. Memory grows with the number of names.
    ///
    /// # Errors
    /// [`Problem::Denied`], [`Problem::Failed`]: a directory that could not be read to its end is never passed off as
    /// whole.
    pub fn items(&self) -> Result<Vec<Item>, FsError> {
        let mut items = Vec::new();
        self.scan(|item| {
            items.push(item);
            true
        })?;
        Ok(items)
    }

    /// The names in byte order.
    ///
    /// # Errors
    /// As [`items`](Self::items).
    pub fn sorted_names(&self) -> Result<Vec<OsString>, FsError> {
        let mut names = self.names()?;
        names.sort_unstable();
        Ok(names)
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

    /// Whether a regular file is in it, those with a dot in front not counted: nobody publishes them. Reads no more of
    /// it than it takes to find one.
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
        let _as = self.enter()?;
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
        let mut dir = {
            let _as = self.enter()?;
            nix::dir::Dir::openat(self.fd(), ".", OPEN_DIR, Mode::empty()).map_err(fail)?
        };
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
            // EINVAL: this file system knows no fsync of directories (some network and FUSE ones); PostgreSQL takes it
            // so too.
            Ok(()) | Err(Errno::EINVAL) => Ok(()),
            Err(e) => Err(FsError::new("sync directory", &self.path, e)),
        }
    }
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

/// Opening what is below by any number of names.
impl Dir {
    /// Opens a directory below it, links not followed; `None` when nothing has that name.
    ///
    /// # Errors
    /// [`Problem::Unsupported`] for a link or a file on the way; [`Problem::Denied`], others.
    pub fn dir_beneath(&self, path: &Path) -> Result<Option<Self>, FsError> {
        if path.as_os_str().is_empty() {
            return Ok(Some(self.clone()));
        }
        let opened = self.open_beneath("open directory", path, OPEN_DIR, 0)?;
        Ok(opened.map(|fd| Self::opened(fd, self.path_of(path), self.identity)))
    }

    /// Opens a file below it, links not followed; `None` when nothing has that name.
    ///
    /// # Errors
    /// As [`dir_beneath`](Self::dir_beneath).
    pub fn file_beneath(&self, path: &Path, flags: OFlag, mode: u32) -> Result<Option<File>, FsError> {
        let flags = flags | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
        Ok(self.open_beneath("open", path, flags, mode)?.map(File::from))
    }

    /// Opens the directory that a path below it is in, and says the last name; `None` when that directory is not there.
    ///
    /// # Errors
    /// As [`dir_beneath`](Self::dir_beneath); when the path has no last name.
    pub fn parent_beneath<'a>(&self, path: &'a Path) -> Result<Option<(Self, &'a OsStr)>, FsError> {
        let name = path.file_name().ok_or_else(|| FsError::new("open", self.path_of(path), Errno::EINVAL))?;
        let parent = path.parent().unwrap_or(Path::new(""));
        Ok(self.dir_beneath(parent)?.map(|parent| (parent, name)))
    }

    fn open_beneath(&self, action: &'static str, path: &Path, flags: OFlag, mode: u32) -> Result<Option<OwnedFd>, FsError> {
        let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let _as = self.enter()?;
        match open_beneath(self.fd(), path, flags, Mode::from_bits_truncate(mode)) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::ENOENT) => Ok(None),
            Err(e @ (Errno::ELOOP | Errno::ENOTDIR)) => Err(FsError::new(action, self.path_of(path), e).with_hint(
                "a symbolic link or a file lies there or on the way, and no link is followed: remove it, or put a directory there",
            )),
            Err(e) => Err(FsError::new(action, self.path_of(path), e)),
        }
    }
}

fn open_beneath(dir: BorrowedFd<'_>, path: &Path, flags: OFlag, mode: Mode) -> Result<OwnedFd, Errno> {
    // The kernel refuses a mode that is not used.
    let mode = if flags.contains(OFlag::O_CREAT) { mode } else { Mode::empty() };
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    for () in attempts() {
        match nix::fcntl::openat2(dir, path, OpenHow::new().flags(flags).mode(mode).resolve(resolve)) {
            // A directory was moved meanwhile.
            Err(Errno::EAGAIN) => {}
            // A kernel before 5.6, or a filter of system calls. What else gives EPERM does so the other way too.
            Err(Errno::ENOSYS | Errno::EPERM) => return by_component(dir, path, flags, mode),
            other => return other,
        }
    }
    Err(Errno::EAGAIN)
}

/// The same with the calls that every kernel has: each name is opened in the directory before it, and none may be a
/// link.
fn by_component(dir: BorrowedFd<'_>, path: &Path, flags: OFlag, mode: Mode) -> Result<OwnedFd, Errno> {
    use std::path::Component;
    let mut names = path.components().filter(|name| *name != Component::CurDir).peekable();
    let mut here: Option<OwnedFd> = None;
    while let Some(name) = names.next() {
        // Never up, and never from the root.
        let Component::Normal(name) = name else { return Err(Errno::EXDEV) };
        let at = here.as_ref().map_or(dir, AsFd::as_fd);
        if names.peek().is_none() {
            return nix::fcntl::openat(at, name, flags | OFlag::O_NOFOLLOW, mode);
        }
        let step = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        here = Some(nix::fcntl::openat(at, name, step, Mode::empty())?);
    }
    nix::fcntl::openat(dir, ".", flags, mode)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    /// Both ways of opening below a directory, which must not differ.
    type Open = fn(BorrowedFd<'_>, &Path, OFlag, Mode) -> Result<OwnedFd, Errno>;
    const WAYS: [Open; 2] = [open_beneath, by_component];

    #[test]
    fn beneath_a_directory_no_link_is_followed_and_nothing_outside_is_reached() {
        let place = tempfile::tempdir().unwrap();
        let top = place.path().join("top");
        std::fs::create_dir_all(top.join("a/b")).unwrap();
        std::fs::write(top.join("a/b/file"), "").unwrap();
        std::fs::write(place.path().join("outside"), "").unwrap();
        std::os::unix::fs::symlink("a", top.join("link")).unwrap();
        std::os::unix::fs::symlink("../outside", top.join("a/out")).unwrap();
        let dir = Dir::open(&top).unwrap();
        for open in WAYS {
            let open = |path: &str| open(dir.fd(), Path::new(path), OFlag::O_RDONLY | OFlag::O_NOFOLLOW, Mode::empty()).err();
            assert_eq!(open("a/b/file"), None);
            assert_eq!(open("a/./b"), None);
            assert_eq!(open("a/b/none"), Some(Errno::ENOENT));
            assert_eq!(open("a/b/file/x"), Some(Errno::ENOTDIR));
            assert_eq!(open("a/out"), Some(Errno::ELOOP));
            assert!(matches!(open("link/b/file"), Some(Errno::ELOOP | Errno::ENOTDIR)));
            assert_eq!(open("link"), Some(Errno::ELOOP));
            assert_eq!(open("../outside"), Some(Errno::EXDEV));
            assert_eq!(open("/etc"), Some(Errno::EXDEV));
        }
        assert!(dir.dir_beneath(Path::new("a/b")).unwrap().is_some() && dir.dir_beneath(Path::new("c")).unwrap().is_none());
        assert_eq!(dir.dir_beneath(Path::new("link")).unwrap_err().problem, Problem::Unsupported);
        assert_eq!(dir.parent_beneath(Path::new("a/b/new")).unwrap().unwrap().1, "new");
        let make = OFlag::O_RDWR | OFlag::O_CREAT;
        assert!(dir.file_beneath(Path::new("a/b/new"), make, 0o600).unwrap().is_some() && top.join("a/b/new").exists());
        assert!(dir.file_beneath(Path::new("c/new"), make, 0o600).unwrap().is_none());
        assert!(dir.file_beneath(Path::new("a/out"), make, 0o600).is_err());
    }

    #[test]
    fn a_directory_is_listed_in_order() {
        let place = tempfile::tempdir().unwrap();
        for name in ["b", "a", "c"] {
            std::fs::write(place.path().join(name), "").unwrap();
        }
        assert_eq!(list_dir(place.path()).unwrap(), ["a", "b", "c"]);
        let problem = |path: &str| list_dir(&place.path().join(path)).unwrap_err().problem;
        assert_eq!((problem("a"), problem("none")), (Problem::Unsupported, Problem::Absent));
    }
}
