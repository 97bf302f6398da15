//! The plan and the report of `pitr-restore` as text.

use super::resolve;
use super::units::{duration_of, size};
use crate::cli::lines::Lines;
use crate::limits::MAX_LOCKS_PRINTED;
use crate::pg::target::Zone;
use crate::report::restore::{DirectoryState, PlanReport, RestoreReport, ServerState};
use crate::restore::recovery_settings::ARCHIVE_AGAIN;

/// What will be done.
pub(in crate::cli) fn plan(report: &PlanReport, zone: &Zone) -> Lines {
    let mut out = resolve::text(&report.resolve, zone);
    let Some(plan) = &report.restore else { return out };
    let mut line = |name: &str, text: String| {
        writeln!(out, "{name:<15} {text}");
    };
    let place = match plan.directory_state {
        DirectoryState::Absent => "which will be made",
        DirectoryState::Empty => "which is empty",
        DirectoryState::Unfinished => "which has an unfinished restore: what is right is kept",
        DirectoryState::Cluster => "which has a cluster: what is the same is kept, the rest is REPLACED OR REMOVED",
    };
    line("restore into", format!("{}, {place}", plan.data_directory));
    let owner = plan.owner.as_ref().map_or_else(String::new, |owner| format!(", owned by {owner}"));
    line("files", format!("{}, {}; {} free{owner}", plan.files, size(plan.bytes), size(plan.available_bytes)));
    for tablespace in &plan.tablespaces {
        let from =
            if tablespace.from_path == tablespace.to_path { String::new() } else { format!(", was in {}", tablespace.from_path) };
        let (oid, to, bytes) = (tablespace.oid, &tablespace.to_path, size(tablespace.bytes));
        line("tablespace", format!("{oid} in {to}, {bytes}{from}"));
    }
    if let Some(waldir) = &plan.wal_directory {
        line("pg_wal", format!("in {}", waldir));
    }
    for file in &plan.attachments {
        match &file.to_path {
            Some(to) if file.replaces => line("settings", format!("{to}, which is there: it is renamed to *.before-restore")),
            Some(to) if *to == file.from_path => line("settings", to.to_string()),
            Some(to) => line("settings", format!("{to}, was {}", file.from_path)),
            None => line("settings", format!("{} stays in the backup", file.from_path)),
        }
    }
    for file in &plan.unarchived_wal {
        line("WILL BE LOST", format!("{}: it was never archived", file.describe()));
    }
    for setting in &plan.settings {
        line("will be set", format!("{} = '{}'", setting.name, setting.value));
    }
    for setting in &plan.lasting_settings {
        line("will be set", format!("{} = '{}', and stays when recovery is over", setting.name, setting.value));
    }
    line(
        "archiving",
        if plan.standby && plan.archiving {
            "as the original"
        } else if plan.archiving {
            "as the original: KEPT ON"
        } else {
            "off in the restored server"
        }
        .to_owned(),
    );
    line("threads", plan.jobs.to_string());
    if let Some(programs) = &plan.bin_directory {
        line("then start", format!("PostgreSQL {} in {}", plan.postgres_major, programs));
    }
    for note in &plan.notes {
        line("note", note.clone());
    }
    out
}

/// What was done.
pub(in crate::cli) fn restored(report: &RestoreReport) -> Lines {
    let mut out = Lines::new();
    if let Some(restored) = &report.restored {
        writeln!(out);
        writeln!(
            out,
            "restored        {} files, {} in {}: {} read with {} requests, {} kept, {} zeros, {} removed",
            restored.files,
            size(restored.bytes),
            duration_of(restored.duration_s),
            size(restored.read_bytes),
            restored.requests,
            size(restored.kept_bytes),
            size(restored.zero_bytes),
            restored.removed_items
        );
    }
    let archives_not = report.plan.restore.as_ref().is_some_and(|plan| !plan.archiving) && report.restored.is_some();
    match (&report.server, report.restored.is_some()) {
        (Some(server), _) => {
            let at = server.lsn.as_ref().map_or_else(String::new, |lsn| format!(" at {lsn}"));
            let timeline = server.timeline.map_or_else(String::new, |timeline| format!(" on timeline {timeline}"));
            writeln!(out, "recovered       {}{at}{timeline} after {}", server.state, duration_of(server.duration_s));
            if let Some(process) = server.pid {
                writeln!(out, "server          process {process}, first messages in {}", server.log_path);
            }
            if !server.environment_variables.is_empty() {
                writeln!(
                    out,
                    "                it has {} from this environment: restore_command needs them",
                    server.environment_variables.join(", ")
                );
            }
            for locked in server.locked.iter().take(MAX_LOCKS_PRINTED) {
                writeln!(out, "LOCKED          {} in database {}", locked.relation, locked.database);
            }
            if server.locked.len() > MAX_LOCKS_PRINTED {
                writeln!(out, "LOCKED          and {} more", server.locked.len() - MAX_LOCKS_PRINTED);
            }
            if !server.locked.is_empty() {
                writeln!(
                    out,
                    "                a transaction that is not included has locked these, and queries on them wait until recovery ends"
                );
            }
            if server.state == ServerState::Paused {
                writeln!(
                    out,
                    "                look around; SELECT pg_wal_replay_resume() ends recovery, and the server takes writes"
                );
            }
        }
        (None, true) if report.plan.restore.as_ref().is_some_and(|plan| plan.standby) => {
            writeln!(out, "start it, and it follows");
        }
        (None, true) => {
            writeln!(
                out,
                "start it, and it recovers; it has reached the target only when its log says so. Its last act in recovery is to take \
                 these settings out of postgresql.auto.conf"
            );
        }
        (None, false) => {}
    }
    if archives_not {
        writeln!(out, "archiving       off: {ARCHIVE_AGAIN}");
    }
    out
}
