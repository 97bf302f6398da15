//! Deleting many objects from a directory and from memory, and what killed writers left there.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use walvis::fsio::{TEMP_DIR, TempFiles};
use walvis::limits::ABANDONED_AFTER;
use walvis::repo::{Leftovers, ObjectName, RawObjects};
use walvis::store::fault::{Effect, Fault, Op};
use walvis::store::file::FileStore;
use walvis::store::memory::MemoryStore;
use walvis::store::retry::Retry;
use walvis::store::{Deleted, ErrorKind, Key, Store};

use crate::conformance::{create, deadline, key, list, quick};
use crate::support::command::{is_root, run};

const OTHER: u32 = 65_534;

fn names(store: &dyn Store) -> Vec<String> {
    list(store, "", "").into_iter().map(|entry| entry.key.to_string()).collect()
}

fn segment(number: u32) -> ObjectName {
    ObjectName::parse(&format!("clusters/main/7579128459364321234/wal/00000001/00000000/0000000100000000{number:08X}")).unwrap()
}

#[test]
fn what_is_held_or_denied_is_told_of_each() {
    let memory = Arc::new(MemoryStore::new());
    let objects = RawObjects::new(Arc::<MemoryStore>::clone(&memory));
    let all: Vec<ObjectName> = (1..=4).map(segment).collect();
    let keys: Vec<Key> = all.iter().map(|name| name.key().unwrap()).collect();
    for key in &keys {
        let _ = create(&*memory, key, b"x");
    }
    assert!(memory.hold(&keys[1], Some(1_800_000_000)) && memory.hold(&keys[2], None));
    let held = |until_unix_s| Deleted::Held { until_unix_s };
    let expected = [Deleted::Gone, held(Some(1_800_000_000)), held(None), Deleted::Gone];
    assert_eq!(objects.delete_many(&all).unwrap(), expected);
    assert_eq!(names(&*memory), [keys[1].as_str(), keys[2].as_str()]);
    assert_eq!(memory.delete(&keys[1]).unwrap_err().kind, ErrorKind::Held);
    assert!(memory.release(&keys[1]));
    memory.deny_deletes(true);
    assert!(objects.delete_many(&all).unwrap().iter().all(|outcome| matches!(outcome, Deleted::Denied(_))));
    assert_eq!(memory.delete(&keys[1]).unwrap_err().kind, ErrorKind::Denied);
    memory.deny_deletes(false);
    assert_eq!(objects.delete_many(&all[..2]).unwrap(), vec![Deleted::Gone; 2]);
    assert_eq!(names(&*memory), [keys[2].as_str()]);
}

#[test]
fn a_deletion_that_is_cut_short_is_done_again() {
    let memory = Arc::new(MemoryStore::new());
    let keys: Vec<Key> = (0..10).map(|i| key(format!("object-{i}"))).collect();
    for key in &keys {
        let _ = create(&*memory, key, b"x");
    }
    let fault = Fault::new(Arc::<MemoryStore>::clone(&memory))
        .on(Op::DeleteMany, 1, Effect::CutAfter(4, ErrorKind::Unreachable))
        .on(Op::DeleteMany, 2, Effect::LoseAnswer(ErrorKind::TimedOut));
    let fault = Arc::new(fault);
    assert_eq!(fault.delete_many(&keys[..8]).unwrap_err().kind, ErrorKind::Unreachable);
    assert_eq!(names(&*memory).len(), 6);
    let retry = Retry::new(Arc::<Fault>::clone(&fault), quick(), deadline());
    assert_eq!(retry.delete_many(&keys[..8]).unwrap(), vec![Deleted::Gone; 8]);
    assert_eq!(names(&*memory), ["object-8", "object-9"]);
    assert_eq!(fault.calls(Op::DeleteMany), 3);
}

