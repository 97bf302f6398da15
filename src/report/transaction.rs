//! The end of a transaction, and a position with the transaction next to it, as every command shows them.

use crate::pg::Timeline;
use crate::pg::scan::{XactEntry, XactKind};
use crate::report::time::Time;
use serde::Serialize;
use std::fmt;

/// The end of a transaction.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Transaction {
    /// Its id, without epoch. Unknown for some prepared ones.
    pub xid: Option<u32>,
    /// When it ended, by the server's clock.
    pub time: Time,
    /// Where the record of it begins.
    pub lsn: String,
    /// How it ended.
    pub kind: TransactionKind,
    /// The timeline that the record was written on.
    pub timeline: u32,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum TransactionKind {
    /// `COMMIT`.
    Commit,
    /// `ROLLBACK`.
    Rollback,
    /// `COMMIT PREPARED`.
    CommitPrepared,
    /// `ROLLBACK PREPARED`.
    RollbackPrepared,
}

impl fmt::Display for TransactionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Commit => "commit",
            Self::Rollback => "rollback",
            Self::CommitPrepared => "commit prepared",
            Self::RollbackPrepared => "rollback prepared",
        })
    }
}

impl Transaction {
    /// Of the end of a transaction on this timeline.
    pub fn new(entry: &XactEntry, timeline: Timeline) -> Self {
        let kind = match entry.end.kind {
            XactKind::Commit => TransactionKind::Commit,
            XactKind::Abort => TransactionKind::Rollback,
            XactKind::CommitPrepared => TransactionKind::CommitPrepared,
            XactKind::AbortPrepared => TransactionKind::RollbackPrepared,
        };
        let xid = entry.end.xid.map(crate::pg::scan::Xid::get);
        Self { xid, time: entry.end.time.into(), lsn: entry.lsn.to_string(), kind, timeline: timeline.0 }
    }
}

/// A position with the transaction next to it.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Moment {
    /// The position.
    pub lsn: String,
    /// The transaction, if there is any.
    pub transaction: Option<Transaction>,
}
