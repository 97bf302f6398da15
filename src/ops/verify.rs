//! `walvis verify`: whether what is stored is all there and right. `docs/VERIFICATION.md` has the design.

use std::time::Duration;

use crate::config::{Config, RepositoryConfig, Retention, show_period};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::limits::{MIB, VERIFY_KEEPS_EVERY};
use crate::pg::scan::PgTime;
use crate::pg::target::now;
use crate::repo::{KeySource, Repository};
use crate::report::verify::VerifyReport;
use crate::repositories::{none_configured, open};
use crate::verify::{self, Hooks, Look, SessionRequest, Window, answer, session};

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct VerifyRequest {
    /// What is looked at.
    pub look: Look,
    /// How many threads read; `None`: two for each core.
    pub jobs: Option<usize>,
    /// How much may be read in a second.
    pub max_rate_mib_per_s: Option<u64>,
}

/// What came of it.
#[derive(Debug)]
pub struct Answer {
    /// Of each repository that was looked at, as far as that went.
    pub reports: Vec<VerifyReport>,
    /// What ended it before its end.
    pub ended_by: Option<Error>,
}

/// Verifies the cluster in every repository, and remembers there what was read. With a repository to repair from,
/// brings back from there what is damaged or missing in the others.
///
/// # Errors
/// [`Kind::Usage`] when evidence is kept for less than the period of a rolling verification; [`Kind::Config`]: no
/// repository is configured; [`Kind::Refused`]: one is to be repaired from itself; as the one that is to be repaired
/// from. What goes wrong with a repository that is verified is in the answer: nothing is stored of the cluster,
/// unreachable, denied; as `go_on`'s. Damage is no error: it is in the report.
pub fn run(
    config: &Config,
    request: &VerifyRequest,
    repair_from: Option<&RepositoryConfig>,
    deadline: Deadline,
    hooks: &Hooks<'_>,
) -> Result<Answer, Error> {
    if config.repositories.is_empty() {
        return Err(none_configured());
    }
    let source = repair_from.map(|settings| open_source(config, settings, deadline)).transpose()?;
    let is_source =
        |settings: &RepositoryConfig| repair_from.is_some_and(|from| from.store.location() == settings.store.location());
    let targets: Vec<&RepositoryConfig> = config.repositories.iter().filter(|settings| !is_source(settings)).collect();
    if let (Some(source), true) = (&source, targets.is_empty()) {
        return Err(Error::new(Kind::Refused, format!("{} cannot be repaired from itself", source.location())).hint(
            "name the repository that is damaged with --repository, and another one, or a copy of it, with --repair-from",
        ));
    }
    if let Look::Rolling(period) = request.look {
        targets.iter().try_for_each(|settings| remembers_for(settings, period))?;
    }
    let mut answer = Answer { reports: Vec::new(), ended_by: None };
    for settings in targets {
        match one(config, settings, request, source.as_ref(), deadline, hooks) {
            Ok((report, ended_by)) => {
                answer.reports.push(report);
                answer.ended_by = ended_by;
            }
            Err(error) => answer.ended_by = Some(error),
        }
        if answer.ended_by.is_some() {
            break;
        }
    }
    Ok(answer)
}

/// Refuses a rolling verification of which `expire` forgets what was read before all of it was.
fn remembers_for(settings: &RepositoryConfig, period: Duration) -> Result<(), Error> {
    let Some(within) = settings.retention.evidence_within.filter(|within| *within < period) else { return Ok(()) };
    let (location, within, period) = (settings.store.location(), show_period(within), show_period(period));
    Err(Error::new(
        Kind::Usage,
        format!(
            "--rolling {period} reads every byte once in that time, and the settings of {location} forget after {within} what was \
             read (evidence.keep_within): the same would be read again and again"
        ),
    )
    .hint(format!("set keep_within of repository.retention.evidence to {period} or more, or give --rolling {within} or less")))
}

/// Verifies the cluster in one repository; answers also what ended that before its end.
fn one(
    config: &Config,
    settings: &RepositoryConfig,
    request: &VerifyRequest,
    source: Option<&Repository>,
    deadline: Deadline,
    hooks: &Hooks<'_>,
) -> Result<(VerifyReport, Option<Error>), Error> {
    let repository = open(settings, deadline)?;
    let asked = SessionRequest {
        look: request.look,
        jobs: request.jobs.unwrap_or_else(verify::VerifyRequest::default_jobs),
        max_bytes_per_s: request.max_rate_mib_per_s.map(|mib| mib.saturating_mul(MIB as u64)),
        window: window(&settings.retention),
        source,
        keep_every: VERIFY_KEEPS_EVERY,
    };
    let session = session(&repository, &config.cluster, &asked, hooks)?;
    Ok((answer(&repository, &config.cluster, &asked, &session), session.ended_by))
}

/// Opens the repository that good copies come from. Where its settings name no key and it needs one, that of a
/// configured repository is tried: a copy has the same.
fn open_source(config: &Config, settings: &RepositoryConfig, deadline: Deadline) -> Result<Repository, Error> {
    let error = match open(settings, deadline) {
        Err(error) if error.kind == Kind::Config && settings.key == KeySource::None => error,
        opened => return opened,
    };
    for other in config.repositories.iter().filter(|other| other.key != KeySource::None) {
        match open(&RepositoryConfig { key: other.key.clone(), ..settings.clone() }, deadline) {
            Err(wrong) if matches!(wrong.kind, Kind::Denied | Kind::Config | Kind::Refused) => {}
            opened => return opened,
        }
    }
    Err(error)
}

/// What the rules of a repository need.
fn window(rules: &Retention) -> Window {
    if !rules.has_rules() {
        return Window::Everything;
    }
    let before = |window: Duration| {
        let us = i64::try_from(window.as_micros()).unwrap_or(i64::MAX);
        PgTime(now().0.saturating_sub(us))
    };
    Window::Rules { since: rules.recovery_window.map(before) }
}

/// What a command ends with when something is wrong that matters.
pub fn problems(reports: &[VerifyReport]) -> Option<Error> {
    let matter: u64 = reports.iter().map(|report| report.findings_that_matter).sum();
    (matter > 0).then(|| {
        Error::new(Kind::Problems, format!("verify found damage that matters, in {matter} places")).hint(
            "it is listed above with what it costs: repair it from another copy of the repository, and take a base backup where there \
             is none",
        )
    })
}
