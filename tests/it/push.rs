//! `push-wal`, attacked: nothing is overwritten, nothing foreign gets in, two at once do no harm, and the way out is
//! told.

use std::fs;
use std::time::Duration;

use walvis::limits::MIB;

use crate::support::command::{Site, eventually, files_below, start};
use crate::support::s3::{Action, Op, S3Server};
use crate::support::segment::{self, Content, FOREIGN_ID, MAGICS, Segment};

/// One file of each kind that PostgreSQL archives: name, content, and another content that is as valid.
fn one_of_each_kind() -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let segment = Segment::new(3);
    let (one, other) = (segment.bytes(), segment.holding(Content::Records(99)).bytes());
    let (backup, text) = segment::backup(&segment);
    vec![
        (segment.name(), one.clone(), other.clone()),
        (format!("{}.partial", segment.name()), one, other),
        ("00000002.history".into(), segment::history(&[(1, 0x300000)]).into(), segment::history(&[(1, 0x300100)]).into()),
        (backup, text.clone().into(), text.replace("LABEL: x", "LABEL: y").into()),
    ]
}

#[test]
fn the_same_again_is_fine_and_anything_else_is_a_conflict() {
    let site = Site::new();
    for (name, one, other) in one_of_each_kind() {
        site.write(&name, &one);
        site.push(&name).exits(0);
        let object = fs::read(site.object(&name)).unwrap();
        site.push(&name).exits(0);
        site.run(["push-wal", "--json", &format!("pg_wal/{name}")])
            .exits(0)
            .stdout
            .contains("already_stored")
            .then_some(())
            .unwrap();
        assert!(fs::read(site.object(&name)).unwrap() == object, "{name} was written again");

        site.write(&name, &other);
        if name.ends_with(".partial") || name.ends_with(".backup") {
            // Recovery asks for neither: both are kept (see `promotions`).
            site.push(&name).exits(0);
        } else {
            site.push(&name).exits(13).tells_the_way_out().says(&[&name, "other content", "nothing was changed"]);
        }
        assert!(fs::read(site.object(&name)).unwrap() == object, "{name} was overwritten");
        site.write(&name, &one);
        site.fetches(&name);
    }
    assert_eq!(site.stored().len(), 6);
}

/// Lets two hosts push files of one name at the same moment, over and over. `are_equal` content: both succeed; else
/// exactly one.
fn race(site: &Site, rounds: u64, are_equal: bool, size: usize) {
    let twin = site.twin();
    for host in [site, &twin] {
        host.become_cluster(segment::SYSTEM_ID, size);
    }
    for round in 0..rounds {
        let number = if are_equal { 1000 + round } else { 2000 + round };
        let mine = Segment::new(number).sized(size).holding(Content::Records(1));
        let theirs = if are_equal { mine } else { mine.holding(Content::Records(2)) };
        let name = site.make(&mine);
        twin.make(&theirs);
        let path = format!("pg_wal/{name}");
        let both = [site, &twin].map(|host| start(&mut host.command(["push-wal", &path])));
        let both = both.map(super::support::command::Running::wait);
        let mut codes = both.each_ref().map(|ran| ran.code());
        let winner = if codes[0] == 0 { site } else { &twin };
        codes.sort_unstable();
        assert_eq!(codes, if are_equal { [0, 0] } else { [0, 13] }, "{name}: {both:?}");
        winner.fetches(&name);
    }
}

#[test]
fn of_two_hosts_one_wins_in_a_directory() {
    let site = Site::new();
    race(&site, 12, false, MIB);
    race(&site, 6, true, MIB);
}

#[test]
fn of_two_hosts_one_wins_on_s3() {
    let server = S3Server::start();
    server.set_latency(Duration::from_millis(3));
    let site = Site::on_s3(&server);
    race(&site, 6, false, MIB);
    race(&site, 4, true, MIB);
}

