//! The moment by which a command has to have answered.
//!
//! One value per process, handed down to whatever waits. A watchdog in `cli` ends the process shortly after it, should a system
//! call hang; everything below tries to fail with a good message before that.

use std::time::{Duration, Instant};

/// A moment, and the limit it was made from (for messages).
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: Instant,
    limit: Duration,
}

impl Deadline {
    /// The moment `limit` from now.
    pub fn after(limit: Duration) -> Self {
        Self { at: Instant::now() + limit, limit }
    }

    /// This moment, or the one `limit` from now if that is earlier.
    #[must_use]
    pub fn at_most(&self, limit: Duration) -> Self {
        if self.remaining() <= limit { *self } else { Self::after(limit) }
    }

    /// What is left; zero when it has passed.
    pub fn remaining(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    pub fn is_over(&self) -> bool {
        self.remaining().is_zero()
    }

    /// The time limit it was made from.
    pub fn limit(&self) -> Duration {
        self.limit
    }
}
