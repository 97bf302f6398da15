//! `pg_wal/archive_status`: what the server says of its files.

use crate::fsio::{self, Became, Change, FsError, Stat};
use crate::pg::{SegmentName, WalFileName};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The directory in which the server marks its files.
pub fn status_directory(wal_directory: &Path) -> PathBuf {
    wal_directory.join("archive_status")
}

/// The files that wait to be archived, in the order in which the server offers them: histories first, then by name.
///
/// # Errors
/// When the directory cannot be read.
pub fn waiting_files(wal_directory: &Path) -> Result<Vec<WalFileName>, FsError> {
    Ok(WaitingFiles::listed(wal_directory)?.files().collect())
}

/// The files that wait to be archived, kept up to date by what is told of the directory: there may be a hundred
/// thousand of them.
#[derive(Debug)]
pub struct WaitingFiles {
    directory: PathBuf,
    files: BTreeMap<Place, WalFileName>,
    /// The state of the directory before what is known of it was found out.
    as_of: Option<Stat>,
    listings: u64,
}

/// Where a file stands in the server's order: whether it is no history, and its name.
type Place = (bool, String);

fn place_of(file: &WalFileName) -> Place {
    (!matches!(file, WalFileName::History(_)), file.to_string())
}

fn ready_file(name: &OsStr) -> Option<WalFileName> {
    WalFileName::parse(name.to_str()?.strip_suffix(".ready")?)
}

impl WaitingFiles {
    /// Those that wait now.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn listed(wal_directory: &Path) -> Result<Self, FsError> {
        let directory = status_directory(wal_directory);
        let mut listed = Self { directory, files: BTreeMap::new(), as_of: None, listings: 0 };
        listed.list()?;
        Ok(listed)
    }

    /// Reads the directory again.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn list(&mut self) -> Result<(), FsError> {
        let as_of = fsio::stat(&self.directory)?;
        let names = fsio::list_dir(&self.directory)?;
        self.files = names.iter().filter_map(|name| ready_file(name)).map(|file| (place_of(&file), file)).collect();
        (self.as_of, self.listings) = (as_of, self.listings + 1);
        Ok(())
    }

    /// Reads the directory again unless its times say that nothing changed in it. Says whether other files wait now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn list_if_changed(&mut self) -> Result<bool, FsError> {
        let now = fsio::stat(&self.directory)?;
        // A change in the same tick as the last one that was seen would not show.
        if now.is_some_and(|now| Some(now) == self.as_of && fsio::is_settled(&now)) {
            return Ok(false);
        }
        let before = std::mem::take(&mut self.files);
        self.list()?;
        Ok(before != self.files)
    }

    /// Takes in what came and went in the directory, in the order in which it did.
    pub fn follow<'a>(&mut self, changes: impl Iterator<Item = &'a Change>) {
        let mut is_told = false;
        for change in changes {
            is_told = true;
            let Some(file) = ready_file(&change.name) else { continue };
            match change.became {
                Became::There => self.files.insert(place_of(&file), file),
                Became::Renamed | Became::Removed => self.files.remove(&place_of(&file)),
            };
        }
        if is_told {
            // What is known is at least as new as what is told. A change that comes before this look at the directory
            // will be told, too.
            self.as_of = fsio::stat(&self.directory).ok().flatten();
        }
    }

    /// How many wait.
    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// How often the directory was read.
    pub fn listings(&self) -> u64 {
        self.listings
    }

    /// Whether this one waits.
    pub fn contains(&self, file: &WalFileName) -> bool {
        self.files.contains_key(&place_of(file))
    }

    /// In the server's order.
    pub fn files(&self) -> impl Iterator<Item = WalFileName> {
        self.files.values().copied()
    }

    /// The segments that wait of a segment's timeline, up to that one and without it.
    pub fn segments_before(&self, segment: SegmentName) -> impl Iterator<Item = WalFileName> {
        let first = (true, format!("{:08X}", segment.timeline.0));
        let before = self.files.range(first..(true, segment.to_string())).map(|(_, file)| *file);
        before.filter(|file| matches!(file, WalFileName::Segment(_)))
    }
}

