//! A data directory that is being rebuilt: directories, files with all their attributes, links to tablespaces.
//!
//! Paths are relative to the data directory, as bytes, and those below `pg_tblspc/<oid>`, and below a linked `pg_wal`, lead into the
//! directory that the link leads to, which is kept open. No other link is followed: a file is never written to, nor a directory entered, through a link that lies
//! in the data directory by chance. Nothing is durable before [`sync`](Rebuild::sync).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FallocateFlags, OFlag};
use nix::sys::stat::{FchmodatFlags, Mode};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags};

use super::{Dir, FsError, ItemKind, Problem, Stat};

/// The user and group that something is to belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl Owner {
    /// Whose what a path leads to is.
    ///
    /// # Errors
    /// Whatever keeps the answer from being known.
    pub fn of(path: &Path) -> Result<Self, FsError> {
        let stat = nix::sys::stat::stat(path).map_err(|e| FsError::new("stat", path, e))?;
        Ok(Self { uid: stat.st_uid, gid: stat.st_gid })
    }
}

/// Permissions and owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Permissions.
    pub mode: u32,
    /// `None`: whoever makes it.
    pub owner: Option<Owner>,
}

/// The prefix of what lies in tablespaces.
const TABLESPACES: &[u8] = b"pg_tblspc/";
/// The log, which may lie elsewhere.
const WAL: &[u8] = b"pg_wal";

/// A data directory, the directories of its tablespaces, and that of its log.
#[derive(Debug)]
pub struct Rebuild {
    root: Dir,
    /// Links that are followed, and what they lead to.
    linked: BTreeMap<Vec<u8>, Dir>,
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

impl Rebuild {
    /// Opens an existing data directory, whatever is in it.
    ///
    /// # Errors
    /// As [`Dir::open`].
    pub fn open(root: &Path) -> Result<Self, FsError> {
        Ok(Self { root: Dir::open(root)?, linked: BTreeMap::new() })
    }

    /// The path of the data directory.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Makes the link `pg_tblspc/<oid>` lead to an existing directory. What has that name and is no directory is replaced.
    ///
    /// # Errors
    /// [`Problem::Exists`] when a directory is in the way; others.
    pub fn link_tablespace(&mut self, oid: u32, target: &Path) -> Result<(), FsError> {
        self.link(&format!("pg_tblspc/{oid}"), target)
    }

    /// Makes `pg_wal` a link to an existing directory. A directory of that name is removed, with all that is in it.
    ///
    /// # Errors
    /// [`Problem::Denied`], others.
    pub fn link_wal(&mut self, target: &Path) -> Result<(), FsError> {
        if self.stat(WAL)?.is_some_and(|stat| stat.kind == ItemKind::Directory) {
            self.remove(WAL)?;
        }
        self.link("pg_wal", target)
    }

    fn link(&mut self, name: &str, target: &Path) -> Result<(), FsError> {
        let directory = Dir::open(target)?;
        match nix::fcntl::readlinkat(self.root.fd(), name) {
            Ok(old) if Path::new(&old) == target => {}
            Ok(_) => {
                self.unlink(&self.root, Path::new(name), UnlinkatFlags::NoRemoveDir)?;
                self.make_link(target, name)?;
            }
            Err(Errno::ENOENT) => self.make_link(target, name)?,
            Err(e) => return Err(FsError::new("read link", self.root.path_of(name), e)),
        }
        self.linked.insert(name.as_bytes().to_vec(), directory);
        Ok(())
    }

    fn make_link(&self, target: &Path, name: &str) -> Result<(), FsError> {
        nix::unistd::symlinkat(target, self.root.fd(), name).map_err(|e| FsError::new("make link", self.root.path_of(name), e))
    }

    /// Gives a link itself to its owner.
    ///
    /// # Errors
    /// [`Problem::Denied`], others.
    pub fn own_link(&self, path: &[u8], owner: Option<Owner>) -> Result<(), FsError> {
        match owner {
            Some(owner) => own_at(&self.root, as_path(path), owner),
            None => Ok(()),
        }
    }

