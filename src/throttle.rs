//! A limit on how fast files are read, shared by all workers (`--max-rate`).

use crate::limits::{THROTTLE_BURST, THROTTLE_LOOK_EVERY};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The limit.
pub(crate) struct Throttle {
    bytes_per_second: f64,
    /// When everything that was granted so far will have been paid for.
    paid_at: Mutex<Instant>,
}

impl Throttle {
    /// `None` is no limit.
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Option<Self> {
        let bytes_per_second = bytes_per_second? as f64;
        Some(Self { bytes_per_second, paid_at: Mutex::new(Instant::now()) })
    }

    /// Waits until that many bytes may be read, or `stopped` says so.
    pub(crate) fn take(&self, bytes: usize, stopped: &dyn Fn() -> bool) {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        let due = {
            let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            *paid_at = (*paid_at).max(now.checked_sub(THROTTLE_BURST).unwrap_or(now)) + cost;
            *paid_at
        };
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() || stopped() {
                return;
            }
            std::thread::sleep(left.min(THROTTLE_LOOK_EVERY));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_workers_together_keep_the_limit() {
        let throttle = Throttle::new(Some(1_000_000)).unwrap();
        let since = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..5).for_each(|_| throttle.take(100_000, &|| false)));
            }
        });
        // A second's worth, less the burst.
        assert!(since.elapsed() >= Duration::from_millis(750), "{:?}", since.elapsed());
        let since = Instant::now();
        throttle.take(100_000_000, &|| true);
        assert!(since.elapsed() < Duration::from_secs(10));
        assert!(Throttle::new(None).is_none());
    }
}
