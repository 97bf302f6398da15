//! `fetch-wal`, attacked: 0 with the very bytes, 1 only for a proven absence, 200 for everything else, and never half a
//! file.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use walvis::limits::MIB;

use crate::support::command::{DESTINATION, Ran, Site, files_below, is_root, run};
use crate::support::s3::{Action, Op, S3Server};
use crate::support::segment::{self, Content, FOREIGN_ID, Segment, noise};

fn name(timeline: u32, number: u64) -> String {
    Segment::new(number).on(timeline).name()
}

/// A position within a segment.
fn within(number: u64) -> u64 {
    number * MIB as u64 + 0x1234
}

#[test]
fn every_kind_and_size_comes_back_as_it_was() {
    for size in [MIB, 16 * MIB, 64 * MIB] {
        let site = Site::new();
        site.become_cluster(segment::SYSTEM_ID, size);
        for (number, content) in [(10, Content::Zeros), (11, Content::Records(1)), (12, Content::Noise(2))] {
            let segment = Segment::new(number).sized(size).holding(content);
            let name = segment.name();
            if size > MIB {
                // Sealing is slow in a debug build: a part of noise will do, and a bit more than one upload part of it.
                let noise = if content == Content::Zeros { 0 } else { 9 * MIB };
                segment.write_sparse(&site.wal(&name), size, noise);
            } else {
                site.make(&segment);
            }
            site.push(&name).exits(0);
            site.fetches(&name);
            if size == MIB {
                site.write(&format!("{name}.partial"), segment.bytes());
                site.push(&format!("{name}.partial")).exits(0);
                site.fetches(&format!("{name}.partial"));
            }
        }
    }
}

#[test]
fn texts_come_back_as_they_were() {
    let site = Site::new();
    let (backup, text) = segment::backup(&Segment::new(3));
    site.archive_text(&backup, &text);
    site.archive_text("00000002.history", &segment::history(&[(1, within(3))]));
    // Longer than one frame, and than one read.
    let long = format!("{}{}", "# a comment\n".repeat(20_000), segment::history(&[(1, within(3)), (2, within(5))]));
    site.archive_text("00000003.history", &long);
    for name in [backup.as_str(), "00000002.history", "00000003.history"] {
        site.fetches(name);
        site.fetches(name);
    }
}

#[test]
fn the_end_of_the_log_is_a_proven_absence() {
    let site = Site::new();
    site.archive(&[3, 4]);
    for _ in 0..2 {
        site.fetch_fails(&name(1, 5), 1);
        site.fetch_fails("00000002.history", 1);
    }
    site.fetch_fails("00000001.history", 1);
    site.fetch_fails(&format!("{}.partial", name(1, 5)), 1);
    site.fetch_fails(&format!("{}.00000028.backup", name(1, 4)), 1);
    // What came before the first stored segment was not archived here; what is in between was.
    site.fetch_fails(&name(1, 2), 200).says(&[&name(1, 3), "end of the log"]);
}

#[test]
fn a_gap_is_no_absence() {
    let site = Site::new();
    site.archive(&[3, 5]);
    let ran = site.fetch_fails(&name(1, 4), 200).tells_the_way_out();
    ran.says(&[&name(1, 4), "missing", &name(1, 5), "end of the log"]);
    // Far beyond, across logs.
    site.archive(&[0x1001]);
    site.fetch_fails(&name(1, 6), 200).says(&[&name(1, 0x1001)]);
    site.fetch_fails(&name(1, 0x1002), 1);
    // A partial segment and a backup history file prove nothing about their own segment.
    let last = Segment::new(0x1002);
    site.write(&format!("{}.partial", last.name()), last.bytes());
    site.push(&format!("{}.partial", last.name())).exits(0);
    site.fetch_fails(&last.name(), 1);
    // What was a gap is served once it is filled.
    site.archive(&[4]);
    site.fetches(&name(1, 4));
}

#[test]
fn what_was_before_a_timeline_began_never_was_on_it() {
    let site = Site::new();
    site.archive(&[3, 4]);
    let first = Segment { timeline: 2, page_timeline: 1, ..Segment::new(5) };
    site.make(&first);
    site.push(&first.name()).exits(0);
    site.make(&Segment::new(6).on(2));
    site.push(&name(2, 6)).exits(0);
    // Its history is missing: it cannot be told where it began.
    site.fetch_fails(&name(2, 4), 200).says(&["00000002.history"]);
    site.archive_text("00000002.history", &segment::history(&[(1, within(5))]));
    site.fetch_fails(&name(2, 4), 1);
    site.fetch_fails(&name(2, 3), 1);
    site.fetches(&name(2, 5));
    site.fetch_fails(&name(2, 7), 1);
    site.fetch_fails("00000003.history", 1);
}

