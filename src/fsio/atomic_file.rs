//! A file being written, and the one way to publish it.
//!
//! Order: the file is synced; then it gets its name, in one step that either does not replace (`publish_new`) or
//! replaces atomically (`publish_over`); then the directory is synced. A process killed anywhere leaves the old state
//! or the new one.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};

use super::locks::try_lock;
use super::temp::{self, TempFiles, TempName};
use super::{Dir, FsError, Problem, Stat, direct};

/// What publishing without replacing found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Published {
    /// The file has its name now.
    New,
    /// Something of that name exists already and was not touched.
    Exists,
}

/// Whether a published file has to survive a power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Yes: file and directory are synced.
    Durable,
    /// No: it can be had again (a WAL file fetched for recovery). Still whole or absent when the process is killed.
    Volatile,
}

/// Where named temp files of a [`AtomicFile`] go: a directory, or a directory below it that is made when first needed.
#[derive(Debug, Clone)]
pub(super) struct Scratch {
    pub(super) home: Dir,
    pub(super) below: Option<&'static str>,
    pub(super) files: TempFiles,
}

impl Scratch {
    fn open(&self) -> Result<Dir, FsError> {
        let Some(below) = self.below else { return Ok(self.home.clone()) };
        if let Some(dir) = self.home.open_below(below)? {
            return Ok(dir);
        }
        self.home.make_below(below)?;
        self.home.open_below(below)?.ok_or_else(|| FsError::new("make directory", self.home.path_of(below), Errno::ENOENT))
    }
}

/// What linking a file into a directory came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Linked {
    New,
    Exists,
    /// The directory was removed meanwhile: make it again and try again.
    DirGone,
}

/// A file being written that nobody sees until it is published. Dropped before that, it leaves nothing behind; killed
/// before that, at most a file that a later call removes (see [`sweep`](super::sweep)).
#[derive(Debug)]
pub struct AtomicFile {
    file: File,
    len_bytes: u64,
    named: Option<TempName>,
    scratch: Scratch,
    mode: u32,
    /// What it will be, for [`publish_new`](Self::publish_new) and messages.
    target: PathBuf,
    /// An fsync failed: the kernel may have dropped what was written, and a second fsync would not say so.
    is_lost: bool,
    is_published: bool,
}

impl AtomicFile {
    /// Begins a file that will be published as `target`, whose directory has to exist. `mode` is narrowed by the umask.
    ///
    /// # Errors
    /// [`Problem::Absent`] when the directory does not exist; [`Problem::Denied`], [`Problem::ReadOnly`],
    /// [`Problem::NoSpace`], others.
    pub fn beside(target: &Path, mode: u32) -> Result<Self, FsError> {
        Self::beside_with(target, mode, TempFiles::Auto)
    }

    /// As [`beside`](Self::beside), with a choice of temp files.
    ///
    /// # Errors
    /// As [`beside`](Self::beside).
    pub fn beside_with(target: &Path, mode: u32, files: TempFiles) -> Result<Self, FsError> {
        let dir = Dir::open(parent_of(target))?;
        let scratch = Scratch { home: dir.clone(), below: None, files };
        Self::create(&dir, scratch, mode, target.to_owned())
    }

    /// Begins a file that will be published in `dir`.
    pub(super) fn create(dir: &Dir, scratch: Scratch, mode: u32, target: PathBuf) -> Result<Self, FsError> {
        let unnamed = match scratch.files {
            TempFiles::Auto => temp::unnamed(dir, mode)?,
            TempFiles::Named => None,
        };
        let (file, named) = match unnamed {
            Some(file) => (file, None),
            None => {
                let (file, name) = temp::named(scratch.open()?, mode)?;
                (file, Some(name))
            }
        };
        Ok(Self { file, len_bytes: 0, named, scratch, mode, target, is_lost: false, is_published: false })
    }