    /// The open directory that a path is below, and the rest of it; empty for that directory itself.
    fn place<'a>(&self, path: &'a [u8]) -> (&Dir, &'a Path) {
        let name_bytes = if path.starts_with(TABLESPACES) { TABLESPACES.len() } else { 0 };
        let end = path.iter().skip(name_bytes).position(|byte| *byte == b'/').map(|end| name_bytes + end);
        let (link, rest) = match end {
            Some(end) => (path.get(..end).unwrap_or_default(), path.get(end + 1..).unwrap_or_default()),
            None => (path, &[][..]),
        };
        if let Some(directory) = self.linked.get(link) {
            return (directory, as_path(rest));
        }
        (&self.root, as_path(path))
    }

    /// The path of something, for messages.
    pub fn path_of(&self, path: &[u8]) -> PathBuf {
        self.root.path_of(as_path(path))
    }

    /// What has a name; links are not followed but for those of tablespaces.
    ///
    /// # Errors
    /// Whatever keeps the answer from being known.
    pub fn stat(&self, path: &[u8]) -> Result<Option<Stat>, FsError> {
        let (dir, rest) = self.place(path);
        if rest.as_os_str().is_empty() {
            return dir.stat_self().map(Some);
        }
        match nix::sys::stat::fstatat(dir.fd(), rest, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Stat::from(stat))),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(e) => Err(FsError::new("stat", self.path_of(path), e)),
        }
    }

    /// Makes a directory, if it is not there, and gives it its attributes. Its owner can always enter and change it.
    ///
    /// # Errors
    /// [`Problem::Exists`] when something else has the name; [`Problem::Denied`], [`Problem::NoSpace`], others.
    pub fn make_directory(&self, path: &[u8], access: Access) -> Result<(), FsError> {
        let (dir, rest) = self.place(path);
        if !rest.as_os_str().is_empty() {
            match nix::sys::stat::mkdirat(dir.fd(), rest, Mode::S_IRWXU) {
                Ok(()) => {}
                Err(Errno::EEXIST) if self.stat(path)?.is_some_and(|stat| stat.kind == ItemKind::Directory) => {}
                Err(e) => return Err(FsError::new("make directory", self.path_of(path), e)),
            }
        }
        let rest = if rest.as_os_str().is_empty() { Path::new(".") } else { rest };
        // The owner first: a change of owner may take permissions away.
        if let Some(owner) = access.owner {
            own_at(dir, rest, owner)?;
        }
        let mode = Mode::from_bits_truncate((access.mode & 0o7777) | 0o700);
        nix::sys::stat::fchmodat(dir.fd(), rest, mode, FchmodatFlags::FollowSymlink)
            .map_err(|e| FsError::new("change mode of", self.path_of(path), e))
    }

    /// Opens a file for reading and writing, and makes it when it is not there.
    ///
    /// # Errors
    /// [`Problem::Unsupported`] when a link has the name; [`Problem::Denied`], [`Problem::NoSpace`], others.
    pub fn open_file(&self, path: &[u8]) -> Result<File, FsError> {
        let (dir, rest) = self.place(path);
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW;
        let open = || dir.open_file(rest, flags, 0o600);
        let file = match open() {
            // What is there may be read-only even to its owner.
            Err(e) if e.problem == Problem::Denied => {
                nix::sys::stat::fchmodat(dir.fd(), rest, Mode::S_IRUSR | Mode::S_IWUSR, FchmodatFlags::FollowSymlink)
                    .map_err(|e| FsError::new("change mode of", self.path_of(path), e))?;
                open()?
            }
            other => other?,
        };
        file.ok_or_else(|| FsError::new("open", self.path_of(path), Errno::ENOENT))
    }

    /// Gives an open file its attributes and the time of its last change.
    ///
    /// # Errors
    /// [`Problem::Denied`], others.
    pub fn finish_file(&self, file: &File, path: &[u8], access: Access, modified_unix_us: i64) -> Result<(), FsError> {
        let fail = |action| move |e: Errno| FsError::new(action, self.path_of(path), e);
        if let Some(owner) = access.owner {
            nix::unistd::fchown(file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
                .map_err(fail("change owner of"))?;
        }
        let mode = Mode::from_bits_truncate(access.mode & 0o7777);
        if mode != Mode::from_bits_truncate(0o600) || access.owner.is_some() || mode_of(file) != Some(0o600) {
            nix::sys::stat::fchmod(file, mode).map_err(fail("change mode of"))?;
        }
        let at = TimeSpec::new(modified_unix_us.div_euclid(1_000_000), modified_unix_us.rem_euclid(1_000_000) * 1000);
        nix::sys::stat::futimens(file, &TimeSpec::UTIME_OMIT, &at).map_err(fail("set time of"))
    }

    /// Writes a file, durably and in one step: under another name first.
    ///
    /// # Errors
    /// As [`open_file`](Self::open_file), [`finish_file`](Self::finish_file).
    pub fn put_file(&self, path: &[u8], bytes: &[u8], access: Access, modified_unix_us: i64) -> Result<(), FsError> {
        let temporary = [path, PUT_SUFFIX].concat();
        let file = self.open_file(&temporary)?;
        let fail = |action| move |e: std::io::Error| FsError::new(action, self.path_of(path), e);
        file.set_len(0).map_err(fail("truncate"))?;
        file.write_all_at(bytes, 0).map_err(fail("write"))?;
        self.finish_file(&file, &temporary, access, modified_unix_us)?;
        file.sync_all().map_err(fail("sync"))?;
        let (dir, rest) = self.place(path);
        let (_, from) = self.place(&temporary);
        nix::fcntl::renameat(dir.fd(), from, dir.fd(), rest).map_err(|e| FsError::new("rename", self.path_of(&temporary), e))?;
        self.sync_parent(path)
    }

    /// Makes the names in the directory of something durable.
    ///
    /// # Errors
    /// As [`Dir::open`]; when the file system fails.
    pub fn sync_parent(&self, path: &[u8]) -> Result<(), FsError> {
        let (dir, rest) = self.place(path);
        match rest.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            None => dir.sync(),
            Some(parent) => match dir.open_below(parent)? {
                Some(parent) => parent.sync(),
                None => Err(FsError::new("sync directory", self.path_of(path), Errno::ENOENT)),
            },
        }
    }

    /// The names in a directory, in no order.
    ///
    /// # Errors
    /// As [`Dir::items`].
    pub fn items(&self, path: &[u8]) -> Result<Vec<super::Item>, FsError> {
        let (dir, rest) = self.place(path);
        if rest.as_os_str().is_empty() {
            return dir.items();
        }
        match dir.open_below(rest)? {
            Some(below) => below.items(),
            None => Ok(Vec::new()),
        }
    }

    /// Removes a file, a link, or a directory with everything below it; links are not followed. Says whether anything was there.
    ///
    /// # Errors
    /// [`Problem::Denied`], [`Problem::ReadOnly`], others.
    pub fn remove(&self, path: &[u8]) -> Result<bool, FsError> {
        let (dir, rest) = self.place(path);
        match self.stat(path)?.map(|stat| stat.kind) {
            None => Ok(false),
            Some(ItemKind::Directory) => remove_directory(dir, rest).map(|()| true),
            Some(_) => self.unlink(dir, rest, UnlinkatFlags::NoRemoveDir).map(|()| true),
        }
    }

    fn unlink(&self, dir: &Dir, rest: &Path, flags: UnlinkatFlags) -> Result<(), FsError> {
        nix::unistd::unlinkat(dir.fd(), rest, flags).map_err(|e| FsError::new("remove", dir.path_of(rest), e))
    }

    /// Makes everything durable that was written to the file systems of the data directory and its tablespaces. An error of the disk
    /// since this value was made is reported here.
    ///
    /// # Errors
    /// When a file system could not write everything.
    pub fn sync(&self) -> Result<(), FsError> {
        let mut synced = Vec::new();
        for dir in std::iter::once(&self.root).chain(self.linked.values()) {
            let device = dir.stat_self()?.dev;
            if synced.contains(&device) {
                continue;
            }
            nix::unistd::syncfs(dir.fd().as_fd()).map_err(|e| FsError::new("sync the file system of", dir.path(), e))?;
            synced.push(device);
        }
        Ok(())
    }
}

