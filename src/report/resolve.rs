//! What `walvis resolve` answers.

use crate::error::{Error, Kind};
use crate::format::manifest::BackupSummary;
use crate::pg::scan::Lock;
use crate::pg::{Lsn, Timeline};
use crate::raw_text::RawText;
use crate::report::segments::SegmentRange;
use crate::report::setting::Setting;
use crate::report::time::Time;
use crate::report::transaction::{Moment, Transaction};
use crate::report::verified::Verified;
use serde::Serialize;

/// The answer. Positions are LSNs as text.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ResolveReport {
    /// URL.
    pub repository: String,
    /// The cluster.
    pub cluster: String,
    /// Decimal text.
    pub system_id: String,
    /// What was asked, with its moment in UTC.
    pub target: String,
    /// A time in the zone that was stated.
    pub target_in_zone: Option<String>,
    /// That zone.
    pub zone: String,
    /// Whether the target itself is to be replayed.
    pub inclusive: bool,
    /// Whether recovery reaches it with what is stored.
    pub reachable: bool,
    /// Why not.
    pub reason: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// The nearest reachable moment before a target that is out of reach.
    pub nearest_before: Option<Moment>,
    /// The nearest after it.
    pub nearest_after: Option<Moment>,
    /// What fits the target, where that is not one thing on this path.
    pub candidates: Vec<TargetOccurrence>,
    /// More than one thing is asked for, so none is taken, whatever else is stored elsewhere.
    pub is_ambiguous: bool,
    /// The timeline that recovery ends on.
    pub timeline: u32,
    /// Why this one, where no timeline was asked for and there are several.
    pub timeline_reason: Option<String>,
    /// For `latest`: timelines with transactions that this one does not have.
    pub other_timelines: Vec<OtherTimeline>,
    /// How it gets there.
    pub timeline_path: Vec<LegReport>,
    /// Where recovery begins: as given, where the backup begins, or where the archive does.
    pub start_lsn: Option<String>,
    /// The newest backup from which recovery gets there, or the one that is the trouble: of those that the repository
    /// has, or else of those known from the WAL.
    pub backup: Option<ResolvedBackup>,
    /// The last commit that is replayed.
    pub last_included: Option<Transaction>,
    /// The first commit or rollback that is not.
    pub first_excluded: Option<Transaction>,
    /// Where recovery stops; null when it goes on to the end of what is stored.
    pub stop: Option<StopReport>,
    /// Where that end is, behind the last whole record.
    pub end_lsn: Option<String>,
    /// Settings of the server that make it stop there.
    pub settings: Vec<Setting>,
    /// Tablespaces that are created in the WAL that is replayed, in its order: the server links them to these very
    /// paths, and removes what it finds there, wherever the restored directory is.
    pub tablespaces_created: Vec<TablespaceCreated>,
    /// Tablespaces that are dropped in it.
    pub tablespaces_dropped: Vec<TablespaceDropped>,
    /// Databases that are created in, or moved to, a tablespace that is created in it.
    pub databases_created: Vec<DatabaseCreated>,
    /// What the server has to be started with so that a hot standby can replay it: at least these values. Of no setting
    /// where neither the backup nor a record says anything.
    pub required_settings: Vec<RequiredSetting>,
    /// The WAL that it needs; null where it is not known which backup it starts from.
    pub wal: Option<WalReport>,
    /// When manifest and packs of the backup and this WAL were last verified; null where nothing is reached, or where
    /// that is not known.
    pub verified: Option<Verified>,
    /// What a restore of the chosen backup would cost.
    pub estimate: Option<Estimate>,
    /// The oldest backup on this path whose end is in the WAL: of those known, none reaches anything before its stop.
    pub oldest_backup: Option<ResolvedBackup>,
    /// Where the archive of this path begins, with the first transaction that ends in it.
    pub earliest: Option<Moment>,
    /// Where it ends, with the last commit in it.
    pub latest: Option<Moment>,
    /// Of each backup whose manifest cannot be read, why.
    pub damaged_backups: Vec<String>,
    /// What else to know.
    pub notes: Vec<String>,
}

impl ResolveReport {
    /// The error that a command ends with for a target that is out of reach: the same for all of them.
    pub fn refusal(&self) -> Option<Error> {
        if self.reachable {
            return None;
        }
        let reason = self.reason.clone().unwrap_or_default();
        let what = format!("{} cannot be reached: {reason}", self.target);
        // Where none is left that leads there, the damage is what matters.
        if self.backup.as_ref().is_none_or(|backup| backup.backup_id.is_none())
            && self.stop.as_ref().map(|_| ()).or(self.end_lsn.as_ref().map(|_| ())).is_some()
            && let Some(why) = self.damaged_backups.first()
        {
            let error = Error::new(Kind::Damaged, format!("{what} that can be read: {why}"));
            return Some(error.hint("'walvis list' shows the backups; take a new one, and look at what damages the store"));
        }
        Some(Error { hint: self.hint.clone(), ..Error::new(Kind::Target, what) })
    }
}

/// Where something is that fits.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TargetOccurrence {
    /// When it was written.
    pub time: Option<Time>,
    /// Where its record begins.
    pub lsn: String,
    /// On which timeline.
    pub timeline: u32,
    /// Where it is a choice of timelines: the last commit that would be replayed,
    pub last_included: Option<Transaction>,
    /// and the first end of a transaction that would not.
    pub first_excluded: Option<Transaction>,
}

/// A timeline with transactions that a recovery does not bring back.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OtherTimeline {
    /// Its number.
    pub timeline: u32,
    /// From where on they are on this timeline alone.
    pub from_lsn: String,
    /// Number of transactions that commit there.
    pub transactions: u64,
    /// The last of them.
    pub last_transaction: Option<Transaction>,
}

