//! The server's archiver: whether it works *now*.
//!
//! `pg_stat_archiver` counts failures, but not those that kill the archiver (exit codes above 125: a program that is
//! not found), and it says nothing of the reason. So where nothing moves, `archive_command` is run once as the server
//! would run it: same directory, same user, same environment. What it says is the reason.
//!
//! As root it is run as the owner of the data directory, never as root or as whomever the process in `postmaster.pid`
//! is of: that file is the server's user's to write.

use crate::error::{Error, Kind};
use crate::fsio::{self, Problem};
use crate::limits::{
    ARCHIVER_FAILURES, ARCHIVER_SILENCE, MAX_TRIAL_OUTPUT_BYTES, MIB, TRIAL_EVERY, TRIAL_LIMIT, TRIAL_LOOK_EVERY,
    TRIAL_OUTPUT_LINES,
};
use crate::pg::{SegmentName, WalFileName};
use crate::postgres::Server;
use crate::postgres::postmaster_pid::PostmasterPid;
use crate::process;
use crate::raw_text::RawText;
use crate::waiting;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

/// Exit code of `walvis push-wal` when its repository cannot be reached: the one failure that passes by itself.
const UNREACHABLE: i32 = 11;

/// What `pg_stat_archiver` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Files archived.
    pub archived_count: u64,
    /// Failed attempts.
    pub failed_count: u64,
    /// The last file archived.
    pub last_archived: Option<String>,
    /// The last file that failed.
    pub last_failed: Option<String>,
    /// Whether the last attempt failed.
    pub is_failing: bool,
}

impl Status {
    /// Asks.
    ///
    /// # Errors
    /// [`Kind::Server`].
    pub fn of(server: &Server) -> Result<Self, Error> {
        let row = server.row(
            "SELECT archived_count, failed_count, last_archived_wal, last_failed_wal, \
             coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false) FROM pg_catalog.pg_stat_archiver",
        )?;
        let mut row = row.unwrap_or_default().into_iter();
        let mut next = || row.next().flatten();
        let number = |text: Option<String>| text.and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(Self {
            archived_count: number(next()),
            failed_count: number(next()),
            last_archived: next(),
            last_failed: next(),
            is_failing: next().as_deref() == Some("t"),
        })
    }

    /// Whether the archiver is past a segment: it archives in the order of names.
    pub fn is_past(&self, segment: SegmentName) -> bool {
        match self.last_archived.as_deref().and_then(WalFileName::parse) {
            Some(WalFileName::Segment(last) | WalFileName::Partial(last) | WalFileName::Backup(last, _)) => last >= segment,
            Some(WalFileName::History(_)) | None => false,
        }
    }
}

/// What became of a trial of `archive_command`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trial {
    /// It ended with 0: the file is archived.
    Works,
    /// It did not.
    Fails {
        /// Its exit code, where it has one.
        code: Option<i32>,
        /// That, and what it printed.
        what: String,
    },
    /// It could not be tried, and why.
    NotTried(String),
}

/// Where `archive_command` runs.
struct Host {
    environment: Vec<(OsString, OsString)>,
    /// To change to, as root.
    user: Option<(u32, u32)>,
}

impl Host {
    /// `Err` says why it cannot be told.
    fn find(data_directory: &Path) -> Result<Self, String> {
        let pid_file =
            PostmasterPid::read(data_directory).map_err(|e| e.to_string())?.ok_or("the server's postmaster.pid is not there")?;
        let pid = pid_file.process().and_then(|process| u32::try_from(process).ok()).ok_or("postmaster.pid names no process")?;
        let own = fsio::own_user();
        let seen = fsio::process(pid, MIB).map_err(|e| match e.problem {
            Problem::Denied if own != 0 => {
                "only the user that the server runs as can do what the server does: run it as that user".to_owned()
            }
            _ => e.to_string(),
        })?;
        let process = seen.ok_or("the server's process cannot be seen from here")?;
        let owner = fsio::owner(data_directory).map_err(|e| e.to_string())?;
        let here = fsio::real_path(data_directory).map_err(|e| e.to_string())?;
        if process.uid != owner || owner == 0 || here.is_none() || process.directory != here {
            return Err("the process in postmaster.pid is another one than the server, as seen from here".to_owned());
        }
        let environment = process
            .environment
            .split(|byte| *byte == 0)
            .filter_map(|variable| {
                let at = variable.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
                let (name, value) = variable.split_at_checked(at)?;
                Some((OsString::from_vec(name.to_vec()), OsString::from_vec(value.get(1..)?.to_vec())))
            })
            .collect();
        Ok(Self { environment, user: (own == 0).then_some((process.uid, process.gid)) })
    }
}

