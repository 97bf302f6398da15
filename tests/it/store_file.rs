//! The store in a directory and the file-system layer under it: kills at every system call, the order of syncs, full
//! and read-only file systems, permissions, roots that are not there, foreign names.
//!
//! What happens inside one process is watched, broken and killed from outside with `strace`, in a driver: this very
//! test binary, told by environment variables to do one thing.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bytes::Bytes;
use walvis::fsio::{self, AtomicFile, Durability, TEMP_DIR, TEMP_PREFIX, TempFiles};
use walvis::store::file::FileStore;
use walvis::store::{Created, ErrorKind, Key, ReadRange, Store, StoreError};

use crate::conformance::{content, create, key, list, read};
use crate::support::command::{eventually, is_root};

const BEGIN: &str = "/walvis-driver-begins";
const END: &str = "/walvis-driver-ends";

/// What the driver does.
#[derive(Clone, Copy)]
enum Job {
    Create,
    Upload,
    PublishOver,
    List,
    ReadAndCreate,
}

impl Job {
    const ALL: [(&'static str, Self); 5] = [
        ("create", Self::Create),
        ("upload", Self::Upload),
        ("publish-over", Self::PublishOver),
        ("list", Self::List),
        ("read-and-create", Self::ReadAndCreate),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, job)| std::mem::discriminant(job) == std::mem::discriminant(&self)).unwrap().0
    }
}

/// The content that belongs to a key.
fn body_of(key: &str) -> Bytes {
    let seed = key.bytes().map(usize::from).sum::<usize>();
    (0..300_000).map(|i| ((i * 31 + seed + i / 251) % 256) as u8).collect::<Vec<u8>>().into()
}

fn temp_files(name: &str) -> TempFiles {
    match name {
        "named" => TempFiles::Named,
        _ => TempFiles::Auto,
    }
}

fn upload(store: &FileStore, key: &Key) -> Result<Created, StoreError> {
    let body = body_of(key.as_str());
    let mut upload = store.begin(key, &content(&body))?;
    upload.part(body.slice(..200_000))?;
    upload.part(body.slice(200_000..))?;
    match upload.complete() {
        Ok(created) => Ok(created),
        // A sync that failed cannot be made good by another one: that has to say the same.
        Err(first) if first.is_permanent() => {
            assert!(upload.complete().is_err(), "after {first}");
            Err(first)
        }
        Err(first) => Err(first),
    }
}

/// Not a test: the driver. Does nothing unless it is told to.
#[test]
#[ignore = "run by the other tests, in a process of its own"]
fn driver() {
    let var = |name: &str| std::env::var(format!("WALVIS_DRIVER_{name}")).ok();
    let Some(job) = var("JOB") else { return };
    let job = Job::ALL.iter().find(|(name, _)| *name == job).unwrap().1;
    let (root, name) = (PathBuf::from(var("ROOT").unwrap()), var("KEY").unwrap());
    if let Some(uid) = var("UID") {
        nix::unistd::setgid(nix::unistd::Gid::from_raw(uid.parse().unwrap())).unwrap();
        nix::unistd::setuid(nix::unistd::Uid::from_raw(uid.parse().unwrap())).unwrap();
    }
    let files = temp_files(&var("FILES").unwrap());
    let _ = std::fs::metadata(BEGIN);
    let outcome = match job {
        Job::PublishOver => publish_over(&root.join(&name), files).map_err(|e| format!("{:?} {e}", e.problem)),
        _ => FileStore::open_with(&root, files)
            .and_then(|store| in_store(&store, job, &name))
            .map_err(|e| format!("{:?} {e}", e.kind)),
    };
    let _ = std::fs::metadata(END);
    writeln!(std::io::stdout(), "\nOUTCOME {}", outcome.unwrap_or_else(|e| e)).unwrap();
}

fn publish_over(target: &Path, files: TempFiles) -> Result<String, fsio::FsError> {
    let mut new_file = AtomicFile::beside_with(target, 0o600, files)?;
    new_file.append(&body_of("new"))?;
    new_file.publish_over(Durability::Durable)?;
    Ok("Over".to_owned())
}