/// One timeline of the path.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LegReport {
    /// Its number.
    pub timeline: u32,
    /// Where it begins.
    pub begin_lsn: String,
    /// Where the next one leaves it.
    pub fork_lsn: Option<String>,
}

/// A backup that is in the repository, or whose end is in the WAL.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ResolvedBackup {
    /// Where recovery from it begins.
    pub start_lsn: String,
    /// Where it is consistent.
    pub stop_lsn: String,
    /// The rest is known only of one that is in the repository: its id,
    pub backup_id: Option<String>,
    /// what the operator called it,
    pub label: Option<String>,
    /// when it began,
    pub started_at: Option<Time>,
    /// the timeline that it was taken on,
    pub timeline: Option<u32>,
    /// the length of its files,
    pub bytes: Option<u64>,
    /// what a restore reads of it, compressed,
    pub stored_bytes: Option<u64>,
    /// and how many of its pages are damaged.
    pub pages_damaged: Option<u64>,
}

impl ResolvedBackup {
    /// Of a backup of which the WAL says no more than where recovery from it begins, and where it is consistent.
    pub fn in_wal(start: Lsn, stop: Lsn) -> Self {
        Self {
            start_lsn: start.to_string(),
            stop_lsn: stop.to_string(),
            backup_id: None,
            label: None,
            started_at: None,
            timeline: None,
            bytes: None,
            stored_bytes: None,
            pages_damaged: None,
        }
    }

    /// Of a backup that is in the repository.
    pub fn stored(backup: &BackupSummary) -> Self {
        Self {
            start_lsn: backup.start_lsn.to_string(),
            stop_lsn: backup.stop_lsn.to_string(),
            backup_id: Some(backup.id.to_string()),
            label: Some(backup.label.clone()),
            started_at: Time::from_unix_us(backup.started_unix_us),
            timeline: Some(backup.timeline),
            bytes: Some(backup.bytes),
            stored_bytes: Some(backup.stored_bytes),
            pages_damaged: Some(backup.pages.damaged),
        }
    }
}

/// Where recovery stops.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StopReport {
    /// Where a record begins.
    pub lsn: String,
    /// Whether it is replayed: `recovery_target_inclusive`.
    pub replayed: bool,
    /// Before which record PostgreSQL would stop by itself, with the same data and more locks, if this is another
    /// place.
    pub instead_of_lsn: Option<String>,
    /// Tables that replay has locked there for transactions that are not included: queries on them wait while recovery
    /// is paused.
    pub locks: Vec<LockReport>,
    /// Whether these are all.
    pub locks_known: bool,
    /// Whether it is there because the timeline, whose history alone is stored, has nothing of its own: the server
    /// would go on in the WAL of the timeline that it left.
    pub is_fork: bool,
}

/// An `AccessExclusiveLock`.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LockReport {
    /// The transaction that took it.
    pub xid: u32,
    /// OID of the database; 0 for what all share.
    pub database_oid: u32,
    /// OID of the table, index or sequence.
    pub relation_oid: u32,
}

impl LockReport {
    /// Of a lock.
    pub fn new(lock: &Lock) -> Self {
        Self { xid: lock.xid, database_oid: lock.database, relation_oid: lock.relation }
    }
}

/// WAL segments.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WalReport {
    /// The first that is needed.
    pub first_segment: String,
    /// The last.
    pub last_segment: String,
    /// How many are needed.
    pub segments: u64,
    /// How many of these are there, by a listing made now.
    pub present: u64,
    /// The others.
    pub missing: Vec<SegmentRange>,
    /// Stored size of those that are there: what has to be downloaded.
    pub stored_bytes: u64,
    /// Numbers of the segments that are needed of each timeline, first and last: for this program, not in the answer.
    #[serde(skip)]
    pub(crate) ranges: Vec<(Timeline, (u64, u64))>,
}

/// A tablespace that replay creates at the path of the original.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TablespaceCreated {
    /// Object id.
    pub oid: u32,
    /// The directory. Null for one in place, which is in the data directory (`allow_in_place_tablespaces`).
    pub path: Option<RawText>,
    /// Where the record begins.
    pub lsn: String,
    /// When the next transaction ended, in UTC; null if none did.
    pub time: Option<Time>,
}

/// A tablespace that replay drops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TablespaceDropped {
    /// Object id.
    pub oid: u32,
    /// Where the record begins.
    pub lsn: String,
    /// As in [`TablespaceCreated`].
    pub time: Option<Time>,
}

/// A database that gets files in a tablespace that replay creates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DatabaseCreated {
    /// Object id.
    pub oid: u32,
    /// Object id of the tablespace.
    pub tablespace_oid: u32,
    /// Whether it is moved there (`ALTER DATABASE … SET TABLESPACE`), rather than created.
    pub moved: bool,
    /// Where the record begins.
    pub lsn: String,
    /// As in [`TablespaceCreated`].
    pub time: Option<Time>,
}

/// A setting with the lowest value that lets a hot standby replay the WAL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RequiredSetting {
    /// The setting.
    pub name: &'static str,
    /// The highest value that is asked for between the backup and the stop, both included.
    pub minimum: i32,
    /// What the server had when the backup was taken; null if the backup does not say.
    pub at_backup: Option<i32>,
    /// Where the record begins that raises it to this value; null if no record does.
    pub lsn: Option<String>,
}

/// How long a restore takes, by stated assumptions.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Estimate {
    /// What is read from the repository: what the backup uses of packs, and the WAL.
    pub download_bytes: u64,
    /// Length of the files that are written.
    pub restored_bytes: u64,
    /// WAL that is replayed, uncompressed.
    pub replayed_bytes: u64,
    /// Seconds, by these rates.
    pub duration_s: f64,
    /// The rates.
    pub assuming: &'static str,
}