/// Runs `archive_command` for a file in `pg_wal`, as the server would. With Walvis a file may be archived twice at a
/// time: the same content under one name is one object.
///
/// # Errors
/// As `go_on`'s; [`Kind::Server`] when the server does not answer.
pub fn try_command(
    server: &Server,
    data_directory: Option<&Path>,
    file: &str,
    go_on: &dyn Fn() -> Result<(), Error>,
) -> Result<Trial, Error> {
    let not = |why: &str| Ok(Trial::NotTried(why.to_owned()));
    let Some(data_directory) = data_directory else { return not("the data directory cannot be seen from here") };
    if server.setting("archive_library")?.is_some_and(|library| !library.is_empty()) {
        return not("an archive_library is used");
    }
    let Some(command) = server.text("pg_catalog.current_setting('archive_command')")? else { return not("there is none") };
    // Others may take a file that they know already for an error.
    if !command.as_bytes().windows(8).any(|word| word == b"push-wal") {
        return not("it is not 'walvis push-wal'");
    }
    if WalFileName::parse(file).is_none() || !fsio::exists(&data_directory.join("pg_wal").join(file)).unwrap_or(false) {
        return not("the file is not in pg_wal any more");
    }
    match Host::find(data_directory) {
        Ok(host) => run(&host, data_directory, command.as_bytes(), file, go_on),
        Err(why) => not(&why),
    }
}

/// What the server puts in the place of `%p`, `%f` and `%%` (`shell_archive.c`).
fn expand(command: &[u8], file: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(command.len() + 64);
    let mut bytes = command.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match (byte, bytes.peek()) {
            (b'%', Some(b'p')) => out.extend_from_slice(format!("pg_wal/{file}").as_bytes()),
            (b'%', Some(b'f')) => out.extend_from_slice(file.as_bytes()),
            (b'%', Some(b'%')) => out.push(b'%'),
            (byte, _) => {
                out.push(byte);
                continue;
            }
        }
        bytes.next();
    }
    out
}

fn run(
    host: &Host,
    data_directory: &Path,
    command: &[u8],
    file: &str,
    go_on: &dyn Fn() -> Result<(), Error>,
) -> Result<Trial, Error> {
    let _waiting = waiting::on(format!("archive_command, which is tried with {file}"));
    let cannot = |e: &dyn std::fmt::Display| Ok(Trial::NotTried(format!("it cannot be run: {e}")));
    let output = match fsio::scratch() {
        Ok(output) => output,
        Err(e) => return cannot(&e),
    };
    let (Ok(out), Ok(err)) = (output.try_clone(), output.try_clone()) else { return cannot(&"no file descriptors are left") };
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(OsStr::from_bytes(&expand(command, file))).current_dir(data_directory);
    shell.env_clear().envs(host.environment.iter().map(|(name, value)| (name, value)));
    shell.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
    if let Some((user, group)) = host.user {
        shell.uid(user).gid(group);
    }
    let child = match process::spawn(&mut shell) {
        Ok(child) => child,
        Err(e) => return cannot(&e),
    };
    let status = wait(child, go_on)?;
    let mut said = Vec::new();
    // What cannot be read is as good as nothing said.
    let _ = fsio::reader_from(&output, 0).take(MAX_TRIAL_OUTPUT_BYTES as u64).read_to_end(&mut said);
    Ok(match status {
        Some(status) if status.success() => Trial::Works,
        Some(status) => Trial::Fails { code: status.code(), what: format!("{}{}", ended(status), lines(&said)) },
        // A slow network is no failure.
        None => Trial::NotTried(format!("it did not end within {} s{}", TRIAL_LIMIT.as_secs(), lines(&said))),
    })
}

