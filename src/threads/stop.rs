//! A flag that tells threads to stop. Depends on nothing.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether threads that work together are to stop. A job that takes long looks at it now and then.
#[derive(Debug, Default)]
pub struct Stop(AtomicBool);

impl Stop {
    /// Whether they are to stop.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Stops them.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Sets a flag when it goes away, whatever the reason.
pub(super) struct StopOnDrop<'a>(pub(super) &'a Stop);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.set();
    }
}
