//! Real PostgreSQL servers: made, filled, crashed, copied, restored and removed without a trace.
//!
//! Servers listen on a Unix socket in a short temporary directory only, so no port is needed and tests run side by
//! side. The server refuses to run as root, so as root everything it runs and owns belongs to `postgres` or `nobody`
//! ([`Scratch`]). Nothing here sleeps to synchronise: [`poll`] asks until a deadline, and every failure shows the end
//! of the server's log.
//!
//! Installations come from `tests/install-postgres.sh`; a missing one is a failure that says so, never a skipped test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(crate) mod copy;
pub(crate) mod journal;
pub(crate) mod load;
pub(crate) mod restored;
pub(crate) mod scratch;

pub(crate) use copy::Backup;
pub(crate) use journal::{Entry, Journal, Point};
pub(crate) use load::Load;
pub(crate) use scratch::Scratch;

/// How long anything may take before the test fails. Generous: the machine may have two busy cores.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The database superuser of every cluster.
const SUPERUSER: &str = "postgres";

/// Asks `condition` every few milliseconds until it answers or [`PATIENCE`] is over.
pub(crate) fn poll<T>(mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An installed PostgreSQL.
#[derive(Clone, Debug)]
pub(crate) struct Postgres {
    /// Its major version.
    pub(crate) major: u32,
    /// The directory that holds `bin`.
    pub(crate) home: PathBuf,
}

impl Postgres {
    /// The installation of one major version.
    pub(crate) fn find(major: u32) -> Self {
        Self::lookup(major).unwrap_or_else(|| {
            panic!("PostgreSQL {major} is not installed for tests; run: tests/install-postgres.sh {}", tools().display())
        })
    }

    fn lookup(major: u32) -> Option<Self> {
        [tools().join(major.to_string()), PathBuf::from(format!("/usr/lib/postgresql/{major}"))]
            .into_iter()
            .find(|home| home.join("bin/postgres").exists() && home.join("bin/initdb").exists())
            .map(|home| Self { major, home })
    }

    /// A client program (`pgbench`, `psql`, `pg_basebackup`, …): this version's own, else the one for all versions.
    pub(crate) fn client_tool(&self, name: &str) -> Option<PathBuf> {
        [self.home.clone(), tools().join("client")].into_iter().map(|home| home.join("bin").join(name)).find(|path| path.exists())
    }
}

/// Where `tests/install-postgres.sh` puts PostgreSQL unless `WALVIS_TEST_TOOLS` names another directory.
fn tools() -> PathBuf {
    let root = std::env::var_os("WALVIS_TEST_TOOLS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools"), PathBuf::from);
    root.join("postgres")
}

/// How a cluster is made.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// WAL segment size in MiB, a power of two.
    pub(crate) wal_segsize_mib: u32,
    /// Whether data pages carry checksums.
    pub(crate) checksums: bool,
    /// `archive_command`; archiving is on when there is one.
    pub(crate) archive_command: Option<String>,
    /// `restore_command`.
    pub(crate) restore_command: Option<String>,
    /// Further lines of `postgresql.conf`; they win over the harness's own.
    pub(crate) settings: Vec<(String, String)>,
    /// Environment of the server, which its commands inherit.
    pub(crate) env: Vec<(String, String)>,
    /// Further arguments of `initdb`.
    pub(crate) initdb: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            wal_segsize_mib: 16,
            checksums: true,
            archive_command: None,
            restore_command: None,
            settings: Vec::new(),
            env: Vec::new(),
            initdb: Vec::new(),
        }
    }
}

impl Options {
    /// Adds a line of `postgresql.conf`.
    #[must_use]
    pub(crate) fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// What a restored directory is started as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// `recovery.signal`: recover from the archive, then promote.
    Recovery,
    /// `standby.signal`: follow the archive for ever.
    Standby,
}

/// How `fast` a server is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// SIGINT: end sessions, checkpoint, archive the rest.
    Fast,
    /// SIGQUIT: at once, as after a crash.
    Immediate,
}

/// How a recovery ended.
#[derive(Debug)]
pub(crate) enum Recovery {
    /// The server ended recovery and takes writes.
    Promoted,
    /// The server gave up.
    Exited(ExitStatus),
}

/// A data directory and, when started, its server. Dropping it kills the server and all its children; the files go with
/// the [`Scratch`] they are in.
pub(crate) struct Cluster {
    postgres: Postgres,
    scratch: Arc<Scratch>,
    /// The data directory.
    pub(crate) data: PathBuf,
    sockets: PathBuf,
    log: PathBuf,
    env: Vec<(String, String)>,
    wal_segment_bytes: u64,
    server: Option<Child>,
    /// Whether somebody else may have started a server on the data directory.
    foreign: bool,
}

