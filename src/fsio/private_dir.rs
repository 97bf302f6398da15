//! What processes of one user leave to each other on one host: a private directory, small files that need not survive a power
//! failure, locks that end with their holder, and the clock of the boot.

use std::fs::{File, TryLockError};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{Mode, SFlag};

use super::{AtomicFile, Dir, Durability, FsError, Identity, Problem, Stat};

/// A boot of this host, and how long ago it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// The kernel's random id of it.
    pub id: String,
    /// How long ago, the time asleep included. No clock setting changes it.
    pub since: Duration,
}

impl Boot {
    /// Now. `None` where the kernel does not tell.
    pub fn now() -> Option<Self> {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        let since = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).ok()?;
        (!id.is_empty()).then(|| Self { id, since: since.into() })
    }
}

/// The user of this process, whomever this thread works as.
pub fn own_user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Who owns a file or directory, symbolic links followed.
///
/// # Errors
/// As [`stat`](super::stat), and when it does not exist.
pub fn owner(path: &Path) -> Result<u32, FsError> {
    Ok(std::fs::metadata(path).map_err(|e| FsError::new("stat", path, e))?.uid())
}

/// The state of a directory that nobody but our own user can enter or change; `None` when there is nothing of that name.
///
/// # Errors
/// [`Problem::Denied`] when it is a link, no directory, somebody else's, or open to others.
pub fn private_dir(path: &Path) -> Result<Option<Stat>, FsError> {
    let stat = match nix::sys::stat::lstat(path) {
        Ok(stat) => stat,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
        Err(e) => return Err(FsError::new("stat", path, e)),
    };
    let is_directory = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR;
    let open_to_others = Mode::from_bits_truncate(stat.st_mode).intersects(Mode::S_IRWXG | Mode::S_IRWXO);
    if is_directory && stat.st_uid == Identity::current().owner().uid && !open_to_others {
        return Ok(Some(Stat::from(stat)));
    }
    Err(FsError::because(Problem::Denied, "use", path, "it is not a directory that belongs to this user alone"))
}

/// Makes a directory for our own user alone, unless it is there; what is above it has to exist.
///
/// # Errors
/// As [`private_dir`], and when it cannot be made.
pub fn make_own_dir(path: &Path) -> Result<Stat, FsError> {
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(FsError::new("make directory", path, e)),
    }
    private_dir(path)?.ok_or_else(|| FsError::new("make directory", path, Errno::ENOENT))
}

/// Writes a small file over whatever has the name: whole or not at all, but not durably.
///
/// # Errors
/// As [`AtomicFile::publish_over`].
pub fn write_volatile(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    let mut draft = AtomicFile::beside(path, 0o600)?;
    draft.append(bytes)?;
    draft.publish_over(Durability::Volatile)
}

/// A lock that ends with its holder, however that ends.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "held, not used")] File);

/// Takes a lock that belongs to one process at a time; `None` when another holds it, or locks do not work there.
///
/// # Errors
/// When its file cannot be made.
pub fn lock(path: &Path) -> Result<Option<Held>, FsError> {
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(|e| FsError::new("open", path, e))?;
    // Who only looks holds it for a moment.
    for _ in 0..20 {
        match file.try_lock() {
            Ok(()) => return Ok(Some(Held(file))),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(2)),
            Err(TryLockError::Error(_)) => return Ok(None),
        }
    }
    Ok(None)
}

/// Whether a process holds this lock. `false` when it cannot be told.
pub fn is_locked(path: &Path) -> bool {
    let Ok((file, _)) = super::open_regular(path) else { return false };
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// Bytes that may still be written to the file system that holds a path. `None` when it does not tell.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    #[allow(clippy::useless_conversion, reason = "the types of these fields differ between architectures")]
    u64::from(stat.blocks_available()).checked_mul(u64::from(stat.fragment_size()))
}

/// Longer than the steps in which the times of files advance: kernels count them in ticks of up to 10 ms.
pub const TIME_STEP: Duration = Duration::from_millis(50);

/// Whether the last change of a file is so long ago that one yet to come will show in its times.
pub fn is_settled(stat: &Stat) -> bool {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let (Ok(seconds), Ok(nanoseconds)) = (u64::try_from(stat.changed.0), u32::try_from(stat.changed.1)) else { return false };
    now.checked_sub(Duration::new(seconds, nanoseconds.min(999_999_999))).is_some_and(|age| age >= TIME_STEP)
}

/// Leaves the session of whoever started this process, and closes every descriptor that came from there but the first three. To be
/// called before anything is opened.
pub fn detach() {
    // It fails only for the leader of a process group, who is in no group of a caller.
    let _ = nix::unistd::setsid();
    let Ok(dir) = Dir::open(Path::new("/proc/self/fd")) else { return };
    let Ok(items) = dir.items() else { return };
    drop(dir);
    for item in items {
        if let Some(fd) = item.name.to_str().and_then(|name| name.parse::<i32>().ok()).filter(|fd| *fd > 2) {
            // The descriptors of the listing itself are closed by now, and nothing else was opened.
            let _ = nix::unistd::close(fd);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_a_private_directory_of_our_own_is_used() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("spool");
        assert_eq!(private_dir(&path).unwrap(), None);
        let made = make_own_dir(&path).unwrap();
        assert_eq!(make_own_dir(&path).unwrap().ino, made.ino);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o750)).unwrap();
        assert_eq!(private_dir(&path).unwrap_err().problem, Problem::Denied);
        let link = place.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(make_own_dir(&link).unwrap_err().problem, Problem::Denied);
        std::fs::write(place.path().join("file"), "").unwrap();
        assert_eq!(make_own_dir(&place.path().join("file")).unwrap_err().problem, Problem::Denied);
        assert_eq!(make_own_dir(&place.path().join("a/b")).unwrap_err().problem, Problem::Absent);
    }

    #[test]
    fn a_lock_is_held_by_one_and_seen_by_others() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("lock");
        assert!(!is_locked(&path));
        let held = lock(&path).unwrap().unwrap();
        assert!(is_locked(&path) && lock(&path).unwrap().is_none());
        drop(held);
        assert!(!is_locked(&path) && lock(&path).unwrap().is_some());
    }

    #[test]
    fn what_changed_a_moment_ago_is_not_settled() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        std::fs::write(&path, "").unwrap();
        let mut stat = super::super::stat(&path).unwrap().unwrap();
        stat.changed.0 -= 1;
        assert!(is_settled(&stat));
        stat.changed.0 += 3600;
        assert!(!is_settled(&stat), "the clock was set back");
    }

    #[test]
    fn the_boot_has_an_id_and_its_clock_runs() {
        let (one, two) = (Boot::now().unwrap(), Boot::now().unwrap());
        assert!(one.id == two.id && one.since <= two.since);
    }
}
