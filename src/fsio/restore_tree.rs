//! A data directory that is being rebuilt: directories, files with all their attributes, links to tablespaces.
//!
//! Paths are relative to the data directory, as bytes. Those below `pg_tblspc/<oid>/PG_…`, and below a `pg_wal` that is
//! elsewhere, lead into directories that were opened by themselves: never by a link that lies in the data directory. No
//! link is followed, neither at the end of a path nor on the way, and a file with a second name is not written to. Of a
//! tablespace's location only `PG_…` is within reach. Nothing is durable before [`sync`](RestoreTree::sync).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag};

use super::below::{finish, set_time};
use super::{Dir, FsError, Item, ItemKind, Problem, Stat};

/// The prefix of what lies in tablespaces.
const TABLESPACES: &[u8] = b"pg_tblspc/";
/// The log, which may lie elsewhere.
const WAL: &[u8] = b"pg_wal";

/// A data directory, the directories of its tablespaces, and that of its log.
#[derive(Debug)]
pub struct RestoreTree {
    root: Dir,
    wal: Option<Dir>,
    /// By the paths of their links.
    tablespaces: BTreeMap<Vec<u8>, Tablespace>,
}

/// What a tablespace's location has of this cluster.
#[derive(Debug)]
struct Tablespace {
    /// `PG_<major>_<catalog version>`.
    name: OsString,
    dir: Dir,
}

/// Where a path leads.
enum Within<'a> {
    /// Below an open directory; the empty path is that directory itself.
    In(&'a Dir, &'a Path),
    /// To the location of a tablespace.
    Location(&'a Tablespace),
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// The first name of a path, and the rest.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let end = path.iter().position(|byte| *byte == b'/').unwrap_or(path.len());
    (path.get(..end).unwrap_or_default(), path.get(end + 1..).unwrap_or_default())
}

impl RestoreTree {
    /// In an open data directory, whatever is in it.
    pub fn new(root: Dir) -> Self {
        Self { root, wal: None, tablespaces: BTreeMap::new() }
    }

    /// The data directory.
    pub fn root(&self) -> &Dir {
        &self.root
    }

    /// Makes the link `pg_tblspc/<oid>` lead to a location, whose directory `PG_…` is given. Whatever else has the
    /// link's name goes.
    ///
    /// # Errors
    /// [`Problem::Denied`], others.
    pub fn link_tablespace(&mut self, oid: u32, location: &Path, version_directory: &str, dir: Dir) -> Result<(), FsError> {
        let name = format!("pg_tblspc/{oid}");
        self.link(&name, location)?;
        self.tablespaces.insert(name.into_bytes(), Tablespace { name: version_directory.into(), dir });
        Ok(())
    }

    /// Makes `pg_wal` a link to a directory, which is given too. Whatever else has that name goes, with all that is in
    /// it.
    ///
    /// # Errors
    /// [`Problem::Denied`], others.
    pub fn link_wal(&mut self, target: &Path, dir: Dir) -> Result<(), FsError> {
        self.link("pg_wal", target)?;
        self.wal = Some(dir);
        Ok(())
    }

    fn link(&self, name: &str, target: &Path) -> Result<(), FsError> {
        let path = Path::new(name);
        if self.root.link_beneath(path)?.is_some_and(|old| old == target) {
            return Ok(());
        }
        self.root.remove_beneath(path)?;
        self.root.make_link_beneath(path, target)
    }

    fn place<'a>(&'a self, path: &'a [u8]) -> Result<Within<'a>, FsError> {
        let (first, rest) = split(path);
        if let Some(wal) = self.wal.as_ref().filter(|_| first == WAL) {
            return Ok(Within::In(wal, as_path(rest)));
        }
        if let Some(rest) = path.strip_prefix(TABLESPACES) {
            let (oid, rest) = split(rest);
            let link = path.get(..TABLESPACES.len() + oid.len()).unwrap_or_default();
            if let Some(tablespace) = self.tablespaces.get(link) {
                let (name, rest) = split(rest);
                return match name {
                    b"" => Ok(Within::Location(tablespace)),
                    name if OsStr::from_bytes(name) == tablespace.name => Ok(Within::In(&tablespace.dir, as_path(rest))),
                    _ => Err(FsError::because(
                        Problem::Unsupported,
                        "use",
                        self.path_of(path),
                        format!("only {} is this cluster's there", tablespace.name.display()),
                    )),
                };
            }
        }
        Ok(Within::In(&self.root, as_path(path)))
    }

