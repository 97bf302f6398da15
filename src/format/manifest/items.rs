//! One item of a manifest: a directory or a file, as bytes. The same in a manifest of version 1 and in a list of items.

use std::collections::HashMap;
use std::io;

use super::rules::{MAX_MODE, is_safe};
use super::{Content, DIRECTORY, DirectoryEntry, FILE_WITH_EXTENTS, FILE_WITH_TABLES, FileEntry, Item, PackUse, TableRef};
use crate::format::extent::{
    PackId, TableError, extents_in, put_extents, tables_in, take_array, take_extents, take_place_rest, take_u32,
};
use crate::limits::{MAX_INLINE_EXTENTS, MAX_MANIFEST_ITEM_BYTES, MAX_PATH_BYTES};
use crate::varint::{put_varint, take_varint, unzigzag, zigzag};

/// An item that no version of the format has.
pub(super) const ITEM: TableError = TableError::Invalid("an item breaks the rules of the format");
const BEYOND: TableError = TableError::Invalid("the content of a file would lie beyond the end of a pack");

/// What a manifest cannot hold.
pub(super) fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// The numbers that users, groups and packs have in what is written, by the order of their first use.
#[derive(Default)]
pub(super) struct Numbers {
    names: HashMap<String, u64>,
    /// The number, and bytes of the records that are referred to.
    packs: HashMap<PackId, (u64, u64)>,
}

impl Numbers {
    fn name(&mut self, name: &str) -> u64 {
        if let Some(number) = self.names.get(name) {
            return *number;
        }
        let number = self.names.len() as u64;
        self.names.insert(name.to_owned(), number);
        number
    }

    /// The number of a pack, of whose records so many bytes are referred to besides.
    pub(super) fn pack(&mut self, pack: PackId, bytes: u64) -> u64 {
        let next = self.packs.len() as u64;
        let known = self.packs.entry(pack).or_insert((next, 0));
        known.1 += bytes;
        known.0
    }

    /// Length of all names together.
    pub(super) fn name_bytes(&self) -> usize {
        self.names.keys().map(String::len).sum()
    }

    /// How many names and packs there are.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.names.len(), self.packs.len())
    }

    /// Forgets all but so many names and packs.
    pub(super) fn truncate(&mut self, (names, packs): (usize, usize)) {
        self.names.retain(|_, number| *number < names as u64);
        self.packs.retain(|_, (number, _)| *number < packs as u64);
    }

    /// Bytes of all records that are referred to.
    pub(super) fn live_bytes(&self) -> u64 {
        self.packs.values().map(|(_, live)| live).sum()
    }

    /// Adds the names as they are stored.
    pub(super) fn put_names(&self, out: &mut Vec<u8>) {
        let mut names: Vec<(u64, &str)> = self.names.iter().map(|(name, number)| (*number, name.as_str())).collect();
        names.sort_unstable();
        put_varint(out, names.len() as u64);
        for (_, name) in names {
            put_varint(out, name.len() as u64);
            out.extend_from_slice(name.as_bytes());
        }
    }

    /// The packs in the order of their numbers, with the bytes that are referred to.
    pub(super) fn packs(&self) -> Vec<(PackId, u64)> {
        let mut packs: Vec<(u64, PackId, u64)> =
            self.packs.iter().map(|(pack, (number, live))| (*number, *pack, *live)).collect();
        packs.sort_unstable();
        packs.into_iter().map(|(_, pack, live)| (pack, live)).collect()
    }
}

/// Adds an item to `out`; `before` is the path of the item in front of it.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] for what a manifest cannot hold; `out` has a part of it then.
pub(super) fn put_item(out: &mut Vec<u8>, before: &[u8], item: &Item, numbers: &mut Numbers) -> io::Result<()> {
    let path = item.path();
    if path.len() > MAX_PATH_BYTES {
        return Err(invalid("a path is longer than any system allows"));
    }
    let shared = path.iter().zip(before).take_while(|(a, b)| a == b).count();
    let (tag, mode, owner, group) = match item {
        Item::Directory(entry) => (DIRECTORY, entry.mode, &entry.owner, &entry.group),
        Item::File(entry) => {
            let tag = if matches!(entry.content, Content::Extents(_)) { FILE_WITH_EXTENTS } else { FILE_WITH_TABLES };
            (tag, entry.mode, &entry.owner, &entry.group)
        }
    };
    out.push(tag);
    put_varint(out, shared as u64);
    put_varint(out, (path.len() - shared) as u64);
    out.extend_from_slice(path.get(shared..).unwrap_or_default());
    put_varint(out, mode.into());
    put_varint(out, numbers.name(owner));
    put_varint(out, numbers.name(group));
    let Item::File(entry) = item else { return Ok(()) };
    put_varint(out, entry.size_bytes);
    put_varint(out, zigzag(entry.modified_unix_us));
    out.extend_from_slice(&entry.crc32c.to_le_bytes());
    match &entry.content {
        Content::Extents(extents) => {
            if extents.len() > MAX_INLINE_EXTENTS || extents.len() as u64 != extents_in(entry.size_bytes) {
                return Err(invalid("the number of extents is not that of the file"));
            }
            for stored in extents.iter().filter_map(|extent| extent.stored) {
                numbers.pack(stored.place.pack, stored.place.sealed_bytes.into());
            }
            put_extents(out, extents, &mut |pack| Some(numbers.pack(pack, 0)));
        }
        Content::Tables(tables) => {
            if tables.is_empty() || tables.len() as u64 != tables_in(entry.size_bytes) {
                return Err(invalid("the number of tables is not that of the file"));
            }
            for TableRef { place, crc32c } in tables {
                put_varint(out, numbers.pack(place.pack, place.sealed_bytes.into()));
                put_varint(out, place.offset.into());
                put_varint(out, place.sealed_bytes.into());
                out.extend_from_slice(&crc32c.to_le_bytes());
            }
        }
    }
    Ok(())
}

