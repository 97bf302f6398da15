//! Reading a server's files in passing: what was not in the page cache is not in it afterwards, and what was stays.
//!
//! A backup reads everything once. Kept in the cache, that would push out what the server reads again and again.
//! Reading past the cache would not do: it would read from the disk what the server has in memory.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::path::Path;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::{FsError, read_full_at};
use crate::limits::KIB;

/// `RWF_DONTCACHE`, which rustix has no name for: what a read brings into the cache is dropped after it, and what was
/// there stays. Linux 6.14 on ext4, XFS and Btrfs.
const DROP_BEHIND: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// No page is smaller.
const PAGE: u64 = 4 * KIB as u64;

/// Reads parts of one file, in ascending order as a rule.
#[derive(Debug)]
pub struct PassingReader<'a> {
    file: &'a File,
    path: &'a Path,
    way: Way,
    /// The range that is read ahead, and whether any of it was in the cache before.
    ahead: Option<(Range<u64>, bool)>,
}

/// How the cache is left as it was; the first that the kernel and the file system can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The kernel drops what it read, page by page.
    DropBehind,
    /// Before a range is read it is asked whether its beginning and its end are there; where neither is, the range is
    /// given up afterwards. Where some of it is, all of it is left. Asking has the kernel read the page; if that is
    /// done before the answer, as on a busy host, the page counts as having been there.
    Ask,
    /// Nothing is known of the cache, so it is left to the kernel.
    Leave,
}

impl<'a> PassingReader<'a> {
    /// Reads this file. `path` is for messages.
    pub fn new(file: &'a File, path: &'a Path) -> Self {
        Self { file, path, way: Way::DropBehind, ahead: None }
    }

