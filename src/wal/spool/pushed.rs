//! Records of files that the push helper stored: `pushed/<file>`.

use super::directory::Spool;
use super::record::{Record, state_of};
use crate::fsio::{self, FsError, ItemKind, Stat};
use crate::limits::{MAX_SPOOL_MESSAGE_CHARS, SPOOL_TIME};
use crate::pg::WalFileName;
use std::path::{Path, PathBuf};

/// What is on record of a file that is stored in every required repository.
#[derive(Debug)]
pub struct Pushed {
    /// Its length.
    pub bytes: u64,
    /// What went wrong with optional repositories.
    pub failures: Vec<String>,
    /// Warnings that the call for this file has to repeat.
    pub notes: Vec<String>,
}

impl Spool {
    /// Whether it is on record that this very file is stored in every required repository.
    pub fn pushed(&self, file: &WalFileName, path: &Path) -> Option<Pushed> {
        self.id()?;
        let record = self.read(&self.record_of_pushed(file), SPOOL_TIME)?;
        let stat = fsio::stat(path).ok().flatten().filter(|stat| stat.kind == ItemKind::File)?;
        let same = record.get("file")? == file.to_string() && record.get("identity")? == state_of(&stat);
        (same && record.get("descriptors")? == self.descriptors()?).then(|| {
            let all = |name| record.all(name).map(str::to_owned).collect();
            Pushed { bytes: stat.size_bytes, failures: all("failed"), notes: all("note") }
        })
    }

    /// As [`pushed`](Self::pushed), of a file that is [at hand](fsio::is_at_hand), as far as looking waits for nobody:
    /// not for the file server of a repository, above all. `None` also where that is not known.
    pub fn pushed_at_hand(&self, file: &WalFileName, path: &Path) -> Option<Pushed> {
        let is_at_hand = fsio::is_at_hand(&self.record_of_pushed(file)) && self.descriptors.iter().all(|d| fsio::is_at_hand(d));
        is_at_hand.then(|| self.pushed(file, path)).flatten()
    }

    fn record_of_pushed(&self, file: &WalFileName) -> PathBuf {
        self.path("pushed").join(file.to_string())
    }

    /// Puts on record that a file in this state is stored. `descriptors` must have been taken ([`Spool::descriptors`])
    /// before it was stored.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record_pushed(
        &self,
        file: &WalFileName,
        stat: &Stat,
        descriptors: &str,
        failures: &[String],
        notes: &[String],
    ) -> Result<(), FsError> {
        let mut record = Record::default();
        record.add("file", file);
        record.add("identity", state_of(stat));
        record.add("descriptors", descriptors);
        for failure in failures {
            record.add("failed", failure.chars().take(MAX_SPOOL_MESSAGE_CHARS).collect::<String>());
        }
        for note in notes {
            record.add("note", note);
        }
        self.write(&self.record_of_pushed(file), record)
    }

    /// Removes a record.
    pub fn forget_pushed(&self, file: &WalFileName) {
        self.remove(&self.record_of_pushed(file));
    }

    /// Removes the records of files that are not wanted any more.
    pub fn sweep_pushed(&self, is_wanted: &dyn Fn(&str) -> bool) {
        for name in fsio::list_dir(&self.path("pushed")).unwrap_or_default() {
            if !name.to_str().is_some_and(is_wanted) {
                self.remove(&self.path("pushed").join(name));
            }
        }
    }
}