fn in_store(store: &FileStore, job: Job, name: &str) -> Result<String, StoreError> {
    match job {
        Job::Create => {
            let body = body_of(name);
            store.create(&key(name), body.clone(), &content(&body)).map(|created| format!("{created:?}"))
        }
        Job::Upload => upload(store, &key(name)).map(|created| format!("{created:?}")),
        Job::List => {
            let mut seen = Vec::new();
            store.list("", name, &mut |entry| {
                seen.push(entry.key.as_str().to_owned());
                ControlFlow::Continue(())
            })?;
            Ok(seen.join(" "))
        }
        Job::ReadAndCreate => {
            let read =
                store.read(&key(name), ReadRange::All).map(|_| "read".to_owned()).unwrap_or_else(|e| format!("{:?}", e.kind));
            let beside = key(format!("{name}-2"));
            let listed = store.list("", "", &mut |_| ControlFlow::Continue(())).map(|()| "listed".to_owned());
            let listed = listed.unwrap_or_else(|e| format!("{:?}", e.kind));
            let created = store.create(&beside, Bytes::new(), &content(b"")).map(|created| format!("{created:?}"));
            Ok(format!("{read} {listed} {}", created.unwrap_or_else(|e| format!("{:?}", e.kind))))
        }
        Job::PublishOver => unreachable!("needs no store"),
    }
}

/// The driver's command line, after `wrapper`.
fn driver_command(wrapper: &[&OsStr], job: Job, root: &Path, name: &str, files: TempFiles) -> Command {
    let binary = std::env::current_exe().unwrap();
    let mut words = wrapper.iter().copied().chain([binary.as_os_str()]);
    let mut command = Command::new(words.next().unwrap());
    command
        .args(words)
        .args(["--exact", "store_file::driver", "--ignored", "--nocapture", "--test-threads=1"])
        .env("WALVIS_DRIVER_JOB", job.name())
        .env("WALVIS_DRIVER_ROOT", root)
        .env("WALVIS_DRIVER_KEY", name)
        .env("WALVIS_DRIVER_FILES", if files == TempFiles::Named { "named" } else { "auto" });
    command
}

/// Runs the driver under strace with these options and gives what came of it, and the log.
fn strace(options: &[&str], job: Job, root: &Path, name: &str, files: TempFiles) -> (Output, String) {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut wrapper = vec![OsStr::new("strace"), OsStr::new("-f"), OsStr::new("-y"), OsStr::new("-o"), log.path().as_os_str()];
    wrapper.extend(options.iter().map(OsStr::new));
    let output = driver_command(&wrapper, job, root, name, files).output();
    let output = output.expect("strace is needed to run this test: apt-get install strace");
    (output, std::fs::read_to_string(log.path()).unwrap())
}

/// What the driver said in the end.
fn outcome(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    let outcome = text.lines().find_map(|line| line.strip_prefix("OUTCOME "));
    outcome.unwrap_or_else(|| panic!("the driver said nothing: {text}{}", String::from_utf8_lossy(&output.stderr))).to_owned()
}

/// A system call of the driver: `(name, the whole line)`.
fn calls_between_marks(log: &str) -> Vec<(String, String)> {
    let calls = log.lines().filter_map(|line| {
        let (_, call) = line.split_once(' ')?;
        let (name, _) = call.trim_start().split_once('(')?;
        name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_').then(|| (name.to_owned(), call.trim_start().to_owned()))
    });
    calls.skip_while(|(_, line)| !line.contains(BEGIN)).skip(1).take_while(|(_, line)| !line.contains(END)).collect()
}

/// For every system call of the job the `when=` numbers of its calls, counted within the thread as strace counts.
fn kill_points(log: &str) -> BTreeMap<String, std::ops::RangeInclusive<usize>> {
    let begin = log.lines().find(|line| line.contains(BEGIN)).expect("the driver did not begin");
    let thread = begin.split(' ').next().unwrap();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut points = BTreeMap::new();
    let mut is_on = false;
    for line in log.lines().filter(|line| line.split(' ').next() == Some(thread)) {
        let Some((name, _)) = line[thread.len()..].trim_start().split_once('(') else { continue };
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            continue; // `<... resumed>` and the like
        }
        let count = seen.entry(name.to_owned()).or_default();
        *count += 1;
        if line.contains(END) {
            return points;
        }
        if is_on {
            let last = *count;
            points
                .entry(name.to_owned())
                .and_modify(|range: &mut std::ops::RangeInclusive<usize>| *range = *range.start()..=last)
                .or_insert(last..=last);
        }
        is_on |= line.contains(BEGIN);
    }
    panic!("the driver did not end:\n{log}");
}

