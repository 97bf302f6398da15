//! Reading what a backup's files consist of: tables and extents are read from packs in few ranges, authenticated, held
//! against what the manifest says of them, and handed over as plaintext.
//!
//! Lives here: which extents are read with one request, and the check of each. May not live here: what is done with the
//! content, such as writing files. May depend on the rest of `repo` and on what is below it.
//!
//! Memory: one range per reading thread; all ranges together take [`RANGES_MEMORY_BYTES`] where [`ExtentReader::new`]
//! is told how many threads there are.

use std::sync::atomic::{AtomicU64, Ordering};

use super::pack_reader::PackReader;
use crate::codec::pack::RecordKind;
use crate::error::{Error, Kind};
use crate::format::extent::{Extent, RecordLocation, StoredExtent, extent_bytes, extents_in};
use crate::format::manifest::TableRef;
use crate::fsio::DirectBuffer;
use crate::limits::{EXTENT_BYTES, EXTENTS_PER_TABLE, MAX_GAP_BYTES, MAX_RANGE_BYTES, MIN_RANGE_BYTES, RANGES_MEMORY_BYTES};

/// Reads tables and extents of one backup. Threads share one.
pub struct ExtentReader<'a> {
    packs: PackReader<'a>,
    hash_key: [u8; 32],
    max_range_bytes: u64,
    read_bytes: AtomicU64,
    requests: AtomicU64,
}

/// An extent that is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedExtent {
    /// The caller's number for what it belongs to.
    pub file: usize,
    /// Number of the extent in its file.
    pub index: u64,
    /// Length of its content.
    pub bytes: usize,
    /// CRC-32C of its content.
    pub crc32c: u32,
    /// Where it is, and its hash.
    pub stored: StoredExtent,
}

impl WantedExtent {
    /// Extent `index` of a file of `size_bytes`; `None` when it is zeros, which are stored nowhere.
    pub fn new(file: usize, size_bytes: u64, index: u64, extent: &Extent) -> Option<Self> {
        let stored = extent.stored?;
        Some(Self { file, index, bytes: extent_bytes(size_bytes, index), crc32c: extent.crc32c, stored })
    }
}

/// Extents of one pack that are read with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtentRange<'a> {
    /// In the order of their places; at least one.
    wanted: &'a [WantedExtent],
    /// Where the range ends.
    until: u64,
}

/// Takes extents one after the other.
pub trait TakeExtents {
    /// Memory for the content of an extent, as long as that is.
    ///
    /// # Errors
    /// Ends the reading.
    fn room(&mut self, wanted: &WantedExtent) -> Result<&mut [u8], Error>;

    /// The extent for which there was room last is in it now, and right; or the error that kept it from being read:
    /// then what is in it must not be used. Where a whole range cannot be read there was no room for its extents
    /// before.
    ///
    /// # Errors
    /// Ends the reading.
    fn take(&mut self, wanted: &WantedExtent, read: Result<(), Error>) -> Result<(), Error>;
}

/// Memory of a thread that reads extents: of one range, and of what is wanted several times.
#[derive(Debug, Default)]
pub struct ReadBuffers {
    range: DirectBuffer,
    content: Vec<u8>,
}

impl<'a> ExtentReader<'a> {
    /// A reader for `threads` threads. `hash_key` is the key of the backup's hashes.
    pub fn new(packs: PackReader<'a>, hash_key: [u8; 32], threads: usize) -> Self {
        let max_range_bytes = (RANGES_MEMORY_BYTES / threads.max(1) as u64).clamp(MIN_RANGE_BYTES, MAX_RANGE_BYTES);
        Self { packs, hash_key, max_range_bytes, read_bytes: AtomicU64::new(0), requests: AtomicU64::new(0) }
    }

    /// Bytes of tables and ranges that were read from packs so far.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    /// How many requests that took; those for the headers of packs do not count.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn count(&self, bytes: u64) {
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether this is the content of an extent. Zeros are the content of one that is stored nowhere.
    pub fn is_content_of(&self, extent: &Extent, content: &[u8]) -> bool {
        match &extent.stored {
            Some(stored) => self.fits(content, extent.crc32c, stored),
            None => is_zeros(content),
        }
    }

    fn fits(&self, content: &[u8], crc32c: u32, stored: &StoredExtent) -> bool {
        let hash = blake3::keyed_hash(&self.hash_key, content);
        crc32c::crc32c(content) == crc32c && hash.as_bytes().first_chunk() == Some(&stored.hash)
    }

