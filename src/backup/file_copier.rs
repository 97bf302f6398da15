//! What one worker does with the files of a cluster: reads them, verifies their pages, compares them with the backup
//! before, and stores what is new. May not live here: the list of files and how it is dealt out
//! ([`copy_files`](super::copy_files)).

use crate::backup::copy_jobs::{BatchItem, CopiedItem, CopyJob, CopyResult, PackBytes, PageDamage, ParentContent};
use crate::backup::file_list;
use crate::backup::pages::{Horizon, PageFile, PageReport, PagesError};
use crate::codec::pack::RecordKind;
use crate::error::{Error, Kind};
use crate::format::extent::{Extent, ExtentTable, PackId, StoredExtent, extents_in};
use crate::format::manifest::{Attachment, Content, FileEntry, TableRef};
use crate::fsio::{self, Attributes, OwnerNames, file_error};
use crate::limits::{EXTENT_BYTES, FILE_PIECE_BYTES, FILE_READ_BYTES, MAX_INLINE_EXTENTS};
use crate::pg::Lsn;
use crate::pg::data_directory::relation_file;
use crate::pg::page_checksum::{PAGE_BYTES, is_zero};
use crate::raw_text::RawText;
use crate::repo::backups::{PackReader, PackWriter};
use crate::threads::{Stop, Worker};
use crate::throttle::Throttle;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What all workers share.
pub(crate) struct CopyContext<'a> {
    /// The data directory.
    pub data_directory: &'a Path,
    /// Key of the hashes.
    pub hash_key: [u8; 32],
    /// Packs of the parent that are not referred to any more: mostly dead, or gone.
    pub packs_not_reused: &'a HashSet<PackId>,
    /// Reads tables of the parent.
    pub reader: PackReader<'a>,
    /// Where the backup began.
    pub start: Lsn,
    /// Whether pages carry checksums.
    pub page_checksums: bool,
    /// How far the server has logged.
    pub horizon: Horizon<'a>,
    /// A limit on the speed.
    pub throttle: Option<Throttle>,
    /// Whether to end early.
    pub stop: Stop,
    /// Bytes read so far, for the progress.
    pub read_bytes: AtomicU64,
}

/// One worker.
pub(crate) struct FileCopier<'a, 'p> {
    context: &'a CopyContext<'a>,
    packs: PackWriter<'p>,
    owners: OwnerNames,
    buffer: Vec<u8>,
}

/// A file that is being read.
struct OpenFile<'a> {
    file: &'a File,
    path: &'a [u8],
    real: PathBuf,
}

impl<'a, 'p> FileCopier<'a, 'p> {
    pub(crate) fn new(context: &'a CopyContext<'a>, packs: PackWriter<'p>) -> Self {
        Self { context, packs, owners: OwnerNames::default(), buffer: Vec::new() }
    }

    fn small_file(&mut self, path: Vec<u8>, known: ParentContent, result: &mut CopyResult) -> Result<(), Error> {
        let real = file_list::real(self.context.data_directory, &path);
        let opened = file_list::open(self.context.data_directory, &path).map_err(|e| file_error(Kind::Config, e))?;
        let Some((file, attributes)) = opened else { return Ok(()) };
        // It may have grown since the list was made: what is beyond its first piece is in the log.
        let size_bytes = attributes.size_bytes.min(FILE_PIECE_BYTES);
        let source = OpenFile { file: &file, path: &path, real };
        let (content, crc32c, uses) = if extents_in(size_bytes) <= MAX_INLINE_EXTENTS as u64 {
            let known = self.extents_of(known, result)?;
            let extents = self.extents(&source, 0, size_bytes, known.as_ref().map_or(&[], |known| &known.extents), result)?;
            let table = ExtentTable { bytes: size_bytes, extents };
            let crc32c = table.crc32c();
            (Content::Extents(table.extents), crc32c, PackBytes::new())
        } else {
            let (table, uses) = self.tabled(&source, 0, size_bytes, known, result)?;
            (Content::Tables(vec![table]), table.crc32c, uses)
        };
        let entry = self.entry(path, &attributes, size_bytes, crc32c, content);
        result.done.push(CopiedItem::File(entry, uses));
        Ok(())
    }

    /// Puts together what is known of a file.
    fn entry(&mut self, path: Vec<u8>, attributes: &Attributes, size_bytes: u64, crc32c: u32, content: Content) -> FileEntry {
        FileEntry {
            path,
            size_bytes,
            mode: attributes.mode,
            owner: self.owners.user(attributes.uid),
            group: self.owners.group(attributes.gid),
            modified_unix_us: attributes.modified_unix_us,
            crc32c,
            content,
        }
    }