#[test]
fn a_later_timeline_proves_how_far_this_one_went() {
    let site = Site::new();
    site.archive(&[3]);
    site.archive_text("00000002.history", &segment::history(&[(1, within(5))]));
    // Timeline 2 left timeline 1 in segment 5: 4 was complete, 5 is at most a partial one.
    site.fetch_fails(&name(1, 4), 200).says(&["timeline 2", "left timeline 1"]);
    site.fetch_fails(&name(1, 5), 1);
    site.fetch_fails(&name(1, 6), 1);
    // Of timeline 2 nothing is there yet, and nothing proves that there was.
    site.fetch_fails(&name(2, 5), 1);
    // Timeline 3 left timeline 2 in segment 7, which began in 5.
    site.archive_text("00000003.history", &segment::history(&[(1, within(5)), (2, within(7))]));
    site.fetch_fails(&name(2, 6), 200).says(&["timeline 3", "left timeline 2"]);
    site.fetch_fails(&name(2, 5), 200);
    site.fetch_fails(&name(2, 7), 1);
    site.fetch_fails(&name(2, 4), 1);
    site.fetch_fails(&name(2, 3), 1);
}

#[test]
fn a_missing_history_is_no_absence() {
    let site = Site::new();
    site.archive(&[3]);
    site.archive_text("00000004.history", &segment::history(&[(1, within(5)), (2, within(5)), (3, within(6))]));
    for missing in ["00000002.history", "00000003.history"] {
        site.fetch_fails(missing, 200).tells_the_way_out().says(&[missing, "00000004.history"]);
    }
    site.fetch_fails("00000005.history", 1);
    // The first timeline has none. The server asks for it all the same when it begins another from there.
    site.fetch_fails("00000001.history", 1);

    // Somebody saved what was in pg_wal, and a recovery looks for the newest timeline: still no absence.
    let missing = "00000003.history";
    fs::write(site.data().join("recovery.signal"), "").unwrap();
    site.write("00000004.history", "as the old server had it");
    fs::write(site.data().join("postmaster.opts"), "started").unwrap();
    site.fetch_fails(missing, 200);
    // What this server keeps itself is the history of the timeline that it has chosen: it only copies what leads there.
    site.write("00000004.history", "as it was fetched");
    site.fetch_fails(missing, 1);
}

/// Runs what must not be taken for an absence: 200, or 1 for a standby that asked for it.
#[track_caller]
fn cannot_tell(site: &Site, arguments: &[&str], patient_code: i32) -> Ran {
    let ran = site.run(arguments).exits(200).tells_the_way_out();
    site.left_nothing();
    site.run([arguments, &["--on-error", "unavailable"]].concat()).exits(patient_code);
    site.left_nothing();
    ran
}