fn temp_names(dir: &Path) -> Vec<String> {
    let items = match std::fs::read_dir(dir) {
        Ok(items) => items,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(e) => panic!("{e}"),
    };
    let names = items.map(|item| item.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(TEMP_PREFIX)).collect()
}

/// Kills a creation at the entry of each of its system calls, that is, between any two of them. All in one repository,
/// so that whatever a kill leaves behind has the chance to pile up.
fn kill_everywhere(job: Job, files: TempFiles) {
    let place = tempfile::tempdir().unwrap();
    // The second run: the first one makes the directory of temporary files.
    let clean = ["first/clean/object", "second/clean/object"].map(|name| {
        let (output, log) = strace(&[], job, place.path(), name, files);
        assert_eq!(outcome(&output), "New");
        kill_points(&log)
    });
    let [_, points] = clean;
    assert!(points.contains_key("fsync") && points.contains_key("pwrite64") && points.contains_key("mkdirat"), "{points:?}");
    let publish = if files == TempFiles::Named { "renameat2" } else { "linkat" };
    assert!(points.contains_key(publish), "{points:?}");

    let (mut kills, mut whole) = (0, 0);
    for (call, numbers) in points {
        for number in numbers {
            let name = format!("{call}/{number}/object");
            let inject = format!("inject={call}:signal=SIGKILL:when={number}");
            let (output, log) = strace(&["-e", &inject], job, place.path(), &name, files);
            assert_eq!(output.status.signal(), Some(9), "{inject} did not kill: {}", log.lines().last().unwrap_or(""));
            kills += 1;
            let temps = temp_names(&place.path().join(TEMP_DIR));
            assert!(temps.len() <= 1, "{inject}: temporary files pile up: {temps:?}");
            assert!(files == TempFiles::Named || temps.is_empty(), "{inject}: a file without a name left {temps:?}");

            let store = FileStore::open_with(place.path(), files).unwrap();
            let body = body_of(&name);
            match store.read(&key(&*name), ReadRange::All) {
                Ok(mut object) => {
                    let mut found = Vec::new();
                    object.body.read_to_end(&mut found).unwrap();
                    assert!(found == body, "{inject}: half an object: {} bytes", found.len());
                    store.make_durable(&key(&*name)).unwrap();
                    whole += 1;
                }
                Err(e) => assert_eq!(e.kind, ErrorKind::NotFound, "{inject}: {e}"),
            }
            let again = create(&store, &key(&*name), &body);
            assert!(read(&store, &key(&*name), ReadRange::All) == body, "{inject}: {again:?}");
        }
    }
    assert!(whole > 0 && whole < kills, "of {kills} kills {whole} came after the object had its name");
    let store = FileStore::open_with(place.path(), files).unwrap();
    assert_eq!(create(&store, &key("last"), b"last"), Created::New);
    assert_eq!(temp_names(&place.path().join(TEMP_DIR)), Vec::<String>::new());
    assert_eq!(list(&store, "", "").len(), kills + 3, "something foreign is listed");

    // Killed again and again with nobody to clean up but the next victim.
    for round in 0..5 {
        let (output, _) =
            strace(&["-e", "inject=fsync:signal=SIGKILL"], job, place.path(), &format!("again/{round}/object"), files);
        assert_eq!(output.status.signal(), Some(9));
        let temps = temp_names(&place.path().join(TEMP_DIR)).len();
        assert_eq!(temps, if files == TempFiles::Named { 1 } else { 0 }, "in round {round}");
    }
}

#[test]
fn a_creation_killed_anywhere_leaves_all_or_nothing() {
    kill_everywhere(Job::Create, TempFiles::Auto);
}

