//! Temporary files that leave nothing behind.
//!
//! Where the file system can, a temp file has no name (`O_TMPFILE`): when its process is killed, the kernel frees it.
//! Elsewhere it has a name and its writer holds an exclusive `flock` on it for as long as it lives. A process that gets
//! that lock knows that the writer is dead and may remove the file; [`sweep`] does, before the next named file is made
//! in that directory.
//!
//! A lock is only proof between processes of one kernel (a network file system may keep locks local to each host), so
//! the name says which boot of which kernel it is from. Files of other boots and hosts, and files where locks do not
//! work, are removed when nobody wrote to them for [`ABANDONED_AFTER`]: no writer lives that long.
//!
//! Making a named file and locking it are two steps. A sweep between them sees a file without a lock and removes it.
//! Its maker finds out, because after locking it looks whether the file still has a name, and makes another one.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::UnlinkatFlags;

use crate::limits::{ABANDONED_AFTER, TEMP_NAME_ATTEMPTS};

use super::locks::{Tried, try_lock};
use super::{Dir, FsError, ItemKind, Problem, Stat};

/// What every name of a temp file begins with. Nothing else with such a name may be in a directory that is swept.
pub const TEMP_PREFIX: &str = ".walvis-tmp-";

/// How temp files are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TempFiles {
    /// Without a name where the file system can, else named.
    #[default]
    Auto,
    /// Always named. For tests of the fallback.
    Named,
}

/// A name under which a temp file can be seen.
#[derive(Debug)]
pub(super) struct TempName {
    pub(super) dir: Dir,
    pub(super) name: OsString,
}

impl TempName {
    /// Removes the name; what was renamed or linked elsewhere stays. Best effort: the next sweep gets what is left.
    pub(super) fn remove(&self) {
        let _as = match self.dir.enter() {
            Ok(entered) => entered,
            Err(error) => {
                tracing::debug!(%error, "cannot remove a temporary file; it is left to the next call");
                return;
            }
        };
        if let Err(e) = nix::unistd::unlinkat(self.dir.fd(), self.name.as_os_str(), UnlinkatFlags::NoRemoveDir)
            && e != Errno::ENOENT
        {
            tracing::debug!(file = %self.dir.path_of(&self.name).display(), error = %e, "cannot remove a temporary file; it is left to the next call");
        }
    }
}

/// Identifies this boot of this kernel: within it, an `flock` that can be had is proof that nobody holds it.
fn boot_mark() -> &'static str {
    static MARK: OnceLock<String> = OnceLock::new();
    MARK.get_or_init(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.chars().filter(char::is_ascii_hexdigit).take(12).collect()
    })
}

/// A name nobody has used before.
pub(super) fn fresh_name() -> OsString {
    format!("{TEMP_PREFIX}{}-{}-{:016x}", boot_mark(), std::process::id(), fastrand::u64(..)).into()
}

/// Whether a name is of this boot, so that its lock can be trusted.
fn is_of_this_boot(name: &[u8]) -> bool {
    let mark = boot_mark().as_bytes();
    let rest = name.strip_prefix(TEMP_PREFIX.as_bytes()).and_then(|rest| rest.strip_prefix(mark));
    !mark.is_empty() && rest.is_some_and(|rest| rest.starts_with(b"-"))
}

/// Makes a temp file without a name in the file system of `dir`. `None` when that cannot be had there.
pub(super) fn unnamed(dir: &Dir, mode: u32) -> Result<Option<File>, FsError> {
    // Naming it later goes through /proc, which a container may lack.
    static PROC: OnceLock<bool> = OnceLock::new();
    if !*PROC.get_or_init(|| std::path::Path::new("/proc/self/fd").is_dir()) {
        return Ok(None);
    }
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let _as = dir.enter()?;
    match nix::fcntl::openat(dir.fd(), ".", flags, nix::sys::stat::Mode::from_bits_truncate(mode)) {
        Ok(fd) => Ok(Some(File::from(fd))),
        // EISDIR: a kernel or file system that does not know the flag sees an attempt to write to a directory.
        Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL | Errno::ENOSYS) => Ok(None),
        Err(e) => Err(FsError::new("make a temporary file in", dir.path(), e)),
    }
}