#[test]
fn whatever_keeps_it_from_being_told_stops_recovery() {
    let mut site = Site::new();
    site.archive(&[1]);
    let there = name(1, 1);
    let fetch = ["fetch-wal", &there, DESTINATION];
    let absent = name(1, 2);
    let fetch_absent = ["fetch-wal", &absent, DESTINATION];
    for fetch in [&fetch, &fetch_absent] {
        cannot_tell(&site, &[fetch.as_slice(), &["--cluster", "other"]].concat(), 1)
            .says(&["nothing is stored of cluster other"]);
        cannot_tell(&site, &[fetch.as_slice(), &["--cluster", "a/b"]].concat(), 1).says(&["a/b"]);
        cannot_tell(&site, &[fetch.as_slice(), &["--repository", "file:///nonexistent/x"]].concat(), 1).says(&["/nonexistent/x"]);
        let empty = format!("file://{}", site.path("data").display());
        cannot_tell(&site, &[fetch.as_slice(), &["--repository", &empty]].concat(), 1).says(&["there is no repository"]);
        cannot_tell(&site, &[fetch.as_slice(), &["--key-file", "/nonexistent/key"]].concat(), 1).says(&["/nonexistent/key"]);
        cannot_tell(&site, &[fetch.as_slice(), &["--config", "/nonexistent/c"]].concat(), 1).says(&["/nonexistent/c"]);
        cannot_tell(&site, &[fetch.as_slice(), &["--timeout", "0"]].concat(), 1).says(&["timeout"]);
    }
    for bad in ["x", "../../etc/passwd", "", "000000010000000000000001.tmp", "000000010000000000FFFFFF"] {
        site.run(["fetch-wal", bad, DESTINATION]).exits(200);
    }
    for usage in
        [vec!["fetch-wal"], vec!["fetch-wal", &there], vec!["fetch-wal", &there, "a", "b"], vec!["fetch-wal", &there, ""]]
    {
        site.run(&usage).exits(200);
        site.run([usage, vec!["--on-error", "unavailable"]].concat()).exits(200);
    }
    site.run(["fetch-wal", "--nonsense"]).exits(200);
    site.run(["fetch-wal", "--help"]).exits(200);
    site.run(["--cluster", "push-wal", "fetch-wal", "--nonsense"]).exits(200);
    for misspelt in ["fetch_wal", "fetchwal", "wal-fetch", "FETCH-WAL"] {
        site.run([misspelt, &there, DESTINATION]).exits(200);
    }
    site.left_nothing();

    let other = Site::bare();
    let wrong_key = other.path("key");
    cannot_tell(&site, &[fetch.as_slice(), &["--key-file", wrong_key.to_str().unwrap()]].concat(), 1).says(&["wrong key"]);
    fs::write(site.path("damaged"), "walvis-key-1:00\n").unwrap();
    let damaged_key = site.path("damaged");
    cannot_tell(&site, &[fetch.as_slice(), &["--key-file", damaged_key.to_str().unwrap()]].concat(), 1)
        .says(&["not a Walvis key"]);
    site.unset("WALVIS_KEY_FILE");
    cannot_tell(&site, &fetch, 1).says(&["no key is configured"]);
    site.set("WALVIS_PASSPHRASE", "correct horse");
    cannot_tell(&site, &fetch, 1).says(&["wrong passphrase"]);
    site.unset("WALVIS_PASSPHRASE");
    site.set("WALVIS_KEY_COMMAND", "exit 3");
    cannot_tell(&site, &fetch, 1).says(&["key_command", "exit 3"]);
    site.unset("WALVIS_KEY_COMMAND");
    site.unset("WALVIS_REPOSITORY");
    cannot_tell(&site, &fetch, 1).says(&["no repository is configured"]);
    site.configure("repositroy = 3");
    cannot_tell(&site, &fetch, 1).says(&["repositroy", "did you mean repository?"]);
    site.configure("[[repository");
    cannot_tell(&site, &fetch, 1);
}

#[test]
fn a_setting_that_is_not_text_is_not_taken_for_unset() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    let mut site = Site::new();
    site.archive(&[1]);
    let other = site.path("other");
    site.configure(&format!("[[repository]]\nurl = \"file://{}\"\nkey_file = {:?}\n", other.display(), site.path("key")));
    site.init_sharing_the_key();
    site.set("WALVIS_REPOSITORY", OsString::from_vec(b"file:///caf\xe9".to_vec()));
    cannot_tell(&site, &["fetch-wal", &name(1, 1), DESTINATION], 1).says(&["WALVIS_REPOSITORY"]);
    site.push(&name(1, 1)).exits(10).says(&["WALVIS_REPOSITORY"]);
    assert_eq!(files_below(&other.join("keys")).len(), 1);
    assert!(!other.join("clusters").exists(), "it was pushed to another repository than the one named");
}

#[test]
fn a_wrong_passphrase_opens_nothing() {
    let mut site = Site::without_repository();
    site.unset("WALVIS_KEY_FILE");
    site.set("WALVIS_PASSPHRASE", "correct horse battery staple");
    site.init();
    site.archive(&[1]);
    site.fetches(&name(1, 1));
    site.set("WALVIS_PASSPHRASE", "correct horse battery stable");
    cannot_tell(&site, &["fetch-wal", &name(1, 1), DESTINATION], 1).says(&["wrong passphrase"]);
}

#[test]
fn a_destination_that_cannot_be_written_is_told() {
    let site = Site::new();
    site.archive(&[1]);
    let there = name(1, 1);
    fs::create_dir(site.data().join("directory")).unwrap();
    fs::write(site.data().join("file"), "x").unwrap();
    for (destination, words) in [
        ("nowhere/RECOVERYXLOG", "nowhere"),
        ("directory", "directory"),
        ("directory/", "directory"),
        ("file/RECOVERYXLOG", "file"),
        ("/proc/RECOVERYXLOG", "/proc"),
    ] {
        cannot_tell(&site, &["fetch-wal", &there, destination], 1).says(&[words]);
    }
    assert_eq!(fs::read(site.data().join("file")).unwrap(), b"x");
    let before = files_below(&site.data());
    if !is_root() {
        fs::set_permissions(site.data().join("directory"), fs::Permissions::from_mode(0o500)).unwrap();
        cannot_tell(&site, &["fetch-wal", &there, "directory/RECOVERYXLOG"], 1).says(&["directory", "give user"]);
    }
    assert_eq!(files_below(&site.data()), before);
}