impl Cluster {
    /// Makes a cluster with `initdb`. It is not started.
    pub(crate) fn init(scratch: &Arc<Scratch>, name: &str, major: u32, options: &Options) -> Self {
        let cluster = Self::prepare(scratch, name, major, options);
        let mut initdb = scratch.command(&cluster.program("initdb"));
        initdb.arg("-D").arg(&cluster.data).args(["-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
        initdb.arg(format!("--wal-segsize={}", options.wal_segsize_mib));
        if options.checksums {
            initdb.arg("--data-checksums");
        } else if major >= 18 {
            initdb.arg("--no-data-checksums");
        }
        run(initdb.args(&options.initdb));
        cluster.configure(options);
        cluster
    }

    /// Makes a data directory from a backup. It is not started: see [`spawn`](Self::spawn).
    ///
    /// `options.settings` hold the recovery target, if any.
    pub(crate) fn restore(scratch: &Arc<Scratch>, name: &str, backup: &Backup, role: Role, options: &Options) -> Self {
        let options = Options { wal_segsize_mib: backup.wal_segsize_mib, ..options.clone() };
        let cluster = Self::prepare(scratch, name, backup.major, &options);
        copy::tree(&backup.dir, &cluster.data, scratch);
        cluster.configure(&options);
        let signal = match role {
            Role::Recovery => "recovery.signal",
            Role::Standby => "standby.signal",
        };
        scratch.write(&cluster.data.join(signal), b"");
        cluster
    }

    /// A data directory that is there already, under a name below the scratch directory. It is not started.
    pub(crate) fn in_place(scratch: &Arc<Scratch>, name: &str, major: u32, options: &Options) -> Self {
        let cluster = Self::prepare(scratch, name, major, options);
        cluster.configure(options);
        cluster
    }

    fn prepare(scratch: &Arc<Scratch>, name: &str, major: u32, options: &Options) -> Self {
        let sockets = scratch.path().join(format!("{name}.s"));
        if !sockets.exists() {
            scratch.make_dir(&format!("{name}.s"));
        }
        // sun_path holds 108 bytes; the name in it is `.s.PGSQL.5432.lock`.
        assert!(sockets.as_os_str().len() < 85, "socket path too long: {}", sockets.display());
        Self {
            postgres: scratch.reachable_postgres(&Postgres::find(major)),
            scratch: Arc::clone(scratch),
            data: scratch.path().join(name),
            sockets,
            log: scratch.path().join(format!("{name}.log")),
            env: options.env.clone(),
            wal_segment_bytes: u64::from(options.wal_segsize_mib) << 20,
            server: None,
            foreign: false,
        }
    }

    fn program(&self, name: &str) -> PathBuf {
        self.postgres.home.join("bin").join(name)
    }

    /// Replaces the settings: `test.conf` is the harness's own file, included at the end of `postgresql.conf`.
    pub(crate) fn configure(&self, options: &Options) {
        let quoted_bool = |on: bool| if on { "on" } else { "off" }.to_owned();
        let mut settings: BTreeMap<&str, String> = [
            ("listen_addresses", String::new()),
            ("unix_socket_directories", self.sockets.display().to_string()),
            ("unix_socket_permissions", "0777".to_owned()),
            ("archive_mode", quoted_bool(options.archive_command.is_some())),
            ("archive_command", options.archive_command.clone().unwrap_or_default()),
            ("restore_command", options.restore_command.clone().unwrap_or_default()),
            // A server killed by a signal loses nothing that it wrote, synced or not; only the machine's crash would.
            ("fsync", "off".to_owned()),
            // Nothing is left in /dev/shm when the server is killed.
            ("dynamic_shared_memory_type", "mmap".to_owned()),
            ("shared_buffers", "32MB".to_owned()),
            ("max_connections", "30".to_owned()),
            ("checkpoint_timeout", "1h".to_owned()),
            ("max_wal_size", "4GB".to_owned()),
            ("wal_retrieve_retry_interval", "100ms".to_owned()),
            ("logging_collector", "off".to_owned()),
            ("log_line_prefix", "%m [%p] %b ".to_owned()),
        ]
        .into();
        for (name, value) in &options.settings {
            settings.insert(name, value.clone());
        }
        let mut text = String::new();
        for (name, value) in settings {
            writeln!(text, "{name} = '{}'", value.replace('\'', "''")).unwrap();
        }
        self.scratch.write(&self.data.join("test.conf"), text.as_bytes());
        let main = self.data.join("postgresql.conf");
        let mut conf = fs::read_to_string(&main).unwrap();
        if !conf.contains("\ninclude 'test.conf'\n") {
            conf.push_str("\ninclude 'test.conf'\n");
            self.scratch.write(&main, conf.as_bytes());
        }
    }

    /// The installation it runs on.
    pub(crate) fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// Connection string for libpq and Walvis (`check --server`).
    pub(crate) fn conninfo(&self) -> String {
        format!("host={} user={SUPERUSER} dbname=postgres", self.sockets.display())
    }

    /// Starts the server and waits until it takes queries (on a standby: read-only ones).
    pub(crate) fn start(&mut self) {
        self.spawn();
        let ready = poll(|| match load::Client::connect(self) {
            Ok(_) => Some(true),
            Err(_) => self.exited().map(|_| false),
        });
        match ready {
            Some(true) => {}
            Some(false) => self.fail("the server did not start"),
            None => self.fail("the server does not take connections"),
        }
    }

    /// Starts the server and does not wait: for recoveries that are meant to fail, or take long.
    pub(crate) fn spawn(&mut self) {
        assert!(self.server.is_none(), "the server runs already");
        let log = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut command = self.scratch.command(&self.program("postgres"));
        command.arg("-D").arg(&self.data).envs(self.env.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.server = Some(command.spawn().unwrap());
    }

    /// The exit status of the server if it ended by itself.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        let status = self.server.as_mut()?.try_wait().unwrap()?;
        self.server = None;
        Some(status)
    }

    /// Waits until recovery is over one way or the other. `pg_ctl start` answering 0 would prove nothing: a server in
    /// recovery takes queries and may still fail.
    pub(crate) fn wait_recovery(&mut self) -> Recovery {
        let end = poll(|| {
            if let Some(status) = self.exited() {
                return Some(Recovery::Exited(status));
            }
            let in_recovery = load::Client::connect(self).and_then(|client| client.query("select pg_is_in_recovery()")).ok()?;
            (in_recovery == "f").then_some(Recovery::Promoted)
        });
        end.unwrap_or_else(|| self.fail("recovery does not end"))
    }

    /// Stops the server and waits until it is gone.
    pub(crate) fn stop(&mut self, how: Stop) {
        let signal = match how {
            Stop::Fast => Signal::SIGINT,
            Stop::Immediate => Signal::SIGQUIT,
        };
        kill(self.pid(), signal).unwrap();
        if poll(|| self.exited()).is_none() {
            self.fail(&format!("the server does not stop on {signal}"));
        }
    }

    /// Kills the server and every process below it with SIGKILL, as a machine does that loses power. Does nothing when
    /// no server runs.
    pub(crate) fn kill(&mut self) {
        if self.server.is_none() && !self.foreign {
            return;
        }
        let shared_memory = self.shared_memory_id();
        // The postmaster first, so that it starts nothing anew.
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        // Backends and commands of the server have the data directory as their working directory.
        let gone = poll(|| {
            let left = self.processes();
            for pid in &left {
                let _ = kill(*pid, Signal::SIGKILL);
            }
            left.is_empty().then_some(())
        });
        assert!(gone.is_some() || std::thread::panicking(), "processes outlive the server of {}", self.data.display());
        if self.foreign {
            // Until its parent has heard of its end, the next server on these sockets would take it for one that runs.
            let _ = fs::remove_file(self.sockets.join(".s.PGSQL.5432.lock"));
        }
        // A killed server leaves its System V interlock segment (56 bytes) behind.
        if let Some(id) = shared_memory {
            let _ = self.scratch.command(Path::new("ipcrm")).args(["-m", &id]).stderr(Stdio::null()).status();
        }
    }

    /// Kills the server and removes the data directory: the disaster.
    pub(crate) fn destroy(mut self) {
        self.kill();
        // A server that ended by itself leaves helpers, which may write while all goes.
        super::command::kill_below(&self.data);
        fs::remove_dir_all(&self.data).unwrap();
    }

    fn pid(&self) -> Pid {
        let server = self.server.as_ref().expect("the server does not run");
        Pid::from_raw(i32::try_from(server.id()).unwrap())
    }

    fn processes(&self) -> Vec<Pid> {
        let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&self.data)))
            .map(Pid::from_raw)
            .collect()
    }

    /// Line 7 of `postmaster.pid`: key and id of the System V segment.
    fn shared_memory_id(&self) -> Option<String> {
        let text = fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        text.lines().nth(6)?.split_whitespace().nth(1).map(str::to_owned)
    }

    /// A connection. Fails the test when there is none to be had.
    pub(crate) fn client(&self) -> load::Client {
        load::Client::connect(self).unwrap_or_else(|error| self.fail(&format!("cannot connect: {error}")))
    }

    /// Runs SQL and returns the rows as `psql -At` prints them: columns joined by `|`, rows by a line feed.
    pub(crate) fn sql(&self, sql: &str) -> String {
        self.client().query(sql).unwrap_or_else(|error| self.fail(&format!("{sql}: {error}")))
    }

    /// As [`sql`](Self::sql), in another database.
    pub(crate) fn sql_in(&self, database: &str, sql: &str) -> String {
        let answer = load::Client::connect_to(self, database).and_then(|client| client.query(sql));
        answer.unwrap_or_else(|error| self.fail(&format!("{database}: {sql}: {error}")))
    }

    /// Ends the current segment with a record of its own in it, and returns the segment's name.
    pub(crate) fn switch_wal(&self) -> String {
        self.sql("select pg_create_restore_point('walvis test switch')");
        let lsn = self.sql("select pg_switch_wal()");
        // The LSN is the end of the switch record + 1, which may be the boundary itself.
        self.segment_name(self.timeline(), parse_lsn(&lsn) - 1)
    }

    /// The timeline a promoted server or a primary writes.
    pub(crate) fn timeline(&self) -> u32 {
        // Not the one of pg_control, which lags behind until the first checkpoint after a promotion.
        let name = self.sql("select pg_walfile_name(pg_current_wal_lsn())");
        u32::from_str_radix(&name[..8], 16).unwrap()
    }

    /// The name of the segment that holds byte `lsn`.
    pub(crate) fn segment_name(&self, timeline: u32, lsn: u64) -> String {
        let segment = lsn / self.wal_segment_bytes;
        let per_log = (1_u64 << 32) / self.wal_segment_bytes;
        format!("{timeline:08X}{:08X}{:08X}", segment / per_log, segment % per_log)
    }

    /// Waits until the archiver has nothing up to `segment` left to do.
    pub(crate) fn wait_archived(&mut self, segment: &str) {
        let status = self.data.join("pg_wal/archive_status");
        let done = poll(|| {
            if self.exited().is_some() {
                self.fail("the server ended while it was to archive");
            }
            let names = fs::read_dir(&status).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let waiting = names.filter(|name| name.ends_with(".ready") && name[..24.min(name.len())] <= *segment).count();
            // Finished: none waits, and this one was there (`.done`) or was recycled already.
            (waiting == 0
                && (status.join(format!("{segment}.done")).exists() || !self.data.join("pg_wal").join(segment).exists()))
            .then_some(())
        });
        if done.is_none() {
            self.fail(&format!("{segment} is not archived: {}", self.sql("select to_json(s) from pg_stat_archiver s")));
        }
    }

    /// [`switch_wal`](Self::switch_wal) and [`wait_archived`](Self::wait_archived).
    pub(crate) fn switch_and_archive(&mut self) -> String {
        let segment = self.switch_wal();
        self.wait_archived(&segment);
        segment
    }

    /// Runs `pgbench` against it, if there is one.
    pub(crate) fn pgbench(&self, arguments: &[&str]) -> bool {
        let Some(pgbench) = Postgres::find(self.postgres.major).client_tool("pgbench") else { return false };
        run(Command::new(pgbench).args(arguments).arg("postgres").env("PGHOST", &self.sockets).env("PGUSER", SUPERUSER));
        true
    }

    /// The whole log so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Fails the test with the end of the server's log.
    pub(crate) fn fail(&self, what: &str) -> ! {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(60)..].join("\n");
        panic!("PostgreSQL {}, {}: {what}\n--- end of its log:\n{tail}\n---", self.postgres.major, self.data.display());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
        // Helpers of a server that was stopped.
        super::command::kill_below(&self.data);
    }
}

/// Runs a program to its end; fails the test with its output when it fails.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}\n{stdout}\n{stderr}", output.status);
    stdout.into_owned()
}

/// `16/B374D848` as a number.
pub(crate) fn parse_lsn(text: &str) -> u64 {
    let (high, low) = text.split_once('/').unwrap();
    (u64::from_str_radix(high, 16).unwrap() << 32) | u64::from_str_radix(low, 16).unwrap()
}

/// Creates a file readable by its owner only.
fn create_private(path: &Path) -> io::Result<File> {
    let file = File::create(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    Ok(file)
}
