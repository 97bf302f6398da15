//! Starting the restored server, and waiting until it has really reached the target.
//!
//! That the server takes queries says nothing: it does so as soon as it is consistent, and may end with an error later. Reached is:
//! - pause: it has paused, and has replayed up to the record that was resolved, no less and no more;
//! - promote, and recovery to the end of the archive: it is not in recovery any more; the new timeline's history says where it ended;
//! - shutdown: it ended by itself without an error, which it does only at the target.
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::fsio::{self, Dir, Owner, Problem};
use crate::pg::settings::TargetAction;
use crate::pg::{ClusterState, Lsn, Timeline, TimelineHistory, WalFileName};
use crate::postgres::{Server, control_file};
use crate::process;
use crate::raw_text::{RawText, shown};
use crate::restore::environment::{Environment, Needs};
use crate::restore::locks::{Locked, locked};
use crate::restore::target_directory::local;
use crate::restore::{attachments, recovery_settings};
use serde::Serialize;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Where the server writes to until its own settings say otherwise.
pub const LOG: &str = "walvis-start.log";
/// How often the server is asked.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);
/// A server that says that it takes connections, and takes none of ours for so long, is not going to.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);
/// How long one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
const PAUSED: &str = "has paused";
/// Between the end of a record and the beginning of the next one: padding, and the header of a page.
const MAX_PADDING: u64 = 8 + 40;
/// Lines of the log that are shown.
const TAIL_LINES: usize = 15;
const MAX_LOG_TAIL_BYTES: u64 = 64 * 1024;
const MAX_SMALL_FILE_BYTES: usize = 1024 * 1024;

/// Where the recovery is to stop.
#[derive(Debug, Clone, Copy)]
pub struct Goal {
    /// Where a record begins, and whether it is replayed; `None`: the end of the archive.
    pub stop: Option<(Lsn, bool)>,
    /// `recovery_target = 'immediate'`: the first position where the backup is consistent.
    pub consistent_at: Option<Lsn>,
    /// Where the end of the archive was, if recovery goes on to it: more may have come since.
    pub end: Option<Lsn>,
    /// The timeline that recovery ends on.
    pub timeline: Timeline,
    /// What the server does there.
    pub action: TargetAction,
    /// Whether it is a standby: it is consistent then, and goes on.
    pub standby: bool,
}

/// How it went.
#[derive(Debug, Serialize)]
pub struct Started {
    /// `paused`, `promoted`, `shut down` or `standby`.
    pub state: &'static str,
    /// Up to where it has replayed, where that is known.
    pub lsn: Option<String>,
    /// The timeline that it writes now.
    pub timeline: Option<u32>,
    /// From its start until it had reached the target.
    pub seconds: f64,
    /// Its process, if it runs.
    pub process: Option<u32>,
    /// Of a paused one, what queries wait for: locks of transactions that are not included.
    pub locked: Vec<Locked>,
    /// Where its first messages are.
    pub log: RawText,
    /// The variables of this process's environment that may hold a secret and that it has, because `restore_command` needs them.
    pub environment: Vec<String>,
}

fn server_error(what: impl Into<String>) -> Error {
    Error::new(Kind::Server, what)
}

