//! Pushing ahead of the archiver: what is on record is stored, records are never believed beyond what they prove, and
//! no helper changes what a call answers.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use walvis::limits::AHEAD_FILES;

use crate::support::ahead::{Ahead, field, forge, hide_key, hold, puts, show_key, start_waiting};
use crate::support::command::{Site, WALVIS, eventually, is_root, names_in, run};
use crate::support::s3::{Op, S3Server};
use crate::support::segment::{self, Content, Segment};

/// With some segments on record that were not asked for yet, and the first of the backlog archived.
fn ahead(count: u64) -> (Site, Vec<String>) {
    let site = Site::new();
    let mut names = site.backlog(1..=count + 1);
    site.archives(&names.remove(0));
    site.await_records(&names);
    (site, names)
}

#[test]
fn a_backlog_is_stored_once_and_answered_from_records() {
    let site = Site::new();
    let mut names = site.backlog(1..=20);
    for (name, content) in
        [("00000002.history".to_owned(), segment::history(&[(1, 0x300000)])), segment::backup(&Segment::new(3))]
    {
        site.write(&name, content);
        site.is_ready(&name);
        names.push(name);
    }
    let status = names_in(&site.data().join("pg_wal/archive_status"));
    site.push(&names[0]).exits(0);
    site.await_records(&names[1..]);
    assert_eq!(names_in(&site.data().join("pg_wal/archive_status")), status, "a helper touched what is the server's");
    let mut stored = site.stored();
    stored.sort();
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(stored, sorted);

    // No key, and a repository that can be neither read nor written: only that it is there is looked at.
    hide_key(&site);
    for name in &names[1..] {
        site.push(name).exits(0);
        let json = site.run(["push-wal", "--json", &format!("pg_wal/{name}")]).exits(0).stdout;
        assert!(json.contains("already_stored") && json.contains(name.as_str()), "{json}");
    }
    // The first was pushed by the call itself.
    site.push(&names[0]).exits(10);
    show_key(&site);
    for name in &names {
        site.fetches(name);
    }
    assert_eq!(fs::metadata(site.spool()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_record_proves_this_very_file_and_nothing_else() {
    let (site, names) = ahead(6);
    hide_key(&site);
    let wal = |name: &String| site.wal(name);
    // The same content, written anew.
    let bytes = fs::read(wal(&names[0])).unwrap();
    fs::write(wal(&names[0]), &bytes).unwrap();
    site.push(&names[0]).exits(10);
    // A copy with all attributes, as in a data directory that was restored.
    let copied = std::process::Command::new("cp").arg("-a").arg(wal(&names[1])).arg(site.wal("copy")).status().unwrap();
    assert!(copied.success());
    fs::rename(site.wal("copy"), wal(&names[1])).unwrap();
    site.push(&names[1]).exits(10);
    // Renamed away and back: the inode, but not its change time.
    fs::rename(wal(&names[2]), site.wal("away")).unwrap();
    fs::rename(site.wal("away"), wal(&names[2])).unwrap();
    site.push(&names[2]).exits(10);
    // A recycled file under the next name.
    fs::rename(wal(&names[4]), wal(&names[3])).unwrap();
    site.push(&names[3]).exits(14);
    // A record under another name.
    fs::rename(site.record(&names[5]), site.record(&names[4])).unwrap();
    fs::copy(wal(&names[5]), wal(&names[4])).unwrap();
    site.push(&names[4]).exits(14);
    // Not there at all.
    fs::remove_file(wal(&names[5])).unwrap();
    site.push(&names[5]).exits(10);
    show_key(&site);
    site.push(&names[0]).exits(0);
    fs::write(wal(&names[0]), Segment::new(2).holding(Content::Records(99)).bytes()).unwrap();
    site.push(&names[0]).exits(13);
}

#[test]
fn a_record_counts_for_its_boot_its_settings_and_its_time() {
    let (mut site, names) = ahead(7);
    hide_key(&site);
    let at: u64 = field(&site.record(&names[0]), "at").parse().unwrap();
    // The forger works: what is the same is still believed.
    forge(&site.record(&names[0]), "at", &at.to_string());
    site.push(&names[0]).exits(0);
    for (name, key, value) in [
        (&names[0], "boot", "00000000-0000-0000-0000-000000000000".to_owned()),
        (&names[1], "at", at.saturating_sub(301_000).to_string()),
        (&names[2], "at", (at + 3_600_000).to_string()),
        (&names[3], "settings", "00".repeat(16)),
        (&names[4], "identity", "1 2 3 4.5 6.7".to_owned()),
    ] {
        if key == "at" && at < 301_000 {
            continue;
        }
        forge(&site.record(name), key, &value);
        site.push(name).exits(10);
    }
    // A bit of it, or half of it.
    let mut bytes = fs::read(site.record(&names[5])).unwrap();
    bytes[40] ^= 1;
    fs::write(site.record(&names[5]), &bytes).unwrap();
    site.push(&names[5]).exits(10);
    fs::write(site.record(&names[5]), &bytes[..50]).unwrap();
    site.push(&names[5]).exits(10);

    let last = &names[6];
    site.push(last).exits(0);
    for (name, value) in
        [("WALVIS_CLUSTER", "other"), ("AWS_PROFILE", "other"), ("WALVIS_KEY_FILE", "/other"), ("WALVIS_SPOOL", "off")]
    {
        let before = site.get(name);
        site.set(name, value);
        site.push(last).exits(10);
        site.unset(name);
        if let Some(before) = before {
            site.set(name, before);
        }
    }
    site.push(last).exits(0);
}

/// How many threads and processes a call starts.
fn starts(site: &Site, name: &str) -> usize {
    let log = site.path("starts");
    let strace = ["strace", "-f", "-o", log.to_str().unwrap(), "-e", "trace=clone,clone3,fork,vfork", WALVIS];
    let mut command = site.wrapped(strace, ["push-wal", &format!("pg_wal/{name}")]);
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    run(&mut command).exits(0);
    let seen = fs::read_to_string(&log).unwrap();
    seen.lines().filter(|line| line.contains("clone") || line.contains("fork")).filter(|line| !line.contains("resumed")).count()
}

fn is_on_a_disk(path: &Path) -> bool {
    nix::sys::stat::major(fs::metadata(path).unwrap().dev()) != 0
}

/// A watchdog costs a tenth of such a call. It is left out only where nothing that the call looks at can hang.
#[test]
fn a_call_whose_work_is_done_has_a_watchdog_only_where_something_may_hang() {
    let (site, names) = ahead(2);
    assert_eq!(starts(&site, &names[0]), usize::from(is_root() || !is_on_a_disk(site.dir())));
    // One that does something has one in any case.
    fs::remove_file(site.record(&names[1])).unwrap();
    assert!(starts(&site, &names[1]) > 0);

    // A repository of which the host does not know whether it answers: it has no disk of its own.
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else { return };
    assert!(!is_on_a_disk(elsewhere.path()));
    let mut site = Site::without_repository();
    site.set("WALVIS_REPOSITORY", format!("file://{}/repository", elsewhere.path().display()));
    site.init();
    let names = site.backlog(1..=2);
    site.archives(&names[0]);
    site.await_records(&names[1..]);
    assert_eq!(starts(&site, &names[1]), 1);
}

#[test]
fn a_repository_in_the_place_of_another_one_is_not_taken_for_it() {
    let (site, names) = ahead(2);
    // No helper shall put it on record again.
    fs::remove_file(site.status(&names[1], "ready")).unwrap();
    let aside = site.path("aside");
    fs::rename(site.repository(), &aside).unwrap();
    site.push(&names[0]).exits(10).says(&["repository"]);
    site.init_sharing_the_key();
    // Stored anew, in the new one.
    site.push(&names[0]).exits(0);
    assert_eq!(site.stored(), names[..1]);
    // The old one again: what is on record about it counts again.
    fs::remove_dir_all(site.repository()).unwrap();
    fs::rename(&aside, site.repository()).unwrap();
    hide_key(&site);
    site.push(&names[1]).exits(0);
    // A copy of it is not what the record is about.
    let copied = std::process::Command::new("cp").arg("-a").arg(site.repository()).arg(site.path("copy")).status().unwrap();
    assert!(copied.success());
    fs::rename(site.repository(), &aside).unwrap();
    fs::rename(site.path("copy"), site.repository()).unwrap();
    site.push(&names[1]).exits(10);
}

#[test]
fn nobody_helps_where_nobody_archives() {
    for what in ["no status", "one", "another file", "off"] {
        let mut site = Site::new();
        let names = if what == "no status" {
            [1, 2].map(|number| site.make(&Segment::new(number))).to_vec()
        } else if what == "one" {
            site.backlog([1])
        } else {
            site.backlog([1, 2])
        };
        if what == "another file" {
            fs::remove_file(site.status(&names[0], "ready")).unwrap();
            site.backlog([3]);
        }
        if what == "off" {
            site.set("WALVIS_SPOOL", "off");
        }
        site.push(&names[0]).exits(0);
        assert!(!site.spool().exists(), "{what}");
        assert_eq!(site.helper(), None, "{what}");
    }
}

#[test]
fn the_flag_of_helpers_is_of_no_use_in_the_servers_settings() {
    let mut site = Site::new();
    let names = site.backlog([1, 2]);
    let path = format!("pg_wal/{}", names[0]);
    site.run(["push-wal", "--ahead", &path]).exits(2).tells_the_way_out().says(&["only for helpers"]);
    site.run(["fetch-wal", "--ahead", &names[0], "pg_wal/RECOVERYXLOG"])
        .exits(200)
        .tells_the_way_out()
        .says(&["only for helpers"]);
    site.set("WALVIS_HELPER", "1");
    site.run(["push-wal", &path, "--ahead"]).exits(2);
    site.run(["fetch-wal", &names[0], "pg_wal/RECOVERYXLOG", "--ahead"]).exits(200);
    assert!(site.stored().is_empty());
    // As a helper it has no exit code but 0, whatever is wrong: a server that is the first process of a container
    // inherits it.
    site.set("WALVIS_REPOSITORY", "file:///nonexistent");
    fs::create_dir_all(site.spool()).unwrap();
    fs::set_permissions(site.spool(), fs::Permissions::from_mode(0o700)).unwrap();
    for arguments in [vec![path.as_str()], vec![], vec!["nonsense"], vec!["--nonsense"], vec!["/nonexistent/pg_wal/0"]] {
        site.run([vec!["push-wal", "--ahead"], arguments].concat()).exits(0);
    }
    site.run(["fetch-wal", "--ahead", &names[0], "pg_wal/RECOVERYXLOG"]).exits(0);
}

#[test]
fn a_call_waits_for_the_helper_that_works_on_its_file() {
    let server = S3Server::start();
    let site = Site::on_s3(&server);
    let names = site.backlog(1..=6);
    let barrier = hold(&server, Op::Put, &names[2]);
    site.archives(&names[0]);
    // The others are not held up by the one that is slow.
    eventually("the others are on record", || [1, 3, 4, 5].iter().all(|n| site.record(&names[*n]).exists()));
    let helper = site.helper().unwrap();
    site.archives(&names[1]);
    let requests = server.seen(Op::Get).len();
    let waiting = start_waiting(&site, &["push-wal", &format!("pg_wal/{}", names[2])]);
    // It would have asked the store for the descriptor.
    assert_eq!(server.seen(Op::Get).len(), requests);

    // The helper is in a session of its own and has nothing of ours.
    let stat = fs::read_to_string(format!("/proc/{helper}/stat")).unwrap();
    let session = stat.rsplit(')').next().unwrap().split_whitespace().nth(3).unwrap();
    assert_eq!(session, helper.to_string());
    // The memory of a helper is closed, and with it what it has open, but to root.
    for fd in (0..3).filter(|_| is_root()) {
        assert_eq!(fs::read_link(format!("/proc/{helper}/fd/{fd}")).unwrap(), Path::new("/dev/null"));
    }

    barrier.wait();
    waiting.wait().exits(0);
    assert_eq!(puts(&server, &names[2]), 1);
    for name in &names[3..] {
        site.push(name).exits(0);
        assert_eq!(puts(&server, name), 1);
    }
    server.unhook();
    site.await_no_helper();
    names.iter().for_each(|name| site.fetches(name));
}

/// Descriptors that the server's shell passes on reach no helper.
#[test]
fn a_helper_closes_what_it_inherits() {
    if !is_root() {
        eprintln!("skipped: only root sees what a helper has open");
        return;
    }
    let server = S3Server::start();
    let site = Site::on_s3(&server);
    let names = site.backlog(1..=2);
    let barrier = hold(&server, Op::Put, &names[1]);
    let fifo = site.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut command = site.wrapped(["sh", "-c", "exec 7<>\"$0\" && exec \"$@\""], [fifo.as_os_str(), WALVIS.as_ref()]);
    command.env("PATH", "/usr/bin:/bin").args(["push-wal", &format!("pg_wal/{}", names[0])]);
    run(&mut command).exits(0);
    eventually("it is held", || puts(&server, &names[1]) == 1);
    let helper = site.helper().unwrap();
    let open: Vec<PathBuf> =
        fs::read_dir(format!("/proc/{helper}/fd")).unwrap().filter_map(|e| fs::read_link(e.unwrap().path()).ok()).collect();
    assert!(!open.contains(&fifo), "{open:?}");
    barrier.wait();
    server.unhook();
    site.await_records(&names[1..]);
}

#[test]
fn a_helper_killed_or_frozen_in_the_middle_costs_nothing_but_time() {
    for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
        let server = S3Server::start();
        let site = Site::on_s3(&server);
        let names = site.backlog(1..=8);
        let barrier = hold(&server, Op::Put, &names[3]);
        site.archives(&names[0]);
        eventually("it is in the middle", || puts(&server, &names[3]) == 1 && site.record(&names[1]).exists());
        kill(Pid::from_raw(site.helper().unwrap()), signal).unwrap();
        // What it had sent arrives, or not.
        barrier.wait();
        server.unhook();
        for name in &names[1..] {
            site.archives(name).within(Duration::from_secs(15));
        }
        names.iter().for_each(|name| site.fetches(name));
        if signal == Signal::SIGKILL {
            site.await_no_helper();
        }
    }
}

#[test]
fn a_helper_stops_at_what_cannot_be_archived_and_its_call_says_why() {
    let site = Site::new();
    let names = site.backlog(1..=80);
    fs::write(site.wal(&names[3]), vec![0; walvis::limits::MIB]).unwrap();
    site.archives(&names[0]);
    site.await_no_helper();
    for name in &names[1..3] {
        site.archives(name);
    }
    for _ in 0..3 {
        site.push(&names[3]).exits(14).tells_the_way_out().says(&["not what its name says"]);
        site.await_no_helper();
    }
    assert!(site.stored().len() < AHEAD_FILES + 4, "{} files are stored, with a gap", site.stored().len());
    site.make(&Segment::new(4));
    names[3..].iter().for_each(|name| drop(site.archives(name)));
    assert_eq!(site.stored().len(), names.len());
}

#[test]
fn what_vanishes_between_listing_and_reading_is_passed_over() {
    let site = Site::new();
    let names = site.backlog(1..=9);
    for gone in [3, 5] {
        fs::remove_file(site.wal(&names[gone])).unwrap();
    }
    site.archives(&names[0]);
    let there: Vec<String> = [1, 2, 4, 6, 7, 8].map(|n| names[n].clone()).to_vec();
    site.await_records(&there);
    assert!(!site.record(&names[3]).exists());
    site.push(&names[3]).exits(10);
}

#[test]
fn a_thousand_files_wait() {
    let site = Site::new();
    let names: Vec<String> = (2..=1001).map(|timeline| format!("{timeline:08X}.history")).collect();
    for name in &names {
        site.write(name, segment::history(&[(1, 0x300000)]));
        site.is_ready(name);
    }
    site.archives(&names[0]);
    // Nobody asks: it stops, with no more done than that, and ends.
    site.await_no_helper();
    assert_eq!(names_in(&site.spool().join("pushed")).len(), AHEAD_FILES);
    assert_eq!(site.stored().len(), AHEAD_FILES + 1);
    for name in &names[1..] {
        site.archives(name);
    }
    assert_eq!(site.stored().len(), names.len());
    site.await_no_helper();
    // Records of what was asked for do not pile up.
    assert!(names_in(&site.spool().join("pushed")).len() <= 2 * AHEAD_FILES);
}

#[test]
fn a_spool_that_cannot_be_used_is_done_without() {
    for how in ["a file", "a link", "open to others", "somebody else's", "read only", "nowhere"] {
        let mut site = Site::new();
        let names = site.backlog(1..=4);
        let spool = site.spool();
        match how {
            "a file" => fs::write(&spool, "").unwrap(),
            "a link" => std::os::unix::fs::symlink(site.path("repository"), &spool).unwrap(),
            "nowhere" => site.set("WALVIS_SPOOL", "/proc/nonexistent"),
            _ => {
                fs::create_dir_all(spool.join("pushed")).unwrap();
                fs::set_permissions(&spool, fs::Permissions::from_mode(0o700)).unwrap();
            }
        }
        match how {
            "open to others" => fs::set_permissions(&spool, fs::Permissions::from_mode(0o750)).unwrap(),
            "somebody else's" if nix::unistd::geteuid().is_root() => {
                std::os::unix::fs::chown(&spool, Some(65534), Some(65534)).unwrap()
            }
            // A directory where a file is to be: what cannot be written, for root too.
            "read only" => fs::create_dir_all(spool.join("push.lock")).unwrap(),
            _ => {}
        }
        for name in &names {
            site.archives(name);
        }
        site.await_no_helper();
        names.iter().for_each(|name| site.fetches(name));
    }
}

#[test]
fn a_spool_that_vanishes_ends_its_helper() {
    let server = S3Server::start();
    let site = Site::on_s3(&server);
    let names = site.backlog(1..=30);
    server.set_latency(Duration::from_millis(20));
    site.archives(&names[0]);
    eventually("it works", || site.record(&names[1]).exists());
    eventually("it is removed", || fs::remove_dir_all(site.spool()).is_ok());
    site.await_no_helper();
    for name in &names[1..] {
        site.archives(name);
    }
    names.iter().for_each(|name| site.fetches(name));
}

#[test]
fn a_full_spool_is_done_without() {
    let mut site = Site::new();
    let mount = site.path("full");
    fs::create_dir(&mount).unwrap();
    // A file system of 16 KiB; who may not mount one takes a device that is always full.
    let status =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755,size=16k", "none"]).arg(&mount).status();
    let is_mounted = status.is_ok_and(|status| status.success());
    site.set("WALVIS_SPOOL", if is_mounted { mount.clone() } else { "/dev/full/spool".into() });
    let names = site.backlog(1..=12);
    for name in &names {
        site.archives(name);
    }
    site.await_no_helper();
    if is_mounted {
        assert!(std::process::Command::new("umount").arg(&mount).status().unwrap().success());
    }
    names.iter().for_each(|name| site.fetches(name));
}

#[test]
fn two_servers_share_a_spool_without_meeting() {
    let mut one = Site::new();
    let spool = one.path("shared");
    one.set("WALVIS_SPOOL", &spool);
    let mut two = one.twin();
    two.set("WALVIS_CLUSTER", "two");
    // The same names, and other content.
    let names = one.backlog(1..=12);
    for number in 1..=12 {
        two.make(&Segment::new(number).holding(Content::Records(7)));
    }
    names.iter().for_each(|name| two.is_ready(name));
    std::thread::scope(|scope| {
        for site in [&one, &two] {
            let names = &names;
            scope.spawn(move || names.iter().for_each(|name| drop(site.archives(name))));
        }
    });
    assert_eq!(names_in(&spool).len(), 2);
    for site in [&one, &two] {
        site.await_no_helper();
        names.iter().for_each(|name| site.fetches(name));
    }
}

#[test]
fn two_archivers_of_one_directory_agree() {
    let site = Site::new();
    let names = site.backlog(1..=12);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| names.iter().for_each(|name| drop(site.push(name).exits(0))));
        }
    });
    site.await_no_helper();
    assert_eq!(site.stored(), names);
}

