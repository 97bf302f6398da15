//! The end of a server's log, which tells more than any exit code.

use crate::fsio;
use crate::limits::{LOG_TAIL_LINES, MAX_LOG_TAIL_BYTES, MAX_LOGFILE_LIST_BYTES};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The last lines that a server wrote: to the file it was started with, and to that of its logging collector, where it
/// has one.
pub(super) fn tail(data_directory: &Path, log: &Path) -> String {
    let mut text = tail_of(log);
    // With the logging collector the rest is elsewhere.
    if let Ok(names) = fsio::read_bounded(&data_directory.join("current_logfiles"), MAX_LOGFILE_LIST_BYTES) {
        let mut lines = names.split(|byte| *byte == b'\n');
        if let Some(path) = lines.find_map(|line| line.strip_prefix(b"stderr ")) {
            text.push_str(&tail_of(&data_directory.join(OsStr::from_bytes(path))));
        }
    }
    if text.is_empty() { text } else { format!("the end of its log:\n{}", text.trim_end()) }
}

fn tail_of(path: &Path) -> String {
    let Ok((file, stat)) = fsio::open_regular(path) else { return String::new() };
    let len = stat.size_bytes.min(MAX_LOG_TAIL_BYTES);
    let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
    if std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, stat.size_bytes - len).is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(LOG_TAIL_LINES)).fold(String::new(), |out, line| out + "    " + line + "\n")
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_short() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        assert_eq!(tail_of(&path), "");
        let text: String = (0..10_000).map(|i| format!("line {i}\n")).collect();
        std::fs::write(&path, text).unwrap();
        let tail = tail_of(&path);
        assert_eq!(tail.lines().count(), LOG_TAIL_LINES);
        assert!(tail.ends_with("    line 9999\n"));
    }
    #[test]
    fn what_the_logging_collector_has_comes_last() {
        let place = tempfile::tempdir().unwrap();
        let first = place.path().join("first");
        assert_eq!(tail(place.path(), &first), "");
        std::fs::write(&first, "started\n").unwrap();
        std::fs::create_dir(place.path().join("log")).unwrap();
        std::fs::write(place.path().join("log/one"), "collected\n").unwrap();
        std::fs::write(place.path().join("current_logfiles"), "csvlog log/other\nstderr log/one\n").unwrap();
        assert_eq!(tail(place.path(), &first), "the end of its log:\n    started\n    collected");
    }
}
