//! What is asked of a recovery: the target, and what the operator has decided already.

use crate::format::extent::BackupId;
use crate::pg::Lsn;
use crate::pg::target::{Target, TargetTimeline, Zone};
use crate::repo::SystemId;

/// What is asked.
#[derive(Debug, Clone)]
pub struct ResolveRequest {
    /// Where to stop.
    pub target: Target,
    /// Whether the target itself is replayed.
    pub inclusive: bool,
    /// Which timeline; `None` is the one that the target is on, if that is one.
    pub timeline: Option<TargetTimeline>,
    /// Where recovery begins: a backup's start LSN.
    pub from: Option<Lsn>,
    /// From which backup of the repository; `None` is the newest that fits.
    pub backup: Option<BackupId>,
    /// The system identifier; `None` is the current one, or the one that the target is of.
    pub system_id: Option<SystemId>,
    /// The zone in which moments are shown beside UTC.
    pub zone: Zone,
}
