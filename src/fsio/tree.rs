//! A tree of files that are published once: the file system under a repository.
//!
//! # Durable directories
//! A file survives a power failure when its directory was synced after it got its name there, and when every directory
//! from the root down to that one is durable in the one above. Syncing them all for every file would be slow, so this
//! rule is kept:
//!
//! > The first file gets its name in a directory only after that directory is durable all the way up to the root.
//!
//! A process that is about to publish looks whether the directory holds a file. If it does, the rule says that all
//! above is durable, and syncing the directory afterwards is enough. If it does not, all directories above are synced
//! before the file gets its name, no matter who made them. So it does no harm when a process is killed between making a
//! directory and syncing it: it has not put a file there, and the next process, which finds the directory there but
//! without a file, syncs what is above. A subdirectory does not count as a file: it may have been made on the way to
//! another one and never been synced.
//!
//! Directories that have become empty are removed when their last file is. That is safe because files are linked into
//! an open directory, not into a path: into a directory that was removed nothing can be linked (`ENOENT`), and then all
//! of the above is done again for the one that has taken its place. And as long as a directory is there, so are all
//! above it.
//!
//! # As root
//! Everything is done with the rights of the owner of the root directory ([`Rooted`]): what is made belongs to that
//! user, and a link that was planted below leads no further than that user could go. Where that user is root itself,
//! nothing is done in a directory below that somebody else could change.
//!
//! # Absence
//! That a file cannot be opened for lack of a name is no proof that it does not exist: the root may have been removed,
//! or a symbolic link on the way may lead to a disk that is not mounted. [`Tree::open_file`] looks for the first name
//! that is missing.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::SFlag;
use nix::unistd::UnlinkatFlags;

use super::atomic_file::{AtomicFile, Linked, Published, Scratch};
use super::attempts::attempts;
use super::temp::{self, AbandonedFile, TempFiles};
use super::{Dir, FsError, ItemKind, Problem, Rooted, Stat, changeable_by_others, stat_open};

/// The directory in the root where named temp files go. Its name starts with a dot, which no object's does.
pub const TEMP_DIR: &str = ".walvis-tmp";

/// Objects may be read by the group too, if the umask lets them: PostgreSQL starts its commands with umask 077, or 027
/// when the data directory is open to the group, so that one switch of the operator decides here too.
const FILE_MODE: u32 = 0o640;

/// What removing a file came to.
#[derive(Debug)]
#[must_use]
pub enum Removed {
    /// It is not there any more.
    Gone,
    /// It stays: permissions.
    Refused(FsError),
}

/// A directory with everything below it. Paths are relative to it and contain no `..`; the caller sees to that.
#[derive(Debug, Clone)]
pub struct Tree {
    root: Dir,
    files: TempFiles,
}

impl Tree {
    /// Opens an existing root. It is kept open: a file system that is unmounted meanwhile does not turn into an empty
    /// directory.
    ///
    /// # Errors
    /// [`Problem::Absent`] when it does not exist; [`Problem::Unsupported`] when it is not a directory;
    /// [`Problem::Unsafe`] when root cannot tell whose it is; [`Problem::Denied`], others.
    pub fn open(root: &Path, files: TempFiles) -> Result<Self, FsError> {
        Ok(Self { root: Rooted::open(root)?.dir, files })
    }

    /// The root.
    pub fn root(&self) -> &Dir {
        &self.root
    }

    /// Begins a file that will be published as `target`. Makes the directories it needs.
    ///
    /// # Errors
    /// [`Problem::Absent`] when the root was removed; [`Problem::Denied`], [`Problem::ReadOnly`], [`Problem::NoSpace`],
    /// others.
    pub fn new_file(&self, target: &Path) -> Result<AtomicFile, FsError> {
        self.with_parent(target, |parent, _| {
            let scratch = Scratch { home: self.root.clone(), below: Some(TEMP_DIR), files: self.files };
            AtomicFile::create(parent, scratch, FILE_MODE, self.root.path_of(target)).map(Some)
        })
    }