#[test]
fn devices_and_links_are_not_replaced() {
    let site = Site::new();
    site.archive(&[1]);
    let there = name(1, 1);
    let pipe = site.data().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    cannot_tell(&site, &["fetch-wal", &there, "pipe"], 1).says(&["pipe", "not a regular file"]);
    assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    // Tried by hand, by root: the device must survive it.
    cannot_tell(&site, &["fetch-wal", &there, "/dev/null"], 1).says(&["/dev/null"]);
    assert!(fs::symlink_metadata("/dev/null").unwrap().file_type().is_char_device());
    std::os::unix::fs::symlink("pipe", site.data().join("link")).unwrap();
    cannot_tell(&site, &["fetch-wal", &there, "link"], 1).says(&["link", "not a regular file"]);
}

#[test]
fn what_is_at_the_destination_is_replaced_in_one_step() {
    let site = Site::new();
    site.archive(&[1, 2]);
    let old = vec![7; 3 * MIB];
    fs::write(site.destination(), &old).unwrap();
    fs::hard_link(site.destination(), site.path("old")).unwrap();
    // Failures leave it as it was.
    site.fetch(&name(1, 3)).exits(1);
    site.run(["fetch-wal", &name(1, 1), DESTINATION, "--cluster", "x"]).exits(200);
    assert!(fs::read(site.destination()).unwrap() == old);
    for number in [1, 2, 2, 1] {
        site.fetch(&name(1, number)).exits(0);
        assert!(fs::read(site.destination()).unwrap() == Segment::new(number).bytes());
    }
    assert!(fs::read(site.path("old")).unwrap() == old, "it was written into, not replaced");
    let mode = fs::metadata(site.destination()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    fs::remove_file(site.destination()).unwrap();
    site.left_nothing();
    // Wherever it is called.
    let elsewhere = site.path("elsewhere");
    run(site.command(["fetch-wal", &name(1, 1), elsewhere.to_str().unwrap()]).current_dir("/")).exits(0);
    assert!(fs::read(elsewhere).unwrap() == Segment::new(1).bytes());
    run(site.command(["fetch-wal", &name(1, 1), "here"]).current_dir(site.dir())).exits(0);
    assert!(fs::read(site.path("here")).unwrap() == Segment::new(1).bytes());
}

#[test]
fn a_data_directory_of_another_cluster_gets_nothing() {
    let site = Site::new();
    site.archive(&[1]);
    site.become_cluster(FOREIGN_ID, MIB);
    for number in [1, 2] {
        let ran = site.fetch_fails(&name(1, number), 200).tells_the_way_out();
        ran.says(&[&FOREIGN_ID.to_string(), &segment::SYSTEM_ID.to_string()]);
    }
    let control = site.data().join("global/pg_control");
    let mut bytes = segment::pg_control(segment::SYSTEM_ID, MIB);
    bytes[100] ^= 1;
    fs::write(&control, &bytes).unwrap();
    site.fetch_fails(&name(1, 1), 200).says(&["pg_control", "checksum"]);
    fs::write(&control, b"").unwrap();
    site.fetch_fails(&name(1, 1), 200).says(&["pg_control"]);
    // Without one, as before the first file of a base backup was restored, the name decides.
    fs::remove_file(&control).unwrap();
    site.fetches(&name(1, 1));
}

/// Two hosts with one repository each, then a third that reads from both in this order.
fn reader_of(first: &Path, second: &Path, key: &Path) -> Site {
    let mut site = Site::bare();
    let section = |path: &Path| format!("[[repository]]\nurl = \"file://{}\"\nkey_file = {key:?}\n", path.display());
    site.configure(&format!("{}{}", section(first), section(second)));
    site
}

#[test]
fn the_second_repository_serves_what_the_first_does_not() {
    let one = Site::new();
    let mut two = one.twin();
    two.set("WALVIS_REPOSITORY", format!("file://{}", two.repository().display()));
    two.init_sharing_the_key();
    one.archive(&[1, 3]);
    two.archive(&[1, 2, 3]);
    let reader = reader_of(&one.repository(), &two.repository(), &one.path("key"));
    for number in [1, 2, 3] {
        reader.make(&Segment::new(number));
    }
    reader.fetches(&name(1, 1));
    // The first lacks 2, and knows that it should have it.
    reader.fetches(&name(1, 2));
    reader.fetch_fails(&name(1, 4), 1);
    // Damaged in the first.
    let object = one.object(&name(1, 3));
    let mut bytes = fs::read(&object).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&object, &bytes).unwrap();
    reader.fetch(&name(1, 3)).exits(0).says(&["ERROR", "damaged"]);
    assert!(fs::read(reader.destination()).unwrap() == Segment::new(3).bytes());
    fs::remove_file(reader.destination()).unwrap();
    // Nobody serves it: damage outweighs absence.
    fs::remove_file(two.object(&name(1, 3))).unwrap();
    reader.fetch_fails(&name(1, 3), 200).says(&["damaged"]);
    // The first is gone.
    fs::rename(one.repository(), one.path("away")).unwrap();
    reader.fetch(&name(1, 2)).exits(0);
    fs::remove_file(reader.destination()).unwrap();
    reader.fetch_fails(&name(1, 4), 200).says(&[&one.repository().display().to_string()]);
    let reversed = reader_of(&two.repository(), &one.repository(), &one.path("key"));
    reversed.fetch(&name(1, 2)).exits(0);
    fs::remove_file(reversed.destination()).unwrap();
    reversed.fetch_fails(&name(1, 4), 200).says(&[&one.repository().display().to_string()]);
}