    /// A small content that is there already, as a file.
    ///
    /// # Errors
    /// As the store's.
    pub(crate) fn content(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        bytes: &[u8],
    ) -> Result<(FileEntry, PackBytes), Error> {
        let mut unused = 0;
        let extents =
            bytes.chunks(EXTENT_BYTES).map(|extent| self.extent(extent, None, &mut unused)).collect::<Result<_, _>>()?;
        let table = ExtentTable { bytes: bytes.len() as u64, extents };
        let crc32c = crc32c::crc32c(bytes);
        let (content, uses) = if table.extents.len() <= MAX_INLINE_EXTENTS {
            (Content::Extents(table.extents), PackBytes::new())
        } else {
            let uses = uses_of(&table.extents);
            (Content::Tables(vec![self.store_table(&table, crc32c)?]), uses)
        };
        Ok((self.entry(path.to_vec(), attributes, bytes.len() as u64, crc32c, content), uses))
    }

    /// Stores a file that is no part of the data directory. `known` are its extents in the parent.
    ///
    /// # Errors
    /// As the store's.
    pub(crate) fn attach(
        &mut self,
        path: RawText,
        setting: &str,
        attributes: &Attributes,
        bytes: &[u8],
        known: &[Extent],
    ) -> Result<(Attachment, PackBytes), Error> {
        let mut unused = 0;
        let extents = (0..)
            .zip(bytes.chunks(EXTENT_BYTES))
            .map(|(index, extent)| self.extent(extent, known.get::<usize>(index), &mut unused))
            .collect::<Result<Vec<_>, _>>()?;
        let uses = uses_of(&extents);
        let attachment = Attachment {
            path,
            setting: setting.to_owned(),
            mode: attributes.mode,
            owner: self.owners.user(attributes.uid),
            group: self.owners.group(attributes.gid),
            modified_unix_us: attributes.modified_unix_us,
            size_bytes: bytes.len() as u64,
            crc32c: crc32c::crc32c(bytes),
            extents,
        };
        Ok((attachment, uses))
    }

    /// What the parent holds of a piece. A table that cannot be read is as good as none.
    fn extents_of(&self, known: ParentContent, result: &mut CopyResult) -> Result<Option<ExtentTable>, Error> {
        match known {
            ParentContent::Nothing => Ok(None),
            ParentContent::Extents(extents) => Ok(Some(ExtentTable { bytes: 0, extents })),
            ParentContent::Table(table) => match self.context.reader.table(&table.place) {
                Ok(table) => Ok(Some(table)),
                Err(error) if matches!(error.kind, Kind::Damaged | Kind::Denied) => {
                    // Of packs that are gone it was said already.
                    if !self.context.packs_not_reused.contains(&table.place.pack) {
                        result.warnings.push(format!("a piece of an earlier backup is damaged: {}", error.what));
                    }
                    Ok(None)
                }
                Err(error) => Err(error),
            },
        }
    }

    /// Reads a piece and sees to its table.
    fn tabled(
        &mut self,
        source: &OpenFile<'_>,
        offset: u64,
        bytes: u64,
        known: ParentContent,
        result: &mut CopyResult,
    ) -> Result<(TableRef, PackBytes), Error> {
        let earlier = if let ParentContent::Table(table) = &known { Some(*table) } else { None };
        let known = self.extents_of(known, result)?;
        let extents = self.extents(source, offset, bytes, known.as_ref().map_or(&[], |known| &known.extents), result)?;
        let table = ExtentTable { bytes, extents };
        let uses = uses_of(&table.extents);
        if let Some(earlier) = earlier
            && known.as_ref() == Some(&table)
            && !self.context.packs_not_reused.contains(&earlier.place.pack)
        {
            return Ok((earlier, uses));
        }
        let crc32c = table.crc32c();
        Ok((self.store_table(&table, crc32c)?, uses))
    }

    fn store_table(&mut self, table: &ExtentTable, crc32c: u32) -> Result<TableRef, Error> {
        let encoded = table.encode().ok_or_else(|| Error::new(Kind::Bug, "a table of extents that no piece can have"))?;
        Ok(TableRef { place: self.packs.append(RecordKind::Table, &encoded)?, crc32c })
    }

