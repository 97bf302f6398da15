//! Reading lists of items: those of a manifest lie in few packs, in about the order in which they are needed. So some
//! megabytes of them are read together, in as few ranges as there are, several at once.

use super::extent_reader::span;
use super::pack_reader::PackReader;
use crate::codec::pack::RecordKind;
use crate::error::Error;
use crate::format::extent::RecordLocation;
use crate::limits::{CATALOG_READERS, LISTS_READ_BYTES, MAX_LIST_RANGE_BYTES};
use crate::threads::at_once;

/// Parts of the lists of a manifest that are read together.
pub(super) fn windows(places: &[RecordLocation]) -> impl Iterator<Item = &[RecordLocation]> {
    let mut rest = places;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |place: &&RecordLocation| {
            bytes += u64::from(place.sealed_bytes);
            bytes <= LISTS_READ_BYTES
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (window, after) = rest.split_at_checked(count)?;
        rest = after;
        Some(window)
    })
}

/// Reads lists, and gives their contents in the order of `places`. `read` is told of stored bytes.
///
/// # Errors
/// Damaged, also where a pack is gone or too short; denied, unreachable.
pub(super) fn read(
    packs: &PackReader<'_>,
    places: &[RecordLocation],
    read: &(dyn Fn(usize) + Sync),
) -> Result<Vec<Vec<u8>>, Error> {
    let mut wanted: Vec<(RecordLocation, usize)> = places.iter().copied().zip(0..).collect();
    wanted.sort_unstable();
    let mut ranges = Vec::new();
    let mut rest = wanted.as_slice();
    while let Some((count, until)) = span(rest.iter().map(|(place, _)| *place), MAX_LIST_RANGE_BYTES) {
        let (range, after) = rest.split_at(count);
        ranges.push((range, until));
        rest = after;
    }
    let mut contents = vec![Vec::new(); places.len()];
    for some in ranges.chunks(CATALOG_READERS) {
        for opened in at_once(some, CATALOG_READERS, |(range, until)| open_range(packs, range, *until, read)) {
            for (index, content) in opened? {
                if let Some(place) = contents.get_mut(index) {
                    *place = content;
                }
            }
        }
    }
    Ok(contents)
}

/// Reads one range: the content of each list with its index.
fn open_range(
    packs: &PackReader<'_>,
    range: &[(RecordLocation, usize)],
    until: u64,
    read: &(dyn Fn(usize) + Sync),
) -> Result<Vec<(usize, Vec<u8>)>, Error> {
    let Some((first, _)) = range.first() else { return Ok(Vec::new()) };
    let from = u64::from(first.offset);
    let mut sealed = packs.range(first.pack, from, until)?;
    read(sealed.len());
    let mut opened = Vec::with_capacity(range.len());
    for (place, index) in range {
        // A foreign manifest may name one twice, or two that overlap: what is opened in place is opened from a copy.
        let start = usize::try_from(u64::from(place.offset) - from).unwrap_or(usize::MAX);
        let record = sealed.get_mut(start..start.saturating_add(place.sealed_bytes as usize)).unwrap_or_default();
        let mut content = Vec::new();
        packs.open(RecordKind::Table, place, &mut record.to_vec(), None, &mut content)?;
        opened.push((*index, content));
    }
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::extent::{BackupId, PackId};

    fn at(offset: u32, sealed_bytes: u32) -> RecordLocation {
        let pack = PackId { backup: BackupId::new(1_790_000_000, 3).unwrap(), number: 0 };
        RecordLocation { pack, offset, sealed_bytes }
    }

    #[test]
    fn lists_are_read_in_parts_that_are_bounded_and_have_one_list_at_least() {
        let most = LISTS_READ_BYTES as u32;
        let places = [at(0, most - 1), at(0, 1), at(0, 1), at(0, most + 1), at(0, 2)];
        let counts: Vec<usize> = windows(&places).map(<[RecordLocation]>::len).collect();
        assert_eq!(counts, [2, 1, 1, 1]);
        assert_eq!(windows(&[]).count(), 0);
    }
}
