//! `walvis pitr-restore`: a base backup put in place, and the server told to recover it to a target. `docs/BACKUP.md` has the steps.

use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::format::manifest::BackupSummary;
use crate::pg::Timeline;
use crate::pg::target::Target;
use crate::recovery::{self, Answer};
use crate::report::resolve::ResolveReport;
use crate::report::restore::{PlanReport, RestoreReport};
use crate::repositories;
use crate::restore::environment::Needs;
use crate::restore::files::Source;
use crate::restore::job::Job;
use crate::restore::request::RestoreRequest;
use crate::restore::start::{self, Goal};

/// Is shown the plan before anything is done.
pub type OnPlan<'a> = &'a mut dyn FnMut(&PlanReport) -> Result<(), Error>;

/// Restores.
///
/// # Errors
/// [`Kind::Target`] when the target is out of reach; [`Kind::Refused`] when the directory may not be taken; [`Kind::Damaged`] when
/// what is stored is; [`Kind::Server`] when the server does not reach the target; others. What is begun and not finished cannot be
/// started, and the same command goes on with it.
pub fn run(config: &Config, request: &RestoreRequest, deadline: Deadline, on_plan: OnPlan<'_>) -> Result<RestoreReport, Error> {
    let Answer { repository, facts, report: resolved } = recovery::choose(config, &request.target, deadline)?;
    repositories::refuse_writable_by_everybody(&repository)?;
    if let Some(error) = resolved.refusal() {
        on_plan(&PlanReport { resolve: resolved, restore: None })?;
        return Err(error);
    }
    let chosen = resolved.backup.as_ref().and_then(|backup| backup.backup_id.as_deref()).and_then(BackupId::parse);
    let id = chosen.ok_or_else(|| Error::new(Kind::Bug, "a target is reached from no backup"))?;
    let summary = repository
        .backup_summary(&config.cluster, facts.system_id, id)?
        .ok_or_else(|| Error::new(Kind::Target, format!("backup {id} is gone")).hint("try again to have another one chosen"))?;
    let source = Source { repository: &repository, cluster: &config.cluster, system_id: facts.system_id, summary: &summary };
    let job = Job::prepare(source, facts, request, &resolved, deadline)?;
    let plan = PlanReport { restore: Some(job.plan()?), resolve: resolved };
    on_plan(&plan)?;
    if request.plan {
        return Ok(RestoreReport { plan, restored: None, server: None });
    }
    let (restored, directory) = job.restore()?;
    let server = match &job.programs {
        Some(programs) => {
            let goal = goal(&plan.resolve, request, &summary);
            let settings = job.arrangement.as_ref().and_then(|arrangement| arrangement.main.as_deref());
            let needs = Needs::of(config, request.primary.is_some());
            Some(start::start(&directory, programs, settings, needs, &goal, &deadline)?)
        }
        None => None,
    };
    Ok(RestoreReport { plan, restored: Some(restored), server })
}

fn goal(resolved: &ResolveReport, request: &RestoreRequest, summary: &BackupSummary) -> Goal {
    let is_immediate = request.target.target == Target::Immediate;
    let stop = resolved.stop.as_ref().and_then(|stop| Some((stop.lsn.parse().ok()?, stop.replayed)));
    let whole = Goal {
        stop,
        consistent_at: is_immediate.then_some(summary.stop_lsn),
        end: resolved.end_lsn.as_ref().and_then(|end| end.parse().ok()),
        timeline: Timeline(resolved.timeline),
        action: request.action_at(resolved),
        standby: false,
    };
    if request.standby {
        return Goal { stop: None, consistent_at: Some(summary.stop_lsn), standby: true, ..whole };
    }
    whole
}
