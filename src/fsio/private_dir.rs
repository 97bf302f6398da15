//! A directory that belongs to one user alone, for what processes of that user leave to each other on one host: small
//! files that need not survive a power failure.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag};

use super::{AtomicFile, Durability, FsError, Identity, Problem, Stat};

/// The state of a directory that nobody but our own user can enter or change; `None` when there is nothing of that
/// name.
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
    let mut new_file = AtomicFile::beside(path, 0o600)?;
    new_file.append(bytes)?;
    new_file.publish_over(Durability::Volatile)
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
}
