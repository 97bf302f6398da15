//! How far a long command is: a line that is rewritten on a terminal, a log event now and then elsewhere.

use std::cell::Cell;
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use super::render::size;
use super::shield::say;
use crate::ops::base_backup::report::Progress;

/// Between two events where nobody watches.
const EVENTS: Duration = Duration::from_secs(10);

/// Shows progress.
pub(super) struct ProgressLine {
    is_terminal: bool,
    since: Instant,
    shown: Cell<Option<Instant>>,
}

impl ProgressLine {
    pub(super) fn new() -> Self {
        Self { is_terminal: stderr().is_terminal(), since: Instant::now(), shown: Cell::new(None) }
    }

    /// Shows it, if it is time to.
    pub(super) fn show(&self, state: Progress) {
        let text = self.describe(state);
        if self.is_terminal {
            self.shown.set(Some(Instant::now()));
            say(&format!("\r\x1b[K{text}"));
            return;
        }
        let last = self.shown.get().unwrap_or(self.since);
        if last.elapsed() >= EVENTS {
            self.shown.set(Some(Instant::now()));
            match state {
                Progress::Reading { done_bytes, total_bytes, files } => {
                    tracing::info!(done_bytes, total_bytes, files, "{text}");
                }
                Progress::Starting | Progress::WaitingForWal => tracing::info!("{text}"),
            }
        }
    }

    fn describe(&self, state: Progress) -> String {
        match state {
            Progress::Starting => "waiting for the server's checkpoint".to_owned(),
            Progress::WaitingForWal => "waiting for the last WAL to be archived".to_owned(),
            Progress::Reading { done_bytes, total_bytes, files } => {
                let percent = done_bytes.saturating_mul(100).checked_div(total_bytes).unwrap_or(100);
                let speed = done_bytes as f64 / self.since.elapsed().as_secs_f64().max(0.001);
                format!(
                    "{} of {} in {files} files, {}%, {}/s",
                    size(done_bytes),
                    size(total_bytes),
                    percent.min(100),
                    size(speed as u64)
                )
            }
        }
    }

    /// Removes the line.
    pub(super) fn clear(&self) {
        if self.is_terminal && self.shown.get().is_some() {
            say("\r\x1b[K");
        }
    }
}
