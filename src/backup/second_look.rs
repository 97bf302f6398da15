//! A look at an extent that is taken over from the parent: is there anything in it that the log does not know of?
//!
//! Pages of one LSN are the same page; they may differ in hints, which nothing logs. A page that was changed after the
//! backup began is written anew by replay. A page of zeros may be where a relation was cut off and extended after that.
//! Everything else is a contradiction: the log says that nothing touched the page, and the page says that something
//! did.

use crate::error::Error;
use crate::format::extent::Extent;
use crate::limits::EXTENT_BYTES;
use crate::pg::Lsn;
use crate::pg::page_checksum::{PAGE_BYTES, is_zero, lsn_of};

/// What pages are held against.
pub(crate) struct SecondLook<'a> {
    /// From the parent's start to this backup's.
    pub range: (Lsn, Lsn),
    /// What the parent has there.
    pub known: &'a Extent,
}

impl SecondLook<'_> {
    /// Looks at one page by itself, or at its beginning; what is wrong with it, if anything is.
    pub(crate) fn page(&self, now: &[u8]) -> Option<String> {
        let (from, start) = self.range;
        let lsn = lsn_of(now);
        if (from..start).contains(&lsn) {
            return Some(format!("it was changed at {lsn}, and no record of the log says so"));
        }
        let was_zero = self.known.stored.is_none();
        (was_zero && lsn < start && !is_zero(now)).then(|| "it was empty, and no record of the log fills it".to_owned())
    }

    /// Holds the pages of a whole extent against the parent's, which `read_known` gets; the number of the first page
    /// with which something is wrong, and what. `is_damaged` says which pages are reported anyway.
    ///
    /// # Errors
    /// As `read_known`'s.
    pub(crate) fn pages(
        &self,
        now: &[u8],
        is_damaged: &dyn Fn(usize) -> bool,
        read_known: &dyn Fn() -> Result<Vec<u8>, Error>,
    ) -> Result<Option<(usize, String)>, Error> {
        let known = match self.known.stored {
            Some(_) => read_known()?,
            None => vec![0; now.len().min(EXTENT_BYTES)],
        };
        let (now, now_rest) = now.as_chunks::<PAGE_BYTES>();
        let (known, known_rest) = known.as_chunks::<PAGE_BYTES>();
        let pairs = now.iter().zip(known).enumerate().filter(|(number, _)| !is_damaged(*number));
        for (number, (now, known)) in pairs {
            if now == known || is_zero(now) {
                continue;
            }
            if let Some(wrong) = self.page(now) {
                return Ok(Some((number, wrong)));
            }
            let (is, was) = (lsn_of(now), lsn_of(known));
            if is != was && is < self.range.1 {
                return Ok(Some((number, format!("it is of {is}, the backup before has it of {was}"))));
            }
        }
        // Not a page yet, or not any more: nothing says when it was written.
        let differs = now_rest != known_rest || now.len() != known.len();
        Ok(differs.then(|| (now.len(), "what is no whole page differs".to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::extent::{BackupId, PackId, RecordLocation, StoredExtent};
    use crate::pg::page_checksum::Page;

    fn page(lsn: u64, fill: u8) -> Page {
        let mut page = [fill; PAGE_BYTES];
        page[..4].copy_from_slice(&((lsn >> 32) as u32).to_le_bytes());
        page[4..8].copy_from_slice(&(lsn as u32).to_le_bytes());
        page
    }

    fn stored() -> Extent {
        let pack = PackId { backup: BackupId::new(1, 1).unwrap(), number: 0 };
        let place = RecordLocation { pack, offset: 0, sealed_bytes: 9 };
        Extent { crc32c: 0, stored: Some(StoredExtent { hash: [0; 16], place }) }
    }

    const RANGE: (Lsn, Lsn) = (Lsn(100), Lsn(200));

    #[test]
    fn what_the_log_does_not_know_of_is_found() {
        let known = stored();
        let look = SecondLook { range: RANGE, known: &known };
        assert_eq!(look.page(&page(99, 1)), None);
        assert!(look.page(&page(100, 1)).is_some() && look.page(&page(199, 1)).is_some());
        assert_eq!(look.page(&page(200, 1)), None, "replay writes it anew");
        let zeros = Extent::zeros(EXTENT_BYTES);
        let look = SecondLook { range: RANGE, known: &zeros };
        assert_eq!(look.page(&[0; PAGE_BYTES]), None);
        assert!(look.page(&page(50, 1)).is_some());
        assert_eq!(look.page(&page(250, 1)), None);
    }

    #[test]
    fn whole_extents_are_held_against_the_parents() {
        let known = stored();
        let look = SecondLook { range: RANGE, known: &known };
        let extent = |pages: &[Page]| pages.concat();
        let was = extent(&[page(50, 1), page(60, 1)]);
        let wrong = |now: &[u8]| look.pages(now, &|_| false, &|| Ok(was.clone())).unwrap().map(|(number, _)| number);
        assert_eq!(wrong(&was), None);
        assert_eq!(wrong(&extent(&[page(50, 2), page(60, 9)])), None, "hints");
        assert_eq!(wrong(&extent(&[page(50, 1), page(61, 1)])), Some(1), "newer than it was, and older than the parent");
        assert_eq!(wrong(&extent(&[page(40, 1), page(60, 1)])), Some(0), "set back");
        assert_eq!(wrong(&extent(&[page(150, 1), page(60, 1)])), Some(0), "changed");
        assert_eq!(wrong(&extent(&[page(50, 1), [0; PAGE_BYTES]])), None, "cut off, and extended");
        assert_eq!(wrong(&extent(&[page(201, 8), page(60, 1)])), None, "replay writes it anew");
        assert_eq!(wrong(&extent(&[page(50, 1)])), Some(1), "shorter");
        assert_eq!(wrong(&[was.as_slice(), &[1]].concat()), Some(2));
        let spared = look.pages(&extent(&[page(150, 1), page(60, 1)]), &|number| number == 0, &|| Ok(was.clone())).unwrap();
        assert_eq!(spared, None, "a damaged page is reported as one");
        let unreadable = || Err(Error::new(crate::error::Kind::Damaged, "gone"));
        assert!(look.pages(&was, &|_| false, &unreadable).is_err());
    }
}
