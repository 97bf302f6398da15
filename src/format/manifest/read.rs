//! Bytes become a manifest.
//!
//! They are foreign: anybody who writes to a repository without encryption, or has its key, wrote them. So they are
//! parsed once, as they come; nothing is allocated on the word of a number; and what a stored manifest says is held
//! against [`Rules`] before anybody acts on it.

use super::rules::{MAX_MODE, Rules, directory_mode, file_mode, is_safe};
use super::{
    BackupFacts, BackupSummary, Content, DIRECTORY, DirectoryEntry, FILE_WITH_EXTENTS, FILE_WITH_TABLES, FileEntry, Item,
    ManifestHead, PackUse, TableRef, VERSION,
};
use crate::format::extent::{PackId, TableError, extents_in, tables_in, take_array, take_extents, take_place_rest, take_u32};
use crate::limits::{
    MAX_FACTS_BYTES, MAX_INLINE_EXTENTS, MAX_MANIFEST_HEAD_PART_BYTES, MAX_MANIFEST_ITEM_BYTES, MAX_MANIFEST_NAMES,
    MAX_MANIFEST_PACKS, MAX_OWNER_NAME_BYTES, MAX_PATH_BYTES,
};
use crate::varint::{take_varint, unzigzag};

/// Reads a manifest from bytes that come in chunks of any size.
#[derive(Default)]
pub struct ManifestReader {
    buffer: Vec<u8>,
    /// Of the buffer, what was taken already.
    taken: usize,
    beginning: Beginning,
    head: Option<ManifestHead>,
    path: Vec<u8>,
    read: u64,
    rules: Option<Rules>,
}

/// Shortest encoded item but that of the data directory itself: kind, common beginning, rest and its length, mode,
/// owner, group.
const MIN_ITEM_BYTES: u64 = 7;

const HEAD: TableError = TableError::Invalid("its head breaks the rules of the format");
const ITEM: TableError = TableError::Invalid("an item breaks the rules of the format");
const BEYOND: TableError = TableError::Invalid("the content of a file would lie beyond the end of a pack");

/// What parsing the front of the buffer gave.
enum Parsed<T> {
    Whole(T),
    /// More bytes are needed, or these are damaged.
    Incomplete,
}

impl ManifestReader {
    /// A reader of a manifest as a repository has it, of this many bytes: what breaks the rules of a backup is refused,
    /// and modes are those that a restore may give. The default reads what this process wrote itself, of which
    /// directories may be left out.
    pub fn of_backup(summary: &BackupSummary, plaintext_bytes: u64) -> Self {
        Self { rules: Some(Rules::new(summary, plaintext_bytes / MIN_ITEM_BYTES + 1)), ..Self::default() }
    }

    /// The head, once enough was fed.
    pub fn head(&self) -> Option<&ManifestHead> {
        self.head.as_ref()
    }

    /// Adds bytes; complete items can be taken then.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that were fed and not taken.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.buffer.len() - self.taken
    }

    /// The next item; `None` when more bytes have to be fed first.
    ///
    /// # Errors
    /// See [`TableError`].
    pub fn next_item(&mut self) -> Result<Option<Item>, TableError> {
        if self.head.is_none() {
            let mut rest = self.buffer.get(self.taken..).unwrap_or_default();
            let done = self.beginning.go_on(&mut rest);
            self.taken = self.buffer.len() - rest.len();
            if !done? {
                return Ok(None);
            }
            // The facts may have been long.
            self.buffer = rest.to_vec();
            self.taken = 0;
            let mut head = std::mem::take(&mut self.beginning).head()?;
            if let Some(rules) = &mut self.rules {
                rules.begin(&mut head).map_err(TableError::Invalid)?;
            }
            self.head = Some(head);
        }
        let Some(head) = &self.head else { return Ok(None) };
        let mut rest = self.buffer.get(self.taken..).unwrap_or_default();
        if self.read == head.items {
            return if rest.is_empty() { Ok(None) } else { Err(TableError::Invalid("bytes follow its last item")) };
        }
        let before = if self.read == 0 { None } else { Some(self.path.as_slice()) };
        match parse_item(&mut rest, head, before, self.rules.is_some())? {
            Parsed::Whole(mut item) => {
                if let Some(rules) = &mut self.rules {
                    rules.admit(&item).map_err(TableError::Invalid)?;
                    match &mut item {
                        Item::Directory(entry) => entry.mode = directory_mode(entry.mode),
                        Item::File(entry) => entry.mode = file_mode(entry.mode),
                    }
                }
                self.taken = self.buffer.len() - rest.len();
                self.read += 1;
                self.path.clear();
                self.path.extend_from_slice(item.path());
                Ok(Some(item))
            }
            Parsed::Incomplete if rest_is_too_long(&self.buffer, self.taken) => Err(ITEM),
            Parsed::Incomplete => Ok(None),
        }
    }

    /// Says that all bytes were fed, and gives the head.
    ///
    /// # Errors
    /// When items are missing.
    pub fn finish(self) -> Result<ManifestHead, TableError> {
        match self.head {
            Some(head) if self.read == head.items && self.taken == self.buffer.len() => Ok(head),
            _ => Err(TableError::Invalid("it is not complete")),
        }
    }
}

fn rest_is_too_long(buffer: &[u8], taken: usize) -> bool {
    buffer.len() - taken > MAX_MANIFEST_ITEM_BYTES
}

