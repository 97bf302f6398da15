//! What is dealt out when a cluster is copied, and what comes back. May not live here: what a worker does
//! ([`file_copier`](super::file_copier)), the dealing out ([`copy_files`](super::copy_files)).

use crate::backup::file_list;
use crate::backup::parent::ParentFile;
use crate::error::{Error, Kind};
use crate::format::extent::{Extent, PackId};
use crate::format::manifest::{Content, DirectoryEntry, FileEntry, TableRef};
use crate::fsio::{Attributes, FsError};
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// What the parent holds of a piece.
pub(crate) struct ParentPiece {
    /// Length of the file there.
    pub file_bytes: u64,
    /// The content.
    pub content: ParentContent,
}

/// The content that the parent holds of a piece.
pub(crate) enum ParentContent {
    /// Nothing.
    Nothing,
    /// These extents.
    Extents(Vec<Extent>),
    /// What this table says.
    Table(TableRef),
}

impl ParentPiece {
    /// Of piece number `index` of a file.
    pub(crate) fn of(file: Option<&ParentFile>, index: usize) -> Self {
        let content = match file.map(|file| &file.content) {
            Some(Content::Extents(extents)) if index == 0 => ParentContent::Extents(extents.clone()),
            Some(Content::Tables(tables)) => {
                tables.get(index).map_or(ParentContent::Nothing, |table| ParentContent::Table(*table))
            }
            _ => ParentContent::Nothing,
        };
        Self { file_bytes: file.map_or(0, |file| file.size_bytes), content }
    }
}

/// A file of several pieces, opened once for all of them, and only if any of it is read.
pub(crate) struct LargeFile {
    /// Relative to the data directory.
    pub path: Vec<u8>,
    /// Its size when the list was made: what is beyond it is not read.
    pub size_bytes: u64,
    opened: OnceLock<Result<Option<(File, Attributes)>, FsError>>,
    looked_at: OnceLock<Result<Option<Attributes>, FsError>>,
}

impl LargeFile {
    pub(crate) fn new(path: Vec<u8>, size_bytes: u64) -> Self {
        Self { path, size_bytes, opened: OnceLock::new(), looked_at: OnceLock::new() }
    }

    /// Opens it, if nobody did; `None` when it is gone.
    pub(crate) fn open(&self, data_directory: &Path) -> Result<Option<&(File, Attributes)>, Error> {
        match self.opened.get_or_init(|| file_list::open(data_directory, &self.path)) {
            Ok(opened) => Ok(opened.as_ref()),
            Err(e) => Err(Error { hint: e.hint.clone(), ..Error::new(Kind::Config, e.to_string()) }),
        }
    }

    /// What it has besides its content: as it was when it was opened, or else, if nobody did, when it was first asked
    /// for; `None` when it was gone.
    pub(crate) fn attributes(&self, data_directory: &Path) -> Result<Option<Attributes>, Error> {
        if self.opened.get().is_some() {
            return Ok(self.open(data_directory)?.map(|(_, attributes)| *attributes));
        }
        match self.looked_at.get_or_init(|| file_list::attributes(data_directory, &self.path)) {
            Ok(attributes) => Ok(*attributes),
            Err(e) => Err(Error { hint: e.hint.clone(), ..Error::new(Kind::Config, e.to_string()) }),
        }
    }
}

/// A directory or file of a batch.
pub(crate) enum BatchItem {
    /// A directory: there is nothing to do.
    Directory(DirectoryEntry),
    /// A file of one piece, by its path.
    File(Vec<u8>, ParentPiece),
}

/// Work for one worker.
pub(crate) enum CopyJob {
    /// Directories and files of one piece, one after the other in the list.
    Batch(Vec<BatchItem>),
    /// One piece of a large file.
    Piece(Arc<LargeFile>, u64, ParentPiece),
}

/// Of each pack, how many bytes a table's extents have in it.
pub(crate) type PackBytes = Vec<(PackId, u64)>;

/// Of each pack, how many bytes these extents have in it.
pub(crate) fn uses_of(extents: &[Extent]) -> PackBytes {
    let mut uses: HashMap<PackId, u64> = HashMap::new();
    for stored in extents.iter().filter_map(|extent| extent.stored) {
        *uses.entry(stored.place.pack).or_default() += u64::from(stored.place.sealed_bytes);
    }
    uses.into_iter().collect()
}

/// What became of a directory, a file or a piece. What vanished is not among them.
pub(crate) enum CopiedItem {
    /// As it was.
    Directory(DirectoryEntry),
    /// A whole file.
    File(FileEntry, PackBytes),
    /// A piece of a large file; `None` when that is gone.
    Piece(Arc<LargeFile>, u64, Option<(TableRef, PackBytes)>),
}

/// A damaged page.
pub(crate) struct PageDamage {
    /// Its file.
    pub path: Vec<u8>,
    /// Its number within the relation.
    pub block: u64,
    /// What is wrong.
    pub detail: String,
}

/// What a job led to.
#[derive(Default)]
pub(crate) struct CopyResult {
    /// In the order of the list.
    pub done: Vec<CopiedItem>,
    /// Pages that were verified.
    pub verified: u64,
    /// Damaged ones.
    pub damaged: Vec<PageDamage>,
    /// Of the files' length, what is referred to in earlier packs.
    pub reused_bytes: u64,
    /// Of the files' length, what was taken over from the parent, zeros included.
    pub taken_bytes: u64,
    /// For the report.
    pub warnings: Vec<String>,
}
