//! Outages: a full disk, missing permissions, a store that is gone, refuses, hangs or lies. The right exit code within
//! the time limit, a message that names the thing and the way out, nothing half-stored; and when the fault is gone, the
//! same call succeeds.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use walvis::limits::MIB;

use crate::support::command::{DESTINATION, Ran, Site, WALVIS, is_root, run};
use crate::support::s3::{Action, Op, S3Server};
use crate::support::segment::{self, Content, Segment};

fn name(number: u64) -> String {
    Segment::new(number).name()
}

/// The watchdog ends a process two seconds after its time limit, and says something for half a second at most; the rest
/// is for a machine that is busy with other tests.
fn limit(timeout_s: u64) -> Duration {
    Duration::from_secs(timeout_s + 3 + 10)
}

/// A push and a fetch that fail while something is broken.
#[track_caller]
fn push_and_fetch_fail(site: &Site, code: i32, words: &[&str]) {
    let path = format!("pg_wal/{}", name(2));
    site.run(["push-wal", &path, "--timeout=2"]).exits(code).within(limit(2)).tells_the_way_out().says(words);
    site.run(["fetch-wal", &name(2), DESTINATION, "--timeout=2"]).exits(200).within(limit(2)).tells_the_way_out().says(words);
    site.left_nothing();
}

/// The same calls when nothing is broken any more.
#[track_caller]
fn all_is_well_again(site: &Site) {
    site.fetches(&name(1));
    site.fetch_fails(&name(2), 1);
    site.push(&name(2)).exits(0);
    site.fetches(&name(2));
}

/// A site whose first segment is stored, and whose second is not.
fn prepare(site: Site) -> Site {
    site.archive(&[1]);
    site.make(&Segment::new(2));
    site
}

fn under_strace(site: &Site, options: &[&str], arguments: &[&str]) -> Ran {
    let log = site.path("strace.log");
    let wrapper = [&["strace", "-f", "-o", log.to_str().unwrap()], options, &[WALVIS]].concat();
    let mut command = site.wrapped(wrapper, arguments);
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    run(&mut command)
}

#[test]
fn a_file_system_that_fails() {
    let site = prepare(Site::new());
    let path = format!("pg_wal/{}", name(2));
    for (error, code, words) in [
        ("ENOSPC", 11, ["No space left", "free space"]),
        ("EDQUOT", 11, ["quota exceeded", "quota"]),
        ("EIO", 11, ["Input/output error", "disk"]),
        ("EROFS", 12, ["Read-only", "read-write"]),
        ("EACCES", 12, ["Permission denied", "give user"]),
    ] {
        for call in ["pwrite64", "fsync", "linkat", "mkdirat"] {
            let inject = format!("inject={call}:error={error}");
            let ran = under_strace(&site, &["-e", &inject], &["push-wal", &path, "--timeout=2"]);
            if call == "mkdirat" {
                ran.exits(0); // Nothing had to be made.
                fs::remove_file(site.object(&name(2))).unwrap();
            } else {
                ran.exits(code).within(limit(2)).tells_the_way_out().says(&words).says(&[&name(2)]);
            }
            assert_eq!(site.stored(), [name(1)], "{call} {error}");
        }
        for call in ["pwrite64", "linkat"] {
            let inject = format!("inject={call}:error={error}");
            let ran = under_strace(&site, &["-e", &inject], &["fetch-wal", &name(1), DESTINATION, "--timeout=2"]);
            ran.exits(200).within(limit(2)).tells_the_way_out().says(&words);
            site.left_nothing();
        }
    }
    all_is_well_again(&site);
}

#[test]
fn a_disk_that_cannot_be_read() {
    let site = prepare(Site::new());
    for call in ["pread64", "read", "getdents64"] {
        for wanted in [name(1), name(2)] {
            // Not what the loader reads: from the tenth on.
            let when = if call == "getdents64" { "" } else { ":when=10+" };
            let options = format!("inject={call}:error=EIO{when}");
            let arguments = ["fetch-wal", &wanted, DESTINATION, "--timeout=2"];
            let ran = under_strace(&site, &["-e", &options], &arguments);
            let harmless = wanted == name(2) && call == "pread64" || wanted == name(1) && call == "getdents64" && ran.code() == 0;
            if harmless {
                let _ = fs::remove_file(site.destination());
            } else {
                ran.exits(200).within(limit(2));
            }
            site.left_nothing();
        }
    }
    all_is_well_again(&site);
}

