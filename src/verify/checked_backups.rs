//! Since when all objects of each backup are verified: what evidence says of it, so that `list` need not look at every
//! pack.

use crate::error::{Error, Kind};
use crate::limits::CATALOG_READERS;
use crate::repo::backups::BackupReferences;
use crate::repo::{CheckedBackup, ClusterName, Facts, LastChecked, Repository, Verified};
use crate::threads::at_once;

/// The backups of which every object was read, oldest first. One whose manifest cannot be read is none of them.
///
/// # Errors
/// Unreachable, denied.
pub fn checked_backups(
    repository: &Repository,
    cluster: &ClusterName,
    facts: Facts,
    checked: &LastChecked,
) -> Result<Vec<CheckedBackup>, Error> {
    let mut backups = Vec::new();
    // Without a look at the manifest there is no need to read it.
    let mut ids = repository.backup_ids(cluster, facts.system_id)?;
    ids.retain(|id| checked.manifest(*id).is_some());
    for some in ids.chunks(CATALOG_READERS) {
        let read = at_once(some, CATALOG_READERS, |id| {
            let read = repository.read_manifest_head(cluster, facts.system_id, *id)?;
            Ok(read.map(|(summary, head)| checked.backup(&BackupReferences::of(&summary, &head), facts.wal_segment_size)))
        });
        for (id, read) in some.iter().zip(read) {
            match read {
                Ok(Some(Verified { unverified: 0, after_unix_s: Some(after_unix_s), damaged, .. })) => {
                    backups.push(CheckedBackup { backup_id: *id, after_unix_s, damaged });
                }
                Ok(_) => {}
                Err(error) if error.kind == Kind::Damaged => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(backups)
}