/// What a file is called until it is whole.
const PUT_SUFFIX: &[u8] = b".walvis-new";

fn mode_of(file: &File) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().ok().map(|metadata| metadata.permissions().mode() & 0o7777)
}

fn own_at(dir: &Dir, rest: &Path, owner: Owner) -> Result<(), FsError> {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    nix::unistd::fchownat(dir.fd(), rest, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
        .map_err(|e| FsError::new("change owner of", dir.path_of(rest), e))
}

/// Removes a directory and what is in it. Directories are never so deep that this could exhaust the stack: their paths are bounded.
fn remove_directory(parent: &Dir, name: &Path) -> Result<(), FsError> {
    if let Some(dir) = parent.open_below(name)? {
        for item in dir.items()? {
            let kind = match item.kind {
                // A link is removed, not followed.
                ItemKind::Unknown => no_follow(&dir, &item.name)?,
                kind => Some(kind),
            };
            match kind {
                Some(ItemKind::Directory) => remove_directory(&dir, Path::new(&item.name))?,
                Some(_) => nix::unistd::unlinkat(dir.fd(), item.name.as_os_str(), UnlinkatFlags::NoRemoveDir)
                    .map_err(|e| FsError::new("remove", dir.path_of(&item.name), e))?,
                None => {}
            }
        }
    }
    nix::unistd::unlinkat(parent.fd(), name, UnlinkatFlags::RemoveDir)
        .map_err(|e| FsError::new("remove", parent.path_of(name), e))
}

fn no_follow(dir: &Dir, name: &OsStr) -> Result<Option<ItemKind>, FsError> {
    match nix::sys::stat::fstatat(dir.fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(Stat::from(stat).kind)),
        Err(Errno::ENOENT) => Ok(None),
        Err(e) => Err(FsError::new("stat", dir.path_of(name), e)),
    }
}

