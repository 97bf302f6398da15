//! What a scan finds.

use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::limits::MAX_TABLESPACE_PATH_BYTES;
use crate::pg::{Lsn, Timeline};
use crate::raw_text::RawText;

/// A moment by the server's clock: microseconds since 2000-01-01 00:00 UTC (`TimestampTz`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PgTime(pub i64);

impl PgTime {
    /// 2000-01-01 00:00 UTC in Unix microseconds.
    const EPOCH_UNIX_US: i64 = 946_684_800_000_000;

    /// Microseconds since 1970; `None` beyond the range of an `i64`.
    pub fn unix_us(self) -> Option<i64> {
        self.0.checked_add(Self::EPOCH_UNIX_US)
    }

    /// From microseconds since 1970; `None` beyond the range of an `i64`.
    pub fn from_unix_us(unix_us: i64) -> Option<Self> {
        unix_us.checked_sub(Self::EPOCH_UNIX_US).map(Self)
    }
}

/// A transaction id as WAL has it: without its epoch, and never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Xid(pub NonZeroU32);

impl Xid {
    /// `None` for 0, which is no transaction.
    pub fn new(xid: u32) -> Option<Self> {
        NonZeroU32::new(xid).map(Self)
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Something and the record that says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<T> {
    /// Position of the record's first byte: what `recovery_target_lsn` compares and `pg_waldump` prints.
    pub start: Lsn,
    /// Position after it, aligned to 8 bytes: what the server reports as the end of the record.
    pub end: Lsn,
    /// What it says.
    pub what: T,
}

/// What a record says that a scan reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A transaction ended.
    XactEnd(XactEnd),
    /// A transaction was prepared: it ends with a later [`XactKind::CommitPrepared`] or [`XactKind::AbortPrepared`].
    Prepare {
        /// The transaction.
        xid: Option<Xid>,
        /// When it was prepared.
        time: PgTime,
    },
    /// Rare and remembered in summaries.
    Mark(Mark),
    /// `XLOG_SWITCH`: the rest of the segment is zero.
    Switch,
}

/// The end of a transaction: what recovery by time and by xid stops at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XactEnd {
    /// How it ended.
    pub kind: XactKind,
    /// When, by the server's clock. Not monotonic in LSN.
    pub time: PgTime,
    /// The top-level transaction; of a prepared one its own, not the (absent) one that ended it. `None` where it could
    /// not be known: see the [module](super#which-fields-a-joined-record-gives).
    pub xid: Option<Xid>,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum XactKind {
    /// `COMMIT`.
    Commit,
    /// `ROLLBACK`.
    Abort,
    /// `COMMIT PREPARED`.
    CommitPrepared,
    /// `ROLLBACK PREPARED`.
    AbortPrepared,
}

impl XactKind {
    /// Whether its changes stay.
    pub fn is_commit(self) -> bool {
        matches!(self, Self::Commit | Self::CommitPrepared)
    }

    /// Whether it was prepared before.
    pub fn is_prepared(self) -> bool {
        matches!(self, Self::CommitPrepared | Self::AbortPrepared)
    }
}

/// What a summary remembers besides transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// `pg_create_restore_point()`.
    RestorePoint {
        /// When.
        time: PgTime,
        /// Its name, not necessarily unique.
        name: RestorePointName,
    },
    /// A checkpoint.
    Checkpoint {
        /// At a shutdown (or the end of a recovery), or while the server ran.
        kind: CheckpointKind,
        /// Where recovery from it begins.
        redo: Lsn,
        /// The timeline it is on.
        timeline: Timeline,
        /// The one before, when this checkpoint begins a timeline; else the same.
        previous_timeline: Timeline,
        /// When, in Unix **seconds**.
        time_unix_s: i64,
    },
    /// The end of a base backup taken from a primary. The record's end is the backup's stop LSN.
    BackupEnd {
        /// The backup's start LSN, which tells it from others.
        start: Lsn,
    },
    /// The first record of a timeline after a promotion without a checkpoint.
    EndOfRecovery {
        /// When.
        time: PgTime,
        /// The new timeline.
        timeline: Timeline,
        /// The one it left.
        previous_timeline: Timeline,
    },
    /// Settings changed that a standby has to follow.
    ParameterChange(Parameters),
    /// The record that takes the place of one whose end was lost in a crash.
    Overwrite {
        /// Where the dead record begins.
        dead: Lsn,
        /// When.
        time: PgTime,
    },
    /// A tablespace was created. Replay links `pg_tblspc/<oid>` to this path again, whatever the restored directory
    /// says.
    TablespaceCreate {
        /// OID of the tablespace.
        tablespace: u32,
        /// Where it is.
        path: TablespacePath,
    },
    /// A tablespace was dropped.
    TablespaceDrop {
        /// OID of the tablespace.
        tablespace: u32,
    },
    /// A database got files in a tablespace.
    DatabaseCreate {
        /// OID of the database.
        database: u32,
        /// OID of the tablespace.
        tablespace: u32,
        /// What was copied file by file, and is copied again by replay; `None` when the new files are in the log block
        /// by block.
        copied_from: Option<DatabaseFiles>,
    },
    /// The files of a database were removed from tablespaces: all of them by `DROP DATABASE`, the old ones by
    /// `ALTER DATABASE … SET TABLESPACE`.
    DatabaseDrop {
        /// OID of the database.
        database: u32,
        /// OIDs of the tablespaces; `None` when there are more than
        /// [`MAX_DROPPED_TABLESPACES`](super::MAX_DROPPED_TABLESPACES).
        tablespaces: Option<Vec<u32>>,
    },
}

