//! Locks and plans of helpers: which helper runs, what it works on, and how a call waits for it.

use super::directory::Spool;
use super::record::Record;
use crate::deadline::Deadline;
use crate::fsio::{self, FsError, Lock};
use crate::limits::{HEARTBEAT, HEARTBEAT_LOST, LOOKS_PER_PLAN, PLANNED_FILE_LOOK_EVERY};
use crate::pg::WalFileName;
use std::path::PathBuf;
use std::time::Instant;

/// The kinds of helpers; of each kind one runs at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HelperKind {
    /// Pushes what waits to be archived.
    Push,
    /// Downloads what recovery will ask for.
    Fetch,
    /// Sends what optional repositories missed.
    Missed,
}

impl HelperKind {
    fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Fetch => "fetch",
            Self::Missed => "missed",
        }
    }
}

impl Spool {
    fn lock_path(&self, helper: HelperKind) -> PathBuf {
        self.path(&format!("{}.lock", helper.name()))
    }

    fn plan_path(&self, helper: HelperKind) -> PathBuf {
        self.path(&format!("{}.plan", helper.name()))
    }

    /// Becomes the one helper of this kind; `None` where another one runs. The plan of an earlier one is removed.
    pub fn lock(&self, helper: HelperKind) -> Option<Lock> {
        let held = fsio::lock(&self.lock_path(helper)).ok().flatten()?;
        self.remove(&self.plan_path(helper));
        Some(held)
    }

    /// Says what a helper works on, and that it is alive.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_plan(&self, helper: HelperKind, files: &[WalFileName]) -> Result<(), FsError> {
        let mut record = Record::default();
        for file in files {
            record.add("file", file);
        }
        self.write(&self.plan_path(helper), record)
    }

    /// Says why a helper ended, for calls that log it.
    pub fn end_plan(&self, helper: HelperKind, why: &str) {
        let mut record = Record::default();
        record.add("ended", why);
        if let Err(error) = self.write(&self.plan_path(helper), record) {
            tracing::debug!(%error, "cannot write the plan");
        }
    }

    /// Whether a helper runs that works on this file.
    pub fn is_planned(&self, helper: HelperKind, file: &WalFileName) -> bool {
        let Some(plan) = self.read(&self.plan_path(helper), HEARTBEAT_LOST) else { return false };
        if let Some(why) = plan.get("ended") {
            tracing::debug!("working ahead ended: {why}");
        }
        let file = file.to_string();
        plan.all("file").any(|planned| planned == file) && self.has_helper(helper)
    }

    /// Whether a helper of this kind runs.
    pub fn has_helper(&self, helper: HelperKind) -> bool {
        fsio::is_locked(&self.lock_path(helper))
    }

    /// Waits until `look` finds what a helper leaves, for as long as one runs that works on this file, at most half of
    /// the time that is left: the other half is for doing it without.
    pub fn wait<T>(&self, helper: HelperKind, file: &WalFileName, deadline: Deadline, look: impl Fn() -> Option<T>) -> Option<T> {
        let until = deadline.at_most(deadline.remaining() / 2);
        while !until.is_over() {
            if !self.is_planned(helper, file) {
                break;
            }
            for _ in 0..LOOKS_PER_PLAN {
                if let Some(found) = look() {
                    return Some(found);
                }
                std::thread::sleep(PLANNED_FILE_LOOK_EVERY);
            }
        }
        // It may have been left between the last look and the end of the plan.
        look()
    }
}

/// Writes a helper's plan when it changed, and again every second, which says that the helper is alive.
pub struct PlanWriter<'a> {
    spool: &'a Spool,
    helper: HelperKind,
    written: Option<(Instant, Vec<WalFileName>)>,
}

impl<'a> PlanWriter<'a> {
    /// Nothing is written yet.
    pub fn new(spool: &'a Spool, helper: HelperKind) -> Self {
        Self { spool, helper, written: None }
    }

    /// Writes these files into the plan, unless they are what was written less than a second ago. An error is logged:
    /// calls then do without the helper.
    pub fn update(&mut self, files: Vec<WalFileName>) {
        if !is_due(self.written.as_ref(), &files) {
            return;
        }
        if let Err(error) = self.spool.write_plan(self.helper, &files) {
            tracing::debug!(%error, "cannot write the plan");
        }
        self.written = Some((Instant::now(), files));
    }
}

/// Whether a plan has to be written: it changed, or calls would soon take the helper for dead.
fn is_due(written: Option<&(Instant, Vec<WalFileName>)>, files: &[WalFileName]) -> bool {
    written.is_none_or(|(at, before)| before != files || at.elapsed() >= HEARTBEAT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_written_when_it_changes_and_every_second() {
        let file = WalFileName::parse("000000010000000000000001").unwrap();
        let now = |files: &[WalFileName]| (Instant::now(), files.to_vec());
        assert!(is_due(None, &[]), "even one without files says that the helper is alive");
        assert!(!is_due(Some(&now(&[file])), &[file]));
        assert!(is_due(Some(&now(&[file])), &[]) && is_due(Some(&now(&[])), &[file]));
        let before = Instant::now().checked_sub(HEARTBEAT).unwrap();
        assert!(is_due(Some(&(before, vec![file])), &[file]));
    }
}
