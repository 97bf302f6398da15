//! The start of a helper process. Helpers outlive the call that starts them.

use crate::config::HELPER_VARIABLE;
use crate::process;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// The variables that a helper has in its environment and a call has not: the mark that it is a helper, and how the C
/// library keeps the memory that several threads gave back. Long buffers go back to the kernel, and threads share what
/// is left.
pub const HELPER_ENVIRONMENT: [(&str, &str); 3] =
    [(HELPER_VARIABLE, "1"), ("MALLOC_ARENA_MAX", "2"), ("MALLOC_MMAP_THRESHOLD_", "2097152")];

/// Starts a helper: this program with these arguments. It begins a session of its own and shares no descriptor with us.
/// Nobody waits for it. The list of processes shows the directory that it works in.
pub fn start_helper(arguments: &[OsString]) {
    let started = std::env::current_exe().and_then(|program| {
        let mut command = Command::new(program);
        let mut name = OsString::from("walvis in ");
        name.push(std::env::current_dir()?);
        command.arg0(name).args(arguments);
        // It does what we do, so it needs all that we need: credentials and a passphrase from the environment, too.
        command.envs(HELPER_ENVIRONMENT).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        process::spawn(&mut command)
    });
    if let Err(error) = started {
        tracing::debug!(%error, "cannot start a helper");
    }
}
