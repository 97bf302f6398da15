//! The end of a transaction, and a position with the transaction next to it, as every command shows them.
use crate::pg::Timeline;
use crate::pg::scan::{XactEntry, XactKind};
use crate::pg::target::show;
use serde::Serialize;

/// The end of a transaction.
#[derive(Debug, Clone, Serialize)]
pub struct Transaction {
    /// Its id, without epoch. Unknown for some prepared ones.
    pub xid: Option<u32>,
    /// When it ended, by the server's clock.
    pub time: String,
    /// Where the record of it begins.
    pub lsn: String,
    /// `commit`, `rollback`, `commit prepared` or `rollback prepared`.
    pub kind: &'static str,
    /// The timeline that the record was written on.
    pub timeline: u32,
}

impl Transaction {
    /// Of the end of a transaction on this timeline.
    pub fn new(entry: &XactEntry, timeline: Timeline) -> Self {
        let kind = match entry.end.kind {
            XactKind::Commit => "commit",
            XactKind::Abort => "rollback",
            XactKind::CommitPrepared => "commit prepared",
            XactKind::AbortPrepared => "rollback prepared",
        };
        let xid = entry.end.xid.map(crate::pg::scan::Xid::get);
        Self { xid, time: show(entry.end.time), lsn: entry.lsn.to_string(), kind, timeline: timeline.0 }
    }
}

/// A position with the transaction next to it.
#[derive(Debug, Clone, Serialize)]
pub struct Moment {
    /// The position.
    pub lsn: String,
    /// The transaction, if there is any.
    pub transaction: Option<Transaction>,
}
