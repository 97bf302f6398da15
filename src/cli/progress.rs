//! How far a long command is, and what any command waits for: a line that is rewritten on a terminal, a log event now
//! and then elsewhere.

use super::render::units::size;
use super::stderr;
use crate::backup::progress::Progress;
use crate::limits::{PROGRESS_COLUMNS, PROGRESS_EVERY, PROGRESS_LOOK_EVERY, SHORT_WAIT};
use crate::raw_text::plain;
use crate::threads::background;
use crate::verify::Progress as Verifying;
use crate::waiting;
use std::cell::Cell;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Whether a line stands on the terminal that is to be removed before anything else is written.
static LINE: AtomicBool = AtomicBool::new(false);
/// What a command that draws lines by itself has drawn last.
static DRAWN: Mutex<Option<String>> = Mutex::new(None);

/// From now on says what is being waited for, whatever it is: on a terminal after two seconds, elsewhere every ten.
pub(super) fn tell_waits() {
    let is_terminal = io::stderr().is_terminal();
    let thread = background("waits", move || {
        let mut told = Instant::now();
        loop {
            std::thread::sleep(PROGRESS_LOOK_EVERY);
            let wait = waiting::longest(if is_terminal { SHORT_WAIT } else { PROGRESS_EVERY });
            let drawn = drawn().clone();
            match wait {
                Some(wait) if is_terminal => draw(&with_wait(drawn.unwrap_or_default(), &wait)),
                Some(wait) if told.elapsed() >= PROGRESS_EVERY => {
                    told = Instant::now();
                    tracing::info!("{}", describe_wait(&wait));
                }
                None if drawn.is_none() => erase(),
                Some(_) | None => {}
            }
        }
    });
    if let Err(e) = thread {
        tracing::debug!("waits are not shown: {}", e.what);
    }
}

fn describe_wait((what, since): &(String, Duration)) -> String {
    format!("waiting {} s for {what}", since.as_secs())
}

fn with_wait(drawn: String, wait: &(String, Duration)) -> String {
    if drawn.is_empty() { describe_wait(wait) } else { format!("{drawn}; {}", describe_wait(wait)) }
}

fn drawn() -> MutexGuard<'static, Option<String>> {
    DRAWN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn draw(text: &str) {
    let text: String = plain(text).chars().take(PROGRESS_COLUMNS).collect();
    LINE.store(true, Ordering::Relaxed);
    stderr::write(&format!("\r\x1b[K{text}"));
}

/// Removes the line, if there is one: before anything else is written.
pub(super) fn erase() {
    if LINE.swap(false, Ordering::Relaxed) {
        stderr::write("\r\x1b[K");
    }
}

/// Shows progress.
pub(super) struct ProgressLine {
    is_terminal: bool,
    since: Instant,
    shown: Cell<Option<Instant>>,
}

impl ProgressLine {
    pub(super) fn new() -> Self {
        *drawn() = Some(String::new());
        Self { is_terminal: io::stderr().is_terminal(), since: Instant::now(), shown: Cell::new(None) }
    }

    /// Shows it, if it is time to.
    pub(super) fn show(&self, state: Progress) {
        self.tell(self.describe(state), |text| match state {
            Progress::Reading { done_bytes, total_bytes, files } => {
                tracing::info!(done_bytes, total_bytes, files, "{text}");
            }
            // What is waited for is shown anyway.
            Progress::Starting | Progress::WaitingForWal => {}
        });
    }

    /// Shows how far a verification is, if it is time to.
    pub(super) fn show_verified(&self, state: Verifying) {
        let speed = |bytes: u64| size((bytes as f64 / self.since.elapsed().as_secs_f64().max(0.001)) as u64);
        let text = match state {
            Verifying::Listing { objects } => format!("listed {objects} objects"),
            Verifying::Reading { done_bytes, total_bytes: Some(total), objects } => {
                let percent = done_bytes.saturating_mul(100).checked_div(total).unwrap_or(100).min(100);
                let (done, total) = (size(done_bytes), size(total));
                format!("{done} of {total} in {objects} objects, {percent}%, {}/s", speed(done_bytes))
            }
            Verifying::Reading { done_bytes, total_bytes: None, objects } => {
                format!("{} in {objects} objects, {}/s", size(done_bytes), speed(done_bytes))
            }
        };
        self.tell(text, |text| tracing::info!("{text}"));
    }

    /// Draws a line on a terminal; elsewhere has it logged now and then.
    fn tell(&self, text: String, log: impl FnOnce(&str)) {
        if self.is_terminal {
            self.shown.set(Some(Instant::now()));
            *drawn() = Some(text.clone());
            match waiting::longest(SHORT_WAIT) {
                Some(wait) => draw(&with_wait(text, &wait)),
                None if text.is_empty() => {}
                None => draw(&text),
            }
            return;
        }
        let last = self.shown.get().unwrap_or(self.since);
        if last.elapsed() >= PROGRESS_EVERY {
            self.shown.set(Some(Instant::now()));
            log(&text);
        }
    }

    fn describe(&self, state: Progress) -> String {
        match state {
            Progress::Starting => String::new(),
            Progress::WaitingForWal => "all files are read".to_owned(),
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

    /// Shows how many objects were looked at, if it is time to.
    pub(super) fn show_objects(&self, objects: u64) {
        self.show_count(objects, format!("{objects} objects looked at"));
    }

    /// Shows how many objects were deleted, if it is time to.
    pub(super) fn show_deleted(&self, objects: u64) {
        self.show_count(objects, format!("{objects} objects deleted"));
    }

    fn show_count(&self, objects: u64, text: String) {
        let last = self.shown.get();
        if self.is_terminal {
            if last.is_some_and(|last| last.elapsed() < PROGRESS_LOOK_EVERY) {
                return;
            }
            self.shown.set(Some(Instant::now()));
            *drawn() = Some(text.clone());
            match waiting::longest(SHORT_WAIT) {
                Some(wait) => draw(&with_wait(text, &wait)),
                None => draw(&text),
            }
        } else if last.unwrap_or(self.since).elapsed() >= PROGRESS_EVERY {
            self.shown.set(Some(Instant::now()));
            tracing::info!(objects, "{text}");
        }
    }

    /// Removes the line.
    pub(super) fn clear(&self) {
        *drawn() = None;
        erase();
    }
}
