//! The call's side of pushing ahead: a file that the helper has stored, or is about to, and the start of a helper.

use crate::config::{Config, RepositoryConfig};
use crate::deadline::Deadline;
use crate::pg::WalFileName;
use crate::report::push::{PushOutcome, PushReport};
use crate::wal::archive_status::waiting_files;
use crate::wal::spool::{HelperKind, Pushed, Spool, start_helper};
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The report of a file that a helper stored; one that works on it is waited for. `None`: the call has to push it.
pub fn report_if_pushed(
    config: &Config,
    spool: &Spool,
    name: &WalFileName,
    path: &Path,
    deadline: Deadline,
) -> Option<Vec<PushReport>> {
    let look = || spool.pushed(name, path);
    let pushed = look().or_else(|| spool.wait(HelperKind::Push, name, deadline, look))?;
    Some(report(config, name, &pushed))
}

/// Reports what a helper did for this call, and logs what it could not.
pub fn report(config: &Config, name: &WalFileName, pushed: &Pushed) -> Vec<PushReport> {
    for failure in &pushed.failures {
        tracing::error!("{failure}");
    }
    for note in &pushed.notes {
        tracing::warn!("{note}");
    }
    let report = |repository: &RepositoryConfig| {
        let location = repository.store.location();
        let failed =
            repository.optional && pushed.failures.iter().any(|failure| failure.contains(&format!(" {location} did not get ")));
        let outcome = if failed { PushOutcome::Failed } else { PushOutcome::AlreadyStored };
        PushReport { file: name.to_string(), repository: location, outcome, bytes: pushed.bytes, stored_as: None }
    };
    config.repositories.iter().map(report).collect()
}

/// The start of a push helper by a call, once the call knows that a repository can be reached: earlier, the helper
/// would only meet the same obstacle.
pub struct PushHelperStart {
    spool: Arc<Spool>,
    file: WalFileName,
    arguments: Vec<OsString>,
    is_done: AtomicBool,
}

impl PushHelperStart {
    /// For the call that pushes `file`; `arguments` are those of the helper.
    pub fn new(spool: Arc<Spool>, file: WalFileName, arguments: Vec<OsString>) -> Self {
        Self { spool, file, arguments, is_done: AtomicBool::new(false) }
    }

    /// Starts a helper where the archiver asks for this file and others wait too. Only the first call of this has an
    /// effect.
    pub fn start(&self) {
        if self.is_done.swap(true, Ordering::Relaxed) {
            return;
        }
        let waiting = waiting_files(self.spool.wal_directory()).unwrap_or_default();
        if waiting.len() < 2 || !waiting.contains(&self.file) {
            return;
        }
        match self.spool.create() {
            Ok(()) if self.spool.has_helper(HelperKind::Push) => {}
            Ok(()) => start_helper(&self.arguments),
            Err(error) => tracing::debug!(%error, "no spool, so nothing is pushed ahead"),
        }
    }
}
