//! A manifest as bytes.

use std::collections::HashMap;
use std::io::{self, Write};

use super::{BackupFacts, Content, DirectoryEntry, FileEntry, Item, ManifestHead, PackUse, TableRef};
use crate::format::extent::{
    PackId, TableError, extents_in, put_extents, tables_in, take_array, take_extents, take_place_rest, take_u32,
};
use crate::limits::{MAX_FACTS_BYTES, MAX_INLINE_EXTENTS, MAX_PATH_BYTES};
use crate::pg::scan::{put_varint, take_varint, unzigzag, zigzag};

/// The version that is written, and the only one read.
const VERSION: u8 = 1;
const DIRECTORY: u8 = 1;
const FILE_WITH_EXTENTS: u8 = 2;
const FILE_WITH_TABLES: u8 = 3;

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

    /// Adds an item; they come in the order of their paths, byte by byte, none twice. `table_uses` are the records to which the
    /// tables of a file refer, each pack with the sum of their lengths: without them nobody would know that the backup needs them.
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

    /// Ends the items, and makes the head that belongs in front of them. `total` says how long all records of a pack are.
    ///
    /// # Errors
    /// When the sink fails; [`io::ErrorKind::InvalidInput`] when `total` does not know a pack, or the facts are too long.
    pub fn finish(mut self, facts: &BackupFacts, total: impl Fn(PackId) -> Option<u64>) -> io::Result<(W, Vec<u8>)> {
        let invalid = |what: &'static str| io::Error::new(io::ErrorKind::InvalidInput, what);
        self.sink.flush()?;
        let facts = serde_json::to_vec(facts).map_err(io::Error::other)?;
        if facts.len() > MAX_FACTS_BYTES {
            return Err(invalid("databases, annotations and warnings take more room than a manifest has"));
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

/// Reads a manifest from bytes that come in chunks of any size.
#[derive(Default)]
pub struct ManifestReader {
    buffer: Vec<u8>,
    /// Of the buffer, what was taken already.
    taken: usize,
    head: Option<ManifestHead>,
    path: Vec<u8>,
    read: u64,
}

/// Longest encoded item: the tables of a file of 1 TiB.
const MAX_ITEM_BYTES: usize = 1024 * 1024;
/// Bytes of one name, owner or group, and most of them.
const MAX_NAME_BYTES: u64 = 256;

/// What parsing the front of the buffer gave.
enum Parsed<T> {
    Whole(T),
    /// More bytes are needed, or these are damaged.
    Incomplete,
}

impl ManifestReader {
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

    /// The next item; `None` when more bytes have to be fed first.
    ///
    /// # Errors
    /// See [`TableError`].
    pub fn next_item(&mut self) -> Result<Option<Item>, TableError> {
        if self.head.is_none() {
            let mut rest = self.buffer.get(self.taken..).unwrap_or_default();
            if let Some(version) = rest.first().filter(|version| **version != VERSION) {
                return Err(TableError::Newer(*version));
            }
            match parse_head(&mut rest)? {
                Parsed::Whole(head) => {
                    self.taken = self.buffer.len() - rest.len();
                    self.head = Some(head);
                }
                Parsed::Incomplete => return Ok(None),
            }
        }
        let Some(head) = &self.head else { return Ok(None) };
        let mut rest = self.buffer.get(self.taken..).unwrap_or_default();
        if self.read == head.items {
            return if rest.is_empty() { Ok(None) } else { Err(TableError::Invalid("bytes follow its last item")) };
        }
        let before = if self.read == 0 { None } else { Some(self.path.as_slice()) };
        match parse_item(&mut rest, head, before)? {
            Parsed::Whole(item) => {
                self.taken = self.buffer.len() - rest.len();
                self.read += 1;
                self.path.clear();
                self.path.extend_from_slice(item.path());
                Ok(Some(item))
            }
            Parsed::Incomplete if rest_is_too_long(&self.buffer, self.taken) => {
                Err(TableError::Invalid("an item breaks the rules of the format"))
            }
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
    buffer.len() - taken > MAX_ITEM_BYTES
}

/// The numbers in front of something of variable length say whether it is all there.
fn take_bytes<'a>(rest: &mut &'a [u8], len: u64) -> Option<&'a [u8]> {
    let (front, after) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    *rest = after;
    Some(front)
}

fn parse_head(bytes: &mut &[u8]) -> Result<Parsed<ManifestHead>, TableError> {
    let mut rest = *bytes;
    let Some((facts, names, packs, items)) = take_head(&mut rest)? else { return Ok(Parsed::Incomplete) };
    let facts = serde_json::from_slice(facts).map_err(|_| TableError::Invalid("its facts are not what belongs there"))?;
    *bytes = rest;
    Ok(Parsed::Whole(ManifestHead { facts, packs, items, names }))
}

type HeadParts<'a> = (&'a [u8], Vec<String>, Vec<PackUse>, u64);

fn take_head<'a>(rest: &mut &'a [u8]) -> Result<Option<HeadParts<'a>>, TableError> {
    const INVALID: TableError = TableError::Invalid("its head breaks the rules of the format");
    macro_rules! or_more {
        ($value:expr) => {
            match $value {
                Some(value) => value,
                None => return Ok(None),
            }
        };
    }
    or_more!(take_array::<1>(rest));
    let facts_bytes = or_more!(take_varint(rest));
    if facts_bytes > MAX_FACTS_BYTES as u64 {
        return Err(INVALID);
    }
    let facts = or_more!(take_bytes(rest, facts_bytes));
    let mut names = Vec::new();
    for _ in 0..or_more!(take_varint(rest)) {
        let len = or_more!(take_varint(rest));
        if len > MAX_NAME_BYTES {
            return Err(INVALID);
        }
        names.push(String::from_utf8(or_more!(take_bytes(rest, len)).to_vec()).map_err(|_| INVALID)?);
    }
    let mut packs = Vec::new();
    for _ in 0..or_more!(take_varint(rest)) {
        let pack = or_more!(PackId::take(rest));
        packs.push(PackUse { pack, live_bytes: or_more!(take_varint(rest)), total_bytes: or_more!(take_varint(rest)) });
    }
    Ok(Some((facts, names, packs, or_more!(take_varint(rest)))))
}

