//! `pitr-restore`: from arguments to a request, how the server will call this program, and the report as text.
use super::args::{ActionArg, Archiving, RestoreArgs};
use super::lines::Lines;
use super::render::{duration_of, size};
use super::{recovery, targets};
use crate::config::{Carried, Config, absolute};
use crate::error::{Error, Kind};
use crate::limits::MAX_LOCKS_PRINTED;
use crate::pg::settings::{Invocation, TargetAction};
use crate::pg::target::Zone;
use crate::process::PASSPHRASE_VARIABLE;
use crate::repo::KeySource;
use crate::report::end_recovery::EndReport;
use crate::report::restore::{DirectoryState, PlanReport, RestoreReport, ServerState};
use crate::restore::recovery_settings::ARCHIVE_AGAIN;
use crate::restore::request::{RestoreRequest, TablespaceKey};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A variable of AWS's tools that `restore_command` carries, since the restored server may have none: no secret, but a
/// path.
const CA_BUNDLE: &str = "AWS_CA_BUNDLE";

pub(super) fn request(args: &RestoreArgs, config: &Config) -> Result<RestoreRequest, Error> {
    Ok(RestoreRequest {
        pgdata: args.pgdata.clone(),
        target: targets::target(&args.target, config)?,
        action: match args.target_action {
            ActionArg::Pause => TargetAction::Pause,
            ActionArg::Promote => TargetAction::Promote,
            ActionArg::Shutdown => TargetAction::Shutdown,
        },
        tablespace_map: args.tablespace_map.iter().map(|text| tablespace(text)).collect::<Result<_, _>>()?,
        tablespaces_at_original_places: args.tablespaces_at_original_places,
        delta: args.delta,
        server_is_stopped: args.server_is_stopped,
        discard_unarchived_wal: args.discard_unarchived_wal,
        overwrite_tablespaces_of_the_log: args.tablespaces_of_the_log_may_be_overwritten,
        waldir: args.waldir.clone(),
        config_to: args.config_to.clone(),
        plan: args.plan,
        start: args.start,
        archiving: args.archiving.map_or(args.standby, |archiving| archiving == Archiving::Keep),
        standby: args.standby,
        primary: args.primary.clone(),
        jobs: args.jobs.map(usize::from),
        bin_dir: args.bin_dir.clone(),
        invocation: invocation(config)?,
    })
}

/// `16399=/new/path` or `/old/path=/new/path`. Paths are bytes.
fn tablespace(text: &OsStr) -> Result<(TablespaceKey, PathBuf), Error> {
    let invalid = || {
        Error::new(Kind::Usage, format!("--tablespace-map {} makes no sense", text.display()))
            .hint("write 16399=/new/path or /old/path=/new/path, with absolute paths")
    };
    let bytes = text.as_bytes();
    let at = bytes.iter().position(|byte| *byte == b'=').ok_or_else(invalid)?;
    let (from, to) = (bytes.get(..at).unwrap_or_default(), bytes.get(at + 1..).unwrap_or_default());
    let key = match std::str::from_utf8(from).ok().and_then(|oid| oid.parse::<u32>().ok()) {
        Some(oid) => TablespaceKey::Oid(oid),
        None if from.starts_with(b"/") => TablespaceKey::Path(from.into()),
        None => return Err(invalid()),
    };
    if !to.starts_with(b"/") {
        return Err(invalid());
    }
    Ok((key, PathBuf::from(OsStr::from_bytes(to))))
}

/// How a server that knows nothing of this process's environment and directory calls this program with the same
/// settings.
fn invocation(config: &Config) -> Result<Invocation, Error> {
    let program = std::env::current_exe()
        .map_err(|e| Error::new(Kind::Config, format!("cannot find the path of this program: {e}")).hint("is /proc mounted?"))?;
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let Carried { mut environment, options } = config.handed_on.carried()?;
    if let Some(path) = env(CA_BUNDLE) {
        environment.push((CA_BUNDLE.to_owned(), absolute(Path::new(&path))?));
    }
    if config.repositories.iter().any(|repository| repository.key == KeySource::PassphraseEnvironment) {
        tracing::warn!(
            "the passphrase is only in {PASSPHRASE_VARIABLE}: the restored server needs it in its environment too, whenever it is started"
        );
    }
    let is_in_s3 = config.repositories.iter().any(|repository| repository.store.location().starts_with("s3:"));
    if is_in_s3 && ["AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE"].iter().any(|name| env(name).is_some()) {
        tracing::warn!(
            "AWS credentials are named in the environment: the restored server needs them there too, to fetch WAL, whenever it is started"
        );
    }
    Ok(Invocation { environment, program: absolute(&program)?, options })
}

/// What will be done.
pub(super) fn plan(report: &PlanReport, zone: &Zone) -> Lines {
    let mut out = recovery::resolved(&report.resolve, zone);
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
pub(super) fn restored(report: &RestoreReport) -> Lines {
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

/// What the server's log gets.
pub(super) fn ended(report: &EndReport) -> Lines {
    let mut text = match report.removed_settings.as_slice() {
        [] => "recovery is over; postgresql.auto.conf has no settings of it".to_owned(),
        removed => format!("recovery is over; taken out of postgresql.auto.conf: {}", removed.join(", ")),
    };
    if report.archiving_is_off {
        text.push_str(&format!("; archive_mode is off there: {ARCHIVE_AGAIN}"));
    }
    let mut out = Lines::new();
    writeln!(out, "{text}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tablespace_maps_are_read() {
        let tablespace = |text: &str| tablespace(OsStr::new(text));
        assert_eq!(tablespace("16399=/new").unwrap(), (TablespaceKey::Oid(16399), PathBuf::from("/new")));
        assert_eq!(tablespace("/old=/n=w").unwrap(), (TablespaceKey::Path("/old".into()), PathBuf::from("/n=w")));
        for bad in ["", "16399", "16399=", "16399=new", "old=/new", "=/new"] {
            assert_eq!(tablespace(bad).unwrap_err().kind, Kind::Usage, "{bad}");
        }
        let (key, to) = super::tablespace(OsStr::from_bytes(b"/caf\xE9=/\xFF")).unwrap();
        assert_eq!((key, to), (TablespaceKey::Path(b"/caf\xE9"[..].into()), PathBuf::from(OsStr::from_bytes(b"/\xFF"))));
    }
}
