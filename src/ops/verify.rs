//! `walvis verify`: whether what is stored is all there and right. `docs/VERIFICATION.md` has the design.

use std::time::{Duration, Instant};

use crate::config::{Config, RepositoryConfig, Retention, show_period};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::limits::MIB;
use crate::pg::scan::PgTime;
use crate::pg::target::now;
use crate::repo::{KeySource, Repository, VerificationMode};
use crate::report::verify::VerifyReport;
use crate::repositories::{none_configured, open};
use crate::verify::repair::{RepairSource, remove_needless_copies};
use crate::verify::{
    self, Hooks, Memory, Mode, Occasion, RepairRun, Shares, Verified, Window, answer, repair_answer, repair_found,
};

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Listings, heads of manifests, nodes of the catalog.
    Quick,
    /// Every byte.
    Full,
    /// So much that every byte is read once in this time.
    Rolling(Duration),
}

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

/// Verifies the cluster in every repository, and remembers there what was read. With a repository to repair from,
/// brings back from there what is damaged or missing in the others.
///
/// # Errors
/// [`Kind::Usage`] when evidence is kept for less than the period of a rolling verification; [`Kind::Config`]: nothing
/// is stored of the cluster; unreachable, denied; as `go_on`'s. Damage is no error here: it
/// is in the report.
pub fn run(
    config: &Config,
    request: &VerifyRequest,
    repair_from: Option<&RepositoryConfig>,
    deadline: Deadline,
    hooks: &Hooks<'_>,
) -> Result<Vec<VerifyReport>, Error> {
    if config.repositories.is_empty() {
        return Err(none_configured());
    }
    let cluster = &config.cluster;
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
    let mut reports = Vec::new();
    for settings in targets {
        let (began, since) = (jiff::Timestamp::now(), Instant::now());
        let repository = open(settings, deadline)?;
        let mut memory = Memory::of(&repository, cluster)?;
        let (mode, period) = match request.look {
            Look::Quick => (VerificationMode::Quick, None),
            Look::Full => (VerificationMode::Full, None),
            Look::Rolling(period) => (VerificationMode::Rolling, Some(period)),
        };
        let shares = match period {
            Some(period) => Some(memory.shares(&repository, cluster, period, began.as_second())?),
            None => None,
        };
        let asked = asked(request, shares.as_ref(), window(&settings.retention));
        let mut verified = match &asked {
            Some(asked) => verify::verify(&repository, cluster, asked, hooks)?,
            None => Verified::default(),
        };
        let mut repaired = None;
        if let (Some(source), Some(asked), false) = (&source, &asked, verified.is_interrupted) {
            let from = RepairSource::new(&repository, source);
            let run: RepairRun = repair_found((&repository, cluster), &from, asked, hooks, &mut verified)?;
            remove_needless_copies(&repository, hooks.go_on)?;
            repaired = Some(repair_answer(source.location(), &run));
        }
        verified.add_evidence_problems(memory.problems());
        let occasion = Occasion {
            mode,
            period,
            began_unix_us: began.as_microsecond(),
            took: since.elapsed(),
            interrupted: verified.is_interrupted,
        };
        match memory.write(&repository, cluster, &occasion, shares.as_ref(), &verified) {
            Ok(_) => {}
            // What was found is as good without.
            Err(error) if error.kind == Kind::Denied => {
                tracing::warn!("nothing will be remembered of this verification: {error}")
            }
            Err(error) => return Err(error),
        }
        if verified.is_interrupted {
            (hooks.go_on)()?;
        }
        let mut report = answer((repository.location(), &cluster.to_string()), mode.into(), &verified, since.elapsed());
        report.repair = repaired;
        reports.push(report);
    }
    Ok(reports)
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

/// What is looked at; `None` where a rolling verification has nothing to read now.
fn asked<'s>(request: &VerifyRequest, shares: Option<&'s Shares>, window: Window) -> Option<verify::VerifyRequest<'s>> {
    let mode = match (request.look, shares) {
        (Look::Quick, _) => Mode::Quick,
        (Look::Rolling(_), Some(shares)) if shares.due_bytes() == 0 => return None,
        (Look::Rolling(_), Some(shares)) => Mode::Selected(&shares.objects),
        (Look::Full | Look::Rolling(_), _) => Mode::Full,
    };
    Some(verify::VerifyRequest {
        mode,
        jobs: request.jobs.unwrap_or_else(verify::VerifyRequest::default_jobs),
        max_bytes_per_s: request.max_rate_mib_per_s.map(|mib| mib.saturating_mul(MIB as u64)),
        window,
    })
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
