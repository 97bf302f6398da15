//! The `walvis` program as PostgreSQL runs it: in a data directory, with an environment of its own, and never for ever.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use walvis::limits::MIB;

use super::s3::S3Server;
use super::segment::{self, Segment};

/// The program.
pub const WALVIS: &str = env!("CARGO_BIN_EXE_walvis");
/// No call under test takes longer; what does is killed and fails the test.
const TOO_LONG: Duration = Duration::from_secs(120);
/// Where PostgreSQL wants a file fetched.
pub const DESTINATION: &str = "pg_wal/RECOVERYXLOG";

/// A host with a data directory, a key, and the settings of a repository.
pub struct Site {
    dir: TempDir,
    env: Vec<(OsString, OsString)>,
}

impl Drop for Site {
    fn drop(&mut self) {
        // Helpers would end by themselves when they see that all is gone, but may write into it while it goes.
        kill_below(self.dir.path());
    }
}

/// The processes whose working directory is below this one, and no others: whatever calls left behind there.
pub fn processes_below(dir: &Path) -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| works_in(*pid).is_some_and(|directory| directory.starts_with(dir))).collect()
}

/// The working directory of a process. Of a helper an ordinary user sees it in its name alone: its memory is closed.
fn works_in(pid: i32) -> Option<PathBuf> {
    if let Ok(directory) = fs::read_link(format!("/proc/{pid}/cwd")) {
        return Some(directory);
    }
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let name = command.split(|byte| *byte == 0).next()?;
    Some(PathBuf::from(OsStr::from_bytes(name.strip_prefix(b"walvis in ")?)))
}

/// Those of them that work ahead. A process about to end has no arguments any more, but its locks still.
pub fn helpers_below(dir: &Path) -> Vec<i32> {
    let is_helper = |pid: &i32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.is_empty() || command.windows(8).any(|word| word == b"\0--ahead")
    };
    processes_below(dir).into_iter().filter(is_helper).collect()
}