    /// The extents that a table lists: it describes the piece of a file of `size_bytes` that begins with extent number
    /// `first`.
    ///
    /// # Errors
    /// Damaged, also when it is the table of something else; denied, unreachable.
    pub fn table(&self, reference: &TableRef, size_bytes: u64, first: u64) -> Result<Vec<Extent>, Error> {
        let table = self.packs.table(&reference.place)?;
        self.count(reference.place.sealed_bytes.into());
        let left = size_bytes.saturating_sub(first.saturating_mul(EXTENT_BYTES as u64));
        let expected = left.min((EXTENTS_PER_TABLE * EXTENT_BYTES) as u64);
        if table.bytes != expected || table.extents.len() as u64 != extents_in(expected) || table.crc32c() != reference.crc32c {
            let pack = reference.place.pack;
            return Err(not_what_it_should_be(format!("the table of extents in pack {pack} is not the one of this piece")));
        }
        Ok(table.extents)
    }

    /// Sorts extents by their places and says which are read together. Those of one file stay in order where they lie
    /// in order.
    pub fn ranges<'w>(&self, wanted: &'w mut [WantedExtent]) -> impl Iterator<Item = ExtentRange<'w>> + use<'w> {
        wanted.sort_unstable_by_key(|wanted| (wanted.stored.place, wanted.file, wanted.index));
        let (mut rest, limit): (&'w [WantedExtent], u64) = (wanted, self.max_range_bytes);
        std::iter::from_fn(move || {
            let range = first_range(rest, limit)?;
            rest = rest.get(range.wanted.len()..).unwrap_or_default();
            Some(range)
        })
    }

    /// Reads a range, and gives `to` the content of each of its extents, in the order of their places, or the error
    /// that kept it from being read: damaged, also where the pack is gone or too short; denied, unreachable. It decides
    /// whether to go on after it.
    ///
    /// # Errors
    /// As those of `to`.
    pub fn read(&self, range: ExtentRange<'_>, buffers: &mut ReadBuffers, to: &mut dyn TakeExtents) -> Result<(), Error> {
        let Some(first) = range.wanted.first() else { return Ok(()) };
        let from = u64::from(first.stored.place.offset);
        let ReadBuffers { range: buffer, content } = buffers;
        let sealed = match self.packs.range_in(first.stored.place.pack, from, range.until, buffer) {
            Ok(sealed) => sealed,
            Err(error) => return range.wanted.iter().try_for_each(|wanted| to.take(wanted, Err(same(&error)))),
        };
        self.count(sealed.len() as u64);
        let is_same = |a: &WantedExtent, b: &WantedExtent| (a.stored.place, a.bytes) == (b.stored.place, b.bytes);
        for group in range.wanted.chunk_by(is_same) {
            let Some(first) = group.first() else { continue };
            let place = first.stored.place;
            let start = usize::try_from(u64::from(place.offset) - from).unwrap_or(usize::MAX);
            let record = sealed.get_mut(start..start.saturating_add(place.sealed_bytes as usize)).unwrap_or_default();
            if let [wanted] = group {
                let room = to.room(wanted)?;
                let opened = self.packs.open_into(RecordKind::Extent, &place, record, room);
                let read = opened.and_then(|()| self.check(wanted, room));
                to.take(wanted, read)?;
                continue;
            }
            // Opened once: that happens in place.
            content.resize(first.bytes, 0);
            let opened = self.packs.open_into(RecordKind::Extent, &place, record, content);
            for wanted in group {
                let read = match &opened {
                    Ok(()) => self.check(wanted, content),
                    Err(error) => Err(same(error)),
                };
                to.room(wanted)?.copy_from_slice(content);
                to.take(wanted, read)?;
            }
        }
        Ok(())
    }

    /// Whether what was read is what is wanted.
    fn check(&self, wanted: &WantedExtent, content: &[u8]) -> Result<(), Error> {
        if self.fits(content, wanted.crc32c, &wanted.stored) {
            return Ok(());
        }
        let pack = wanted.stored.place.pack;
        Err(not_what_it_should_be(format!("extent {} in pack {pack} is not what the backup says it is", wanted.index)))
    }

    /// Reads the content of a small file: `extents` are all of its extents.
    ///
    /// # Errors
    /// Damaged, denied, unreachable.
    pub fn content(&self, size_bytes: u64, extents: &[Extent]) -> Result<Vec<u8>, Error> {
        let bytes = usize::try_from(size_bytes).unwrap_or(usize::MAX).min(extents.len() * EXTENT_BYTES);
        let mut content = InMemory { bytes: vec![0; bytes] };
        let wanted = (0..).zip(extents).filter_map(|(index, extent)| WantedExtent::new(0, size_bytes, index, extent));
        let (mut wanted, mut buffers) = (wanted.collect::<Vec<_>>(), ReadBuffers::default());
        for range in self.ranges(&mut wanted) {
            self.read(range, &mut buffers, &mut content)?;
        }
        Ok(content.bytes)
    }
}

