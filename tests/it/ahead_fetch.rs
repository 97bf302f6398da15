//! Fetching ahead of recovery: what is served from the spool is what was authenticated, absence is never told from it,
//! and no helper changes what a call answers.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::ahead::{Ahead, field, forge, hide_key, hold, show_key, start_waiting};
use crate::support::command::{DESTINATION, Site, eventually, names_in};
use crate::support::s3::{Op, S3Server};
use crate::support::segment::{self, Segment};

fn names(numbers: std::ops::RangeInclusive<u64>) -> Vec<String> {
    numbers.map(|number| Segment::new(number).name()).collect()
}

/// In recovery, with so many segments archived.
fn recovering(site: Site, last: u64) -> Site {
    site.archive(&(1..=last).collect::<Vec<_>>());
    site.recovers();
    site
}

/// The first was served, and these are in the spool.
fn ahead(count: u64) -> (Site, Vec<String>) {
    let site = recovering(Site::new(), count + 1);
    site.fetches(&Segment::new(1).name());
    let names = names(2..=count + 1);
    site.await_fetched(&names);
    (site, names)
}

fn gets(server: &S3Server, name: &str) -> usize {
    server.seen(Op::Get).iter().filter(|seen| seen.path.ends_with(&format!("/{name}"))).count()
}

#[test]
fn recovery_is_fed_from_the_spool() {
    let server = S3Server::start();
    let site = recovering(Site::on_s3(&server), 40);
    server.clear_log();
    site.fetches(&Segment::new(1).name());
    // A call that comes before the helper has said what it will do does it itself.
    site.await_fetched(&names(2..=2));
    for name in names(2..=40) {
        site.fetches(&name);
    }
    let all: usize = names(1..=40).iter().map(|name| gets(&server, name)).sum();
    assert!((40..=44).contains(&all), "40 segments were fetched {all} times");
    site.await_no_helper();
    assert!(names_in(&site.spool().join("fetched")).is_empty());
    let opened = server.seen(Op::Get).iter().filter(|seen| seen.path.ends_with("walvis.json")).count();
    assert!(opened < 10, "the repository was opened {opened} times");
    site.fetch_fails(&Segment::new(41).name(), 1);
    // As the server does at the end: the one before once more.
    site.fetches(&Segment::new(40).name());
    site.fetches(&Segment::new(39).name());
}

#[test]
fn a_hit_needs_neither_key_nor_repository_and_is_served_once() {
    let (site, names) = ahead(10);
    hide_key(&site);
    fs::rename(site.repository(), site.path("aside")).unwrap();
    for name in &names[..4] {
        let spooled = fs::metadata(site.fetched(name)).unwrap().ino();
        site.fetch(name).exits(0);
        assert_eq!(fs::metadata(site.destination()).unwrap().ino(), spooled, "it was copied");
        assert_eq!(fs::metadata(site.destination()).unwrap().permissions().mode() & 0o777, 0o600);
        site.fetches_again(name);
    }
    // Nothing of all this says that something is not there.
    for name in [names[0].as_str(), "000000010000000000000FFF", "00000002.history", "000000010000000000000FFF.partial"] {
        site.fetch_fails(name, 200);
    }
    fs::rename(site.path("aside"), site.repository()).unwrap();
    show_key(&site);
    site.fetches(&names[0]);
    site.fetch_fails("00000002.history", 1);
}

trait FetchedAgain {
    fn fetches_again(&self, name: &str);
}

impl FetchedAgain for Site {
    /// What was just fetched is right, and goes.
    #[track_caller]
    fn fetches_again(&self, name: &str) {
        assert!(fs::read(self.destination()).unwrap() == fs::read(self.wal(name)).unwrap(), "{name} came back otherwise");
        fs::remove_file(self.destination()).unwrap();
        assert!(!self.fetched(name).exists() && !self.fetched_record(name).exists());
    }
}

