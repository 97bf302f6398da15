//! A manifest becomes bytes.

use std::io::{self, Write};

use super::items::{Numbers, invalid, put_item};
use super::{BackupFacts, Item, VERSION, VERSION_WITH_LISTS};
use crate::format::extent::{PackId, RecordLocation};
use crate::limits::{MAX_FACTS_BYTES, MAX_MANIFEST_LISTS, MAX_MANIFEST_NAMES, MAX_MANIFEST_PACKS};
use crate::varint::{put_varint, zigzag};

/// Writes a manifest: the items into a sink as they come, then the head, which belongs in front of them.
pub struct ManifestWriter<W> {
    sink: W,
    buffer: Vec<u8>,
    path: Vec<u8>,
    items: u64,
    item_bytes: u64,
    numbers: Numbers,
}

impl<W: Write> ManifestWriter<W> {
    /// Writes items into `sink`.
    pub fn new(sink: W) -> Self {
        Self { sink, buffer: Vec::new(), path: Vec::new(), items: 0, item_bytes: 0, numbers: Numbers::default() }
    }

    /// Adds an item; they come in the order of their paths, byte by byte, none twice. `table_uses` are the records to
    /// which the tables of a file refer, each pack with the sum of their lengths: without them nobody would know that
    /// the backup needs them.
    ///
    /// # Errors
    /// When the sink fails; [`io::ErrorKind::InvalidInput`] for what a manifest cannot hold.
    pub fn add(&mut self, item: &Item, table_uses: &[(PackId, u64)]) -> io::Result<()> {
        let path = item.path();
        if self.items > 0 && path <= self.path.as_slice() {
            return Err(invalid("items of a manifest out of order"));
        }
        self.items += 1;
        self.buffer.clear();
        put_item(&mut self.buffer, &self.path, item, &mut self.numbers)?;
        for (pack, bytes) in table_uses {
            self.numbers.pack(*pack, *bytes);
        }
        self.path.clear();
        self.path.extend_from_slice(path);
        self.item_bytes += self.buffer.len() as u64;
        self.sink.write_all(&self.buffer)
    }

    /// What the items so far use of each pack, in bytes.
    pub fn live_bytes(&self) -> u64 {
        self.numbers.live_bytes()
    }

    /// Length of the items so far.
    pub fn item_bytes(&self) -> u64 {
        self.item_bytes
    }

    /// Ends the items, and makes the head that belongs in front of them: [`end`](Self::end), then
    /// [`head`](ManifestItems::head).
    ///
    /// # Errors
    /// As these.
    pub fn finish(self, facts: &BackupFacts, total: impl Fn(PackId) -> Option<u64>) -> io::Result<(W, Vec<u8>)> {
        let (sink, items) = self.end()?;
        Ok((sink, items.head(facts, total)?))
    }

    /// Ends the items.
    ///
    /// # Errors
    /// When the sink fails.
    pub fn end(mut self) -> io::Result<(W, ManifestItems)> {
        self.sink.flush()?;
        Ok((self.sink, ManifestItems { items: self.items, numbers: self.numbers }))
    }
}

/// The items of a manifest that were written: how many, and what they refer to.
pub struct ManifestItems {
    items: u64,
    numbers: Numbers,
}

impl ManifestItems {
    /// What they use of each pack, in bytes.
    pub fn live_bytes(&self) -> u64 {
        self.numbers.live_bytes()
    }

    /// The head that belongs in front of them. `total` says how long all records of a pack are.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] when `total` does not know a pack, or a reader would refuse the head.
    pub fn head(&self, facts: &BackupFacts, total: impl Fn(PackId) -> Option<u64>) -> io::Result<Vec<u8>> {
        let mut head = encode_facts(VERSION, facts)?;
        if self.numbers.counts().0 > MAX_MANIFEST_NAMES {
            return Err(invalid("files belong to more users and groups than a manifest has room for"));
        }
        self.numbers.put_names(&mut head);
        self.put_packs(&mut head, total)?;
        put_varint(&mut head, self.items);
        Ok(head)
    }

    /// The whole of a manifest whose items are in these lists. `total` as above.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] as above.
    pub fn in_lists(
        mut self,
        lists: &[RecordLocation],
        facts: &BackupFacts,
        total: impl Fn(PackId) -> Option<u64>,
    ) -> io::Result<Vec<u8>> {
        if lists.is_empty() || lists.len() > MAX_MANIFEST_LISTS {
            return Err(invalid("there are more lists of items than a manifest has room for, or none"));
        }
        let numbers: Vec<u64> = lists.iter().map(|place| self.numbers.pack(place.pack, place.sealed_bytes.into())).collect();
        let mut whole = encode_facts(VERSION_WITH_LISTS, facts)?;
        self.put_packs(&mut whole, total)?;
        put_varint(&mut whole, self.items);
        put_varint(&mut whole, lists.len() as u64);
        let mut before: Option<&RecordLocation> = None;
        for (number, place) in numbers.into_iter().zip(lists) {
            let expected = before.filter(|before| before.pack == place.pack).map_or(0, RecordLocation::end);
            put_varint(&mut whole, number);
            put_varint(&mut whole, zigzag(i64::from(place.offset) - expected as i64));
            put_varint(&mut whole, place.sealed_bytes.into());
            before = Some(place);
        }
        Ok(whole)
    }

    fn put_packs(&self, head: &mut Vec<u8>, total: impl Fn(PackId) -> Option<u64>) -> io::Result<()> {
        let packs = self.numbers.packs();
        if packs.len() > MAX_MANIFEST_PACKS {
            return Err(invalid("files lie in more packs than a manifest has room for"));
        }
        put_varint(head, packs.len() as u64);
        for (pack, live) in packs {
            let total = total(pack).ok_or_else(|| invalid("a manifest refers to a pack that nobody knows"))?;
            pack.put(head);
            put_varint(head, live);
            put_varint(head, total);
        }
        Ok(())
    }
}

/// Version and facts.
fn encode_facts(version: u8, facts: &BackupFacts) -> io::Result<Vec<u8>> {
    if !facts.fits() {
        return Err(invalid("there are more databases, tablespaces, annotations or warnings than a manifest has room for"));
    }
    let facts = serde_json::to_vec(facts).map_err(io::Error::other)?;
    if facts.len() > MAX_FACTS_BYTES {
        return Err(invalid("databases, annotations and warnings take more room than a manifest has"));
    }
    let mut head = vec![version];
    put_varint(&mut head, facts.len() as u64);
    head.extend_from_slice(&facts);
    Ok(head)
}