/// The head as far as it has come. Each part is parsed once, when all of it is there.
#[derive(Default)]
struct Beginning {
    step: Step,
    facts: Option<BackupFacts>,
    names: Vec<String>,
    packs: Vec<PackUse>,
    items: u64,
}

/// What comes next.
#[derive(Default, Clone, Copy)]
enum Step {
    #[default]
    Version,
    FactsLength,
    Facts(u64),
    NameCount,
    Names(u64),
    PackCount,
    Packs(u64),
    ItemCount,
    Done,
}

impl Beginning {
    /// Takes what is there; says whether the head is whole.
    fn go_on(&mut self, rest: &mut &[u8]) -> Result<bool, TableError> {
        loop {
            if matches!(self.step, Step::Done) {
                return Ok(true);
            }
            let mut ahead = *rest;
            let Some(next) = self.part(&mut ahead)? else {
                let limit = if matches!(self.step, Step::Facts(_)) { MAX_FACTS_BYTES } else { MAX_MANIFEST_HEAD_PART_BYTES };
                return if rest.len() > limit { Err(HEAD) } else { Ok(false) };
            };
            *rest = ahead;
            self.step = next;
        }
    }

    /// Takes one part and says what comes after it. `None` when bytes are missing, as far as that is known.
    fn part(&mut self, rest: &mut &[u8]) -> Result<Option<Step>, TableError> {
        macro_rules! or_more {
            ($value:expr) => {
                match $value {
                    Some(value) => value,
                    None => return Ok(None),
                }
            };
        }
        Ok(Some(match self.step {
            Step::Version => match or_more!(take_array::<1>(rest)) {
                [VERSION] => Step::FactsLength,
                [other] => return Err(TableError::Newer(*other)),
            },
            Step::FactsLength => Step::Facts(at_most(or_more!(take_varint(rest)), MAX_FACTS_BYTES)?),
            Step::Facts(len) => {
                let facts = or_more!(take_bytes(rest, len));
                let facts = serde_json::from_slice(facts);
                self.facts = Some(facts.map_err(|_| TableError::Invalid("its facts are not what belongs there"))?);
                Step::NameCount
            }
            Step::NameCount => Step::Names(at_most(or_more!(take_varint(rest)), MAX_MANIFEST_NAMES)?),
            Step::Names(0) => Step::PackCount,
            Step::Names(left) => {
                let len = at_most(or_more!(take_varint(rest)), MAX_OWNER_NAME_BYTES)?;
                self.names.push(String::from_utf8(or_more!(take_bytes(rest, len)).to_vec()).map_err(|_| HEAD)?);
                Step::Names(left - 1)
            }
            Step::PackCount => Step::Packs(at_most(or_more!(take_varint(rest)), MAX_MANIFEST_PACKS)?),
            Step::Packs(0) => Step::ItemCount,
            Step::Packs(left) => {
                let pack = or_more!(PackId::take(rest));
                let (live_bytes, total_bytes) = (or_more!(take_varint(rest)), or_more!(take_varint(rest)));
                self.packs.push(PackUse { pack, live_bytes, total_bytes });
                Step::Packs(left - 1)
            }
            Step::ItemCount => {
                self.items = or_more!(take_varint(rest));
                Step::Done
            }
            Step::Done => Step::Done,
        }))
    }

    fn head(self) -> Result<ManifestHead, TableError> {
        let Self { facts, names, packs, items, .. } = self;
        Ok(ManifestHead { facts: facts.ok_or(HEAD)?, packs, items, names })
    }
}

fn at_most(value: u64, limit: usize) -> Result<u64, TableError> {
    if value <= limit as u64 { Ok(value) } else { Err(HEAD) }
}

/// The numbers in front of something of variable length say whether it is all there.
fn take_bytes<'a>(rest: &mut &'a [u8], len: u64) -> Option<&'a [u8]> {
    let (front, after) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    *rest = after;
    Some(front)
}

fn parse_item(
    bytes: &mut &[u8],
    head: &ManifestHead,
    before: Option<&[u8]>,
    is_foreign: bool,
) -> Result<Parsed<Item>, TableError> {
    let mut rest = *bytes;
    match take_item(&mut rest, head, before, is_foreign) {
        Some(Ok(item)) => {
            *bytes = rest;
            Ok(Parsed::Whole(item))
        }
        Some(Err(error)) => Err(error),
        None => Ok(Parsed::Incomplete),
    }
}

/// `None` when bytes are missing, as far as that is known.
fn take_item(rest: &mut &[u8], head: &ManifestHead, before: Option<&[u8]>, is_foreign: bool) -> Option<Result<Item, TableError>> {
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
    let name = |index: u64| head.names.get(usize::try_from(index).ok()?).cloned();
    let (owner, group) = (take_varint(rest)?, take_varint(rest)?);
    let (Some(owner), Some(group)) = (name(owner), name(group)) else { return Some(Err(ITEM)) };
    if tag == DIRECTORY {
        return Some(Ok(Item::Directory(DirectoryEntry { path, mode, owner, group })));
    }
    let size_bytes = take_varint(rest)?;
    let modified_unix_us = unzigzag(take_varint(rest)?);
    let crc32c = u32::from_le_bytes(*take_array(rest)?);
    let used = |index: u64| head.packs.get(usize::try_from(index).ok()?);
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