/// Makes a named temp file in `dir`, after sweeping there, and locks it.
pub(super) fn named(dir: Dir, mode: u32) -> Result<(File, TempName), FsError> {
    sweep(&dir);
    for _ in 0..TEMP_NAME_ATTEMPTS {
        let name = fresh_name();
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        let file = match dir.open_file(&name, flags, mode) {
            Ok(Some(file)) => file,
            Ok(None) => return Err(FsError::new("make a temporary file in", dir.path(), Errno::ENOENT)),
            Err(e) if e.problem == Problem::Exists => continue,
            Err(e) => return Err(e),
        };
        let temp = TempName { dir: dir.clone(), name };
        // The lock says that the writer lives.
        match try_lock(&file) {
            Tried::Locked | Tried::Unsupported(_) => {}
            // A sweep was faster and is about to remove it.
            Tried::Busy => {
                temp.remove();
                continue;
            }
        }
        if nix::sys::stat::fstat(&file).map(Stat::from).is_ok_and(|s| s.links > 0) {
            return Ok((file, temp));
        }
    }
    Err(FsError::because(Problem::Failed, "make a temporary file in", dir.path(), "other processes removed every one at once"))
}

/// Removes the temp files in `dir` whose writer is dead, and says how many. Best effort: files of other users and files
/// that cannot be judged stay.
pub fn sweep(dir: &Dir) -> usize {
    let items = match dir.items() {
        Ok(items) => items,
        Err(error) => {
            tracing::debug!(%error, "cannot look for abandoned temporary files");
            return 0;
        }
    };
    let mut removed = 0;
    for item in items {
        if !item.name.as_bytes().starts_with(TEMP_PREFIX.as_bytes()) || item.kind == ItemKind::Directory {
            continue;
        }
        // Kept until the name is removed: the lock keeps a maker who has not locked it yet from thinking that it is
        // safe.
        if let Some(_locked) = take_abandoned(dir, &item.name) {
            tracing::debug!(file = %dir.path_of(&item.name).display(), "remove an abandoned temporary file");
            TempName { dir: dir.clone(), name: item.name }.remove();
            removed += 1;
        }
    }
    removed
}

/// A named temp file whose writer is dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbandonedFile {
    /// Its name.
    pub name: OsString,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// When it was written to last, in Unix seconds.
    pub modified_unix_s: i64,
}

/// The temp files in `dir` whose writer is dead, and to which nothing was written for this long; at most `most`.
pub(super) fn abandoned(dir: &Dir, older_than: Duration, most: usize) -> Result<Vec<AbandonedFile>, FsError> {
    let mut found = Vec::new();
    for item in dir.items()? {
        if found.len() == most {
            break;
        }
        if !item.name.as_bytes().starts_with(TEMP_PREFIX.as_bytes()) || item.kind == ItemKind::Directory {
            continue;
        }
        let Some(stat) = dir.stat(&item.name)? else { continue };
        let modified = u64::try_from(stat.modified.0).unwrap_or_default();
        let is_old = SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_secs(modified))
            .and_then(|at| SystemTime::now().duration_since(at).ok())
            .is_some_and(|age| age >= older_than);
        if is_old && take_abandoned(dir, &item.name).is_some() {
            found.push(AbandonedFile { name: item.name, size_bytes: stat.size_bytes, modified_unix_s: stat.modified.0 });
        }
    }
    Ok(found)
}

/// Removes a temp file if its writer is dead; `false` when that cannot be told. What is not there is removed.
pub(super) fn remove_abandoned(dir: &Dir, name: &str) -> Result<bool, FsError> {
    if !name.starts_with(TEMP_PREFIX) || name.contains('/') {
        let detail = "that is not the name of a temporary file";
        return Err(FsError::because(Problem::Unsupported, "remove", dir.path_of(name), detail));
    }
    // Kept until the name is removed, as in `sweep`.
    let Some(_locked) = take_abandoned(dir, name.as_ref()) else { return Ok(dir.stat(name)?.is_none()) };
    let _as = dir.enter()?;
    match nix::unistd::unlinkat(dir.fd(), name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(e) => Err(FsError::new("remove", dir.path_of(name), e)),
    }
}