/// Kills the processes below a directory, and waits until they are gone.
pub fn kill_below(dir: &Path) {
    let since = Instant::now();
    loop {
        let left = processes_below(dir);
        if left.is_empty() || since.elapsed() > TOO_LONG {
            break;
        }
        for pid in left {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What became of a process.
#[derive(Debug)]
pub struct Ran {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Site {
    /// With an encrypted repository in a directory.
    pub fn new() -> Self {
        let site = Self::without_repository();
        site.init();
        site
    }

    /// As [`new`](Self::new), but the repository is not made yet.
    pub fn without_repository() -> Self {
        let mut site = Self::bare();
        let repository = site.repository();
        site.set("WALVIS_REPOSITORY", format!("file://{}", repository.display()));
        site
    }

    /// With an encrypted repository on an S3 server.
    pub fn on_s3(server: &S3Server) -> Self {
        let mut site = Self::bare();
        site.use_s3(server, "pg");
        site.init();
        site
    }

    /// With a repository that everybody can read.
    pub fn unencrypted() -> Self {
        let mut site = Self::without_repository();
        site.unset("WALVIS_KEY_FILE");
        site.run(["init", "--unencrypted"]).exits(0);
        site
    }

    /// A data directory, an empty settings file and a key; no repository is configured.
    pub fn bare() -> Self {
        let dir = TempDir::new().unwrap();
        let data = dir.path().join("data");
        for below in ["global", "pg_wal"] {
            fs::create_dir_all(data.join(below)).unwrap();
        }
        let mut site = Self { dir, env: Vec::new() };
        site.become_cluster(segment::SYSTEM_ID, MIB);
        fs::write(site.path("walvis.toml"), "").unwrap();
        site.set("WALVIS_CONFIG", site.path("walvis.toml"));
        site.set("HOME", site.dir.path().to_owned());
        let key = site.path("key");
        site.run([OsStr::new("key"), OsStr::new("generate"), key.as_os_str()]).exits(0);
        site.set("WALVIS_KEY_FILE", key);
        site
    }

    /// Another host with the same settings and key, and a data directory of the same cluster.
    pub fn twin(&self) -> Self {
        let mut twin = Self::bare();
        twin.env = self.env.clone();
        twin
    }

    /// Makes the repository.
    pub fn init(&self) {
        self.run(["init"]).exits(0);
    }

    /// Makes a repository of which the key is another one's already.
    pub fn init_sharing_the_key(&self) {
        self.run(["init", "--share-key"]).exits(0);
    }

    /// Something beside the data directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where all of it is.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The directory of the repository.
    pub fn repository(&self) -> PathBuf {
        self.path("repository")
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// A file in `pg_wal`.
    pub fn wal(&self, name: &str) -> PathBuf {
        self.data().join("pg_wal").join(name)
    }

    /// Where [`fetch`](Self::fetch) puts what it fetches.
    pub fn destination(&self) -> PathBuf {
        self.data().join(DESTINATION)
    }

    /// Writes the `pg_control` of a cluster.
    pub fn become_cluster(&self, system_id: u64, segment_bytes: usize) {
        fs::write(self.data().join("global/pg_control"), segment::pg_control(system_id, segment_bytes)).unwrap();
    }

    /// Writes a file into `pg_wal`.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.wal(name), bytes).unwrap();
    }

    /// Writes a segment into `pg_wal` and gives its name.
    pub fn make(&self, segment: &Segment) -> String {
        self.write(&segment.name(), segment.bytes());
        segment.name()
    }

    /// Makes segments of timeline 1 and pushes them.
    pub fn archive(&self, numbers: &[u64]) {
        for number in numbers {
            let name = self.make(&Segment::new(*number));
            self.push(&name).exits(0);
        }
    }

    /// Makes a text file and pushes it.
    pub fn archive_text(&self, name: &str, text: &str) {
        self.write(name, text);
        self.push(name).exits(0);
    }

    pub fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.unset(name);
        self.env.push((name.into(), value.into()));
    }

    /// A variable of the environment.
    pub fn get(&self, name: &str) -> Option<OsString> {
        self.env.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone())
    }

    pub fn unset(&mut self, name: &str) {
        self.env.retain(|(n, _)| n != name);
    }

    /// Points the environment at a prefix of an S3 server.
    pub fn use_s3(&mut self, server: &S3Server, prefix: &str) {
        for (name, value) in server.env() {
            self.set(name, value);
        }
        self.set("WALVIS_REPOSITORY", server.url(prefix));
    }

    /// Writes the settings file, and takes repository and key out of the environment.
    pub fn configure(&mut self, text: &str) {
        fs::write(self.path("walvis.toml"), text).unwrap();
        for name in ["WALVIS_REPOSITORY", "WALVIS_KEY_FILE"] {
            self.unset(name);
        }
    }

    /// The program with this environment and nothing else of ours.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        self.wrapped([WALVIS], arguments)
    }

    /// The same under another program, such as `strace`.
    pub fn wrapped<W: AsRef<OsStr>, S: AsRef<OsStr>>(
        &self,
        wrapper: impl IntoIterator<Item = W>,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut wrapper = wrapper.into_iter();
        let mut command = Command::new(wrapper.next().unwrap());
        command
            .args(wrapper)
            .args(arguments)
            .env_clear()
            .envs(self.env.iter().cloned())
            .current_dir(self.data())
            .stdin(Stdio::null());
        command
    }

    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        run(&mut self.command(arguments))
    }

    /// As `archive_command` does.
    pub fn push(&self, name: &str) -> Ran {
        self.run(["push-wal", &format!("pg_wal/{name}")])
    }

    /// As `restore_command` does.
    pub fn fetch(&self, name: &str) -> Ran {
        self.run(["fetch-wal", name, DESTINATION])
    }

    /// Fetches a file that is there: it must be what lies in `pg_wal`. Leaves nothing behind.
    #[track_caller]
    pub fn fetches(&self, name: &str) {
        self.fetch(name).exits(0);
        assert!(fs::read(self.destination()).unwrap() == fs::read(self.wal(name)).unwrap(), "{name} came back otherwise");
        fs::remove_file(self.destination()).unwrap();
        self.left_nothing();
    }

    /// A fetch that must end with this code, without a file.
    #[track_caller]
    pub fn fetch_fails(&self, name: &str, code: i32) -> Ran {
        let ran = self.fetch(name).exits(code);
        self.left_nothing();
        ran
    }

    /// Neither a destination nor a temp file is in `pg_wal`.
    #[track_caller]
    pub fn left_nothing(&self) {
        let strange: Vec<String> = names_in(&self.data().join("pg_wal"))
            .into_iter()
            .filter(|n| n.starts_with("RECOVERY") || n.starts_with('.'))
            .collect();
        assert!(strange.is_empty(), "left behind: {strange:?}");
    }

    /// The stored object of a WAL file.
    pub fn object(&self, name: &str) -> PathBuf {
        let found: Vec<PathBuf> =
            files_below(&self.repository()).into_iter().filter(|p| p.file_name().unwrap() == name).collect();
        assert_eq!(found.len(), 1, "objects of {name}: {found:?}");
        found.into_iter().next().unwrap()
    }

    /// Names of the stored objects below `clusters/`, bindings left out; temp files are never there.
    pub fn stored(&self) -> Vec<String> {
        let files = files_below(&self.repository());
        let stray: Vec<&PathBuf> = files.iter().filter(|p| p.file_name().unwrap().to_str().unwrap().starts_with('.')).collect();
        assert!(stray.is_empty(), "temp files in the repository: {stray:?}");
        let is_wal = |p: &&PathBuf| p.to_str().unwrap().contains("/wal/");
        files.iter().filter(is_wal).map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }
}