    /// The path of something, for messages.
    pub fn path_of(&self, path: &[u8]) -> PathBuf {
        self.root.path_of(as_path(path))
    }

    /// What has a name; links are not followed.
    ///
    /// # Errors
    /// Whatever keeps the answer from being known.
    pub fn stat(&self, path: &[u8]) -> Result<Option<Stat>, FsError> {
        match self.place(path)? {
            Within::In(dir, rest) => dir.stat_beneath(rest),
            Within::Location(tablespace) => tablespace.dir.stat_self().map(Some),
        }
    }

    /// Makes a directory, if it is not there, and gives it its permissions, of those that PostgreSQL uses. A
    /// tablespace's location stays as it is.
    ///
    /// # Errors
    /// [`Problem::Unsupported`] when something else has the name; [`Problem::Denied`], [`Problem::NoSpace`], others.
    pub fn make_directory(&self, path: &[u8], mode: u32) -> Result<(), FsError> {
        match self.place(path)? {
            Within::In(dir, rest) if rest.as_os_str().is_empty() => dir.set_mode(mode),
            Within::In(dir, rest) => dir.make_dir_beneath(rest)?.set_mode(mode),
            Within::Location(_) => Ok(()),
        }
    }

    /// Opens a file for reading and writing, and makes it when it is not there.
    ///
    /// # Errors
    /// [`Problem::Unsupported`] when a link or a directory has the name; [`Problem::Unsafe`] when the file has a second
    /// name, or belongs to somebody else; [`Problem::Denied`], [`Problem::NoSpace`], others.
    pub fn open_file(&self, path: &[u8]) -> Result<File, FsError> {
        let (dir, rest) = self.file_place(path)?;
        let file = dir.file_beneath(rest, OFlag::O_RDWR | OFlag::O_CREAT, 0o600)?;
        let file = file.ok_or_else(|| FsError::new("open", self.path_of(path), Errno::ENOENT))?;
        dir.check_is_ours(&file, rest)?;
        Ok(file)
    }

    fn file_place<'a>(&'a self, path: &'a [u8]) -> Result<(&'a Dir, &'a Path), FsError> {
        match self.place(path)? {
            Within::In(dir, rest) if !rest.as_os_str().is_empty() => Ok((dir, rest)),
            _ => Err(FsError::new("open", self.path_of(path), Errno::EISDIR)),
        }
    }

    /// Gives an open file its permissions, of those that PostgreSQL uses, and the time of its last change.
    ///
    /// # Errors
    /// [`Problem::Denied`], others.
    pub fn finish_file(&self, file: &File, path: &[u8], mode: u32, modified_unix_us: i64) -> Result<(), FsError> {
        let _as = self.root.enter()?;
        finish(file, mode).map_err(|e| FsError::new("change mode of", self.path_of(path), e))?;
        set_time(file, modified_unix_us).map_err(|e| FsError::new("set time of", self.path_of(path), e))
    }

    /// Writes a file, durably and in one step: under another name first.
    ///
    /// # Errors
    /// As [`Dir::put`].
    pub fn put_file(&self, path: &[u8], bytes: &[u8], mode: u32, modified_unix_us: i64) -> Result<(), FsError> {
        let (dir, rest) = self.file_place(path)?;
        dir.put(rest, bytes, mode, dir.identity(), modified_unix_us)
    }

    /// Makes the names in the directory of something durable.
    ///
    /// # Errors
    /// As [`Dir::open`]; when the file system fails.
    pub fn sync_parent(&self, path: &[u8]) -> Result<(), FsError> {
        let (dir, rest) = self.file_place(path)?;
        match dir.parent_beneath(rest)? {
            Some((parent, _)) => parent.sync(),
            None => Err(FsError::new("sync directory", self.path_of(path), Errno::ENOENT)),
        }
    }

    /// The names in a directory, in no order; of a tablespace's location only the one that is this cluster's.
    ///
    /// # Errors
    /// As [`Dir::items`].
    pub fn items(&self, path: &[u8]) -> Result<Vec<Item>, FsError> {
        match self.place(path)? {
            Within::In(dir, rest) => dir.dir_beneath(rest)?.map_or_else(|| Ok(Vec::new()), |dir| dir.items()),
            Within::Location(tablespace) => Ok(vec![Item { name: tablespace.name.clone(), kind: ItemKind::Directory }]),
        }
    }

    /// Removes a file, a link, or a directory with everything below it; links are not followed. Says whether anything
    /// was there. The directories outside the data directory are only emptied.
    ///
    /// # Errors
    /// [`Problem::Denied`], [`Problem::ReadOnly`], others.
    pub fn remove(&self, path: &[u8]) -> Result<bool, FsError> {
        match self.place(path)? {
            Within::In(dir, rest) if rest.as_os_str().is_empty() => dir.remove_content().map(|()| true),
            Within::In(dir, rest) => dir.remove_beneath(rest),
            Within::Location(tablespace) => tablespace.dir.remove_content().map(|()| true),
        }
    }

    /// Makes everything durable that was written to the file systems of the data directory and its tablespaces. An
    /// error of the disk since this value was made is reported here.
    ///
    /// # Errors
    /// When a file system could not write everything.
    pub fn sync(&self) -> Result<(), FsError> {
        let mut synced = Vec::new();
        let elsewhere = self.tablespaces.values().map(|tablespace| &tablespace.dir);
        for dir in std::iter::once(&self.root).chain(&self.wal).chain(elsewhere) {
            let device = dir.stat_self()?.dev;
            if !synced.contains(&device) {
                dir.sync_file_system()?;
                synced.push(device);
            }
        }
        Ok(())
    }
}

