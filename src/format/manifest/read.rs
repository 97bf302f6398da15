//! Bytes become a manifest.
//!
//! They are foreign: anybody who writes to a repository without encryption, or has its key, wrote them. So they are
//! parsed once, as they come; nothing is allocated on the word of a number; and what a stored manifest says is held
//! against [`Rules`] before anybody acts on it.

use super::items::{ITEM, Meaning, take_bytes, take_item};
use super::lists::take_list;
use super::rules::{Rules, directory_mode, file_mode};
use super::{BackupFacts, BackupSummary, Item, ManifestHead, PackUse, VERSION, VERSION_WITH_LISTS};
use crate::format::extent::{PackId, RecordLocation, TableError, take_array, take_place_rest};
use crate::limits::{
    MAX_FACTS_BYTES, MAX_MANIFEST_HEAD_PART_BYTES, MAX_MANIFEST_ITEM_BYTES, MAX_MANIFEST_LISTS, MAX_MANIFEST_NAMES,
    MAX_MANIFEST_PACKS, MAX_OWNER_NAME_BYTES, MIN_ITEM_BYTES,
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
    /// The packs, sorted, once a list asks for one.
    totals: Option<Vec<PackUse>>,
}

const HEAD: TableError = TableError::Invalid("its head breaks the rules of the format");
const ORDER: TableError = TableError::Invalid("the path of an item is out of order or leads elsewhere");

impl ManifestReader {
    /// A reader of a manifest as a repository has it, of this many bytes: what breaks the rules of a backup is refused,
    /// and modes are those that a restore may give. The default reads what this process wrote itself, of which
    /// directories may be left out.
    pub fn of_backup(summary: &BackupSummary, plaintext_bytes: u64) -> Self {
        Self { rules: Some(Rules::new(summary, plaintext_bytes / MIN_ITEM_BYTES as u64 + 1)), ..Self::default() }
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

    /// The next item; `None` when more bytes have to be fed first, or the items are in lists.
    ///
    /// # Errors
    /// See [`TableError`].
    pub fn next_item(&mut self) -> Result<Option<Item>, TableError> {
        if !self.begin()? {
            return Ok(None);
        }
        let Some(head) = &self.head else { return Ok(None) };
        let mut rest = self.buffer.get(self.taken..).unwrap_or_default();
        if self.read == head.items || !head.lists.is_empty() {
            return if rest.is_empty() { Ok(None) } else { Err(TableError::Invalid("bytes follow its last item")) };
        }
        let before = if self.read == 0 { None } else { Some(self.path.as_slice()) };
        let meaning = Meaning { names: &head.names, packs: &head.packs, is_foreign: self.rules.is_some() };
        match take_item(&mut rest, meaning, before) {
            Some(item) => {
                let item = item?;
                self.taken = self.buffer.len() - rest.len();
                self.admit(item).map(Some)
            }
            None if rest_is_too_long(&self.buffer, self.taken) => Err(ITEM),
            None => Ok(None),
        }
    }

    /// Takes the head, if all of it is there, and says whether it is known.
    ///
    /// # Errors
    /// See [`TableError`].
    pub fn begin(&mut self) -> Result<bool, TableError> {
        if self.head.is_some() {
            return Ok(true);
        }
        let mut rest = self.buffer.get(self.taken..).unwrap_or_default();
        let done = self.beginning.go_on(&mut rest);
        self.taken = self.buffer.len() - rest.len();
        if !done? {
            return Ok(false);
        }
        // The facts may have been long.
        self.buffer = rest.to_vec();
        self.taken = 0;
        let mut head = std::mem::take(&mut self.beginning).head()?;
        if let Some(rules) = &mut self.rules {
            rules.begin(&mut head).map_err(TableError::Invalid)?;
        }
        self.head = Some(head);
        Ok(true)
    }

    /// The items of the next of the [lists](ManifestHead::lists), which have to be given in their order.
    ///
    /// # Errors
    /// See [`TableError`].
    pub fn list(&mut self, content: &[u8]) -> Result<Vec<Item>, TableError> {
        let Some(head) = &self.head else { return Err(HEAD) };
        let totals = self.totals.get_or_insert_with(|| {
            let mut totals: Vec<PackUse> = head.packs.clone();
            totals.sort_unstable_by_key(|used| used.pack);
            totals
        });
        let known = |pack: PackId| {
            let at = totals.binary_search_by_key(&pack, |used| used.pack).ok()?;
            totals.get(at).copied()
        };
        let items = take_list(content, &known, self.rules.is_some())?;
        let first = items.first().map(Item::path).unwrap_or_default();
        if self.read > 0 && first <= self.path.as_slice() {
            return Err(ORDER);
        }
        items.into_iter().map(|item| self.admit(item)).collect()
    }

    /// Holds an item against the rules, and counts it.
    fn admit(&mut self, mut item: Item) -> Result<Item, TableError> {
        if let Some(rules) = &mut self.rules {
            rules.admit(&item).map_err(TableError::Invalid)?;
            match &mut item {
                Item::Directory(entry) => entry.mode = directory_mode(entry.mode),
                Item::File(entry) => entry.mode = file_mode(entry.mode),
            }
        }
        self.read += 1;
        self.path.clear();
        self.path.extend_from_slice(item.path());
        Ok(item)
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
    has_lists: bool,
    lists: Vec<RecordLocation>,
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
    ListCount,
    Lists(u64),
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
                [VERSION_WITH_LISTS] => {
                    self.has_lists = true;
                    Step::FactsLength
                }
                [other] => return Err(TableError::Newer(*other)),
            },
            Step::FactsLength => Step::Facts(at_most(or_more!(take_varint(rest)), MAX_FACTS_BYTES)?),
            Step::Facts(len) => {
                let facts = or_more!(take_bytes(rest, len));
                let facts = serde_json::from_slice(facts);
                self.facts = Some(facts.map_err(|_| TableError::Invalid("its facts are not what belongs there"))?);
                if self.has_lists { Step::PackCount } else { Step::NameCount }
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
                if self.has_lists { Step::ListCount } else { Step::Done }
            }
            Step::ListCount => match at_most(or_more!(take_varint(rest)), MAX_MANIFEST_LISTS)? {
                0 => return Err(HEAD),
                count => Step::Lists(count),
            },
            Step::Lists(0) => Step::Done,
            Step::Lists(left) => {
                let number = or_more!(take_varint(rest));
                let used = usize::try_from(number).ok().and_then(|number| self.packs.get(number)).ok_or(HEAD)?;
                let before = self.lists.last().filter(|before| before.pack == used.pack).map_or(0, RecordLocation::end);
                let offset = (before as i64).checked_add(unzigzag(or_more!(take_varint(rest)))).ok_or(HEAD)?;
                let place = or_more!(take_place_rest(used.pack, u64::try_from(offset).map_err(|_| HEAD)?, rest));
                if place.end() > used.total_bytes {
                    return Err(TableError::Invalid("a list of its items would lie beyond the end of a pack"));
                }
                self.lists.push(place);
                Step::Lists(left - 1)
            }
            Step::Done => Step::Done,
        }))
    }

    fn head(self) -> Result<ManifestHead, TableError> {
        let Self { facts, names, packs, items, lists, .. } = self;
        Ok(ManifestHead { facts: facts.ok_or(HEAD)?, packs, items, names, lists })
    }
}

fn at_most(value: u64, limit: usize) -> Result<u64, TableError> {
    if value <= limit as u64 { Ok(value) } else { Err(HEAD) }
}
