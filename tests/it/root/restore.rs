//! `pitr-restore` as root, fresh and with `--delta`, into a place where user `postgres` can write and has prepared
//! something. Whatever it is: a tree outside that is root's, and one that is another user's, are as they were, to the
//! last inode.

use std::cell::Cell;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use walvis::fsio::Identity;
use walvis::pg::ControlFile;

use crate::recovery::Archive;
use crate::support::canary::Canary;
use crate::support::command::{Ran, files_below, is_root, run};
use crate::support::postgres::{Cluster, Options, Scratch, Stop};
use crate::support::stored::Copied;

/// Another user, who is neither root nor the server's.
const OTHER: u32 = 65_534;
const VERSION: &str = "PG_15_202209061";
const SPACE: u32 = 16399;
/// Bytes of the file in the tablespace.
static IN_SPACE: [u8; 20_000] = [7; 20_000];

/// A small backup, and a host on which root restores it.
struct Host {
    _scratch: Arc<Scratch>,
    /// Root's directory, with all that follows.
    place: tempfile::TempDir,
    arguments: Vec<String>,
    server: Identity,
    /// What the backup has, by its path.
    files: Vec<(PathBuf, Vec<u8>)>,
    repository_id: String,
    system_id: String,
    backup: String,
    /// Whether files of the canaries have been given second names: they may go.
    second_names: Cell<bool>,
}

