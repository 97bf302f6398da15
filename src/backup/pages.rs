//! Telling damaged pages from those that are merely being written.
//!
//! A page is damaged if its checksum does not fit, it is not new, its LSN is before the backup's start (a later one
//! will be replayed over), and reading it again gives the same. Nor can a page be ahead of what the server has logged.

use crate::error::Error;
use crate::fsio::{self, FsError};
use crate::limits::{MAX_PAGE_READINGS, PAGE_LAST_PAUSE, PAGE_PAUSES, PATIENTLY_READ_PAGES};
use crate::pg::Lsn;
use crate::pg::page_checksum::{PAGE_BYTES, PAGES_PER_SEGMENT, Page, PageState, check_page};
use crate::postgres::Server;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// How far the server has logged, as far as it is known: asked for only when a page is newer than the last answer.
pub(crate) struct Horizon<'a> {
    ask: Box<dyn Fn() -> Result<Option<Lsn>, Error> + Send + Sync + 'a>,
    known: AtomicU64,
}

impl<'a> Horizon<'a> {
    /// `start` is a position that the log has certainly reached.
    pub(crate) fn of(server: &'a Server, in_recovery: bool, start: Lsn) -> Self {
        let question = if in_recovery {
            // A page may be written before the end of its record counts as replayed; what was received is beyond that.
            "SELECT greatest(pg_catalog.pg_last_wal_replay_lsn(), pg_catalog.pg_last_wal_receive_lsn())"
        } else {
            "SELECT pg_catalog.pg_current_wal_insert_lsn()"
        };
        Self::new(start, move || Ok(server.value(question)?.parse().ok()))
    }

    /// With another way to ask.
    fn new(start: Lsn, ask: impl Fn() -> Result<Option<Lsn>, Error> + Send + Sync + 'a) -> Self {
        Self { ask: Box::new(ask), known: AtomicU64::new(start.0) }
    }

    fn is_beyond(&self, lsn: Lsn) -> bool {
        lsn.0 > self.known.load(Ordering::Relaxed)
    }

