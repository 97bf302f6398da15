//! What a repository keeps: from what somebody set to checked rules.
//!
//! Lives here: the values of `[repository.retention]`. May not live here: which backups a rule keeps (`retention`).
//! Depends on `definitions`, `invalid` and `values`.

use std::time::Duration;

use super::definitions::{
    EVIDENCE_WITHIN, RETENTION_DAILY, RETENTION_GRACE, RETENTION_LAST, RETENTION_MONTHLY, RETENTION_WEEKLY, RETENTION_WINDOW,
    RETENTION_WITHIN, RETENTION_YEARLY, RETENTION_ZONE,
};
use super::invalid::config_error;
use super::setting::Setting;
use super::values::{OfRepository, show_period};
use crate::error::Error;
use crate::limits::DEFAULT_GRACE;
use crate::pg::target::Zone;

/// What a repository keeps. A backup is kept if any of these rules keeps it; `docs/RETENTION.md` says what each means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// How far back every moment stays reachable.
    pub recovery_window: Option<Duration>,
    /// How many of the newest good backups.
    pub keep_last: Option<u32>,
    /// Every backup that began so lately.
    pub keep_within: Option<Duration>,
    /// The newest good backup of so many days that have one.
    pub keep_daily: Option<u32>,
    /// The same of weeks from Monday.
    pub keep_weekly: Option<u32>,
    /// The same of months.
    pub keep_monthly: Option<u32>,
    /// The same of years.
    pub keep_yearly: Option<u32>,
    /// Where days begin.
    pub zone: Zone,
    /// Between naming what goes and deleting it.
    pub grace: Duration,
    /// How long evidence of verifications is kept; `None`: for good.
    pub evidence_within: Option<Duration>,
}

impl Default for Retention {
    /// No rules.
    fn default() -> Self {
        Self {
            recovery_window: None,
            keep_last: None,
            keep_within: None,
            keep_daily: None,
            keep_weekly: None,
            keep_monthly: None,
            keep_yearly: None,
            zone: Zone::utc(),
            grace: DEFAULT_GRACE,
            evidence_within: None,
        }
    }
}

impl Retention {
    /// Whether anything says what is kept. Without that nothing is ever deleted.
    pub fn has_rules(&self) -> bool {
        let periods = [self.recovery_window, self.keep_within];
        let counts = [self.keep_last, self.keep_daily, self.keep_weekly, self.keep_monthly, self.keep_yearly];
        periods.iter().any(Option::is_some) || counts.iter().any(Option::is_some)
    }

    /// What counts, as it would stand in the settings file.
    pub fn said(&self) -> Vec<(&'static str, String)> {
        let count = |setting: &'static Setting, number: Option<u32>| number.map(|number| (setting.name, number.to_string()));
        let period = |setting: &'static Setting, period: Option<Duration>| period.map(|p| (setting.name, show_period(p)));
        [
            period(&RETENTION_WINDOW, self.recovery_window),
            count(&RETENTION_LAST, self.keep_last),
            period(&RETENTION_WITHIN, self.keep_within),
            count(&RETENTION_DAILY, self.keep_daily),
            count(&RETENTION_WEEKLY, self.keep_weekly),
            count(&RETENTION_MONTHLY, self.keep_monthly),
            count(&RETENTION_YEARLY, self.keep_yearly),
            Some((RETENTION_ZONE.name, self.zone.to_string())),
            period(&RETENTION_GRACE, Some(self.grace)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Checks the rules of a repository.
pub(super) fn check(of_url: &OfRepository<'_>) -> Result<Retention, Error> {
    let count = |setting: &Setting| match of_url.whole(setting)? {
        Some(number) => u32::try_from(number).map(Some).map_err(|_| of_url.wrong(setting, number)),
        None => Ok(None),
    };
    let zone = match of_url.given.text(&RETENTION_ZONE) {
        Some(text) => Zone::parse(text)
            .map_err(|e| config_error(format!("zone of the retention of {}: {}", of_url.url, e.what)).hint(e.hint))?,
        None => Zone::utc(),
    };
    Ok(Retention {
        recovery_window: of_url.period(&RETENTION_WINDOW)?,
        keep_last: count(&RETENTION_LAST)?,
        keep_within: of_url.period(&RETENTION_WITHIN)?,
        keep_daily: count(&RETENTION_DAILY)?,
        keep_weekly: count(&RETENTION_WEEKLY)?,
        keep_monthly: count(&RETENTION_MONTHLY)?,
        keep_yearly: count(&RETENTION_YEARLY)?,
        zone,
        grace: of_url.period(&RETENTION_GRACE)?.unwrap_or(DEFAULT_GRACE),
        evidence_within: of_url.period(&EVIDENCE_WITHIN)?,
    })
}
