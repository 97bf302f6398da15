//! Directories that are waited for: whoever looks again and again wakes up for nothing most of the time.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Says that a name came, went or was renamed in one of a few directories (inotify). Of file systems that another host
/// changes it tells nothing, so nobody relies on it alone.
pub struct Watch(Inotify);

impl Watch {
    /// Watches these directories from now on; `None` where the kernel has no watch to give.
    pub fn on(directories: &[&Path]) -> Option<Self> {
        let names = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVE;
        let itself = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_ONLYDIR;
        let watch = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok()?;
        for directory in directories {
            watch.add_watch(*directory, names | itself).ok()?;
        }
        Some(Self(watch))
    }

    /// Whether anything changed since the last time it said so, or since it began.
    pub fn has_changed(&self) -> bool {
        let mut changed = false;
        loop {
            match self.0.read_events() {
                Ok(_) => changed = true,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return changed,
                // Nobody knows: then it is better to look.
                Err(_) => return true,
            }
        }
    }

    /// Waits until something changes, at most so long. The change is still there for
    /// [`has_changed`](Self::has_changed).
    pub fn wait(&self, limit: Duration) {
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        // Interrupted, it comes back early, as at a change.
        let _ = poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_is_told_of_once() {
        let place = tempfile::tempdir().unwrap();
        let (one, other) = (place.path().join("one"), place.path().join("other"));
        std::fs::create_dir(&one).unwrap();
        assert!(Watch::on(&[&one, &other]).is_none(), "one is not there");
        std::fs::create_dir(&other).unwrap();
        let Some(watch) = Watch::on(&[&one, &other]) else { return };
        assert!(!watch.has_changed());
        watch.wait(Duration::from_millis(1));
        let changes: [&dyn Fn(); 4] = [
            &|| std::fs::write(one.join("a"), "a").unwrap(),
            &|| std::fs::rename(one.join("a"), other.join("b")).unwrap(),
            &|| std::fs::remove_file(other.join("b")).unwrap(),
            &|| std::fs::remove_dir(&one).unwrap(),
        ];
        for change in changes {
            change();
            // At once, or else for ever.
            watch.wait(Duration::MAX);
            assert!(watch.has_changed() && !watch.has_changed());
        }
        // Content is none of its business.
        std::fs::write(other.join("c"), "c").unwrap();
        assert!(watch.has_changed());
        std::fs::write(other.join("c"), "d").unwrap();
        assert!(!watch.has_changed());
    }
}
