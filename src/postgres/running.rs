//! Whether a server runs in a data directory: only what is proven counts.
//!
//! `postmaster.pid` names a process, and a process can be one of another host that has the directory mounted too, of
//! another container, or of a machine before its last start. That no process of that id is here says nothing then. What
//! proves that the server has ended:
//! - its shared memory is here, made by that very process, and nobody uses it;
//! - or nobody but this kernel can have the file system mounted, and the server was started before this kernel was, or
//!   every process of this kernel can be seen and none is it.

use crate::error::{Error, Kind};
use crate::fsio::{self, Dir, local_error};
use crate::limits::{CLOCK_SLACK_S, PROCESS_ATTEMPTS, PROCESS_PAUSE, SAME_MOMENT_S};
use crate::postgres::postmaster_pid::PostmasterPid;
use crate::raw_text::shown;

/// Is in the names of all programs that are a server: `postgres`, `edb-postgres`. (`postmaster` is a link.)
const PROGRAM: &str = "postgres";

/// What is known of the server that `postmaster.pid` tells of.
#[derive(Debug, Clone, Default)]
struct Evidence {
    /// The process it names.
    process: i32,
    /// When the server started, as it wrote itself.
    started_unix_s: Option<i64>,
    /// When the file was changed last.
    changed_unix_s: i64,
    /// The shared memory that it names, if it is here.
    memory: Option<fsio::SharedMemory>,
    /// Whether only this kernel can have the file system mounted.
    is_local: bool,
    /// When this kernel was booted.
    booted_unix_s: Option<i64>,
    /// A process that is the server, or one of its processes; or why that cannot be told.
    seen: Option<Result<Option<i32>, String>>,
}

/// What follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// It runs: this process, if it can be seen.
    Runs(i32),
    /// It has ended.
    Ended,
    /// Nothing proves that it has ended.
    Unproven(String),
}

fn judge(evidence: &Evidence) -> Verdict {
    if let Some(Ok(Some(process))) = &evidence.seen {
        return Verdict::Runs(*process);
    }
    if let Some(memory) = &evidence.memory {
        if memory.attached > 0 {
            return Verdict::Runs(evidence.process);
        }
        // The same directory has the same key on every host and in every container, and ids begin at 0 in each: it must
        // be of the very process, and of its time.
        let is_of_it = |started: i64| memory.creator == evidence.process && memory.changed_unix_s + SAME_MOMENT_S >= started;
        if evidence.started_unix_s.is_some_and(is_of_it) {
            return Verdict::Ended;
        }
    }
    if !evidence.is_local {
        return Verdict::Unproven("the file system may be mounted on other hosts too".to_owned());
    }
    if let (Some(booted), Some(started)) = (evidence.booted_unix_s, evidence.started_unix_s)
        && started.max(evidence.changed_unix_s) + CLOCK_SLACK_S < booted
    {
        return Verdict::Ended;
    }
    match &evidence.seen {
        Some(Ok(_)) => Verdict::Ended,
        Some(Err(why)) => Verdict::Unproven(why.clone()),
        None => Verdict::Unproven("it may run in another container".to_owned()),
    }
}

/// Makes sure that no server runs in a data directory. `is_stopped`: the operator knows that none does; one that can be
/// seen to run is respected all the same.
///
/// # Errors
/// [`Kind::Refused`] when one runs, or may.
pub fn check(pgdata: &Dir, is_stopped: bool) -> Result<(), Error> {
    let Some((pid_file, changed_unix_s)) = PostmasterPid::read_in(pgdata).map_err(local_error)? else { return Ok(()) };
    let shown = shown(pgdata.path());
    // A server for one user writes its id negative.
    let Some(process) = pid_file.process().and_then(i32::checked_abs).filter(|id| *id > 0) else {
        if is_stopped {
            return Ok(());
        }
        return Err(Error::new(Kind::Refused, format!("{shown}: postmaster.pid makes no sense"))
            .hint("make sure that no server runs there, on any host or in any container, and say so with --server-is-stopped"));
    };
    let evidence = Evidence {
        process,
        started_unix_s: pid_file.started_unix_s(),
        changed_unix_s,
        memory: pid_file.shared_memory().and_then(memory_of),
        is_local: pgdata.is_local().map_err(local_error)?,
        booted_unix_s: fsio::booted_unix_s(),
        seen: look_for(pgdata, process)?,
    };
    match judge(&evidence) {
        Verdict::Ended => Ok(()),
        Verdict::Unproven(_) if is_stopped => Ok(()),
        Verdict::Runs(process) => {
            Err(Error::new(Kind::Refused, format!("{shown} is in use: process {process} runs there (postmaster.pid)"))
                .hint("stop that server first, or restore into another directory"))
        }
        Verdict::Unproven(why) => Err(Error::new(
            Kind::Refused,
            format!(
                "{shown} may be in use: its postmaster.pid is of process {process}, and nothing proves that it has ended: {why}"
            ),
        )
        .hint(
            "make sure that no server uses this directory, on any host or in any container, and say so with --server-is-stopped",
        )),
    }
}

