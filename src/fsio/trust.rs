//! Whose word a file is: who could change it, or put another one in its place.

use std::fmt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::links::link_target;
use super::users::group_name;
use super::way::{Begins, Way};
use super::{FsError, Identity, Problem, user_name};
use crate::raw_text::shown;

const WRITABLE_BY_GROUP: u32 = 0o020;
const WRITABLE_BY_ALL: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// What lets a user other than root change a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    /// The file, a directory on the way to it, or a link there.
    pub path: PathBuf,
    /// Who it is.
    pub by: ChangeableBy,
}

/// Who can change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeableBy {
    /// Its owner, who is not root.
    Owner(u32),
    /// A group.
    Group(u32),
    /// Every user.
    Everybody,
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = shown(&self.path);
        match self.by {
            ChangeableBy::Owner(uid) => write!(f, "{path} belongs to {}", user_name(uid)),
            ChangeableBy::Group(gid) => {
                write!(f, "group {} can write {path}", group_name(gid))
            }
            ChangeableBy::Everybody => write!(f, "every user can write {path}"),
        }
    }
}

impl Exposure {
    /// What an administrator types to end it.
    pub fn way_out(&self) -> String {
        let path = shown(&self.path);
        match self.by {
            ChangeableBy::Owner(_) => format!("chown root {path}"),
            ChangeableBy::Group(_) => format!("chmod g-w {path}"),
            ChangeableBy::Everybody => format!("chmod go-w {path}"),
        }
    }
}

/// Whether anybody but root can change a file, or what its path leads to: `None` when nobody can.
///
/// Every directory on the way counts, and every link, which root follows if it is root's own. A directory with the
/// sticky bit lets nobody touch what belongs to root in it, but lets everybody make what is not there.
///
/// # Errors
/// [`Problem::Absent`] when it is not there, and nobody but root could make it; what else the system says.
pub fn changeable_by_others(path: &Path) -> Result<Option<Exposure>, FsError> {
    // The caller may work as a user who cannot look at all of the way.
    let _as = Identity::own().enter()?;
    let absolute = std::path::absolute(path).map_err(|e| FsError::new("find", path, e))?;
    let mut here = PathBuf::from("/");
    let mut way = Way::along(&absolute);
    if let Some(by) = changes(&metadata(&here)?) {
        return Ok(Some(Exposure { path: here, by }));
    }
    while let Some(name) = way.next_name() {
        if name == ".." {
            here.pop();
            continue;
        }
        let next = here.join(&name);
        let meta = match metadata(&next) {
            // Anybody who can make it, can have made it a moment later.
            Err(e) if e.problem == Problem::Absent && is_for_everybody(&metadata(&here)?) => {
                return Ok(Some(Exposure { path: here, by: ChangeableBy::Everybody }));
            }
            meta => meta?,
        };
        if let Some(by) = changes(&meta) {
            return Ok(Some(Exposure { path: next, by }));
        }
        if !meta.is_symlink() {
            here = next;
            continue;
        }
        let target = link_target(&next)?.ok_or_else(|| FsError::new("read link", &next, Errno::ENOENT))?;
        match way.follow(&target) {
            Some(Begins::AtRoot) => here = PathBuf::from("/"),
            Some(Begins::Here) => {}
            None => return Err(FsError::because(Problem::Unsupported, "follow", path, "too many symbolic links")),
        }
    }
    Ok(None)
}

fn metadata(path: &Path) -> Result<std::fs::Metadata, FsError> {
    std::fs::symlink_metadata(path).map_err(|e| FsError::new("stat", path, e))
}

/// Whether others can make something in this directory of root's.
fn is_for_everybody(directory: &std::fs::Metadata) -> bool {
    directory.mode() & (WRITABLE_BY_GROUP | WRITABLE_BY_ALL) != 0
}

