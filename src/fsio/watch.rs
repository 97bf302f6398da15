//! Directories that are waited for (inotify): whoever looks again and again wakes up for nothing most of the time.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

/// Which names in a directory are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Those that come and those that go.
    All,
    /// Those that go.
    Going,
    /// None: only what happens to the directory itself.
    None,
}

/// What became of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Became {
    /// It is there: made, linked, or renamed to, whether or not something had the name before.
    There,
    /// What had it has another name now, in this directory or another one.
    Renamed,
    /// What had it was removed.
    Removed,
}

/// What became of a name, and in which of the directories, by its place among those that are watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Place of the directory among those that are watched.
    pub directory: usize,
    /// The name.
    pub name: OsString,
    /// What became of it.
    pub became: Became,
}

impl Change {
    /// Whether it is of this name in this directory.
    pub fn is_of(&self, directory: usize, name: impl AsRef<OsStr>) -> bool {
        self.directory == directory && self.name == name.as_ref()
    }
}

/// Changes in the order in which they happened.
#[derive(Debug, Default)]
pub struct Changes {
    /// Names that came or went.
    pub names: Vec<Change>,
    /// More may have happened than this: the kernel kept no account of it, or a directory itself was moved, removed or
    /// unmounted.
    pub is_partial: bool,
}

impl Changes {
    /// Anything may have happened.
    pub fn unknown() -> Self {
        Self { names: Vec::new(), is_partial: true }
    }

    /// Whether nothing has happened.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && !self.is_partial
    }
}

/// Says what comes and goes in a few directories, and that another thread rang. It tells nothing of what another host
/// does to a network file system, so nobody may rely on it alone.
#[derive(Debug)]
pub struct Watch {
    inotify: Inotify,
    bell: EventFd,
    directories: Vec<WatchDescriptor>,
}

