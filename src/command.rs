//! Running a command of the operator's: a shell, a bound on what it prints, and a time limit after which it is gone,
//! with everything that it started.
//!
//! Lives here: [`run`], for `key_command` and whatever else the settings name. May not live here: which commands there
//! are, and whose word is taken for them ([`config`](crate::config) refuses settings that another user could have
//! written). Depends on `limits` and `process`.
//!
//! The command has a process group of its own. At the time limit the group is told to end, and killed where it does
//! not. A command that has ended is done, also where something that it started goes on and holds its output open: what
//! it printed is there by then.

use std::fmt;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;
use zeroize::Zeroizing;

use crate::limits::{COMMAND_GRACE, COMMAND_LOOK_EVERY, COMMAND_READ_BYTES};
use crate::process;

/// Why a command gave nothing.
#[derive(Debug)]
pub enum Failure {
    /// It could not be started, watched or read.
    System(io::Error),
    /// It did not end within its time; it is gone now.
    TooLate,
    /// It printed more than this many bytes; it is gone now.
    TooMuch(usize),
    /// It asked something at the terminal, where it may not; it is gone now.
    Asks,
    /// It ended otherwise than with 0.
    Status(ExitStatus),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(error) => write!(f, "cannot be run: {error}"),
            Self::TooLate => write!(f, "did not finish within its time limit"),
            Self::TooMuch(bytes) => write!(f, "printed more than {bytes} bytes"),
            Self::Asks => write!(f, "wants to ask something at the terminal"),
            Self::Status(status) => write!(f, "failed: {status}"),
        }
    }
}

/// Runs a command under the shell, without input, and gives what it printed to standard output; the rest of its output
/// is ours.
///
/// # Errors
/// A [`Failure`], whose words complete "the command …".
pub fn run(command: &str, limit: Duration, max_output_bytes: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let until = Instant::now() + limit;
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    // Credentials of a cloud may be what it needs; passphrase and password of a server are not.
    shell.env_clear().envs(process::environment_of_commands());
    let child = process::spawn(&mut shell).map_err(Failure::System)?;
    let mut running = Running { child, is_over: false };
    let output = running.read(until, max_output_bytes)?;
    let status = running.reap().map_err(Failure::System)?;
    if status.success() { Ok(output) } else { Err(Failure::Status(status)) }
}

/// A command whose whole process group ends when this is dropped before the command has ended.
struct Running {
    child: Child,
    /// The command has ended by itself. What it left behind is none of our business.
    is_over: bool,
}

