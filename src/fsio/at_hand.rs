//! What can be looked at without asking anybody who may not answer: a dead file server, above all.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags};

/// Whether a path leads to something on a disk of this host that the kernel knows already, every name on the way to it
/// included. Finding that out waits for nobody, and looking at it then does not either.
///
/// `false` where that is not known: file systems without a device of their own (of the network, above all, but others
/// too), kernels before 5.12, and a path that leads nowhere.
pub fn is_at_hand(path: &Path) -> bool {
    // The kernel fails rather than ask a file system about a name (`openat2(2)`, `RESOLVE_CACHED`).
    let found = rustix::fs::openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::CACHED);
    let Ok(found) = found else { return false };
    let look = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    // File systems that are on no device get a number of the kernel's own, whose major part is 0.
    rustix::fs::statx(&found, c"", look, StatxFlags::TYPE).is_ok_and(|stat| stat.stx_dev_major != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_and_on_a_disk_is_at_hand() {
        let place = tempfile::tempdir_in(".").unwrap();
        let (file, link) = (place.path().join("file"), place.path().join("link"));
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        let on_a_disk = nix::sys::stat::major(std::os::unix::fs::MetadataExt::dev(&std::fs::metadata(&file).unwrap())) != 0;
        for path in [&file, &link, &place.path().to_owned()] {
            // A kernel before 5.12 knows nothing.
            assert!(!is_at_hand(path) || on_a_disk, "{}", path.display());
        }
        assert!(!is_at_hand(&place.path().join("none")) && !is_at_hand(Path::new("")));
        assert!(!is_at_hand(Path::new("/proc/self/status")) && !is_at_hand(Path::new("/proc")));
        assert!(!is_at_hand(&place.path().join("file/below")));
    }

    /// On the hosts that it is for: else every call would have its watchdog, and nobody would notice.
    #[test]
    fn what_was_just_written_to_a_disk_is_at_hand() {
        let place = tempfile::tempdir_in(".").unwrap();
        let file = place.path().join("file");
        std::fs::write(&file, "").unwrap();
        let on_a_disk = nix::sys::stat::major(std::os::unix::fs::MetadataExt::dev(&std::fs::metadata(&file).unwrap())) != 0;
        let flags = ResolveFlags::CACHED;
        let knows = rustix::fs::openat2(CWD, "/", OFlags::PATH, Mode::empty(), flags).is_ok();
        assert_eq!(is_at_hand(&file), on_a_disk && knows);
    }
}