/// A small file.
struct InMemory {
    bytes: Vec<u8>,
}

impl TakeExtents for InMemory {
    fn room(&mut self, wanted: &WantedExtent) -> Result<&mut [u8], Error> {
        let start = usize::try_from(wanted.index).unwrap_or(usize::MAX).saturating_mul(EXTENT_BYTES);
        let room = self.bytes.get_mut(start..start.saturating_add(wanted.bytes));
        room.ok_or_else(|| not_what_it_should_be("an extent lies beyond the end of its file".to_owned()))
    }

    fn take(&mut self, _: &WantedExtent, read: Result<(), Error>) -> Result<(), Error> {
        read
    }
}

/// The first of the extents, sorted by place, that are read together; `None` when there are none.
fn first_range(wanted: &[WantedExtent], limit: u64) -> Option<ExtentRange<'_>> {
    let (count, until) = span(wanted.iter().map(|wanted| wanted.stored.place), limit)?;
    Some(ExtentRange { wanted: wanted.get(..count)?, until })
}

/// How many of these records, sorted by place, are read with one request of at most `limit` bytes, at least one, and
/// where their range ends; `None` when there are none.
pub(super) fn span(mut places: impl Iterator<Item = RecordLocation>, limit: u64) -> Option<(usize, u64)> {
    let first = places.next()?;
    let (mut count, mut until) = (1, first.end());
    for next in places {
        let end = until.max(next.end());
        if next.pack != first.pack || u64::from(next.offset) > until + MAX_GAP_BYTES || end - u64::from(first.offset) > limit {
            break;
        }
        (count, until) = (count + 1, end);
    }
    Some((count, until))
}

fn is_zeros(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

/// What was read is authentic, and yet not what the manifest refers to.
fn not_what_it_should_be(what: String) -> Error {
    Error::new(Kind::Damaged, what).hint("restore another backup, and please report this: what was read is authentic")
}

/// The same error for another extent of a range.
fn same(error: &Error) -> Error {
    Error { kind: error.kind, what: error.what.clone(), hint: error.hint.clone(), detail: error.detail.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::extent::{BackupId, PackId};

    fn at(number: u32, offset: u32, sealed_bytes: u32) -> WantedExtent {
        let pack = PackId { backup: BackupId::new(1_790_000_000, 3).unwrap(), number };
        let stored = StoredExtent { hash: [0; 16], place: RecordLocation { pack, offset, sealed_bytes } };
        WantedExtent { file: 0, index: 0, bytes: 0, stored, crc32c: 0 }
    }

    #[test]
    fn ranges_span_small_gaps_of_one_pack() {
        let gap = MAX_GAP_BYTES as u32;
        let wants = [at(0, 100, 50), at(0, 150, 50), at(0, 200 + gap, 10), at(0, 300 + 2 * gap, 10), at(1, 0, 7)];
        let range = |wanted, limit| first_range(wanted, limit).map_or((0, 0), |range| (range.wanted.len(), range.until));
        assert_eq!(range(&wants, 1 << 23), (3, u64::from(210 + gap)));
        assert_eq!(range(&wants[3..], 1 << 23), (1, u64::from(310 + 2 * gap)));
        assert_eq!(range(&wants[4..], 1 << 23), (1, 7));
        assert_eq!(range(&wants, 100), (2, 200));
        assert_eq!(range(&wants, 1), (1, 150), "one extent at least");
        assert_eq!(range(&[], 1), (0, 0));
    }

    #[test]
    fn zeros_are_told() {
        let mut bytes = vec![0; 1003];
        assert!(is_zeros(&bytes) && is_zeros(&[]));
        for at in [0, 15, 16, 1002] {
            bytes[at] = 1;
            assert!(!is_zeros(&bytes));
            bytes[at] = 0;
        }
    }
}