fn parse_item(bytes: &mut &[u8], head: &ManifestHead, before: Option<&[u8]>) -> Result<Parsed<Item>, TableError> {
    let mut rest = *bytes;
    match take_item(&mut rest, head, before) {
        Some(Ok(item)) => {
            *bytes = rest;
            Ok(Parsed::Whole(item))
        }
        Some(Err(error)) => Err(error),
        None => Ok(Parsed::Incomplete),
    }
}

/// `None` when bytes are missing, as far as that can be told.
fn take_item(rest: &mut &[u8], head: &ManifestHead, before: Option<&[u8]>) -> Option<Result<Item, TableError>> {
    const INVALID: TableError = TableError::Invalid("an item breaks the rules of the format");
    let [tag] = *take_array(rest)?;
    let shared = take_varint(rest)?;
    let len = take_varint(rest)?;
    let Some(front) = usize::try_from(shared).ok().and_then(|shared| before.unwrap_or_default().get(..shared)) else {
        return Some(Err(INVALID));
    };
    if len > MAX_PATH_BYTES as u64 {
        return Some(Err(INVALID));
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
    let name = |index: u64| head.names.get(usize::try_from(index).ok()?).cloned();
    let (owner, group) = (take_varint(rest)?, take_varint(rest)?);
    let (Some(owner), Some(group)) = (name(owner), name(group)) else { return Some(Err(INVALID)) };
    if tag == DIRECTORY {
        return Some(Ok(Item::Directory(DirectoryEntry { path, mode, owner, group })));
    }
    let size_bytes = take_varint(rest)?;
    let modified_unix_us = unzigzag(take_varint(rest)?);
    let crc32c = u32::from_le_bytes(*take_array(rest)?);
    let pack_of = |index: u64| head.packs.get(usize::try_from(index).ok()?).map(|used| used.pack);
    let content = match tag {
        FILE_WITH_EXTENTS if extents_in(size_bytes) <= MAX_INLINE_EXTENTS as u64 => {
            let mut unknown = false;
            let extents = take_extents(rest, size_bytes, extents_in(size_bytes), &mut |index| {
                unknown |= pack_of(index).is_none();
                pack_of(index)
            });
            if unknown {
                return Some(Err(INVALID));
            }
            Content::Extents(extents?)
        }
        FILE_WITH_TABLES if size_bytes > 0 && tables_in(size_bytes) <= (MAX_ITEM_BYTES / 8) as u64 => {
            let mut tables = Vec::new();
            for _ in 0..tables_in(size_bytes) {
                let Some(pack) = pack_of(take_varint(rest)?) else { return Some(Err(INVALID)) };
                let offset = take_varint(rest)?;
                let place = take_place_rest(pack, offset, rest)?;
                tables.push(TableRef { place, crc32c: u32::from_le_bytes(*take_array(rest)?) });
            }
            Content::Tables(tables)
        }
        _ => return Some(Err(INVALID)),
    };
    Some(Ok(Item::File(FileEntry { path, size_bytes, mode, owner, group, modified_unix_us, crc32c, content })))
}

/// Whether a path stays below the directory it is relative to.
fn is_safe(path: &[u8]) -> bool {
    path.is_empty()
        || (!path.contains(&0) && path.split(|byte| *byte == b'/').all(|part| !part.is_empty() && part != b"." && part != b".."))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::format::extent::{BackupId, Extent, Place, StoredExtent};
    use crate::format::manifest::{Database, Tablespace};
    use crate::limits::EXTENT_BYTES;

    fn place(number: u32, offset: u32) -> Place {
        let backup = BackupId::new(1_790_000_000, 3).unwrap();
        Place { pack: PackId { backup, number }, offset, sealed_bytes: 100 }
    }

    fn facts() -> BackupFacts {
        BackupFacts {
            hash_key: "00".repeat(32),
            databases: vec![Database { oid: 5, name: "shop".into(), bytes: Some(7) }],
            tablespaces: vec![Tablespace { oid: 16399, path: (&b"/mnt/f\xE4st"[..]).into() }],
            annotations: BTreeMap::from([("ticket".to_owned(), "42".to_owned())]),
            damage: Vec::new(),
            warnings: vec!["pg_wal is a link".to_owned()],
            attachments: vec![crate::format::manifest::Attachment {
                path: "/etc/postgresql/15/main/pg_hba.conf".into(),
                setting: "hba_file".to_owned(),
                mode: 0o640,
                owner: "postgres".to_owned(),
                group: "postgres".to_owned(),
                modified_unix_us: 9,
                size_bytes: EXTENT_BYTES as u64 + 5,
                crc32c: 7,
                extents: vec![
                    Extent { crc32c: 9, stored: Some(StoredExtent { hash: [4; 16], place: place(9, 0) }) },
                    Extent::zeros(5),
                ],
            }],
        }
    }

    fn items() -> Vec<Item> {
        let directory = |path: &str| {
            Item::Directory(DirectoryEntry {
                path: path.into(),
                mode: 0o700,
                owner: "postgres".to_owned(),
                group: "postgres".to_owned(),
            })
        };
        let file = |path: &[u8], size_bytes: u64, content: Content| {
            Item::File(FileEntry {
                path: path.to_vec(),
                size_bytes,
                mode: 0o640,
                owner: "postgres".to_owned(),
                group: "dba".to_owned(),
                modified_unix_us: -5,
                crc32c: 0xDEAD_BEEF,
                content,
            })
        };
        let stored = |n, o| Extent { crc32c: 9, stored: Some(StoredExtent { hash: [4; 16], place: place(n, o) }) };
        let table = |n, o| TableRef { place: place(n, o), crc32c: 1 };
        vec![
            directory(""),
            file(b"PG_VERSION", 3, Content::Extents(vec![stored(0, 0)])),
            directory("base"),
            directory("base/5"),
            file(b"base/5/1259", 2 * EXTENT_BYTES as u64, Content::Extents(vec![stored(0, 100), Extent::zeros(EXTENT_BYTES)])),
            file(b"base/5/1259_vm", 0, Content::Extents(vec![])),
            file(b"base/5/16384", (1 << 30) - 1, Content::Tables((0..16).map(|i| table(i / 4, i * 100)).collect())),
            file(b"base/5/\xFFodd", 1, Content::Extents(vec![Extent::zeros(1)])),
        ]
    }

    fn encoded() -> Vec<u8> {
        let mut writer = ManifestWriter::new(Vec::new());
        for item in items() {
            let uses = if item.path() == b"base/5/16384" { vec![(place(9, 0).pack, 5_000)] } else { vec![] };
            writer.add(&item, &uses).unwrap();
        }
        let (body, head) = writer.finish(&facts(), |_| Some(12_000)).unwrap();
        [head, body].concat()
    }

    fn read(bytes: &[u8], chunk: usize) -> Result<(Vec<Item>, ManifestHead), TableError> {
        let mut reader = ManifestReader::default();
        let mut found = Vec::new();
        for chunk in bytes.chunks(chunk) {
            reader.feed(chunk);
            while let Some(item) = reader.next_item()? {
                found.push(item);
            }
        }
        reader.finish().map(|head| (found, head))
    }

    #[test]
    fn it_round_trips_in_any_chunks() {
        let bytes = encoded();
        for chunk in [1, 2, 7, 100, bytes.len()] {
            let (found, head) = read(&bytes, chunk).unwrap();
            assert_eq!(found, items());
            assert_eq!(head.facts, facts());
            let live: Vec<(u32, u64)> = head.packs.iter().map(|used| (used.pack.number, used.live_bytes)).collect();
            assert_eq!(live, [(0, 600), (1, 400), (2, 400), (3, 400), (9, 5_000)]);
            assert_eq!(head.packs.iter().map(PackUse::is_mostly_dead).collect::<Vec<_>>(), [true; 5]);
        }
    }

    #[test]
    fn cut_and_flipped_manifests_are_refused_or_differ() {
        let bytes = encoded();
        let whole = read(&bytes, bytes.len()).unwrap();
        for cut in 0..bytes.len() {
            assert!(read(&bytes[..cut], 64).is_err(), "{cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bad, bad.len()).is_err() || read(&bad, bad.len()).unwrap() != whole, "bit {bit}");
        }
        assert!(read(&[bytes.as_slice(), &[0]].concat(), 64).is_err());
    }

    #[test]
    fn items_out_of_order_and_paths_that_lead_elsewhere_are_refused() {
        let mut writer = ManifestWriter::new(Vec::new());
        let items = items();
        writer.add(&items[3], &[]).unwrap();
        assert!(writer.add(&items[2], &[]).is_err());
        assert!(writer.add(&items[3], &[]).is_err());
        for path in ["../x", "/etc/passwd", "base/../../x", "base//x", "base/.", "a\0b"] {
            assert!(!is_safe(path.as_bytes()), "{path}");
        }
    }
}
