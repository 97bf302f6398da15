//! `walvis verify`: whether what is stored is all there and right. `docs/VERIFICATION.md` has the design.

use std::time::{Duration, Instant};

use crate::config::{Config, Retention};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::limits::MIB;
use crate::pg::scan::PgTime;
use crate::pg::target::now;
use crate::report::verify::{VerificationKind, VerifyReport};
use crate::repositories::{none_configured, open};
use crate::verify::{self, Hooks, Mode, Window, answer};

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct VerifyRequest {
    /// What is looked at.
    pub kind: VerificationKind,
    /// How many threads read; `None`: two for each core.
    pub jobs: Option<usize>,
    /// How much may be read in a second.
    pub max_rate_mib_per_s: Option<u64>,
}

/// Verifies the cluster in every repository.
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
        let since = Instant::now();
        let repository = open(settings, deadline)?;
        let asked = verify::VerifyRequest {
            mode: match request.kind {
                VerificationKind::Quick => Mode::Quick,
                VerificationKind::Full => Mode::Full,
            },
            jobs: request.jobs.unwrap_or_else(verify::VerifyRequest::default_jobs),
            max_bytes_per_s: request.max_rate_mib_per_s.map(|mib| mib.saturating_mul(MIB as u64)),
            window: window(&settings.retention),
        };
        let verified = verify::verify(&repository, cluster, &asked, hooks)?;
        reports.push(answer((repository.location(), &cluster.to_string()), request.kind, &verified, since.elapsed()));
    }
    Ok(reports)
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
    let matter: u64 = reports.iter().map(|report| report.damages_that_matter).sum();
    (matter > 0).then(|| {
        Error::new(Kind::Problems, format!("verify found damage that matters, in {matter} places")).hint(
            "it is listed above with what it costs: repair it from another copy of the repository, and take a base backup where there \
             is none",
        )
    })
}
