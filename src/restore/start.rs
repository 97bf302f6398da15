//! Starting the restored server, and waiting until it has really reached the target.
//!
//! Lives here: what counts as reached. May not live here: how a server is started, asked and watched
//! ([`server_process`](crate::postgres::server_process)).
//!
//! That the server takes queries says nothing: it does so as soon as it is consistent, and may end with an error later.
//! Reached is:
//! - pause: it has paused, and has replayed up to the record that was resolved, no less and no more;
//! - promote, and recovery to the end of the archive: it is not in recovery any more; the new timeline's history says
//!   where it ended;
//! - shutdown: it ended by itself without an error, which it does only at the target.

use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::manifest::BackupSummary;
use crate::fsio::Dir;
use crate::limits::PROGRESS_EVERY;
use crate::pg::settings::TargetAction;
use crate::pg::target::Target;
use crate::pg::{ClusterState, Lsn, Timeline};
use crate::postgres::server_process::{Environment, RecoveryState, Seen, ServerProcess, StartRequest, recovery_end};
use crate::postgres::{Server, control_file};
use crate::report::resolve::ResolveReport;
use crate::report::restore::{Locked, ServerState, StartedServer};
use crate::restore::environment::Needs;
use crate::restore::request::RestoreRequest;
use crate::restore::{attachments, recovery_settings};
use crate::waiting;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Instant;

/// Where the server writes to until its own settings say otherwise.
const LOG: &str = "walvis-start.log";
const PAUSED: &str = "has paused";
/// Between the end of a record and the beginning of the next one: padding, and the header of a page.
const MAX_PADDING: u64 = 8 + 40;

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

impl Goal {
    /// That of a restore to a target that was resolved, from this backup.
    pub fn of(resolved: &ResolveReport, request: &RestoreRequest, backup: &BackupSummary) -> Self {
        let is_immediate = request.target.target == Target::Immediate;
        let stop = resolved.stop.as_ref().and_then(|stop| Some((stop.lsn.parse().ok()?, stop.replayed)));
        let whole = Self {
            stop,
            consistent_at: is_immediate.then_some(backup.stop_lsn),
            end: resolved.end_lsn.as_ref().and_then(|end| end.parse().ok()),
            timeline: Timeline(resolved.timeline),
            action: request.action_at(resolved),
            standby: false,
        };
        if request.standby {
            return Self { stop: None, consistent_at: Some(backup.stop_lsn), standby: true, ..whole };
        }
        whole
    }
}

fn server_error(what: impl Into<String>) -> Error {
    Error::new(Kind::Server, what)
}

/// Starts the server of a data directory, with its settings there or in another file, and waits until it has reached
/// its goal.
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
) -> Result<StartedServer, Error> {
    let Environment { variables, told } = Environment::of_server(&|name| needs.judge(name), directory.identity().owner());
    let arguments = settings.map(|settings| attachments::arguments(settings, directory.path()).to_vec());
    let request = StartRequest {
        directory,
        programs,
        arguments: arguments.unwrap_or_default(),
        private_socket: None,
        environment: variables,
        log: LOG,
    };
    let began = Instant::now();
    let mut process = ServerProcess::start(request, *deadline)?;
    tracing::info!("started PostgreSQL (process {}), it recovers now", process.id());
    if !told.is_empty() {
        tracing::warn!(
            "the server has {} from this environment, because restore_command needs them; when it is started again, it needs them too",
            told.join(", ")
        );
    }
    let _waiting = waiting::on("the server to reach the target of its recovery");
    let mut watch = Watch { directory, goal, deadline: *deadline, began, told: began };
    let reached = process.wait(&mut |process, seen| watch.look(process, seen))?;
    Ok(StartedServer { environment_variables: told, ..reached })
}

/// Watches a server until it has reached its goal.
struct Watch<'a> {
    directory: &'a Dir,
    goal: &'a Goal,
    deadline: Deadline,
    /// When the server was started.
    began: Instant,
    /// When progress was reported last.
    told: Instant,
}

