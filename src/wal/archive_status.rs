//! `pg_wal/archive_status`: what the server says of its files.

use crate::fsio::{self, FsError};
use crate::pg::WalFileName;
use std::path::Path;

/// The files that wait to be archived, in the order in which the server offers them: histories first, then by name.
///
/// # Errors
/// When the directory cannot be read.
pub fn waiting_files(wal_directory: &Path) -> Result<Vec<WalFileName>, FsError> {
    let names = fsio::list_dir(&wal_directory.join("archive_status"))?;
    let files = names.iter().filter_map(|name| WalFileName::parse(name.to_str()?.strip_suffix(".ready")?));
    let (mut histories, others): (Vec<_>, Vec<_>) = files.partition(|file| matches!(file, WalFileName::History(_)));
    histories.extend(others);
    Ok(histories)
}

/// Whether the server neither offered a file to its archiver nor is about to. Without `archive_status` the directory is
/// no `pg_wal`, and nothing can be said.
pub fn is_never_offered(wal_directory: &Path, file: &WalFileName) -> bool {
    let status = wal_directory.join("archive_status");
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
}
