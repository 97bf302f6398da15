//! How often what follows a path begins anew while directories on it are made, moved and removed.
//!
//! A system call that removes a directory is not one instant: between marking it dead and taking its name away the
//! thread may lose the processor, and whoever comes meanwhile finds the name, and cannot do anything in what it names.
//! So the first attempts follow each other at once, and the others leave that thread time.

use crate::limits::{PATH_ATTEMPTS, PATH_ATTEMPTS_AT_ONCE, PATH_PAUSE};

/// The attempts, one after the other. Each but the first few begins after a pause.
pub(super) fn attempts() -> impl Iterator<Item = ()> {
    (0..PATH_ATTEMPTS).map(|before| {
        if before >= PATH_ATTEMPTS_AT_ONCE {
            std::thread::sleep(PATH_PAUSE);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    #[test]
    fn somebody_who_loses_the_processor_halfway_is_waited_for() {
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(300));
                is_done.store(true, Ordering::Relaxed);
            });
            assert!(attempts().any(|()| is_done.load(Ordering::Relaxed)), "all attempts were over before that");
        });
    }
}