    /// Publishes a file unless something has that name. Afterwards it is durable if it is new. After an error it may
    /// be called again with the same file.
    ///
    /// # Errors
    /// As [`new_file`](Self::new_file); [`Problem::Unsupported`] when the file system cannot publish without replacing,
    /// or when something that is not a file has that name.
    pub fn publish(&self, new_file: &mut AtomicFile, target: &Path) -> Result<Published, FsError> {
        new_file.seal()?;
        self.with_parent(target, |parent, name| {
            if !parent.holds_a_file()? {
                self.sync_above(target)?;
            }
            match new_file.link_new(parent, name)? {
                Linked::New => parent.sync().map(|()| Some(Published::New)),
                Linked::Exists => self.check_is_file(target).map(|()| Some(Published::Exists)),
                Linked::DirGone => Ok(None),
            }
        })
    }

    /// Opens a file for reading; `None` when it is proven that there is none of that name.
    ///
    /// # Errors
    /// [`Problem::Absent`] when the root was removed; [`Problem::Unsupported`] when it is not a regular file;
    /// [`Problem::Denied`], others.
    pub fn open_file(&self, target: &Path) -> Result<Option<(File, Stat)>, FsError> {
        self.check_ground(parent_of(target))?;
        for () in attempts() {
            if let Some(file) = self.root.open_file(target, OFlag::O_RDONLY, 0)? {
                let stat = stat_open(&file, &self.root.path_of(target))?;
                return Ok(Some((file, stat)));
            }
            if self.is_proven_absent(target)? {
                return Ok(None);
            }
        }
        Err(self.restless(target))
    }

    /// The state of a file; `None` when it is proven that there is none of that name.
    ///
    /// # Errors
    /// As [`open_file`](Self::open_file).
    pub fn stat(&self, target: &Path) -> Result<Option<Stat>, FsError> {
        self.check_ground(parent_of(target))?;
        for () in attempts() {
            if let Some(stat) = self.root.stat(target)? {
                return Ok(Some(stat));
            }
            if self.is_proven_absent(target)? {
                return Ok(None);
            }
        }
        Err(self.restless(target))
    }

    /// Opens a directory for listing; `None` when it is proven that there is none of that name.
    ///
    /// # Errors
    /// As [`open_file`](Self::open_file).
    pub fn open_dir(&self, target: &Path) -> Result<Option<Dir>, FsError> {
        if target.as_os_str().is_empty() {
            self.check()?;
            return Ok(Some(self.root.clone()));
        }
        self.check_ground(target)?;
        for () in attempts() {
            if let Some(dir) = self.root.open_below(target)? {
                return Ok(Some(dir));
            }
            if self.is_proven_absent(target)? {
                return Ok(None);
            }
        }
        Err(self.restless(target))
    }

    /// Makes a file that somebody else published as durable as [`publish`](Self::publish) does. Says whether it exists.
    ///
    /// # Errors
    /// As [`open_file`](Self::open_file), and what syncing gives.
    pub fn make_durable(&self, target: &Path) -> Result<bool, FsError> {
        let Some((file, _)) = self.open_file(target)? else { return Ok(false) };
        file.sync_all().map_err(|e| FsError::new("sync", self.root.path_of(target), e))?;
        self.sync_above(target)?;
        if let Some(parent) = self.open_dir(parent_of(target))? {
            parent.sync()?;
        }
        // Removed while it was being settled?
        Ok(self.stat(target)?.is_some())
    }

    /// Removes a file, durably, and the directories that become empty by it. Says whether the file existed.
    ///
    /// # Errors
    /// [`Problem::Denied`], [`Problem::ReadOnly`], [`Problem::Unsupported`] for a directory, others.
    pub fn remove(&self, target: &Path) -> Result<bool, FsError> {
        let Some(parent) = self.open_dir(parent_of(target))? else { return Ok(false) };
        let Some(name) = target.file_name() else { return Ok(false) };
        let _as = self.root.enter()?;
        match nix::unistd::unlinkat(parent.fd(), name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => {}
            Err(Errno::ENOENT) => return self.is_proven_absent(target).map(|_| false),
            Err(e) => return Err(FsError::new("remove", self.root.path_of(target), e)),
        }
        parent.sync()?;
        self.remove_empty(parent_of(target));
        Ok(true)
    }