impl Watch<'_> {
    fn look(&mut self, process: &ServerProcess, seen: Seen<'_>) -> Result<Option<StartedServer>, Error> {
        match seen {
            Seen::Ended(status) => self.ended(process, status).map(Some),
            Seen::TakesNobody => Ok(self.goal.standby.then(|| self.started(process, ServerState::Standby, None))),
            Seen::Answers(state, server) => {
                let mut started = self.judge(process, state)?;
                if let Some(started) = started.as_mut().filter(|_| state.in_recovery) {
                    started.locked = locked(process, server);
                }
                Ok(started)
            }
        }
    }

    fn started(&self, process: &ServerProcess, state: ServerState, lsn: Option<Lsn>) -> StartedServer {
        StartedServer {
            state,
            lsn: lsn.map(|lsn| lsn.to_string()),
            timeline: None,
            duration_s: self.began.elapsed().as_secs_f64(),
            pid: Some(process.id()),
            locked: Vec::new(),
            log_path: process.log().into(),
            environment_variables: Vec::new(),
        }
    }

    /// Whether a server that answers has reached the goal.
    fn judge(&mut self, process: &ServerProcess, state: &RecoveryState) -> Result<Option<StartedServer>, Error> {
        let started =
            |name, lsn| StartedServer { timeline: state.timeline.map(|timeline| timeline.0), ..self.started(process, name, lsn) };
        if self.goal.standby {
            if !state.in_recovery {
                return Err(server_error("the server ended recovery, and was to be a standby")
                    .detail(process.tail())
                    .hint("it runs still; somebody promoted it"));
            }
            if state.paused {
                return Err(paused_short(process, state));
            }
            let replayed = state.replayed.filter(|at| self.goal.consistent_at.is_none_or(|consistent| *at >= consistent));
            return Ok(replayed.map(|at| started(ServerState::Standby, Some(at))));
        }
        if !state.in_recovery {
            let ended = match state.timeline {
                Some(timeline) => recovery_end(self.directory.path(), timeline)?,
                None => None,
            };
            if let Some((timeline, ended)) = ended {
                self.check(process, ended, "ended recovery")?;
                if timeline != self.goal.timeline {
                    return Err(server_error(format!(
                        "the server ended recovery on timeline {timeline}, which is not that of the target, {}",
                        self.goal.timeline
                    ))
                    .detail(process.tail())
                    .hint("it runs still, with what that timeline has: stop it and do not use it"));
                }
            }
            self.clear_recovery_settings();
            return Ok(Some(started(ServerState::Promoted, ended.map(|(_, ended)| ended))));
        }
        if state.paused {
            // Without a target nobody asks for a pause.
            if self.goal.stop.is_none() && self.goal.consistent_at.is_none() {
                return Err(paused_short(process, state));
            }
            let replayed = state.replayed.unwrap_or(Lsn(0));
            self.check(process, replayed, PAUSED)?;
            return Ok(Some(started(ServerState::Paused, Some(replayed))));
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
        match recovery_settings::run(self.directory.path()) {
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

    /// Whether a position is the one that was wanted.
    fn check(&self, process: &ServerProcess, at: Lsn, did: &str) -> Result<(), Error> {
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
            .detail(process.tail())
            .hint("it runs still; its log says why, such as settings that are lower than on the primary"))
    }

    /// The server ended by itself: at the target, or before it.
    fn ended(&self, process: &ServerProcess, status: ExitStatus) -> Result<StartedServer, Error> {
        if status.success()
            && self.goal.action != TargetAction::Promote
            && !self.goal.standby
            && (self.goal.stop.is_some() || self.goal.consistent_at.is_some())
        {
            let replayed = self.replayed_before_shutdown()?;
            if let Some(replayed) = replayed {
                self.check(process, replayed, "shut down")?;
            }
            return Ok(StartedServer { pid: None, ..self.started(process, ServerState::ShutDown, replayed) });
        }
        Err(server_error(format!("the server ended ({status}) before it reached the target"))
            .detail(process.tail())
            .hint("the restored directory is complete: remove the cause and start the server; recovery goes on where it was"))
    }

    /// Up to where a server that was shut down in recovery had replayed.
    fn replayed_before_shutdown(&self) -> Result<Option<Lsn>, Error> {
        let control = control_file::control_of(self.directory.path(), &self.deadline)?.map(|(control, _)| control);
        let control = control.filter(|control| control.state == ClusterState::ShutDownInRecovery);
        Ok(control.map(|control| control.min_recovery_point).filter(|lsn| lsn.0 > 0))
    }
}

/// What queries wait for. A server that does not tell is no reason to fail: it is where it should be.
fn locked(process: &ServerProcess, server: &Server) -> Vec<Locked> {
    match process.locked_relations(server) {
        Ok(relations) => {
            relations.into_iter().map(|locked| Locked { database: locked.database, relation: locked.relation }).collect()
        }
        Err(e) => {
            tracing::warn!("whether tables are locked at the target is not known: {e}");
            Vec::new()
        }
    }
}

/// A pause that nobody asked for: settings that are lower than on the primary.
fn paused_short(process: &ServerProcess, state: &RecoveryState) -> Error {
    let at = state.replayed.map_or_else(|| "an unknown position".to_owned(), |at| at.to_string());
    server_error(format!("the server has paused at {at}, which is not the target"))
        .detail(process.tail())
        .hint("it runs still; its log says which settings are lower than on the primary: raise them and restart it")
}
