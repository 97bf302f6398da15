//! What the main data of a record is, by its resource manager (`access/rmgrlist.h`, the same in 13 to 18) and kind.

use super::event::XactKind;
use super::header::RecordHeader;

pub(super) const RMGR_XLOG: u8 = 0;
pub(super) const RMGR_XACT: u8 = 1;
pub(super) const RMGR_SMGR: u8 = 2;
pub(super) const RMGR_DBASE: u8 = 4;
pub(super) const RMGR_TBLSPC: u8 = 5;
pub(super) const RMGR_STANDBY: u8 = 8;
pub(super) const RMGR_SEQ: u8 = 15;

/// What the main data of a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Main {
    /// Of no interest.
    Ignored,
    /// A structure, of which this many bytes are read.
    Fixed(usize),
    /// `xl_xact_commit`, `xl_xact_abort`.
    XactEnd(XactKind),
    /// `xl_dbase_drop_rec`.
    DropDatabase,
    /// `xl_tblspc_create_rec`.
    CreateTablespace,
    /// `xl_standby_locks`.
    Locks,
    /// Of no interest, but the block is.
    Sequence,
}

impl Main {
    pub(super) fn of(header: &RecordHeader, major: u16, blocks: bool, effects: bool) -> Self {
        let info = header.info & 0xF0;
        match (header.rmid, info) {
            (RMGR_XLOG, 0x00 | 0x10 | 0x70) => Self::Fixed(72), // checkpoints, restore point
            (RMGR_XLOG, 0x50) => Self::Fixed(8),                // BACKUP_END
            (RMGR_XLOG, 0x60) => Self::Fixed(26),               // PARAMETER_CHANGE, without padding
            (RMGR_XLOG, 0x90 | 0xD0) => Self::Fixed(16),        // END_OF_RECOVERY, OVERWRITE_CONTRECORD
            (RMGR_XACT, _) => match header.info & 0x70 {
                0x00 => Self::XactEnd(XactKind::Commit),
                0x10 => Self::Fixed(24), // xl_xact_prepare
                0x20 => Self::XactEnd(XactKind::Abort),
                0x30 => Self::XactEnd(XactKind::CommitPrepared),
                0x40 => Self::XactEnd(XactKind::AbortPrepared),
                _ => Self::Ignored,
            },
            (RMGR_SMGR, 0x10) if blocks || effects => Self::Fixed(16),
            (RMGR_SMGR, 0x20) if blocks => Self::Fixed(20),
            (RMGR_DBASE, 0x00) => Self::Fixed(16), // CREATE, from 15 on CREATE_FILE_COPY
            (RMGR_DBASE, 0x10) if major >= 15 => Self::Fixed(8), // CREATE_WAL_LOG
            (RMGR_DBASE, 0x10) => Self::DropDatabase,
            (RMGR_DBASE, 0x20) if major >= 15 => Self::DropDatabase,
            (RMGR_TBLSPC, 0x00) => Self::CreateTablespace,
            (RMGR_TBLSPC, 0x10) => Self::Fixed(4),
            (RMGR_STANDBY, 0x00) if effects => Self::Locks,
            (RMGR_STANDBY, 0x10) if effects => Self::Fixed(9), // xl_running_xacts up to subxid_overflow
            (RMGR_SEQ, _) if effects => Self::Sequence,
            _ => Self::Ignored,
        }
    }
}