    fn refresh(&self) -> Result<(), Error> {
        if let Some(lsn) = (self.ask)()? {
            self.known.fetch_max(lsn.0, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// What was found in the pages of a piece.
#[derive(Debug, Default)]
pub(crate) struct PageReport {
    /// Pages whose checksum fits.
    pub verified: u64,
    /// Damaged ones: number within the relation, and what is wrong.
    pub damaged: Vec<(u64, String)>,
}

/// Why pages could not be verified.
pub(crate) enum PagesError {
    /// The file.
    File(FsError),
    /// The server.
    Server(Error),
}

/// A relation file whose pages are verified.
pub(crate) struct PageFile<'a> {
    /// The open file.
    pub file: &'a File,
    /// Its path, for messages.
    pub path: &'a Path,
    /// Which gigabyte of the relation it is.
    pub segment: u32,
    /// Where the backup began.
    pub start: Lsn,
    /// How far the server has logged.
    pub horizon: &'a Horizon<'a>,
}

impl PageFile<'_> {
    fn block(&self, offset: u64) -> u64 {
        u64::from(self.segment) * PAGES_PER_SEGMENT + offset / PAGE_BYTES as u64
    }

    /// Verifies the whole pages of `bytes`, which were read at `offset`, a multiple of the page size. A page that reads
    /// better the second time is replaced.
    ///
    /// # Errors
    /// When the file or the server cannot be read any more.
    pub(crate) fn verify(&self, bytes: &mut [u8], offset: u64, report: &mut PageReport) -> Result<(), PagesError> {
        let (pages, _) = bytes.as_chunks_mut::<PAGE_BYTES>();
        let mut suspects: Vec<usize> = Vec::new();
        for (index, page) in pages.iter().enumerate() {
            if self.is_sound(page, offset + (index * PAGE_BYTES) as u64, report) {
                continue;
            }
            suspects.push(index);
        }
        // Where much is damaged, patience would only take long.
        let patience = if report.damaged.len() < PATIENTLY_READ_PAGES { PAGE_PAUSES.len() } else { 1 };
        let mut suspects: Vec<(usize, usize)> = suspects.into_iter().map(|index| (index, 0)).collect();
        for pause in PAGE_PAUSES.into_iter().chain(std::iter::repeat(PAGE_LAST_PAUSE)).take(MAX_PAGE_READINGS) {
            if suspects.is_empty() {
                return Ok(());
            }
            std::thread::sleep(pause);
            self.horizon.refresh().map_err(PagesError::Server)?;
            let mut open = Vec::new();
            for (index, same) in suspects {
                let at = offset + (index * PAGE_BYTES) as u64;
                let Some(page) = pages.get_mut(index) else { continue };
                let mut again = [0; PAGE_BYTES];
                // Shorter: the relation was cut off, and replay does that, too.
                if fsio::read_full_at(self.file, self.path, &mut again, at).map_err(PagesError::File)? < PAGE_BYTES {
                    continue;
                }
                let same = if *page == again { same + 1 } else { 0 };
                *page = again;
                if self.is_sound(page, at, report) {
                    continue;
                }
                if same >= patience {
                    report.damaged.push((self.block(at), self.describe(page, at)));
                } else {
                    open.push((index, same));
                }
            }
            suspects = open;
        }
        // Never twice the same and never sound: what writes there is not the server.
        for (index, _) in suspects {
            let at = offset + (index * PAGE_BYTES) as u64;
            let Some(page) = pages.get(index) else { continue };
            report.damaged.push((self.block(at), self.describe(page, at)));
        }
        Ok(())
    }

    fn state(&self, page: &Page, offset: u64) -> PageState {
        // Relations have at most 2^32 - 2 pages.
        check_page(page, self.block(offset) as u32, self.start)
    }

    fn is_sound(&self, page: &Page, offset: u64, report: &mut PageReport) -> bool {
        match self.state(page, offset) {
            PageState::New => true,
            PageState::Valid { lsn } if !self.horizon.is_beyond(lsn) => {
                report.verified += 1;
                true
            }
            PageState::Newer { lsn } if !self.horizon.is_beyond(lsn) => true,
            _ => false,
        }
    }

    fn describe(&self, page: &Page, offset: u64) -> String {
        match self.state(page, offset) {
            PageState::Mismatch { found, expected } => format!("its checksum is {found:04x}, its content has {expected:04x}"),
            PageState::NewWithContent => "it is marked as empty, but is not".to_owned(),
            PageState::Valid { lsn } | PageState::Newer { lsn } => {
                let known = Lsn(self.horizon.known.load(Ordering::Relaxed));
                format!("it says it was changed at {lsn}, but the server has only come to {known}")
            }
            PageState::New => "it is empty".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use std::io::Write as _;
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::pg::page_checksum::page_checksum;

    const START: Lsn = Lsn(1000);

    fn page(block: u32, lsn: u64, fill: u8) -> Page {
        let mut page = [fill; PAGE_BYTES];
        page[0..4].copy_from_slice(&((lsn >> 32) as u32).to_le_bytes());
        page[4..8].copy_from_slice(&(lsn as u32).to_le_bytes());
        page[14..16].copy_from_slice(&4000_u16.to_le_bytes());
        let sum = page_checksum(&page, block);
        page[8..10].copy_from_slice(&sum.to_le_bytes());
        page
    }

    struct Relation {
        file: tempfile::NamedTempFile,
    }

    impl Relation {
        fn new(pages: &[Page]) -> Self {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            for page in pages {
                file.write_all(page).unwrap();
            }
            Self { file }
        }

        /// Verifies what was read as `bytes`.
        fn verify(&self, bytes: &mut [u8], segment: u32, horizon: &Horizon<'_>) -> PageReport {
            let file = PageFile { file: self.file.as_file(), path: self.file.path(), segment, start: START, horizon };
            let mut report = PageReport::default();
            assert!(file.verify(bytes, 0, &mut report).is_ok());
            report
        }
    }

    fn at(lsn: u64) -> Horizon<'static> {
        Horizon::new(START, move || Ok(Some(Lsn(lsn))))
    }

    #[test]
    fn a_page_that_reads_well_the_second_time_was_torn_and_is_taken_as_it_is_then() {
        let (old, new) = (page(0, 500, 1), page(0, 600, 2));
        let relation = Relation::new(&[new, page(1, 700, 3)]);
        let mut read = [new, page(1, 700, 3)].concat();
        // The first half was written already, the second not yet.
        read[4096..8192].copy_from_slice(&old[4096..]);
        let report = relation.verify(&mut read, 0, &at(2000));
        assert_eq!((report.verified, report.damaged.len()), (2, 0));
        assert_eq!(&read[..8192], &new);
    }

    #[test]
    fn a_page_that_is_being_written_all_the_time_is_waited_for() {
        let (old, new) = (page(0, 500, 1), page(0, 600, 2));
        let relation = Relation::new(&[old]);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut file = relation.file.reopen().unwrap();
                let mut turn = false;
                while !done.load(Ordering::Relaxed) {
                    turn = !turn;
                    let page = if turn { new } else { old };
                    file.write_all_at(&page[..4096], 0).unwrap();
                    file.write_all_at(&page[4096..], 4096).unwrap();
                    std::thread::sleep(Duration::from_millis(1));
                }
                file.flush().unwrap();
            });
            let mut torn = old;
            torn[4096..].copy_from_slice(&new[4096..]);
            let report = relation.verify(&mut torn, 0, &at(2000));
            done.store(true, Ordering::Relaxed);
            writer.join().unwrap();
            assert_eq!((report.verified, report.damaged.len()), (1, 0));
            assert!(torn == old || torn == new);
        });
    }

    #[test]
    fn damage_is_named_with_its_place_in_the_relation_and_kept_as_it_is() {
        let mut bad = page(131_072 * 2 + 1, 500, 1);
        bad[5000] ^= 1;
        let good = page(131_072 * 2, 500, 1);
        let relation = Relation::new(&[good, bad]);
        let mut read = [good, bad].concat();
        let report = relation.verify(&mut read, 2, &at(2000));
        assert_eq!(report.verified, 1);
        assert_eq!(report.damaged.len(), 1);
        assert_eq!(report.damaged[0].0, 131_072 * 2 + 1);
        assert!(report.damaged[0].1.starts_with("its checksum is "), "{:?}", report.damaged);
        assert_eq!(read[8192..], bad);
    }

    #[test]
    fn newer_pages_are_left_to_replay_unless_they_are_from_the_future() {
        let mut newer = page(0, 1500, 1);
        newer[5000] ^= 1;
        let relation = Relation::new(&[newer]);
        let report = relation.verify(&mut newer.clone(), 0, &at(1500));
        assert_eq!((report.verified, report.damaged.len()), (0, 0));
        // The server has only come to 1400.
        for page in [newer, page(0, 1500, 1)] {
            let relation = Relation::new(&[page]);
            let report = relation.verify(&mut page.clone(), 0, &at(1400));
            assert_eq!(report.damaged.len(), 1);
            assert!(report.damaged[0].1.contains("only come to 0/578"), "{:?}", report.damaged);
        }
    }

    #[test]
    fn a_page_that_was_cut_off_meanwhile_is_no_damage() {
        let mut bad = page(0, 500, 1);
        bad[5000] ^= 1;
        let relation = Relation::new(&[]);
        let report = relation.verify(&mut bad, 0, &at(2000));
        assert_eq!((report.verified, report.damaged.len()), (0, 0));
    }
}