/// The shared memory of a key and an id, if it is here.
fn memory_of((key, id): (u64, u64)) -> Option<fsio::SharedMemory> {
    // A key is a signed number of 32 bits, and is written as an unsigned one of 64.
    #[allow(clippy::cast_possible_truncation)]
    let key = key as u32 as i32;
    fsio::shared_memory().into_iter().find(|memory| (memory.key, memory.id.cast_unsigned()) == (key, id))
}

/// Looks for a process of the server. `None` when there may be some that cannot be seen.
fn look_for(pgdata: &Dir, process: i32) -> Result<Option<Result<Option<i32>, String>>, Error> {
    // The server runs as the owner of its directory, and works in it.
    let directory = pgdata.stat_self().map_err(local_error)?;
    let owner = directory.uid;
    let mut attempt = 0;
    let workers = loop {
        attempt += 1;
        match fsio::workers_in(&directory, owner, PROGRAM) {
            Ok(workers) => break workers,
            // One that is just being started cannot be looked at for a moment.
            Err(_) if attempt < PROCESS_ATTEMPTS => std::thread::sleep(PROCESS_PAUSE),
            Err(e) => return Ok(Some(Err(format!("a server of the same user cannot be looked at: {e}")))),
        }
    };
    let own = std::process::id().cast_signed();
    // Somebody's shell may be there too.
    let is_server = |worker: &&fsio::Worker| {
        worker.process != own && (worker.process == process || worker.program.to_lowercase().contains(PROGRAM))
    };
    if let Some(worker) = workers.iter().find(is_server) {
        return Ok(Some(Ok(Some(worker.process))));
    }
    let user = fsio::own_user();
    if !fsio::sees_every_process() {
        return Ok(None);
    }
    // Others may be hidden from one who is neither.
    if user != 0 && user != owner {
        return Ok(Some(Err("only root and the owner of the directory see all processes".to_owned())));
    }
    Ok(Some(Ok(None)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: i64 = 1_000_000;

    /// Started an hour after the boot, on a local disk, by a process that is not there.
    fn evidence() -> Evidence {
        let started = BOOT + 3600;
        Evidence {
            process: 42,
            started_unix_s: Some(started),
            changed_unix_s: started + 1,
            memory: None,
            is_local: true,
            booted_unix_s: Some(BOOT),
            seen: None,
        }
    }

    fn memory(creator: i32, attached: u64, changed_unix_s: i64) -> Option<fsio::SharedMemory> {
        Some(fsio::SharedMemory { key: 1, id: 0, creator, attached, changed_unix_s })
    }

    #[test]
    fn only_what_is_proven_counts() {
        let unproven = |evidence: Evidence| matches!(judge(&evidence), Verdict::Unproven(_));
        // No process of that id is here: it may be another container's.
        assert!(unproven(evidence()));
        assert_eq!(judge(&Evidence { seen: Some(Ok(None)), ..evidence() }), Verdict::Ended);
        assert_eq!(judge(&Evidence { seen: Some(Ok(Some(7))), ..evidence() }), Verdict::Runs(7));
        assert!(unproven(Evidence { seen: Some(Err("hidden".to_owned())), ..evidence() }));
        // Another host may have it mounted, whatever is here, and whenever this one was booted.
        let shared = Evidence { is_local: false, ..evidence() };
        assert!(unproven(Evidence { seen: Some(Ok(None)), ..shared.clone() }));
        assert!(unproven(Evidence { booted_unix_s: Some(BOOT + 100_000), ..shared.clone() }));
        // Before the boot of the one kernel that can use it.
        assert_eq!(judge(&Evidence { booted_unix_s: Some(BOOT + 100_000), ..evidence() }), Verdict::Ended);
        assert!(unproven(Evidence { booted_unix_s: Some(BOOT + 3602), ..evidence() }), "clocks are set");
        assert!(unproven(Evidence { booted_unix_s: None, ..evidence() }));
        assert!(unproven(Evidence { started_unix_s: None, booted_unix_s: Some(BOOT + 100_000), ..evidence() }));
        // Its memory.
        let made = BOOT + 3600;
        assert_eq!(judge(&Evidence { memory: memory(42, 3, made), ..evidence() }), Verdict::Runs(42));
        assert_eq!(judge(&Evidence { memory: memory(42, 0, made), ..shared.clone() }), Verdict::Ended);
        assert!(unproven(Evidence { memory: memory(43, 0, made), ..shared.clone() }), "another process made it");
        assert!(unproven(Evidence { memory: memory(42, 0, made - 3000), ..shared }), "an earlier server's");
    }
}