#[test]
fn a_creation_with_named_temp_files_killed_anywhere_leaves_all_or_nothing() {
    kill_everywhere(Job::Create, TempFiles::Named);
}

#[test]
fn an_upload_killed_anywhere_leaves_all_or_nothing() {
    kill_everywhere(Job::Upload, TempFiles::Auto);
    kill_everywhere(Job::Upload, TempFiles::Named);
}

#[test]
fn publishing_over_killed_anywhere_leaves_the_old_or_the_new() {
    for files in [TempFiles::Auto, TempFiles::Named] {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("RECOVERYXLOG");
        let (old, new) = (body_of("old"), body_of("new"));
        for is_there in [false, true] {
            let prepare = || match is_there {
                true => std::fs::write(&target, &old).unwrap(),
                false => drop(std::fs::remove_file(&target)),
            };
            prepare();
            let (output, log) = strace(&[], Job::PublishOver, place.path(), "RECOVERYXLOG", files);
            assert_eq!(outcome(&output), "Over");
            let mut seen = [0, 0];
            for (call, numbers) in kill_points(&log) {
                for number in numbers {
                    prepare();
                    let inject = format!("inject={call}:signal=SIGKILL:when={number}");
                    let (output, _) = strace(&["-e", &inject], Job::PublishOver, place.path(), "RECOVERYXLOG", files);
                    assert_eq!(output.status.signal(), Some(9), "{inject} did not kill");
                    match std::fs::read(&target) {
                        Ok(found) if found == new => seen[1] += 1,
                        Ok(found) => assert!(is_there && found == old, "{inject}: half a file"),
                        Err(e) => assert!(!is_there && e.kind() == std::io::ErrorKind::NotFound, "{inject}: {e}"),
                    }
                    seen[0] += 1;
                    assert!(temp_names(place.path()).len() <= 1, "{inject}: temporary files pile up");
                }
            }
            assert!(seen[1] > 0 && seen[1] < seen[0], "{seen:?}");
            prepare();
            assert_eq!(publish_over(&target, TempFiles::Named).unwrap(), "Over");
            assert_eq!(temp_names(place.path()), Vec::<String>::new());
        }
    }
}

/// The last part of the path that a traced call is about.
fn synced(calls: &[(String, String)], root: &Path) -> Vec<String> {
    let root = format!("<{}", root.display());
    let mut steps = Vec::new();
    for (name, line) in calls {
        match name.as_str() {
            "fsync" => {
                let path = line.split_once(&root).map(|(_, rest)| rest.split('>').next().unwrap().to_owned());
                let path = path.unwrap_or_else(|| panic!("a sync elsewhere: {line}"));
                let is_temp = path.contains("#") || path.contains("(deleted)") || path.contains(TEMP_PREFIX);
                steps.push(if is_temp { "file".to_owned() } else { format!("dir {path}") });
            }
            "linkat" | "renameat2" if line.contains(" = 0") => steps.push("name".to_owned()),
            _ => {}
        }
    }
    steps
}

/// What keeps an object through a power failure cannot be tried here, but its order can be seen: the data before the
/// name, all new directories before the name, the directory of the name after it.
#[test]
fn names_come_after_data_and_directories() {
    for files in [TempFiles::Auto, TempFiles::Named] {
        let place = tempfile::tempdir().unwrap();
        let trace = |name: &str| {
            let (output, log) = strace(&[], Job::Create, place.path(), name, files);
            assert_eq!(outcome(&output), "New");
            synced(&calls_between_marks(&log), place.path())
        };
        let all = ["file", "dir /a/b", "dir /a", "dir ", "name", "dir /a/b/c"];
        let leaf_only = ["file", "name", "dir /a/b/c"];
        assert_eq!(trace("a/b/c/first"), all, "{files:?}");
        assert_eq!(trace("a/b/c/second"), leaf_only, "{files:?}");

        // Directories that somebody made and did not live to sync, with nothing in them but directories.
        std::fs::create_dir_all(place.path().join("x/y/z/deeper")).unwrap();
        assert_eq!(trace("x/y/z/first"), ["file", "dir /x/y", "dir /x", "dir ", "name", "dir /x/y/z"], "{files:?}");
        // The object in x/y/z does not say that x/y is durable in x ... but it is above z, which was synced.
        assert_eq!(trace("x/y/beside"), ["file", "dir /x", "dir ", "name", "dir /x/y"], "{files:?}");
        assert_eq!(trace("in-root"), ["file", "name", "dir "], "{files:?}");
    }
}