/// What the numbers in items mean.
#[derive(Clone, Copy)]
pub(super) struct Meaning<'a> {
    pub(super) names: &'a [String],
    pub(super) packs: &'a [PackUse],
    /// Whether somebody else may have written them.
    pub(super) is_foreign: bool,
}

/// Takes an item; `before` is the path of the one in front of it. `None` when bytes are missing, as far as that is
/// known.
pub(super) fn take_item(rest: &mut &[u8], meaning: Meaning<'_>, before: Option<&[u8]>) -> Option<Result<Item, TableError>> {
    let Meaning { names, packs, is_foreign } = meaning;
    let [tag] = *take_array(rest)?;
    let shared = take_varint(rest)?;
    let len = take_varint(rest)?;
    let Some(front) = usize::try_from(shared).ok().and_then(|shared| before.unwrap_or_default().get(..shared)) else {
        return Some(Err(ITEM));
    };
    if len > MAX_PATH_BYTES as u64 {
        return Some(Err(ITEM));
    }
    let path = [front, take_bytes(rest, len)?].concat();
    if path.len() > MAX_PATH_BYTES
        || !is_safe(&path)
        || before.is_some_and(|before| {
            path.as_slice() <= before || path.iter().zip(before).take_while(|(a, b)| a == b).count() != front.len()
        })
    {
        return Some(Err(TableError::Invalid("the path of an item is out of order or leads elsewhere")));
    }
    let mode = take_u32(rest)?;
    if mode > MAX_MODE {
        return Some(Err(ITEM));
    }
    let name = |index: u64| names.get(usize::try_from(index).ok()?).cloned();
    let (owner, group) = (take_varint(rest)?, take_varint(rest)?);
    let (Some(owner), Some(group)) = (name(owner), name(group)) else { return Some(Err(ITEM)) };
    if tag == DIRECTORY {
        return Some(Ok(Item::Directory(DirectoryEntry { path, mode, owner, group })));
    }
    let size_bytes = take_varint(rest)?;
    let modified_unix_us = unzigzag(take_varint(rest)?);
    let crc32c = u32::from_le_bytes(*take_array(rest)?);
    let used = |index: u64| packs.get(usize::try_from(index).ok()?);
    let content = match tag {
        FILE_WITH_EXTENTS if extents_in(size_bytes) <= MAX_INLINE_EXTENTS as u64 => {
            let mut unknown = false;
            let mut totals = Vec::new();
            let extents = take_extents(rest, size_bytes, extents_in(size_bytes), &mut |index| {
                unknown |= used(index).is_none();
                totals.extend(used(index).map(|used| used.total_bytes));
                used(index).map(|used| used.pack)
            });
            if unknown {
                return Some(Err(ITEM));
            }
            let extents = extents?;
            let ends = extents.iter().filter_map(|extent| extent.stored).map(|stored| stored.place.end());
            if is_foreign && ends.zip(totals).any(|(end, total)| end > total) {
                return Some(Err(BEYOND));
            }
            Content::Extents(extents)
        }
        FILE_WITH_TABLES if size_bytes > 0 && tables_in(size_bytes) <= (MAX_MANIFEST_ITEM_BYTES / 8) as u64 => {
            let mut tables = Vec::new();
            for _ in 0..tables_in(size_bytes) {
                let Some(used) = used(take_varint(rest)?) else { return Some(Err(ITEM)) };
                let offset = take_varint(rest)?;
                let place = take_place_rest(used.pack, offset, rest)?;
                if is_foreign && place.end() > used.total_bytes {
                    return Some(Err(BEYOND));
                }
                tables.push(TableRef { place, crc32c: u32::from_le_bytes(*take_array(rest)?) });
            }
            Content::Tables(tables)
        }
        _ => return Some(Err(ITEM)),
    };
    Some(Ok(Item::File(FileEntry { path, size_bytes, mode, owner, group, modified_unix_us, crc32c, content })))
}

/// The numbers in front of something of variable length say whether it is all there.
pub(super) fn take_bytes<'a>(rest: &mut &'a [u8], len: u64) -> Option<&'a [u8]> {
    let (front, after) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    *rest = after;
    Some(front)
}