/// Waits for the command; `None` when it had to be killed.
fn wait(mut child: Child, go_on: &dyn Fn() -> Result<(), Error>) -> Result<Option<ExitStatus>, Error> {
    let since = Instant::now();
    let result = loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(Some(status)),
            Ok(None) if since.elapsed() < TRIAL_LIMIT => {}
            Ok(None) | Err(_) => break Ok(None),
        }
        if let Err(error) = go_on() {
            break Err(error);
        }
        std::thread::sleep(TRIAL_LOOK_EVERY);
    };
    if let Ok(group) = i32::try_from(child.id()) {
        // It may be gone at this moment.
        let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(group), nix::sys::signal::Signal::SIGKILL);
    }
    let _ = child.wait();
    result
}

fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ends with exit code {code}"),
        (None, Some(signal)) => format!("is killed by signal {signal}"),
        (None, None) => "fails".to_owned(),
    }
}

/// The last lines of what was said, in one.
fn lines(said: &[u8]) -> String {
    let lines: Vec<String> = said
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
        .map(|line| RawText::from(line).to_string().chars().take(400).collect())
        .collect();
    let last = lines.get(lines.len().saturating_sub(TRIAL_OUTPUT_LINES)..).unwrap_or_default();
    if last.is_empty() { String::new() } else { format!(", and says: {}", last.join(" / ")) }
}

/// An archiver that is looked at again and again.
pub struct Watch<'a> {
    server: &'a Server,
    data_directory: Option<&'a Path>,
    /// When it last did something, and what it said then.
    base: Status,
    since: Instant,
    tried: Option<Instant>,
    not_tried: Option<String>,
    /// Whether an unreachable repository is waited for.
    is_patient: bool,
}

impl<'a> Watch<'a> {
    /// Begins. A patient watch does not take it for a failure that the repository cannot be reached: that passes.
    ///
    /// # Errors
    /// [`Kind::Server`].
    pub fn new(server: &'a Server, data_directory: Option<&'a Path>, is_patient: bool) -> Result<Self, Error> {
        let base = Status::of(server)?;
        Ok(Self { server, data_directory, base, since: Instant::now(), tried: None, not_tried: None, is_patient })
    }

    /// Why `archive_command` could not be tried, if that was wanted.
    pub fn not_tried(&self) -> Option<&str> {
        self.not_tried.as_deref()
    }

    /// Whether it has done anything, or failed, since the beginning or the last look that saw that.
    pub fn is_idle(&self, now: &Status) -> bool {
        now.archived_count == self.base.archived_count && now.failed_count == self.base.failed_count
    }

    /// Looks again, while a file is awaited; without one, silence is no bad sign.
    ///
    /// # Errors
    /// [`Kind::Server`] when the archiver fails, with the reason and what to do; as `go_on`'s.
    pub fn look(&mut self, awaited: Option<&str>, go_on: &dyn Fn() -> Result<(), Error>) -> Result<Status, Error> {
        let now = Status::of(self.server)?;
        if now.archived_count != self.base.archived_count {
            (self.base, self.since, self.tried) = (now.clone(), Instant::now(), None);
            return Ok(now);
        }
        let failures = now.failed_count.saturating_sub(self.base.failed_count);
        let is_due = self.tried.is_none_or(|tried| tried.elapsed() > TRIAL_EVERY);
        let failed = now.last_failed.as_deref().filter(|_| now.is_failing && failures > 0);
        let silent = awaited.filter(|_| self.since.elapsed() > ARCHIVER_SILENCE);
        if let (Some(file), true) = (failed.or(silent), is_due) {
            self.tried = Some(Instant::now());
            match try_command(self.server, self.data_directory, file, go_on)? {
                Trial::Fails { code: Some(UNREACHABLE), what } if self.is_patient => {
                    tracing::warn!("archive_command {what}");
                }
                Trial::Fails { code, what } => return Err(fails(file, code, &what)),
                Trial::NotTried(why) => {
                    self.not_tried = Some(why);
                    if failures >= ARCHIVER_FAILURES {
                        return Err(fails_by_itself(&now, failures));
                    }
                }
                Trial::Works => {}
            }
        }
        Ok(now)
    }
}

/// Makes sure that an archiver that failed last time would not do so now.
///
/// # Errors
/// [`Kind::Server`] when it would; as `go_on`'s. `false`: it cannot be told.
pub fn would_work(server: &Server, data_directory: &Path, go_on: &dyn Fn() -> Result<(), Error>) -> Result<bool, Error> {
    let status = Status::of(server)?;
    let Some(file) = status.last_failed.as_deref().filter(|_| status.is_failing) else { return Ok(true) };
    match try_command(server, Some(data_directory), file, go_on)? {
        Trial::Works => Ok(true),
        Trial::Fails { code, what } => Err(fails(file, code, &what)),
        Trial::NotTried(_) => Ok(false),
    }
}

