//! `walvis pin`: keeps a base backup, whatever the rules of retention say. `docs/RETENTION.md` says why a pin holds.

use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::report::pin::{PinReport, PinnedUntil};
use crate::repositories;

/// What is asked.
#[derive(Debug)]
pub struct PinRequest {
    /// The backup.
    pub backup: BackupId,
    /// Why it is kept.
    pub reason: String,
    /// Until when, in Unix seconds; `None`: until `unpin`.
    pub until_unix_s: Option<i64>,
}

/// Pins the backup in every repository that has it.
///
/// # Errors
/// [`Kind::Target`] when none has it; [`Kind::Refused`] when it is being deleted in one: where it was pinned before, it
/// stays pinned; as [`Repository::pin`](crate::repo::Repository::pin).
pub fn run(config: &Config, request: &PinRequest, deadline: Deadline) -> Result<Vec<PinReport>, Error> {
    let (cluster, backup) = (&config.cluster, request.backup);
    let mut reports = Vec::new();
    let mut refused = Vec::new();
    repositories::every(config, deadline, &mut |repository| {
        for facts in repository.systems(cluster)? {
            if !repository.has_backup(cluster, facts.system_id, backup)? {
                continue;
            }
            match repository.pin(cluster, facts.system_id, backup, &request.reason, request.until_unix_s) {
                Ok(pin) => reports.push(PinReport {
                    repository: repository.location().to_owned(),
                    cluster: cluster.to_string(),
                    system_id: facts.system_id.to_string(),
                    backup_id: backup.to_string(),
                    pin: PinnedUntil::of(&pin),
                }),
                // Another repository may keep it all the same.
                Err(error) if error.kind == Kind::Refused => refused.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    })?;
    let pinned: Vec<&str> = reports.iter().map(|report| report.repository.as_str()).collect();
    let pinned = if pinned.is_empty() { String::new() } else { format!("; it is pinned in {}", pinned.join(", ")) };
    match Error::from_several(refused) {
        Some(mut error) => {
            error.what.push_str(&pinned);
            Err(error)
        }
        None if reports.is_empty() => Err(Error::new(Kind::Target, format!("there is no backup {backup} of cluster {cluster}"))
            .hint("'walvis list' shows the backups; is --cluster the right one?")),
        None => Ok(reports),
    }
}