/// A small file system of our own, where we may mount one.
pub(crate) struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    pub(crate) fn mount(path: std::path::PathBuf, size: &str) -> Option<Self> {
        fs::create_dir_all(&path).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("mode=755,size={size}"), "tmpfs"])
            .arg(&path)
            .output();
        mounted.ok().filter(|m| m.status.success()).map(|_| Self(path))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_is_full() {
    // Without the right to mount, `a_file_system_that_fails` stands in.
    let site = Site::without_repository();
    let Some(disk) = Tmpfs::mount(site.repository(), "2m") else { return };
    site.init();
    let site = prepare(site);
    let ballast = site.repository().join("ballast");
    let mut size = 2 * MIB;
    while fs::write(&ballast, vec![1; size]).is_err() {
        size -= 4096 * 4;
    }
    let path = format!("pg_wal/{}", name(2));
    for _ in 0..3 {
        let ran = site.run(["push-wal", &path]).exits(11).tells_the_way_out();
        ran.says(&["No space left", &name(2), &site.repository().display().to_string(), "free space"]);
        site.fetch_fails(&name(2), 1);
    }
    fs::remove_file(&ballast).unwrap();
    all_is_well_again(&site);
    // The same for what is fetched.
    let small = Tmpfs::mount(site.path("small"), "512k").unwrap();
    let destination = site.path("small/x");
    site.run(["fetch-wal", &name(1), destination.to_str().unwrap()]).exits(200).tells_the_way_out().says(&["No space left"]);
    assert_eq!(fs::read_dir(site.path("small")).unwrap().count(), 0);
    // A disk that is not mounted is not an empty repository, nor is one made in its place.
    drop((small, disk));
    push_and_fetch_fail(&site, 10, &["there is no repository", "mounted"]);
    assert_eq!(fs::read_dir(site.repository()).unwrap().count(), 0);
}

#[test]
fn a_directory_that_may_not_be_written() {
    if is_root() {
        return; // Permissions mean nothing to root; `a_file_system_that_fails` has the same errors from the system.
    }
    let site = prepare(Site::new());
    let path = format!("pg_wal/{}", name(2));
    let object = site.object(&name(1));
    let parent = object.parent().unwrap();
    let set = |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    set(parent, 0o500);
    site.run(["push-wal", &path]).exits(12).tells_the_way_out().says(&["Permission denied", "give user"]);
    site.fetches(&name(1));
    set(parent, 0o000);
    push_and_fetch_fail(&site, 12, &["Permission denied", "give user"]);
    set(parent, 0o700);
    set(&object, 0o000);
    site.fetch_fails(&name(1), 200).says(&["Permission denied"]);
    set(&object, 0o600);
    all_is_well_again(&site);
}

#[test]
fn a_file_system_that_hangs() {
    let site = prepare(Site::new());
    let path = format!("pg_wal/{}", name(2));
    // strace ends only when its delay is over, whenever the program did: that it did is in what it says.
    let hang = ["-e", "inject=fsync:delay_enter=7000000"];
    let ran = under_strace(&site, &hang, &["push-wal", &path, "--timeout=1"]).exits(11).within(limit(7));
    ran.tells_the_way_out().says(&["gave up", "time limit of 1 s", "hangs"]);
    assert_eq!(site.stored(), [name(1)]);
    let hang = ["-e", "inject=linkat:delay_enter=7000000"];
    let ran = under_strace(&site, &hang, &["fetch-wal", &name(1), DESTINATION, "--timeout=1"]).exits(200).within(limit(7));
    ran.says(&["gave up"]);
    site.left_nothing();
    all_is_well_again(&site);
}

#[test]
fn a_server_that_cannot_be_reached() {
    let server = S3Server::start();
    let mut site = prepare(Site::on_s3(&server));
    let good = server.endpoint();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(); // Nobody listens there any more.
    site.set("WALVIS_S3_ENDPOINT", format!("http://127.0.0.1:{port}"));
    push_and_fetch_fail(&site, 11, &["refused", "s3://walvis-test/pg"]);
    site.set("WALVIS_S3_ENDPOINT", "http://walvis.invalid:9000");
    push_and_fetch_fail(&site, 11, &["s3://walvis-test/pg"]);
    // It accepts and says nothing, ever.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    site.set("WALVIS_S3_ENDPOINT", format!("http://{}", silent.local_addr().unwrap()));
    push_and_fetch_fail(&site, 11, &["time limit", "s3://walvis-test/pg"]);
    site.set("WALVIS_S3_ENDPOINT", good);
    all_is_well_again(&site);
}

