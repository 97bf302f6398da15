//! The bytes of [`XactStats`], as summaries of segments and nodes of the catalog hold them (`docs/FORMAT.md`).

use super::event::{PgTime, Xid};
use super::summary::{XactStats, XidRange};
use crate::varint::{put_varint, take_varint, unzigzag, zigzag};

impl XactStats {
    /// Adds the number of transactions, and what else is known where there are any.
    pub fn put(stats: Option<&Self>, out: &mut Vec<u8>) {
        put_varint(out, stats.map_or(0, |stats| stats.count));
        let Some(stats) = stats else { return };
        put_varint(out, stats.aborts);
        put_varint(out, zigzag(stats.min_time.0));
        put_varint(out, stats.max_time.0.wrapping_sub(stats.min_time.0) as u64);
        put_varint(out, stats.xids.map_or(0, |xids| xids.oldest.get().into()));
        if let Some(xids) = &stats.xids {
            put_varint(out, xids.newest.get().wrapping_sub(xids.oldest.get()).into());
        }
    }

    /// Takes what stands behind the number of transactions, which is `count`, from the front; `None` when it is not
    /// that, which leaves `bytes` anywhere.
    pub fn take(count: u64, bytes: &mut &[u8]) -> Option<Self> {
        let mut number = || take_varint(bytes);
        let aborts = number().filter(|aborts| *aborts <= count)?;
        let min_time = PgTime(unzigzag(number()?));
        let max_time = PgTime(min_time.0.checked_add_unsigned(number()?)?);
        let oldest = u32::try_from(number()?).ok()?;
        let xids = match Xid::new(oldest) {
            None => None,
            Some(xid) => {
                let width = u32::try_from(number()?).ok()?;
                Some(XidRange { oldest: xid, newest: Xid::new(oldest.wrapping_add(width))? })
            }
        };
        Some(Self { count, aborts, min_time, max_time, xids })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_taken_and_nothing_else() {
        let xid = |xid| Xid::new(xid).unwrap();
        let some = XidRange { oldest: xid(u32::MAX - 1), newest: xid(700) };
        for xids in [None, Some(some)] {
            let stats = XactStats { count: 5, aborts: 2, min_time: PgTime(-9), max_time: PgTime(1_000), xids };
            let mut bytes = Vec::new();
            XactStats::put(Some(&stats), &mut bytes);
            let mut rest = bytes.as_slice();
            let count = take_varint(&mut rest).unwrap();
            assert_eq!(XactStats::take(count, &mut rest), Some(stats));
            assert!(rest.is_empty());
            assert_eq!(XactStats::take(1, &mut bytes.get(1..).unwrap()), None, "more aborts than transactions");
            for end in 1..bytes.len() {
                assert_eq!(XactStats::take(count, &mut bytes.get(1..end).unwrap()), None, "{end} bytes");
            }
        }
        let mut none = Vec::new();
        XactStats::put(None, &mut none);
        assert_eq!(none, [0]);
    }
}