/// Whether the server neither offered a file to its archiver nor is about to. Without `archive_status` the directory is
/// no `pg_wal`, and nothing can be said.
pub fn is_never_offered(wal_directory: &Path, file: &WalFileName) -> bool {
    let status = status_directory(wal_directory);
    let is_marked = |suffix: &str| fsio::exists(&status.join(format!("{file}.{suffix}"))).unwrap_or(true);
    !is_marked("done") && !is_marked("ready") && fsio::exists(&status).unwrap_or(false)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    #[test]
    fn histories_come_first_and_only_what_is_ready_counts() {
        let place = tempfile::tempdir().unwrap();
        assert!(waiting_files(place.path()).is_err(), "no archive_status");
        let segments = ["000000010000000000000003", "000000020000000000000003"].map(|name| WalFileName::parse(name).unwrap());
        assert!(!is_never_offered(place.path(), &segments[0]), "no archive_status");
        let status = place.path().join("archive_status");
        std::fs::create_dir(&status).unwrap();
        for name in [
            "000000020000000000000003.ready",
            "00000002.history.ready",
            "000000010000000000000003.ready",
            "000000010000000000000002.done",
            "notes.ready",
        ] {
            std::fs::write(status.join(name), "").unwrap();
        }
        let names: Vec<String> = waiting_files(place.path()).unwrap().iter().map(WalFileName::to_string).collect();
        assert_eq!(names, ["00000002.history", "000000010000000000000003", "000000020000000000000003"]);
        let never = |name: &str| is_never_offered(place.path(), &WalFileName::parse(name).unwrap());
        assert!(!never("000000010000000000000002") && !never("000000010000000000000003"));
        assert!(never("000000010000000000000001"));
    }

    fn wal_file(name: &str) -> WalFileName {
        WalFileName::parse(name).unwrap()
    }

    fn names(files: impl Iterator<Item = WalFileName>) -> Vec<String> {
        files.map(|file| file.to_string()).collect()
    }

    /// Whatever comes and goes is known without reading the directory again.
    #[test]
    fn what_is_told_is_taken_in_without_another_listing() {
        let place = tempfile::tempdir().unwrap();
        let status = status_directory(place.path());
        std::fs::create_dir(&status).unwrap();
        let at = |name: &str| status.join(name);
        let [one, two, three, five] = [1, 2, 3, 5].map(|n| format!("00000001000000000000000{n}"));
        for name in [&two, &five] {
            std::fs::write(at(&format!("{name}.ready")), "").unwrap();
        }
        let watch = fsio::Watch::on(&[(&status, fsio::Names::All)]).unwrap();
        // Between the watch and the listing: both say so.
        std::fs::write(at(&format!("{three}.ready")), "").unwrap();
        std::fs::rename(at(&format!("{two}.ready")), at(&format!("{two}.done"))).unwrap();
        let mut waiting = WaitingFiles::listed(place.path()).unwrap();
        let follow = |waiting: &mut WaitingFiles| {
            let changes = watch.wait(std::time::Duration::ZERO, |_| true);
            assert!(!changes.is_partial);
            waiting.follow(changes.names.iter());
            names(waiting.files())
        };
        assert_eq!(follow(&mut waiting), [three.as_str(), &five]);
        std::fs::write(at("00000002.history.ready"), "").unwrap();
        std::fs::write(at(&format!("{one}.ready")), "").unwrap();
        std::fs::remove_file(at(&format!("{five}.ready"))).unwrap();
        std::fs::write(at("nonsense.ready"), "").unwrap();
        // As after a crash: archived, and offered again.
        std::fs::rename(at(&format!("{two}.done")), at(&format!("{two}.ready"))).unwrap();
        assert_eq!(follow(&mut waiting), ["00000002.history", &one, &two, &three]);
        assert!(waiting.contains(&wal_file(&one)) && !waiting.contains(&wal_file(&five)) && waiting.count() == 4);
        assert_eq!(waiting.listings(), 1);
        // As long as nothing changes that was not told, a look at the directory reads nothing.
        std::thread::sleep(2 * crate::limits::FILE_TIME_STEP);
        for _ in 0..10 {
            assert!(!waiting.list_if_changed().unwrap());
        }
        assert_eq!(waiting.listings(), 1);
        std::fs::remove_file(at(&format!("{one}.ready"))).unwrap();
        assert!(waiting.list_if_changed().unwrap());
        assert_eq!((names(waiting.files()), waiting.listings()), (vec!["00000002.history".to_owned(), two, three], 2));
    }

    #[test]
    fn what_comes_before_a_segment_is_of_its_timeline() {
        let place = tempfile::tempdir().unwrap();
        let status = status_directory(place.path());
        std::fs::create_dir(&status).unwrap();
        let all = [
            "000000010000000000000001",
            "000000010000000000000003",
            "000000020000000000000002",
            "000000020000000000000003",
            "000000020000000000000003.partial",
            "000000020000000000000004",
            "00000002.history",
        ];
        for name in all {
            std::fs::write(status.join(format!("{name}.ready")), "").unwrap();
        }
        let waiting = WaitingFiles::listed(place.path()).unwrap();
        let before = |name: &str| names(waiting.segments_before(SegmentName::parse(name).unwrap()));
        assert_eq!(before("000000020000000000000004"), [all[2], all[3]]);
        assert_eq!(before("000000010000000000000003"), [all[0]]);
        assert!(before("000000020000000000000002").is_empty() && before("000000010000000000000001").is_empty());
    }
}
