//! What is done with the names below an open directory: small files read and written whole, links, removing. Everything
//! under the identity of the directory, and nothing that is changed is reached through a link.

use crate::limits::MAX_REMOVED_DEPTH;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::Mode;
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags};

use super::attempts::attempts;
use super::identity::Identity;
use super::links::read_link_at;
use super::read::read_open;
use super::{Dir, FsError, ItemKind, Problem, Stat, stat_open, user_name};

/// What a file is called until it is whole.
const PUT_SUFFIX: &str = ".walvis-new";

/// The name that [`Dir::put`] gives a file until it is whole.
pub fn unfinished_name(name: &OsStr) -> OsString {
    [name, OsStr::new(PUT_SUFFIX)].into_iter().collect()
}

impl Dir {
    /// Opens a regular file for reading, links followed; `None` when nothing has that name.
    ///
    /// # Errors
    /// As [`open_regular`](crate::fsio::open_regular).
    pub fn open_regular(&self, name: impl AsRef<Path>) -> Result<Option<(File, Stat)>, FsError> {
        let path = self.path_of(&name);
        let opened = match self.open_file(&name, OFlag::O_RDONLY, 0) {
            // Something above it is a file.
            Err(e) if e.problem == Problem::Unsupported && matches!(self.is_below_a_file(name.as_ref()), Ok(true)) => None,
            other => other?,
        };
        opened.map(|file| stat_open(&file, &path).map(|stat| (file, stat))).transpose()
    }

    /// Reads a whole small file, links followed; `None` when nothing has that name.
    ///
    /// # Errors
    /// As [`read_bounded`](crate::fsio::read_bounded).
    pub fn read_bounded(&self, name: impl AsRef<Path>, max_bytes: usize) -> Result<Option<Vec<u8>>, FsError> {
        let path = self.path_of(&name);
        let Some((file, stat)) = self.open_regular(name)? else { return Ok(None) };
        read_open(file, &stat, &path, max_bytes).map(Some)
    }