impl Host {
    /// `None` where the tests do not run as root.
    fn new() -> Option<Self> {
        if !is_root() {
            eprintln!("skipped: not root");
            return None;
        }
        let scratch = Scratch::new();
        let archive = Archive::walvis(&scratch);
        let options = Options { wal_segsize_mib: 1, ..archive.options() };
        let mut primary = Cluster::init(&scratch, "primary", 15, &options);
        primary.start();
        let backup = primary.backup_to("base");
        primary.switch_and_archive();
        primary.stop(Stop::Fast);
        // As little as a restore needs: it is the paths that matter here.
        for entry in fs::read_dir(&backup.dir).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if entry.path().is_file() && !["PG_VERSION", "backup_label", "postgresql.conf"].contains(&name.as_str()) {
                fs::remove_file(entry.path()).unwrap();
            } else if entry.path().is_dir() && !["global", "pg_wal", "pg_tblspc"].contains(&name.as_str()) {
                fs::remove_dir_all(entry.path()).unwrap();
            }
        }
        for entry in fs::read_dir(backup.dir.join("global")).unwrap().map(Result::unwrap) {
            if entry.file_name() != "pg_control" {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        for name in ["base/5/1", "base/5/2", "base/6/1", "pg_xact/0000"] {
            let path = backup.dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            scratch.write(&path, &content[..4096 * name.len()]);
        }
        // What a manifest claims, and must not get.
        chown(backup.dir.join("base/5/2"), Some(0), Some(0)).unwrap();
        let place = tempfile::tempdir().unwrap();
        let at = |path: &str| place.path().join(path);
        mode(place.path(), 0o755);
        let server = Identity::of_user(fs::metadata(&backup.dir).unwrap().uid(), 0);
        let copy = at("copy");
        fs::create_dir_all(copy.join(VERSION).join("5")).unwrap();
        fs::write(copy.join(VERSION).join("5/3"), IN_SPACE).unwrap();
        let (repository, key) = (scratch.path().join("repository"), scratch.path().join("walvis.key"));
        let copied = Copied::new(&repository, &key, &backup.dir, backup.stop_lsn, 15);
        let copied = Copied { tablespaces: vec![(SPACE, at("users/space"), copy.clone())], ..copied };
        let (id, opened) = (copied.store(), copied.open());
        let control = ControlFile::parse(&fs::read(backup.dir.join("global/pg_control")).unwrap()).unwrap();
        scratch.give_all(&repository);
        let of_backup = |path: PathBuf| (path.strip_prefix(&backup.dir).unwrap().to_owned(), fs::read(&path).unwrap());
        let mut files: Vec<_> = files_below(&backup.dir).into_iter().map(of_backup).collect();
        files.retain(|(path, _)| path.to_str() != Some("tablespace_map"));
        let arguments = [
            "--cluster",
            "main",
            "--repository",
            &format!("file://{}", repository.display()),
            "--key-file",
            key.to_str().unwrap(),
        ];
        let arguments = arguments.map(str::to_owned).to_vec();
        let host = Self {
            _scratch: scratch,
            place,
            arguments,
            server,
            files,
            repository_id: hex::encode(opened.descriptor().repository_id),
            system_id: control.system_id.to_string(),
            backup: id.to_string(),
            second_names: Cell::new(false),
        };
        host.begin_anew();
        Some(host)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.place.path().join(path)
    }

    /// The canaries and an empty place for the server's user.
    fn begin_anew(&self) {
        for path in ["users", "canary"] {
            if self.at(path).exists() {
                fs::remove_dir_all(self.at(path)).unwrap();
            }
        }
        self.make("users", self.server.owner().uid, 0o755);
        self.make("canary", 0, 0o755);
        for (name, owner) in [("root", 0), ("other", OTHER), ("server", self.server.owner().uid)] {
            let of = |path: &str| format!("canary/{name}/{path}");
            self.make(&format!("canary/{name}"), owner, 0o755);
            for (path, bits) in [("empty", 0o755), ("full", 0o755), ("full/5", 0o755), ("open", 0o777)] {
                self.make(&of(path), owner, bits);
            }
            self.make(&of(&format!("full/{VERSION}")), owner, 0o755);
            self.make(&of(&format!("full/{VERSION}/5")), owner, 0o755);
            for path in ["secret", "full/1", "full/5/1", "full/5/2", "full/pg_control", &format!("full/{VERSION}/5/3")] {
                let path = self.at(&of(path));
                fs::write(&path, format!("precious {name}")).unwrap();
                chown(&path, Some(owner), Some(owner)).unwrap();
                mode(&path, 0o600);
            }
            // One that everybody may write to: no permission keeps it.
            let path = self.at(&of("full/0000"));
            fs::write(&path, "open to all").unwrap();
            chown(&path, Some(owner), Some(owner)).unwrap();
            mode(&path, 0o666);
        }
    }

    fn make(&self, path: &str, owner: u32, bits: u32) {
        let path = self.at(path);
        fs::create_dir(&path).unwrap();
        let group = if owner == self.server.owner().uid { self.server.owner().gid } else { owner };
        chown(&path, Some(owner), Some(group)).unwrap();
        mode(&path, bits);
    }

    /// A link that the server's user made.
    fn link(&self, target: &str, path: &str) {
        let path = self.at(path);
        symlink(self.at(target), &path).unwrap();
        lchown(path, Some(self.server.owner().uid), Some(self.server.owner().gid)).unwrap();
    }

    fn clear(&self, path: &str) {
        let path = self.at(path);
        match path.symlink_metadata() {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).unwrap(),
            Ok(_) => fs::remove_file(path).unwrap(),
            Err(_) => {}
        }
    }

    /// While somebody swaps what is there.
    fn clear_quietly(&self, path: &str) {
        let path = self.at(path);
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
    }

    /// A second name for a file of somebody's: `protected_hardlinks` may be off.
    fn second_name(&self, of: &str, path: &str) {
        self.clear(path);
        self.second_names.set(true);
        fs::hard_link(self.at(of), self.at(path)).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(crate::support::command::WALVIS);
        command.args(&self.arguments).arg("pitr-restore").arg("--pgdata").arg(self.at("users/data"));
        command.args(["--target", "immediate", "--jobs", "2"]).args(arguments);
        command
    }

    /// Restores as root; the canaries are as they were.
    #[track_caller]
    fn restore(&self, what: &str, arguments: &[&str]) -> Ran {
        let whole = self.at("canary");
        let canary = if self.second_names.take() { Canary::but_for_names(&whole) } else { Canary::of(&whole) };
        let ran = run(&mut self.command(arguments));
        canary.is_unchanged(what);
        assert!([0, 10, 14, 16].contains(&ran.code()), "{what}: {ran:?}");
        ran
    }