/// Makes a range of a file zeros that take no room, where the file system can; writes them otherwise. The file must reach at least
/// to its end.
///
/// # Errors
/// [`Problem::NoSpace`], others.
pub fn zero_range(file: &File, path: &Path, from: u64, len: usize) -> Result<(), FsError> {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    match nix::fcntl::fallocate(file, flags, from.cast_signed(), (len as u64).cast_signed()) {
        Ok(()) => Ok(()),
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => {
            file.write_all_at(&vec![0; len], from).map_err(|e| FsError::new("write", path, e))
        }
        Err(e) => Err(FsError::new("write", path, e)),
    }
}

/// Bytes that an ordinary user can still write to the file system of an existing path.
///
/// # Errors
/// When the file system does not say.
pub fn available_bytes(path: &Path) -> Result<u64, FsError> {
    let room = nix::sys::statvfs::statvfs(path).map_err(|e| FsError::new("ask for free space at", path, e))?;
    #[allow(clippy::useless_conversion)] // The types differ between architectures.
    Ok(u64::from(room.blocks_available()).saturating_mul(u64::from(room.fragment_size())))
}

/// What a symbolic link leads to, as it is written in it; `None` when there is nothing, or something else, of that name.
///
/// # Errors
/// Whatever keeps the answer from being known.
pub fn read_link(path: &Path) -> Result<Option<OsString>, FsError> {
    match nix::fcntl::readlink(path) {
        Ok(target) => Ok(Some(target)),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EINVAL) => Ok(None),
        Err(e) => Err(FsError::new("read link", path, e)),
    }
}

