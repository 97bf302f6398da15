//! Which ends of transactions are looked for.

use crate::pg::scan::{PgTime, XactEnd, Xid};

/// Which ends of transactions are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WantedEnds {
    /// Every one.
    All,
    /// At this time or later.
    AtOrAfter(PgTime),
    /// Between two times, these included.
    Between(PgTime, PgTime),
    /// Of this transaction, or of one whose id is not known.
    Xid(Xid),
}

impl WantedEnds {
    pub(super) fn wants(self, end: &XactEnd) -> bool {
        match self {
            Self::All => true,
            Self::AtOrAfter(time) => end.time >= time,
            Self::Between(from, to) => from <= end.time && end.time <= to,
            Self::Xid(xid) => end.xid.is_none_or(|own| own == xid),
        }
    }
}