#[test]
fn of_two_hosts_one_wins_where_the_store_overwrites() {
    let server = S3Server::start();
    server.set_ignores_conditions(true);
    server.set_latency(Duration::from_millis(2));
    let site = Site::on_s3(&server);
    let descriptor = String::from_utf8(server.objects("pg/walvis.json").remove("pg/walvis.json").unwrap()).unwrap();
    assert!(descriptor.contains("\"claims\""), "{descriptor}");
    race(&site, 5, false, MIB);
    race(&site, 3, true, MIB);
    eventually("no claims are left", || server.objects("pg/claims/").is_empty());
}

#[test]
fn of_two_hosts_one_wins_with_large_objects() {
    let server = S3Server::start();
    let site = Site::on_s3(&server);
    let twin = site.twin();
    let size = 16 * MIB;
    let segments = [1, 2].map(|seed| Segment::new(7).sized(size).holding(Content::Noise(seed)));
    // Neither completes before both have begun to.
    let both = std::sync::Arc::new(std::sync::Barrier::new(2));
    server.hook(move |seen| match seen.op {
        Op::Complete if seen.path.contains("/wal/") => {
            let both = std::sync::Arc::clone(&both);
            Action::Before(Box::new(move || {
                both.wait();
            }))
        }
        _ => Action::Pass,
    });
    let runs = [(&site, segments[0]), (&twin, segments[1])].map(|(host, segment)| {
        host.become_cluster(segment::SYSTEM_ID, size);
        let name = host.make(&segment);
        start(&mut host.command(["push-wal", &format!("pg_wal/{name}")]))
    });
    let runs = runs.map(super::support::command::Running::wait);
    let mut codes = runs.each_ref().map(|ran| ran.code());
    codes.sort_unstable();
    assert_eq!(codes, [0, 13], "{runs:?}");
    let winner = if runs[0].code() == 0 { &site } else { &twin };
    winner.fetches(&segments[0].name());
    assert!(server.uploads().is_empty(), "the loser gave its upload up: {:?}", server.uploads());
}

#[test]
fn what_is_not_as_named_is_refused_in_its_own_words() {
    let site = Site::new();
    let good = Segment::new(3);
    let name = good.name();
    let refuses = |bytes: &[u8], code: i32, words: &[&str]| {
        site.write(&name, bytes);
        site.push(&name).exits(code).tells_the_way_out().says(&[&name]).says(words);
    };
    let bytes = good.bytes();
    let with = |at: usize, new: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        bytes
    };
    refuses(&bytes[..MIB - 1], 14, &["1048575 bytes", "truncated"]);
    refuses(&bytes[..8192], 14, &["8192 bytes", "truncated"]);
    refuses(&bytes[..20], 14, &["only 20 bytes"]);
    refuses(&[], 14, &["only 0 bytes"]);
    refuses(&[bytes.clone(), vec![0; 8192]].concat(), 14, &["too long"]);
    refuses(&vec![0; MIB], 14, &["begins with zeros"]);
    refuses(&good.holding(Content::Noise(1)).sized(2 * MIB).bytes()[..MIB], 14, &["truncated"]);
    refuses(&Segment::new(4).bytes(), 14, &["at 0/400000", "name says 0/300000", "misnamed"]);
    refuses(&good.on(2).bytes(), 14, &["timeline 2", "timeline 1", "misnamed"]);
    refuses(&with(0, &0xD10C_u16.to_le_bytes()), 14, &["magic D10C", "13 to 18"]);
    refuses(&with(2, &[0, 0]), 14, &["not the first page"]);
    refuses(&with(32, &12345_u32.to_le_bytes()), 14, &["header is damaged", "12345"]);
    refuses(&with(36, &4096_u32.to_le_bytes()), 14, &["header is damaged", "4096"]);
    refuses(&good.of(FOREIGN_ID).bytes(), 16, &["foreign file", &FOREIGN_ID.to_string(), &segment::SYSTEM_ID.to_string()]);

    for (name, text, words) in [
        ("00000003.history", "", "no ancestor"),
        ("00000003.history", "1\t0/30000", "truncated"),
        ("00000003.history", "\0\0\0\0\0\0\0\0", "line 1"),
        ("00000003.history", "4\t0/3000000\tx\n", "line 1"),
        ("00000001.history", "1\t0/3000000\tx\n", "line 1"),
    ] {
        site.write(name, text);
        site.push(name).exits(14).tells_the_way_out().says(&[name, words]);
    }
    for name in ["RECOVERYXLOG", "000000010000000000000003.tmp", "archive_status", "00000001000000000000003"] {
        site.write(name, &bytes);
        site.push(name).exits(2).tells_the_way_out().says(&[name, "%p"]);
    }
    assert!(site.stored().is_empty(), "{:?}", site.stored());
    assert!(!site.repository().join("clusters").exists(), "not even a binding: nothing good was ever pushed");
}

