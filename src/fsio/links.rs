//! What a symbolic link says. Depends on `error` of this module alone.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;

use super::error::FsError;

/// What is written in the link `name` of an open directory; `None` when it is gone or no link. The only place that
/// reads links. `""` as the name reads the link that is open itself.
pub(super) fn read_link_at(dir: impl AsFd, name: &Path) -> nix::Result<Option<PathBuf>> {
    match nix::fcntl::readlinkat(dir, name) {
        Ok(target) => Ok(Some(target.into())),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EINVAL) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The target of a symbolic link; `None` when it is gone or no link.
///
/// # Errors
/// [`Problem::Denied`](super::Problem::Denied), others.
pub fn link_target(path: &Path) -> Result<Option<PathBuf>, FsError> {
    read_link_at(AT_FDCWD, path).map_err(|e| FsError::new("read link", path, e))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_says_its_target_and_nothing_else_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        symlink("/else/where", path("link")).unwrap();
        std::fs::write(path("file"), b"x").unwrap();
        assert_eq!(link_target(&path("link")).unwrap().unwrap(), Path::new("/else/where"));
        for none in ["file", "absent", "file/below"] {
            assert_eq!(link_target(&path(none)).unwrap(), None, "{none}");
        }
        let opened = std::fs::File::open(dir.path()).unwrap();
        assert_eq!(read_link_at(&opened, Path::new("link")).unwrap().unwrap(), Path::new("/else/where"));
    }
}