#[test]
fn what_an_optional_repository_missed_is_said_by_the_call() {
    let mut site = Site::new();
    let text = format!(
        "[[repository]]\nurl = 'file://{}'\nkey_file = '{key}'\n[[repository]]\nurl = 'file:///nonexistent'\nkey_file = '{key}'\noptional = true\n",
        site.repository().display(),
        key = site.path("key").display()
    );
    site.configure(&text);
    let names = site.backlog(1..=4);
    site.archives(&names[0]).says(&["file:///nonexistent"]);
    // Its descriptor is not there, so nothing is answered from records: each call tries, and says.
    site.await_no_helper();
    for name in &names[1..] {
        site.archives(name).says(&["optional repository", "file:///nonexistent"]);
    }

    // On S3 there is no such look.
    let server = S3Server::start();
    let mut site = Site::on_s3(&server);
    site.configure(&format!(
        "[[repository]]\nurl = '{}'\nkey_file = '{key}'\n[[repository]]\nurl = '{}'\nkey_file = '{key}'\noptional = true\n",
        server.url("pg"),
        server.url("none"),
        key = site.path("key").display()
    ));
    let text = fs::read_to_string(site.path("walvis.toml")).unwrap();
    let s3 = format!("[repository.s3]\nendpoint = '{}'\nregion = 'us-east-1'\npath_style = true\n", server.endpoint());
    let text = text.replace("[[repository]]", &format!("{s3}[[repository]]")).replacen(&s3, "", 1) + &s3;
    site.configure(&text);
    for name in ["WALVIS_S3_ENDPOINT", "WALVIS_S3_REGION", "WALVIS_S3_PATH_STYLE"] {
        site.unset(name);
    }
    let names = site.backlog(1..=4);
    site.archives(&names[0]).says(&["/none"]);
    site.await_records(&names[1..]);
    hide_key(&site);
    for name in &names[1..] {
        site.archives(name).says(&["optional repository", "/none"]);
    }
}

/// Segments arrive in any order; the catalog is as complete as if they had come one by one.
#[test]
fn every_node_that_can_be_written_is() {
    let server = S3Server::start();
    server.set_latency(Duration::from_millis(3));
    let site = Site::on_s3(&server);
    let names = site.backlog(16..=70);
    for name in &names {
        site.archives(name);
    }
    site.await_no_helper();
    let objects = server.objects("pg/clusters/");
    let nodes = |level: &str| objects.keys().filter(|key| key.contains(level)).count();
    assert_eq!(nodes("/index/00000001/1/"), 3, "16 to 31, 32 to 47, 48 to 63");
    // What is in them is no WAL, so none is known to follow the one before: `backup::changed` has nodes of changes.
    assert_eq!(nodes("/index/00000001/c1/"), 0, "what they change");
    let report = site.run(["--json", "catalog", "rebuild"]).exits(0).stdout;
    assert!(report.contains("\"written_nodes\": 0") && report.contains("\"written_changes\": 0"), "{report}");
}