#[test]
fn every_version_and_size_is_taken() {
    for (n, magic) in MAGICS.into_iter().enumerate() {
        let site = Site::new();
        let segment = Segment { magic, ..Segment::new(2) }.sized(MIB << (n % 4));
        site.become_cluster(segment::SYSTEM_ID, segment.size);
        let name = site.make(&segment);
        site.push(&name).exits(0);
        site.fetches(&name);
    }
}

#[test]
fn a_segment_of_the_parent_timeline_begins_a_new_one() {
    let site = Site::new();
    let segment = Segment { timeline: 2, page_timeline: 1, ..Segment::new(5) };
    let name = site.make(&segment);
    site.push(&name).exits(0);
    site.fetches(&name);
}

#[test]
fn another_cluster_gets_nothing_in_under_a_taken_name() {
    let site = Site::new();
    site.archive(&[1]);
    // Another host whose data directory agrees with its files: only the binding tells.
    let foreign = site.twin();
    foreign.become_cluster(FOREIGN_ID, MIB);
    let foreigner = Segment::new(2).of(FOREIGN_ID);
    let (backup, text) = segment::backup(&foreigner);
    foreign.make(&foreigner);
    foreign.write(&format!("{}.partial", foreigner.name()), foreigner.bytes());
    foreign.write("00000002.history", segment::history(&[(1, 0x300000)]));
    foreign.write(&backup, text);
    let names = [foreigner.name(), format!("{}.partial", foreigner.name()), "00000002.history".into(), backup];
    for name in &names {
        let words = [&FOREIGN_ID.to_string(), &segment::SYSTEM_ID.to_string(), "--after-pg-upgrade", "nothing was stored"];
        foreign.push(name).exits(16).tells_the_way_out().says(&words.map(|w: &str| w));
    }
    assert_eq!(site.stored(), [Segment::new(1).name()]);

    // A segment size that changed under the same system identifier.
    let resized = site.twin();
    resized.become_cluster(segment::SYSTEM_ID, 2 * MIB);
    let name = resized.make(&Segment::new(2).sized(2 * MIB));
    resized.push(&name).exits(16).tells_the_way_out().says(&["1048576", "2097152"]);

    // Under another name it is welcome.
    foreign.run(["push-wal", "--cluster", "other", &format!("pg_wal/{}", foreigner.name())]).exits(0);
    assert_eq!(site.stored().len(), 2);
}

#[test]
fn pg_upgrade_is_told_once_and_then_works() {
    let site = Site::new();
    site.archive(&[1]);
    let old = site.twin();
    old.make(&Segment::new(1));
    site.become_cluster(FOREIGN_ID, MIB);
    let upgraded = Segment::new(1).of(FOREIGN_ID).holding(Content::Records(7));
    site.make(&upgraded);
    site.push(&upgraded.name()).exits(16);
    site.run(["init", "--pgdata", "."]).exits(16).tells_the_way_out();
    site.run(["init", "--pgdata", ".", "--after-pg-upgrade"]).exits(0);
    site.run(["init", "--pgdata", ".", "--after-pg-upgrade"]).exits(0);
    site.push(&upgraded.name()).exits(0);
    site.fetches(&upgraded.name());
    // The old cluster's files can still be fetched, and nothing more of it is taken.
    old.fetches(&upgraded.name());
    let late = old.make(&Segment::new(2));
    old.push(&late).exits(16);
    // A third upgrade, and back.
    old.run(["init", "--pgdata", ".", "--after-pg-upgrade"]).exits(0);
    old.push(&late).exits(0);
    assert_eq!(files_below(&site.repository().join("clusters/main/bindings")).len(), 3);
}

