//! `walvis verify`: whether what is stored is all there and right. `docs/VERIFICATION.md` has the design.

use std::time::{Duration, Instant};

use crate::config::{Config, Retention};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::limits::MIB;
use crate::pg::scan::PgTime;
use crate::pg::target::now;
use crate::repo::{Repository, VerificationMode};
use crate::report::verify::VerifyReport;
use crate::repositories::{none_configured, open};
use crate::verify::{self, Hooks, Memory, Mode, Occasion, Shares, Verified, Window, answer};

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

/// Verifies the cluster in every repository, and remembers there what was read.
///
/// # Errors
/// [`Kind::Config`]: nothing is stored of the cluster; unreachable, denied; as `go_on`'s. Damage is no error here: it
/// is in the report.
pub fn run(config: &Config, request: &VerifyRequest, deadline: Deadline, hooks: &Hooks<'_>) -> Result<Vec<VerifyReport>, Error> {
    if config.repositories.is_empty() {
        return Err(none_configured());
    }
    let cluster = &config.cluster;
    let mut reports = Vec::new();
    for settings in &config.repositories {
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
        let mut verified = look(config, &repository, request, shares.as_ref(), window(&settings.retention), hooks)?;
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
        reports.push(answer((repository.location(), &cluster.to_string()), mode.into(), &verified, since.elapsed()));
    }
    Ok(reports)
}

/// Looks. Where a rolling verification has nothing to read now, there is nothing to look at.
fn look(
    config: &Config,
    repository: &Repository,
    request: &VerifyRequest,
    shares: Option<&Shares>,
    window: Window,
    hooks: &Hooks<'_>,
) -> Result<Verified, Error> {
    let mode = match (request.look, shares) {
        (Look::Quick, _) => Mode::Quick,
        (Look::Rolling(_), Some(shares)) if shares.due_bytes() == 0 => return Ok(Verified::default()),
        (Look::Rolling(_), Some(shares)) => Mode::Selected(&shares.objects),
        (Look::Full | Look::Rolling(_), _) => Mode::Full,
    };
    let asked = verify::VerifyRequest {
        mode,
        jobs: request.jobs.unwrap_or_else(verify::VerifyRequest::default_jobs),
        max_bytes_per_s: request.max_rate_mib_per_s.map(|mib| mib.saturating_mul(MIB as u64)),
        window,
    };
    verify::verify(repository, &config.cluster, &asked, hooks)
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