/// Makes a range of a file zeros that take no room, where the file system can; writes them otherwise. The file must
/// reach at least to its end.
///
/// # Errors
/// [`Problem::NoSpace`], others.
pub fn zero_range(file: &File, path: &Path, from: u64, len: usize) -> Result<(), FsError> {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    match nix::fcntl::fallocate(file, flags, from.cast_signed(), (len as u64).cast_signed()) {
        Ok(()) => Ok(()),
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => {
            std::os::unix::fs::FileExt::write_all_at(file, &vec![0; len], from).map_err(|e| FsError::new("write", path, e))
        }
        Err(e) => Err(FsError::new("write", path, e)),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn open(path: &Path) -> RestoreTree {
        RestoreTree::new(Dir::open(path).unwrap())
    }

    fn directory(path: &Path) -> Dir {
        std::fs::create_dir_all(path).unwrap();
        Dir::open(path).unwrap()
    }

    #[test]
    fn files_get_their_attributes_and_tablespaces_are_elsewhere() {
        let place = tempfile::tempdir().unwrap();
        let (root, space) = (place.path().join("data"), place.path().join("space"));
        let mut tree = RestoreTree::new(directory(&root));
        tree.make_directory(b"", 0o750).unwrap();
        tree.make_directory(b"pg_tblspc", 0o750).unwrap();
        let version = directory(&space.join("PG_15_1"));
        std::fs::set_permissions(&space, std::fs::Permissions::from_mode(0o711)).unwrap();
        for _ in 0..2 {
            tree.link_tablespace(16399, &space, "PG_15_1", version.clone()).unwrap();
        }
        tree.make_directory(b"pg_tblspc/16399", 0o700).unwrap();
        tree.make_directory(b"pg_tblspc/16399/PG_15_1", 0o4777).unwrap();
        let file = tree.open_file(b"pg_tblspc/16399/PG_15_1/1").unwrap();
        file.set_len(5).unwrap();
        tree.finish_file(&file, b"pg_tblspc/16399/PG_15_1/1", 0o6666, -1_500_000).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let there = std::fs::metadata(space.join("PG_15_1/1")).unwrap();
        assert_eq!((there.permissions().mode() & 0o7777, there.mtime(), there.mtime_nsec()), (0o640, -2, 500_000_000));
        assert_eq!((mode(&root), mode(&space), mode(&space.join("PG_15_1"))), (0o750, 0o711, 0o750));
        tree.put_file(b"pg_tblspc/16399/PG_15_1/2", b"12", 0o640, 0).unwrap();
        tree.put_file(b"pg_tblspc/16399/PG_15_1/2", b"3", 0o640, 0).unwrap();
        assert_eq!(std::fs::read(space.join("PG_15_1/2")).unwrap(), b"3");
        tree.sync().unwrap();
        // What else is in the location is out of reach.
        std::fs::create_dir(space.join("PG_14_9")).unwrap();
        std::fs::write(space.join("other"), "").unwrap();
        let problem = |outcome: Result<bool, FsError>| outcome.map_err(|e| e.problem);
        for path in [&b"pg_tblspc/16399/other"[..], b"pg_tblspc/16399/PG_14_9", b"pg_tblspc/16399/../x"] {
            assert_eq!(problem(tree.stat(path).map(|stat| stat.is_some())), Err(Problem::Unsupported));
            assert_eq!(problem(tree.remove(path)), Err(Problem::Unsupported));
            assert_eq!(problem(tree.open_file(path).map(|_| true)), Err(Problem::Unsupported));
            assert_eq!(problem(tree.make_directory(path, 0).map(|()| true)), Err(Problem::Unsupported));
        }
        assert_eq!(tree.items(b"pg_tblspc/16399").unwrap().len(), 1);
        let other = place.path().join("other");
        tree.link_tablespace(16399, &other, "PG_15_1", directory(&other.join("PG_15_1"))).unwrap();
        assert_eq!(std::fs::read_link(root.join("pg_tblspc/16399")).unwrap(), other);
        assert!(tree.remove(b"pg_tblspc/16399").unwrap() && other.join("PG_15_1").exists());
        assert!(tree.remove(b"pg_tblspc").unwrap() && !tree.remove(b"pg_tblspc").unwrap());
        assert!(space.join("PG_15_1/2").exists() && other.exists() && !root.join("pg_tblspc").exists());
    }

    #[test]
    fn the_log_may_lie_elsewhere() {
        let place = tempfile::tempdir().unwrap();
        let (root, log) = (place.path().join("data"), place.path().join("log"));
        let mut tree = RestoreTree::new(directory(&root));
        directory(&root.join("pg_wal/archive_status"));
        tree.link_wal(&log, directory(&log)).unwrap();
        tree.make_directory(b"pg_wal", 0o700).unwrap();
        tree.make_directory(b"pg_wal/archive_status", 0o700).unwrap();
        assert!(log.join("archive_status").exists() && std::fs::read_link(root.join("pg_wal")).unwrap() == log);
        assert!(tree.remove(b"pg_wal").unwrap() && log.exists() && !log.join("archive_status").exists());
    }

    #[test]
    fn links_and_second_names_that_lie_in_the_way_are_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let at = |path: &str| place.path().join(path);
        let tree = RestoreTree::new(directory(&at("data")));
        directory(&at("outside"));
        std::fs::write(at("outside/victim"), "keep").unwrap();
        symlink(at("outside/victim"), at("data/link")).unwrap();
        symlink(at("outside"), at("data/base")).unwrap();
        std::fs::hard_link(at("outside/victim"), at("data/second")).unwrap();
        let problem = |path: &[u8]| tree.open_file(path).unwrap_err().problem;
        assert_eq!(problem(b"link"), Problem::Unsupported);
        assert_eq!(problem(b"base/victim"), Problem::Unsupported);
        assert_eq!(problem(b"second"), Problem::Unsafe);
        assert_eq!(tree.remove(b"base/victim").unwrap_err().problem, Problem::Unsupported);
        assert_eq!(tree.make_directory(b"base", 0o700).unwrap_err().problem, Problem::Unsupported);
        assert_eq!(tree.make_directory(b"base/new", 0o700).unwrap_err().problem, Problem::Unsupported);
        assert!(tree.items(b"base").is_err());
        assert!(tree.remove(b"link").unwrap() && tree.remove(b"base").unwrap() && tree.remove(b"second").unwrap());
        assert_eq!(std::fs::read(at("outside/victim")).unwrap(), b"keep");
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
        assert!(open(place.path()).sync().is_ok());
    }
}