/// Stops the helper, so that it does not mend what a test spoils.
fn freeze(site: &Site) {
    kill(Pid::from_raw(site.helper().unwrap()), Signal::SIGSTOP).unwrap();
}

#[test]
fn what_is_not_in_the_state_in_which_it_was_authenticated_is_not_served() {
    let (mut site, names) = ahead(12);
    freeze(&site);
    hide_key(&site);
    // The forger works.
    let at: u64 = field(&site.fetched_record(&names[0]), "at").parse().unwrap();
    forge(&site.fetched_record(&names[0]), "at", &at.to_string());
    site.fetches(&names[0]);

    let spooled = |n: usize| site.fetched(&names[n]);
    // One byte, and its modification time put back.
    let modified = fs::metadata(spooled(1)).unwrap().modified().unwrap();
    let file = fs::File::options().write(true).open(spooled(1)).unwrap();
    file.write_all_at(b"x", 500_000).unwrap();
    file.set_modified(modified).unwrap();
    drop(file);
    // Cut, and as long again.
    let file = fs::File::options().write(true).open(spooled(2)).unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(len / 2).unwrap();
    file.set_len(len).unwrap();
    // A neighbour, although the record says that it is right.
    fs::copy(site.wal(&names[4]), spooled(3)).unwrap();
    forge_identity(&site, &names[3]);
    // Of another boot, another cluster, other settings; too old; without a record; a damaged one.
    forge(&site.fetched_record(&names[4]), "boot", "00000000-0000-0000-0000-000000000000");
    forge(&site.fetched_record(&names[5]), "system", "7309999999999999999");
    forge(&site.fetched_record(&names[6]), "settings", &"00".repeat(16));
    forge(&site.fetched_record(&names[7]), "at", &(at + 3_600_000).to_string());
    fs::remove_file(site.fetched_record(&names[8])).unwrap();
    fs::write(site.fetched_record(&names[9]), "walvis-record-1\n").unwrap();
    // A link to what is right.
    fs::rename(spooled(10), site.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(site.path("elsewhere"), spooled(10)).unwrap();
    for name in &names[1..11] {
        site.fetch_fails(name, 200);
    }
    show_key(&site);
    for name in &names[1..11] {
        site.fetches(name);
    }
    // Other settings, and another cluster in this directory.
    hide_key(&site);
    site.set("WALVIS_CLUSTER", "other");
    site.fetch_fails(&names[11], 200);
    site.set("WALVIS_CLUSTER", "main");
    site.become_cluster(segment::FOREIGN_ID, walvis::limits::MIB);
    site.fetch_fails(&names[11], 200);
    site.become_cluster(segment::SYSTEM_ID, walvis::limits::MIB);
    site.fetches(&names[11]);
}

/// Lets a record say that the file is in the state that it is in.
fn forge_identity(site: &Site, name: &str) {
    let stat = fs::metadata(site.fetched(name)).unwrap();
    let identity = format!(
        "{} {} {} {}.{} {}.{}",
        stat.dev(),
        stat.ino(),
        stat.size(),
        stat.mtime(),
        stat.mtime_nsec(),
        stat.ctime(),
        stat.ctime_nsec()
    );
    forge(&site.fetched_record(name), "identity", &identity);
}

#[test]
fn a_copy_from_another_file_system_is_proven_by_its_hash() {
    let mut site = Site::new();
    // Another file system than that of temporary files, where there is one.
    let shared = tempfile::tempdir_in("/dev/shm").unwrap();
    site.set("WALVIS_SPOOL", shared.path());
    let site = recovering(site, 6);
    site.fetches(&Segment::new(1).name());
    let wal = fs::metadata(site.data().join("pg_wal")).unwrap();
    let spool = shared.path().join(format!("{:x}-{:x}", wal.dev(), wal.ino()));
    let spooled = |name: &String| spool.join("fetched").join(name);
    let names = names(2..=6);
    eventually("all are in the spool", || names.iter().all(|name| spool.join(format!("fetched/{name}.ok")).exists()));
    let is_other = fs::metadata(shared.path()).unwrap().dev() != wal.dev();
    freeze(&site);
    hide_key(&site);
    site.fetches(&names[0]);
    assert!(!spooled(&names[0]).exists());
    if is_other {
        let file = fs::File::options().write(true).open(spooled(&names[1])).unwrap();
        file.write_all_at(b"x", 500_000).unwrap();
        let stat = file.metadata().unwrap();
        let identity = format!(
            "{} {} {} {}.{} {}.{}",
            stat.dev(),
            stat.ino(),
            stat.size(),
            stat.mtime(),
            stat.mtime_nsec(),
            stat.ctime(),
            stat.ctime_nsec()
        );
        forge(&spool.join(format!("fetched/{}.ok", names[1])), "identity", &identity);
        site.fetch_fails(&names[1], 200);
        show_key(&site);
        site.fetches(&names[1]);
    }
    crate::support::command::kill_below(site.dir());
}

#[test]
fn nobody_helps_where_nobody_recovers() {
    for what in ["no signal", "elsewhere", "off", "history", "absent", "not a data directory"] {
        let mut site = recovering(Site::new(), 3);
        site.archive_text("00000002.history", &segment::history(&[(1, 3 << 20)]));
        let name = Segment::new(1).name();
        match what {
            "no signal" => fs::remove_file(site.data().join("recovery.signal")).unwrap(),
            "off" => site.set("WALVIS_SPOOL", "off"),
            "not a data directory" => fs::remove_file(site.data().join("global/pg_control")).unwrap(),
            _ => {}
        }
        match what {
            "elsewhere" => drop(site.run(["fetch-wal", &name, site.path("x").to_str().unwrap()]).exits(0)),
            "history" => drop(site.fetch("00000002.history").exits(0)),
            "absent" => drop(site.fetch(&Segment::new(9).name()).exits(1)),
            _ => drop(site.fetch(&name).exits(0)),
        }
        assert_eq!(site.helper(), None, "{what}");
        assert!(!site.spool().exists(), "{what}");
    }
}

#[test]
fn a_call_waits_for_the_download_of_its_segment() {
    let server = S3Server::start();
    let site = recovering(Site::on_s3(&server), 6);
    let names = names(1..=6);
    server.clear_log();
    let barrier = hold(&server, Op::Get, &names[2]);
    site.fetches(&names[0]);
    // One that is slow holds up no other.
    site.await_fetched(&[1, 3, 4, 5].map(|n| names[n].clone()));
    site.fetches(&names[1]);
    let requests = server.log().len();
    let waiting = start_waiting(&site, &["fetch-wal", &names[2], DESTINATION]);
    assert_eq!(server.log().len(), requests);
    barrier.wait();
    waiting.wait().exits(0);
    server.unhook();
    assert!(fs::read(site.destination()).unwrap() == Segment::new(3).bytes());
    fs::remove_file(site.destination()).unwrap();
    assert_eq!(gets(&server, &names[2]), 1);
    names[3..].iter().for_each(|name| site.fetches(name));
}

#[test]
fn a_helper_killed_or_frozen_in_the_middle_costs_nothing_but_time() {
    for signal in [Signal::SIGKILL, Signal::SIGSTOP] {
        let server = S3Server::start();
        let site = recovering(Site::on_s3(&server), 8);
        let names = names(1..=8);
        let barrier = hold(&server, Op::Get, &names[3]);
        site.fetches(&names[0]);
        site.await_fetched(&names[1..3]);
        eventually("it is in the middle", || gets(&server, &names[3]) == 1);
        kill(Pid::from_raw(site.helper().unwrap()), signal).unwrap();
        barrier.wait();
        server.unhook();
        for name in &names[1..] {
            site.fetch(name).exits(0).within(Duration::from_secs(15));
            assert!(fs::read(site.destination()).unwrap() == fs::read(site.wal(name)).unwrap());
            fs::remove_file(site.destination()).unwrap();
        }
        site.fetch_fails(&Segment::new(9).name(), 1);
    }
}

#[test]
fn a_new_helper_takes_over_what_a_killed_one_left() {
    let (site, names) = ahead(8);
    kill(Pid::from_raw(site.helper().unwrap()), Signal::SIGKILL).unwrap();
    site.await_no_helper();
    // Recovery begins anew, further on.
    fs::write(site.fetched("000000010000000000000FFE"), "what an earlier one left").unwrap();
    let before = fs::metadata(site.fetched(&names[5])).unwrap().ino();
    fs::remove_file(site.fetched_record(&names[3])).unwrap();
    site.fetches(&names[3]);
    site.await_fetched(&names[4..]);
    eventually("what is of no use goes", || {
        !site.fetched(&names[1]).exists() && !site.fetched("000000010000000000000FFE").exists()
    });
    assert_eq!(fs::metadata(site.fetched(&names[5])).unwrap().ino(), before);
    names[4..].iter().for_each(|name| site.fetches(name));
}

#[test]
fn recovery_that_jumps_is_followed() {
    let site = recovering(Site::new(), 40);
    let names = names(1..=40);
    site.fetches(&names[0]);
    site.await_fetched(&names[1..17]);
    assert!(!site.fetched(&names[17]).exists(), "more than 16 ahead");
    site.fetches(&names[29]);
    site.await_fetched(&names[30..40]);
    eventually("the others go", || !site.fetched(&names[5]).exists());
    // Back again.
    site.fetches(&names[3]);
    site.await_fetched(&names[4..20]);
    names[4..].iter().for_each(|name| site.fetches(name));
    site.await_no_helper();
}

#[test]
fn a_call_that_meets_a_helper_about_to_end_is_heeded() {
    let server = S3Server::start();
    let site = recovering(Site::on_s3(&server), 6);
    let names = names(1..=6);
    let barrier = hold(&server, Op::Get, &names[3]);
    site.fetches(&names[0]);
    site.await_fetched(&[1, 2, 4, 5].map(|n| names[n].clone()));
    // Nothing follows the last one: the helper ends as soon as its download does.
    site.fetches(&names[5]);
    eventually("it wants nothing any more", || !site.fetched(&names[1]).exists());
    site.fetches(&names[0]);
    barrier.wait();
    server.unhook();
    site.await_fetched(&names[1..]);
    names[1..].iter().for_each(|name| site.fetches(name));
    site.await_no_helper();
}

#[test]
fn a_new_timeline_is_followed() {
    let site = recovering(Site::new(), 12);
    for number in 6..=20 {
        let name = site.make(&Segment::new(number).on(2));
        site.push(&name).exits(0);
    }
    site.archive_text("00000002.history", &segment::history(&[(1, 6 << 20)]));
    let on = |timeline: u32, number: u64| Segment::new(number).on(timeline).name();
    site.fetches("00000002.history");
    site.fetch_fails("00000003.history", 1);
    for number in 1..=5 {
        // Recovery tries the newest timeline first.
        site.fetch_fails(&on(2, number), 1);
        site.fetches(&on(1, number));
    }
    site.await_fetched(&(6..=12).map(|n| on(1, n)).collect::<Vec<_>>());
    site.fetches(&on(2, 6));
    site.await_fetched(&(7..=20).map(|n| on(2, n)).collect::<Vec<_>>());
    eventually("the old ones go", || !site.fetched(&on(1, 8)).exists());
    for number in 7..=20 {
        site.fetches(&on(2, number));
    }
    site.fetch_fails(&on(2, 21), 1);
}

#[test]
fn a_helper_ends_with_recovery_and_takes_away_what_it_brought() {
    for how in ["promotion", "terminated", "the spool vanishes"] {
        let (site, _) = ahead(6);
        match how {
            "promotion" => fs::remove_file(site.data().join("recovery.signal")).unwrap(),
            "terminated" => kill(Pid::from_raw(site.helper().unwrap()), Signal::SIGTERM).unwrap(),
            _ => eventually("it is removed", || fs::remove_dir_all(site.spool()).is_ok()),
        }
        site.await_no_helper();
        if how == "promotion" {
            assert!(names_in(&site.spool().join("fetched")).is_empty());
        }
        if how == "terminated" {
            // What is left is swept by whoever works ahead next, here the archiver's helper.
            let names = site.backlog([30, 31]);
            site.archives(&names[0]);
            site.await_records(&names[1..]);
            assert!(names_in(&site.spool().join("fetched")).is_empty());
        }
    }
}

#[test]
fn damage_ahead_is_told_when_recovery_comes_to_it() {
    let site = recovering(Site::new(), 10);
    let names = names(1..=10);
    let object = site.object(&names[5]);
    fs::set_permissions(&object, fs::Permissions::from_mode(0o600)).unwrap();
    let mut bytes = fs::read(&object).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&object, &bytes).unwrap();
    site.fetches(&names[0]);
    // What is before it is of use.
    site.await_fetched(&names[1..5]);
    names[1..5].iter().for_each(|name| site.fetches(name));
    site.fetch_fails(&names[5], 200).says(&["damaged"]);
    bytes[middle] ^= 1;
    fs::write(&object, &bytes).unwrap();
    names[5..].iter().for_each(|name| site.fetches(name));
}

