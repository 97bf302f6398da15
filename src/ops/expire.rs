//! `walvis expire`: what the rules of each repository keep of the cluster, and what may go. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::pg::target::now;
use crate::report::expire::ExpireReport;
use crate::repositories::{none_configured, open};
use crate::retention::plan::{Hooks, PlanRequest, no_rules, pinned, plan};
use crate::retention::report::report;

/// Plans for every repository that has rules.
///
/// # Errors
/// [`Kind::Refused`](crate::error::Kind::Refused) when no repository has rules, or something looks wrong in one; the
/// first one's that cannot be opened; as [`plan`].
pub fn run(config: &Config, deadline: Deadline, hooks: Hooks<'_>) -> Result<Vec<ExpireReport>, Error> {
    let first = config.repositories.first().ok_or_else(none_configured)?;
    if config.repositories.iter().all(|settings| !settings.retention.has_rules()) {
        return Err(no_rules(&first.store.location()));
    }
    let mut reports = Vec::new();
    for settings in &config.repositories {
        let rules = &settings.retention;
        if !rules.has_rules() {
            tracing::info!("{} has no rules of retention: all of it is kept", settings.store.location());
            continue;
        }
        let repository = open(settings, deadline)?;
        let (cluster, now) = (&config.cluster, now());
        let pins = pinned(&repository, cluster, now)?;
        let (give_up, gone) = (BTreeSet::new(), BTreeMap::new());
        let request =
            PlanRequest { repository: &repository, cluster, rules, pins: &pins, give_up: &give_up, gone: &gone, now, hooks };
        let plan = plan(&request)?;
        reports.push(report(&repository, cluster, rules, plan));
    }
    Ok(reports)
}