#[test]
fn injected_errors_have_the_right_kind_and_leave_nothing() {
    // (calls and errors, outcome without and with names)
    let cases: [(&[&str], &str, &str); 9] = [
        (&["pwrite64:error=ENOSPC"], "NoSpace", "NoSpace"),
        (&["pwrite64:error=EDQUOT"], "NoSpace", "NoSpace"),
        (&["pwrite64:error=EIO:when=2"], "Unreachable", "Unreachable"),
        (&["fsync:error=EIO:when=1"], "Unreachable", "Unreachable"),
        (&["mkdirat:error=EROFS"], "ReadOnly", "ReadOnly"),
        (&["mkdirat:error=EACCES"], "Denied", "Denied"),
        // Cannot link: written again with a name, and renamed. Cannot rename without replacing: linked.
        (&["linkat:error=EOPNOTSUPP"], "New", "New"),
        (&["renameat2:error=EINVAL"], "New", "New"),
        (&["linkat:error=EPERM", "renameat2:error=EINVAL"], "Unsupported", "Unsupported"),
    ];
    for (injections, unnamed, named) in cases {
        for (files, expected) in [(TempFiles::Auto, unnamed), (TempFiles::Named, named)] {
            let place = tempfile::tempdir().unwrap();
            let options: Vec<String> = injections.iter().map(|injection| format!("inject={injection}")).collect();
            let options: Vec<&str> = options.iter().flat_map(|option| ["-e", option]).collect();
            let (output, _) = strace(&options, Job::Upload, place.path(), "a/object", files);
            let said = outcome(&output);
            assert!(said.starts_with(expected), "{injections:?} {files:?}: {said}");
            assert_eq!(temp_names(&place.path().join(TEMP_DIR)), Vec::<String>::new(), "{injections:?}");
            let store = FileStore::open(place.path()).unwrap();
            if expected == "New" {
                assert!(read(&store, &key("a/object"), ReadRange::All) == body_of("a/object"), "{injections:?}");
            } else {
                assert!(said.contains(place.path().to_str().unwrap()), "no path: {said}");
                assert_eq!(list(&store, "", ""), [], "{injections:?}");
                assert_eq!(upload(&store, &key("a/object")).unwrap(), Created::New);
            }
        }
    }
}

/// What cannot be read is never taken for absent, and a listing that breaks off is never taken for whole.
#[test]
fn failures_are_no_proof_of_absence() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("object"), b"x").unwrap();
    let run = |options: &[&str]| strace(options, Job::ReadAndCreate, place.path(), "object", TempFiles::Auto);
    let (output, log) = run(&[]);
    assert_eq!(outcome(&output), "read listed New");
    let points = kill_points(&log);
    for (error, kind) in [("EIO", "Unreachable"), ("ESTALE", "Unreachable"), ("EACCES", "Denied")] {
        // The first open is the root's, the second the object's.
        let inject = format!("inject=openat:error={error}:when={}", points["openat"].start() + 1);
        let (output, _) = run(&["-e", &inject]);
        assert_eq!(outcome(&output).split(' ').next(), Some(kind), "{error}");
        let inject = format!("inject=getdents64:error={error}:when={}", points["getdents64"].start());
        let (output, _) = run(&["-e", &inject]);
        assert_eq!(outcome(&output).split(' ').nth(1), Some(kind), "{error}");
    }
}

fn open(root: &Path) -> FileStore {
    FileStore::open(root).unwrap()
}

fn read_kind(store: &FileStore, name: &str) -> Option<ErrorKind> {
    store.read(&key(name), ReadRange::All).err().map(|e| e.kind)
}