#[test]
fn a_store_that_contradicts_itself_proves_nothing() {
    let server = S3Server::start();
    let site = Site::on_s3(&server);
    site.archive(&[1, 2]);
    let there = name(1, 2);
    let no_such_key = || Action::s3_error(404, "NoSuchKey", "The specified key does not exist.");
    // The object is listed and said not to exist.
    let path = there.clone();
    server.hook(move |seen| if seen.op == Op::Get && seen.path.ends_with(&path) { no_such_key() } else { Action::Pass });
    site.fetch_fails(&there, 200).says(&["says that it does not exist and lists it"]);
    // It came between the two answers: a standby that follows the archive must not stop for that.
    let (path, first) = (there.clone(), std::sync::atomic::AtomicBool::new(true));
    server.hook(move |seen| {
        let is_it = seen.op == Op::Get && seen.path.ends_with(&path);
        if is_it && first.swap(false, std::sync::atomic::Ordering::Relaxed) { no_such_key() } else { Action::Pass }
    });
    site.fetches(&there);
    // Absence that is not S3's own word.
    for answer in [
        || Action::html(404),
        || Action::s3_error(404, "NoSuchBucket", "The specified bucket does not exist"),
        || Action::s3_error(403, "AccessDenied", "Access Denied"),
        || Action::Answer { status: 404, content_type: "application/xml", body: String::new() },
        || Action::Answer { status: 200, content_type: "text/html", body: "welcome".into() },
    ] {
        let path = there.clone();
        server.hook(move |seen| if seen.op == Op::Get && seen.path.ends_with(&path) { answer() } else { Action::Pass });
        site.run(["fetch-wal", &there, DESTINATION, "--timeout", "3"]).exits(200);
        site.left_nothing();
        server.hook(move |seen| if seen.op == Op::List && seen.query.contains("wal") { answer() } else { Action::Pass });
        site.run(["fetch-wal", &name(1, 3), DESTINATION, "--timeout", "3"]).exits(200);
        site.left_nothing();
    }
    server.unhook();
    site.fetch_fails(&name(1, 3), 1);
    site.fetches(&there);
}

#[test]
fn junk_at_a_wal_name_is_never_served() {
    let site = Site::new();
    site.archive(&[1]);
    let object = site.object(&name(1, 1));
    let mut junk = vec![0; 100_000];
    noise(&mut junk, 1);
    for bytes in [vec![], b"x".to_vec(), vec![0; MIB], junk, Segment::new(1).bytes()] {
        fs::write(&object, bytes).unwrap();
        site.fetch_fails(&name(1, 1), 200).tells_the_way_out().says(&["damaged"]);
        site.push(&name(1, 1)).exits(14).tells_the_way_out().says(&["damaged"]);
    }
    fs::remove_file(&object).unwrap();
    fs::create_dir(&object).unwrap();
    site.fetch_fails(&name(1, 1), 200);
    site.push(&name(1, 1)).exits(10).tells_the_way_out();
}