    /// Appends. After an error the same bytes may be given again.
    ///
    /// # Errors
    /// [`Problem::NoSpace`], [`Problem::Failed`], others.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), FsError> {
        let written = self.file.write_all_at(bytes, self.len_bytes);
        self.appended(bytes, written)
    }

    /// As [`append`](Self::append), past the page cache where that is worth it: for what nobody reads soon.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn append_past_cache(&mut self, bytes: &[u8]) -> Result<(), FsError> {
        let written = direct::write_all_at(&self.file, bytes, self.len_bytes);
        self.appended(bytes, written)
    }

    fn appended(&mut self, bytes: &[u8], written: io::Result<()>) -> Result<(), FsError> {
        written.map_err(|e| FsError::new("write", &self.target, e))?;
        self.len_bytes += bytes.len() as u64;
        Ok(())
    }

    /// How many bytes were appended.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Gives it its name unless something of that name exists, durably.
    ///
    /// # Errors
    /// [`Problem::Unsupported`] when the file system can neither link nor rename without replacing; others. After an
    /// error the file may have its name or not.
    pub fn publish_new(mut self) -> Result<Published, FsError> {
        self.seal()?;
        let (dir, name) = self.destination()?;
        match self.link_new(&dir, &name)? {
            Linked::New => dir.sync().map(|()| Published::New),
            Linked::Exists => Ok(Published::Exists),
            Linked::DirGone => Err(FsError::new("publish", &self.target, Errno::ENOENT)),
        }
    }

    /// Gives it its name, atomically replacing a file of that name.
    ///
    /// # Errors
    /// As [`publish_new`](Self::publish_new); [`Problem::Unsupported`] when a directory has that name.
    pub fn publish_over(mut self, durability: Durability) -> Result<(), FsError> {
        match durability {
            Durability::Durable => self.seal()?,
            Durability::Volatile => self.trim()?,
        }
        let (dir, name) = self.destination()?;
        if self.named.is_none() {
            let _as = dir.enter()?;
            match link_unnamed(&self.file, &dir, &name) {
                // The usual case, and in one step: PostgreSQL removes a file before it asks for it again.
                Ok(()) => self.is_published = true,
                Err(Errno::EEXIST) => self.name_for_rename()?,
                Err(e) if cannot_link(e) => self.take_a_name()?,
                Err(e) => return Err(FsError::new("publish", &self.target, e)),
            }
        }
        if let Some(temp) = &self.named {
            let _as = dir.enter()?;
            nix::fcntl::renameat(temp.dir.fd(), temp.name.as_os_str(), dir.fd(), name.as_os_str())
                .map_err(|e| FsError::new("publish", &self.target, e))?;
            self.named = None;
        }
        if durability == Durability::Durable {
            dir.sync()?;
        }
        Ok(())
    }

    fn destination(&self) -> Result<(Dir, OsString), FsError> {
        let name = self.target.file_name().map(OsStr::to_owned);
        let name =
            name.ok_or_else(|| FsError::because(Problem::Unsupported, "publish", &self.target, "this is not a file name"))?;
        Ok((Dir::open(parent_of(&self.target))?, name))
    }

    /// Makes what was appended durable. Nothing may be appended afterwards.
    pub(super) fn seal(&mut self) -> Result<(), FsError> {
        if self.is_published {
            return Ok(());
        }
        if self.is_lost {
            return Err(FsError::because(
                Problem::Failed,
                "sync",
                &self.target,
                "an earlier sync failed, what was written may be lost",
            )
            .with_hint("check the disk; then write the file again from the beginning"));
        }
        self.trim()?;
        self.file.sync_all().map_err(|e| {
            self.is_lost = true;
            FsError::new("sync", &self.target, e)
        })
    }

    /// Whether a sync failed, so that only another file can help.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Cuts off what a failed append left behind its last byte.
    fn trim(&mut self) -> Result<(), FsError> {
        let fail = |e| FsError::new("write", &self.target, e);
        if self.file.metadata().map_err(fail)?.len() != self.len_bytes {
            self.file.set_len(self.len_bytes).map_err(fail)?;
        }
        Ok(())
    }

    /// Gives it a name in `dir` unless there is one. The caller has sealed it, and syncs `dir` afterwards.
    pub(super) fn link_new(&mut self, dir: &Dir, name: &OsStr) -> Result<Linked, FsError> {
        if self.is_published {
            return Ok(Linked::Exists);
        }
        let _as = dir.enter()?;
        let mut outcome = match &self.named {
            None => link_unnamed(&self.file, dir, name),
            Some(temp) => link_named(temp, dir, name),
        };
        if self.named.is_none() && matches!(outcome, Err(e) if cannot_link(e)) {
            // The file system has files without names but cannot name them: write it again, with a name.
            self.take_a_name()?;
            outcome = self.named.as_ref().map_or(Err(Errno::ENOENT), |temp| link_named(temp, dir, name));
        }
        match outcome {
            Ok(()) => {
                self.is_published = true;
                self.named = None;
                Ok(Linked::New)
            }
            // A network file system may have lost the answer to a link that succeeded, and done it again by itself.
            Err(Errno::EEXIST) if self.is_at(dir, name) => {
                self.is_published = true;
                Ok(Linked::New)
            }
            Err(Errno::EEXIST) => Ok(Linked::Exists),
            Err(Errno::ENOENT) if self.named.is_some() && self.own_stat()?.links == 0 => {
                let vanished = "its temporary file was removed by somebody else";
                Err(FsError::because(Problem::Failed, "publish", &self.target, vanished)
                    .with_hint(format!("let nothing but Walvis remove {TEMP}* files", TEMP = temp::TEMP_PREFIX)))
            }
            Err(Errno::ENOENT) => Ok(Linked::DirGone),
            Err(e) if cannot_link(e) => {
                let cannot = format!("the file system can neither link nor rename without replacing ({e})");
                Err(FsError::because(Problem::Unsupported, "publish", &self.target, cannot).with_hint(
                    "use a file system that can, such as ext4, XFS, Btrfs, ZFS or NFS; or keep the repository in one file system",
                ))
            }
            Err(e) => Err(FsError::new("publish", &self.target, e)),
        }
    }

    /// Gives a file without a name a temporary one, because only a name can be renamed over another.
    fn name_for_rename(&mut self) -> Result<(), FsError> {
        let scratch = self.scratch.open()?;
        temp::sweep(&scratch);
        // Locked before it has a name, so no sweep takes it for dead. Nobody else can hold the lock of a file without a
        // name, and where locks do not work its age protects it.
        let _ = try_lock(&self.file);
        let temp = TempName { dir: scratch, name: temp::fresh_name() };
        let linked = {
            let _as = temp.dir.enter()?;
            link_unnamed(&self.file, &temp.dir, &temp.name)
        };
        match linked {
            Ok(()) => self.named = Some(temp),
            Err(e) if cannot_link(e) => self.take_a_name()?,
            Err(e) => return Err(FsError::new("publish", &self.target, e)),
        }
        Ok(())
    }

    /// Copies what was written into a named temp file, sealed.
    fn take_a_name(&mut self) -> Result<(), FsError> {
        let fail = |e| FsError::new("copy to a temporary file for", &self.target, e);
        let (mut copy, name) = temp::named(self.scratch.open()?, self.mode)?;
        self.file.seek(SeekFrom::Start(0)).map_err(fail)?;
        let copied = io::copy(&mut self.file, &mut copy).and_then(|_| copy.sync_all());
        if let Err(e) = copied {
            name.remove();
            return Err(fail(e));
        }
        self.file = copy;
        self.named = Some(name);
        Ok(())
    }

    fn is_at(&self, dir: &Dir, name: &OsStr) -> bool {
        let there = dir.stat(name).ok().flatten();
        let here = self.own_stat().ok();
        there.zip(here).is_some_and(|(there, here)| (there.dev, there.ino) == (here.dev, here.ino))
    }

    fn own_stat(&self) -> Result<Stat, FsError> {
        nix::sys::stat::fstat(&self.file).map(Stat::from).map_err(|e| FsError::new("stat", &self.target, e))
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(temp) = &self.named {
            temp.remove();
        }
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The directory part of a path: `.` for a bare name.
fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Whether a file system says by this that it has no such operation, or not between these two places.
fn cannot_link(e: Errno) -> bool {
    matches!(e, Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL | Errno::EMLINK | Errno::EXDEV)
}

fn link_unnamed(file: &File, dir: &Dir, name: &OsStr) -> nix::Result<()> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    nix::unistd::linkat(AT_FDCWD, path.as_str(), dir.fd(), name, AtFlags::AT_SYMLINK_FOLLOW)
}