impl Running {
    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().map(Pid::from_raw)
    }

    /// Whether the command has ended. It is not reaped: its number stays that of its group.
    fn has_ended(&mut self) -> Result<bool, Failure> {
        if !self.is_over {
            let Some(pid) = self.pid() else { return Err(Failure::System(Errno::ECHILD.into())) };
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
            match nix::sys::wait::waitid(Id::Pid(pid), flags) {
                Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => self.is_over = true,
                Ok(WaitStatus::Stopped(_, Signal::SIGTTIN | Signal::SIGTTOU)) => return Err(Failure::Asks),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(Failure::System(e.into())),
            }
        }
        Ok(self.is_over)
    }

    fn read(&mut self, until: Instant, max_bytes: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let fail = |e: Errno| Failure::System(e.into());
        let mut stdout = self.child.stdout.take().ok_or_else(|| fail(Errno::EBADF))?;
        nix::fcntl::fcntl(stdout.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(fail)?;
        // Whole at once: growing it would leave copies of a secret behind.
        let mut output = Zeroizing::new(Vec::with_capacity(max_bytes));
        let mut chunk = Zeroizing::new([0; COMMAND_READ_BYTES]);
        let mut is_open = true;
        loop {
            // Before reading: what it printed before it ended is in the pipe now.
            let has_ended = self.has_ended()?;
            while is_open {
                match stdout.read(&mut chunk[..]) {
                    Ok(0) => is_open = false,
                    Ok(n) if output.len() + n > max_bytes => return Err(Failure::TooMuch(max_bytes)),
                    Ok(n) => output.extend_from_slice(chunk.get(..n).unwrap_or_default()),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(Failure::System(e)),
                }
            }
            if has_ended {
                return Ok(output);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure::TooLate);
            }
            let wait = left.min(COMMAND_LOOK_EVERY);
            if is_open {
                let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
                match nix::poll::poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)], timeout) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(e) => return Err(fail(e)),
                }
            } else {
                std::thread::sleep(wait);
            }
        }
    }

    fn reap(&mut self) -> io::Result<ExitStatus> {
        self.is_over = true;
        self.child.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(pid) = self.pid().filter(|_| !self.is_over) else { return };
        // First in good manners: a command may have something to tidy up. A stopped one has to go on for that.
        let _ = killpg(pid, Signal::SIGTERM);
        let _ = killpg(pid, Signal::SIGCONT);
        let until = Instant::now() + COMMAND_GRACE;
        while Instant::now() < until && !self.has_ended().unwrap_or(false) {
            std::thread::sleep(COMMAND_LOOK_EVERY);
        }
        // Not reaped yet, so that the number is still that of this group, and of no other.
        let _ = killpg(pid, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    const PLENTY: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(200);

    fn text(command: &str) -> String {
        String::from_utf8(run(command, PLENTY, 1000).unwrap().to_vec()).unwrap()
    }

    /// Whether a process that is there runs, rather than waiting to be reaped.
    fn lives(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with(['Z', 'X']))
    }

    /// The processes that write their numbers into a file, a line each.
    struct Pids(tempfile::NamedTempFile);

    impl Pids {
        fn new() -> Self {
            Self(tempfile::NamedTempFile::new().unwrap())
        }

        fn path(&self) -> String {
            self.0.path().display().to_string()
        }

        fn all(&self) -> Vec<String> {
            std::fs::read_to_string(self.0.path()).unwrap().lines().map(str::to_owned).collect()
        }

        fn are_gone(&self, count: usize) {
            let all = self.all();
            assert_eq!(all.len(), count, "{all:?}");
            let since = Instant::now();
            while all.iter().any(|pid| lives(pid)) {
                assert!(since.elapsed() < PLENTY, "they live on: {all:?}");
                std::thread::sleep(COMMAND_LOOK_EVERY);
            }
        }
    }

    #[test]
    fn what_it_prints_is_read() {
        assert_eq!(text("echo one; sleep 0.05; echo two"), "one\ntwo\n");
        assert_eq!(text("exec >&-; sleep 0.05"), "");
        assert_eq!(text("test -t 0 || cat; printf x"), "x");
        assert_eq!(run("head -c 1000 /dev/zero", PLENTY, 1000).unwrap().len(), 1000);
        assert!(matches!(run("echo no; exit 3", PLENTY, 1000), Err(Failure::Status(status)) if status.code() == Some(3)));
        assert!(matches!(run("kill -9 $$", PLENTY, 1000), Err(Failure::Status(status)) if status.code().is_none()));
    }

    #[test]
    fn a_child_that_holds_its_output_is_not_waited_for() {
        let pids = Pids::new();
        let since = Instant::now();
        let command = format!("echo key; sleep 1000 & echo $! >> {}", pids.path());
        assert_eq!(text(&command), "key\n");
        assert!(since.elapsed() < PLENTY / 2);
        // It was left on purpose: an agent, for example.
        let left = pids.all();
        assert!(lives(&left[0]));
        nix::sys::signal::kill(Pid::from_raw(left[0].parse().unwrap()), Signal::SIGKILL).unwrap();
        // A failure is the command's own.
        let failing = "sleep 1000 & echo $! >&2; kill $!; exit 4";
        assert!(matches!(run(failing, PLENTY, 1000), Err(Failure::Status(status)) if status.code() == Some(4)));
    }

    #[test]
    fn the_whole_group_ends_at_the_time_limit() {
        let pids = Pids::new();
        let path = pids.path();
        // The shell, its children, and a grandchild whose parent is gone.
        let command = format!(
            "echo $$ >> {path}; sleep 1000 & echo $! >> {path}; sh -c 'sleep 1000 & echo $! >> {path}'; echo part; sleep 1000 | cat"
        );
        assert!(matches!(run(&command, SHORT, 1000), Err(Failure::TooLate)));
        pids.are_gone(3);
    }

    #[test]
    fn it_may_tidy_up_and_dies_where_it_will_not() {
        let pids = Pids::new();
        let path = pids.path();
        let tidy = format!("trap 'echo tidied >> {path}; exit' TERM; while :; do sleep 0.01; done");
        assert!(matches!(run(&tidy, SHORT, 1000), Err(Failure::TooLate)));
        assert_eq!(pids.all(), ["tidied"]);
        let pids = Pids::new();
        let deaf = format!("trap '' TERM; echo $$ >> {0}; sleep 1000 & echo $! >> {0}; while :; do sleep 1; done", pids.path());
        assert!(matches!(run(&deaf, SHORT, 1000), Err(Failure::TooLate)));
        pids.are_gone(2);
    }

    #[test]
    fn too_much_is_an_error_and_ends_it() {
        let pids = Pids::new();
        let command = format!("echo $$ >> {}; exec cat /dev/zero", pids.path());
        assert!(matches!(run(&command, PLENTY, 100_000), Err(Failure::TooMuch(100_000))));
        pids.are_gone(1);
    }
}