#[test]
fn a_certificate_that_is_not_trusted() {
    let server = S3Server::start_tls();
    let mut site = prepare(Site::on_s3(&server));
    site.unset("WALVIS_S3_CA_FILE");
    push_and_fetch_fail(&site, 11, &["certificate", "ca_file"]);
    site.set("WALVIS_S3_CA_FILE", "/nonexistent/ca.pem");
    push_and_fetch_fail(&site, 10, &["/nonexistent/ca.pem"]);
    site.set("WALVIS_S3_CA_FILE", server.ca_file().unwrap());
    site.set("WALVIS_S3_ENDPOINT", server.endpoint().replace("https", "http"));
    push_and_fetch_fail(&site, 11, &["s3://walvis-test/pg"]);
    site.set("WALVIS_S3_ENDPOINT", server.endpoint());
    all_is_well_again(&site);
}

#[test]
fn credentials_and_buckets_that_are_wrong() {
    let server = S3Server::start();
    let mut site = prepare(Site::on_s3(&server));
    let secret = server.env().into_iter().find(|(n, _)| *n == "AWS_SECRET_ACCESS_KEY").unwrap().1;
    site.set("AWS_SECRET_ACCESS_KEY", "wrong");
    push_and_fetch_fail(&site, 12, &["SignatureDoesNotMatch", "the secret key is wrong"]);
    site.unset("AWS_SECRET_ACCESS_KEY");
    push_and_fetch_fail(&site, 12, &["no credentials found"]);
    site.set("AWS_SECRET_ACCESS_KEY", secret);
    site.set("WALVIS_REPOSITORY", "s3://no-such-bucket/pg");
    push_and_fetch_fail(&site, 10, &["no-such-bucket"]);
    site.set("WALVIS_REPOSITORY", server.url("elsewhere"));
    push_and_fetch_fail(&site, 10, &["there is no repository", "elsewhere"]);
    site.set("WALVIS_REPOSITORY", server.url("pg"));
    all_is_well_again(&site);
}

#[test]
fn a_store_that_is_overloaded_or_hangs() {
    let server = S3Server::start();
    let site = prepare(Site::on_s3(&server));
    server.hook(|_| Action::s3_error(503, "SlowDown", "Please reduce your request rate."));
    push_and_fetch_fail(&site, 11, &["SlowDown"]);
    server.hook(|_| Action::s3_error(500, "InternalError", "We encountered an internal error."));
    push_and_fetch_fail(&site, 11, &["InternalError"]);
    server.hook(|_| Action::html(502));
    push_and_fetch_fail(&site, 11, &["502"]);
    server.hook(|_| Action::Hang);
    push_and_fetch_fail(&site, 11, &["time limit"]);
    server.hook(|_| Action::Cut);
    push_and_fetch_fail(&site, 11, &["s3://walvis-test/pg"]);
    server.hook(|seen| if seen.op == Op::Get { Action::Truncate(30) } else { Action::Pass });
    push_and_fetch_fail(&site, 11, &["s3://walvis-test/pg"]);
    server.unhook();
    assert_eq!(server.objects("pg/").keys().filter(|k| k.contains("/wal/")).count(), 1);
    all_is_well_again(&site);
}

#[test]
fn a_store_that_fails_now_and_then() {
    let server = S3Server::start();
    let site = Site::on_s3(&server);
    site.become_cluster(segment::SYSTEM_ID, 16 * MIB);
    // Every other request of each kind fails, each time in another way; two of them although they were served.
    server.hook(|seen| match (seen.nth % 2, seen.ordinal % 5) {
        (1, _) => Action::Pass,
        (_, 0) => Action::s3_error(503, "SlowDown", "Please reduce your request rate."),
        (_, 1) => Action::Cut,
        (_, 2) => Action::ServeAndCut,
        (_, 3) => Action::Truncate(20),
        _ => Action::html(500),
    });
    for (number, content) in [(1, Content::Zeros), (2, Content::Noise(1))] {
        let segment = Segment::new(number).sized(16 * MIB).holding(content);
        let name = segment.name();
        segment.write_sparse(&site.wal(&name), 16 * MIB, if number == 1 { 0 } else { 8 * MIB + 4096 });
        site.push(&name).exits(0);
        site.push(&name).exits(0);
        site.fetches(&name);
    }
    site.fetch_fails(&Segment::new(3).sized(16 * MIB).name(), 1);
}
