//! Where objects are listed: what the names of one kind, or of one cluster, begin with.

use std::fmt;

use super::cluster::{ClusterName, SystemId};
use crate::format::extent::BackupId;
use crate::pg::Timeline;

/// What some names begin with; it ends with a `/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix<'a> {
    /// All sealed data keys.
    DataKeys,
    /// Everything of all clusters.
    Clusters,
    /// Everything of a cluster.
    Cluster(&'a ClusterName),
    /// Everything of a system identifier of a cluster.
    System(&'a ClusterName, SystemId),
    /// The bindings of a cluster, by generation.
    Bindings(&'a ClusterName),
    /// All files that PostgreSQL archived, timelines first and histories last.
    Wal(&'a ClusterName, SystemId),
    /// Those of a timeline but its history, in PostgreSQL's order.
    Timeline(&'a ClusterName, SystemId, Timeline),
    /// All timeline history files, by timeline.
    Histories(&'a ClusterName, SystemId),
    /// The nodes of a level of the catalog, by the segments below them.
    Nodes(&'a ClusterName, SystemId, Timeline, u32),
    /// What the segments under the nodes of a level changed, by these segments.
    Changes(&'a ClusterName, SystemId, Timeline, u32),
    /// All nodes of the catalog and of changes, by timeline and level; and then the index of backups.
    AllNodes(&'a ClusterName, SystemId),
    /// All packs of a cluster's base backups, by the time of the backup.
    Packs(&'a ClusterName, SystemId),
    /// The manifests of a cluster's base backups, by time.
    Manifests(&'a ClusterName, SystemId),
    /// The parts of the index of a cluster's base backups, by their last one.
    BackupIndex(&'a ClusterName, SystemId),
    /// Base backups of a cluster that have begun.
    BegunBackups(&'a ClusterName, SystemId),
    /// The tombstones of a cluster, by time.
    Tombstones(&'a ClusterName, SystemId),
    /// The pins of a cluster, by backup.
    Pins(&'a ClusterName, SystemId),
    /// The pins of a backup, by number.
    PinsOf(&'a ClusterName, SystemId, BackupId),
    /// The evidence of verifications of a cluster, by time.
    Evidence(&'a ClusterName, SystemId),
    /// Good copies of damaged objects.
    Repairs,
    /// Claims of writers.
    Claims,
    /// What probes of the store left.
    Probes,
}

impl Prefix<'_> {
    /// A text that sorts after all names with this prefix, and before all others that come after it.
    pub fn end(&self) -> String {
        let mut end = self.to_string();
        end.pop();
        // The character after '/'.
        end.push('0');
        end
    }
}

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataKeys => f.write_str("keys/"),
            Self::Clusters => f.write_str("clusters/"),
            Self::Cluster(cluster) => write!(f, "{}{cluster}/", Prefix::Clusters),
            Self::System(cluster, system_id) => write!(f, "{}{system_id}/", Prefix::Cluster(cluster)),
            Self::Bindings(cluster) => write!(f, "{}bindings/", Prefix::Cluster(cluster)),
            Self::Wal(cluster, system_id) => write!(f, "{}{system_id}/wal/", Prefix::Cluster(cluster)),
            Self::Timeline(cluster, system_id, timeline) => {
                write!(f, "{}{:08X}/", Prefix::Wal(cluster, *system_id), timeline.0)
            }
            Self::Histories(cluster, system_id) => write!(f, "{}history/", Prefix::Wal(cluster, *system_id)),
            Self::Nodes(cluster, system_id, timeline, level) => {
                write!(f, "{}{system_id}/index/{:08X}/{level}/", Prefix::Cluster(cluster), timeline.0)
            }
            Self::Changes(cluster, system_id, timeline, level) => {
                write!(f, "{}{system_id}/index/{:08X}/c{level}/", Prefix::Cluster(cluster), timeline.0)
            }
            Self::AllNodes(cluster, system_id) => write!(f, "{}{system_id}/index/", Prefix::Cluster(cluster)),
            Self::Packs(cluster, system_id) => write!(f, "{}{system_id}/packs/", Prefix::Cluster(cluster)),
            Self::Manifests(cluster, system_id) => write!(f, "{}{system_id}/backups/", Prefix::Cluster(cluster)),
            Self::BackupIndex(cluster, system_id) => write!(f, "{}backups/", Prefix::AllNodes(cluster, *system_id)),
            Self::BegunBackups(cluster, system_id) => write!(f, "{}{system_id}/begun/", Prefix::Cluster(cluster)),
            Self::Tombstones(cluster, system_id) => write!(f, "{}{system_id}/tombstones/", Prefix::Cluster(cluster)),
            Self::Pins(cluster, system_id) => write!(f, "{}{system_id}/pins/", Prefix::Cluster(cluster)),
            Self::PinsOf(cluster, system_id, backup) => write!(f, "{}{backup}/", Prefix::Pins(cluster, *system_id)),
            Self::Evidence(cluster, system_id) => write!(f, "{}{system_id}/evidence/", Prefix::Cluster(cluster)),
            Self::Repairs => f.write_str("repairs/"),
            Self::Claims => f.write_str("claims/"),
            Self::Probes => f.write_str("probe/"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_after_all_that_has_it_and_before_the_next() {
        let cluster = ClusterName::new("main").unwrap();
        let timeline = |timeline| Prefix::Timeline(&cluster, SystemId(7), Timeline(timeline));
        assert_eq!(timeline(10).to_string(), "clusters/main/7/wal/0000000A/");
        assert!(format!("{}FFFFFFFF/0000000AFFFFFFFFFFFFFFFF.partial.9", timeline(10)) < timeline(10).end());
        assert!(timeline(10).end() < timeline(11).to_string());
    }
}