    /// The state of what has a name, links not followed, neither there nor on the way; `None` when there is nothing.
    ///
    /// # Errors
    /// Whatever keeps the answer from being known.
    pub fn stat_beneath(&self, path: &Path) -> Result<Option<Stat>, FsError> {
        if path.as_os_str().is_empty() {
            return self.stat_self().map(Some);
        }
        let parent = match self.parent_beneath(path) {
            Ok(parent) => parent,
            // Below a file there is nothing.
            Err(e) if e.problem == Problem::Unsupported && self.is_below_a_file(path)? => None,
            Err(e) => return Err(e),
        };
        let Some((parent, name)) = parent else { return Ok(None) };
        let _as = self.enter()?;
        match nix::sys::stat::fstatat(parent.fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Stat::from(stat))),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(e) => Err(FsError::new("stat", self.path_of(path), e)),
        }
    }

    /// Whether what is missing on the way is so because a file (not a link) lies there.
    fn is_below_a_file(&self, path: &Path) -> Result<bool, FsError> {
        let mut above: Vec<&Path> = path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()).collect();
        while let Some(path) = above.pop() {
            match self.stat_beneath(path)?.map(|stat| stat.kind) {
                Some(ItemKind::Directory) => {}
                Some(ItemKind::Unknown) => return Ok(false),
                _ => return Ok(true),
            }
        }
        Ok(false)
    }

    /// What a link leads to, as it is written in it; `None` when there is nothing, or something else, of that name.
    ///
    /// # Errors
    /// Whatever keeps the answer from being known.
    pub fn link_beneath(&self, path: &Path) -> Result<Option<PathBuf>, FsError> {
        if !self.stat_beneath(path)?.is_some_and(|stat| stat.kind == ItemKind::Unknown) {
            return Ok(None);
        }
        let Some((parent, name)) = self.parent_beneath(path)? else { return Ok(None) };
        let _as = self.enter()?;
        read_link_at(parent.fd(), Path::new(name)).map_err(|e| FsError::new("read link", self.path_of(path), e))
    }

    /// Makes a link; nothing may have its name.
    ///
    /// # Errors
    /// [`Problem::Exists`], others.
    pub fn make_link_beneath(&self, path: &Path, target: &Path) -> Result<(), FsError> {
        let fail = |e| FsError::new("make link", self.path_of(path), e);
        let (parent, name) = self.parent_beneath(path)?.ok_or_else(|| fail(Errno::ENOENT))?;
        let _as = self.enter()?;
        nix::unistd::symlinkat(target, parent.fd(), name).map_err(fail)
    }

    /// Makes a directory, unless it is there, and opens it.
    ///
    /// # Errors
    /// [`Problem::Unsupported`] when something else has the name; [`Problem::Denied`], [`Problem::NoSpace`], others.
    pub fn make_dir_beneath(&self, path: &Path) -> Result<Self, FsError> {
        let fail = |e| FsError::new("make directory", self.path_of(path), e);
        let (parent, name) = self.parent_beneath(path)?.ok_or_else(|| fail(Errno::ENOENT))?;
        let _as = self.enter()?;
        match nix::sys::stat::mkdirat(parent.fd(), name, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(fail(e)),
        }
        self.dir_beneath(path)?.ok_or_else(|| fail(Errno::ENOENT))
    }

    /// Writes a small file, durably and in one step: under another name first. What has that other name is removed, and
    /// what has the file's own is replaced, never written to. The file is given to `owner` if that is not the
    /// directory's own identity.
    ///
    /// # Errors
    /// [`Problem::Denied`], [`Problem::NoSpace`], others.
    pub fn put(&self, path: &Path, bytes: &[u8], mode: u32, owner: Identity, modified_unix_us: i64) -> Result<(), FsError> {
        let whole = self.path_of(path);
        let fail = |action: &'static str| {
            let whole = whole.clone();
            move |e: Errno| FsError::new(action, whole, e)
        };
        let io = |action: &'static str| {
            let whole = whole.clone();
            move |e: std::io::Error| FsError::new(action, whole, e)
        };
        let (parent, name) = self.parent_beneath(path)?.ok_or_else(|| fail("open")(Errno::ENOENT))?;
        let temporary = unfinished_name(name);
        parent.remove_beneath(Path::new(&temporary))?;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        let file = parent.file_beneath(Path::new(&temporary), flags, 0o600)?.ok_or_else(|| fail("open")(Errno::ENOENT))?;
        file.write_all_at(bytes, 0).map_err(io("write"))?;
        if owner != self.identity() && self.identity().is_own() {
            let owner = owner.owner();
            nix::unistd::fchown(&file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
                .map_err(fail("change owner of"))?;
        }
        {
            let _as = self.enter()?;
            finish(&file, mode).map_err(fail("change mode of"))?;
            set_time(&file, modified_unix_us).map_err(fail("set time of"))?;
        }
        file.sync_all().map_err(io("sync"))?;
        let _as = self.enter()?;
        nix::fcntl::renameat(parent.fd(), temporary.as_os_str(), parent.fd(), name).map_err(fail("rename"))?;
        parent.sync()
    }

    /// Renames something within this directory, over what has the new name. Not made durable.
    ///
    /// # Errors
    /// [`Problem::Absent`], [`Problem::Denied`], others.
    pub fn rename(&self, from: &OsStr, to: &OsStr) -> Result<(), FsError> {
        let _as = self.enter()?;
        nix::fcntl::renameat(self.fd(), from, self.fd(), to).map_err(|e| FsError::new("rename", self.path_of(from), e))
    }

    /// Opens a file that every call adds to, making it with mode 0600 when it is not there. One that has a second name
    /// is refused.
    ///
    /// # Errors
    /// [`Problem::Unsafe`], [`Problem::Denied`], others.
    pub fn open_append(&self, path: &Path) -> Result<File, FsError> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_APPEND;
        let file =
            self.file_beneath(path, flags, 0o600)?.ok_or_else(|| FsError::new("open", self.path_of(path), Errno::ENOENT))?;
        self.check_is_ours(&file, path)?;
        Ok(file)
    }

    /// Makes sure that an open file may be written to: it is a regular one, has no second name, and belongs to the
    /// directory's user where another process could have put it there for root to write to.
    ///
    /// # Errors
    /// [`Problem::Unsafe`] when not.
    pub fn check_is_ours(&self, file: &File, path: &Path) -> Result<(), FsError> {
        let path = || self.path_of(path);
        let meta = file.metadata().map_err(|e| FsError::new("stat", path(), e))?;
        let refused =
            |why: String| Err(FsError::because(Problem::Unsafe, "write to", path(), why).with_hint("move that file away"));
        if !meta.is_file() {
            return refused("it is not a regular file".to_owned());
        }
        if meta.nlink() > 1 {
            return refused("it has a second name (a hard link), by which it is something else".to_owned());
        }
        if nix::unistd::geteuid().is_root() && meta.uid() != self.identity().owner().uid {
            return refused(format!("it belongs to user {}, the directory to {}", user_name(meta.uid()), self.identity().name()));
        }
        Ok(())
    }

    /// Removes a file, a link, or a directory with everything below it; links are not followed. Says whether anything
    /// was there.
    ///
    /// # Errors
    /// [`Problem::Denied`], [`Problem::ReadOnly`], others.
    pub fn remove_beneath(&self, path: &Path) -> Result<bool, FsError> {
        let Some(stat) = self.stat_beneath(path)? else { return Ok(false) };
        let Some((parent, name)) = self.parent_beneath(path)? else { return Ok(false) };
        if stat.kind == ItemKind::Directory {
            parent.remove_directory(name, MAX_REMOVED_DEPTH)?;
        } else {
            parent.unlink(name, UnlinkatFlags::NoRemoveDir)?;
        }
        Ok(true)
    }

    /// Removes everything in it.
    ///
    /// # Errors
    /// As [`remove_beneath`](Self::remove_beneath).
    pub fn remove_content(&self) -> Result<(), FsError> {
        self.empty(MAX_REMOVED_DEPTH)
    }

    /// Removes a directory in it with everything below. Who still works in there sees that it goes, and stops, but may
    /// be about to give one more file its name.
    fn remove_directory(&self, name: &OsStr, depth: usize) -> Result<(), FsError> {
        let mut outcome = Ok(());
        for () in attempts() {
            if let Some(directory) = self.dir_beneath(Path::new(name))? {
                directory.empty(depth)?;
            }
            outcome = self.unlink(name, UnlinkatFlags::RemoveDir);
            if !matches!(&outcome, Err(error) if error.problem == Problem::Exists) {
                break;
            }
        }
        outcome
    }

    /// Its files go before its directories: with the lock of a spool, before what is fetched is touched.
    fn empty(&self, depth: usize) -> Result<(), FsError> {
        let Some(deeper) = depth.checked_sub(1) else {
            return Err(FsError::because(Problem::Unsupported, "remove", self.path(), "directories are too deep in each other"));
        };
        let mut directories = Vec::new();
        for item in self.items()? {
            let kind = match item.kind {
                // A link is removed, not followed.
                ItemKind::Unknown => self.stat_beneath(Path::new(&item.name))?.map(|stat| stat.kind),
                kind => Some(kind),
            };
            match kind {
                Some(ItemKind::Directory) => directories.push(item.name),
                Some(_) => self.unlink(&item.name, UnlinkatFlags::NoRemoveDir)?,
                None => {}
            }
        }
        directories.iter().try_for_each(|name| self.remove_directory(name, deeper))
    }

    /// What has gone by itself meanwhile is removed, too.
    fn unlink(&self, name: &OsStr, flags: UnlinkatFlags) -> Result<(), FsError> {
        let _as = self.enter()?;
        match nix::unistd::unlinkat(self.fd(), name, flags) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(e) => Err(FsError::new("remove", self.path_of(name), e)),
        }
    }

    /// Sets its permissions, to those that PostgreSQL uses for directories.
    ///
    /// # Errors
    /// [`Problem::Denied`], others.
    pub fn set_mode(&self, mode: u32) -> Result<(), FsError> {
        let _as = self.enter()?;
        let mode = Mode::from_bits_truncate((mode & 0o050) | 0o700);
        nix::sys::stat::fchmod(self.fd(), mode).map_err(|e| FsError::new("change mode of", self.path(), e))
    }

    /// Makes everything durable that was written to its file system.
    ///
    /// # Errors
    /// When the file system could not write everything.
    pub fn sync_file_system(&self) -> Result<(), FsError> {
        nix::unistd::syncfs(self.fd().as_fd()).map_err(|e| FsError::new("sync the file system of", self.path(), e))
    }
}

