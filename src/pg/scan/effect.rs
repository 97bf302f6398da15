//! What the replay of a record does at once, whatever becomes of its transaction.
//!
//! Changes of tables and indexes are seen only when their transaction has committed, so where exactly a recovery stops
//! between two commits makes no difference to them. To what is named here it does. The resource managers are those of
//! `access/rmgrlist.h`, which are the same in 13 to 18.

use super::event::RelFile;
use super::header::RecordHeader;

/// What a record does at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It leaves another state behind: a prepared transaction, a restore point, the end of a backup or of a timeline,
    /// or something that is not known.
    Lasting,
    /// It takes an `AccessExclusiveLock` (`xl_standby_lock`), which replay holds until the transaction ends. Each
    /// snapshot repeats those that are held.
    Lock(Lock),
    /// A snapshot of the running transactions, by which a hot standby begins to take queries.
    Snapshot {
        /// Not all subtransactions are in it, so that queries may have to wait for another one.
        overflowed: bool,
    },
    /// A sequence goes on.
    Sequence(RelFile),
    /// The files of a database or a tablespace are removed, before the transaction that drops it commits.
    Removal {
        /// The transaction.
        xid: u32,
        /// Whether it is a database; else a tablespace.
        is_database: bool,
    },
}

/// An `AccessExclusiveLock` of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock {
    /// The transaction, or subtransaction.
    pub xid: u32,
    /// OID of the database, 0 for shared relations.
    pub database: u32,
    /// OID of the relation.
    pub relation: u32,
}

impl Effect {
    /// What the header alone tells.
    pub(super) fn of(header: &RecordHeader, major: u16) -> Option<Self> {
        let info = header.info & 0xF0;
        let removal = |is_database| Some(Self::Removal { xid: header.xid, is_database });
        match header.rmid {
            // Of XLOG: online checkpoints, NOOP, NEXTOID, SWITCH, PARAMETER_CHANGE, FPW_CHANGE, both kinds of page
            // images, CHECKPOINT_REDO.
            0 => (!matches!(info, 0x10 | 0x20 | 0x30 | 0x40 | 0x60 | 0x80 | 0xA0 | 0xB0 | 0xE0)).then_some(Self::Lasting),
            // Of XACT: PREPARE. The ends are events.
            1 => (info & 0x70 == 0x10).then_some(Self::Lasting),
            // DBASE
            4 => match (info, major >= 15) {
                (0x10, false) | (0x20, true) => removal(true),
                _ => None,
            },
            // TBLSPC
            5 => {
                if info == 0x10 {
                    removal(false)
                } else {
                    None
                }
            }
            // SMGR, CLOG, MULTIXACT, RELMAP, STANDBY, HEAP2, HEAP, BTREE, HASH, GIN, GIST, SEQ, SPGIST, BRIN,
            // COMMIT_TS, LOGICALMSG
            2 | 3 | 6..=18 | 21 => None,
            // REPLORIGIN, GENERIC, and those of extensions.
            _ => Some(Self::Lasting),
        }
    }
}