    #[track_caller]
    fn restores(&self, what: &str, arguments: &[&str]) {
        let ran = self.restore(what, arguments);
        assert_eq!(ran.code(), 0, "{what}: {ran:?}");
        self.is_whole(what);
    }

    #[track_caller]
    fn refuses(&self, what: &str, arguments: &[&str], code: i32) -> Ran {
        let ran = self.restore(what, arguments);
        assert_eq!(ran.code(), code, "{what}: {ran:?}");
        ran.tells_the_way_out()
    }

    /// Everything is there, is the server's, and has the permissions that PostgreSQL uses.
    #[track_caller]
    fn is_whole(&self, what: &str) {
        let data = self.at("users/data");
        for (path, content) in &self.files {
            assert!(fs::read(data.join(path)).unwrap() == *content, "{what}: {}", path.display());
        }
        let space = fs::canonicalize(data.join(format!("pg_tblspc/{SPACE}"))).unwrap();
        assert_eq!(fs::read(space.join(VERSION).join("5/3")).unwrap(), IN_SPACE, "{what}");
        let mut open = vec![data, space.join(VERSION)];
        while let Some(path) = open.pop() {
            let meta = path.symlink_metadata().unwrap();
            let owner = self.server.owner();
            assert_eq!((meta.uid(), meta.gid()), (owner.uid, owner.gid), "{what}: {}", path.display());
            if meta.is_dir() {
                assert!([0o700, 0o750].contains(&(meta.mode() & 0o7777)), "{what}: {} {:o}", path.display(), meta.mode());
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else if meta.is_file() {
                assert_eq!(meta.nlink(), 1, "{what}: {}", path.display());
                assert_eq!(meta.mode() & 0o7027, 0, "{what}: {} {:o}", path.display(), meta.mode());
            }
        }
    }

    /// The note of an unfinished restore of this very backup, as the server's user could write it.
    fn forge_note(&self, tablespaces: &[&str], waldir: Option<&str>) {
        let note = serde_json::json!({
            "about": "",
            "repository_id": self.repository_id,
            "cluster": "main",
            "system_id": self.system_id,
            "backup": self.backup,
            "tablespaces": tablespaces.iter().map(|path| self.at(path)).collect::<Vec<_>>(),
            "waldir": waldir.map(|path| self.at(path)),
        });
        fs::write(self.at("users/data/walvis.restore"), note.to_string()).unwrap();
        self.own("users/data/walvis.restore");
    }

    fn own(&self, path: &str) {
        lchown(self.at(path), Some(self.server.owner().uid), Some(self.server.owner().gid)).unwrap();
    }

    /// A restored directory that is the server's user's.
    fn restored(&self) {
        self.clear("users/data");
        self.clear("users/space");
        self.restores("the first restore", &[ORIGINAL]);
    }
}

const ORIGINAL: &str = "--tablespaces-at-original-places";

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Where links lead that the server's user plants: into root's tree, and into another user's.
const TREES: [&str; 2] = ["root", "other"];
/// Below the data directory nothing leads outside, not even to what the server's user may change: no permission keeps
/// that.
const TREES_BELOW: [&str; 3] = ["root", "other", "server"];

#[test]
fn a_fresh_restore_touches_nothing_outside() {
    let Some(host) = Host::new() else { return };
    // Nobody named the tablespace's place.
    host.refuses("no word on tablespaces", &[], 16).says(&[ORIGINAL]);
    assert!(!host.at("users/data").exists() && !host.at("users/space").exists());
    for tree in TREES {
        let outside = |path: &str| format!("canary/{tree}/{path}");
        for directory in ["empty", "full", "open"] {
            host.link(&outside(directory), "users/data");
            host.refuses("a link as --pgdata", &[ORIGINAL], 16);
            host.refuses("a link as --pgdata, with --delta", &[ORIGINAL, "--delta"], 16);
            host.clear("users/data");

            host.link(&outside(directory), "users/space");
            host.refuses("a link as a tablespace's place", &[ORIGINAL], 16);
            host.clear("users/space");

            host.link(&outside(directory), "users/wal");
            let waldir = host.at("users/wal");
            host.refuses("a link as --waldir", &[ORIGINAL, "--waldir", waldir.to_str().unwrap()], 16);
            host.clear("users/wal");
        }
        host.make("users/space", host.server.owner().uid, 0o700);
        host.link(&outside(&format!("full/{VERSION}")), &format!("users/space/{VERSION}"));
        host.refuses("a link in a tablespace's place", &[ORIGINAL], 16);
        host.clear("users/space");
    }
    for tree in TREES_BELOW {
        let outside = |path: &str| format!("canary/{tree}/{path}");
        // A forged note has a fresh restore go on with what lies there.
        let data = || {
            host.clear("users/data");
            host.clear("users/space");
            host.make("users/data", host.server.owner().uid, 0o700);
        };
        for name in ["base", "global", "pg_xact", "pg_wal", "pg_tblspc"] {
            for directory in ["full", "open"] {
                data();
                host.link(&outside(directory), &format!("users/data/{name}"));
                host.forge_note(&[&outside("full"), "users/space"], Some(&outside("full")));
                host.restores(&format!("{name} is a link into {tree}'s {directory}"), &[ORIGINAL]);
            }
        }
        data();
        host.make("users/data/pg_tblspc", host.server.owner().uid, 0o700);
        host.link(&outside("full"), &format!("users/data/pg_tblspc/{SPACE}"));
        host.link(&outside("full"), "users/data/pg_tblspc/1");
        host.forge_note(&[&outside("full"), "users/space"], None);
        host.restores("links in pg_tblspc", &[ORIGINAL]);
        for file in ["secret", "full/0000"] {
            data();
            host.make("users/data/base", host.server.owner().uid, 0o700);
            host.make("users/data/base/5", host.server.owner().uid, 0o700);
            for name in SECOND_NAMES {
                host.second_name(&outside(file), &format!("users/data/{name}"));
            }
            host.forge_note(&[], None);
            host.second_name(&outside(file), "users/data/walvis.restore.walvis-new");
            host.restores("second names of files outside", &[ORIGINAL]);
        }
        host.clear("users/data");
        host.clear("users/space");
    }
    // A directory that is somebody else's is his.
    host.make("users/data", OTHER, 0o755);
    host.refuses("another user's directory as --pgdata", &[ORIGINAL], 16);
    host.clear("users/data");
    host.make("users/data", 0, 0o755);
    host.refuses("root's directory where another user can replace it", &[ORIGINAL], 16);
    // What is root's alone is made, and given to the server's user.
    host.begin_anew();
    host.restores("an ordinary restore", &[ORIGINAL]);
}

/// Names that the restore writes, by way of which it could write to something else.
const SECOND_NAMES: [&str; 8] = [
    "PG_VERSION",
    "base/5/1",
    "backup_label",
    "backup_manifest",
    "postgresql.auto.conf",
    "postgresql.auto.conf.walvis-new",
    "recovery.signal",
    "tablespace_map.walvis-new",
];

#[test]
fn a_delta_restore_touches_nothing_outside() {
    let Some(host) = Host::new() else { return };
    let delta = [ORIGINAL, "--delta", "--discard-unarchived-wal", "--server-is-stopped"];
    let user = host.server.owner().uid;
    host.restored();
    for tree in TREES_BELOW {
        let outside = |path: &str| format!("canary/{tree}/{path}");
        for name in ["base", "base/5", "pg_xact", "pg_wal", "pg_tblspc", &format!("pg_tblspc/{SPACE}"), "stray"] {
            for directory in ["full", "open", "empty"] {
                host.clear(&format!("users/data/{name}"));
                host.link(&outside(directory), &format!("users/data/{name}"));
                if name.starts_with("pg_tblspc") {
                    // Nothing says any more that what is in the tablespace's place is this cluster's.
                    host.refuses("no link to the tablespace", &delta, 16).says(&["not empty"]);
                    host.clear("users/space");
                }
                host.restores(&format!("{name} is a link into {tree}'s {directory}"), &delta);
            }
        }
        for name in ["PG_VERSION", "base/5/1", "backup_label", "backup_manifest", "postgresql.auto.conf", "walvis-start.log"] {
            for file in ["secret", "full/0000"] {
                host.clear(&format!("users/data/{name}"));
                host.link(&outside(file), &format!("users/data/{name}"));
                // What the server's user cannot read is not read for him.
                if host.restore(&format!("{name} is a link to {tree}'s {file}"), &delta).code() != 0 {
                    host.clear(&format!("users/data/{name}"));
                    host.restores("without it", &delta);
                }
                host.second_name(&outside(file), &format!("users/data/{name}"));
                if host.restore(&format!("{name} is {tree}'s {file}"), &delta).code() != 0 {
                    host.clear(&format!("users/data/{name}"));
                    host.restores("without it", &delta);
                }
            }
        }
        host.make("users/data/stray", user, 0o700);
        host.link(&outside("full"), "users/data/stray/link");
        host.second_name(&outside("full/0000"), "users/data/stray/second");
        host.restores("links below a directory that goes", &delta);
        host.forge_note(&[&outside("full")], Some(&outside("full")));
        host.restores("a forged note", &delta);
    }
    for tree in TREES {
        let outside = |path: &str| format!("canary/{tree}/{path}");
        // The tablespace's place is the server's user's, and so he can replace it.
        for directory in ["full", "empty", "open"] {
            host.clear("users/space");
            host.link(&outside(directory), "users/space");
            host.refuses("a link as a tablespace's place", &delta, 16);
        }
        host.clear("users/space");
        host.make("users/space", user, 0o700);
        host.link(&outside(&format!("full/{VERSION}")), &format!("users/space/{VERSION}"));
        host.refuses("a link in a tablespace's place", &delta, 16);
        host.clear("users/space");
        host.restores("without it", &delta);

        let wal = host.at("users/wal");
        let with_wal = [&delta[..], &["--waldir", wal.to_str().unwrap()]].concat();
        host.clear("users/data/pg_wal");
        host.link("users/wal", "users/data/pg_wal");
        host.link(&outside("full"), "users/wal");
        host.refuses("a link as --waldir that pg_wal leads to", &with_wal, 16);
        host.clear("users/wal");
        host.restores("without it", &with_wal);
        assert_eq!(fs::metadata(&wal).unwrap().uid(), user);
        host.restores("pg_wal where it belongs", &delta);
        host.clear("users/wal");
    }
    // What is not the cluster's in its tablespace's place.
    let beside = ["other-data", "PG_14_202107181", "lost+found"];
    for (name, owner) in beside.into_iter().zip([0, user, 0]) {
        host.make(&format!("users/space/{name}"), owner, 0o711);
        fs::write(host.at(&format!("users/space/{name}/file")), "precious").unwrap();
    }
    mode(&host.at("users/space"), 0o751);
    let kept: Vec<Canary> = beside.iter().map(|name| Canary::of(&host.at(&format!("users/space/{name}")))).collect();
    fs::write(host.at(&format!("users/space/{VERSION}/stray")), "").unwrap();
    host.restores("others' data beside a tablespace", &delta);
    assert!(!host.at(&format!("users/space/{VERSION}/stray")).exists());
    host.clear("users/data");
    host.clear(&format!("users/space/{VERSION}"));
    host.restores("others' data beside a tablespace that is made anew", &[ORIGINAL]);
    kept.iter().for_each(|canary| canary.is_unchanged("both"));
    assert_eq!(fs::metadata(host.at("users/space")).unwrap().mode() & 0o7777, 0o751);
}

/// Swaps names for links while restores run, as the server's user and with nothing but his rights.
fn swap(place: &Path, server: Identity, stop: &AtomicBool) -> u64 {
    let _as = server.enter().unwrap();
    let mut random = fastrand::Rng::new();
    let names = [
        "users/data",
        "users/data/base",
        "users/data/base/5",
        "users/data/base/5/1",
        "users/data/base/5/1",
        "users/data/global",
        "users/data/global/pg_control",
        "users/data/pg_tblspc",
        "users/data/pg_tblspc/16399",
        "users/data/pg_wal",
        "users/data/walvis.restore",
        "users/data/walvis.restore.walvis-new",
        "users/data/backup_manifest",
        "users/data/postgresql.auto.conf",
        "users/data/postgresql.auto.conf.walvis-new",
        "users/space",
        "users/space/PG_15_202209061",
        "users/space/PG_15_202209061/5",
        "users/space/PG_15_202209061/5/3",
    ];
    // Not into the directory that is open to all: what the swapper does would go there too.
    let targets = ["full", "empty", "secret", "full/0000", "full/5", "full/PG_15_202209061", "full/PG_15_202209061/5/3"];
    let mut swaps = 0;
    let mut pause = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let path = place.join(names[random.usize(..names.len())]);
        let away = place.join(format!("users/away{}", random.u32(..)));
        let target = place.join(format!("canary/{}/{}", TREES[random.usize(..2)], targets[random.usize(..targets.len())]));
        if fs::rename(&path, &away).is_err() {
            // Before the restore gets there.
            swaps += u64::from(random.u8(..8) == 0 && symlink(&target, &path).is_ok());
            std::thread::yield_now();
            continue;
        }
        swaps += 1;
        let planted = match random.u8(..4) {
            0 => fs::hard_link(&target, &path).or_else(|_| symlink(&target, &path)),
            _ => symlink(&target, &path),
        };
        for _ in 0..random.u32(..2000) {
            std::hint::spin_loop();
        }
        if planted.is_ok() {
            let _ = fs::remove_file(&path);
        }
        // Back, unless the restore was faster.
        if random.bool() || fs::rename(&away, &path).is_err() {
            let _ = fs::remove_dir_all(&away).or_else(|_| fs::remove_file(&away));
        }
        // At times a restore is to get far, at times not a step.
        if swaps % 40 == 0 {
            pause = Duration::from_micros([0, 300, 3_000, 15_000][random.usize(..4)]);
        }
        std::thread::sleep(pause);
    }
    swaps
}