#[test]
fn a_gap_ahead_is_told_when_recovery_comes_to_it() {
    let site = recovering(Site::new(), 10);
    let names = names(1..=10);
    fs::remove_file(site.object(&names[5])).unwrap();
    site.fetches(&names[0]);
    site.await_fetched(&names[1..5]);
    names[1..5].iter().for_each(|name| site.fetches(name));
    assert!(!site.fetched(&names[6]).exists(), "nobody can come to it");
    site.fetch_fails(&names[5], 200).says(&["is missing"]);
}

#[test]
fn a_spool_that_cannot_be_used_is_done_without() {
    for how in ["a file", "open to others", "a directory where a file is to be", "nowhere"] {
        let mut site = recovering(Site::new(), 6);
        match how {
            "a file" => fs::write(site.spool(), "").unwrap(),
            "nowhere" => {
                // No directory can be made there.
                site.set("WALVIS_SPOOL", "/dev/full/spool");
            }
            _ => {
                fs::create_dir_all(site.spool().join("fetched")).unwrap();
                let mode = if how == "open to others" { 0o755 } else { 0o700 };
                fs::set_permissions(site.spool(), fs::Permissions::from_mode(mode)).unwrap();
                for below in ["fetch.lock", "fetch.asked", "fetch.plan"] {
                    fs::create_dir(site.spool().join(below)).unwrap();
                }
            }
        }
        for name in names(1..=6) {
            site.fetches(&name);
        }
        site.fetch_fails(&Segment::new(7).name(), 1);
    }
}

/// A file system that fills while segments are downloaded. Only root may mount one.
#[test]
fn a_spool_that_fills_up_is_done_without() {
    let mut site = Site::new();
    let mount = site.path("small");
    fs::create_dir(&mount).unwrap();
    let status =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755,size=70m", "none"]).arg(&mount).status();
    let is_mounted = status.is_ok_and(|status| status.success());
    if is_mounted {
        // Four times 16 MiB are free at first.
        site.set("WALVIS_SPOOL", &mount);
    }
    let site = recovering(site, 12);
    site.fetches(&Segment::new(1).name());
    if is_mounted {
        fs::write(mount.join("more"), vec![1; 69 << 20]).or_else(|_| fs::metadata(&mount).map(drop)).unwrap();
    }
    for name in names(2..=12) {
        site.fetches(&name);
    }
    crate::support::command::kill_below(site.dir());
    if is_mounted {
        assert!(std::process::Command::new("umount").arg(&mount).status().unwrap().success());
    }
}
