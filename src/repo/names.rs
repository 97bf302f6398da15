//! Names of objects, as listed in `docs/FORMAT.md`.

use std::fmt;

use crate::error::{Error, Kind};
use crate::format::envelope::ObjectKind;
use crate::format::extent::{BackupId, PackId};
use crate::pg::{Timeline, WalFileName};
use crate::repo::ClusterName;
use crate::store::Key;

/// A cluster's system identifier, from `initdb`. Decimal in names, as `pg_controldata` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemId(pub u64);

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Descriptor of the repository.
pub(super) const DESCRIPTOR: &str = "walvis.json";
/// Where wrapped data keys are.
pub(super) const KEYS_PREFIX: &str = "keys/";
/// Where everything about clusters is.
pub(super) const CLUSTERS_PREFIX: &str = "clusters/";

/// Names are made of checked parts, so this fails only by a defect.
pub(super) fn key(text: String) -> Result<Key, Error> {
    Key::new(text).map_err(|e| Error::new(Kind::Bug, e.to_string()))
}

/// Everything about a cluster.
pub(super) fn cluster_prefix(cluster: &ClusterName) -> String {
    format!("{CLUSTERS_PREFIX}{cluster}/")
}

pub(super) fn bindings_prefix(cluster: &ClusterName) -> String {
    format!("{}bindings/", cluster_prefix(cluster))
}

pub(super) fn binding(cluster: &ClusterName, generation: u32) -> Result<Key, Error> {
    key(format!("{}{generation:08}", bindings_prefix(cluster)))
}

/// The cluster that an object belongs to, and what follows its name.
pub(super) fn split_cluster(name: &Key) -> Option<(ClusterName, &str)> {
    let (cluster, rest) = name.as_str().strip_prefix(CLUSTERS_PREFIX)?.split_once('/')?;
    Some((ClusterName::new(cluster).ok()?, rest))
}

/// All nodes of a level of the catalog, ascending.
pub(super) fn nodes_prefix(cluster: &ClusterName, system_id: SystemId, timeline: Timeline, level: u32) -> String {
    format!("{}{system_id}/index/{:08X}/{level}/", cluster_prefix(cluster), timeline.0)
}

/// The node over the segments from number `first` on.
pub(super) fn node(cluster: &ClusterName, system_id: SystemId, timeline: Timeline, level: u32, first: u64) -> Result<Key, Error> {
    key(format!("{}{}", nodes_prefix(cluster, system_id, timeline, level), node_suffix(first)))
}

/// What follows the prefix of a level. A directory of 65,536 segments' nodes is read quickly; one of all would not be.
pub(super) fn node_suffix(first: u64) -> String {
    format!("{:012x}/{first:016x}", first >> 16)
}

/// All manifests of a cluster's base backups, by time.
pub(super) fn backups_prefix(cluster: &ClusterName, system_id: SystemId) -> String {
    format!("{}{system_id}/backups/", cluster_prefix(cluster))
}

pub(super) fn manifest(cluster: &ClusterName, system_id: SystemId, id: BackupId) -> Result<Key, Error> {
    key(format!("{}{id}", backups_prefix(cluster, system_id)))
}

/// All packs of a cluster's base backups.
pub(super) fn packs_prefix(cluster: &ClusterName, system_id: SystemId) -> String {
    format!("{}{system_id}/packs/", cluster_prefix(cluster))
}

pub(super) fn pack(cluster: &ClusterName, system_id: SystemId, pack: PackId) -> Result<Key, Error> {
    key(format!("{}{pack}", packs_prefix(cluster, system_id)))
}

pub(super) fn wal_prefix(cluster: &ClusterName, system_id: SystemId) -> String {
    format!("{}{system_id}/wal/", cluster_prefix(cluster))
}

/// All WAL files of a timeline, in PostgreSQL's order.
pub(super) fn timeline_prefix(cluster: &ClusterName, system_id: SystemId, timeline: Timeline) -> String {
    format!("{}{:08X}/", wal_prefix(cluster, system_id), timeline.0)
}

/// All timeline history files, ascending.
pub(super) fn histories_prefix(cluster: &ClusterName, system_id: SystemId) -> String {
    format!("{}history/", wal_prefix(cluster, system_id))
}

/// Where a file that PostgreSQL archives is stored.
pub(super) fn wal_file(cluster: &ClusterName, system_id: SystemId, file: &WalFileName) -> Result<Key, Error> {
    let directory = match file {
        WalFileName::History(_) => "history".to_owned(),
        WalFileName::Segment(name) | WalFileName::Partial(name) | WalFileName::Backup(name, _) => {
            format!("{:08X}/{:08X}", name.timeline.0, name.log)
        }
    };
    key(format!("{}{directory}/{file}", wal_prefix(cluster, system_id)))
}

/// The kind that is bound into a WAL file's frames.
pub(super) fn wal_kind(file: &WalFileName) -> ObjectKind {
    match file {
        WalFileName::Segment(_) => ObjectKind::Segment,
        WalFileName::Partial(_) => ObjectKind::Partial,
        WalFileName::Backup(..) => ObjectKind::Backup,
        WalFileName::History(_) => ObjectKind::History,
    }
}

/// The name of a WAL object, taken apart again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalObject {
    /// The cluster.
    pub cluster: ClusterName,
    /// The system identifier.
    pub system_id: SystemId,
    /// The file.
    pub file: WalFileName,
}

impl WalObject {
    /// Takes an object name apart; `None` if it is not the name of a WAL object.
    pub fn parse(name: &Key) -> Option<Self> {
        let mut parts = name.as_str().strip_prefix(CLUSTERS_PREFIX)?.split('/');
        let cluster = ClusterName::new(parts.next()?).ok()?;
        let system_id = SystemId(parts.next()?.parse().ok()?);
        let file = WalFileName::parse(name.as_str().rsplit('/').next()?)?;
        let whole = wal_file(&cluster, system_id, &file).ok()?;
        (whole == *name).then_some(Self { cluster, system_id, file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_format_and_come_apart_again() {
        let cluster = ClusterName::new("main").unwrap();
        for (file, name) in [
            ("00000001000000A0000000FE", "clusters/main/7/wal/00000001/000000A0/00000001000000A0000000FE"),
            ("00000001000000A0000000FE.partial", "clusters/main/7/wal/00000001/000000A0/00000001000000A0000000FE.partial"),
            ("0000000B.history", "clusters/main/7/wal/history/0000000B.history"),
        ] {
            let file = WalFileName::parse(file).unwrap();
            let object = wal_file(&cluster, SystemId(7), &file).unwrap();
            assert_eq!(object.as_str(), name);
            assert_eq!(WalObject::parse(&object), Some(WalObject { cluster: cluster.clone(), system_id: SystemId(7), file }));
        }
        for name in ["walvis.json", "clusters/main/7/wal/00000002/000000A0/00000001000000A0000000FE", "clusters/main/7/index/x"] {
            assert_eq!(WalObject::parse(&Key::new(name).unwrap()), None, "{name}");
        }
    }
}