/// The directory of the programs of a major version: the one that is named, Debian's, Red Hat's, or what `PATH` and `pg_config` lead to.
/// They are asked for their version as the user that the server will run as, never as root: others may have put them there.
///
/// # Errors
/// [`Kind::Config`] when there is none.
pub fn find_programs(named: Option<&Path>, major: u32, owner: Owner) -> Result<PathBuf, Error> {
    let is_right = |directory: &Path| version_of(&directory.join("postgres"), owner) == Some(major);
    if let Some(directory) = named {
        return if is_right(directory) {
            Ok(directory.to_owned())
        } else {
            Err(Error::new(Kind::Config, format!("{} has no 'postgres' of version {major}", shown(directory)))
                .hint("name the directory that holds 'postgres' and 'pg_ctl' of that major version with --bin-dir"))
        };
    }
    let mut places =
        vec![PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")), PathBuf::from(format!("/usr/pgsql-{major}/bin"))];
    if let Some(path) = std::env::var_os("PATH") {
        places.extend(std::env::split_paths(&path).filter(|directory| directory.is_absolute()));
    }
    if let Some(output) = said_by("pg_config", "--bindir", owner) {
        places.push(PathBuf::from(output.trim()));
    }
    places.into_iter().find(|directory| is_right(directory)).ok_or_else(|| {
        Error::new(Kind::Config, format!("PostgreSQL {major} is not found on this host, so --start cannot start it"))
            .hint("install it, or name the directory of its programs with --bin-dir")
    })
}

/// The major version that `postgres --version` prints: `postgres (PostgreSQL) 15.18 (Debian …)`.
fn version_of(program: &Path, owner: Owner) -> Option<u32> {
    if !fsio::exists(program).ok()? {
        return None;
    }
    major_in(&said_by(program, "--version", owner)?)
}

/// What a program prints, run as the server's user.
fn said_by(program: impl AsRef<OsStr>, argument: &str, owner: Owner) -> Option<String> {
    let mut command = Command::new(program);
    command.arg(argument).current_dir("/");
    run_as(&mut command, owner);
    Some(String::from_utf8_lossy(&process::output(&mut command).ok()?.stdout).into_owned())
}

/// As root, has a command run as the server's user, in no group but that one.
fn run_as(command: &mut Command, owner: Owner) {
    if nix::unistd::geteuid().is_root() {
        command.uid(owner.uid).gid(owner.gid);
    }
}

fn major_in(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL) ")?.1;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Starts the server of a data directory, with its settings there or in another file, and waits until it has reached its goal.
///
/// # Errors
/// [`Kind::Server`], with the end of its log, when it ends before that or goes elsewhere.
pub fn start(
    directory: &Dir,
    programs: &Path,
    settings: Option<&Path>,
    needs: Needs,
    goal: &Goal,
    deadline: &Deadline,
) -> Result<Started, Error> {
    let pgdata = directory.path();
    let owner = directory.identity().owner();
    let log = pgdata.join(LOG);
    let file = directory.open_append(Path::new(LOG)).map_err(local)?;
    let error_log = file.try_clone().map_err(|e| server_error(format!("{}: {e}", shown(&log))))?;
    let mut command = Command::new(programs.join("postgres"));
    command.arg("-D").arg(pgdata).current_dir(pgdata).stdin(Stdio::null()).stdout(file).stderr(error_log);
    if let Some(settings) = settings {
        command.args(attachments::arguments(settings, pgdata));
    }
    // A terminal's interrupt is for us, not for the server.
    command.process_group(0);
    run_as(&mut command, owner);
    let other_user = nix::unistd::geteuid().is_root().then_some(owner.uid);
    let Environment { variables, told } = Environment::of_server(needs, other_user);
    command.env_clear().envs(variables);
    let began = Instant::now();
    let child = process::spawn(&mut command).map_err(|e| {
        server_error(format!("cannot run {}: {e}", shown(programs.join("postgres"))))
            .hint("may the owner of the data directory run it?")
    })?;
    tracing::info!("started PostgreSQL (process {}), it recovers now", child.id());
    if !told.is_empty() {
        tracing::warn!(
            "the server has {} from this environment, because restore_command needs them; when it is started again, it needs them too",
            told.join(", ")
        );
    }
    let identity = Acting::take(owner)?;
    let mut watch = Watch { pgdata, child, goal, deadline, refused_since: None, takes_nobody: false, told: began };
    let reached = watch.wait(began);
    drop(identity);
    Ok(Started { environment: told, ..reached? })
}

/// Acts as the owner of the data directory: a server that asks the system who connects (`peer`) lets only him in.
///
/// What is read in the directory meanwhile is read with his rights, too. ([`crate::fsio::Identity`] is not enough: the server looks at the
/// effective user, which all threads have together.)
struct Acting {
    is_changed: bool,
}

impl Acting {
    fn take(owner: Owner) -> Result<Self, Error> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(Self { is_changed: false });
        }
        let fail =
            |e: nix::errno::Errno| Error::new(Kind::Config, format!("cannot act as user {}: {e}", fsio::user_name(owner.uid)));
        nix::unistd::setegid(nix::unistd::Gid::from_raw(owner.gid)).map_err(fail)?;
        nix::unistd::seteuid(nix::unistd::Uid::from_raw(owner.uid)).map_err(fail)?;
        process::close_memory_again();
        Ok(Self { is_changed: true })
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        if self.is_changed {
            let back = nix::unistd::seteuid(nix::unistd::Uid::from_raw(0))
                .and_then(|()| nix::unistd::setegid(nix::unistd::Gid::from_raw(0)));
            process::close_memory_again();
            if let Err(e) = back {
                tracing::debug!("cannot act as root again: {e}");
            }
        }
    }
}

