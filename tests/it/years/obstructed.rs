//! `expire --confirm` where a directory may not be changed, or where the disk is full: it says so and what to do, no
//! backup that counts lacks anything, and the next run goes on to the same end.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::history::{History, Script};
use super::killed::{LATER, RULES, below, in_a_directory, objects, to_the_end};
use crate::outage::Tmpfs;
use crate::support::command::{Site, files_below, is_root, run};

/// Nobody, whose rights the program has where root runs it.
const OTHER: u32 = 65_534;
const PAGE: u64 = 4096;

fn set(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The directories in which something is whose name has this in it.
fn directories(root: &Path, part: &str) -> BTreeSet<PathBuf> {
    let files = files_below(root).into_iter().filter(|path| path.to_str().unwrap().contains(part));
    files.map(|path| path.parent().unwrap().to_owned()).collect()
}

/// What is there in the end where nothing is in the way.
fn undisturbed(history: &History) -> BTreeSet<String> {
    let site = in_a_directory(history);
    to_the_end(&site);
    below(&site.path("years"))
}

fn give_to_the_owner(root: &Path) {
    if is_root() {
        run(Command::new("chown").args(["-R", &format!("{OTHER}:{OTHER}")]).arg(root)).exits(0);
    }
}

/// Every pack of a manifest that is there is there, and all WAL of it.
fn nothing_is_missing(site: &Site, how: &str) {
    let ran = site.run(["verify", "--quick"]);
    assert_eq!(ran.code(), 0, "{how}: {}{}", ran.stdout, ran.stderr);
}

#[test]
fn a_directory_that_may_not_be_changed() {
    let history = History::make(&Script::quiet(21, 4));
    let stays = undisturbed(&history);
    std::thread::scope(|scope| {
        for part in ["/backups/", "/packs/", "/wal/", "tombstones/", "/begun/", ""] {
            let (history, stays) = (&history, &stays);
            scope.spawn(move || closed(history, stays, part));
        }
    });
}

/// Nothing can be changed where something is whose name has this in it.
fn closed(history: &History, stays: &BTreeSet<String>, part: &str) {
    let site = in_a_directory(history);
    let root = site.path("years");
    give_to_the_owner(&root);
    let before = below(&root);
    let mut closed = directories(&root, part);
    assert!(!closed.is_empty(), "nothing is in {part}");
    if part.is_empty() {
        closed.insert(root.clone());
    }
    closed.iter().for_each(|path| set(path, 0o555));
    // As often as it is asked.
    for _ in 0..2 {
        site.run(["expire", "--confirm"]).exits(12).tells_the_way_out().says(&["Permission denied"]);
    }
    let there = below(&root);
    closed.iter().for_each(|path| set(path, 0o755));
    assert!(there.is_superset(stays), "{part}: {:?}", stays.difference(&there));
    let in_it = |names: &BTreeSet<String>| names.iter().filter(|name| name.contains(part)).count();
    assert_eq!(in_it(&there), in_it(&before), "{part}: nothing went that may not");
    nothing_is_missing(&site, part);
    to_the_end(&site);
    assert_eq!(below(&root), *stays, "{part}");
}

/// Fills a disk up to so many bytes.
fn fill(ballast: &Path, bytes_left: u64) {
    let mut file = fs::File::create(ballast).unwrap();
    let page = vec![1; usize::try_from(PAGE).unwrap()];
    let mut written = 0;
    while file.write_all(&page).is_ok() {
        written += PAGE;
    }
    file.set_len(written.saturating_sub(bytes_left)).unwrap();
}

#[test]
fn a_disk_that_is_full() {
    let history = History::make(&Script::quiet(21, 4));
    let stays = undisturbed(&history);
    std::thread::scope(|scope| {
        for (phase, pages) in [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 3)] {
            let (history, stays) = (&history, &stays);
            scope.spawn(move || full(history, stays, phase, pages));
        }
    });
}

/// So many pages are free before this phase.
fn full(history: &History, stays: &BTreeSet<String>, phase: u32, pages: u64) {
    let how = format!("phase {phase}, {pages} pages left");
    let mut site = Site::bare();
    // Without the right to mount there is nothing to try.
    let Some(_disk) = Tmpfs::mount(site.path("years"), "16m") else { return };
    let root = site.path("years");
    for (key, bytes) in objects(history) {
        let path = root.join(key.as_str());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    site.configure(&format!("[[repository]]\nurl = \"file://{}\"\n{RULES}", root.display()));
    if phase == 2 {
        site.run(["expire", "--confirm"]).exits(0);
        std::thread::sleep(LATER);
    }
    let ballast = root.join(".ballast");
    fill(&ballast, pages * PAGE);
    let ran = site.run(["expire", "--confirm"]);
    // Where it has room for what it writes it goes on.
    if ran.code() != 0 || pages == 0 {
        ran.exits(11).tells_the_way_out().says(&["No space left", "free space"]);
    }
    fs::remove_file(&ballast).unwrap();
    let there = below(&root);
    assert!(there.is_superset(stays), "{how}: {:?}", stays.difference(&there));
    nothing_is_missing(&site, &how);
    to_the_end(&site);
    to_the_end(&site);
    assert_eq!(below(&root), *stays, "{how}");
}
