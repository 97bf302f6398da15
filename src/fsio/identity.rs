//! Whose rights a path is followed with when the process runs as root.
//!
//! Root that follows a path through a directory which somebody else can change goes wherever that somebody wants: a
//! link planted there, or put in a directory's place between two calls, ends in root's own files. No check beforehand
//! helps, since it can be outdated by the next call. So root does not go there: in a tree that belongs to somebody it
//! works with that user's rights, and reaches nothing that the user could not reach anyway.
//!
//! # How
//! - [`Identity::enter`] changes the ids that the kernel checks paths with, of this thread alone, until the guard is
//!   dropped (`setfsuid(2)`); the kernel takes the thread's `CAP_DAC_OVERRIDE`, `CAP_CHOWN` and the like away with them
//!   (`capabilities(7)`), and that it did is checked. Files that are made meanwhile belong to the user. What is open
//!   stays open: descriptors need no guard.
//! - A [`Dir`](super::Dir) remembers under whose identity it was opened, and does everything with a name in it under
//!   that one.
//! - [`Rooted::open`](super::Rooted::open) finds out whose a tree is: see there.
//!
//! Nothing of this happens where the process is not root. A thread that is started under a guard keeps the identity for
//! good.

use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use nix::unistd::{Gid, Uid, User};
use rustix::thread::CapabilitySet;

use super::users::{thread_group, thread_user, user_name};
use super::{FsError, Problem};
use crate::limits::{IDENTITY_ATTEMPTS, IDENTITY_PAUSE};
use crate::process;

/// What a thread must not be able to do that works as another user (`CAP_FS_MASK` of the kernel).
const ROOTS_OWN: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::LINUX_IMMUTABLE)
    .union(CapabilitySet::MAC_OVERRIDE);

/// The group of what belongs to a user about whom nothing is known: the kernel's overflow id.
const NO_GROUP: u32 = 65_534;

/// The user and group that something is to belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// A user and group whose rights paths are followed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    uid: u32,
    gid: u32,
}

impl Identity {
    /// The one of this process.
    pub fn own() -> Self {
        Self { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
    }

    /// The one that this thread works under at this moment.
    pub fn current() -> Self {
        let own = Self::own();
        if own.uid == 0 { Self::of_thread() } else { own }
    }

    /// The one of a user, who need not have a name here, with the group that is his first here; otherwise the group
    /// given, but never root's.
    pub fn of_user(uid: u32, group_otherwise: u32) -> Self {
        if uid == nix::unistd::geteuid().as_raw() {
            return Self::own();
        }
        let first = User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.gid.as_raw());
        let gid = first.unwrap_or(group_otherwise);
        Self { uid, gid: if gid == 0 { NO_GROUP } else { gid } }
    }

    /// The one of an owner as he is given, for files that are to have that group. Of the process's own user it is the
    /// process's.
    pub fn of_owner(owner: Owner) -> Self {
        if owner.uid == nix::unistd::geteuid().as_raw() { Self::own() } else { Self { uid: owner.uid, gid: owner.gid } }
    }

    /// User and group of what is made under it.
    pub fn owner(self) -> Owner {
        Owner { uid: self.uid, gid: self.gid }
    }

    /// Whether it is that of this process.
    pub fn is_own(self) -> bool {
        self.uid == nix::unistd::geteuid().as_raw()
    }

    /// Whether it is root's.
    pub fn is_roots(self) -> bool {
        self.uid == 0
    }

    /// Its name, for messages.
    pub fn name(self) -> String {
        user_name(self.uid)
    }

    /// Works under it from now on, in this thread, until the guard is dropped; then again as before. Guards may be
    /// nested, and must be dropped in the opposite order, as guards in nested blocks are.
    ///
    /// # Errors
    /// [`Problem::Denied`] where this process cannot take it, or would keep root's rights with it.
    pub fn enter(self) -> Result<Entered, FsError> {
        let stay = Entered { before: None, here: PhantomData };
        if !nix::unistd::geteuid().is_root() {
            return Ok(stay);
        }
        let before = Self::of_thread();
        if before == self {
            return Ok(stay);
        }
        if self.uid != 0 {
            self.drop_other_groups()?;
        }
        // From here on whatever goes wrong is undone by the guard.
        let entered = Entered { before: Some(before), here: PhantomData };
        if !self.take() {
            return Err(self.refused("the kernel does not allow it"));
        }
        if self.uid != 0 {
            let rights =
                rustix::thread::capabilities(None).map_err(|e| self.refused(&format!("cannot ask for capabilities: {e}")))?;
            if rights.effective.intersects(ROOTS_OWN) {
                return Err(self.refused("root's rights would not be given up with it (securebits)"));
            }
        }
        Ok(entered)
    }

    fn of_thread() -> Self {
        Self { uid: thread_user(), gid: thread_group() }
    }