fn list_kind(store: &FileStore, prefix: &str) -> Option<ErrorKind> {
    store.list(prefix, "", &mut |_| ControlFlow::Continue(())).err().map(|e| e.kind)
}

#[test]
fn a_missing_root_is_not_a_missing_object() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("deep/root");
    let error = FileStore::open(&root).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoSuchPlace);
    assert!(error.hint.as_deref().unwrap_or("").contains("walvis init"), "{error:?}");
    assert!(error.to_string().contains(root.to_str().unwrap()), "{error}");

    let store = FileStore::create_root(&root).unwrap();
    assert_eq!(store.location(), format!("file://{}", root.display()));
    assert_eq!(read_kind(&store, "a/b"), Some(ErrorKind::NotFound));
    drop(FileStore::create_root(&root).unwrap());

    // Removed while it is open.
    std::fs::remove_dir(&root).unwrap();
    let gone = Some(ErrorKind::NoSuchPlace);
    assert_eq!(read_kind(&store, "a/b"), gone);
    assert_eq!(list_kind(&store, ""), gone);
    assert_eq!(list_kind(&store, "a/b/"), gone);
    assert_eq!(store.create(&key("a/b"), Bytes::new(), &content(b"")).err().map(|e| e.kind), gone);
    assert_eq!(store.create(&key("b"), Bytes::new(), &content(b"")).err().map(|e| e.kind), gone);
    assert_eq!(store.begin(&key("a/b"), &content(b"")).err().map(|e| e.kind), gone);
    assert_eq!(store.make_durable(&key("a/b")).err().map(|e| e.kind), gone);
    assert_eq!(store.delete(&key("a/b")).err().map(|e| e.kind), gone);

    std::fs::write(&root, b"a file").unwrap();
    assert_eq!(FileStore::open(&root).unwrap_err().kind, ErrorKind::Unsupported);
}

#[test]
fn a_link_that_leads_nowhere_is_not_a_missing_object() {
    let place = tempfile::tempdir().unwrap();
    let (root, disk) = (place.path().join("root"), place.path().join("disk"));
    let store = FileStore::create_root(&root).unwrap();
    std::fs::create_dir(&disk).unwrap();
    std::os::unix::fs::symlink(&disk, root.join("clusters")).unwrap();
    assert_eq!(create(&store, &key("clusters/a/object"), b"x"), Created::New);
    assert!(disk.join("a/object").exists());
    assert_eq!(list(&store, "", "").len(), 1);
    assert_eq!(read_kind(&store, "clusters/b"), Some(ErrorKind::NotFound));

    std::fs::rename(&disk, place.path().join("elsewhere")).unwrap();
    let lost = Some(ErrorKind::Unreachable);
    assert_eq!(read_kind(&store, "clusters/a/object"), lost);
    assert_eq!(list_kind(&store, ""), lost);
    assert_eq!(list_kind(&store, "clusters/a/"), lost);
    assert_eq!(store.create(&key("clusters/a/object"), Bytes::new(), &content(b"")).err().map(|e| e.kind), lost);
    assert_eq!(store.delete(&key("clusters/a/object")).err().map(|e| e.kind), lost);

    std::fs::remove_file(root.join("clusters")).unwrap();
    std::os::unix::fs::symlink(".", root.join("circle")).unwrap();
    assert_eq!(list_kind(&store, "circle/circle/circle/"), Some(ErrorKind::Unsupported));
}

