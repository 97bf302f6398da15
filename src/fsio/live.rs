//! Reading a directory tree that somebody else writes to: what vanishes is not an error, links are not followed, and
//! what was opened once is read through the same descriptor.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::libc;
use nix::sys::stat::{FileStat, SFlag};

use super::{Dir, FsError, Problem};

/// What something in a live tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LiveKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// Pipe, socket, device.
    Other,
}

/// What a backup keeps of a file or directory besides its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// What it is.
    pub kind: LiveKind,
    /// Size in bytes, of a file.
    pub size_bytes: u64,
    /// Permissions, set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change of content, microseconds since 1970 UTC.
    pub modified_unix_us: i64,
}

impl Attributes {
    // The types of these fields differ between architectures.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    fn of(stat: &FileStat) -> Self {
        let kind = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => LiveKind::File,
            SFlag::S_IFDIR => LiveKind::Directory,
            SFlag::S_IFLNK => LiveKind::Link,
            _ => LiveKind::Other,
        };
        Self {
            kind,
            size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
            mode: (stat.st_mode & 0o7777) as u32,
            uid: stat.st_uid,
            gid: stat.st_gid,
            modified_unix_us: (stat.st_mtime as i64).saturating_mul(1_000_000).saturating_add(stat.st_mtime_nsec as i64 / 1000),
        }
    }

    fn of_metadata(meta: &std::fs::Metadata) -> Self {
        let kind = match () {
            () if meta.is_file() => LiveKind::File,
            () if meta.is_dir() => LiveKind::Directory,
            () if meta.is_symlink() => LiveKind::Link,
            () => LiveKind::Other,
        };
        Self {
            kind,
            size_bytes: meta.size(),
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            modified_unix_us: meta.mtime().saturating_mul(1_000_000).saturating_add(meta.mtime_nsec() / 1000),
        }
    }
}

/// The attributes of a path, links followed; `None` when nothing is there.
///
/// # Errors
/// [`Problem::Denied`], others.
pub fn attributes(path: &Path) -> Result<Option<Attributes>, FsError> {
    match nix::sys::stat::stat(path) {
        Ok(stat) => Ok(Some(Attributes::of(&stat))),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(e) => Err(FsError::new("stat", path, e)),
    }
}

/// A directory that others write to, and the names in it.
pub struct LiveDir {
    dir: Dir,
    /// Its own attributes.
    pub own: Attributes,
    /// Everything that was in it, in no order.
    pub names: Vec<OsString>,
}

impl LiveDir {
    /// The attributes of what has a name in it, those of a link itself; `None` when it is gone.
    ///
    /// # Errors
    /// What the system says.
    pub fn attributes(&self, name: &OsStr) -> Result<Option<Attributes>, FsError> {
        match nix::sys::stat::fstatat(self.dir.fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Attributes::of(&stat))),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(FsError::new("stat", self.dir.path().join(name), e)),
        }
    }

    /// The names of the links in it.
    ///
    /// # Errors
    /// As [`attributes`](Self::attributes).
    pub fn links(&self) -> Result<Vec<OsString>, FsError> {
        let mut links = Vec::new();
        for name in &self.names {
            if self.attributes(name)?.is_some_and(|attributes| attributes.kind == LiveKind::Link) {
                links.push(name.clone());
            }
        }
        Ok(links)
    }
}

/// Opens a directory and lists it; the path to it is followed if it is a link. `None` when it is gone.
///
/// # Errors
/// [`Problem::Denied`], [`Problem::Unsupported`] when it is not a directory, others.
pub fn scan_live(path: &Path) -> Result<Option<LiveDir>, FsError> {
    let dir = match Dir::open(path) {
        Ok(dir) => dir,
        Err(e) if e.problem == Problem::Absent => return Ok(None),
        Err(e) => return Err(e),
    };
    let own = nix::sys::stat::fstat(dir.fd()).map_err(|e| FsError::new("stat", path, e))?;
    let names = dir.names()?;
    Ok(Some(LiveDir { own: Attributes::of(&own), names, dir }))
}

