//! Locks and plans of helpers: which helper runs, what it works on, and how a call waits for it.

use super::directory::{Spool, SpoolId};
use super::record::Record;
use crate::deadline::Deadline;
use crate::fsio::{self, FsError, Lock, Problem};
use crate::limits::{HEARTBEAT, HEARTBEAT_LOST, LOOKS_PER_PLAN, PLANNED_FILE_LOOK_EVERY};
use crate::pg::WalFileName;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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

/// Held by the one helper of its kind, and proof that the spool is still there to be written to: whoever removes the
/// spool removes the file of this lock, too.
#[derive(Debug)]
pub struct Held {
    helper: HelperKind,
    lock: Lock,
    spool_id: SpoolId,
    given_up: AtomicBool,
}

impl Held {
    /// From now on nothing more is written: somebody takes the spool away.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }
}

impl Spool {
    /// What the lock of a helper is called.
    pub fn lock_name(helper: HelperKind) -> String {
        format!("{}.lock", helper.name())
    }

    fn lock_path(&self, helper: HelperKind) -> PathBuf {
        self.path(&Self::lock_name(helper))
    }

    fn plan_path(&self, helper: HelperKind) -> PathBuf {
        self.path(&format!("{}.plan", helper.name()))
    }

    /// Becomes the one helper of this kind; `None` where another one runs, or where there is no spool. The plan of an
    /// earlier one is removed.
    pub fn lock(&self, helper: HelperKind) -> Option<Held> {
        let spool_id = self.id()?;
        let lock = fsio::lock(&self.lock_path(helper)).ok().flatten()?;
        let held = Held { helper, lock, spool_id, given_up: AtomicBool::new(false) };
        if !self.is_held(&held) {
            return None;
        }
        self.remove(&self.plan_path(helper));
        Some(held)
    }

    /// Whether the helper may still write into the spool. Not once the spool, or the lock in it, was removed: whoever
    /// removes a directory does not expect new files in it.
    pub fn is_held(&self, held: &Held) -> bool {
        !held.given_up.load(Ordering::Relaxed)
            && self.id() == Some(held.spool_id)
            && held.lock.is_at(&self.lock_path(held.helper))
    }

    /// As [`is_held`](Self::is_held), for what is done only then.
    ///
    /// # Errors
    /// [`Problem::Absent`]: it may not.
    pub fn must_be_held(&self, held: &Held) -> Result<(), FsError> {
        let gone = || FsError::because(Problem::Absent, "write into", self.path(""), "the spool is being removed");
        if self.is_held(held) { Ok(()) } else { Err(gone()) }
    }

    /// Writes a record or plan of a helper.
    pub(super) fn write_held(&self, held: &Held, path: &Path, record: Record) -> Result<(), FsError> {
        self.must_be_held(held)?;
        self.write(path, record)
    }

    /// Says what a helper works on, and that it is alive.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_plan(&self, held: &Held, files: &[WalFileName]) -> Result<(), FsError> {
        let mut record = Record::default();
        for file in files {
            record.add("file", file);
        }
        self.write_held(held, &self.plan_path(held.helper), record)
    }

    /// Says why a helper ended, for calls that log it.
    pub fn end_plan(&self, held: &Held, why: &str) {
        let mut record = Record::default();
        record.add("ended", why);
        if let Err(error) = self.write_held(held, &self.plan_path(held.helper), record) {
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

/// Writes a helper's plan where calls would otherwise do what it does, or wait for what it does not, and again every
/// second, which says that the helper is alive.
pub struct PlanWriter<'a> {
    spool: &'a Spool,
    held: &'a Held,
    written: Option<(Instant, Vec<WalFileName>)>,
}

impl<'a> PlanWriter<'a> {
    /// Nothing is written yet.
    pub fn new(spool: &'a Spool, held: &'a Held) -> Self {
        Self { spool, held, written: None }
    }

    /// Writes these files into the plan, if that is due. What a call may ask for soon is added at once. What is done
    /// stays for a while, for a call looks for its record first; but not what has `failed`, or might have. An error is
    /// logged: calls then do without the helper.
    pub fn update(&mut self, files: Vec<WalFileName>, is_near: impl Fn(&WalFileName) -> bool, has_failed: bool) {
        if !is_due(self.written.as_ref(), &files, is_near, has_failed) {
            return;
        }
        if let Err(error) = self.spool.write_plan(self.held, &files) {
            tracing::debug!(%error, "cannot write the plan");
        }
        self.written = Some((Instant::now(), files));
    }

    /// When the plan has to be written again although nothing changed; `None` where nobody waits for what it names,
    /// because it names nothing.
    pub fn next_heartbeat(&self) -> Option<Duration> {
        let (at, _) = self.written.as_ref().filter(|(_, files)| !files.is_empty())?;
        Some(HEARTBEAT.saturating_sub(at.elapsed()))
    }
}

/// Whether a plan has to be written.
fn is_due(
    written: Option<&(Instant, Vec<WalFileName>)>,
    files: &[WalFileName],
    is_near: impl Fn(&WalFileName) -> bool,
    has_failed: bool,
) -> bool {
    let Some((at, before)) = written else { return true };
    // One that names nothing needs no heartbeat.
    let is_old = at.elapsed() >= HEARTBEAT && !(files.is_empty() && before.is_empty());
    let lacks_one = || files.iter().any(|file| is_near(file) && !before.contains(file));
    is_old || has_failed && before != files || lacks_one()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_written_when_a_call_might_miss_it_and_every_second() {
        let [one, two] = [1, 2].map(|n| WalFileName::parse(&format!("00000001000000000000000{n}")).unwrap());
        let (near, far) = (|_: &WalFileName| true, |_: &WalFileName| false);
        let now = |files: &[WalFileName]| (Instant::now(), files.to_vec());
        assert!(is_due(None, &[], near, false), "even one without files says that the helper is alive");
        assert!(!is_due(Some(&now(&[one])), &[one], near, false));
        // A call for it would do it itself, or is far away.
        assert!(is_due(Some(&now(&[one])), &[one, two], near, false));
        assert!(!is_due(Some(&now(&[one])), &[one, two], far, false));
        // What is done has a record; a call must not wait for what failed.
        assert!(!is_due(Some(&now(&[one, two])), &[two], near, false));
        assert!(is_due(Some(&now(&[one, two])), &[two], near, true));
        assert!(!is_due(Some(&now(&[one])), &[one], near, true));
        let before = |files: &[WalFileName]| (Instant::now().checked_sub(HEARTBEAT).unwrap(), files.to_vec());
        assert!(is_due(Some(&before(&[one])), &[one], far, false));
        assert!(is_due(Some(&before(&[one])), &[], far, false), "what is done goes at last");
        assert!(!is_due(Some(&before(&[])), &[], near, false), "nobody waits for a helper that works on nothing");
    }
}
