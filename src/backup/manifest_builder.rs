//! What workers did becomes a manifest, in the order of the list.
//!
//! `backup_label`, `tablespace_map` and `pg_control` come last and belong in the middle. So the items go to a temporary
//! file first, and are copied into the manifest with these three at their places.

use crate::backup::copy_jobs::{CopiedItem, CopyResult, LargeFile, PackBytes, PageDamage};
use crate::error::Error;
use crate::format::extent::{PackId, RecordLocation, tables_in};
use crate::format::manifest::{BackupFacts, Content, FileEntry, Item, ItemLists, TableRef};
use crate::fsio::OwnerNames;
use crate::limits::{FILE_PIECE_BYTES, ITEMS_IN_LISTS_FROM_BYTES, MAX_DAMAGE_LISTED, MAX_WARNINGS};
use crate::raw_text::RawText;
use crate::repo::backups::{FinishedManifest, ScratchWriter, WrittenManifest};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// A manifest that is being put together.
pub(crate) struct ManifestBuilder<'a> {
    data_directory: &'a Path,
    writer: ScratchWriter,
    uses: HashMap<PackId, u64>,
    owners: OwnerNames,
    large: Option<Large>,
    told: Told,
}

/// A large file whose pieces come in.
struct Large {
    file: Arc<LargeFile>,
    tables: Vec<TableRef>,
    uses: PackBytes,
}

/// The items of a backup, and what they amount to.
pub(crate) struct Manifest {
    written: WrittenManifest,
    /// Whether it is so long that later backups had better refer to what stays, and can be.
    is_put_into_lists: bool,
    /// Number of files.
    pub files: u64,
    /// Their length.
    pub bytes: u64,
    /// What became of the pages, and warnings.
    pub told: Told,
}

/// What a backup tells of its files besides the manifest.
#[derive(Default)]
pub(crate) struct Told {
    /// Pages whose checksum fits.
    pub verified: u64,
    /// Damaged pages.
    pub damaged: u64,
    /// The first of them.
    pub damage: Vec<PageDamage>,
    /// Of the files' length, what is referred to in earlier packs.
    pub reused_bytes: u64,
    /// Of the files' length, what was taken over from the parent, zeros included.
    pub taken_bytes: u64,
    /// For the report.
    pub warnings: Vec<String>,
}

/// The merged items on their way into the manifest.
struct Merged {
    writer: ScratchWriter,
    files: u64,
    bytes: u64,
    fit_into_lists: bool,
}

impl<'a> ManifestBuilder<'a> {
    pub(crate) fn new(data_directory: &'a Path, warnings: Vec<String>) -> Result<Self, Error> {
        Ok(Self {
            data_directory,
            writer: ScratchWriter::new()?,
            uses: HashMap::new(),
            owners: OwnerNames::default(),
            large: None,
            told: Told { warnings, ..Told::default() },
        })
    }

    /// Takes the next result; they come in the order of the list.
    ///
    /// # Errors
    /// [`Kind::Config`](crate::error::Kind::Config) when the temporary file cannot be written.
    pub(crate) fn take(&mut self, result: CopyResult) -> Result<(), Error> {
        self.told.verified += result.verified;
        self.told.damaged += result.damaged.len() as u64;
        self.told.reused_bytes += result.reused_bytes;
        self.told.taken_bytes += result.taken_bytes;
        for damage in result.damaged {
            tracing::warn!("{} page {} is damaged: {}", RawText::from(&*damage.path), damage.block, damage.detail);
            if self.told.damage.len() < MAX_DAMAGE_LISTED {
                self.told.damage.push(damage);
            }
        }
        for warning in result.warnings {
            self.warn(warning);
        }
        for done in result.done {
            match done {
                CopiedItem::Directory(entry) => self.add(&Item::Directory(entry))?,
                CopiedItem::File(entry, uses) => {
                    self.add_uses(&uses);
                    self.add(&Item::File(entry))?;
                }
                CopiedItem::Piece(file, index, piece) => self.piece(file, index, piece)?,
            }
        }
        Ok(())
    }

    /// Adds a warning to the report.
    pub(crate) fn warn(&mut self, warning: String) {
        if self.told.warnings.len() < MAX_WARNINGS {
            self.told.warnings.push(warning);
        }
    }

    fn add(&mut self, item: &Item) -> Result<(), Error> {
        self.writer.add(item, &[])
    }

    fn add_uses(&mut self, uses: &PackBytes) {
        for (pack, bytes) in uses {
            *self.uses.entry(*pack).or_default() += bytes;
        }
    }