/// Opens a regular file for reading, not through a link; `None` when it is gone, or something else has its name by now.
///
/// # Errors
/// [`Problem::Denied`], others.
pub fn open_live(path: &Path) -> Result<Option<(File, Attributes)>, FsError> {
    let opened =
        std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(e) if matches!(e.raw_os_error().map(Errno::from_raw), Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP)) => {
            return Ok(None);
        }
        Err(e) => return Err(FsError::new("open", path, e)),
    };
    let meta = file.metadata().map_err(|e| FsError::new("stat", path, e))?;
    let attributes = Attributes::of_metadata(&meta);
    Ok(if attributes.kind == LiveKind::File { Some((file, attributes)) } else { None })
}

/// The present size of an open file.
///
/// # Errors
/// When the system does not say.
pub fn present_size(file: &File, path: &Path) -> Result<u64, FsError> {
    file.metadata().map(|meta| meta.size()).map_err(|e| FsError::new("stat", path, e))
}

/// Reads at an offset until the buffer is full or the file ends; says how much was read.
///
/// # Errors
/// What the disk says.
pub fn read_full_at(file: &File, path: &Path, buffer: &mut [u8], offset: u64) -> Result<usize, FsError> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(FsError::new("read", path, e)),
        }
    }
    Ok(filled)
}

/// The path without links; `None` when nothing is there.
///
/// # Errors
/// [`Problem::Denied`], others.
pub fn real_path(path: &Path) -> Result<Option<std::path::PathBuf>, FsError> {
    match path.canonicalize() {
        Ok(real) => Ok(Some(real)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(FsError::new("resolve", path, e)),
    }
}

/// Names of users and groups, each looked up once. One without a name is written as its number.
#[derive(Debug, Default)]
pub struct OwnerNames {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl OwnerNames {
    /// The name of a user.
    pub fn user(&mut self, uid: u32) -> String {
        let look = || nix::unistd::User::from_uid(uid.into()).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
        self.users.entry(uid).or_insert_with(look).clone()
    }

    /// The name of a group.
    pub fn group(&mut self, gid: u32) -> String {
        let look = || nix::unistd::Group::from_gid(gid.into()).ok().flatten().map_or_else(|| gid.to_string(), |group| group.name);
        self.groups.entry(gid).or_insert_with(look).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_vanished_is_no_error_and_links_are_seen_as_such() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        assert!(scan_live(&place.path().join("gone")).unwrap().is_none());
        assert!(open_live(&file).unwrap().is_none());
        assert!(attributes(&file).unwrap().is_none());
        std::fs::write(&file, b"0123456789").unwrap();
        std::os::unix::fs::symlink(&file, place.path().join("link")).unwrap();
        std::fs::create_dir(place.path().join("below")).unwrap();
        std::fs::write(place.path().join("gone"), b"").unwrap();
        let live = scan_live(place.path()).unwrap().unwrap();
        std::fs::remove_file(place.path().join("gone")).unwrap();
        assert_eq!(live.own.kind, LiveKind::Directory);
        assert_eq!(live.links().unwrap(), ["link"]);
        let mut names = live.names.clone();
        names.sort();
        let kind = |name: &OsString| Some((name.to_str()?.to_owned(), live.attributes(name).unwrap()?.kind));
        let kinds: Vec<_> = names.iter().filter_map(kind).collect();
        let expected = [("below", LiveKind::Directory), ("file", LiveKind::File), ("link", LiveKind::Link)];
        assert_eq!(names.len(), 4);
        assert_eq!(kinds, expected.map(|(name, kind)| (name.to_owned(), kind)));
        assert!(open_live(&place.path().join("link")).unwrap().is_none());
        assert!(open_live(&place.path().join("below")).unwrap().is_none());
        let (open, attributes) = open_live(&file).unwrap().unwrap();
        assert_eq!((attributes.size_bytes, attributes.kind), (10, LiveKind::File));
        std::fs::remove_file(&file).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(read_full_at(&open, &file, &mut buffer, 4).unwrap(), 6);
        assert_eq!(&buffer[..6], b"456789");
        assert_eq!(present_size(&open, &file).unwrap(), 10);
    }

    #[test]
    fn owners_have_names() {
        let mut names = OwnerNames::default();
        assert_eq!((names.user(0), names.group(0)), ("root".to_owned(), "root".to_owned()));
        assert_eq!(names.user(4_000_000_000), "4000000000");
    }
}
