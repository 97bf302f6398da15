//! The moment by which a command has to have answered.
//!
//! One value per process, handed down to whatever waits. A watchdog in `cli` ends the process shortly after it, should
//! a system call hang; everything below tries to fail with a good message before that.

use std::time::{Duration, Instant};

use crate::limits::MAX_STALL;

/// A moment, and the limit it was made from (for messages); or, for commands that may run for days, only the limit.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: Option<Instant>,
    limit: Duration,
    is_patient: bool,
}

impl Deadline {
    /// The moment `limit` from now.
    pub fn after(limit: Duration) -> Self {
        Self { at: Some(Instant::now() + limit), limit, is_patient: false }
    }

    /// No moment: every single request, with its retries, and every wait may take so long, at most [`MAX_STALL`]. For
    /// commands whose time depends on the size of a database.
    pub fn each(limit: Duration) -> Self {
        Self { at: None, limit: limit.min(MAX_STALL), is_patient: true }
    }

    /// The same, for who would not call again: requests are tried until it is over, however often.
    #[must_use]
    pub fn patient(self) -> Self {
        Self { is_patient: true, ..self }
    }

    /// Whether requests are tried until it is over.
    pub fn is_patient(&self) -> bool {
        self.is_patient
    }

    /// Whether it is a limit of every single request rather than a moment.
    pub fn is_each(&self) -> bool {
        self.at.is_none()
    }

    /// This moment, or the one `limit` from now if that is earlier.
    #[must_use]
    pub fn at_most(&self, limit: Duration) -> Self {
        if self.remaining() <= limit { *self } else { Self { is_patient: self.is_patient, ..Self::after(limit) } }
    }

    /// What is left; zero when it has passed; the whole limit where it is one of every request.
    pub fn remaining(&self) -> Duration {
        self.at.map_or(self.limit, |at| at.saturating_duration_since(Instant::now()))
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
