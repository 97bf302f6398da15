//! Lists of items: the directories and files of a manifest in parts, each stored by itself, so that a backup refers to
//! those that its parent has as they are. An idle cluster of a hundred thousand files has a manifest of some kilobytes
//! then, and yet every manifest names all that it needs.
//!
//! A list stands for itself: it has its own users, groups and packs, and its first path is whole. So the same items
//! are the same bytes. Where one list ends and the next one begins depends on paths alone, so a file that comes or goes
//! changes one list, rarely two.

use std::io;

use super::items::{Meaning, Numbers, invalid, put_item, take_bytes, take_item};
use super::{Content, Item, LIST_VERSION, PackUse};
use crate::format::extent::{PackId, TableError, take_array};
use crate::limits::{
    ITEMS_PER_LIST, MAX_LIST_BYTES, MAX_LISTED_TABLES, MAX_MANIFEST_NAMES, MAX_OWNER_NAME_BYTES, MIN_ITEM_BYTES,
};
use crate::varint::{put_varint, take_varint};

const LIST: TableError = TableError::Invalid("a list of its items breaks the rules of the format");

/// Puts items into lists.
#[derive(Default)]
pub struct ItemLists {
    numbers: Numbers,
    items: u64,
    body: Vec<u8>,
    path: Vec<u8>,
}

impl ItemLists {
    /// Whether an item can be in a list at all: one of a file of more than 64 GiB, which no relation's is, may not fit.
    pub fn can_hold(item: &Item) -> bool {
        !matches!(item, Item::File(file) if matches!(&file.content, Content::Tables(tables) if tables.len() > MAX_LISTED_TABLES))
    }

    /// Adds the next item. Gives the list in front of it, if that ends there.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for what a manifest, or a list, cannot hold.
    pub fn add(&mut self, item: &Item) -> io::Result<Option<Vec<u8>>> {
        if self.items > 0 && ends_a_list(&self.path) {
            let ended = self.finish();
            self.append(item)?;
            return Ok(ended);
        }
        let (counts, len) = (self.numbers.counts(), self.body.len());
        self.append(item)?;
        if self.encoded_bytes() <= MAX_LIST_BYTES {
            return Ok(None);
        }
        // One too many.
        self.numbers.truncate(counts);
        self.body.truncate(len);
        self.items -= 1;
        let ended = self.finish();
        self.append(item)?;
        if self.encoded_bytes() > MAX_LIST_BYTES {
            return Err(invalid("an item is longer than a list of items"));
        }
        Ok(ended)
    }

    /// Ends the list, if there is one. What is added next begins another.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        if self.items == 0 {
            return None;
        }
        let mut list = vec![LIST_VERSION];
        self.numbers.put_names(&mut list);
        let packs = self.numbers.packs();
        put_varint(&mut list, packs.len() as u64);
        packs.into_iter().for_each(|(pack, _)| pack.put(&mut list));
        put_varint(&mut list, self.items);
        list.extend_from_slice(&self.body);
        *self = Self::default();
        Some(list)
    }

    fn append(&mut self, item: &Item) -> io::Result<()> {
        put_item(&mut self.body, &self.path, item, &mut self.numbers)?;
        self.path.clear();
        self.path.extend_from_slice(item.path());
        self.items += 1;
        Ok(())
    }

    /// An upper bound of the length of the list so far.
    fn encoded_bytes(&self) -> usize {
        const COUNTS: usize = 1 + 3 * 5;
        const PACK: usize = 12 + 5;
        let (names, packs) = self.numbers.counts();
        COUNTS + self.numbers.name_bytes() + names * 2 + packs * PACK + self.body.len()
    }
}

/// Whether a list ends after this path: one in [`ITEMS_PER_LIST`] does. It matters to nobody who reads lists, and
/// decides only how much two backups have in common.
fn ends_a_list(path: &[u8]) -> bool {
    crc32c::crc32c(path).is_multiple_of(ITEMS_PER_LIST)
}

/// Reads a list. `known` says what the manifest has of a pack: a list names no others.
pub(super) fn take_list(
    content: &[u8],
    known: &dyn Fn(PackId) -> Option<PackUse>,
    is_foreign: bool,
) -> Result<Vec<Item>, TableError> {
    let mut rest = content;
    match take_array::<1>(&mut rest) {
        Some([LIST_VERSION]) => {}
        Some([other]) => return Err(TableError::Newer(*other)),
        None => return Err(LIST),
    }
    let rest = &mut rest;
    let mut names: Vec<String> = Vec::new();
    for _ in 0..count(rest, MAX_MANIFEST_NAMES)? {
        let len = take_varint(rest).filter(|len| *len <= MAX_OWNER_NAME_BYTES as u64).ok_or(LIST)?;
        let name = take_bytes(rest, len).ok_or(LIST)?;
        names.push(String::from_utf8(name.to_vec()).map_err(|_| LIST)?);
    }
    let mut packs: Vec<PackUse> = Vec::new();
    for _ in 0..count(rest, MAX_LIST_BYTES)? {
        let pack = PackId::take(rest).ok_or(LIST)?;
        packs.push(known(pack).ok_or(TableError::Invalid("a list of its items names a pack that it does not"))?);
    }
    let meaning = Meaning { names: &names, packs: &packs, is_foreign };
    let mut items: Vec<Item> = Vec::new();
    for _ in 0..count(rest, MAX_LIST_BYTES / MIN_ITEM_BYTES)? {
        items.push(take_item(rest, meaning, items.last().map(Item::path)).ok_or(LIST)??);
    }
    if rest.is_empty() && !items.is_empty() { Ok(items) } else { Err(LIST) }
}

fn count(rest: &mut &[u8], most: usize) -> Result<u64, TableError> {
    take_varint(rest).filter(|count| *count <= most as u64).ok_or(LIST)
}