    /// Says whether it succeeded: the kernel does not.
    fn take(self) -> bool {
        nix::unistd::setfsgid(Gid::from_raw(self.gid));
        nix::unistd::setfsuid(Uid::from_raw(self.uid));
        process::close_memory_again();
        Self::of_thread() == self
    }

    /// The other groups of this process would give rights that the user may not have. They go for good, for every
    /// thread: root needs none of them.
    fn drop_other_groups(self) -> Result<(), FsError> {
        static DROPPED: Mutex<bool> = Mutex::new(false);
        let mut dropped = DROPPED.lock().unwrap_or_else(PoisonError::into_inner);
        if !*dropped {
            let has_others = nix::unistd::getgroups().map_or(true, |groups| !groups.is_empty());
            if has_others {
                nix::unistd::setgroups(&[]).map_err(|e| self.refused(&format!("cannot give up other groups: {e}")))?;
            }
            *dropped = true;
        }
        Ok(())
    }

    fn refused(self, why: &str) -> FsError {
        let name = self.name();
        let hint = format!("run the command as user {name} instead, such as with 'runuser -u {name} -- walvis …'");
        FsError::because(Problem::Denied, "act as user", PathBuf::from(name), why).with_hint(hint)
    }
}

/// A thread works under another identity until this is dropped.
#[derive(Debug)]
#[must_use = "the identity is left when this is dropped"]
pub struct Entered {
    before: Option<Identity>,
    /// Of one thread.
    here: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let Some(before) = self.before else { return };
        // The kernel refuses only when it has no memory for a moment.
        for _ in 0..IDENTITY_ATTEMPTS {
            if before.take() {
                return;
            }
            std::thread::sleep(IDENTITY_PAUSE);
        }
        // Whatever came next would be done as somebody else.
        tracing::error!("cannot go back to user {} from {}", before.name(), Identity::current().name());
        std::process::abort();
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn nobody() -> Option<Identity> {
        if !nix::unistd::geteuid().is_root() {
            return None;
        }
        Some(Identity { uid: 65_534, gid: 65_534 })
    }

    #[test]
    fn under_an_identity_a_thread_has_the_rights_of_that_user_and_no_other() {
        let Some(nobody) = nobody() else { return };
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("roots"), "secret").unwrap();
        std::os::unix::fs::chown(place.path(), Some(65_534), Some(65_534)).unwrap();
        std::os::unix::fs::chown(place.path().join("roots"), Some(0), Some(0)).unwrap();
        std::fs::set_permissions(place.path().join("roots"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let own = Identity::own();
        {
            let _as = nobody.enter().unwrap();
            assert_eq!(Identity::current(), nobody);
            assert!(std::fs::read(place.path().join("roots")).is_err());
            assert!(std::os::unix::fs::chown(place.path(), Some(0), Some(0)).is_err());
            std::fs::write(place.path().join("file"), "").unwrap();
            let made = std::fs::metadata(place.path().join("file")).unwrap();
            assert_eq!((made.uid(), made.gid()), (65_534, 65_534));
            // Another thread that was there already is not touched by it; root's own work may be nested.
            {
                let _root = own.enter().unwrap();
                assert_eq!(std::fs::read(place.path().join("roots")).unwrap(), b"secret");
                let _again = nobody.enter().unwrap();
                assert!(std::fs::read(place.path().join("roots")).is_err());
            }
            assert_eq!(Identity::current(), nobody);
            assert!(std::fs::read(place.path().join("roots")).is_err());
        }
        assert_eq!(Identity::current(), own);
        assert_eq!(std::fs::read(place.path().join("roots")).unwrap(), b"secret");
        assert!(nix::unistd::getgroups().unwrap().is_empty());
    }

    #[test]
    fn other_threads_stay_what_they_are_and_a_panic_leaves_the_identity() {
        let Some(nobody) = nobody() else { return };
        let own = Identity::own();
        let (entered, wait) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _as = nobody.enter().unwrap();
                entered.wait();
                wait.wait();
            });
            entered.wait();
            assert_eq!(Identity::current(), own);
            wait.wait();
        });
        let panicked = std::panic::catch_unwind(|| {
            let _as = nobody.enter().unwrap();
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(panicked.is_err());
        assert_eq!(Identity::current(), own);
    }

    #[test]
    fn nobody_gets_roots_group() {
        if nobody().is_none() {
            return;
        }
        assert_eq!(Identity::of_user(4_000_000_000, 0), Identity { uid: 4_000_000_000, gid: NO_GROUP });
        assert_eq!(Identity::of_user(4_000_000_000, 7), Identity { uid: 4_000_000_000, gid: 7 });
        assert_eq!(Identity::of_user(65_534, 0).gid, 65_534);
        assert!(Identity::of_user(0, 7).is_own());
    }
}