    /// Removes files, durably, and the directories that become empty by it; each directory is synced once. What came of
    /// each is in the order of `targets`. That a file which was not there is gone is durable afterwards too: a process
    /// may have removed it and been killed before it could see to that.
    ///
    /// # Errors
    /// [`Problem::Absent`] when the root was removed; [`Problem::ReadOnly`], [`Problem::Unsupported`] for a directory,
    /// others. Any of the files may be gone then.
    pub fn remove_many(&self, targets: &[&Path]) -> Result<Vec<Removed>, FsError> {
        let mut by_directory: Vec<(usize, &Path)> = targets.iter().copied().enumerate().collect();
        by_directory.sort_by_key(|(_, target)| parent_of(target));
        let mut removed = Vec::with_capacity(targets.len());
        for group in by_directory.chunk_by(|(_, a), (_, b)| parent_of(a) == parent_of(b)) {
            let Some((_, first)) = group.first() else { continue };
            self.remove_from(parent_of(first), group, &mut removed)?;
        }
        self.check()?;
        removed.sort_by_key(|(place, _)| *place);
        Ok(removed.into_iter().map(|(_, removed)| removed).collect())
    }

    /// Removes files of one directory.
    fn remove_from(&self, dir: &Path, files: &[(usize, &Path)], removed: &mut Vec<(usize, Removed)>) -> Result<(), FsError> {
        let Some(parent) = self.open_dir(dir)? else {
            // It went with its last file.
            self.sync_nearest(dir)?;
            removed.extend(files.iter().map(|(place, _)| (*place, Removed::Gone)));
            return Ok(());
        };
        let _as = self.root.enter()?;
        for (place, target) in files {
            let name = target.file_name().unwrap_or_default();
            let outcome = match nix::unistd::unlinkat(parent.fd(), name, UnlinkatFlags::NoRemoveDir) {
                // Where the directory was removed meanwhile it was empty at that moment.
                Ok(()) | Err(Errno::ENOENT) => Removed::Gone,
                Err(e) => match FsError::new("remove", self.root.path_of(target), e) {
                    error if error.problem == Problem::Denied => Removed::Refused(error),
                    error => return Err(error),
                },
            };
            removed.push((*place, outcome));
        }
        parent.sync()?;
        self.remove_empty(dir);
        Ok(())
    }