    /// Reads a part of a file. What is not there any more is zeros.
    fn extents(
        &mut self,
        source: &OpenFile<'_>,
        offset: u64,
        bytes: u64,
        known: &[Extent],
        result: &mut CopyResult,
    ) -> Result<Vec<Extent>, Error> {
        let relation = if self.context.page_checksums { relation_file(source.path) } else { None };
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(FILE_READ_BYTES, 0);
        let mut extents = Vec::with_capacity(extents_in(bytes) as usize);
        let mut report = PageReport::default();
        let mut done = 0;
        while done < bytes {
            if self.context.stop.is_set() {
                return Err(Error::new(Kind::Bug, "a worker was told to stop"));
            }
            let len = (bytes - done).min(FILE_READ_BYTES as u64) as usize;
            let Some(chunk) = buffer.get_mut(..len) else { break };
            if let Some(throttle) = &self.context.throttle {
                throttle.take(len, &|| self.context.stop.is_set());
            }
            let at = offset + done;
            let read = fsio::read_full_at(source.file, &source.real, chunk, at).map_err(|e| file_error(Kind::Config, e))?;
            chunk.get_mut(read..).unwrap_or_default().fill(0);
            self.context.read_bytes.fetch_add(len as u64, Ordering::Relaxed);
            if let Some((_, name)) = &relation {
                let (start, horizon) = (self.context.start, &self.context.horizon);
                let pages = PageFile { file: source.file, path: &source.real, segment: name.segment, start, horizon };
                pages.verify(chunk, at, &mut report).map_err(|e| match e {
                    PagesError::File(e) => file_error(Kind::Config, e),
                    PagesError::Server(e) => e,
                })?;
            }
            for extent in chunk.chunks(EXTENT_BYTES) {
                let known = known.get(extents.len());
                extents.push(self.extent(extent, known, &mut result.reused_bytes)?);
            }
            done += len as u64;
        }
        self.buffer = buffer;
        if relation.is_some() && !bytes.is_multiple_of(PAGE_BYTES as u64) {
            self.check_length(source, result)?;
        }
        result.verified += report.verified;
        result.damaged.extend(report.damaged.into_iter().map(|(block, detail)| PageDamage {
            path: source.path.to_vec(),
            block,
            detail,
        }));
        Ok(extents)
    }

    /// A relation that is being extended may have half a page for a moment; one that keeps it is odd.
    fn check_length(&self, source: &OpenFile<'_>, result: &mut CopyResult) -> Result<(), Error> {
        let size = fsio::present_size(source.file, &source.real).map_err(|e| file_error(Kind::Config, e))?;
        if !size.is_multiple_of(PAGE_BYTES as u64) {
            let path = RawText::from(source.path);
            result.warnings.push(format!("{path} has {size} bytes, not a whole number of pages; its last part was not verified"));
        }
        Ok(())
    }

    /// Refers to the parent's extent if it is the same, and stores it otherwise.
    fn extent(&mut self, bytes: &[u8], known: Option<&Extent>, reused_bytes: &mut u64) -> Result<Extent, Error> {
        if is_zero(bytes) {
            return Ok(Extent::zeros(bytes.len()));
        }
        let crc32c = crc32c::crc32c(bytes);
        let hash = blake3::keyed_hash(&self.context.hash_key, bytes).as_bytes().first_chunk().copied().unwrap_or_default();
        if let Some(Extent { stored: Some(stored), crc32c: known_crc }) = known
            && stored.hash == hash
            && *known_crc == crc32c
            && !self.context.packs_not_reused.contains(&stored.place.pack)
        {
            *reused_bytes += bytes.len() as u64;
            return Ok(Extent { crc32c, stored: Some(*stored) });
        }
        let place = self.packs.append(RecordKind::Extent, bytes)?;
        Ok(Extent { crc32c, stored: Some(StoredExtent { hash, place }) })
    }
}

impl Worker for FileCopier<'_, '_> {
    type Job = CopyJob;
    type Output = CopyResult;

    fn run(&mut self, job: CopyJob) -> Result<CopyResult, Error> {
        let mut result = CopyResult::default();
        match job {
            CopyJob::Batch(items) => {
                for item in items {
                    match item {
                        BatchItem::Directory(entry) => result.done.push(CopiedItem::Directory(entry)),
                        BatchItem::File(path, known) => self.small_file(path, known, &mut result)?,
                    }
                }
            }
            CopyJob::Piece(file, index, known) => {
                let piece = match file.open(self.context.data_directory)? {
                    Some((open, _)) => {
                        let real = file_list::real(self.context.data_directory, &file.path);
                        let source = OpenFile { file: open, path: &file.path, real };
                        let offset = index * FILE_PIECE_BYTES;
                        let bytes = (file.size_bytes - offset).min(FILE_PIECE_BYTES);
                        Some(self.tabled(&source, offset, bytes, known, &mut result)?)
                    }
                    None => None,
                };
                result.done.push(CopiedItem::Piece(file, index, piece));
            }
        }
        Ok(result)
    }

    /// Hands over the pack that is not full.
    fn finish(self) -> Result<(), Error> {
        self.packs.finish()
    }
}

/// Of each pack, how many bytes these extents have in it.
fn uses_of(extents: &[Extent]) -> PackBytes {
    let mut uses: HashMap<PackId, u64> = HashMap::new();
    for stored in extents.iter().filter_map(|extent| extent.stored) {
        *uses.entry(stored.place.pack).or_default() += u64::from(stored.place.sealed_bytes);
    }
    uses.into_iter().collect()
}
