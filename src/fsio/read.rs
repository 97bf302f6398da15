//! Reading files: regular ones alone, small ones whole, open ones from any offset.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc;

use super::{FsError, Problem, Stat, stat_open};

/// Opens a regular file for reading. Anything else (directory, pipe, device) is refused without blocking.
///
/// # Errors
/// [`Problem::Absent`], [`Problem::Denied`], [`Problem::Unsupported`] when it is not a regular file,
/// [`Problem::Failed`].
pub fn open_regular(path: &Path) -> Result<(File, Stat), FsError> {
    // O_NONBLOCK: opening a pipe without a writer would wait forever. It has no effect on regular files.
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(|e| FsError::new("open", path, e))?;
    let stat = stat_open(&file, path)?;
    Ok((file, stat))
}

/// Reads a whole small file.
///
/// # Errors
/// As [`open_regular`]; [`Problem::TooLarge`] when it has more than `max_bytes` bytes.
pub fn read_bounded(path: &Path, max_bytes: usize) -> Result<Vec<u8>, FsError> {
    let (file, stat) = open_regular(path)?;
    read_open(file, &stat, path, max_bytes)
}

pub(super) fn read_open(file: File, stat: &Stat, path: &Path, max_bytes: usize) -> Result<Vec<u8>, FsError> {
    let expected = usize::try_from(stat.size_bytes).unwrap_or(usize::MAX).min(max_bytes);
    let mut bytes = Vec::with_capacity(expected.saturating_add(1));
    let limit = u64::try_from(max_bytes).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(|e| FsError::new("read", path, e))?;
    if bytes.len() > max_bytes {
        return Err(FsError::because(Problem::TooLarge, "read", path, format!("it is larger than {max_bytes} bytes")));
    }
    Ok(bytes)
}

/// Reads an open file from its beginning, wherever others read in it: the same file twice, even if its name is gone by
/// then.
pub fn reader(file: &File) -> impl Read + '_ {
    reader_from(file, 0)
}

/// As [`reader`], from an offset on.
pub fn reader_from(file: &File, offset: u64) -> impl Read + '_ {
    struct From<'a>(&'a File, u64);
    impl Read for From<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let n = std::os::unix::fs::FileExt::read_at(self.0, out, self.1)?;
            self.1 += n as u64;
            Ok(n)
        }
    }
    From(file, offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsio::{ItemKind, stat};
    use std::os::unix::fs::PermissionsExt;

    fn problem<T>(outcome: Result<T, FsError>) -> Option<Problem> {
        outcome.err().map(|e| e.problem)
    }

    #[test]
    fn small_files_are_read_whole_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        assert_eq!(problem(read_bounded(&path, 10)), Some(Problem::Absent));
        std::fs::write(&path, b"0123456789").unwrap();
        assert_eq!(read_bounded(&path, 10).unwrap(), b"0123456789");
        let error = read_bounded(&path, 9).unwrap_err();
        assert_eq!(error.problem, Problem::TooLarge);
        assert_eq!(error.to_string(), format!("cannot read {}: it is larger than 9 bytes", path.display()));
        // A file whose size the system does not tell beforehand.
        assert!(!read_bounded(Path::new("/proc/self/status"), 1 << 20).unwrap().is_empty());
        assert_eq!(problem(read_bounded(Path::new("/proc/self/status"), 5)), Some(Problem::TooLarge));
        assert_eq!(problem(read_bounded(place.path(), 10)), Some(Problem::Unsupported));
    }

    #[test]
    fn only_regular_files_are_opened_and_without_waiting() {
        let place = tempfile::tempdir().unwrap();
        let pipe = place.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(problem(open_regular(&pipe)), Some(Problem::Unsupported));
        assert_eq!(problem(open_regular(place.path())), Some(Problem::Unsupported));
        let path = place.path().join("file");
        std::fs::write(&path, b"123").unwrap();
        let (_, before) = open_regular(&path).unwrap();
        assert_eq!((before.size_bytes, before.kind, before.links), (3, ItemKind::File, 1));
        assert_eq!(stat(&path).unwrap(), Some(before));
        // A change of content or attributes shows.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::fs::write(&path, b"1234").unwrap();
        assert_ne!(stat(&path).unwrap(), Some(before));
    }
}