struct Watch<'a> {
    pgdata: &'a Path,
    child: Child,
    goal: &'a Goal,
    deadline: &'a Deadline,
    /// Since when the server is ready and does not let us in.
    refused_since: Option<Instant>,
    /// Whether it recovers with `hot_standby` off.
    takes_nobody: bool,
    told: Instant,
}

/// What the server says of itself.
struct State {
    in_recovery: bool,
    paused: bool,
    replayed: Option<Lsn>,
    timeline: Option<u32>,
}

impl Watch<'_> {
    fn wait(&mut self, began: Instant) -> Result<Started, Error> {
        let mut connection: Option<Server> = None;
        let _waiting = crate::waiting::on("the server to reach the target of its recovery");
        loop {
            if let Some(status) = self.child.try_wait().map_err(|e| server_error(format!("cannot watch the server: {e}")))? {
                return self.ended(status, began);
            }
            if connection.is_none() {
                connection = self.connect()?;
            }
            if self.goal.standby && self.takes_nobody {
                return Ok(Started {
                    state: "standby",
                    lsn: None,
                    timeline: None,
                    seconds: began.elapsed().as_secs_f64(),
                    process: Some(self.child.id()),
                    locked: Vec::new(),
                    log: self.pgdata.join(LOG).into(),
                    environment: Vec::new(),
                });
            }
            // A connection ends when the server does, or when it promotes and drops it.
            if let Some(server) = &connection {
                match state(server) {
                    Ok(state) => {
                        if let Some(mut started) = self.judge(&state, began)? {
                            if state.in_recovery {
                                started.locked = self.locked(server);
                            }
                            return Ok(started);
                        }
                    }
                    Err(e) => {
                        tracing::debug!("ask the server: {e}");
                        connection = None;
                    }
                }
            }
            std::thread::sleep(ASK_EVERY);
        }
    }

    fn judge(&mut self, state: &State, began: Instant) -> Result<Option<Started>, Error> {
        let started = |name, lsn: Option<Lsn>, process| Started {
            state: name,
            lsn: lsn.map(|lsn| lsn.to_string()),
            timeline: state.timeline,
            seconds: began.elapsed().as_secs_f64(),
            process: Some(process),
            locked: Vec::new(),
            log: self.pgdata.join(LOG).into(),
            environment: Vec::new(),
        };
        let process = self.child.id();
        if self.goal.standby {
            if !state.in_recovery {
                return Err(server_error("the server ended recovery, and was to be a standby")
                    .detail(self.tail())
                    .hint("it runs still; somebody promoted it"));
            }
            if state.paused {
                return Err(self.paused_short(state));
            }
            let replayed = state.replayed.filter(|at| self.goal.consistent_at.is_none_or(|consistent| *at >= consistent));
            return Ok(replayed.map(|at| started("standby", Some(at), process)));
        }
        if !state.in_recovery {
            let ended = self.ended_at(state.timeline)?;
            if let Some((timeline, ended)) = ended {
                self.check(ended, "ended recovery")?;
                if timeline != self.goal.timeline {
                    return Err(server_error(format!(
                        "the server ended recovery on timeline {timeline}, which is not that of the target, {}",
                        self.goal.timeline
                    ))
                    .detail(self.tail())
                    .hint("it runs still, with what that timeline has: stop it and do not use it"));
                }
            }
            self.clear_recovery_settings();
            return Ok(Some(started("promoted", ended.map(|(_, ended)| ended), process)));
        }
        if state.paused {
            // Without a target nobody asks for a pause.
            if self.goal.stop.is_none() && self.goal.consistent_at.is_none() {
                return Err(self.paused_short(state));
            }
            let replayed = state.replayed.unwrap_or(Lsn(0));
            self.check(replayed, PAUSED)?;
            return Ok(Some(started("paused", Some(replayed), process)));
        }
        if self.told.elapsed() > PROGRESS_EVERY {
            self.told = Instant::now();
            let replayed = state.replayed.map_or_else(|| "nothing".to_owned(), |lsn| lsn.to_string());
            tracing::info!(replayed = %replayed, "recovering, replayed up to {replayed}");
        }
        Ok(None)
    }

    /// The server has called for it already; where that failed, its log says why.
    fn clear_recovery_settings(&self) {
        match recovery_settings::run(self.pgdata) {
            Ok(report) if report.removed_settings.is_empty() => {}
            Ok(report) => {
                tracing::warn!(
                    "the server's recovery_end_command did nothing; taken out now: {}",
                    report.removed_settings.join(", ")
                )
            }
            Err(e) => tracing::warn!(
                "the settings of the recovery are still in postgresql.auto.conf, and a standby made from this server would not follow: {e}"
            ),
        }
    }

    /// A pause that nobody asked for: settings that are lower than on the primary.
    fn paused_short(&self, state: &State) -> Error {
        let at = state.replayed.map_or_else(|| "an unknown position".to_owned(), |at| at.to_string());
        server_error(format!("the server has paused at {at}, which is not the target"))
            .detail(self.tail())
            .hint("it runs still; its log says which settings are lower than on the primary: raise them and restart it")
    }

    /// Whether a position is the one that was wanted.
    fn check(&self, at: Lsn, did: &str) -> Result<(), Error> {
        let (is_there, wanted) = match (self.goal.consistent_at, self.goal.stop) {
            (Some(consistent), _) => (at >= consistent, format!("{consistent} or later")),
            (None, Some((lsn, true))) => (at > lsn, format!("after the record at {lsn}")),
            (None, Some((lsn, false))) => (at <= lsn && lsn.0 - at.0 <= MAX_PADDING, format!("just before the record at {lsn}")),
            (None, None) => match self.goal.end {
                Some(end) => {
                    (did != PAUSED && at.0.saturating_add(MAX_PADDING) >= end.0, format!("the end of the archive at {end}"))
                }
                None => (did != PAUSED, "the end of the archive".to_owned()),
            },
        };
        if is_there {
            return Ok(());
        }
        Err(server_error(format!("the server {did} at {at}, which is not the target: {wanted}"))
            .detail(self.tail())
            .hint("it runs still; its log says why, such as settings that are lower than on the primary"))
    }

    /// What queries wait for. A server that does not tell is no reason to fail: it is where it should be.
    fn locked(&self, server: &Server) -> Vec<Locked> {
        let connect = |database: &str| {
            let text = fsio::read_bounded(&self.pgdata.join("postmaster.pid"), MAX_SMALL_FILE_BYTES).map_err(local)?;
            let place = conninfo(&String::from_utf8_lossy(&text));
            let limit = Deadline::each(self.deadline.limit().min(ANSWER_LIMIT));
            Server::connect_to(place.as_deref(), Some(database).filter(|name| !name.is_empty()), limit)
        };
        locked(server, &connect).unwrap_or_else(|e| {
            tracing::warn!("whether tables are locked at the target is not known: {e}");
            Vec::new()
        })
    }

    /// On which timeline and where recovery ended, as the history of the new timeline says.
    fn ended_at(&self, timeline: Option<u32>) -> Result<Option<(Timeline, Lsn)>, Error> {
        let Some(timeline) = timeline.map(Timeline) else { return Ok(None) };
        let name = WalFileName::History(timeline).to_string();
        match fsio::read_bounded(&self.pgdata.join("pg_wal").join(name), MAX_SMALL_FILE_BYTES) {
            Ok(bytes) => {
                let history = TimelineHistory::parse(timeline, &bytes).ok();
                Ok(history.and_then(|history| history.ancestors.last().map(|entry| (entry.timeline, entry.switch))))
            }
            Err(e) if e.problem == Problem::Absent => Ok(None),
            Err(e) => Err(local(e)),
        }
    }

    /// The server ended by itself: at the target, or before it.
    fn ended(&self, status: ExitStatus, began: Instant) -> Result<Started, Error> {
        if status.success()
            && self.goal.action != TargetAction::Promote
            && !self.goal.standby
            && (self.goal.stop.is_some() || self.goal.consistent_at.is_some())
        {
            let replayed = self.replayed_before_shutdown()?;
            if let Some(replayed) = replayed {
                self.check(replayed, "shut down")?;
            }
            return Ok(Started {
                state: "shut down",
                lsn: replayed.map(|lsn| lsn.to_string()),
                timeline: None,
                seconds: began.elapsed().as_secs_f64(),
                process: None,
                locked: Vec::new(),
                log: self.pgdata.join(LOG).into(),
                environment: Vec::new(),
            });
        }
        Err(server_error(format!("the server ended ({status}) before it reached the target"))
            .detail(self.tail())
            .hint("the restored directory is complete: mend the reason and start the server, recovery goes on where it was"))
    }

    /// Up to where a server that was shut down in recovery had replayed.
    fn replayed_before_shutdown(&self) -> Result<Option<Lsn>, Error> {
        let control = control_file::control_of(self.pgdata, self.deadline)?.map(|(control, _)| control);
        let control = control.filter(|control| control.state == ClusterState::ShutDownInRecovery);
        Ok(control.map(|control| control.min_recovery_point).filter(|lsn| lsn.0 > 0))
    }

    /// A connection through the directory of the socket that `postmaster.pid` names; `None` when the server takes none yet.
    fn connect(&mut self) -> Result<Option<Server>, Error> {
        let text = match fsio::read_bounded(&self.pgdata.join("postmaster.pid"), MAX_SMALL_FILE_BYTES) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) if e.problem == Problem::Absent => return Ok(None),
            Err(e) => return Err(local(e)),
        };
        // What another server left says nothing of this one.
        if text.lines().next().and_then(|line| line.trim().parse().ok()) != Some(self.child.id()) {
            return Ok(None);
        }
        let Some(place) = conninfo(&text) else { return Ok(None) };
        let mut failure = None;
        for database in ["", " dbname=template1"] {
            match Server::connect(Some(&format!("{place}{database}")), Deadline::each(self.deadline.limit().min(ANSWER_LIMIT))) {
                Ok(server) => {
                    self.refused_since = None;
                    return Ok(Some(server));
                }
                Err(e) => failure = Some(e),
            }
        }
        let Some(error) = failure else { return Ok(None) };
        tracing::debug!("{error}");
        // Line 8: what the server says of itself. "starting" refuses everybody, and so does "standby": hot_standby is off.
        let status = text.lines().nth(7).unwrap_or_default().trim();
        self.takes_nobody = status == "standby";
        if status != "ready" {
            self.refused_since = None;
            return Ok(None);
        }
        if self.refused_since.get_or_insert_with(Instant::now).elapsed() > CONNECT_PATIENCE {
            return Err(error
                .while_doing("the server runs, but cannot be asked whether it has reached the target")
                .hint("set PGUSER, PGPASSWORD or PGDATABASE for a role that may connect; the server was left running"));
        }
        Ok(None)
    }

    /// The end of the server's log, which tells more than any exit code.
    fn tail(&self) -> String {
        let mut text = tail_of(&self.pgdata.join(LOG));
        // With the logging collector the rest is elsewhere.
        if let Ok(names) = fsio::read_bounded(&self.pgdata.join("current_logfiles"), MAX_SMALL_FILE_BYTES) {
            let mut lines = names.split(|byte| *byte == b'\n');
            if let Some(path) = lines.find_map(|line| line.strip_prefix(b"stderr ")) {
                text.push_str(&tail_of(&self.pgdata.join(OsStr::from_bytes(path))));
            }
        }
        if text.is_empty() { text } else { format!("the end of its log:\n{}", text.trim_end()) }
    }
}