fn fails(file: &str, code: Option<i32>, what: &str) -> Error {
    let hint = match code {
        Some(126 | 127) => {
            "the server's user cannot run that program: write its whole path into archive_command, then SELECT pg_reload_conf()"
        }
        Some(10) => {
            "the server has other settings than this command: name the settings file with --config in archive_command, or put the settings \
             into the server's environment and restart it"
        }
        _ => "repair what it reports; the server tries again by itself within a minute",
    };
    Error::new(Kind::Server, format!("the archiver fails: run as the server runs it, archive_command for {file} {what}"))
        .hint(hint)
}

/// What the server's own count says, where nothing more is known.
pub fn fails_by_itself(status: &Status, failures: u64) -> Error {
    let file = status.last_failed.as_deref().unwrap_or("a file");
    let times = if failures == 1 { "once".to_owned() } else { format!("{failures} times") };
    Error::new(Kind::Server, format!("the archiver fails: {file}, {times} in a row")).hint(
        "the server's log says why archive_command fails; 'walvis check' on the database host, as the server's user, tries it",
    )
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_what_the_server_runs() {
        let expanded = expand(b"walvis --x 100%% push-wal %p \xe9 %f %q %", "00000002.history");
        assert_eq!(expanded, b"walvis --x 100% push-wal pg_wal/00000002.history \xe9 00000002.history %q %");
    }

    /// The user that the server runs as could name any process that works in the data directory: that of an
    /// administrator's shell.
    #[test]
    fn no_command_is_run_as_another_user_than_the_owner_of_the_data_directory() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let data = place.path();
        std::os::unix::fs::chown(data, Some(65_534), Some(65_534)).unwrap();
        let find = |user: u32| {
            let mut command = Command::new("sleep");
            command.arg("600").current_dir(data).uid(user).gid(user).env_clear().env("A", "b");
            let mut child = command.spawn().unwrap();
            std::fs::write(data.join("postmaster.pid"), format!("{}\n", child.id())).unwrap();
            let found = Host::find(data);
            child.kill().unwrap();
            child.wait().unwrap();
            found
        };
        assert!(find(0).err().unwrap().contains("another one than the server"));
        assert!(find(1).is_err());
        let host = find(65_534).unwrap();
        assert_eq!((host.user, host.environment), (Some((65_534, 65_534)), vec![("A".into(), "b".into())]));
    }

    #[test]
    fn what_a_command_says_is_told_and_what_hangs_is_killed() {
        let host = Host { environment: vec![("A".into(), "b c".into())], user: None };
        let place = tempfile::tempdir().unwrap();
        let go_on = || Ok(());
        let trial = |command: &str| run(&host, place.path(), command.as_bytes(), "00000002.history", &go_on).unwrap();
        assert_eq!(trial("test \"$A\" = 'b c' && test -z \"$HOME\""), Trial::Works);
        let Trial::Fails { code, what } = trial("echo one; printf 'tw\\351\\n' >&2; exit 9") else { panic!() };
        assert_eq!((code, what.as_str()), (Some(9), "ends with exit code 9, and says: one / tw\\xE9"));
        let Trial::Fails { code, .. } = trial("/nonexistent/walvis push-wal %p") else { panic!() };
        assert_eq!(code, Some(127));
        let stop = || Err(Error::new(Kind::Server, "enough"));
        assert_eq!(run(&host, place.path(), b"sleep 600", "00000002.history", &stop).unwrap_err().what, "enough");
    }

    #[test]
    fn an_archiver_is_past_what_comes_before_its_last_file() {
        let status = |last: &str| Status {
            archived_count: 1,
            failed_count: 0,
            last_archived: Some(last.to_owned()),
            last_failed: None,
            is_failing: false,
        };
        let segment = SegmentName::parse("000000020000000000000004").unwrap();
        for (last, past) in [
            ("000000020000000000000004", true),
            ("000000020000000000000004.00000028.backup", true),
            ("000000020000000000000003", false),
            ("000000010000000000000009", false),
            ("00000002.history", false),
            ("nonsense", false),
        ] {
            assert_eq!(status(last).is_past(segment), past, "{last}");
        }
    }
}
