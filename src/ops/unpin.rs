//! `walvis unpin`: takes the pins of a base backup away, so that the rules of retention alone decide about it.

use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::report::pin::UnpinReport;
use crate::repositories;

/// Unpins the backup in every repository that has it, or a pin of it.
///
/// # Errors
/// [`Kind::Target`] when none has either; as [`Repository::unpin`](crate::repo::Repository::unpin).
pub fn run(config: &Config, backup: BackupId, deadline: Deadline) -> Result<Vec<UnpinReport>, Error> {
    let cluster = &config.cluster;
    let mut reports = Vec::new();
    repositories::every(config, deadline, &mut |repository| {
        for facts in repository.systems(cluster)? {
            let was_pinned = repository.unpin(cluster, facts.system_id, backup)?;
            if was_pinned || repository.has_backup(cluster, facts.system_id, backup)? {
                reports.push(UnpinReport {
                    repository: repository.location().to_owned(),
                    cluster: cluster.to_string(),
                    system_id: facts.system_id.to_string(),
                    backup_id: backup.to_string(),
                    was_pinned,
                });
            }
        }
        Ok(())
    })?;
    if reports.is_empty() {
        return Err(Error::new(Kind::Target, format!("there is no backup {backup} of cluster {cluster}"))
            .hint("'walvis list' shows the backups and their pins; is --cluster the right one?"));
    }
    Ok(reports)
}
