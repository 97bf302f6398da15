//! Peak memory of the program: 64 MiB for 16 MiB segments, 128 MiB for a segment of 1 GiB, whatever is in them and
//! wherever they go.
//!
//! The kernel tells the peak of the largest child that was waited for. So a process of its own, this very test binary
//! running [`measure`], starts the program and asks.

use std::process::Command;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use walvis::deadline::Deadline;
use walvis::format::changes;
use walvis::limits::{MAX_SUMMARY_BYTES, MIB};
use walvis::pg::changes::Collector;
use walvis::pg::scan::{Scanner, Segment as Scanned};
use walvis::pg::{Timeline, WalFileName, WalSegmentSize};
use walvis::repo::{ClusterName, Content as Stored, Facts, Repository, Secret, StoreSettings, StoreUrl, SystemId};

use crate::support::ahead::Ahead;
use crate::support::command::{DESTINATION, Ran, Site, WALVIS, run};
use crate::support::s3::S3Server;
use crate::support::segment::{self, Content, Segment};
use crate::support::wal::{SEGMENT_BYTES, SYSTEM_ID, Writer};

/// What a program that is not optimised takes more, for its code alone (12 MiB for `walvis --version`, where a release
/// takes 6). What is promised is promised of the release.
const OF_UNOPTIMISED_CODE_MIB: u64 = if cfg!(debug_assertions) { 6 } else { 0 };
/// What a call or helper may take with segments of 16 MiB.
const BOUND_MIB: u64 = 64 + OF_UNOPTIMISED_CODE_MIB;

#[test]
#[ignore = "the other tests run it as a process of its own"]
fn measure() {
    let arguments = std::env::var("WALVIS_TEST_MEASURE").expect("run by other tests");
    let wrapper = std::env::var("WALVIS_TEST_WRAPPER").unwrap_or_default();
    let mut words = wrapper.split_whitespace().chain([WALVIS]).chain(arguments.split(' '));
    let status = Command::new(words.next().unwrap()).args(words).status().unwrap();
    // A child begins as a copy of us, and that counts as its own. (Our own usage would count our parent's in the same
    // way.)
    let memory = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = memory.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB").to_owned();
    println!("peak: {} own: {own} code: {:?}", getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss(), status.code());
}

/// Runs the program and gives its peak in MiB.
#[track_caller]
fn peak_mib(site: &Site, arguments: &[&str]) -> u64 {
    peak_mib_under(site, "", arguments)
}

/// The same under another program.
#[track_caller]
fn peak_mib_under(site: &Site, wrapper: &str, arguments: &[&str]) -> u64 {
    let (peak, code) = peak_and_code_under(site, wrapper, arguments);
    assert_eq!(code, Some(0), "{arguments:?}");
    peak
}

/// The same of a program that may fail, and what it ended with.
#[track_caller]
pub(crate) fn peak_and_code(site: &Site, arguments: &[&str]) -> (u64, Option<i32>) {
    peak_and_code_under(site, "", arguments)
}

