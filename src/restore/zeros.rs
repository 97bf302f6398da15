//! How much of the files of a backup is zeros: a restore leaves them out of new files, so they need no room.
//!
//! Lives here: counting them. May not live here: whether there is room ([`room`](super::room)).
//!
//! Of a short file the manifest says which extents are zeros; of a long one only tables in packs do, a request for each
//! GiB or so. These are asked only where there is no room otherwise.

use crate::error::Error;
use crate::format::extent::{Extent, extent_bytes};
use crate::format::manifest::{Content, FileEntry, Item, TableRef};
use crate::limits::{CATALOG_READERS, EXTENTS_PER_TABLE, TABLES_ASKED};
use crate::repo::backups::ExtentReader;
use crate::threads::at_once;
use std::collections::HashMap;

/// Bytes by tablespace; `None` is the data directory.
pub(crate) type Bytes = HashMap<Option<u32>, u64>;

/// The zeros of a file of which the manifest says it.
pub(crate) fn in_manifest(file: &FileEntry) -> u64 {
    match &file.content {
        Content::Extents(extents) => among(file.size_bytes, 0, extents),
        Content::Tables(_) => 0,
    }
}

/// Bytes of zeros among consecutive extents of a file.
fn among(size_bytes: u64, first: u64, extents: &[Extent]) -> u64 {
    let zeros = (first..).zip(extents).filter(|(_, extent)| extent.stored.is_none());
    zeros.fold(0, |sum, (index, _)| sum.saturating_add(extent_bytes(size_bytes, index) as u64))
}

/// A table, and of what.
struct Asked {
    of: Option<u32>,
    table: TableRef,
    size_bytes: u64,
    first: u64,
}

/// The zeros of those files of which only tables say it. `tablespace_of` is that of a path.
///
/// # Errors
/// As the manifest's; damaged, denied, unreachable.
pub(crate) fn in_tables(
    items: impl Iterator<Item = Result<Item, Error>>,
    reader: &ExtentReader<'_>,
    tablespace_of: impl Fn(&[u8]) -> Option<u32>,
) -> Result<Bytes, Error> {
    let mut zeros = Bytes::new();
    let mut asked: Vec<Asked> = Vec::new();
    let mut ask = |asked: &mut Vec<Asked>| {
        let count = |one: &Asked| {
            let extents = reader.table(&one.table, one.size_bytes, one.first)?;
            Ok(among(one.size_bytes, one.first, &extents))
        };
        for (one, found) in asked.iter().zip(at_once(asked, CATALOG_READERS, count)) {
            let sum = zeros.entry(one.of).or_default();
            *sum = sum.saturating_add(found?);
        }
        asked.clear();
        Ok::<(), Error>(())
    };
    for item in items {
        let Item::File(FileEntry { path, size_bytes, content: Content::Tables(tables), .. }) = item? else { continue };
        let of = tablespace_of(&path);
        for (first, table) in (0..).step_by(EXTENTS_PER_TABLE).zip(tables) {
            asked.push(Asked { of, table, size_bytes, first });
            if asked.len() >= TABLES_ASKED {
                ask(&mut asked)?;
            }
        }
    }
    ask(&mut asked)?;
    Ok(zeros)
}