    fn piece(&mut self, file: Arc<LargeFile>, index: u64, piece: Option<(TableRef, PackBytes)>) -> Result<(), Error> {
        if index == 0 {
            self.large = Some(Large { file, tables: Vec::new(), uses: PackBytes::new() });
        }
        // Gone before it was opened, so for all its pieces.
        let (Some((table, uses)), Some(large)) = (piece, self.large.as_mut()) else { return Ok(()) };
        large.tables.push(table);
        large.uses.extend(uses);
        if large.tables.len() as u64 != tables_in(large.file.size_bytes) {
            return Ok(());
        }
        let Some(Large { file, tables, uses }) = self.large.take() else { return Ok(()) };
        let Some(attributes) = file.attributes(self.data_directory)? else { return Ok(()) };
        let mut left = file.size_bytes;
        let crc32c = tables.iter().fold(0, |crc, table| {
            let bytes = left.min(FILE_PIECE_BYTES);
            left -= bytes;
            crc32c::crc32c_combine(crc, table.crc32c, bytes as usize)
        });
        let entry = FileEntry {
            path: file.path.clone(),
            size_bytes: file.size_bytes,
            mode: attributes.mode,
            owner: self.owners.user(attributes.uid),
            group: self.owners.group(attributes.gid),
            modified_unix_us: attributes.modified_unix_us,
            crc32c,
            content: Content::Tables(tables),
        };
        self.add_uses(&uses);
        self.add(&Item::File(entry))
    }

    /// Counts what attachments refer to; they are no files of the list.
    pub(crate) fn count_attachment(&mut self, uses: &PackBytes) {
        self.add_uses(uses);
    }

    /// Puts the last files at their places, and leaves out what `keep` says no to.
    ///
    /// # Errors
    /// [`Kind::Config`](crate::error::Kind::Config) when the temporary file cannot be written or read.
    pub(crate) fn merge(self, last: Vec<(FileEntry, PackBytes)>, keep: &dyn Fn(&[u8]) -> bool) -> Result<Manifest, Error> {
        let mut uses = self.uses;
        let mut last: Vec<FileEntry> = last
            .into_iter()
            .map(|(entry, used)| {
                for (pack, bytes) in used {
                    *uses.entry(pack).or_default() += bytes;
                }
                entry
            })
            .collect();
        last.sort_by(|a, b| b.path.cmp(&a.path));
        let mut uses: PackBytes = uses.into_iter().collect();
        uses.sort_unstable();
        let mut merged = Merged { writer: ScratchWriter::new()?, files: 0, bytes: 0, fit_into_lists: true };
        for item in self.writer.finish()?.items() {
            let item = item?;
            while let Some(first) = last.pop_if(|first| first.path.as_slice() < item.path()) {
                merged.add(&Item::File(first), &mut uses)?;
            }
            if keep(item.path()) {
                merged.add(&item, &mut uses)?;
            }
        }
        while let Some(first) = last.pop() {
            merged.add(&Item::File(first), &mut uses)?;
        }
        let Merged { writer, files, bytes, fit_into_lists } = merged;
        let is_put_into_lists = fit_into_lists && writer.item_bytes() > ITEMS_IN_LISTS_FROM_BYTES;
        Ok(Manifest { written: writer.end()?, is_put_into_lists, files, bytes, told: self.told })
    }
}

impl Merged {
    /// The first file takes all uses with it: the manifest counts them for the whole backup.
    fn add(&mut self, item: &Item, uses: &mut PackBytes) -> Result<(), Error> {
        self.fit_into_lists &= ItemLists::can_hold(item);
        match item {
            Item::Directory(_) => self.writer.add(item, &[]),
            Item::File(entry) => {
                self.files += 1;
                self.bytes += entry.size_bytes;
                self.writer.add(item, &std::mem::take(uses))
            }
        }
    }
}

impl Manifest {
    /// Puts the items of a long manifest into lists, and stores those that `known` does not know.
    ///
    /// # Errors
    /// As `store`'s; [`Kind::Config`](crate::error::Kind::Config) when the temporary file cannot be read.
    pub(crate) fn store_lists(
        &mut self,
        known: &dyn Fn(&[u8]) -> Option<RecordLocation>,
        store: &mut dyn FnMut(&[u8]) -> Result<RecordLocation, Error>,
    ) -> Result<(), Error> {
        if !self.is_put_into_lists {
            return Ok(());
        }
        self.written.put_into_lists(&mut |list| match known(list) {
            Some(place) => Ok(place),
            None => store(list),
        })
    }

    /// What a restore reads of the packs.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.written.live_bytes()
    }

    /// The manifest as it is stored.
    ///
    /// # Errors
    /// [`Kind::Bug`](crate::error::Kind::Bug) when it refers to a pack whose length `total` does not know.
    pub(crate) fn finish(self, facts: &BackupFacts, total: impl Fn(PackId) -> Option<u64>) -> Result<FinishedManifest, Error> {
        self.written.finish(facts, total)
    }
}
