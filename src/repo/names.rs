//! Names of objects, as listed in `docs/FORMAT.md`.

use std::fmt;

use super::cluster::{ClusterName, SystemId};
use crate::error::{Error, Kind};
use crate::format::envelope::ObjectKind;
use crate::format::extent::{BackupId, PackId};
use crate::pg::{Timeline, WalFileName};
use crate::store::Key;

/// Descriptor of the repository.
pub(super) const DESCRIPTOR: &str = "walvis.json";
/// Where wrapped data keys are.
pub(super) const KEYS_PREFIX: &str = "keys/";
/// Where everything about clusters is.
pub(super) const CLUSTERS_PREFIX: &str = "clusters/";

/// Where stores are tried out.
pub(super) const PROBE_PREFIX: &str = "probe/";

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
    stored_file(cluster, system_id, (*file).into())
}

/// The same of the content that came first under a name, or of a later one.
pub(super) fn stored_file(cluster: &ClusterName, system_id: SystemId, stored: StoredName) -> Result<Key, Error> {
    let directory = match &stored.file {
        WalFileName::History(_) => "history".to_owned(),
        WalFileName::Segment(name) | WalFileName::Partial(name) | WalFileName::Backup(name, _) => {
            format!("{:08X}/{:08X}", name.timeline.0, name.log)
        }
    };
    key(format!("{}{directory}/{stored}", wal_prefix(cluster, system_id)))
}

/// A WAL file under the name that it is stored by: the server's, and behind it the number of the content, if it is not the first of
/// this name. Only what recovery never asks for can have more than one: two promotions off one segment leave two `.partial` files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoredName {
    /// The server's name.
    pub file: WalFileName,
    /// Which content of this name, from 1.
    pub copy: u32,
}

impl StoredName {
    /// Reads a name; `None` if nothing is stored under such a one.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(file) = WalFileName::parse(text) {
            return Some(file.into());
        }
        let (file, number) = text.rsplit_once('.')?;
        let stored = Self { file: WalFileName::parse(file)?, copy: number.parse().ok()? };
        (stored.copy > 1 && may_have_copies(&stored.file) && stored.to_string() == text).then_some(stored)
    }
}

impl From<WalFileName> for StoredName {
    fn from(file: WalFileName) -> Self {
        Self { file, copy: 1 }
    }
}

impl From<&WalFileName> for StoredName {
    fn from(file: &WalFileName) -> Self {
        (*file).into()
    }
}

impl fmt::Display for StoredName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.copy {
            1 => write!(f, "{}", self.file),
            copy => write!(f, "{}.{copy}", self.file),
        }
    }
}

/// Whether several contents of one name are kept: recovery reads neither of these.
pub(super) fn may_have_copies(file: &WalFileName) -> bool {
    matches!(file, WalFileName::Partial(_) | WalFileName::Backup(..))
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
    /// Which content of this name, from 1.
    pub copy: u32,
}

impl WalObject {
    /// The name that it is stored by.
    pub fn stored(&self) -> StoredName {
        StoredName { file: self.file, copy: self.copy }
    }

    /// Takes an object name apart; `None` if it is not the name of a WAL object.
    pub fn parse(name: &Key) -> Option<Self> {
        let mut parts = name.as_str().strip_prefix(CLUSTERS_PREFIX)?.split('/');
        let cluster = ClusterName::new(parts.next()?).ok()?;
        let system_id = SystemId(parts.next()?.parse().ok()?);
        let stored = StoredName::parse(name.as_str().rsplit('/').next()?)?;
        let whole = stored_file(&cluster, system_id, stored).ok()?;
        (whole == *name).then_some(Self { cluster, system_id, file: stored.file, copy: stored.copy })
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
            ("00000001000000A0000000FE.partial.2", "clusters/main/7/wal/00000001/000000A0/00000001000000A0000000FE.partial.2"),
            ("0000000B.history", "clusters/main/7/wal/history/0000000B.history"),
        ] {
            let stored = StoredName::parse(file).unwrap();
            let object = stored_file(&cluster, SystemId(7), stored).unwrap();
            assert_eq!(object.as_str(), name);
            let StoredName { file, copy } = stored;
            assert_eq!(
                WalObject::parse(&object),
                Some(WalObject { cluster: cluster.clone(), system_id: SystemId(7), file, copy })
            );
        }
        for name in ["0000000B.history.2", "00000001000000A0000000FE.2", "00000001000000A0000000FE.partial.1", "x.partial.2"]
            .into_iter()
            .chain(["00000001000000A0000000FE.partial.02", "00000001000000A0000000FE.partial.-2"])
        {
            assert_eq!(StoredName::parse(name), None, "{name}");
        }
        for name in ["walvis.json", "clusters/main/7/wal/00000002/000000A0/00000001000000A0000000FE", "clusters/main/7/index/x"] {
            assert_eq!(WalObject::parse(&Key::new(name).unwrap()), None, "{name}");
        }
    }
}
