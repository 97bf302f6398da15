//! What this process waits for at the moment: one register: code that waits writes into it, and the progress display
//! reads it.
//!
//! Lives here: [`on`], and [`longest`] for the line on a terminal (`cli/progress.rs`). Depends on nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

static WAITS: Mutex<Vec<Wait>> = Mutex::new(Vec::new());
static NEXT: AtomicU64 = AtomicU64::new(0);

struct Wait {
    number: u64,
    what: String,
    since: Instant,
}

/// A wait that goes on until this is dropped.
#[must_use]
#[derive(Debug)]
pub struct Waiting {
    number: u64,
}

/// Says what is being waited for: words that complete "waiting for …", with the way to hasten it if there is one.
pub fn on(what: impl Into<String>) -> Waiting {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let wait = Wait { number, what: what.into(), since: Instant::now() };
    WAITS.lock().unwrap_or_else(PoisonError::into_inner).push(wait);
    Waiting { number }
}

impl Waiting {
    /// Says it anew: what was found out meanwhile.
    pub fn is_for(&self, what: impl Into<String>) {
        let mut waits = WAITS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wait) = waits.iter_mut().find(|wait| wait.number == self.number) {
            wait.what = what.into();
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITS.lock().unwrap_or_else(PoisonError::into_inner).retain(|wait| wait.number != self.number);
    }
}

/// The innermost wait that has gone on for at least so long, and how long it has.
pub fn longest(at_least: Duration) -> Option<(String, Duration)> {
    let waits = WAITS.lock().unwrap_or_else(PoisonError::into_inner);
    let wait = waits.iter().rev().find(|wait| wait.since.elapsed() >= at_least)?;
    Some((wait.what.clone(), wait.since.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_wait_is_told_until_it_is_over() {
        let outer = on("a test's segment");
        let inner = on("a test's store");
        let mine = |text: &str| longest(Duration::ZERO).is_some_and(|(what, _)| what == text);
        // Other tests may wait, too.
        let eventually = |text: &str| {
            (0..1000).any(|_| {
                mine(text) || {
                    std::thread::sleep(Duration::from_millis(1));
                    false
                }
            })
        };
        assert!(eventually("a test's store"));
        drop(inner);
        outer.is_for("a test's other segment");
        assert!(eventually("a test's other segment"));
        assert!(longest(Duration::from_secs(3600)).is_none());
        drop(outer);
        assert!(!mine("a test's other segment"));
    }
}
