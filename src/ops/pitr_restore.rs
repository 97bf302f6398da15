//! `walvis pitr-restore`: a base backup put in place, and the server told to recover it to a target. `docs/BACKUP.md`
//! has the steps.

use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::recovery::{self, Answer};
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
/// Of kind `Target` when the target is out of reach; `Refused` when the directory may not be taken; `Damaged` when what
/// is stored is; `Server` when the server does not reach the target; others. What is begun and not finished cannot be
/// started, and the same command goes on with it.
pub fn run(config: &Config, request: &RestoreRequest, deadline: Deadline, on_plan: OnPlan<'_>) -> Result<RestoreReport, Error> {
    let answer = recovery::choose(config, &request.target, deadline)?;
    repositories::refuse_writable_by_everybody(&answer.repository)?;
    if let Some(error) = answer.report.refusal() {
        on_plan(&PlanReport { resolve: answer.report, restore: None })?;
        return Err(error);
    }
    let summary = answer.backup(&config.cluster)?;
    let Answer { repository, facts, report: resolved } = answer;
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
            let goal = Goal::of(&plan.resolve, request, &summary);
            let settings = job.arrangement.as_ref().and_then(|arrangement| arrangement.main.as_deref());
            let needs = Needs::of(config, request.primary.is_some());
            Some(start::start(&directory, programs, settings, needs, &goal, &deadline)?)
        }
        None => None,
    };
    Ok(RestoreReport { plan, restored: Some(restored), server })
}