/// 200 restores, fresh ones and with `--delta`, under somebody who swaps directories, files and links all the time.
#[test]
fn nothing_is_lost_and_nothing_given_away_in_a_race() {
    const ROUNDS: u32 = 200;
    let Some(host) = Host::new() else { return };
    let canary = Canary::but_for_names(&host.at("canary"));
    let stop = AtomicBool::new(false);
    let (place, server) = (host.place.path().to_owned(), host.server);
    let (mut whole, mut ended) = (0, 0);
    let swaps = std::thread::scope(|scope| {
        let swapper = scope.spawn(|| swap(&place, server, &stop));
        // Whatever becomes of the rounds, the swapper ends.
        let rounds = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..ROUNDS {
                let arguments: &[&str] = match round % 4 {
                    0 => {
                        let _as = host.server.enter().unwrap();
                        host.clear_quietly("users/data");
                        host.clear_quietly("users/space");
                        &[ORIGINAL]
                    }
                    _ => &[ORIGINAL, "--delta", "--discard-unarchived-wal", "--server-is-stopped"],
                };
                let ran = run(&mut host.command(arguments));
                match ran.code() {
                    0 => whole += 1,
                    10 | 14 | 16 => {
                        ended += 1;
                        ran.tells_the_way_out();
                    }
                    code => panic!("round {round}: exit code {code}: {ran:?}"),
                }
                if round % 20 == 0 {
                    canary.is_unchanged(&format!("round {round}"));
                }
            }
        }));
        stop.store(true, Ordering::Relaxed);
        let swaps = swapper.join().unwrap();
        rounds.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        swaps
    });
    canary.is_unchanged("all rounds");
    eprintln!("{ROUNDS} restores, {swaps} swaps: {whole} succeeded, {ended} ended with an error");
    assert!(swaps > u64::from(ROUNDS) && ended > 0, "{swaps} swaps, {ended} errors: nothing was swapped in time");
    // And then it is as good as ever.
    host.begin_anew();
    host.restores("a restore in peace", &[ORIGINAL]);
}