/// One step where the file system can (rename), else two (link, remove the other name); killed in between, the other
/// name is left to a sweep.
fn link_named(temp: &TempName, dir: &Dir, name: &OsStr) -> nix::Result<()> {
    match rename_noreplace(temp, dir, name) {
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {}
        outcome => return outcome,
    }
    nix::unistd::linkat(temp.dir.fd(), temp.name.as_os_str(), dir.fd(), name, AtFlags::empty())?;
    temp.remove();
    Ok(())
}

#[cfg(target_env = "gnu")]
fn rename_noreplace(temp: &TempName, dir: &Dir, name: &OsStr) -> nix::Result<()> {
    let flags = nix::fcntl::RenameFlags::RENAME_NOREPLACE;
    nix::fcntl::renameat2(temp.dir.fd(), temp.name.as_os_str(), dir.fd(), name, flags)
}

/// The C library has no wrapper for it.
#[cfg(not(target_env = "gnu"))]
fn rename_noreplace(_: &TempName, _: &Dir, _: &OsStr) -> nix::Result<()> {
    Err(Errno::ENOSYS)
}

/// Writes a new file that only its owner can read (mode 0600), durably. Never overwrites.
///
/// # Errors
/// [`Problem::Exists`] when there is something under that name; [`Problem::Absent`] when its directory does not exist;
/// others.
pub fn create_secret(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    let mut file = AtomicFile::beside(path, 0o600)?;
    file.append(bytes)?;
    match file.publish_new()? {
        Published::New => Ok(()),
        Published::Exists => Err(FsError::because(Problem::Exists, "create", path, "there is a file of that name already")
            .with_hint("choose another name; the file was not touched")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsio::list_dir;
    use std::os::unix::fs::PermissionsExt;

    fn problem<T>(outcome: Result<T, FsError>) -> Option<Problem> {
        outcome.err().map(|e| e.problem)
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
                    let mut new_file = AtomicFile::beside_with(path, 0o600, files)?;
                    new_file.write_all(body).unwrap();
                    assert_eq!(new_file.len_bytes(), body.len() as u64);
                    new_file.publish_over(durability)
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
}