/// Opens a temp file, locked where locks work, if its writer is dead.
fn take_abandoned(dir: &Dir, name: &OsStr) -> Option<File> {
    // For writing: some network file systems emulate flock by a lock that needs it.
    let file = dir.open_file(name, OFlag::O_RDWR | OFlag::O_NOFOLLOW, 0).ok().flatten()?;
    let meta = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let is_old = || {
        let age = meta.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        age.is_some_and(|age| age > ABANDONED_AFTER)
    };
    let is_dead = match try_lock(&file) {
        Tried::Busy => false,
        Tried::Locked => is_of_this_boot(name.as_bytes()) || is_old(),
        Tried::Unsupported(_) => is_old(),
    };
    is_dead.then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_their_boot() {
        let name = fresh_name();
        assert!(is_of_this_boot(name.as_bytes()));
        assert!(!is_of_this_boot(b".walvis-tmp-000000000000-1-0000000000000000"));
        assert!(!is_of_this_boot(b".walvis-tmp-"));
        assert!(!is_of_this_boot(b"walvis.json"));
        assert_ne!(name, fresh_name());
    }

    #[test]
    fn sweep_removes_only_what_is_dead() {
        let place = tempfile::tempdir().unwrap();
        let dir = Dir::open(place.path()).unwrap();
        let old = SystemTime::now() - ABANDONED_AFTER - Duration::from_secs(60);
        let write = |name: &str, age_it: bool| {
            let file = File::create(place.path().join(name)).unwrap();
            if age_it {
                file.set_modified(old).unwrap();
            }
            file
        };
        let (alive, alive_name) = named(dir.clone(), 0o600).unwrap();
        let (dead, dead_name) = named(dir.clone(), 0o600).unwrap();
        drop(dead);
        drop(write(".walvis-tmp-000000000000-1-aaaaaaaaaaaaaaaa", false)); // another boot, young
        drop(write(".walvis-tmp-000000000000-1-bbbbbbbbbbbbbbbb", true)); // another boot, old
        let held = write(".walvis-tmp-000000000000-1-cccccccccccccccc", true); // old, but locked
        assert!(matches!(try_lock(&held), Tried::Locked));
        drop(write("object", true));

        assert_eq!(sweep(&dir), 2);
        let left = crate::fsio::list_dir(place.path()).unwrap();
        let mut expected: Vec<OsString> = vec![
            ".walvis-tmp-000000000000-1-aaaaaaaaaaaaaaaa".into(),
            ".walvis-tmp-000000000000-1-cccccccccccccccc".into(),
            "object".into(),
            alive_name.name.clone(),
        ];
        expected.sort();
        assert_eq!(left, expected);
        assert!(!left.contains(&dead_name.name));
        drop(alive);
        assert_eq!(sweep(&dir), 1);
    }

    #[test]
    fn what_is_abandoned_is_found_before_it_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let dir = Dir::open(place.path()).unwrap();
        let (_alive, alive_name) = named(dir.clone(), 0o600).unwrap();
        let (dead, dead_name) = named(dir.clone(), 0o600).unwrap();
        std::io::Write::write_all(&mut &dead, b"12345").unwrap();
        drop(dead);
        drop(File::create(place.path().join("object")).unwrap());
        let names = |older_than, most| {
            let found = abandoned(&dir, older_than, most).unwrap();
            found.into_iter().map(|file| (file.name, file.size_bytes)).collect::<Vec<_>>()
        };
        assert_eq!(names(Duration::ZERO, 10), [(dead_name.name.clone(), 5)]);
        assert_eq!(names(Duration::from_secs(600), 10), [], "it is younger");
        assert_eq!(names(Duration::ZERO, 0), []);
        assert!(!remove_abandoned(&dir, alive_name.name.to_str().unwrap()).unwrap());
        assert!(remove_abandoned(&dir, dead_name.name.to_str().unwrap()).unwrap());
        assert!(remove_abandoned(&dir, dead_name.name.to_str().unwrap()).unwrap(), "it is gone");
        for foreign in ["object", "../object", ".walvis-tmp-/../object"] {
            assert_eq!(remove_abandoned(&dir, foreign).unwrap_err().problem, Problem::Unsupported);
        }
        let mut left = crate::fsio::list_dir(place.path()).unwrap();
        left.sort();
        assert_eq!(left, [alive_name.name.clone(), "object".into()]);
    }

    #[test]
    fn a_sweep_between_making_and_locking_is_survived() {
        let place = tempfile::tempdir().unwrap();
        let dir = Dir::open(place.path()).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        sweep(&dir);
                    }
                });
            }
            for _ in 0..60 {
                let held: Vec<_> = (0..5).map(|_| named(dir.clone(), 0o600).unwrap()).collect();
                for (_, temp) in &held {
                    assert!(place.path().join(&temp.name).exists(), "a locked file was swept");
                    temp.remove();
                }
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}
