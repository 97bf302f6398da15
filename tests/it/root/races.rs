//! Directories that are swapped for links while root archives and fetches there: nothing of root's is sent, written or
//! removed.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::support::canary::Canary;
use crate::support::command::{Site, is_root, run};
use crate::support::segment::Segment;

const OTHER: u32 = 65_534;
const ROUNDS: usize = 30;

fn give(path: &Path) {
    run(Command::new("chown").args(["-R", "-h", &format!("{OTHER}:{OTHER}")]).arg(path)).exits(0);
}

/// Does something again and again while a directory and a link in its place take turns, as fast as that can be done.
fn while_swapping(directory: &Path, target: &Path, mut action: impl FnMut(usize)) {
    let link = directory.with_extension("link");
    symlink(target, &link).unwrap();
    give(&link);
    let (is_over, swaps) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // An even number of times: the directory is in its place at the end.
            while !is_over.load(Ordering::Relaxed) || swaps.load(Ordering::Relaxed) % 2 == 1 {
                renameat2(AT_FDCWD, directory, AT_FDCWD, &link, RenameFlags::RENAME_EXCHANGE).unwrap();
                swaps.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(std::time::Duration::from_micros(fastrand::u64(..300)));
            }
        });
        let _stop = Stop(&is_over);
        (0..ROUNDS).for_each(&mut action);
    });
    assert!(swaps.load(Ordering::Relaxed) > ROUNDS);
    fs::remove_file(link).unwrap();
}

/// Ends the swapping, also when the action fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A site whose data directory and repository are the other user's, and a directory of root's that looks like a
/// `pg_wal`.
fn host() -> Option<(Site, PathBuf)> {
    if !is_root() {
        eprintln!("skipped: not root");
        return None;
    }
    let site = Site::new();
    fs::set_permissions(site.dir(), Permissions::from_mode(0o755)).unwrap();
    let roots = site.path("roots");
    fs::create_dir(&roots).unwrap();
    for number in 2..40 {
        let name = Segment::new(number).name();
        fs::write(roots.join(&name), Segment::new(number).bytes()).unwrap();
        fs::set_permissions(roots.join(&name), Permissions::from_mode(0o600)).unwrap();
    }
    fs::write(roots.join("RECOVERYXLOG"), "root's").unwrap();
    give(&site.data());
    give(&site.repository());
    let name = site.make(&Segment::new(1));
    chown(site.wal(&name), Some(OTHER), Some(OTHER)).unwrap();
    site.push(&name).exits(0);
    Some((site, roots))
}

#[test]
fn pushes_and_fetches_of_root_while_pg_wal_is_swapped() {
    let Some((site, roots)) = host() else { return };
    let canary = Canary::of(&roots);
    while_swapping(&site.data().join("pg_wal"), &roots, |round| {
        // Root's alone has these.
        let name = Segment::new(2 + round as u64).name();
        let pushed = site.push(&name);
        assert_ne!(pushed.code(), 0, "a segment of root's was archived: {pushed:?}");
        site.fetch(&Segment::new(1).name());
    });
    canary.is_unchanged("pushes and fetches");
    assert_eq!(site.stored(), [Segment::new(1).name()]);
    site.fetch(&Segment::new(1).name()).exits(0);
}

#[test]
fn pushes_of_root_while_the_repository_is_swapped() {
    let Some((site, roots)) = host() else { return };
    let canary = Canary::of(&roots);
    while_swapping(&site.repository().join("clusters"), &roots, |round| {
        let name = site.make(&Segment::new(2 + round as u64));
        chown(site.wal(&name), Some(OTHER), Some(OTHER)).unwrap();
        site.push(&name);
    });
    canary.is_unchanged("pushes");
    for round in 0..ROUNDS {
        site.push(&Segment::new(2 + round as u64).name()).exits(0);
    }
}
