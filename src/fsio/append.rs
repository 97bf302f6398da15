//! A line more in a small file of our own.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use zeroize::Zeroizing;

use super::{FsError, Problem, own_user};

/// Adds a line to a text file, durably, if `is_it` says of its content that it is the one that is meant. Whatever else
/// is in it stays as it is, and so do its owner, group, mode and links to it from elsewhere: it is not replaced.
///
/// It must belong to our own user, under this one name: as root nothing is written to a file that another user could
/// have put there, nor through a link.
///
/// # Errors
/// [`Problem::Denied`], [`Problem::TooLarge`], [`Problem::Failed`], others; the file is as it was then, unless the disk
/// failed.
pub fn append_line(path: &Path, max_bytes: usize, is_it: &dyn Fn(&[u8]) -> bool, line: &str) -> Result<(), FsError> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .append(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(|e| match e.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ELOOP) => denied(path, "it is a symbolic link"),
            _ => FsError::new("open", path, e),
        })?;
    let meta = file.metadata().map_err(|e| FsError::new("stat", path, e))?;
    if !meta.is_file() {
        return Err(denied(path, "it is not a regular file"));
    }
    if meta.uid() != own_user() {
        return Err(denied(path, "it belongs to another user"));
    }
    if meta.nlink() != 1 {
        return Err(denied(path, "it has more than one name"));
    }
    append(&file, path, max_bytes, is_it, line)
}

fn append(mut file: &File, path: &Path, max_bytes: usize, is_it: &dyn Fn(&[u8]) -> bool, line: &str) -> Result<(), FsError> {
    // With room for all of it: a buffer that grows would leave copies of a secret behind.
    let mut now = Zeroizing::new(Vec::with_capacity(max_bytes.saturating_add(1)));
    let limit = u64::try_from(max_bytes).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut now).map_err(|e| FsError::new("read", path, e))?;
    if now.len() + line.len() + 2 > max_bytes {
        return Err(FsError::because(Problem::TooLarge, "write", path, format!("it would be larger than {max_bytes} bytes")));
    }
    if !is_it(&now) {
        return Err(denied(path, "its content is another one by now"));
    }
    let ended = now.is_empty() || now.ends_with(b"\n");
    // In one call, so that two processes that do this at once write two lines.
    let text = if ended { format!("{line}\n") } else { format!("\n{line}\n") };
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|e| {
        // Half a line, where the disk is full, would spoil the file.
        let taken_back = file.set_len(now.len() as u64).and_then(|()| file.sync_all());
        let failed = FsError::new("write", path, e);
        match taken_back {
            Ok(()) => failed,
            Err(e) => failed
                .with_hint(format!("look at the end of the file: half a line may be there, which could not be removed ({e})")),
        }
    })
}

fn denied(path: &Path, detail: &str) -> FsError {
    FsError::because(Problem::Denied, "write", path, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(path: &Path) -> Result<(), FsError> {
        append_line(path, 64, &|text| text.starts_with(b"mine"), "more")
    }

    #[test]
    fn a_line_is_added_to_what_is_ours_and_meant() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        assert_eq!(add(&path).unwrap_err().problem, Problem::Absent);
        for (before, after) in [("mine", "mine\nmore\n"), ("mine\n", "mine\nmore\n"), ("mine\nmore\n", "mine\nmore\nmore\n")] {
            std::fs::write(&path, before).unwrap();
            add(&path).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), after);
        }
        for other in ["yours\n", "", &format!("mine {}\n", "x".repeat(60))] {
            std::fs::write(&path, other).unwrap();
            add(&path).unwrap_err();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), other);
        }
        std::fs::write(&path, "mine\n").unwrap();
        let link = place.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(add(&link).unwrap_err().detail.contains("link"));
        let second = place.path().join("second");
        std::fs::hard_link(&path, &second).unwrap();
        assert!(add(&path).unwrap_err().detail.contains("more than one name"));
        assert!(add(place.path()).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine\n");
        std::fs::remove_file(second).unwrap();
        if own_user() == 0 {
            nix::unistd::chown(&path, Some(65534.into()), None).unwrap();
            assert!(add(&path).unwrap_err().detail.contains("another user"));
        }
    }
}
