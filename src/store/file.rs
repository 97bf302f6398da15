//! A repository in a directory: a key is the path of a file below it.
//!
//! Lives here: keys to paths, listing in key order, file-system errors to store errors. How a file is published so that
//! no kill and no power failure can halve it is the business of [`crate::fsio`]. Objects get mode 0640 less the umask,
//! directories 0750; `fsio` says why.
//!
//! Names that no key can have (such as those that begin with a dot) are foreign and never shown; [`TEMP_DIR`] is one of
//! them. Symbolic links are followed, so that a cluster may live on another disk, as long as a link's target and what
//! is renamed into it are in one file system. Root works with the rights of the owner of the directory, and follows
//! them no further than that user could.

use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use super::features::Features;
use super::{ContentId, Created, Deleted, Entry, ErrorKind, Hidden, Key, Leftover, Object, ReadRange, Store, StoreError, Upload};
use crate::fsio::{
    self, AbandonedFile, AtomicFile, Dir, DirectReader, FsError, Identity, ItemKind, Problem, Published, Removed, TempFiles, Tree,
};
use crate::limits::MAX_LEFTOVERS;

#[cfg(doc)]
use crate::fsio::TEMP_DIR;

/// A store in a directory.
#[derive(Debug)]
pub struct FileStore {
    tree: Tree,
    location: String,
}

impl FileStore {
    /// Opens the repository in an existing directory.
    ///
    /// # Errors
    /// [`ErrorKind::NoSuchPlace`] when the directory does not exist; [`ErrorKind::Denied`], others.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Self::open_with(root, TempFiles::Auto)
    }

    /// As [`open`](Self::open), with a choice of temp files.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(root: &Path, files: TempFiles) -> Result<Self, StoreError> {
        let root = absolute(root);
        let location = location_of(&root);
        match Tree::open(&root, files) {
            Ok(tree) => Ok(Self { tree, location }),
            Err(e) => Err(store_error(e, "open the repository".into(), &location)),
        }
    }

    /// Makes the directory of a repository, and what is missing above it, durably. Finding it there is fine.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`], [`ErrorKind::ReadOnly`], others.
    pub fn create_root(root: &Path) -> Result<Self, StoreError> {
        Self::create_root_for(root, Identity::own())
    }

    /// As [`create_root`](Self::create_root), as root for this user.
    ///
    /// # Errors
    /// As [`create_root`](Self::create_root).
    pub fn create_root_for(root: &Path, owner: Identity) -> Result<Self, StoreError> {
        let root = absolute(root);
        fsio::make_dirs_for(&root, owner).map_err(|e| store_error(e, "make the repository".into(), &location_of(&root)))?;
        Self::open(&root)
    }

    fn fail(&self, action: &str, key: &str, error: FsError) -> StoreError {
        store_error(error, format!("{action} {key}"), &self.location)
    }

    fn publish(&self, new_file: &mut AtomicFile, key: &Key) -> Result<Created, StoreError> {
        match self.tree.publish(new_file, path_of(key)) {
            Ok(Published::New) => Ok(Created::New),
            Ok(Published::Exists) => Ok(Created::Exists),
            Err(e) if new_file.is_lost() => Err(self.fail("create", key.as_str(), e).permanently()),
            Err(e) => Err(self.fail("create", key.as_str(), e)),
        }
    }

    fn not_found(&self, action: &str, key: &Key) -> StoreError {
        StoreError::new(ErrorKind::NotFound, format!("{action} {key}"), &self.location, "there is no such object")
    }
}

impl Store for FileStore {
    fn location(&self) -> &str {
        &self.location
    }

    fn create(&self, key: &Key, body: Bytes, _: &ContentId) -> Result<Created, StoreError> {
        let fail = |e| self.fail("create", key.as_str(), e);
        // Spares writing it all; the proof is in publishing.
        if self.tree.stat(path_of(key)).map_err(fail)?.is_some_and(|stat| stat.kind == ItemKind::File) {
            return Ok(Created::Exists);
        }
        let mut new_file = self.tree.new_file(path_of(key)).map_err(fail)?;
        new_file.append_past_cache(&body).map_err(fail)?;
        self.publish(&mut new_file, key)
    }