#[test]
fn foreign_names_are_not_listed_and_not_touched() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    assert_eq!(create(&store, &key("a/object"), b"x"), Created::New);
    let at = |name: &str| place.path().join(name);
    std::fs::create_dir_all(at("lost found")).unwrap();
    std::fs::create_dir_all(at(".snapshot/a")).unwrap();
    for foreign in ["lost found/x", ".snapshot/a/object", "a/.nfs0001", "a/with space", "a/ü", "a/object~", ".walvis-tmp-x"] {
        std::fs::write(at(foreign), b"foreign").unwrap();
    }
    std::fs::write(at("a").join(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff\xfe")), b"").unwrap();
    assert!(Command::new("mkfifo").arg(at("a/pipe")).status().unwrap().success());
    assert_eq!(list(&store, "", "").iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["a/object"]);

    // What is not a file is no object, but it is in the way.
    for name in ["a/pipe", "a"] {
        assert_eq!(read_kind(&store, name), Some(ErrorKind::Unsupported), "{name}");
        assert_eq!(
            store.create(&key(name), Bytes::new(), &content(b"")).err().map(|e| e.kind),
            Some(ErrorKind::Unsupported),
            "{name}"
        );
    }
    let below_a_file = store.create(&key("a/object/x"), Bytes::new(), &content(b""));
    assert_eq!(below_a_file.err().map(|e| e.kind), Some(ErrorKind::Unsupported));
    store.delete(&key("a/object")).unwrap();
    assert!(at("a/with space").exists() && at("a/pipe").exists());
}

/// Directories that become empty go away, also while others fill them.
#[test]
fn directories_come_and_go() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..100 {
                    let object = key(format!("a/b/c/{}", writer % 2));
                    let body = format!("{writer} {round}");
                    let _new_or_exists = create(store, &object, body.as_bytes());
                    store.delete(&object).unwrap();
                }
            });
        }
    });
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

/// The cost of a listing that begins near the end does not depend on what is before it.
#[test]
fn a_listing_passes_over_directories_before_its_beginning() {
    let place = tempfile::tempdir().unwrap();
    for dir in 0..300 {
        let dir = place.path().join(format!("wal/{:04}/{:04}", dir / 30, dir));
        std::fs::create_dir_all(&dir).unwrap();
        for file in 0..10 {
            std::fs::write(dir.join(format!("{file:03}")), b"").unwrap();
        }
    }
    let (output, log) = strace(&[], Job::List, place.path(), "wal/0009/0299/006", TempFiles::Auto);
    assert_eq!(outcome(&output), "wal/0009/0299/007 wal/0009/0299/008 wal/0009/0299/009");
    let calls = calls_between_marks(&log);
    // As root, each directory is asked for under whose identity it is worked in.
    let bound = if is_root() { 140 } else { 80 };
    assert!(calls.len() < bound, "{} system calls for three objects", calls.len());
}

/// A file system of its own, unmounted when dropped; `None` where mounting is not permitted.
struct Mount(tempfile::TempDir);

impl Mount {
    fn tmpfs(options: &str) -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("mode=755,{options}"), "walvis-test"])
            .arg(place.path())
            .output();
        mount.is_ok_and(|mount| mount.status.success()).then(|| Self(place))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(done.is_ok_and(|done| done.success()) || std::thread::panicking(), "cannot unmount");
    }
}

/// Waits until files that are gone have given their space back: a child that another test has just forked has them open
/// until it executes its program.
fn wait_for_space(dir: &Path) {
    let free = || nix::sys::statvfs::statvfs(dir).unwrap();
    eventually("space is given back", || free().blocks_available() * 10 > free().blocks() * 9);
}

/// The injected errors above show the same where mounting is not permitted.
#[test]
fn a_full_file_system_is_reported_and_left_as_it_was() {
    let Some(mount) = Mount::tmpfs("size=1m") else { return };
    for files in [TempFiles::Auto, TempFiles::Named] {
        let root = mount.0.path().join(format!("{files:?}"));
        drop(FileStore::create_root(&root).unwrap());
        let store = FileStore::open_with(&root, files).unwrap();
        let body = Bytes::from(vec![7; 2 << 20]);
        let error = store.create(&key("a/large"), body.clone(), &content(&body)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoSpace, "{error}");
        assert!(error.is_permanent() && error.hint.is_some());
        wait_for_space(&root);
        let mut upload = store.begin(&key("a/large"), &content(&body)).unwrap();
        assert_eq!(upload.part(body.clone()).unwrap_err().kind, ErrorKind::NoSpace);
        // The same part again, now that there is space; what the failed one wrote is not in it twice.
        assert_eq!(upload.part(body.clone()).unwrap_err().kind, ErrorKind::NoSpace);
        upload.part(body.slice(..1000)).unwrap();
        assert_eq!(upload.complete().unwrap(), Created::New);
        drop(upload);
        assert_eq!(read(&store, &key("a/large"), ReadRange::All), body.slice(..1000));
        assert_eq!(create(&store, &key("a/half"), &body[..512 << 10]), Created::New, "space was not given back");
        store.delete(&key("a/half")).unwrap();
        wait_for_space(&root);
    }
}

