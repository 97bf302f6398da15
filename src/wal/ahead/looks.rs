//! When a helper looks for itself, and whether it may rely on being told what changes.
//!
//! Told of every change it looks only where something changed, and at everything once in a while, for what the kernel
//! tells nobody. A file system that tells nothing is found out by that, and from then on looked at often.

use crate::fsio::Changes;
use crate::limits::{HELPER_LOOKS_EVERY, UNTOLD_CHANGES, WATCHING_HELPER_LOOKS_EVERY};
use std::time::{Duration, Instant};

/// What a helper knows of its own looks.
#[derive(Debug)]
pub(super) struct Looks {
    is_told: bool,
    looked_at: Instant,
    untold: u32,
}

/// How thoroughly to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Only at what was told.
    AtChanges,
    /// At everything: something may have happened that was not told.
    AtAll,
    /// At everything, although all was told, or should have been.
    ToBeSure,
}

impl Looks {
    /// `is_watched`: whether there is somebody to tell of changes.
    pub(super) fn new(is_watched: bool) -> Self {
        Self { is_told: is_watched, looked_at: Instant::now(), untold: 0 }
    }

    /// Where to look now, given what was told.
    pub(super) fn next(&mut self, changes: &Changes) -> Look {
        let look = match (self.is_told, changes.is_partial) {
            (false, _) | (true, true) => Look::AtAll,
            (true, false) if self.looked_at.elapsed() >= WATCHING_HELPER_LOOKS_EVERY => Look::ToBeSure,
            (true, false) => Look::AtChanges,
        };
        if look != Look::AtChanges {
            self.looked_at = Instant::now();
        }
        look
    }

    /// A look to be sure found something, and nothing of it had been told.
    pub(super) fn found_untold(&mut self) {
        self.untold += 1;
        if self.untold == UNTOLD_CHANGES {
            tracing::debug!("the file system tells nothing of its changes: it is looked at often");
            self.is_told = false;
        }
    }

    /// Whether changes are told.
    pub(super) fn is_told(&self) -> bool {
        self.is_told
    }

    /// How long until the next look at everything.
    pub(super) fn pause(&self) -> Duration {
        if self.is_told { WATCHING_HELPER_LOOKS_EVERY.saturating_sub(self.looked_at.elapsed()) } else { HELPER_LOOKS_EVERY }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing_told() -> Changes {
        Changes::default()
    }

    #[test]
    fn who_is_told_looks_seldom_and_who_is_not_often() {
        let mut told = Looks::new(true);
        assert_eq!(told.next(&nothing_told()), Look::AtChanges);
        assert_eq!(told.next(&Changes::unknown()), Look::AtAll);
        assert!(told.pause() > HELPER_LOOKS_EVERY && told.pause() <= WATCHING_HELPER_LOOKS_EVERY);
        told.looked_at = Instant::now().checked_sub(WATCHING_HELPER_LOOKS_EVERY).unwrap();
        assert_eq!(told.pause(), Duration::ZERO);
        assert_eq!(told.next(&nothing_told()), Look::ToBeSure);
        assert_eq!(told.next(&nothing_told()), Look::AtChanges);
        let mut blind = Looks::new(false);
        assert_eq!((blind.next(&nothing_told()), blind.pause()), (Look::AtAll, HELPER_LOOKS_EVERY));
    }

    #[test]
    fn who_finds_what_was_not_told_trusts_no_longer() {
        let mut looks = Looks::new(true);
        // Once may be a change that is told in this moment.
        looks.found_untold();
        assert!(looks.is_told());
        looks.found_untold();
        assert_eq!((looks.is_told(), looks.next(&nothing_told()), looks.pause()), (false, Look::AtAll, HELPER_LOOKS_EVERY));
    }
}