#[test]
fn of_two_clusters_that_bind_at_once_one_is_refused() {
    for round in 0..6 {
        let site = Site::new();
        let twin = site.twin();
        twin.become_cluster(FOREIGN_ID, MIB);
        let (mine, theirs) = (site.make(&Segment::new(round)), twin.make(&Segment::new(round).of(FOREIGN_ID)));
        let both = [(&site, &mine), (&twin, &theirs)]
            .map(|(host, name)| start(&mut host.command(["push-wal", &format!("pg_wal/{name}")])));
        let both = both.map(super::support::command::Running::wait);
        let mut codes = both.each_ref().map(|ran| ran.code());
        codes.sort_unstable();
        assert_eq!(codes, [0, 16], "{both:?}");
        assert_eq!(site.stored().len(), 1);
    }
}

#[test]
fn a_file_that_changes_meanwhile_is_not_stored() {
    let server = S3Server::start();
    let site = Site::on_s3(&server);
    site.become_cluster(segment::SYSTEM_ID, 16 * MIB);
    let segment = Segment::new(1).sized(16 * MIB).holding(Content::Noise(1));
    let name = site.make(&segment);
    let path = site.wal(&name);
    server.hook(move |seen| {
        if seen.op == Op::BeginUpload {
            use std::os::unix::fs::FileExt;
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(b"changed", 15 * MIB as u64).unwrap();
        }
        Action::Pass
    });
    site.push(&name).exits(14).tells_the_way_out().says(&["changed while it was read", "nothing was stored"]);
    server.unhook();
    assert!(server.objects("pg/clusters/main/7").is_empty());
    assert!(server.uploads().is_empty());
    site.push(&name).exits(0);
    site.fetches(&name);
}

/// Two repositories in the settings, the second with these extra lines.
fn two_repositories(extra: &str) -> Site {
    let mut site = Site::bare();
    let text: String = ["one", "two"]
        .iter()
        .zip(["", extra])
        .map(|(name, extra)| {
            let key = site.path("key");
            format!("[[repository]]\nurl = \"file://{}\"\nkey_file = {key:?}\n{extra}\n", site.path(name).display())
        })
        .collect();
    site.configure(&text);
    site.init();
    site
}

#[test]
fn a_push_goes_to_all_repositories() {
    for (extra, down, code) in [("", "one", 10), ("", "two", 10), ("optional = true", "two", 0), ("optional = true", "one", 10)] {
        let site = two_repositories(extra);
        let first = site.make(&Segment::new(1));
        site.push(&first).exits(0);
        let count = |name: &str| files_below(&site.path(name)).iter().filter(|p| p.to_str().unwrap().contains("/wal/")).count();
        assert_eq!((count("one"), count("two")), (1, 1));
        fs::rename(site.path(down), site.path("away")).unwrap();
        let second = site.make(&Segment::new(2));
        let ran = site.push(&second).exits(code).says(&[&site.path(down).display().to_string()]);
        if code == 0 {
            ran.says(&["ERROR", "optional repository", "did not get"]);
        }
        let up = if down == "one" { "two" } else { "one" };
        assert_eq!(count(up), 2, "the other one gets it all the same");
        assert!(!site.path(down).exists(), "what is not mounted is not made");
        fs::rename(site.path("away"), site.path(down)).unwrap();
        site.push(&second).exits(0);
        if code == 0 {
            // It is not asked by every call while it fails; see `patience`.
            site.run(["push-wal", "--missed"]).exits(0);
        }
        assert_eq!((count("one"), count("two")), (2, 2));
    }
}

#[test]
fn a_conflict_in_one_of_several_repositories_is_told() {
    let site = two_repositories("");
    let name = site.make(&Segment::new(1));
    site.run(["push-wal", "--repository", &format!("file://{}", site.path("two").display()), &format!("pg_wal/{name}")]).exits(0);
    site.make(&Segment::new(1).holding(Content::Records(5)));
    site.push(&name).exits(13).says(&["two", "other content"]);
}
