//! The process of a server that was started here.

use super::locks::{self, LockedRelation};
use super::log;
use super::state::{self, RecoveryState};
use super::user::Acting;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::fsio::{Dir, Owner, local_error};
use crate::limits::{SERVER_ANSWER_LIMIT, SERVER_LOOK_EVERY, STARTED_SERVER_PATIENCE};
use crate::postgres::Server;
use crate::postgres::postmaster_pid::PostmasterPid;
use crate::postgres::programs::run_as;
use crate::process;
use crate::raw_text::shown;
use crate::waiting;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

/// What is started.
#[derive(Debug)]
pub struct StartRequest<'a> {
    /// The data directory. The server runs as its owner.
    pub directory: &'a Dir,
    /// The directory of the programs.
    pub programs: &'a Path,
    /// Arguments beside the data directory.
    pub arguments: Vec<OsString>,
    /// The directory of a socket by which alone the server can be reached; `None`: it listens where its settings say.
    pub private_socket: Option<&'a Path>,
    /// All of the server's environment.
    pub environment: Vec<(OsString, OsString)>,
    /// The file in the data directory that the server writes to until its own settings say otherwise.
    pub log: &'a str,
}

/// What a look at the server shows.
pub enum Seen<'a> {
    /// It ended by itself.
    Ended(ExitStatus),
    /// It recovers and takes no connections: `hot_standby` is off.
    TakesNobody,
    /// It answers.
    Answers(&'a RecoveryState, &'a Server),
}

