//! A process that holds a key is closed to other processes of its user, leaves no core dump, and hands neither on.

use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use nix::sys::signal::Signal;

use crate::recovery::Archive;
use crate::support::command::{self, Running, eventually};
use crate::support::postgres::Scratch;

/// `walvis` of the server's user, waiting for its `key_command`; and the process of that.
fn waiting(scratch: &Scratch, limit: &str) -> (Running, String) {
    Archive::walvis(scratch);
    let note = scratch.path().join("note");
    let mut shell = scratch.command(Path::new("/bin/sh"));
    let config = scratch.path().join("walvis.toml");
    shell.args(["-c", &format!("ulimit -S -c {limit}; exec \"$@\""), "sh"]).arg(scratch.walvis());
    shell.arg("--config").arg(config).arg("list").env("PGPASSWORD", "a-password").env("SOMETHING", "else");
    shell.env("WALVIS_KEY_COMMAND", format!("echo $$ > '{}.part'; mv '{0}.part' '{0}'; exec sleep 600", note.display()));
    let running = command::start(&mut shell);
    eventually("the key command runs", || note.exists());
    (running, fs::read_to_string(note).unwrap().trim().to_owned())
}

/// Reads a file of `/proc` as the same user.
fn look(scratch: &Scratch, path: &str) -> ExitStatus {
    let mut cat = scratch.command(Path::new("head"));
    cat.args(["-c", "1", path]).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap()
}

fn core_limit(process: &str) -> String {
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn nobody_looks_into_a_process_that_holds_keys() {
    let scratch = Scratch::new();
    let (walvis, of_key) = waiting(&scratch, "1024");
    let own = walvis.id().to_string();
    if scratch.has_other_user() || !command::is_root() {
        for file in ["environ", "maps", "auxv"] {
            assert!(!look(&scratch, &format!("/proc/{own}/{file}")).success(), "{file} of walvis can be read");
            assert!(look(&scratch, &format!("/proc/{of_key}/{file}")).success(), "{file} of another process cannot be read");
        }
    }
    // What it starts is as its caller would have it, but for secrets that it does not need.
    assert_eq!(core_limit(&own), "0");
    assert_eq!(core_limit(&of_key), (1024 * 512).to_string());
    let environment = fs::read(format!("/proc/{of_key}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment);
    assert!(environment.contains("SOMETHING=else"), "{environment}");
    assert!(!environment.contains("a-password"), "{environment}");
    walvis.signal(Signal::SIGKILL);
    command::kill_below(scratch.path());
}

#[test]
fn a_crash_leaves_no_core_dump() {
    let scratch = Scratch::new();
    let (walvis, _) = waiting(&scratch, "unlimited");
    walvis.signal(Signal::SIGQUIT);
    let status = walvis.wait().status;
    assert_eq!(status.signal(), Some(Signal::SIGQUIT as i32));
    assert!(!status.core_dumped(), "it left a core dump");
    command::kill_below(scratch.path());
    // Whether another process would have left one here.
    let mut other = Command::new("/bin/sh");
    other.args(["-c", "ulimit -c unlimited 2>/dev/null; kill -QUIT $$"]).current_dir(scratch.path()).process_group(0);
    if !other.status().unwrap().core_dumped() {
        eprintln!("no process leaves core dumps here, so this one proves nothing");
    }
}
