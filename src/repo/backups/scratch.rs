//! A manifest in a temporary file.
//!
//! Three things need one: a backup being taken, whose items come before its head is known; the backup that it is
//! compared with; and a restore. The latter two work for hours on what one request brings, and no store keeps a
//! connection open that long. Copying the manifest first also proves that it is whole before anything relies on it.
//!
//! The file has no name, so it is gone when it is closed, however the process ends.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Read};
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::error::{Error, Kind};
use crate::format::extent::{BackupId, PackId, RecordLocation};
use crate::format::manifest::{
    BackupFacts, BackupSummary, Item, ItemLists, ManifestHead, ManifestItems, ManifestReader, ManifestWriter,
};
use crate::fsio::{self, file_error};
use crate::limits::{MAX_LIST_PACKS, SCRATCH_READ_BYTES, SCRATCH_WRITE_BYTES};
use crate::repo::backups::manifests::ManifestPart;
use crate::repo::cluster::{ClusterName, SystemId};
use crate::repo::repository::Repository;

/// Writes a manifest into a temporary file.
pub struct ScratchWriter {
    writer: ManifestWriter<BufWriter<File>>,
}

/// A manifest whose items are written, and whose head is not known yet.
pub struct WrittenManifest {
    described: ManifestItems,
    items: Arc<File>,
    lists: Vec<RecordLocation>,
}

/// A manifest as it is stored.
pub enum FinishedManifest {
    /// With its items.
    WithItems(ScratchManifest),
    /// With lists of items, which are stored already.
    WithLists(Vec<u8>),
}

/// Where a backup has its lists of items, by their content.
#[derive(Default)]
pub struct ListPlaces {
    by_content: HashMap<blake3::Hash, RecordLocation>,
    packs: HashSet<PackId>,
}

/// A manifest in a temporary file.
pub struct ScratchManifest {
    head: Vec<u8>,
    items: Arc<File>,
}

/// The directories and files of a [`ScratchManifest`], in the order of their paths. It ends after an error.
pub struct ScratchItems {
    file: Arc<File>,
    offset: u64,
    reader: ManifestReader,
    buffer: Vec<u8>,
    ended: bool,
}

impl ScratchWriter {
    /// Makes the temporary file.
    ///
    /// # Errors
    /// [`Kind::Config`] when it cannot be made.
    pub fn new() -> Result<Self, Error> {
        let file = fsio::scratch().map_err(|e| file_error(Kind::Config, e))?;
        Ok(Self { writer: ManifestWriter::new(BufWriter::with_capacity(SCRATCH_WRITE_BYTES, file)) })
    }

    /// Adds an item, as [`ManifestWriter::add`] does.
    ///
    /// # Errors
    /// [`Kind::Config`] when the file cannot be written; [`Kind::Bug`] for what a manifest cannot hold.
    pub fn add(&mut self, item: &Item, table_uses: &[(PackId, u64)]) -> Result<(), Error> {
        self.writer.add(item, table_uses).map_err(cannot_write)
    }

    /// Ends a manifest that is only read back.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn finish(self) -> Result<ScratchManifest, Error> {
        // How long packs are matters to no reader of a copy.
        self.end()?.with_items(&no_facts(), |_| Some(0))
    }

    /// How long the items so far are in a manifest.
    pub fn item_bytes(&self) -> u64 {
        self.writer.item_bytes()
    }

    /// Ends the items of a manifest that will be stored.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn end(self) -> Result<WrittenManifest, Error> {
        let (sink, described) = self.writer.end().map_err(cannot_write)?;
        let file = sink.into_inner().map_err(|e| cannot_write(e.into_error()))?;
        Ok(WrittenManifest { described, items: Arc::new(file), lists: Vec::new() })
    }
}

impl WrittenManifest {
    /// How many bytes of packs it refers to.
    pub fn live_bytes(&self) -> u64 {
        self.described.live_bytes() + self.lists.iter().map(|list| u64::from(list.sealed_bytes)).sum::<u64>()
    }