/// A directory that may not be changed keeps its files; the others go.
#[test]
fn permissions_are_told_of_each_file() {
    let place = tempfile::tempdir().unwrap();
    let store = FileStore::open(place.path()).unwrap();
    for name in ["free/a", "closed/b", "free/c"] {
        let _ = create(&store, &key(name), b"x");
    }
    if is_root() {
        // Root works with the rights of the directory's owner.
        run(Command::new("chown").args(["-R", &format!("{OTHER}:{OTHER}")]).arg(place.path())).exits(0);
    }
    let closed = place.path().join("closed");
    fs::set_permissions(&closed, Permissions::from_mode(0o555)).unwrap();
    let store = FileStore::open(place.path()).unwrap();
    let outcomes = store.delete_many(&["free/a", "closed/b", "closed/absent", "free/c"].map(key)).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o755)).unwrap();
    assert_eq!((&outcomes[0], &outcomes[2], &outcomes[3]), (&Deleted::Gone, &Deleted::Gone, &Deleted::Gone));
    assert!(matches!(&outcomes[1], Deleted::Denied(why) if why.contains("closed/b")), "{outcomes:?}");
    assert_eq!(names(&store), ["closed/b"]);
    assert!(!place.path().join("free").exists(), "the directory became empty");
}

#[test]
fn a_directory_in_the_way_is_an_error_and_a_root_that_is_gone_too() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("repository");
    fs::create_dir_all(root.join("dir/object")).unwrap();
    let store = FileStore::open(&root).unwrap();
    assert_eq!(store.delete_many(&[key("dir/object")]).unwrap_err().kind, ErrorKind::Unsupported);
    assert_eq!(store.delete_many(&[key("dir/other")]).unwrap(), [Deleted::Gone]);
    fs::remove_dir_all(&root).unwrap();
    assert_eq!(store.delete_many(&[key("a/b")]).unwrap_err().kind, ErrorKind::NoSuchPlace);
}

fn old_file(path: &Path, body: &[u8]) {
    fs::write(path, body).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - ABANDONED_AFTER - Duration::from_secs(60)).unwrap();
}

#[test]
fn temporary_files_of_killed_writers_are_found_and_removed() {
    let place = tempfile::tempdir().unwrap();
    let store = Arc::new(FileStore::open_with(place.path(), TempFiles::Named).unwrap());
    let objects = RawObjects::new(Arc::<FileStore>::clone(&store));
    assert_eq!(objects.remove_leftovers(ABANDONED_AFTER, true).unwrap(), Leftovers::default(), "there is no such directory");
    let mut alive = store.begin(&key("object"), &crate::conformance::content(b"")).unwrap();
    alive.part(bytes::Bytes::from_static(b"alive")).unwrap();
    let temp = place.path().join(TEMP_DIR);
    let (old, young) = (".walvis-tmp-000000000000-1-aaaaaaaaaaaaaaaa", ".walvis-tmp-000000000000-1-bbbbbbbbbbbbbbbb");
    old_file(&temp.join(old), &[0; 1000]);
    fs::write(temp.join(young), "young").unwrap();
    old_file(&temp.join("notes"), b"of another program");

    let expected = Leftovers { files: 1, uploads: 0, bytes: 1000, unmeasured: 0 };
    assert_eq!(objects.remove_leftovers(ABANDONED_AFTER, false).unwrap(), expected);
    assert!(temp.join(old).exists(), "nothing is removed unless that is wanted");
    assert_eq!(objects.remove_leftovers(ABANDONED_AFTER, true).unwrap(), expected);
    assert!(!temp.join(old).exists() && temp.join(young).exists() && temp.join("notes").exists());
    assert_eq!(objects.remove_leftovers(ABANDONED_AFTER, true).unwrap(), Leftovers::default());
    let _ = alive.complete().unwrap();
    assert_eq!(names(&*store), ["object"]);
}