/// Gives an open file its permissions, of those that PostgreSQL uses: nobody but owner and group, nobody but the owner
/// writes, and no set-id bit.
pub(super) fn finish(file: &File, mode: u32) -> Result<(), Errno> {
    let wanted = (mode & 0o750) | 0o600;
    let is = file.metadata().map(|meta| meta.mode() & 0o7777);
    if is.is_ok_and(|is| is == wanted) { Ok(()) } else { nix::sys::stat::fchmod(file, Mode::from_bits_truncate(wanted)) }
}

/// Sets the time of the last change.
pub(super) fn set_time(file: &File, modified_unix_us: i64) -> Result<(), Errno> {
    let at = TimeSpec::new(modified_unix_us.div_euclid(1_000_000), modified_unix_us.rem_euclid(1_000_000) * 1000);
    nix::sys::stat::futimens(file, &TimeSpec::UTIME_OMIT, &at)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn dir() -> (tempfile::TempDir, Dir) {
        let place = tempfile::tempdir().unwrap();
        let dir = Dir::open(place.path()).unwrap();
        (place, dir)
    }

    fn put(dir: &Dir, path: &str, bytes: &[u8], mode: u32) -> Result<(), Problem> {
        dir.put(Path::new(path), bytes, mode, dir.identity(), -1_500_000).map_err(|e| e.problem)
    }

    #[test]
    fn what_is_put_replaces_and_is_never_written_through() {
        let (place, dir) = dir();
        let at = |path: &str| place.path().join(path);
        std::fs::write(at("victim"), "keep").unwrap();
        for name in ["file", "file.walvis-new"] {
            std::fs::hard_link(at("victim"), at(name)).unwrap();
        }
        put(&dir, "file", b"new", 0o7777).unwrap();
        let meta = std::fs::metadata(at("file")).unwrap();
        assert_eq!((meta.permissions().mode() & 0o7777, meta.mtime(), meta.mtime_nsec()), (0o750, -2, 500_000_000));
        symlink(at("victim"), at("link")).unwrap();
        symlink(at("victim"), at("link.walvis-new")).unwrap();
        put(&dir, "link", b"new", 0o666).unwrap();
        assert_eq!(std::fs::symlink_metadata(at("link")).unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(
            (std::fs::read(at("victim")).unwrap(), std::fs::read(at("link")).unwrap()),
            (b"keep".to_vec(), b"new".to_vec())
        );
        assert_eq!(std::fs::metadata(at("victim")).unwrap().nlink(), 1);
        symlink(place.path(), at("directory")).unwrap();
        assert_eq!(put(&dir, "directory/file", b"", 0o600), Err(Problem::Unsupported));
        assert_eq!(put(&dir, "none/file", b"", 0o600), Err(Problem::Absent));
    }

    #[test]
    fn what_is_removed_is_what_lies_there() {
        let (place, dir) = dir();
        let at = |path: &str| place.path().join(path);
        std::fs::create_dir_all(at("outside")).unwrap();
        std::fs::write(at("outside/precious"), "").unwrap();
        std::fs::create_dir_all(at("tree/below")).unwrap();
        std::fs::write(at("tree/below/file"), "").unwrap();
        symlink(at("outside"), at("tree/below/link")).unwrap();
        symlink(at("outside"), at("link")).unwrap();
        let remove = |path: &str| dir.remove_beneath(Path::new(path)).map_err(|e| e.problem);
        assert_eq!((remove("tree"), remove("tree"), remove("link")), (Ok(true), Ok(false), Ok(true)));
        symlink(at("outside"), at("link")).unwrap();
        assert_eq!(remove("link/precious"), Err(Problem::Unsupported));
        assert!(at("outside/precious").exists());
        let deep = at("deep").join("d/".repeat(MAX_REMOVED_DEPTH + 1));
        std::fs::create_dir_all(&deep).unwrap();
        assert_eq!(remove("deep"), Err(Problem::Unsupported));
    }

    /// Somebody at work in a directory that is removed may finish what is begun, in there and below.
    #[test]
    fn what_comes_and_goes_meanwhile_is_removed_too() {
        let (place, dir) = dir();
        let at = |n: usize| place.path().join("tree/below").join(n.to_string());
        for _ in 0..200 {
            std::fs::create_dir_all(place.path().join("tree/below")).unwrap();
            let begun = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    begun.wait();
                    for n in 0..40 {
                        let _ = std::fs::write(at(n), "");
                        let _ = std::fs::remove_file(at(n / 2));
                    }
                });
                begun.wait();
                assert!(dir.remove_beneath(Path::new("tree")).unwrap());
            });
            assert!(!place.path().join("tree").exists());
        }
    }

    #[test]
    fn files_go_before_directories() {
        let (place, dir) = dir();
        std::fs::create_dir_all(place.path().join("tree/a/b")).unwrap();
        for name in ["tree/lock", "tree/a/x", "tree/z"] {
            std::fs::write(place.path().join(name), "").unwrap();
        }
        let (tree, below) = (place.path().join("tree"), place.path().join("tree/a"));
        let watch = crate::fsio::Watch::on(&[(&tree, crate::fsio::Names::Going), (&below, crate::fsio::Names::Going)]).unwrap();
        dir.remove_beneath(Path::new("tree")).unwrap();
        let gone = watch.wait(std::time::Duration::ZERO, |_| true).names;
        let first_below = gone.iter().position(|change| change.directory == 1).unwrap();
        assert!(gone[..first_below].iter().any(|c| c.name == "lock") && gone[..first_below].iter().any(|c| c.name == "z"));
    }

    #[test]
    fn links_and_absence_are_told() {
        let (place, dir) = dir();
        std::fs::write(place.path().join("file"), "123").unwrap();
        symlink("file", place.path().join("link")).unwrap();
        let kind = |path: &str| dir.stat_beneath(Path::new(path)).map(|stat| stat.map(|stat| stat.kind)).map_err(|e| e.problem);
        assert_eq!((kind("file"), kind("link")), (Ok(Some(ItemKind::File)), Ok(Some(ItemKind::Unknown))));
        assert_eq!((kind("none"), kind("none/x"), kind("file/x"), kind("file/x/y")), (Ok(None), Ok(None), Ok(None), Ok(None)));
        assert_eq!(kind("link/x"), Err(Problem::Unsupported));
        assert_eq!(dir.link_beneath(Path::new("link")).unwrap(), Some("file".into()));
        assert_eq!(dir.link_beneath(Path::new("file")).unwrap(), None);
        assert_eq!(dir.read_bounded("link", 3).unwrap(), Some(b"123".to_vec()));
        assert_eq!(dir.read_bounded("file", 2).unwrap_err().problem, Problem::TooLarge);
        assert_eq!((dir.read_bounded("none", 2).unwrap(), dir.read_bounded("file/x", 2).unwrap()), (None, None));
    }

    #[test]
    fn a_second_name_is_seen() {
        let (place, dir) = dir();
        drop(dir.open_append(Path::new("log")).unwrap());
        std::fs::hard_link(place.path().join("log"), place.path().join("second")).unwrap();
        assert_eq!(dir.open_append(Path::new("log")).unwrap_err().problem, Problem::Unsafe);
        symlink("none", place.path().join("link")).unwrap();
        assert_eq!(dir.open_append(Path::new("link")).unwrap_err().problem, Problem::Unsupported);
        assert!(!place.path().join("none").exists());
    }
}