    /// Puts the items into lists. `store` stores one, or knows where it is stored already.
    ///
    /// # Errors
    /// As `store`'s, and [`ScratchWriter::add`].
    pub fn put_into_lists(&mut self, store: &mut dyn FnMut(&[u8]) -> Result<RecordLocation, Error>) -> Result<(), Error> {
        let head = self.described.head(&no_facts(), |_| Some(0)).map_err(cannot_write)?;
        let mut lists = ItemLists::default();
        for item in (ScratchManifest { head, items: Arc::clone(&self.items) }).items() {
            if let Some(list) = lists.add(&item?).map_err(cannot_write)? {
                self.lists.push(store(&list)?);
            }
        }
        if let Some(list) = lists.finish() {
            self.lists.push(store(&list)?);
        }
        Ok(())
    }

    /// The manifest as it is stored. `total` says how many bytes the records of a pack have.
    ///
    /// # Errors
    /// [`Kind::Bug`] when the manifest refers to a pack that `total` does not know, or for what a manifest cannot hold.
    pub fn finish(self, facts: &BackupFacts, total: impl Fn(PackId) -> Option<u64>) -> Result<FinishedManifest, Error> {
        if self.lists.is_empty() {
            return self.with_items(facts, total).map(FinishedManifest::WithItems);
        }
        self.described.in_lists(&self.lists, facts, total).map(FinishedManifest::WithLists).map_err(cannot_write)
    }

    fn with_items(self, facts: &BackupFacts, total: impl Fn(PackId) -> Option<u64>) -> Result<ScratchManifest, Error> {
        let head = self.described.head(facts, total).map_err(cannot_write)?;
        Ok(ScratchManifest { head, items: self.items })
    }
}

impl FinishedManifest {
    /// All of it.
    pub fn bytes(&self) -> Box<dyn Read + '_> {
        match self {
            Self::WithItems(manifest) => Box::new(manifest.bytes()),
            Self::WithLists(whole) => Box::new(whole.as_slice()),
        }
    }
}

impl ListPlaces {
    /// Adds a list.
    pub fn add(&mut self, place: RecordLocation, content: &[u8]) {
        self.packs.insert(place.pack);
        self.by_content.insert(blake3::hash(content), place);
    }

    /// Where a list with this content is. `None` also where lists lie in so many packs that they are to be gathered
    /// anew.
    pub fn find(&self, content: &[u8]) -> Option<RecordLocation> {
        if self.packs.len() > MAX_LIST_PACKS { None } else { self.by_content.get(&blake3::hash(content)).copied() }
    }
}

impl ScratchManifest {
    /// Copies the manifest of a backup, and shows `look` its parts meanwhile. `None` when there is no such backup.
    ///
    /// # Errors
    /// As [`Repository::read_manifest_parts`] and [`ScratchWriter::add`].
    pub fn copy_of(
        repository: &Repository,
        cluster: &ClusterName,
        system_id: SystemId,
        id: BackupId,
        look: &mut dyn FnMut(&ManifestPart<'_>),
    ) -> Result<Option<(Self, BackupSummary, ManifestHead)>, Error> {
        let mut writer = ScratchWriter::new()?;
        let read = repository.read_manifest_parts(cluster, system_id, id, &|_| {}, &mut |_, part| {
            if let ManifestPart::Item(item) = &part {
                writer.add(item, &[])?;
            }
            look(&part);
            Ok(ControlFlow::Continue(()))
        })?;
        match read {
            Some((summary, head)) => Ok(Some((writer.finish()?, summary, head))),
            None => Ok(None),
        }
    }

    /// Reads the items from the first one on, independently of other readings.
    pub fn items(&self) -> ScratchItems {
        let mut reader = ManifestReader::default();
        reader.feed(&self.head);
        ScratchItems { file: Arc::clone(&self.items), offset: 0, reader, buffer: Vec::new(), ended: false }
    }

    /// The manifest as bytes: head and items.
    pub fn bytes(&self) -> impl Read + '_ {
        self.head.as_slice().chain(fsio::reader(&self.items))
    }
}