/// The names in a directory, sorted.
pub fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// All files below a directory, sorted.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// A process under way whose output is kept in files, so that it never waits for a reader.
pub struct Running {
    child: Child,
    stdout: fs::File,
    stderr: fs::File,
    since: Instant,
}

/// Lets every process that is started from now on have signals as usual: a test run under `nohup`, or in the background
/// of a script, ignores some of them, and would hand that on. One that is caught is handed on as unset.
fn signals_as_usual() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT};
    static DONE: std::sync::Once = std::sync::Once::new();
    DONE.call_once(|| {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
        let ignored = u64::from_str_radix(mask.trim(), 16).unwrap();
        for signal in [SIGHUP, SIGINT, SIGQUIT].into_iter().filter(|signal| ignored & (1 << (signal - 1)) != 0) {
            signal_hook::flag::register(signal, std::sync::Arc::default()).unwrap();
        }
    });
}

/// Starts a process in a process group of its own.
pub fn start(command: &mut Command) -> Running {
    signals_as_usual();
    let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap()).process_group(0);
    let child = command.spawn().unwrap_or_else(|e| panic!("{:?}: {e}", command.get_program()));
    Running { child, stdout, stderr, since: Instant::now() }
}

/// Runs a process to its end.
pub fn run(command: &mut Command) -> Ran {
    start(command).wait()
}

impl Running {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(self.id()).unwrap()), signal).unwrap();
    }

    /// Whether it has ended; [`wait`](Self::wait) has its outcome then.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn wait(mut self) -> Ran {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if self.since.elapsed() > TOO_LONG {
                self.child.kill().unwrap();
                self.child.wait().unwrap();
                panic!("it did not end within {TOO_LONG:?}: {}", text(&mut self.stderr));
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        Ran { status, took: self.since.elapsed(), stdout: text(&mut self.stdout), stderr: text(&mut self.stderr) }
    }

    /// Waits until it ends, or kills it after this time. Whether it was killed.
    pub fn ends_or_dies(mut self, after: Duration) -> (Ran, bool) {
        let since = Instant::now();
        while since.elapsed() < after && !self.has_ended() {
            std::thread::sleep(Duration::from_millis(1));
        }
        if !self.has_ended() {
            self.signal(nix::sys::signal::Signal::SIGKILL);
        }
        let ran = self.wait();
        let was_killed = ran.status.signal() == Some(nix::sys::signal::Signal::SIGKILL as i32);
        (ran, was_killed)
    }
}

fn text(file: &mut fs::File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Ran {
    /// The exit code; a death by signal is a failure of the test.
    #[track_caller]
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("died of signal {:?}\n{}{}", self.status.signal(), self.stdout, self.stderr))
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "\nstdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Standard error holds all of these.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        let said = match self.json_error() {
            // As it reads, not as JSON escapes it.
            Some(error) => {
                format!(
                    "{}\n{} {} {}",
                    self.stderr,
                    or_empty(&error["message"]),
                    or_empty(&error["hint"]),
                    or_empty(&error["detail"])
                )
            }
            None => self.stderr.clone(),
        };
        for word in words {
            assert!(said.contains(word), "no {word:?} in: {said}");
        }
        self
    }

    /// The error of a command that was asked for JSON.
    fn json_error(&self) -> Option<serde_json::Value> {
        let line = self.stderr.lines().last().filter(|line| line.starts_with("{\"error\":"))?;
        let mut json: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        Some(json["error"].take())
    }

    /// One line of what happened and one of what to do, as every error is told.
    #[track_caller]
    pub fn tells_the_way_out(self) -> Self {
        // With --json it is a field.
        if let Some(error) = self.json_error() {
            assert!(error["hint"].is_string(), "nothing of what to do: {error}");
            return self;
        }
        let at = self.stderr.find("walvis: ").unwrap_or_else(|| panic!("no error line: {:?}", self.stderr));
        let lines: Vec<&str> = self.stderr[at..].lines().collect();
        assert!(lines.len() >= 2 && lines[1].starts_with("  "), "no line of what to do: {}", self.stderr);
        self
    }

    #[track_caller]
    pub fn within(self, limit: Duration) -> Self {
        assert!(self.took <= limit, "it took {:?}: {}", self.took, self.stderr);
        self
    }
}

/// Waits until a condition holds.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether permissions mean nothing to us.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A text in JSON; nothing where it is null.
fn or_empty(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or_default()
}