/// The files of a database in one tablespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatabaseFiles {
    /// OID of the tablespace.
    pub tablespace: u32,
    /// OID of the database.
    pub database: u32,
}

/// Where a tablespace is: the bytes that the server has for it. Empty for one in place (`allow_in_place_tablespaces`).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TablespacePath(Vec<u8>);

impl TablespacePath {
    /// Checks and wraps a path: at most [`MAX_TABLESPACE_PATH_BYTES`], without NUL.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= MAX_TABLESPACE_PATH_BYTES && !bytes.contains(&0)).then(|| Self(bytes.to_owned()))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for TablespacePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        RawText::from(self.0.as_slice()).fmt(f)
    }
}

impl fmt::Debug for TablespacePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Which kind of checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CheckpointKind {
    /// `XLOG_CHECKPOINT_SHUTDOWN`.
    Shutdown,
    /// `XLOG_CHECKPOINT_ONLINE`.
    Online,
}

/// The settings in a `PARAMETER_CHANGE` record, and in `pg_control`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Parameters {
    /// `max_connections`.
    pub max_connections: i32,
    /// `max_worker_processes`.
    pub max_worker_processes: i32,
    /// `max_wal_senders`.
    pub max_wal_senders: i32,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: i32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: i32,
    /// `wal_level`: 0 minimal, 1 replica, 2 logical.
    pub wal_level: i32,
    /// `wal_log_hints`.
    pub wal_log_hints: bool,
    /// `track_commit_timestamp`.
    pub track_commit_timestamp: bool,
}

impl Parameters {
    /// `wal_level = minimal`: what is written from here on is not enough for a recovery from a base backup, which ends
    /// here.
    pub fn is_minimal(&self) -> bool {
        self.wal_level <= 0
    }
}

/// The name of a restore point: 0 to 64 bytes without NUL, in the encoding of the database it was made from.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RestorePointName(Vec<u8>);

impl RestorePointName {
    /// `MAXFNAMELEN`; the server allows one less.
    pub const MAX_BYTES: usize = 64;

    /// Checks and wraps a name.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= Self::MAX_BYTES && !bytes.contains(&0)).then(|| Self(bytes.to_owned()))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for RestorePointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for RestorePointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// The files of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelFile {
    /// OID of the tablespace.
    pub tablespace: u32,
    /// OID of the database, 0 for shared relations.
    pub database: u32,
    /// The file number (`relfilenode`).
    pub relation: u32,
}

/// A block that a record changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockRef {
    /// The relation.
    pub rel: RelFile,
    /// The fork: 0 main, 1 free space map, 2 visibility map, 3 init.
    pub fork: u8,
    /// The block, counted across the files of the fork.
    pub block: u32,
}

/// A change of whole files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StorageChange {
    /// The fork of a relation was created.
    Create {
        /// The relation.
        rel: RelFile,
        /// The fork, as in [`BlockRef::fork`].
        fork: u32,
    },
    /// A relation was cut.
    Truncate {
        /// The relation.
        rel: RelFile,
        /// Blocks of the main fork that stay.
        blocks: u32,
        /// Which forks: 1 main, 2 visibility map, 4 free space map.
        forks: u32,
    },
    /// A commit or abort removed a relation.
    Drop(RelFile),
    /// A database was created in this tablespace, by copying files or block by block.
    CreateDatabase {
        /// OID of the tablespace.
        tablespace: u32,
        /// OID of the database.
        database: u32,
    },
    /// A database was removed from this tablespace.
    DropDatabase {
        /// OID of the tablespace.
        tablespace: u32,
        /// OID of the database.
        database: u32,
    },
}