impl Watch {
    /// Watches these directories from now on: what comes afterwards is told, so look once more after this. `None` where
    /// the kernel has no watch to give, a directory is not there, or two are the same one.
    pub fn on(directories: &[(&Path, Names)]) -> Option<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok()?;
        let bell = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).ok()?;
        let mut watch = Self { inotify, bell, directories: Vec::new() };
        for (directory, names) in directories {
            let itself = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_ONLYDIR;
            let going = AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM;
            let coming = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
            let wanted = match names {
                Names::All => itself | going | coming,
                Names::Going => itself | going,
                Names::None => itself,
            };
            let watched = watch.inotify.add_watch(*directory, wanted).ok()?;
            if watch.directories.contains(&watched) {
                return None;
            }
            watch.directories.push(watched);
        }
        Some(watch)
    }

    /// Ends a [`wait`](Self::wait) of another thread, or else its next one.
    pub fn ring(&self) {
        // It fails only where it has been rung more often than anybody can count.
        let _ = self.bell.write(1);
    }

    /// Waits until a name changes that is of concern, a directory itself does, or somebody rings; at most so long.
    /// Says what has changed since the last time. Other names are forgotten.
    pub fn wait(&self, limit: Duration, concerns: impl Fn(&Change) -> bool) -> Changes {
        let began = Instant::now();
        loop {
            let left = limit.saturating_sub(began.elapsed());
            // Rounded up: what is left may be less than a millisecond.
            let left_ms = PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX);
            let timeout = if left.is_zero() { PollTimeout::ZERO } else { left_ms };
            let mut ready =
                [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN), PollFd::new(self.bell.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, timeout) {
                Ok(0) => return Changes::default(),
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                // It cannot wait. So that its caller does not look without end:
                Err(_) => {
                    std::thread::sleep(left);
                    return Changes::unknown();
                }
            }
            let [events, bell] = ready.map(|fd| fd.any().unwrap_or(true));
            let rang = bell && self.bell.read().is_ok();
            let mut changes = if events { self.take() } else { Changes::default() };
            changes.names.retain(&concerns);
            if rang || !changes.is_empty() || began.elapsed() >= limit {
                return changes;
            }
        }
    }

    /// What the kernel has kept for us.
    fn take(&self) -> Changes {
        let mut changes = Changes::default();
        loop {
            match self.inotify.read_events() {
                Ok(events) => events.into_iter().for_each(|event| self.note(event, &mut changes)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return changes,
                Err(_) => {
                    changes.is_partial = true;
                    return changes;
                }
            }
        }
    }

    fn note(&self, event: InotifyEvent, changes: &mut Changes) {
        let became = [
            (AddWatchFlags::IN_MOVED_FROM, Became::Renamed),
            (AddWatchFlags::IN_DELETE, Became::Removed),
            (AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO, Became::There),
        ];
        let became = became.into_iter().find(|(mask, _)| event.mask.intersects(*mask)).map(|(_, became)| became);
        let directory = self.directories.iter().position(|watched| *watched == event.wd);
        match (directory, event.name, became) {
            (Some(directory), Some(name), Some(became)) => changes.names.push(Change { directory, name, became }),
            // An overflow, or a directory itself.
            _ => changes.is_partial = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    const LONG: Duration = Duration::from_secs(600);

    fn place() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let place = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| place.path().join(name));
        for directory in [&one, &other] {
            fs::create_dir(directory).unwrap();
        }
        (place, one, other)
    }

    fn told(changes: Changes) -> Vec<(usize, String, Became)> {
        assert!(!changes.is_partial);
        changes.names.into_iter().map(|c| (c.directory, c.name.into_string().unwrap(), c.became)).collect()
    }

    fn all(_: &Change) -> bool {
        true
    }

    #[test]
    fn every_name_that_comes_and_goes_is_told_of_once_and_in_order() {
        let (_place, one, other) = place();
        let watch = Watch::on(&[(&one, Names::All), (&other, Names::Going)]).unwrap();
        assert!(watch.wait(Duration::ZERO, all).is_empty());
        let a = || "a".to_owned();
        fs::write(one.join("a"), "").unwrap();
        // Each wait ends at once, or the test never does.
        assert_eq!(told(watch.wait(LONG, all)), [(0, a(), Became::There)]);
        // Content is nobody's business.
        fs::write(one.join("a"), "longer").unwrap();
        assert!(watch.wait(Duration::ZERO, all).is_empty());
        fs::rename(one.join("a"), other.join("b")).unwrap();
        assert_eq!(told(watch.wait(LONG, all)), [(0, a(), Became::Renamed)], "what comes to the other one is not told");
        fs::rename(other.join("b"), one.join("a")).unwrap();
        fs::write(other.join("c"), "").unwrap();
        fs::hard_link(other.join("c"), one.join("c")).unwrap();
        fs::remove_file(other.join("c")).unwrap();
        let c = || "c".to_owned();
        assert_eq!(
            told(watch.wait(LONG, all)),
            [(1, "b".to_owned(), Became::Renamed), (0, a(), Became::There), (0, c(), Became::There), (1, c(), Became::Removed)]
        );
        assert!(watch.wait(Duration::ZERO, all).is_empty());
    }

    #[test]
    fn what_happens_to_a_directory_itself_is_told() {
        for names in [Names::All, Names::Going, Names::None] {
            let (place, one, other) = place();
            let watch = Watch::on(&[(&one, names), (&other, names)]).unwrap();
            fs::rename(&one, place.path().join("renamed")).unwrap();
            assert!(watch.wait(LONG, all).is_partial, "renamed");
            fs::remove_dir(&other).unwrap();
            assert!(watch.wait(LONG, all).is_partial, "removed");
        }
    }

    #[test]
    fn a_name_of_no_concern_ends_no_wait() {
        let (_place, one, _) = place();
        let watch = Watch::on(&[(&one, Names::All)]).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for name in ["a", "b", "wanted"] {
                    std::thread::sleep(Duration::from_millis(20));
                    fs::write(one.join(name), "").unwrap();
                }
            });
            let changes = watch.wait(LONG, |change| change.is_of(0, "wanted"));
            assert_eq!(told(changes), [(0, "wanted".to_owned(), Became::There)]);
        });
        fs::write(one.join("c"), "").unwrap();
        assert!(watch.wait(Duration::from_millis(5), |_| false).is_empty(), "the limit holds whatever comes");
    }

    #[test]
    fn a_bell_ends_the_wait_that_it_meets_or_the_next_one() {
        let (_place, one, _) = place();
        let watch = Watch::on(&[(&one, Names::All)]).unwrap();
        watch.ring();
        watch.ring();
        assert!(watch.wait(LONG, all).is_empty());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                watch.ring();
            });
            assert!(watch.wait(LONG, all).is_empty());
        });
    }

    #[test]
    fn more_than_the_kernel_keeps_is_told_as_such() {
        let (_place, one, _) = place();
        let watch = Watch::on(&[(&one, Names::All)]).unwrap();
        let most: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
        for n in 0..most / 2 + 10 {
            // Two changes each, of names of which no two follow each other.
            fs::write(one.join(n.to_string()), "").unwrap();
            fs::remove_file(one.join(n.to_string())).unwrap();
        }
        let changes = watch.wait(LONG, |_| false);
        assert!(changes.is_partial, "it overflowed unnoticed");
        assert!(watch.wait(Duration::ZERO, all).is_empty());
    }

    #[test]
    fn there_is_no_watch_where_it_would_say_too_little() {
        let (place, one, _) = place();
        assert!(Watch::on(&[(&one, Names::All), (&place.path().join("none"), Names::All)]).is_none());
        assert!(Watch::on(&[(&one, Names::All), (&one.join("../one"), Names::None)]).is_none(), "the same directory twice");
        fs::write(one.join("file"), "").unwrap();
        assert!(Watch::on(&[(&one.join("file"), Names::All)]).is_none());
    }
}