    fn begin(&self, key: &Key, _: &ContentId) -> Result<Box<dyn Upload + '_>, StoreError> {
        let new_file = self.tree.new_file(path_of(key)).map_err(|e| self.fail("create", key.as_str(), e))?;
        Ok(Box::new(FileUpload { store: self, key: key.clone(), new_file }))
    }

    fn read(&self, key: &Key, range: ReadRange) -> Result<Object<'_>, StoreError> {
        let opened = self.tree.open_file(path_of(key)).map_err(|e| self.fail("read", key.as_str(), e))?;
        let Some((file, stat)) = opened else { return Err(self.not_found("read", key)) };
        let offset = range.offset();
        let rest = stat.size_bytes.saturating_sub(offset);
        let left = match range {
            ReadRange::All | ReadRange::From(_) => rest,
            ReadRange::Bounded { len, .. } => rest.min(len),
        };
        // Ranges are of packs, which are read once; whole objects are WAL, which several standbys may ask for.
        let is_range = matches!(range, ReadRange::Bounded { .. });
        let direct = (is_range && DirectReader::is_worth_it(left)).then(DirectReader::default);
        let body = Body { store: self, key: key.clone(), file, offset, left, direct };
        Ok(Object { size_bytes: stat.size_bytes, body: Box::new(body) })
    }

    fn list(&self, prefix: &str, after: &str, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) -> Result<(), StoreError> {
        let fail = |e| self.fail("list", prefix, e);
        // Where the prefix names directories, begin there.
        let mut path = match prefix.rsplit_once('/') {
            None => String::new(),
            Some((dir, _)) if Key::new(dir).is_ok() => format!("{dir}/"),
            Some(_) => return Ok(()), // No key begins like this.
        };
        let Some(dir) = self.tree.open_dir(Path::new(path.trim_end_matches('/'))).map_err(fail)? else { return Ok(()) };
        let mut walk = Walk { prefix, after, visit, above: Vec::new() };
        let outcome = walk.directory(&dir, &mut path).map_err(fail)?;
        if outcome.is_continue() {
            // A root that is removed while it is listed looks as if all were deleted: it has to be there still.
            self.tree.check().map_err(fail)?;
        }
        Ok(())
    }

    fn make_durable(&self, key: &Key) -> Result<(), StoreError> {
        match self.tree.make_durable(path_of(key)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.not_found("make durable", key)),
            Err(e) => Err(self.fail("make durable", key.as_str(), e)),
        }
    }

    /// Durable, so that what is deleted in an order cannot come back in another.
    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.tree.remove(path_of(key)).map(|_| ()).map_err(|e| self.fail("delete", key.as_str(), e))
    }

    fn delete_many(&self, keys: &[Key]) -> Result<Vec<Deleted>, StoreError> {
        let paths: Vec<&Path> = keys.iter().map(path_of).collect();
        let removed = self.tree.remove_many(&paths).map_err(|e| self.fail("delete", &format!("{} objects", keys.len()), e))?;
        Ok(removed
            .into_iter()
            .map(|removed| match removed {
                Removed::Gone => Deleted::Gone,
                Removed::Refused(error) => Deleted::Denied(error.to_string()),
            })
            .collect())
    }

    fn leftovers(&self, older_than: Duration) -> Result<Vec<Leftover>, StoreError> {
        let abandoned = self.tree.abandoned(older_than, MAX_LEFTOVERS).map_err(|e| self.fail("list", "temporary files", e))?;
        // The names that are made are plain text.
        let leftover = |file: AbandonedFile| {
            let (id, alive_unix_s) = (file.name.into_string().ok()?, file.modified_unix_s);
            Some(Leftover { key: None, id, size_bytes: Some(file.size_bytes), alive_unix_s })
        };
        Ok(abandoned.into_iter().filter_map(leftover).collect())
    }

    fn remove_leftover(&self, leftover: &Leftover) -> Result<bool, StoreError> {
        self.tree.remove_abandoned(&leftover.id).map_err(|e| self.fail("remove", &leftover.id, e))
    }

    fn hidden(&self, _: &str, _: &str, _: &mut dyn FnMut(Hidden) -> ControlFlow<()>) -> Result<(), StoreError> {
        Ok(())
    }

    fn purge(&self, hidden: &[Hidden]) -> Result<Vec<Deleted>, StoreError> {
        Ok(vec![Deleted::Gone; hidden.len()])
    }

    fn features(&self) -> Result<Features, StoreError> {
        Ok(Features::none())
    }

    /// A file gets its name only where there is none; what other programs do is a matter of permissions.
    fn can_replace(&self, _: &Key, _: Bytes) -> Result<Option<bool>, StoreError> {
        Ok(None)
    }
}

struct FileUpload<'a> {
    store: &'a FileStore,
    key: Key,
    new_file: AtomicFile,
}

impl Upload for FileUpload<'_> {
    fn part(&mut self, body: Bytes) -> Result<(), StoreError> {
        self.new_file.append_past_cache(&body).map_err(|e| self.store.fail("create", self.key.as_str(), e))
    }

    fn complete(&mut self) -> Result<Created, StoreError> {
        self.store.publish(&mut self.new_file, &self.key)
    }
}

/// The bytes of a range.
struct Body<'a> {
    store: &'a FileStore,
    key: Key,
    file: File,
    offset: u64,
    left: u64,
    direct: Option<DirectReader>,
}

impl Read for Body<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let Some(buf) = buf.get_mut(..want).filter(|buf| !buf.is_empty()) else { return Ok(0) };
        let action = || format!("read {}", self.key);
        let read = match &mut self.direct {
            Some(direct) => direct.read_at(&self.file, buf, self.offset, self.left),
            None => self.file.read_at(buf, self.offset),
        };
        match read {
            Ok(0) => {
                let detail = format!("the file ends at byte {}, {} bytes early: somebody shortened it", self.offset, self.left);
                Err(StoreError::new(ErrorKind::BadAnswer, action(), &self.store.location, detail).into_io())
            }
            Ok(n) => {
                self.offset += n as u64;
                self.left -= n as u64;
                Ok(n)
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => Err(e),
            Err(e) => {
                let path = self.store.tree.root().path().join(path_of(&self.key));
                Err(store_error(FsError::new("read", path, e), action(), &self.store.location).into_io())
            }
        }
    }
}