#[test]
fn a_read_only_file_system_is_reported() {
    let Some(mount) = Mount::tmpfs("size=1m") else { return };
    assert_eq!(create(&open(mount.0.path()), &key("a/object"), b"x"), Created::New);
    // Not while a child of another test has the object open, see above.
    let remount = || Command::new("mount").args(["-o", "remount,ro"]).arg(mount.0.path()).output().unwrap();
    eventually("it becomes read-only", || remount().status.success());
    for files in [TempFiles::Auto, TempFiles::Named] {
        let store = FileStore::open_with(mount.0.path(), files).unwrap();
        let read_only = Some(ErrorKind::ReadOnly);
        assert_eq!(read(&store, &key("a/object"), ReadRange::All), b"x");
        assert_eq!(create(&store, &key("a/object"), b"x"), Created::Exists);
        store.make_durable(&key("a/object")).unwrap();
        for name in ["a/other", "b/other", "other"] {
            assert_eq!(store.create(&key(name), Bytes::new(), &content(b"")).err().map(|e| e.kind), read_only, "{name}");
        }
        assert_eq!(store.begin(&key("a/other"), &content(b"")).err().map(|e| e.kind), read_only);
        assert_eq!(store.delete(&key("a/object")).err().map(|e| e.kind), read_only);
    }
}

#[test]
fn permissions_are_reported_and_prove_nothing() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    set(place.path(), 0o755);
    assert_eq!(create(&FileStore::create_root(&root).unwrap(), &key("a/object"), b"x"), Created::New);
    set(&root.join("a/object"), 0o000);
    let is_root = is_root();
    // Root may do everything: let the driver become somebody else.
    let try_as_user = |name: &str| {
        let mut command = driver_command(&[], Job::ReadAndCreate, &root, name, TempFiles::Auto);
        if is_root {
            command.env("WALVIS_DRIVER_UID", "65534");
        }
        outcome(&command.output().unwrap())
    };
    // (mode of root, mode of a; outcome for an object, for an absent one)
    for (root_mode, dir_mode, object, absent) in [
        (0o755, 0o555, "Denied listed Denied", "NotFound listed Denied"),
        (0o755, 0o666, "Denied Denied Denied", "Denied Denied Denied"),
        (0o755, 0o111, "Denied Denied Denied", "NotFound Denied Denied"),
        (0o000, 0o755, "Denied", "Denied"),
    ] {
        set(&root.join("a"), dir_mode);
        set(&root, root_mode);
        let (found, missing) = (try_as_user("a/object"), try_as_user("a/absent"));
        set(&root, 0o755);
        set(&root.join("a"), 0o755);
        assert!(found.starts_with(object), "{root_mode:o} {dir_mode:o}: {found}");
        assert!(missing.starts_with(absent), "{root_mode:o} {dir_mode:o}: {missing}");
    }
    assert_eq!(list(&open(&root), "", "").len(), 1);
}

/// Objects and directories are open to the group as far as the umask lets them, and never to others.
#[test]
fn modes_follow_the_umask() {
    for (umask, file, dir) in [("077", 0o600, 0o700), ("027", 0o640, 0o750), ("000", 0o640, 0o750)] {
        for files in [TempFiles::Auto, TempFiles::Named] {
            let place = tempfile::tempdir().unwrap();
            let script = format!("umask {umask}; exec \"$@\"");
            let shell = ["sh", "-c", &script, "sh"].map(OsStr::new);
            let output = driver_command(&shell, Job::Create, place.path(), "a/object", files).output().unwrap();
            assert_eq!(outcome(&output), "New");
            let mode = |name: &str| std::fs::metadata(place.path().join(name)).unwrap().permissions().mode() & 0o7777;
            assert_eq!((mode("a/object"), mode("a")), (file, dir), "umask {umask}, {files:?}");
        }
    }
}
