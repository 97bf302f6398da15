//! A tree that nobody may touch: what it is before and after something is compared, down to inodes and times.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A tree, and what it was.
pub(crate) struct Canary {
    root: PathBuf,
    with_names: bool,
    was: BTreeMap<PathBuf, String>,
}

impl Canary {
    /// As it is now.
    pub(crate) fn of(root: &Path) -> Self {
        Self { root: root.to_owned(), with_names: true, was: manifest(root, true) }
    }

    /// As it is now, but for how many names files have and when that changed: others give names to what they may write
    /// to.
    pub(crate) fn but_for_names(root: &Path) -> Self {
        Self { root: root.to_owned(), with_names: false, was: manifest(root, false) }
    }

    /// Nothing in it has changed since: no inode, owner, mode, time, second name or byte.
    #[track_caller]
    pub(crate) fn is_unchanged(&self, after: &str) {
        let is = manifest(&self.root, self.with_names);
        let mut differences = Vec::new();
        for path in self.was.keys().chain(is.keys()) {
            let (was, is) = (self.was.get(path), is.get(path));
            if was != is {
                differences.push(format!("{}: was {was:?}, is {is:?}", path.display()));
            }
        }
        differences.dedup();
        assert!(differences.is_empty(), "after {after}:\n{}", differences.join("\n"));
    }
}

fn manifest(root: &Path, with_names: bool) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let meta = path.symlink_metadata().unwrap();
        let content = if meta.is_file() {
            blake3::hash(&fs::read(&path).unwrap()).to_string()
        } else if meta.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            String::new()
        };
        let mut line = format!(
            "inode {} of {}:{} mode {:o} size {} modified {}.{:09} {content}",
            meta.ino(),
            meta.uid(),
            meta.gid(),
            meta.mode(),
            meta.size(),
            meta.mtime(),
            meta.mtime_nsec(),
        );
        if with_names {
            line += &format!(" names {} changed {}.{:09}", meta.nlink(), meta.ctime(), meta.ctime_nsec());
        }
        found.insert(path, line);
    }
    found
}

#[test]
fn a_canary_notices() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    fs::write(&file, "1").unwrap();
    let canary = Canary::of(place.path());
    canary.is_unchanged("nothing");
    let notices = || std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| canary.is_unchanged("something"))).is_err();
    fs::hard_link(&file, place.path().join("second")).unwrap();
    assert!(notices());
    fs::remove_file(place.path().join("second")).unwrap();
    assert!(notices(), "the time of the change tells it");
}
