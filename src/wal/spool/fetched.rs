//! Segments that the fetch helper downloaded: `fetched/<segment>` and its record `fetched/<segment>.ok`; and
//! `fetch.asked`, the segment that recovery was given last.

use super::directory::Spool;
use super::plan::Held;
use super::record::{Record, state_of};
use crate::fsio::{self, FsError, ItemKind, Stat};
use crate::limits::SPOOL_TIME;
use crate::pg::WalFileName;
use crate::repo::SystemId;
use std::path::PathBuf;

/// A segment in the spool.
#[derive(Debug)]
pub struct FetchedFile {
    /// Its state after it was authenticated and got its name.
    pub stat: Stat,
    /// The system identifier of its cluster.
    pub system_id: SystemId,
    /// Hash of the whole content.
    pub blake3: [u8; 32],
    /// URL of the repository that it came from.
    pub repository: String,
}

impl Spool {
    /// The name of the note of what was asked for.
    pub const ASKED: &str = "fetch.asked";

    /// Puts on record that a segment that was authenticated as a whole lies in `fetched`, in this state.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record_fetched(&self, held: &Held, file: &WalFileName, fetched: &FetchedFile) -> Result<(), FsError> {
        let mut record = Record::default();
        record.add("file", file);
        record.add("identity", state_of(&fetched.stat));
        record.add("system", fetched.system_id);
        record.add("hash", hex::encode(fetched.blake3));
        record.add("from", &fetched.repository);
        self.write_held(held, &self.record_of_fetched(file), record)
    }

    /// A segment in `fetched` that is in the very state in which it was authenticated.
    pub fn fetched(&self, file: &WalFileName, system_id: SystemId) -> Option<FetchedFile> {
        self.id()?;
        let record = self.read(&self.record_of_fetched(file), SPOOL_TIME)?;
        let stat = fsio::stat_no_follow(&self.fetched_path(file)).ok().flatten().filter(|stat| stat.kind == ItemKind::File)?;
        let same = record.get("file")? == file.to_string()
            && record.get("identity")? == state_of(&stat)
            && record.get("system")? == system_id.to_string();
        let blake3 = hex::decode(record.get("hash")?).ok()?.try_into().ok()?;
        same.then(|| FetchedFile { stat, system_id, blake3, repository: record.get("from").unwrap_or_default().to_owned() })
    }

    /// Where a fetched segment lies.
    pub fn fetched_path(&self, file: &WalFileName) -> PathBuf {
        self.path("fetched").join(file.to_string())
    }

    fn record_of_fetched(&self, file: &WalFileName) -> PathBuf {
        self.path("fetched").join(format!("{file}.ok"))
    }

    /// What is left of a segment that was served: nothing, or a copy. It is renamed before it is removed, which tells
    /// the helper that it was served: what is only removed was not.
    pub fn end_served(&self, file: &WalFileName) {
        let served = self.path("fetched").join(format!("{file}.served"));
        let is_copy = fsio::rename_over(&self.fetched_path(file), &served).is_ok();
        self.remove(&self.record_of_fetched(file));
        if is_copy {
            self.remove(&served);
        }
    }

    /// Removes a fetched segment, and its record first.
    pub fn forget_fetched(&self, file: &WalFileName) {
        self.remove(&self.record_of_fetched(file));
        self.remove(&self.fetched_path(file));
    }

    /// Removes everything from `fetched` that is not wanted. Only for the fetch helper, or where there is none.
    pub fn sweep_fetched(&self, is_wanted: &dyn Fn(&WalFileName) -> bool) {
        for name in fsio::list_dir(&self.path("fetched")).unwrap_or_default() {
            let file = name.to_str().and_then(|name| WalFileName::parse(name.strip_suffix(".ok").unwrap_or(name)));
            if !file.is_some_and(|file| is_wanted(&file)) {
                self.remove(&self.path("fetched").join(name));
            }
        }
    }

    /// Notes which segment recovery was given last, for the helper to follow.
    pub fn note_asked(&self, file: &WalFileName) {
        let mut record = Record::default();
        record.add("file", file);
        if let Err(error) = self.write(&self.path(Self::ASKED), record) {
            tracing::debug!(%error, "cannot say what was asked for");
        }
    }

    /// The segment that was noted last, and when, in milliseconds of the boot's clock.
    pub fn last_asked(&self) -> Option<(WalFileName, u64)> {
        let note = self.read(&self.path(Self::ASKED), SPOOL_TIME)?;
        Some((WalFileName::parse(note.get("file")?)?, note.get("at")?.parse().ok()?))
    }
}
