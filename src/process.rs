//! This process and those that it starts: who may look into its memory, and what of it they inherit.
//!
//! Lives here: what protects a process that holds keys, and the only way to start another one. May not live here: what
//! is started, and why. Depends on nothing.
//!
//! A process that holds a key leaves no core dump, and no other process of its user can read its memory or environment.
//! Both end with an `exec`: what it starts is as its caller would have it.

use std::ffi::OsString;
use std::io;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

/// The variable that may hold a passphrase of a repository.
pub const PASSPHRASE_VARIABLE: &str = "WALVIS_PASSPHRASE";
/// Variables that hold a secret of ours or of PostgreSQL: they go to nobody who does not need them.
const SECRETS: [&str; 3] = [PASSPHRASE_VARIABLE, "PGPASSWORD", "PGSSLPASSWORD"];
/// What a program needs to find its files and to speak the operator's language.
const BASICS: [&str; 9] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH", "LD_PRELOAD"];

/// Whether the memory of this process is closed.
static IS_CLOSED: AtomicBool = AtomicBool::new(false);
/// The limit on core dumps that this process was started with.
static CORE_LIMIT: OnceLock<rlim_t> = OnceLock::new();
/// Held while a process is started: its limits are those of this one at that moment.
static STARTING: Mutex<()> = Mutex::new(());

/// From now on this process leaves no core dump, and other processes of its user cannot look into it. Called first of
/// all.
///
/// A process that is traced when it begins stays open to its tracer, who sees everything anyway.
pub fn close_memory(is_traced: bool) {
    // It fails only where the kernel knows no such call; nothing that follows depends on it.
    if !is_traced {
        IS_CLOSED.store(true, Ordering::Relaxed);
        close_memory_again();
    }
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_CORE) {
        CORE_LIMIT.get_or_init(|| soft);
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, hard);
    }
}

/// To be called after user ids of this process or thread have changed, by which the kernel forgets about
/// [`close_memory`]: it does then what `fs.suid_dumpable` says.
pub fn close_memory_again() {
    if IS_CLOSED.load(Ordering::Relaxed) {
        let _ = nix::sys::prctl::set_dumpable(false);
    }
}

/// Starts a process, with the limits that this one was started with.
///
/// # Errors
/// The system's.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    let _alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let limit = |soft: rlim_t| {
        if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_CORE) {
            // The soft limit may always be anything up to the hard one.
            let _ = setrlimit(Resource::RLIMIT_CORE, soft.min(hard), hard);
        }
    };
    if let Some(soft) = CORE_LIMIT.get() {
        limit(*soft);
    }
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    let child = command.spawn();
    if CORE_LIMIT.get().is_some() {
        limit(0);
    }
    child
}

/// Runs a program that says something of itself, and gives what it printed.
///
/// # Errors
/// The system's.
pub fn output(command: &mut Command) -> io::Result<Output> {
    command.env_clear().envs(basic_environment()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    spawn(command)?.wait_with_output()
}

/// What a program gets that has nothing to do with repositories: `pg_config`, `postgres --version`.
fn basic_environment() -> Vec<(OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| is_basic(name)).collect()
}

/// Whether every program gets this variable.
pub fn is_basic(name: &std::ffi::OsStr) -> bool {
    name.to_str().is_some_and(|name| BASICS.contains(&name) || name.starts_with("LC_"))
}

/// Whether a variable holds a secret that is not for a command of the operator's, such as `key_command`.
pub fn is_secret(name: &std::ffi::OsStr) -> bool {
    name.to_str().is_some_and(|name| SECRETS.contains(&name))
}

/// What a command of the operator's gets: everything but the [secrets](is_secret) that are not for it.
pub fn environment_of_commands() -> Vec<(OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| !is_secret(name)).collect()
}