/// Who but root can change this one thing, or the names in it that are root's.
fn changes(meta: &std::fs::Metadata) -> Option<ChangeableBy> {
    if meta.uid() != 0 {
        return Some(ChangeableBy::Owner(meta.uid()));
    }
    // The bits of a link say nothing, what is written to a device such as /dev/null is not what is read from it, and a
    // sticky directory's names belong to those whose the files are.
    if meta.is_symlink() || meta.file_type().is_char_device() || (meta.is_dir() && meta.mode() & STICKY != 0) {
        return None;
    }
    match meta.mode() {
        mode if mode & WRITABLE_BY_ALL != 0 => Some(ChangeableBy::Everybody),
        // With an access-control list these are the bits of the list's mask, also where the group is root's.
        mode if mode & WRITABLE_BY_GROUP != 0 => Some(ChangeableBy::Group(meta.gid())),
        _ => None,
    }
}

/// Whether everybody may read a file, for a warning about secrets. `false` when it is not known.
pub fn others_can_read(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o004 != 0)
}

/// Whether its group, or everybody, may write a file, for the same. `false` when it is not known.
pub fn others_can_write(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o022 != 0)
}

/// Whether everybody may write to a file or directory. `false` when it is not known.
pub fn everybody_can_write(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o002 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    const OTHER: u32 = 65_534;

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_others_can_change_on_the_way_is_found() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        let (etc, file) = (root.join("etc"), root.join("etc/walvis.toml"));
        std::fs::create_dir(&etc).unwrap();
        std::fs::write(&file, "").unwrap();
        let exposed = |path: &Path| changeable_by_others(path).unwrap();
        let owner = Exposure { path: file.clone(), by: ChangeableBy::Owner(OTHER) };
        assert_eq!(exposed(&file), None);
        assert_eq!(exposed(&etc.join("../etc/./walvis.toml")), None);
        assert_eq!(exposed(Path::new("/dev/null")), None);

        std::os::unix::fs::chown(&file, Some(OTHER), None).unwrap();
        assert_eq!(exposed(&file), Some(owner.clone()));
        assert_eq!(owner.way_out(), format!("chown root {}", file.display()));
        std::os::unix::fs::chown(&file, Some(0), Some(OTHER)).unwrap();
        assert_eq!(exposed(&file), None);
        mode(&file, 0o660);
        assert_eq!(exposed(&file).map(|found| found.by), Some(ChangeableBy::Group(OTHER)));
        mode(&file, 0o606);
        assert_eq!(exposed(&file).map(|found| found.by), Some(ChangeableBy::Everybody));
        mode(&file, 0o640);

        mode(&etc, 0o777);
        assert_eq!(exposed(&file), Some(Exposure { path: etc.clone(), by: ChangeableBy::Everybody }));
        mode(&etc, 0o1777);
        assert_eq!(exposed(&file), None);
        assert_eq!(exposed(&etc.join("absent")), Some(Exposure { path: etc.clone(), by: ChangeableBy::Everybody }));
        // What is not root's in a sticky directory is its owner's, a link above all.
        let (link, own) = (etc.join("link"), root.join("own"));
        symlink("../etc/walvis.toml", &link).unwrap();
        symlink(&link, &own).unwrap();
        assert_eq!(exposed(&own), None);
        std::os::unix::fs::lchown(&link, Some(OTHER), None).unwrap();
        assert_eq!(exposed(&own), Some(Exposure { path: link, by: ChangeableBy::Owner(OTHER) }));
        // Where a link of root's leads through another user's directory.
        let (home, way) = (root.join("home"), root.join("way"));
        std::fs::create_dir(&home).unwrap();
        std::fs::write(home.join("walvis.toml"), "").unwrap();
        symlink(&home, &way).unwrap();
        std::os::unix::fs::chown(&home, Some(OTHER), None).unwrap();
        assert_eq!(exposed(&way.join("walvis.toml")), Some(Exposure { path: home, by: ChangeableBy::Owner(OTHER) }));
        // Not for ever.
        symlink("loop", root.join("loop")).unwrap();
        assert!(changeable_by_others(&root.join("loop")).is_err());
        assert_eq!(changeable_by_others(&root.join("none")).unwrap_err().problem, Problem::Absent);
    }
}