impl ScratchItems {
    fn next_item(&mut self) -> Result<Option<Item>, Error> {
        loop {
            if let Some(item) = self.reader.next_item().map_err(|e| cannot_read(&e))? {
                return Ok(Some(item));
            }
            self.buffer.resize(SCRATCH_READ_BYTES, 0);
            let n = match fsio::reader_from(&self.file, self.offset).read(&mut self.buffer) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read.map_err(|e| cannot_read(&e))?,
            };
            if n == 0 {
                std::mem::take(&mut self.reader).finish().map_err(|e| cannot_read(&e))?;
                return Ok(None);
            }
            self.offset += n as u64;
            self.reader.feed(self.buffer.get(..n).unwrap_or_default());
        }
    }
}

impl Iterator for ScratchItems {
    type Item = Result<Item, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.next_item().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

/// What is known of a backup matters to no reader of a copy.
fn no_facts() -> BackupFacts {
    BackupFacts {
        hash_key: String::new(),
        databases: Vec::new(),
        tablespaces: Vec::new(),
        annotations: BTreeMap::new(),
        damage: Vec::new(),
        warnings: Vec::new(),
        attachments: Vec::new(),
        verified_up_to: 0,
    }
}

fn cannot_write(error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::InvalidInput => Error::new(Kind::Bug, format!("write the manifest: {error}")),
        _ => Error::new(Kind::Config, format!("cannot write the manifest to a temporary file: {error}")).hint(
            "free space in the directory for temporary files, or set TMPDIR to another one: a manifest takes about 100 bytes per file \
             of the cluster, more for large files",
        ),
    }
}

fn cannot_read(error: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Config, format!("cannot read the manifest back from a temporary file: {error}"))
        .hint("check the disk of the directory for temporary files, or set TMPDIR to another directory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::manifest::{Content, DirectoryEntry, FileEntry};

    fn directory(path: &str) -> Item {
        Item::Directory(DirectoryEntry { path: path.into(), mode: 0o700, owner: "o".to_owned(), group: "g".to_owned() })
    }

    fn file(path: &str) -> Item {
        Item::File(FileEntry {
            path: path.into(),
            size_bytes: 0,
            mode: 0o600,
            owner: "o".to_owned(),
            group: "g".to_owned(),
            modified_unix_us: 7,
            crc32c: 0,
            content: Content::Extents(Vec::new()),
        })
    }

    /// More than is read at once.
    fn many() -> Vec<Item> {
        let mut items = vec![directory(""), directory("base")];
        items.extend((0..20_000).map(|number| file(&format!("base/{number:08}"))));
        items
    }

    fn written(items: &[Item]) -> ScratchManifest {
        let mut writer = ScratchWriter::new().unwrap();
        for item in items {
            writer.add(item, &[]).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn items_are_read_back_in_order_as_often_as_wanted() {
        let items = many();
        let manifest = written(&items);
        assert!(manifest.items.metadata().unwrap().len() > 2 * SCRATCH_READ_BYTES as u64);
        let (mut first, mut second) = (manifest.items(), manifest.items());
        for item in &items {
            assert_eq!(first.next().unwrap().unwrap(), *item);
            if item.path().len() % 2 == 0 {
                second.next().unwrap().unwrap();
            }
        }
        assert!(first.next().is_none() && first.next().is_none());
        // Reading goes on where the manifest itself is gone already.
        let last = manifest.items();
        drop(manifest);
        assert_eq!(last.map(Result::unwrap).collect::<Vec<_>>(), items);
        assert!(written(&[]).items().next().is_none());
    }

    #[test]
    fn what_cannot_be_in_a_manifest_is_a_bug_and_a_file_that_changed_is_not_read_as_whole() {
        let mut writer = ScratchWriter::new().unwrap();
        writer.add(&file("b"), &[]).unwrap();
        assert_eq!(writer.add(&file("a"), &[]).unwrap_err().kind, Kind::Bug);
        let items = many();
        let manifest = written(&items);
        let bytes = manifest.items.metadata().unwrap().len();
        manifest.items.set_len(bytes - 1).unwrap();
        let mut read = manifest.items();
        let taken = read.by_ref().take_while(Result::is_ok).count();
        assert_eq!(taken, items.len() - 1);
        assert!(read.next().is_none());
        let error = manifest.items().find_map(Result::err).unwrap();
        assert_eq!(error.kind, Kind::Config);
        assert!(error.what.contains("cannot read the manifest back"), "{}", error.what);
    }
}
