//! What `expire` answers: what is kept and why, what may go, and what can be restored when it has gone.

use serde::Serialize;

use super::segments::SegmentRange;
use super::time::Time;
use super::transaction::Moment;

/// Why a backup is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It is the newest good backup of the cluster.
    Newest,
    /// It is one of the newest: `keep_last`.
    Last,
    /// It is so young: `keep_within`.
    Within,
    /// It is the newest of its day: `keep_daily`.
    Daily,
    /// It is the newest of its week: `keep_weekly`.
    Weekly,
    /// It is the newest of its month: `keep_monthly`.
    Monthly,
    /// It is the newest of its year: `keep_yearly`.
    Yearly,
    /// The window needs it: `recovery_window`, or the way to the present.
    Window,
    /// The window will begin with it before what is named now goes: the backup that it begins with at present will have
    /// to be replaced.
    WindowSoon,
    /// It is pinned.
    Pinned,
}

/// Of one repository: what `expire` would do, or did.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ExpireReport {
    /// URL.
    pub repository: String,
    /// Name of the cluster.
    pub cluster: String,
    /// The rules that count, as they stand in the settings.
    pub rules: Vec<Rule>,
    /// The system identifiers that the cluster had, oldest first; the last is the current one.
    pub systems: Vec<ExpiredSystem>,
    /// What may go, of all of them.
    pub goes: Amounts,
    /// What stays of the same kinds.
    pub stays: Amounts,
    /// The tombstones that are there: what they name is in none of the other fields.
    pub tombstones: Vec<TombstoneReport>,
    /// What was done; null without `--confirm`.
    pub done: Option<ExpireDone>,
}

/// A tombstone that is there: it names what may go after a grace period.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TombstoneReport {
    /// Its id.
    pub tombstone_id: String,
    /// The system identifier.
    pub system_id: String,
    /// From when on what it names may be deleted, by the store's clock; null if that is not known.
    pub due_at: Option<Time>,
    /// Whether the deleting has begun.
    pub begun: bool,
    /// How many objects it names; null if it cannot be read.
    pub objects: Option<u64>,
}

/// What `expire --confirm` did.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ExpireDone {
    /// Objects that new tombstones name.
    pub named_objects: u64,
    /// Ids of tombstones that were withdrawn, because some of what they named is needed again.
    pub withdrawn_tombstones: Vec<String>,
    /// Ids of backups that had begun, had not ended, and were given up.
    pub given_up_backups: Vec<String>,
    /// Manifests that were deleted.
    pub deleted_manifests: u64,
    /// Packs that were deleted.
    pub deleted_packs: u64,
    /// WAL files that were deleted.
    pub deleted_wal_files: u64,
    /// Nodes of the catalog that were deleted.
    pub deleted_nodes: u64,
    /// Good copies that stood beside any of these, and were deleted.
    pub deleted_copies: u64,
    /// Objects that the store holds, and those that wait for them.
    pub held_objects: u64,
    /// The last moment until which the store holds any of them, as far as that is known.
    pub held_until_at: Option<Time>,
    /// Objects that the credentials cannot delete.
    pub denied_objects: u64,
    /// Deleted objects of which the store's versions were removed.
    pub purged_objects: u64,
    /// The size of these versions.
    pub purged_bytes: u64,
    /// What abandoned writers left, and evidence that is too old: how much of it was removed.
    pub leftovers: LeftoversReport,
}

/// What was removed beside what tombstones name.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LeftoversReport {
    /// Claims of writers that are dead.
    pub claims: u64,
    /// Objects that probes of the store left.
    pub probes: u64,
    /// Temporary files.
    pub temporary_files: u64,
    /// Unfinished uploads.
    pub uploads: u64,
    /// The size of these two, as far as it is known.
    pub leftover_bytes: u64,
    /// Evidence of verifications.
    pub evidence: u64,
    /// Parts of the index of backups that nobody needs any more.
    pub indexes: u64,
    /// That backups had begun which were given up.
    pub begun_marks: u64,
    /// Good copies of tombstones and of evidence that are gone.
    pub copies: u64,
}

/// A rule of the settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Rule {
    /// The setting.
    pub name: &'static str,
    /// Its value.
    pub value: String,
}

/// How many objects, and their stored sizes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Amounts {
    /// Manifests: one for each base backup.
    pub manifests: u64,
    /// Their size.
    pub manifest_bytes: u64,
    /// Packs.
    pub packs: u64,
    /// Their size.
    pub pack_bytes: u64,
    /// WAL files: segments, `.partial` and `.backup` files.
    pub wal_files: u64,
    /// Their size.
    pub wal_bytes: u64,
}

impl Amounts {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            manifests: self.manifests.saturating_add(other.manifests),
            manifest_bytes: self.manifest_bytes.saturating_add(other.manifest_bytes),
            packs: self.packs.saturating_add(other.packs),
            pack_bytes: self.pack_bytes.saturating_add(other.pack_bytes),
            wal_files: self.wal_files.saturating_add(other.wal_files),
            wal_bytes: self.wal_bytes.saturating_add(other.wal_bytes),
        }
    }

    /// All of their bytes.
    pub fn bytes(self) -> u64 {
        self.manifest_bytes.saturating_add(self.pack_bytes).saturating_add(self.wal_bytes)
    }
}

/// One system identifier of the cluster.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ExpiredSystem {
    /// The system identifier.
    pub system_id: String,
    /// Its base backups, newest first.
    pub backups: Vec<ExpiredBackup>,
    /// What can be restored when what may go has gone, on each timeline that was alive in the window.
    pub recovery_windows: Vec<WindowAfter>,
    /// The segments that may go.
    pub goes_segments: Vec<SegmentRange>,
    /// What may go.
    pub goes: Amounts,
    /// What stays of the same kinds.
    pub stays: Amounts,
    /// Of what goes, packs that interrupted backups left.
    pub left_packs: u64,
    /// Their size.
    pub left_pack_bytes: u64,
}

/// A base backup, and what becomes of it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ExpiredBackup {
    /// Its id.
    pub backup_id: String,
    /// What the operator called it; null if its manifest cannot be read.
    pub label: Option<String>,
    /// When it began, no later than its manifest was stored; null if its manifest cannot be read.
    pub started_at: Option<Time>,
    /// Why it cannot be restored, if that is so.
    pub broken_because: Option<String>,
    /// Why it is kept; empty if it may go.
    pub kept_by: Vec<Reason>,
}

/// What can be restored on the path to a timeline.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WindowAfter {
    /// The timeline.
    pub timeline: u32,
    /// From where on its WAL is kept; null if all of it is, because no backup leads there.
    pub wal_from_lsn: Option<String>,
    /// The parts without a gap, ascending.
    pub reaches: Vec<ReachAfter>,
}

/// A part of a path in which every moment can be restored.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReachAfter {
    /// The backup that leads to all of it.
    pub backup_id: String,
    /// The earliest moment.
    pub earliest: Moment,
    /// The last one.
    pub latest: Moment,
}
