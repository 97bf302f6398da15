//! Moments of the log as text: transactions, places, times in two zones.

use crate::pg::target::Zone;
use crate::report::time::Time;
use crate::report::transaction::{Moment, Transaction};

/// A place in the log, with the transaction that ends there.
pub(super) fn moment(moment: &Moment, zone: &Zone) -> String {
    match &moment.transaction {
        Some(end) => format!("{} ({})", moment.lsn, transaction(end, zone)),
        None => format!("{} (no transaction)", moment.lsn),
    }
}

/// How a transaction ended, when and where.
pub(super) fn transaction(end: &Transaction, zone: &Zone) -> String {
    let xid = end.xid.map_or_else(|| "?".to_owned(), |xid| xid.to_string());
    format!("{} of {xid} at {}, LSN {}, timeline {}", end.kind, both(end.time, zone), end.lsn, end.timeline)
}

/// A moment in the zone that was stated, and in UTC if that is another one.
pub(super) fn both(time: Time, zone: &Zone) -> String {
    let (in_utc, in_zone) = (time.to_string(), zone.show(time.get()));
    if in_zone == in_utc { in_utc } else { format!("{in_zone} ({in_utc})") }
}
