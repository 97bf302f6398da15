//! What keeps an exit code within its range, whatever happens: panics, signals, allocation failures, calls that hang.
//!
//! PostgreSQL's archiver dies when `archive_command` exits above 125 or is killed by a signal. `fetch-wal` on the other
//! hand leaves signals as they are: the server reads a SIGTERM as its own shutdown, and every other death as "stop",
//! never as "no such file".

use std::panic;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGABRT, SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU, SIGXFSZ};

use super::failure;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::limits::{HANGING_CALL_GRACE, LAST_MESSAGE_TIME, MAX_PROC_STATUS_BYTES};
use crate::threads::{Detached, background};

/// Nothing of what this process holds ends up in a core dump or in the hands of another process of the same user.
pub(super) fn against_dumps() {
    crate::process::close_memory(status_field("TracerPid:").is_some_and(|pid| pid != "0"));
}

/// Turns deadly signals into exit codes. Nothing is half-written by that: a killed process leaves the repository as it
/// was.
pub(super) fn against_signals(ended: u8, bug: u8) {
    let always = || Arc::new(AtomicBool::new(true));
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGALRM, SIGUSR1, SIGUSR2, SIGXCPU] {
        // It fails only for signals that cannot be caught, which these are not.
        let _ = signal_hook::flag::register_conditional_shutdown(signal, ended.into(), always());
    }
    // Raised by the allocator when memory is exhausted and by a panic within a panic.
    let _ = signal_hook::flag::register_conditional_shutdown(SIGABRT, bug.into(), always());
    against_file_size_signal();
}

/// A file size limit (`ulimit -f`) becomes an error of the write.
pub(super) fn against_file_size_signal() {
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)));
}

/// Runs a command; a panic becomes `None` and one line on standard error.
pub(super) fn against_panics<T>(code: u8, work: impl FnOnce() -> T) -> Option<T> {
    panic::set_hook(Box::new(move |info| {
        let place = info.location().map_or_else(String::new, |l| format!(" at {}:{}", l.file(), l.line()));
        let message = info.payload_as_str().unwrap_or("no message");
        let error = Error::new(Kind::Bug, format!("this is a bug{place}: {message}"));
        failure::say(&error.hint("please report it with this line and the output of 'walvis --version'"), code);
    }));
    panic::catch_unwind(panic::AssertUnwindSafe(work)).ok()
}

/// Ends the process some time after the deadline, should a system call hang (a dead NFS server).
pub(super) fn against_hanging(deadline: Deadline, code: u8) {
    let watchdog = background("watchdog", move || {
        loop {
            let left = deadline.remaining();
            std::thread::sleep(if left.is_zero() { HANGING_CALL_GRACE } else { left });
            if left.is_zero() {
                break;
            }
        }
        // In a thread: what hangs may be the reader of our standard error, and the main thread may hold its lock.
        let speaker = Detached::start(move || {
            let what = format!("gave up: no answer within the time limit of {} s", deadline.limit().as_secs());
            let hint = "a disk or mount hangs, or nobody reads these messages; see timeout_s in the settings";
            failure::say(&Error::new(Kind::Unreachable, what).hint(hint), code);
        });
        if let Ok(speaker) = speaker {
            let _ = speaker.wait(LAST_MESSAGE_TIME);
        }
        #[expect(clippy::exit, reason = "the main thread hangs in the kernel; there is nobody to return to")]
        std::process::exit(code.into());
    });
    if let Err(e) = watchdog {
        tracing::warn!("nothing ends this command should it hang: {}", e.what);
    }
}

/// Whether somebody wants the command to end.
pub(super) struct Interruption {
    signal: Arc<AtomicUsize>,
}

/// From now on the first SIGINT, SIGTERM or SIGHUP is only noted; a second one ends the process at once. What the
/// caller had us ignore, as `nohup` does, stays ignored.
pub(super) fn interruption() -> Interruption {
    let (signal, again) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let ignored = ignored_signals();
    for number in [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|number| ignored & (1 << (number - 1)) == 0) {
        // They fail only for signals that cannot be caught, which these are not. The order matters: the flag is looked
        // at before it is set.
        let _ = signal_hook::flag::register_conditional_default(number, Arc::clone(&again));
        let _ = signal_hook::flag::register(number, Arc::clone(&again));
        let _ = signal_hook::flag::register_usize(number, Arc::clone(&signal), usize::try_from(number).unwrap_or_default());
    }
    Interruption { signal }
}

/// A bit for each signal that is ignored, the lowest for 1; none where the system does not tell.
fn ignored_signals() -> u64 {
    status_field("SigIgn:").and_then(|mask| u64::from_str_radix(&mask, 16).ok()).unwrap_or(0)
}

/// What the kernel says of this process.
fn status_field(name: &str) -> Option<String> {
    let status = crate::fsio::read_bounded(Path::new("/proc/self/status"), MAX_PROC_STATUS_BYTES).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    status.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
}

impl Interruption {
    /// An error as soon as a signal came.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self.signal.load(Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err(Error::new(Kind::Server, "interrupted by a signal").hint("nothing that is not complete counts")),
        }
    }

    /// If a signal came, says why, and lets it have the effect that it has by default: a process that waits for this
    /// one sees it.
    pub(super) fn end_with(&self, error: Error) -> Error {
        let number = self.signal.load(Ordering::Relaxed);
        if number != 0 {
            // What a shell has for a process that a signal ended.
            failure::say(&error, u8::try_from(number).map_or(u8::MAX, |number| number.saturating_add(128)));
            let _ = signal_hook::low_level::emulate_default_handler(i32::try_from(number).unwrap_or(SIGTERM));
        }
        error
    }
}