/// Is shown a server, and says what came of it, or `None` to be shown it again.
pub type Judge<'a, T> = &'a mut dyn FnMut(&ServerProcess, Seen<'_>) -> Result<Option<T>, Error>;

/// A server that was started. It goes on when this is dropped.
pub struct ServerProcess {
    data_directory: PathBuf,
    owner: Owner,
    child: Child,
    log: PathBuf,
    deadline: Deadline,
    /// Since when the server is ready and does not let us in.
    refused_since: Option<Instant>,
    /// Whether it recovers with `hot_standby` off.
    takes_nobody: bool,
}

fn server_error(what: impl Into<String>) -> Error {
    Error::new(Kind::Server, what)
}

impl ServerProcess {
    /// Starts a server.
    ///
    /// # Errors
    /// [`Kind::Server`] when the program cannot be run; [`Kind::Config`] when its log cannot be written.
    pub fn start(request: StartRequest<'_>, deadline: Deadline) -> Result<Self, Error> {
        let data_directory = request.directory.path();
        let owner = request.directory.identity().owner();
        let log = data_directory.join(request.log);
        let output = request.directory.open_append(Path::new(request.log)).map_err(local_error)?;
        let errors = output.try_clone().map_err(|e| server_error(format!("{}: {e}", shown(&log))))?;
        let program = request.programs.join("postgres");
        let mut command = Command::new(&program);
        command.arg("-D").arg(data_directory).current_dir(data_directory);
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        command.args(request.arguments);
        if let Some(socket) = request.private_socket {
            command.args(private_socket(socket));
        }
        // A terminal's interrupt is for us, not for the server.
        command.process_group(0);
        run_as(&mut command, owner);
        command.env_clear().envs(request.environment);
        let child = process::spawn(&mut command).map_err(|e| {
            server_error(format!("cannot run {}: {e}", shown(program))).hint("may the owner of the data directory run it?")
        })?;
        let data_directory = data_directory.to_owned();
        Ok(Self { data_directory, owner, child, log, deadline, refused_since: None, takes_nobody: false })
    }

    /// The id of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The file that it was started with as its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The end of its log, for an error's detail; empty where there is none.
    pub fn tail(&self) -> String {
        log::tail(&self.data_directory, &self.log)
    }

    /// Waits until `judge` has an answer. It is shown the server several times a second, as long as the server takes.
    ///
    /// # Errors
    /// As `judge`'s; [`Kind::Server`] when the server runs and lets nobody in.
    pub fn wait<T>(&mut self, judge: Judge<'_, T>) -> Result<T, Error> {
        let _as = Acting::take(self.owner)?;
        self.watch(judge)
    }

    fn watch<T>(&mut self, judge: Judge<'_, T>) -> Result<T, Error> {
        let mut connection: Option<Server> = None;
        loop {
            if let Some(status) = self.try_wait()? {
                let answer = judge(self, Seen::Ended(status))?;
                return answer.ok_or_else(|| server_error(format!("the server ended ({status})")).detail(self.tail()));
            }
            if connection.is_none() {
                connection = self.connect()?;
            }
            if self.takes_nobody
                && let Some(answer) = judge(self, Seen::TakesNobody)?
            {
                return Ok(answer);
            }
            // A connection ends when the server does, or when it promotes and drops it.
            if let Some(server) = &connection {
                match state::ask(server) {
                    Ok(state) => {
                        if let Some(answer) = judge(self, Seen::Answers(&state, server))? {
                            return Ok(answer);
                        }
                    }
                    Err(e) => {
                        tracing::debug!("ask the server: {e}");
                        connection = None;
                    }
                }
            }
            std::thread::sleep(SERVER_LOOK_EVERY);
        }
    }

    /// What queries wait for on a server that is paused in recovery: relations that are locked by transactions that had
    /// not ended.
    ///
    /// # Errors
    /// As the server's.
    pub fn locked_relations(&self, server: &Server) -> Result<Vec<LockedRelation>, Error> {
        let connect = |database: &str| {
            let pid_file = PostmasterPid::read(&self.data_directory).map_err(local_error)?;
            let place = pid_file.and_then(|pid_file| pid_file.conninfo());
            Server::connect_to(place.as_deref(), Some(database).filter(|name| !name.is_empty()), self.answer_limit())
        };
        locks::locked(server, &connect)
    }

    /// Stops it at once, in good order (`SIGINT`: a fast shutdown), and waits until it has ended.
    ///
    /// # Errors
    /// [`Kind::Server`] when it has not ended in time, or not in good order.
    pub fn stop(mut self) -> Result<(), Error> {
        let _waiting = waiting::on("the server to stop");
        let began = Instant::now();
        let mut is_told = false;
        loop {
            if let Some(status) = self.try_wait()? {
                return if status.success() {
                    Ok(())
                } else {
                    Err(server_error(format!("the server did not stop in good order ({status})")).detail(self.tail()))
                };
            }
            if !is_told {
                let id = Pid::from_raw(self.child.id().cast_signed());
                kill(id, Signal::SIGINT).map_err(|e| server_error(format!("cannot stop the server (process {id}): {e}")))?;
                is_told = true;
            }
            if began.elapsed() > self.deadline.limit() {
                let what =
                    format!("the server (process {}) has not stopped within {} s", self.id(), self.deadline.limit().as_secs());
                return Err(server_error(what).detail(self.tail()).hint("it runs still; its log says what it waits for"));
            }
            std::thread::sleep(SERVER_LOOK_EVERY);
        }
    }

    fn try_wait(&mut self) -> Result<Option<ExitStatus>, Error> {
        self.child.try_wait().map_err(|e| server_error(format!("cannot watch the server: {e}")))
    }

    fn answer_limit(&self) -> Deadline {
        Deadline::each(self.deadline.limit().min(SERVER_ANSWER_LIMIT))
    }

    /// A connection to where `postmaster.pid` says that the server listens; `None` when the server takes none yet.
    fn connect(&mut self) -> Result<Option<Server>, Error> {
        let Some(pid_file) = PostmasterPid::read(&self.data_directory).map_err(local_error)? else { return Ok(None) };
        // What another server left says nothing of this one.
        if pid_file.process() != Some(self.child.id().cast_signed()) {
            return Ok(None);
        }
        let Some(place) = pid_file.conninfo() else { return Ok(None) };
        let mut failure = None;
        for database in ["", " dbname=template1"] {
            match Server::connect(Some(&format!("{place}{database}")), self.answer_limit()) {
                Ok(server) => {
                    self.refused_since = None;
                    return Ok(Some(server));
                }
                Err(e) => failure = Some(e),
            }
        }
        let Some(error) = failure else { return Ok(None) };
        tracing::debug!("{error}");
        // "starting" refuses everybody, and so does "standby": hot_standby is off.
        self.takes_nobody = pid_file.state() == "standby";
        if pid_file.state() != "ready" {
            self.refused_since = None;
            return Ok(None);
        }
        if self.refused_since.get_or_insert_with(Instant::now).elapsed() > STARTED_SERVER_PATIENCE {
            return Err(error
                .while_doing("the server runs, but cannot be asked how far it is")
                .hint("set PGUSER, PGPASSWORD or PGDATABASE for a role that may connect; the server was left running"));
        }
        Ok(None)
    }
}

/// The arguments that have a server listen at a socket in this directory, which only its own user may use, and nowhere
/// else.
fn private_socket(directory: &Path) -> [OsString; 6] {
    // It is a list of names, in which quotes keep commas and blanks from ending one.
    let mut directories = b"unix_socket_directories=\"".to_vec();
    for byte in directory.as_os_str().as_bytes() {
        directories.extend(std::iter::repeat_n(*byte, if *byte == b'"' { 2 } else { 1 }));
    }
    directories.push(b'"');
    let directories = OsString::from_vec(directories);
    let dash_c = || OsStr::new("-c").to_owned();
    [dash_c(), "listen_addresses=".into(), dash_c(), directories, dash_c(), "unix_socket_permissions=0700".into()]
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fsio::Rooted;
    use std::os::unix::fs::PermissionsExt;

    /// Lets the scripts trap SIGINT: a shell cannot trap what was ignored when it began, and whoever runs the tests in
    /// the background of a script has it ignored. What is caught here is unset in a new program.
    fn interrupt_as_usual() {
        static DONE: std::sync::Once = std::sync::Once::new();
        DONE.call_once(|| {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
            let ignored = u64::from_str_radix(mask.trim(), 16).unwrap();
            if ignored & (1 << (Signal::SIGINT as i32 - 1)) != 0 {
                signal_hook::flag::register(Signal::SIGINT as i32, std::sync::Arc::default()).unwrap();
            }
        });
    }

    /// A server that is a script, in a directory of the user that root would run it as.
    fn start(place: &Path, script: &str, limit: Duration) -> ServerProcess {
        interrupt_as_usual();
        let (data, programs) = (place.join("data"), place.join("bin"));
        std::fs::create_dir(&data).unwrap();
        std::fs::create_dir(&programs).unwrap();
        std::fs::set_permissions(place, std::fs::Permissions::from_mode(0o755)).unwrap();
        let program = programs.join("postgres");
        std::fs::write(&program, format!("#!/bin/sh\necho \"$@\"\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&data, Some(65_534), Some(65_534)).unwrap();
        }
        let directory = Rooted::open(&data).unwrap().dir;
        let request = StartRequest {
            directory: &directory,
            programs: &programs,
            arguments: vec!["-c".into(), "port=7".into()],
            private_socket: Some(Path::new("/run/a \"b\",c")),
            environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
            log: "start.log",
        };
        ServerProcess::start(request, Deadline::each(limit)).unwrap()
    }

    fn wait_for_log(server: &ServerProcess, text: &str) {
        let began = Instant::now();
        while !server.tail().contains(text) {
            assert!(began.elapsed() < Duration::from_secs(20), "{}", server.tail());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_server_gets_its_arguments_and_says_why_it_ended() {
        let place = tempfile::tempdir().unwrap();
        let mut server = start(place.path(), "echo FATAL: no >&2; exit 3", Duration::from_secs(20));
        let code = server.watch(&mut |_, seen| match seen {
            Seen::Ended(status) => Ok(status.code()),
            _ => Ok(None),
        });
        assert_eq!(code.unwrap(), 3);
        let tail = server.tail();
        assert!(tail.ends_with("FATAL: no"), "{tail}");
        let socket = "-c listen_addresses= -c unix_socket_directories=\"/run/a \"\"b\"\",c\" -c unix_socket_permissions=0700";
        assert!(tail.contains(&format!("/data -c port=7 {socket}\n")), "{tail}");
        // Nobody who watches waits for one that has ended.
        let error = server.watch::<()>(&mut |_, _| Ok(None)).unwrap_err();
        assert_eq!(error.kind, Kind::Server);
        assert!(error.detail.unwrap().contains("FATAL: no"));
    }

    #[test]
    fn a_server_is_stopped_fast_and_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let script = "trap 'echo stopped; exit 0' INT; echo ready; while :; do sleep 0.05; done";
        let server = start(place.path(), script, Duration::from_secs(20));
        wait_for_log(&server, "ready");
        server.stop().unwrap();
        assert!(std::fs::read_to_string(place.path().join("data/start.log")).unwrap().ends_with("stopped\n"));
    }

    #[test]
    fn one_that_does_not_stop_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        // It ends by itself, after the time.
        let script = "trap '' INT; echo ready; i=0; while [ $i -lt 40 ]; do i=$((i+1)); sleep 0.05; done";
        let server = start(place.path(), script, Duration::from_millis(300));
        wait_for_log(&server, "ready");
        let error = server.stop().unwrap_err();
        assert!(error.what.contains("has not stopped"), "{error}");
        let other = tempfile::tempdir().unwrap();
        let server = start(other.path(), "trap 'exit 5' INT; echo ready; while :; do sleep 0.05; done", Duration::from_secs(20));
        wait_for_log(&server, "ready");
        assert!(server.stop().unwrap_err().what.contains("did not stop in good order"));
    }
}
