//! `walvis expire`: what the rules of each repository keep of the cluster, and what may go. Only `--confirm` changes
//! anything.

use std::collections::BTreeSet;

use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::pg::target::now;
use crate::report::expire::ExpireReport;
use crate::repositories::{none_configured, open};
use crate::retention::execute::{ExpireRequest, Watch, execute, preview};
use crate::retention::plan::{Hooks, no_rules};
use crate::retention::report::{executed, previewed};

/// What is asked.
#[derive(Debug, Default)]
pub struct ExpireOptions {
    /// Whether to do it.
    pub confirm: bool,
    /// Whether versions go that the store keeps of what is deleted.
    pub purge_versions: bool,
    /// Backups that may go although nobody knows what they need, or although they may still be under way.
    pub give_up: BTreeSet<BackupId>,
}

/// What came of it.
#[derive(Debug)]
pub struct Answer {
    /// Of each repository that has rules.
    pub reports: Vec<ExpireReport>,
    /// What the command ends with where something could not be deleted.
    pub denied: Option<Error>,
}

/// Plans for every repository that has rules, and does it if that is asked for.
///
/// # Errors
/// [`Kind::Refused`] when no repository has rules, or something looks wrong in one; [`Kind::Usage`] when a backup is to
/// be given up and several repositories have rules; the first one's that cannot be opened; as [`preview`] and
/// [`execute`].
pub fn run(
    config: &Config,
    options: &ExpireOptions,
    deadline: Deadline,
    hooks: Hooks<'_>,
    watch: Watch<'_>,
) -> Result<Answer, Error> {
    let first = config.repositories.first().ok_or_else(none_configured)?;
    let with_rules = config.repositories.iter().filter(|settings| settings.retention.has_rules()).count();
    if with_rules == 0 {
        return Err(no_rules(&first.store.location()));
    }
    if with_rules > 1 && !options.give_up.is_empty() {
        return Err(Error::new(Kind::Usage, "several repositories have rules, and --give-up is about a backup of one")
            .hint("name it: --repository URL"));
    }
    let mut answer = Answer { reports: Vec::new(), denied: None };
    for settings in &config.repositories {
        let rules = &settings.retention;
        if !rules.has_rules() {
            tracing::info!("{} has no rules of retention: all of it is kept", settings.store.location());
            continue;
        }
        let repository = open(settings, deadline)?;
        let request = ExpireRequest {
            repository: &repository,
            cluster: &config.cluster,
            rules,
            give_up: &options.give_up,
            purge_versions: options.purge_versions,
            now: &now,
            hooks,
            watch,
        };
        if !options.confirm {
            answer.reports.push(previewed(&request, preview(&request)?));
            continue;
        }
        let done = execute(&request)?;
        answer.denied = answer.denied.or_else(|| done.denied(repository.location()));
        answer.reports.push(executed(&request, done));
    }
    Ok(answer)
}
