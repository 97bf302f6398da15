//! Marks of what optional repositories missed: `missed/<repository>/<file>`. Unlike everything else in the spool they
//! are durable, and boot and settings do not matter for them.

use super::directory::Spool;
use super::record::{Record, name_of};
use crate::fsio::{self, AtomicFile, Durability, FsError};
use crate::limits::OUTAGE_PAUSE;
use crate::pg::WalFileName;
use std::path::PathBuf;

impl Spool {
    fn missed_directory(&self, location: &str) -> PathBuf {
        self.path("missed").join(name_of(location))
    }

    /// Remembers durably that an optional repository did not get a file: nothing else says so, except a comparison.
    fn mark_missed(&self, location: &str, file: &WalFileName) -> Result<(), FsError> {
        let directory = self.missed_directory(location);
        fsio::make_own_dir(&self.path("missed"))?;
        fsio::make_own_dir(&directory)?;
        let mut record = AtomicFile::beside(&directory.join(file.to_string()), 0o600)?;
        record.append(format!("{location}\n").as_bytes())?;
        record.publish_over(Durability::Durable)
    }

    /// Removes the mark: the repository has the file now.
    pub fn forget_missed(&self, location: &str, file: &WalFileName) {
        self.remove(&self.missed_directory(location).join(file.to_string()));
    }

    /// What an optional repository did not get, by name.
    pub fn missed(&self, location: &str) -> Vec<WalFileName> {
        let names = fsio::list_dir(&self.missed_directory(location)).unwrap_or_default();
        names.iter().filter_map(|name| WalFileName::parse(name.to_str()?)).collect()
    }

    fn missed_pause(&self, location: &str) -> PathBuf {
        self.path(&format!("missed-pause.{}", name_of(location)))
    }

    /// Remembers that files could not be sent which the repository itself did not stand in the way of: every call would
    /// start another try.
    pub fn pause_missed(&self, location: &str) {
        let mut record = Record::default();
        record.add("location", location);
        if let Err(error) = self.write(&self.missed_pause(location), record) {
            tracing::debug!(%error, "the pause is not remembered");
        }
    }

    /// Whether that was a short while ago.
    pub fn is_missed_paused(&self, location: &str) -> bool {
        self.read(&self.missed_pause(location), OUTAGE_PAUSE).is_some()
    }
}

/// Marks what an optional repository missed, and returns the line for the log.
pub fn note_missed(spool: Option<&Spool>, location: &str, files: &[WalFileName], why: &str) -> String {
    let names = files.iter().map(WalFileName::to_string).collect::<Vec<_>>().join(" ");
    let failed = format!("optional repository {location} did not get {names}: {why}");
    let Some(spool) = spool else {
        return format!("{failed}; there is no spool to remember that in: 'walvis push-wal --missed' sends it");
    };
    match files.iter().try_for_each(|file| spool.mark_missed(location, file)) {
        Ok(()) => format!("{failed}; it will be sent later, with {} in all", spool.missed(location).len()),
        Err(error) => format!("{failed}; and that cannot be remembered: {error}: 'walvis push-wal --missed' sends it"),
    }
}