/// A listing under way. Holds one directory per level in memory.
struct Walk<'a> {
    prefix: &'a str,
    after: &'a str,
    visit: &'a mut dyn FnMut(Entry) -> ControlFlow<()>,
    /// The directories above the one being listed, to notice links that lead in a circle.
    above: Vec<(u64, u64)>,
}

impl Walk<'_> {
    /// Lists a directory whose path is `path`: empty, or ending in `/`.
    fn directory(&mut self, dir: &Dir, path: &mut String) -> Result<ControlFlow<()>, FsError> {
        for name in self.names(dir, path)? {
            let len = path.len();
            path.push_str(&name);
            let outcome = match name.strip_suffix('/') {
                Some(bare) => self.subdirectory(dir, bare, path),
                None => self.object(dir, &name, path),
            };
            path.truncate(len);
            if outcome?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The names that can lead to a key asked for, directories with a `/` at the end, in byte order. That is the order
    /// of the keys below them: `a-b/c` < `a.b` < `a/b`.
    fn names(&self, dir: &Dir, path: &str) -> Result<Vec<String>, FsError> {
        let items = match dir.items() {
            // Removed since it was opened: with everything in it.
            Err(e) if e.problem == Problem::Absent => return Ok(Vec::new()),
            items => items?,
        };
        let mut names = Vec::with_capacity(items.len());
        for item in items {
            let Ok(mut name) = item.name.into_string() else { continue };
            let key = format!("{path}{name}");
            let is_asked_for = key.starts_with(self.prefix) && key.as_str() > self.after;
            let leads_there = self.may_hold(&format!("{key}/"));
            if (!is_asked_for && !leads_there) || Key::new(key).is_err() {
                continue;
            }
            match Tree::kind_in(dir, name.as_ref(), item.kind)? {
                Some(ItemKind::Directory) if leads_there => {
                    name.push('/');
                    names.push(name);
                }
                Some(ItemKind::File) if is_asked_for => names.push(name),
                _ => {}
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Whether keys that begin with `dir` (which ends in `/`) can be asked for.
    fn may_hold(&self, dir: &str) -> bool {
        let in_prefix = dir.starts_with(self.prefix) || self.prefix.starts_with(dir);
        in_prefix && (dir > self.after || self.after.starts_with(dir))
    }

    fn subdirectory(&mut self, dir: &Dir, name: &str, path: &mut String) -> Result<ControlFlow<()>, FsError> {
        let Some(below) = dir.open_below(name)? else { return Ok(ControlFlow::Continue(())) };
        let Some(stat) = below.stat(".")? else { return Ok(ControlFlow::Continue(())) };
        let id = (stat.dev, stat.ino);
        if self.above.contains(&id) {
            return Err(FsError::because(
                Problem::Unsupported,
                "list",
                below.path(),
                "a symbolic link leads back to a directory above it",
            )
            .with_hint("remove the link"));
        }
        self.above.push(id);
        let outcome = self.directory(&below, path);
        self.above.pop();
        outcome
    }

    fn object(&mut self, dir: &Dir, name: &str, path: &str) -> Result<ControlFlow<()>, FsError> {
        // `None`: deleted meanwhile.
        let (Some(stat), Ok(key)) = (dir.stat(name)?, Key::new(path)) else { return Ok(ControlFlow::Continue(())) };
        Ok((self.visit)(Entry { key, size_bytes: stat.size_bytes, modified_unix_s: Some(stat.modified.0) }))
    }
}

fn path_of(key: &Key) -> &Path {
    Path::new(key.as_str())
}

fn absolute(root: &Path) -> PathBuf {
    std::path::absolute(root).unwrap_or_else(|_| root.to_owned())
}

fn location_of(root: &Path) -> String {
    format!("file://{}", root.display())
}

fn store_error(error: FsError, action: String, location: &str) -> StoreError {
    let kind = match error.problem {
        // The absence of an object is no error here, so what is missing is the root.
        Problem::Absent => ErrorKind::NoSuchPlace,
        Problem::NoSpace => ErrorKind::NoSpace,
        Problem::ReadOnly => ErrorKind::ReadOnly,
        Problem::Denied | Problem::Unsafe => ErrorKind::Denied,
        Problem::Unsupported | Problem::Exists | Problem::TooLarge => ErrorKind::Unsupported,
        Problem::Failed => ErrorKind::Unreachable,
    };
    let detail = format!("{} {}: {}", error.action, error.path.display(), error.detail);
    let hint = match kind {
        ErrorKind::NoSuchPlace => Some("mount the file system it is on, or make the repository with `walvis init`".to_owned()),
        _ => error.hint,
    };
    let error = StoreError::new(kind, action, location, detail);
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}