    /// Removes a directory if it is empty, and those above it that become so.
    fn remove_empty(&self, dir: &Path) {
        for dir in dir.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
            // Not empty, not ours, a mount point: it stays, and so does everything above it.
            if nix::unistd::unlinkat(self.root.fd(), dir, UnlinkatFlags::RemoveDir).is_err() {
                break;
            }
        }
    }

    /// Named temporary files whose writers are dead, and to which nothing was written for this long; at most so many.
    ///
    /// # Errors
    /// As [`open_dir`](Self::open_dir).
    pub fn abandoned(&self, older_than: Duration, most: usize) -> Result<Vec<AbandonedFile>, FsError> {
        match self.open_dir(Path::new(TEMP_DIR))? {
            Some(dir) => temp::abandoned(&dir, older_than, most),
            None => Ok(Vec::new()),
        }
    }

    /// Removes one of them. `false` when its writer cannot be told to be dead.
    ///
    /// # Errors
    /// [`Problem::Unsupported`] when the name is not a temporary file's; [`Problem::Denied`], others.
    pub fn remove_abandoned(&self, name: &str) -> Result<bool, FsError> {
        match self.open_dir(Path::new(TEMP_DIR))? {
            Some(dir) => temp::remove_abandoned(&dir, name),
            None => Ok(true),
        }
    }

    /// Does something in the directory of `target`, which is made when missing, and again when it was removed meanwhile
    /// (the action says so by `None`, or fails).
    fn with_parent<T>(
        &self,
        target: &Path,
        mut action: impl FnMut(&Dir, &OsStr) -> Result<Option<T>, FsError>,
    ) -> Result<T, FsError> {
        let name: OsString = target.file_name().map(OsStr::to_owned).unwrap_or_default();
        for () in attempts() {
            let Some(parent) = self.make(parent_of(target))? else { continue };
            match action(&parent, &name) {
                Ok(Some(done)) => return Ok(done),
                Ok(None) => {}
                // File systems differ in what they say to a file that is made in a removed directory: ext4 says EPERM.
                Err(e) if e.problem == Problem::Absent || parent.stat_self()?.links == 0 => {}
                Err(e) => return Err(e),
            }
            self.check()?;
        }
        Err(self.restless(target))
    }

    /// Opens a directory and makes it when missing; `None` when something on the way was removed meanwhile.
    fn make(&self, dir: &Path) -> Result<Option<Dir>, FsError> {
        if let Some(open) = self.open_dir(dir)? {
            return Ok(Some(open));
        }
        let mut above: Vec<&Path> = dir.ancestors().filter(|above| !above.as_os_str().is_empty()).collect();
        above.reverse();
        for above in above {
            if !self.root.make_below(above)? {
                return Ok(None);
            }
        }
        let made = self.root.open_below(dir)?;
        if made.is_none() {
            // Removed again, or a symbolic link that leads nowhere, which is an error.
            self.is_proven_absent(dir)?;
        }
        Ok(made)
    }

    /// Makes the directory of `target` durable in the one above, and so on up to the root.
    fn sync_above(&self, target: &Path) -> Result<(), FsError> {
        for dir in target.ancestors().skip(2) {
            let open = if dir.as_os_str().is_empty() { Some(self.root.clone()) } else { self.root.open_below(dir)? };
            open.ok_or_else(|| FsError::new("sync directory", self.root.path_of(dir), Errno::ENOENT))?.sync()?;
        }
        Ok(())
    }

    /// Makes the names in a directory durable, or those in the one above it when it is gone, and so on.
    fn sync_nearest(&self, dir: &Path) -> Result<(), FsError> {
        for dir in dir.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
            if let Some(open) = self.root.open_below(dir)? {
                return open.sync();
            }
        }
        self.root.sync()
    }

    /// Whether the first missing name on the way to `target` is really missing. `false` when nothing is missing any
    /// more.
    fn is_proven_absent(&self, target: &Path) -> Result<bool, FsError> {
        self.check()?;
        let mut way: Vec<&Path> = target.ancestors().filter(|step| !step.as_os_str().is_empty()).collect();
        way.reverse();
        for step in way {
            // An error for a link that leads nowhere.
            if self.root.stat(step)?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Fails when the root was removed.
    ///
    /// # Errors
    /// [`Problem::Absent`] then; [`Problem::Failed`] when the file system does not answer.
    pub fn check(&self) -> Result<(), FsError> {
        if self.root.stat_self()?.links == 0 {
            return Err(FsError::because(Problem::Absent, "use", self.root.path(), "the directory was removed"));
        }
        Ok(())
    }

    /// Fails when what has the name is no file: nothing can be published there, and nothing read.
    fn check_is_file(&self, target: &Path) -> Result<(), FsError> {
        let _as = self.root.enter()?;
        match nix::sys::stat::fstatat(self.root.fd(), target, AtFlags::empty()) {
            Ok(stat) if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() => Err(FsError::because(
                Problem::Unsupported,
                "publish",
                self.root.path_of(target),
                "something that is not a file has that name",
            )
            .with_hint("move it away: nothing but Walvis may put files into a repository")),
            // Removed meanwhile, or unreadable: reading it will tell.
            _ => Ok(()),
        }
    }

    /// Fails where root would work with its own rights in what somebody else could change: a directory below, or what a
    /// link leads to.
    fn check_ground(&self, dir: &Path) -> Result<(), FsError> {
        if dir.as_os_str().is_empty() || !self.root.identity().is_own() || !nix::unistd::geteuid().is_root() {
            return Ok(());
        }
        match changeable_by_others(&self.root.path_of(dir)) {
            Ok(None) => Ok(()),
            // What is not there is made in a directory that was looked at.
            Err(e) if e.problem == Problem::Absent => Ok(()),
            Err(e) => Err(e),
            Ok(Some(exposure)) => {
                Err(FsError::because(Problem::Unsafe, "use", self.root.path_of(dir), format!("in root's own tree, {exposure}"))
                    .with_hint(format!(
                        "{}, or give the whole tree to the user whose it is to be: chown -R USER {}",
                        exposure.way_out(),
                        self.root.path().display()
                    )))
            }
        }
    }

    fn restless(&self, target: &Path) -> FsError {
        let detail = "directories on the way are made and removed faster than they can be used";
        FsError::because(Problem::Failed, "reach", self.root.path_of(target), detail)
    }

    /// What kind of thing a name in an open directory is, where listing did not say.
    ///
    /// # Errors
    /// As [`Dir::stat`].
    pub fn kind_in(dir: &Dir, name: &OsStr, listed: ItemKind) -> Result<Option<ItemKind>, FsError> {
        match listed {
            ItemKind::Unknown => Ok(dir.stat(name)?.map(|stat| stat.kind)),
            known => Ok(Some(known)),
        }
    }
}

/// The directory part of a relative path, empty for the root.
fn parent_of(target: &Path) -> &Path {
    target.parent().unwrap_or(Path::new(""))
}