/// Makes one directory, mode 0700, in an existing one. Finding a directory there is fine.
///
/// # Errors
/// [`Problem::Absent`] when the one above is missing; [`Problem::Exists`] when something else has the name; others.
pub fn make_private_dir(path: &Path, owner: Option<Owner>) -> Result<(), FsError> {
    match nix::unistd::mkdir(path, Mode::S_IRWXU) {
        Ok(()) => {}
        Err(Errno::EEXIST) if super::stat(path)?.is_some_and(|stat| stat.kind == ItemKind::Directory) => return Ok(()),
        Err(e) => return Err(FsError::new("make directory", path, e)),
    }
    if let Some(owner) = owner {
        nix::unistd::chown(path, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
            .map_err(|e| FsError::new("change owner of", path, e))?;
    }
    Ok(())
}

/// Opens a file that every call adds to, making it with mode 0600 when it is not there.
///
/// # Errors
/// [`Problem::Denied`], others.
pub fn open_append(path: &Path, owner: Option<Owner>) -> Result<File, FsError> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_APPEND | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = nix::fcntl::open(path, flags, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|e| FsError::new("open", path, e))?;
    if let Some(owner) = owner {
        nix::unistd::fchown(&fd, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
            .map_err(|e| FsError::new("change owner of", path, e))?;
    }
    Ok(File::from(fd))
}

/// A lock on a directory that is held until it is dropped, or its process ends.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held for its effect")] File);

/// Locks an existing directory; `None` when another process has locked it.
///
/// # Errors
/// As [`Dir::open`]; when the file system does not answer.
pub fn lock_directory(path: &Path) -> Result<Option<Lock>, FsError> {
    let file = File::open(path).map_err(|e| FsError::new("open directory", path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock(file))),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        // Without locks two restores at once cannot be told, and the restore works all the same.
        Err(std::fs::TryLockError::Error(e)) if e.raw_os_error() == Some(Errno::ENOLCK as i32) => Ok(Some(Lock(file))),
        Err(std::fs::TryLockError::Error(e)) => Err(FsError::new("lock", path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    const FILE: Access = Access { mode: 0o640, owner: None };
    const DIRECTORY: Access = Access { mode: 0o750, owner: None };

    #[test]
    fn files_get_their_attributes_and_tablespaces_are_elsewhere() {
        let place = tempfile::tempdir().unwrap();
        let (root, space) = (place.path().join("data"), place.path().join("space"));
        for path in [&root, &space] {
            make_private_dir(path, None).unwrap();
            make_private_dir(path, None).unwrap();
        }
        let mut tree = Rebuild::open(&root).unwrap();
        tree.make_directory(b"", DIRECTORY).unwrap();
        tree.make_directory(b"pg_tblspc", DIRECTORY).unwrap();
        for _ in 0..2 {
            tree.link_tablespace(16399, &space).unwrap();
        }
        tree.make_directory(b"pg_tblspc/16399/PG_15", DIRECTORY).unwrap();
        let file = tree.open_file(b"pg_tblspc/16399/PG_15/1").unwrap();
        file.set_len(5).unwrap();
        tree.finish_file(&file, b"pg_tblspc/16399/PG_15/1", FILE, -1_500_000).unwrap();
        let there = std::fs::metadata(space.join("PG_15/1")).unwrap();
        assert_eq!((there.permissions().mode() & 0o7777, there.mtime(), there.mtime_nsec()), (0o640, -2, 500_000_000));
        assert_eq!(std::fs::metadata(&root).unwrap().permissions().mode() & 0o7777, 0o750);
        tree.put_file(b"pg_tblspc/16399/PG_15/2", b"12", FILE, 0).unwrap();
        tree.put_file(b"pg_tblspc/16399/PG_15/2", b"3", FILE, 0).unwrap();
        assert_eq!(std::fs::read(space.join("PG_15/2")).unwrap(), b"3");
        tree.sync().unwrap();
        let other = place.path().join("other");
        make_private_dir(&other, None).unwrap();
        tree.link_tablespace(16399, &other).unwrap();
        assert_eq!(read_link(&root.join("pg_tblspc/16399")).unwrap().unwrap(), other.as_os_str());
        assert!(tree.remove(b"pg_tblspc").unwrap() && !tree.remove(b"pg_tblspc").unwrap());
        assert!(space.join("PG_15/2").exists() && other.exists() && !root.join("pg_tblspc").exists());
    }

    #[test]
    fn links_that_lie_in_the_way_are_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let victim = place.path().join("victim");
        std::fs::write(&victim, b"keep").unwrap();
        std::os::unix::fs::symlink(&victim, place.path().join("link")).unwrap();
        let tree = Rebuild::open(place.path()).unwrap();
        assert_eq!(tree.open_file(b"link").unwrap_err().problem, Problem::Unsupported);
        assert!(tree.remove(b"link").unwrap());
        assert_eq!(std::fs::read(victim).unwrap(), b"keep");
    }

    #[test]
    fn ranges_become_zeros() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        std::fs::write(&path, [7; 200_000]).unwrap();
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        zero_range(&file, &path, 65_536, 65_536).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes.len() == 200_000 && bytes[..65_536].iter().all(|b| *b == 7));
        assert!(bytes[65_536..131_072].iter().all(|b| *b == 0) && bytes[131_072..].iter().all(|b| *b == 7));
        assert!(available_bytes(place.path()).unwrap() > 0);
    }

    #[test]
    fn a_locked_directory_is_told() {
        let place = tempfile::tempdir().unwrap();
        let held = lock_directory(place.path()).unwrap();
        assert!(held.is_some() && lock_directory(place.path()).unwrap().is_none());
        drop(held);
        assert!(lock_directory(place.path()).unwrap().is_some());
    }
}