#[track_caller]
fn peak_and_code_under(site: &Site, wrapper: &str, arguments: &[&str]) -> (u64, Option<i32>) {
    let this = std::env::current_exe().unwrap();
    let mut command =
        site.wrapped([this.as_os_str()], ["--exact", "memory::measure", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env("WALVIS_TEST_WRAPPER", wrapper).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let ran: Ran = run(command.env("WALVIS_TEST_MEASURE", arguments.join(" "))).exits(0);
    let (_, line) = ran.stdout.split_once("peak: ").unwrap_or_else(|| panic!("it measured nothing: {ran:?}"));
    let fields: Vec<&str> = line.lines().next().unwrap().split(' ').collect();
    let code = fields[4].strip_prefix("Some(").and_then(|rest| rest.strip_suffix(')')).map(|code| code.parse().unwrap());
    let [peak, own] = [fields[0], fields[2]].map(|kib| kib.parse::<u64>().unwrap() / 1024);
    assert!(own < 48, "the measuring process itself takes {own} MiB: it drowns what it measures");
    (peak, code)
}

/// Pushes and fetches within this bound.
#[track_caller]
fn stays_below(site: &Site, name: &str, bound_mib: u64) {
    let path = format!("pg_wal/{name}");
    for arguments in [vec!["push-wal", &path], vec!["fetch-wal", name, DESTINATION]] {
        let peak = peak_mib(site, &arguments);
        println!("peak resident memory {peak} MiB of at most {bound_mib}: walvis {arguments:?}");
        assert!(peak <= bound_mib, "{arguments:?} took {peak} MiB");
        assert!(peak >= 4, "{arguments:?} took {peak} MiB: that is no measurement");
    }
    let same = Command::new("cmp").arg(site.destination()).arg(site.wal(name)).status().unwrap();
    assert!(same.success(), "{name} came back otherwise");
    std::fs::remove_file(site.destination()).unwrap();
}

fn with_passphrase(mut site: Site) -> Site {
    site.unset("WALVIS_KEY_FILE");
    site.set("WALVIS_PASSPHRASE", "correct horse battery staple");
    site.init();
    site
}

#[test]
fn sixteen_mib_segments() {
    let server = S3Server::start();
    for (site, contents) in [
        (Site::new(), vec![Content::Zeros, Content::Noise(1)]),
        (Site::on_s3(&server), vec![Content::Records(1), Content::Noise(1)]),
    ] {
        site.become_cluster(segment::SYSTEM_ID, 16 * MIB);
        for (number, content) in (1..).zip(contents) {
            let name = site.make(&Segment::new(number).sized(16 * MIB).holding(content));
            stays_below(&site, &name, BOUND_MIB);
            if content == Content::Zeros {
                // Again: it is compared.
                assert!(peak_mib(&site, &["push-wal", &format!("pg_wal/{name}")]) <= BOUND_MIB);
            }
        }
    }
}

/// By hand, after a gap: all are looked at before the first is sent, and do not wait in memory.
#[test]
fn many_segments_in_one_call() {
    let site = Site::new();
    site.become_cluster(segment::SYSTEM_ID, 16 * MIB);
    let make = |number| site.make(&Segment::new(number).sized(16 * MIB).holding(Content::Records(number)));
    let paths: Vec<String> = (1..=16).map(|number| format!("pg_wal/{}", make(number))).collect();
    let arguments: Vec<&str> = std::iter::once("push-wal").chain(paths.iter().map(String::as_str)).collect();
    let peak = peak_mib(&site, &arguments);
    assert!(peak <= BOUND_MIB, "16 segments took {peak} MiB");
    assert_eq!(site.stored().len(), 16);
}

/// Where the kernel keeps no keys, every process derives the key of a passphrase, and that takes what Argon2id takes.
/// It is given back before anything else is done.
#[test]
fn the_key_of_a_passphrase() {
    let server = S3Server::start();
    let mut on_s3 = Site::bare();
    on_s3.use_s3(&server, "pg");
    for site in [Site::without_repository(), on_s3].map(with_passphrase) {
        site.become_cluster(segment::SYSTEM_ID, 16 * MIB);
        let name = site.make(&Segment::new(1).sized(16 * MIB).holding(Content::Noise(1)));
        let no_keyring =
            "strace -f -qq -o /dev/null -e trace=add_key,request_key,keyctl -e inject=add_key,request_key,keyctl:error=ENOSYS";
        for arguments in [vec!["push-wal", &format!("pg_wal/{name}")], vec!["fetch-wal", &name, DESTINATION]] {
            let peak = peak_mib_under(&site, no_keyring, &arguments);
            println!("peak resident memory {peak} MiB of at most 112, deriving the key: walvis {arguments:?}");
            assert!((64..=112).contains(&peak), "{arguments:?} took {peak} MiB");
        }
    }
}

#[test]
fn a_one_gib_segment() {
    let server = S3Server::start();
    for site in [Site::new(), Site::on_s3(&server)] {
        let segment = Segment::new(1).sized(1024 * MIB);
        site.become_cluster(segment::SYSTEM_ID, segment.size);
        let name = segment.name();
        // Noise for several upload parts, spread over the file.
        segment.write_sparse(&site.wal(&name), 64 * MIB, 17 * MIB / 16);
        stays_below(&site, &name, 128);
    }
    let parts = server.seen(crate::support::s3::Op::Part).len();
    assert!(parts >= 3, "it was sent in {parts} parts");
}

/// Commits in each segment of [`long_log`].
const COMMITS: u32 = 400;

/// A repository with a log of that many segments, and its catalog. Of the segments only what a list reads is stored:
/// the summaries, and what each segment changes.
fn long_log(segments: u32) -> Site {
    let site = Site::unencrypted();
    let settings = StoreSettings { url: StoreUrl::File(site.repository()), create_if_absent: None, known: None };
    let deadline = Deadline::after(Duration::from_secs(600));
    let repository = Repository::open(&settings, &Secret::None, 1, deadline).unwrap();
    let (cluster, size) = (ClusterName::new("main").unwrap(), WalSegmentSize::new(SEGMENT_BYTES).unwrap());
    let facts = Facts { system_id: SystemId(SYSTEM_ID), wal_segment_size: size, postgres_major: Some(16) };
    repository.bind(&cluster, facts).unwrap();
    let mut writer = Writer::new(5, 1);
    for _ in 0..segments {
        writer.busy(COMMITS);
        // The log goes on with the next segment; this one is not kept.
        let next = writer.fork(1);
        for (_, name, bytes) in writer.finish().segments {
            let segment = Scanned::new(name, size).unwrap();
            let mut scanner = Scanner::new(segment, Collector::new(SEGMENT_BYTES));
            scanner.push(&bytes);
            let scanned = scanner.finish();
            let summary = scanned.summary.encode_within(MAX_SUMMARY_BYTES);
            let changes = changes::encode(changes::span_of(segment).unwrap(), &scanned.visitor.finish());
            let content = Stored::of_bytes(b"").with_summary(summary).with_changes(Some(changes));
            repository.put_wal(&cluster, facts.system_id, &WalFileName::Segment(name), &content).unwrap();
        }
        writer = next;
    }
    repository.catalog(&cluster, facts).unwrap().rebuild(Timeline(1), false).unwrap();
    site
}

/// A list of a long log takes no more memory than one of a short log.
#[test]
fn lists_of_a_long_log() {
    let (short, long) = (long_log(40), long_log(600));
    for arguments in [
        &["catalog"][..],
        &["catalog", "--commits"],
        &["catalog", "--restore-points", "--json"],
        &["resolve", "--target", "latest", "--from", "0/100028"],
    ] {
        let [of_short, of_long] = [&short, &long].map(|site| peak_mib(site, arguments));
        println!("peak resident memory {of_short} MiB for 40 segments, {of_long} MiB for 600: walvis {arguments:?}");
        assert!(of_long <= 40 && of_long <= of_short + 6, "{of_short} and {of_long} MiB: walvis {arguments:?}");
    }
    let lines = long.run(["catalog", "--commits"]).exits(0).stdout.lines().count();
    assert_eq!(lines, 600 * COMMITS as usize);
}

/// What works ahead, as processes that we wait for: with segments that do not compress, so that every buffer is as long
/// as it gets.
fn helpers_stay_below(mut site: Site, segments: &[Segment], make: impl Fn(&Segment, &std::path::Path), bound_mib: u64) {
    site.become_cluster(segment::SYSTEM_ID, segments[0].size);
    for (name, value) in walvis::wal::spool::HELPER_ENVIRONMENT {
        site.set(name, value);
    }
    let names: Vec<String> = segments.iter().map(Segment::name).collect();
    for (segment, name) in segments.iter().zip(&names) {
        make(segment, &site.wal(name));
        site.is_ready(name);
    }
    site.make_spool();
    let peak = peak_mib(&site, &["push-wal", "--ahead", &format!("pg_wal/{}", names[0])]);
    println!("peak resident memory {peak} MiB of at most {bound_mib}: {} files pushed ahead", names.len() - 1);
    for name in &names[1..] {
        assert!(site.record(name).exists(), "{name} was not pushed");
    }
    assert!(peak <= bound_mib, "the push helper took {peak} MiB");
    site.push(&names[0]).exits(0);

    site.recovers();
    let peak = std::thread::scope(|scope| {
        scope.spawn(|| {
            let since = std::time::Instant::now();
            while since.elapsed().as_secs() < 100 {
                let there = names.iter().filter(|name| site.fetched_record(name).exists()).count();
                if there == names.len() - 1 {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            let there = names.iter().filter(|name| site.fetched_record(name).exists()).count();
            std::fs::remove_file(site.data().join("recovery.signal")).unwrap();
            assert_eq!(there, names.len() - 1);
        });
        peak_mib(&site, &["fetch-wal", "--ahead", &names[0], DESTINATION])
    });
    println!("peak resident memory {peak} MiB of at most {bound_mib}: {} files fetched ahead", names.len() - 1);
    assert!(peak <= bound_mib, "the fetch helper took {peak} MiB");
}

#[test]
fn helpers_with_sixteen_mib_segments() {
    let server = S3Server::start();
    server.set_latency(Duration::from_millis(20));
    // The last one may have to derive its key.
    for (site, bound_mib) in
        [(Site::new(), BOUND_MIB), (Site::on_s3(&server), BOUND_MIB), (with_passphrase(Site::without_repository()), 112)]
    {
        let segments: Vec<Segment> = (1..=12)
            .map(|n| Segment::new(n).sized(16 * MIB).holding(if n % 3 == 0 { Content::Records(n) } else { Content::Noise(n) }))
            .collect();
        helpers_stay_below(site, &segments, |segment, path| std::fs::write(path, segment.bytes()).unwrap(), bound_mib);
    }
}

#[test]
fn helpers_with_one_gib_segments() {
    let server = S3Server::start();
    for site in [Site::new(), Site::on_s3(&server)] {
        let segments: Vec<Segment> = (1..=3).map(|n| Segment::new(n).sized(1024 * MIB)).collect();
        helpers_stay_below(site, &segments, |segment, path| segment.write_sparse(path, 64 * MIB, 17 * MIB / 16), 128);
    }
}
