//! An inspected WAL file into one repository.
//!
//! Lives here: the steps for one file and one repository: bind the cluster's name, store the file, bring the catalog up
//! to date. May not live here: several repositories ([`deliver_to_all`](crate::wal::deliver_to_all)).

use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::fsio;
use crate::limits::CATALOG_TIMEOUT;
use crate::pg::{SegmentName, WalFileName};
use crate::repo::{ClusterName, Content, Facts, Kept, Repository, Stored, StoredName};
use crate::threads::within;
use crate::wal::inspect::InspectedFile;
use std::sync::Arc;

/// Delivers a file to an opened repository: once this returns, it is stored durably. `once_bound` is called when the
/// cluster's name is bound, before the file is sent.
///
/// # Errors
/// [`Kind::Refused`]: the name is bound to another cluster; as [`store`].
pub fn deliver(
    opened: &Arc<Repository>,
    cluster: &ClusterName,
    file: &InspectedFile,
    once_bound: &dyn Fn(),
    deadline: Deadline,
) -> Result<Kept, Error> {
    opened.bind(cluster, file.facts)?;
    once_bound();
    let kept = store(opened, cluster, file)?;
    if let Some(warning) = warning_of(&kept, opened.location()) {
        tracing::warn!("{warning}");
    }
    if let WalFileName::Segment(segment) = file.name {
        update_catalog(opened, cluster, file.facts, segment, deadline);
    }
    Ok(kept)
}

/// Stores a file in an opened repository whose binding was checked.
///
/// # Errors
/// [`Kind::Conflict`]: other content is stored under its name; as the store's.
pub fn store(opened: &Repository, cluster: &ClusterName, file: &InspectedFile) -> Result<Kept, Error> {
    let content = Content::known(file.digest, || Box::new(fsio::reader(&file.file)))
        .with_summary(file.wal_summary.clone())
        .with_changes(file.wal_changes.clone())
        .with_compressed(&file.compressed);
    opened.put_wal(cluster, file.facts.system_id, &file.name, &content)
}

/// The warning for a file that is stored beside other content of its name; `None` for every other.
pub fn warning_of(kept: &Kept, location: &str) -> Option<String> {
    let StoredName { file, copy } = kept.name;
    (copy > 1 && kept.stored == Stored::New).then(|| {
        let name = kept.name;
        format!("{file} in {location} has other content, or is damaged; this one is kept beside it as {name}: recovery asks for neither")
    })
}

/// Writes the nodes of the catalog that a stored segment completes. Whatever goes wrong there is no reason to say that
/// the segment was not archived: it is logged, and left for the next writer.
pub fn update_catalog(opened: &Arc<Repository>, cluster: &ClusterName, facts: Facts, segment: SegmentName, deadline: Deadline) {
    let (writer, name) = (Arc::clone(opened), cluster.clone());
    let limit = CATALOG_TIMEOUT.min(deadline.remaining() / 2);
    let error = match within(limit, move || writer.write_nodes_after(&name, facts, segment)) {
        Ok(Some(Ok(_))) => return,
        Ok(Some(Err(error))) | Err(error) => error,
        Ok(None) => Error::new(Kind::Unreachable, "it takes too long"),
    };
    let location = opened.location();
    tracing::warn!(
        "{segment} is stored in {location}, but the catalog could not be brought up to date: {error}{}",
        error.hint_in_brackets()
    );
}
