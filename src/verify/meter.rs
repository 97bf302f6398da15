//! How much a verification has read, and how fast it may read. All its threads share one.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::threads::Stop;
use crate::throttle::Throttle;

/// How much was read, and how fast it may be.
pub(super) struct Meter {
    bytes: AtomicU64,
    again: AtomicU64,
    throttle: Option<Throttle>,
}

impl Meter {
    pub(super) fn new(max_bytes_per_s: Option<u64>) -> Self {
        Self { bytes: AtomicU64::new(0), again: AtomicU64::new(0), throttle: Throttle::new(max_bytes_per_s) }
    }

    /// Stored bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many of them were read besides: what manifests and tables say is needed before packs are read, and their own
    /// bytes are read once more for themselves.
    pub(super) fn again(&self) -> u64 {
        self.again.load(Ordering::Relaxed)
    }

    /// The same for what is read besides.
    pub(super) fn take_again(&self, bytes: usize, stop: &Stop) {
        self.again.fetch_add(bytes as u64, Ordering::Relaxed);
        self.take(bytes, stop);
    }

    /// Counts stored bytes, and waits until so many may be read, or `stop` is set.
    pub(super) fn take(&self, bytes: usize, stop: &Stop) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if let Some(throttle) = &self.throttle {
            throttle.take(bytes, &|| stop.is_set());
        }
    }
}
