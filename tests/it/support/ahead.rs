//! The server's side of archiving and recovery, and what helpers leave in the spool.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

use super::command::{Ran, Running, Site, WALVIS, eventually, helpers_below, start};
use super::s3::{Action, Op, S3Server};
use super::segment::Segment;

pub trait Ahead {
    /// A file of `archive_status`.
    fn status(&self, name: &str, state: &str) -> PathBuf;
    /// Makes segments that wait to be archived, and gives their names.
    fn backlog(&self, numbers: impl IntoIterator<Item = u64>) -> Vec<String>;
    /// Lets a file wait to be archived.
    fn is_ready(&self, name: &str);
    /// Archives a file as the server does.
    fn archives(&self, name: &str) -> Ran;
    /// The directory.
    fn spool(&self) -> PathBuf;
    /// Makes it, as a call does before it starts a helper.
    fn make_spool(&self);
    /// The record of a pushed file.
    fn record(&self, name: &str) -> PathBuf;
    /// The spooled file.
    fn fetched(&self, name: &str) -> PathBuf;
    /// The record of a fetched file.
    fn fetched_record(&self, name: &str) -> PathBuf;
    /// Waits until a helper has put these on record, and is gone.
    fn await_records(&self, names: &[String]);
    /// Waits until these are in the spool.
    fn await_fetched(&self, names: &[String]);
    /// Waits until no helper is left.
    fn await_no_helper(&self);
    /// The process id of a helper.
    fn helper(&self) -> Option<i32>;
    /// Lets the data directory be that of a server in recovery.
    fn recovers(&self);
}

impl Ahead for Site {
    fn status(&self, name: &str, state: &str) -> PathBuf {
        let directory = self.data().join("pg_wal/archive_status");
        fs::create_dir_all(&directory).unwrap();
        directory.join(format!("{name}.{state}"))
    }

    fn backlog(&self, numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
        let names: Vec<String> = numbers.into_iter().map(|number| self.make(&Segment::new(number))).collect();
        names.iter().for_each(|name| self.is_ready(name));
        names
    }

    fn is_ready(&self, name: &str) {
        fs::write(self.status(name, "ready"), "").unwrap();
    }

    #[track_caller]
    fn archives(&self, name: &str) -> Ran {
        let ran = self.push(name).exits(0);
        fs::rename(self.status(name, "ready"), self.status(name, "done")).unwrap();
        ran
    }

    fn spool(&self) -> PathBuf {
        self.data().join("pg_wal/walvis")
    }

    fn make_spool(&self) {
        for directory in ["", "pushed", "fetched"] {
            fs::DirBuilder::new().mode(0o700).recursive(true).create(self.spool().join(directory)).unwrap();
        }
    }

    fn record(&self, name: &str) -> PathBuf {
        self.spool().join("pushed").join(name)
    }

    fn fetched(&self, name: &str) -> PathBuf {
        self.spool().join("fetched").join(name)
    }

    fn fetched_record(&self, name: &str) -> PathBuf {
        self.spool().join("fetched").join(format!("{name}.ok"))
    }

    #[track_caller]
    fn await_records(&self, names: &[String]) {
        eventually("all are on record", || names.iter().all(|name| self.record(name).exists()));
        self.await_no_helper();
    }

    #[track_caller]
    fn await_fetched(&self, names: &[String]) {
        eventually("all are in the spool", || names.iter().all(|name| self.fetched_record(name).exists()));
    }

    #[track_caller]
    fn await_no_helper(&self) {
        eventually("the helper ends", || self.helper().is_none());
    }

    fn helper(&self) -> Option<i32> {
        helpers_below(self.dir()).into_iter().next()
    }

    fn recovers(&self) {
        fs::write(self.data().join("recovery.signal"), "").unwrap();
    }
}

/// The same settings, but the file with the key is not there.
pub fn hide_key(site: &Site) {
    fs::rename(site.path("key"), site.path("hidden")).unwrap();
}

pub fn show_key(site: &Site) {
    fs::rename(site.path("hidden"), site.path("key")).unwrap();
}

/// Starts a call that has to wait for a helper, and returns when it does: it sleeps and looks, and sleeps and looks.
pub fn start_waiting(site: &Site, arguments: &[&str]) -> Running {
    let log = site.path("waits");
    let strace = ["strace", "-o", log.to_str().unwrap(), "-e", "trace=nanosleep,clock_nanosleep,connect", WALVIS];
    let mut command = site.wrapped(strace, arguments);
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let mut running = start(&mut command);
    let looks = || fs::read_to_string(&log).unwrap_or_default().matches("nanosleep(").count();
    eventually("the call waits", || looks() > 50 || running.has_ended());
    assert!(!running.has_ended(), "it did not wait");
    let seen = fs::read_to_string(&log).unwrap();
    assert!(!seen.contains("connect("), "it did not only wait: {seen}");
    running
}

/// Rewrites a field of a record, so that it is whole again.
pub fn forge(path: &Path, field: &str, value: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(&format!("\n{field} ")), "{text}");
    let lines = text.lines().filter(|line| !line.starts_with("blake3 "));
    let text: String = lines
        .map(|line| if line.starts_with(&format!("{field} ")) { format!("{field} {value}\n") } else { format!("{line}\n") })
        .collect();
    fs::write(path, format!("{text}blake3 {}\n", blake3::hash(text.as_bytes()))).unwrap();
}

pub fn field(path: &Path, field: &str) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.lines().find_map(|line| line.strip_prefix(&format!("{field} "))).unwrap().to_owned()
}

/// A server whose first request of this kind for this WAL file waits until it is told to go on.
pub fn hold(server: &S3Server, op: Op, name: &str) -> Arc<Barrier> {
    let (barrier, done) = (Arc::new(Barrier::new(2)), Arc::new(AtomicBool::new(false)));
    let (name, held) = (format!("/{name}"), Arc::clone(&barrier));
    server.hook(move |seen| {
        if seen.op != op || !seen.path.ends_with(&name) || done.swap(true, Ordering::Relaxed) {
            return Action::Pass;
        }
        let held = Arc::clone(&held);
        Action::Before(Box::new(move || {
            held.wait();
        }))
    });
    barrier
}

pub fn puts(server: &S3Server, name: &str) -> usize {
    server.seen(Op::Put).iter().filter(|seen| seen.path.ends_with(&format!("/{name}"))).count()
}
