//! A manifest becomes bytes.

use std::collections::HashMap;
use std::io::{self, Write};

use super::{BackupFacts, Content, DIRECTORY, FILE_WITH_EXTENTS, FILE_WITH_TABLES, Item, TableRef, VERSION};
use crate::format::extent::{PackId, extents_in, put_extents, tables_in};
use crate::limits::{MAX_FACTS_BYTES, MAX_INLINE_EXTENTS, MAX_MANIFEST_NAMES, MAX_MANIFEST_PACKS, MAX_PATH_BYTES};
use crate::varint::{put_varint, zigzag};

/// Writes a manifest: the items into a sink as they come, then the head, which belongs in front of them.
pub struct ManifestWriter<W> {
    sink: W,
    buffer: Vec<u8>,
    path: Vec<u8>,
    items: u64,
    names: HashMap<String, u64>,
    packs: HashMap<PackId, (u64, u64)>,
}

impl<W: Write> ManifestWriter<W> {
    /// Writes items into `sink`.
    pub fn new(sink: W) -> Self {
        Self { sink, buffer: Vec::new(), path: Vec::new(), items: 0, names: HashMap::new(), packs: HashMap::new() }
    }

    /// Adds an item; they come in the order of their paths, byte by byte, none twice. `table_uses` are the records to
    /// which the tables of a file refer, each pack with the sum of their lengths: without them nobody would know that
    /// the backup needs them.
    ///
    /// # Errors
    /// When the sink fails; [`io::ErrorKind::InvalidInput`] for what a manifest cannot hold.
    pub fn add(&mut self, item: &Item, table_uses: &[(PackId, u64)]) -> io::Result<()> {
        let invalid = |what: &'static str| io::Error::new(io::ErrorKind::InvalidInput, what);
        let path = item.path();
        if path.len() > MAX_PATH_BYTES {
            return Err(invalid("a path is longer than any system allows"));
        }
        if self.items > 0 && path <= self.path.as_slice() {
            return Err(invalid("items of a manifest out of order"));
        }
        self.items += 1;
        self.buffer.clear();
        let shared = path.iter().zip(&self.path).take_while(|(a, b)| a == b).count();
        let (tag, mode, owner, group) = match item {
            Item::Directory(entry) => (DIRECTORY, entry.mode, &entry.owner, &entry.group),
            Item::File(entry) => {
                let tag = if matches!(entry.content, Content::Extents(_)) { FILE_WITH_EXTENTS } else { FILE_WITH_TABLES };
                (tag, entry.mode, &entry.owner, &entry.group)
            }
        };
        self.buffer.push(tag);
        put_varint(&mut self.buffer, shared as u64);
        put_varint(&mut self.buffer, (path.len() - shared) as u64);
        self.buffer.extend_from_slice(path.get(shared..).unwrap_or_default());
        put_varint(&mut self.buffer, mode.into());
        let (owner, group) = (self.name(owner), self.name(group));
        put_varint(&mut self.buffer, owner);
        put_varint(&mut self.buffer, group);
        if let Item::File(entry) = item {
            put_varint(&mut self.buffer, entry.size_bytes);
            put_varint(&mut self.buffer, zigzag(entry.modified_unix_us));
            self.buffer.extend_from_slice(&entry.crc32c.to_le_bytes());
            let packs = &mut self.packs;
            let mut index_of = |pack: PackId, bytes: u64| {
                let next = packs.len() as u64;
                let known = packs.entry(pack).or_insert((next, 0));
                known.1 += bytes;
                known.0
            };
            match &entry.content {
                Content::Extents(extents) => {
                    if extents.len() > MAX_INLINE_EXTENTS || extents.len() as u64 != extents_in(entry.size_bytes) {
                        return Err(invalid("the number of extents is not that of the file"));
                    }
                    for stored in extents.iter().filter_map(|extent| extent.stored) {
                        index_of(stored.place.pack, stored.place.sealed_bytes.into());
                    }
                    put_extents(&mut self.buffer, extents, &mut |pack| Some(index_of(pack, 0)));
                }
                Content::Tables(tables) => {
                    if tables.is_empty() || tables.len() as u64 != tables_in(entry.size_bytes) {
                        return Err(invalid("the number of tables is not that of the file"));
                    }
                    for TableRef { place, crc32c } in tables {
                        put_varint(&mut self.buffer, index_of(place.pack, place.sealed_bytes.into()));
                        put_varint(&mut self.buffer, place.offset.into());
                        put_varint(&mut self.buffer, place.sealed_bytes.into());
                        self.buffer.extend_from_slice(&crc32c.to_le_bytes());
                    }
                }
            }
            for (pack, bytes) in table_uses {
                index_of(*pack, *bytes);
            }
        }
        self.path.clear();
        self.path.extend_from_slice(path);
        self.sink.write_all(&self.buffer)
    }

    fn name(&mut self, name: &str) -> u64 {
        if let Some(index) = self.names.get(name) {
            return *index;
        }
        let index = self.names.len() as u64;
        self.names.insert(name.to_owned(), index);
        index
    }

    /// What the items so far use of each pack, in bytes.
    pub fn live_bytes(&self) -> u64 {
        self.packs.values().map(|(_, live)| live).sum()
    }

    /// Ends the items, and makes the head that belongs in front of them. `total` says how long all records of a pack
    /// are.
    ///
    /// # Errors
    /// When the sink fails; [`io::ErrorKind::InvalidInput`] when `total` does not know a pack, or a reader would refuse
    /// the head.
    pub fn finish(mut self, facts: &BackupFacts, total: impl Fn(PackId) -> Option<u64>) -> io::Result<(W, Vec<u8>)> {
        let invalid = |what: &'static str| io::Error::new(io::ErrorKind::InvalidInput, what);
        self.sink.flush()?;
        if !facts.fits() {
            return Err(invalid("there are more databases, tablespaces, annotations or warnings than a manifest has room for"));
        }
        let facts = serde_json::to_vec(facts).map_err(io::Error::other)?;
        if facts.len() > MAX_FACTS_BYTES {
            return Err(invalid("databases, annotations and warnings take more room than a manifest has"));
        }
        if self.names.len() > MAX_MANIFEST_NAMES || self.packs.len() > MAX_MANIFEST_PACKS {
            return Err(invalid("files belong to more users and groups, or lie in more packs, than a manifest has room for"));
        }
        let mut head = vec![VERSION];
        put_varint(&mut head, facts.len() as u64);
        head.extend_from_slice(&facts);
        let mut names: Vec<(u64, String)> = self.names.into_iter().map(|(name, index)| (index, name)).collect();
        names.sort_unstable();
        put_varint(&mut head, names.len() as u64);
        for (_, name) in names {
            put_varint(&mut head, name.len() as u64);
            head.extend_from_slice(name.as_bytes());
        }
        let mut packs: Vec<(u64, PackId, u64)> =
            self.packs.into_iter().map(|(pack, (index, live))| (index, pack, live)).collect();
        packs.sort_unstable();
        put_varint(&mut head, packs.len() as u64);
        for (_, pack, live) in packs {
            let total = total(pack).ok_or_else(|| invalid("a manifest refers to a pack that nobody knows"))?;
            pack.put(&mut head);
            put_varint(&mut head, live);
            put_varint(&mut head, total);
        }
        put_varint(&mut head, self.items);
        Ok((self.sink, head))
    }
}