    /// Reads at an offset until the buffer is full or the file ends; says how much was read. `next_bytes` after that
    /// will be asked for next, and may be read ahead.
    ///
    /// # Errors
    /// What the disk says.
    pub fn read_full_at(&mut self, buffer: &mut [u8], offset: u64, next_bytes: usize) -> Result<usize, FsError> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.way == Way::DropBehind {
            match self.drop_behind(buffer, offset) {
                Ok(Some(read)) => return Ok(read),
                Ok(None) => self.way = Way::Ask,
                Err(e) => return Err(FsError::new("read", self.path, e)),
            }
        }
        let range = offset..offset + buffer.len() as u64;
        let was_there = match self.ahead.take() {
            Some((ahead, was_there)) if ahead == range => was_there,
            _ => self.is_any_there(&range),
        };
        let next = range.end..range.end + next_bytes as u64;
        if !next.is_empty() && self.way == Way::Ask {
            let is_there = self.is_any_there(&next);
            if self.way == Way::Ask && !is_there {
                self.advise(&next, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
            }
            self.ahead = Some((next, is_there));
        }
        let read = read_full_at(self.file, self.path, buffer, offset)?;
        if self.way == Way::Ask && !was_there {
            self.advise(&range, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
        Ok(read)
    }

    /// `None` where that cannot be done.
    fn drop_behind(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match preadv2(self.file, &mut [IoSliceMut::new(rest)], offset + filled as u64, DROP_BEHIND) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(None),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(Some(filled))
    }

    /// Whether the beginning or the end of a range is in the cache. Asking brings in at most those two pages, and only
    /// without the readahead that the kernel would do for whoever reads from front to back: of what that brings in it
    /// could not be told whether it was there before.
    fn is_any_there(&mut self, range: &Range<u64>) -> bool {
        if self.way == Way::Ask {
            self.advise(&(0..0), PosixFadviseAdvice::POSIX_FADV_RANDOM);
        }
        [range.start, range.end.saturating_sub(1)].into_iter().any(|at| self.is_there(at))
    }

    fn is_there(&mut self, at: u64) -> bool {
        if self.way != Way::Ask {
            return false;
        }
        match preadv2(self.file, &mut [IoSliceMut::new(&mut [0])], at, ReadWriteFlags::NOWAIT) {
            // At the end of the file nothing is read.
            Ok(n) => n > 0,
            Err(Errno::AGAIN) => false,
            // Not known, whatever the reason: if it matters for reading, reading says so.
            Err(_) => {
                self.leave();
                false
            }
        }
    }

    /// From now on the kernel reads ahead as it likes.
    fn leave(&mut self) {
        self.way = Way::Leave;
        // Where it cannot even be told, it does what it did before.
        let _unknown = posix_fadvise(self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_NORMAL);
    }

    /// A length of 0 is the whole file.
    fn advise(&mut self, range: &Range<u64>, advice: PosixFadviseAdvice) {
        let len = (range.end - range.start).next_multiple_of(PAGE);
        if posix_fadvise(self.file, range.start.cast_signed(), len.cast_signed(), advice).is_err() {
            self.way = Way::Leave;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{EXTENT_BYTES, MIB};

    /// Of each page, whether it is in the cache.
    fn cached(file: &File, bytes: usize) -> Vec<bool> {
        posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM).unwrap();
        let is_there = |at: u64| preadv2(file, &mut [IoSliceMut::new(&mut [0])], at, ReadWriteFlags::NOWAIT).is_ok();
        (0..bytes as u64).step_by(PAGE as usize).map(is_there).collect()
    }

    /// A file of 4 MiB of which the cache holds `warm`, and nothing else.
    fn file_with(warm: &[Range<usize>]) -> (tempfile::NamedTempFile, Vec<u8>) {
        let place = tempfile::NamedTempFile::new_in(".").unwrap();
        let bytes: Vec<u8> = (0..4 * MIB).map(|at| (at * 7 + at / 4096) as u8).collect();
        std::fs::write(place.path(), &bytes).unwrap();
        let file = place.as_file();
        file.sync_all().unwrap();
        posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
        posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM).unwrap();
        for range in warm {
            let mut buffer = vec![0; range.len()];
            read_full_at(file, place.path(), &mut buffer, range.start as u64).unwrap();
        }
        (place, bytes)
    }

    /// Reads all of a file, `step` bytes at once, and says which way was gone in the end.
    fn read_all(place: &tempfile::NamedTempFile, expected: &[u8], way: Way, step: usize) -> Way {
        // As a backup: with a descriptor of its own.
        let file = File::open(place.path()).unwrap();
        let mut reader = PassingReader { way, ..PassingReader::new(&file, place.path()) };
        let mut read = Vec::new();
        while read.len() < expected.len() {
            let mut buffer = vec![0; step.min(expected.len() - read.len())];
            let next = step.min(expected.len() - read.len() - buffer.len());
            assert_eq!(reader.read_full_at(&mut buffer, read.len() as u64, next).unwrap(), buffer.len());
            read.extend(buffer);
        }
        assert!(read == expected);
        assert_eq!(reader.read_full_at(&mut [0; 9], expected.len() as u64 - 4, 7).unwrap(), 4, "beyond the end");
        reader.way
    }

    /// Which of the ways this kernel can go on this file system: these are tested.
    fn ways() -> Vec<Way> {
        let (place, bytes) = file_with(&[]);
        let mut ways = vec![Way::DropBehind, Way::Ask];
        ways.retain(|way| read_all(&place, &bytes, *way, MIB) == *way);
        ways
    }

    /// A kernel that is busy may keep a page, or have read one by the time it is asked whether it is there: it counts
    /// what is so once.
    #[track_caller]
    fn once(what: &str, attempt: impl Fn() -> Result<(), String>) {
        let mut failed = Err(String::new());
        let is_so = (0..20).any(|_| {
            failed = attempt();
            failed.is_ok()
        });
        assert!(is_so, "{what}: {failed:?}");
    }

    #[test]
    fn what_was_not_cached_is_not_afterwards() {
        for (way, step) in ways().into_iter().flat_map(|way| [(way, MIB), (way, 300 * KIB)]) {
            once(&format!("{way:?}, {step}"), || {
                let (place, bytes) = file_with(&[]);
                read_all(&place, &bytes, way, step);
                // The last read of all is of four bytes and reaches beyond the end.
                let left = cached(place.as_file(), bytes.len() - PAGE as usize);
                if left.contains(&true) { Err(format!("{left:?}")) } else { Ok(()) }
            });
        }
    }

    #[test]
    fn what_was_cached_stays() {
        let warm = [0..EXTENT_BYTES, MIB + 5 * EXTENT_BYTES..2 * MIB, 3 * MIB..4 * MIB];
        for way in ways() {
            once(&format!("{way:?}"), || {
                let (place, bytes) = file_with(&warm);
                read_all(&place, &bytes, way, MIB);
                let left = cached(place.as_file(), bytes.len());
                for (page, is_there) in left.into_iter().enumerate() {
                    let at = page * PAGE as usize;
                    let was_there = warm.iter().any(|range| range.contains(&at));
                    // What lies beside cached pages may stay where the kernel cannot tell them apart.
                    let may_stay = way == Way::Ask && !(2 * MIB..3 * MIB).contains(&at);
                    if is_there != was_there && !(may_stay && is_there) {
                        return Err(format!("{at} is there: {is_there}"));
                    }
                }
                Ok(())
            });
        }
    }

    #[test]
    fn where_nothing_is_known_it_is_read_as_usual() {
        // Memory has no disk below it.
        let Ok(place) = tempfile::NamedTempFile::new_in("/dev/shm") else { return };
        let bytes = vec![7; 2 * MIB + 77];
        std::fs::write(place.path(), &bytes).unwrap();
        for way in [Way::DropBehind, Way::Ask, Way::Leave] {
            read_all(&place, &bytes, way, MIB);
        }
    }
}