fn tail_of(path: &Path) -> String {
    let Ok((file, stat)) = fsio::open_regular(path) else { return String::new() };
    let len = stat.size_bytes.min(MAX_LOG_TAIL_BYTES);
    let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
    if std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, stat.size_bytes - len).is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(TAIL_LINES)).fold(String::new(), |out, line| out + "    " + line + "\n")
}

/// Where a server listens, by the lines of its `postmaster.pid` (`miscadmin.h`): 4 the port, 5 the directory of its socket, 6 the
/// address it listens at.
fn conninfo(postmaster_pid: &str) -> Option<String> {
    let line = |number: usize| postmaster_pid.lines().nth(number - 1).map(str::trim).filter(|line| !line.is_empty());
    let port = line(4)?;
    let host = match (line(5), line(6)) {
        (Some(directory), _) => directory,
        (None, Some("*" | "0.0.0.0")) => "127.0.0.1",
        (None, Some("::")) => "::1",
        (None, Some(address)) => address,
        (None, None) => return None,
    };
    let quoted = host.replace('\\', "\\\\").replace('\'', "\\'");
    Some(format!("host='{quoted}' port={port}"))
}

fn state(server: &Server) -> Result<State, Error> {
    // 14 and later tell a pause that was asked for from one that has begun. In 13 recovery asks itself, and has paused then.
    let sql = "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.pg_last_wal_replay_lsn(), \
               CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_is_wal_replay_paused() END, \
               CASE WHEN NOT pg_catalog.pg_is_in_recovery() \
                    THEN pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END, \
               pg_catalog.current_setting('server_version_num')";
    let row = server.row(sql)?.ok_or_else(|| server_error("the server answers with nothing"))?;
    let mut values = row.into_iter();
    let mut next = || values.next().flatten();
    let in_recovery = next().as_deref() == Some("t");
    let replayed = next().and_then(|lsn| lsn.parse().ok());
    let mut paused = next().as_deref() == Some("t");
    let timeline = next().and_then(|name| u32::from_str_radix(&name, 16).ok());
    let version: u32 = next().and_then(|number| number.parse().ok()).unwrap_or_default();
    if in_recovery && paused && version >= 140_000 {
        paused = server.value("SELECT pg_catalog.pg_get_wal_replay_pause_state()")? == "paused";
    }
    Ok(State { in_recovery, paused, replayed, timeline })
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    /// A program that others could have put there.
    #[test]
    fn programs_are_asked_as_the_server_s_user() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        let (program, ran) = (place.path().join("postgres"), place.path().join("ran"));
        std::fs::write(&ran, "").unwrap();
        std::fs::set_permissions(&ran, std::fs::Permissions::from_mode(0o666)).unwrap();
        let script = format!("#!/bin/sh\nid -u >> {0}; id -G >> {0}\necho 'postgres (PostgreSQL) 15.1'\n", ran.display());
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let is_root = nix::unistd::geteuid().is_root();
        let owner = Owner { uid: 65_534, gid: 65_534 };
        assert_eq!(find_programs(Some(place.path()), 15, owner).unwrap(), place.path());
        if is_root {
            assert_eq!(std::fs::read_to_string(&ran).unwrap(), "65534\n65534\n");
        }
    }

    #[test]
    fn versions_are_read() {
        for (text, expected) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some(15)),
            ("postgres (PostgreSQL) 18beta1\n", Some(18)),
            ("bash 5.2", None),
            ("", None),
        ] {
            assert_eq!(major_in(text), expected, "{text}");
        }
    }

    #[test]
    fn a_server_is_found_where_it_listens() {
        let lines = |socket: &str, address: &str| format!("12\n/data\n1700000000\n5433\n{socket}\n{address}\n  1 2\nready   \n");
        assert_eq!(conninfo(&lines("/run/it's", "localhost")).unwrap(), "host='/run/it\\'s' port=5433");
        assert_eq!(conninfo(&lines("", "*")).unwrap(), "host='127.0.0.1' port=5433");
        assert_eq!(conninfo(&lines("", "")), None);
        assert_eq!(conninfo("12\n/data\n"), None);
    }

    #[test]
    fn the_end_of_a_log_is_short() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        assert_eq!(tail_of(&path), "");
        let text: String = (0..10_000).map(|i| format!("line {i}\n")).collect();
        std::fs::write(&path, text).unwrap();
        let tail = tail_of(&path);
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert!(tail.ends_with("    line 9999\n"));
    }
}