/// Not a test: deletes what it is told, in a process of its own that can be watched and killed.
#[test]
#[ignore = "run by the other tests, in a process of its own"]
fn driver() {
    let Some(root) = std::env::var_os("WALVIS_DRIVER_ROOT") else { return };
    let keys: Vec<Key> = std::env::var("WALVIS_DRIVER_KEYS").unwrap().split(' ').map(key).collect();
    let store = FileStore::open(Path::new(&root)).unwrap();
    assert_eq!(store.delete_many(&keys).unwrap(), vec![Deleted::Gone; keys.len()]);
}

/// Runs the driver under strace; the names that are removed and the directories that are synced, in their order.
fn strace(options: &[&str], root: &Path, keys: &str) -> (Option<i32>, Vec<String>) {
    let log = tempfile::NamedTempFile::new().unwrap();
    let status = Command::new("strace")
        .args(["-f", "-y", "-e", "trace=unlinkat,fsync"])
        .args(options)
        .arg("-o")
        .arg(log.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "deleting::driver", "--ignored", "--test-threads=1"])
        .env("WALVIS_DRIVER_ROOT", root)
        .env("WALVIS_DRIVER_KEYS", keys)
        .output()
        .expect("strace is needed to run this test: apt-get install strace")
        .status;
    let root = format!("<{}", root.display());
    let steps = fs::read_to_string(log.path()).unwrap().lines().filter_map(|line| step(line, &root)).collect();
    (status.signal(), steps)
}

/// What a traced call does, if it is done.
fn step(line: &str, root: &str) -> Option<String> {
    let (directory, rest) = line.split_once(root)?.1.split_once('>')?;
    let name = || rest.split('"').nth(1).map(str::to_owned);
    match line {
        _ if !line.contains(" = 0") => None,
        _ if line.contains("fsync(") => Some(format!("sync {directory}/")),
        _ if line.contains("AT_REMOVEDIR") => Some(format!("rmdir {}", name()?)),
        _ => Some(format!("remove {directory}/{}", name()?)),
    }
}

const KEYS: &str = "b/c/2 a/1 b/c/1 a/3 b/d/1";

fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let store = FileStore::open(place.path()).unwrap();
    for name in KEYS.split(' ').chain(["a/2", "b/d/2"]) {
        let _ = create(&store, &key(name), b"x");
    }
    place
}

/// Of each directory the names are removed first, then it is synced, once, and only then it is removed itself; what an
/// earlier process removed is made durable too.
#[test]
fn directories_are_synced_after_their_files_went() {
    let place = place();
    let expected = [
        "remove /a/1",
        "remove /a/3",
        "sync /a/",
        "remove /b/c/2",
        "remove /b/c/1",
        "sync /b/c/",
        "rmdir b/c",
        "remove /b/d/1",
        "sync /b/d/",
    ];
    assert_eq!(strace(&[], place.path(), KEYS), (None, expected.map(str::to_owned).into()));
    let again = ["sync /a/", "sync /b/", "sync /b/d/"];
    assert_eq!(strace(&[], place.path(), KEYS), (None, again.map(str::to_owned).into()));
}

#[test]
fn a_deletion_killed_anywhere_goes_on_where_it_was() {
    for call in ["unlinkat", "fsync"] {
        for number in 1.. {
            let place = place();
            let inject = format!("inject={call}:signal=SIGKILL:when={number}");
            let (signal, _) = strace(&["-e", &inject], place.path(), KEYS);
            let store = FileStore::open(place.path()).unwrap();
            let keys: Vec<Key> = KEYS.split(' ').map(key).collect();
            assert_eq!(store.delete_many(&keys).unwrap(), vec![Deleted::Gone; keys.len()], "{inject}");
            assert_eq!(names(&store), ["a/2", "b/d/2"], "{inject}");
            assert!(!place.path().join("b/c").exists(), "{inject}");
            if signal != Some(9) {
                assert!(number > 3, "{call} {number}: nothing was killed");
                break;
            }
        }
    }
}
