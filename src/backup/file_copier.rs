//! What one worker does with the files of a cluster: takes over from the backup before what is known not to have
//! changed, reads the rest, verifies its pages, compares it with the backup before, and stores what is new. May not
//! live here: the list of files and how it is dealt out ([`copy_files`](super::copy_files)), what is known not to have
//! changed ([`untouched`](super::untouched)).

use crate::backup::copy_jobs::{
    BatchItem, CopiedItem, CopyJob, CopyResult, LargeFile, PackBytes, PageDamage, ParentContent, ParentPiece, uses_of,
};
use crate::backup::file_list;
use crate::backup::pages::{Horizon, PageFile, PageReport, PagesError};
use crate::backup::second_look::SecondLook;
use crate::backup::untouched::{Fate, Untouched, UntouchedFile};
use crate::codec::pack::RecordKind;
use crate::error::{Error, Kind};
use crate::format::extent::{Extent, ExtentTable, PackId, RecordLocation, StoredExtent, extents_in};
use crate::format::manifest::{Attachment, Content, FileEntry, TableRef};
use crate::fsio::{self, Attributes, LiveKind, OwnerNames, PassingReader, file_error};
use crate::limits::{EXTENT_BYTES, FILE_PIECE_BYTES, FILE_READ_BYTES, MAX_INLINE_EXTENTS, PAGE_LOOK_BYTES};
use crate::pg::Lsn;
use crate::pg::data_directory::relation_file;
use crate::pg::page_checksum::{PAGE_BYTES, is_zero};
use crate::raw_text::RawText;
use crate::repo::backups::{PackReader, PackWriter};
use crate::threads::{Stop, Worker};
use crate::throttle::Throttle;
use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// What all workers share.
pub(crate) struct CopyContext<'a> {
    /// The data directory.
    pub data_directory: &'a Path,
    /// Key of the hashes.
    pub hash_key: [u8; 32],
    /// Packs of the parent that are not referred to any more: mostly dead, or gone.
    pub packs_not_reused: &'a HashSet<PackId>,
    /// Reads tables of the parent, and extents where there is doubt.
    pub reader: PackReader<'a>,
    /// What is taken over from the parent without reading it.
    pub untouched: Option<&'a Untouched>,
    /// What a file holds that cannot be, if the log says all that changed: then nothing may be taken over.
    pub doubt: OnceLock<String>,
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
    /// Bytes of the files that are done so far, for the progress.
    pub done_bytes: AtomicU64,
    /// Bytes that were read of them.
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
    real: &'a Path,
    reader: PassingReader<'a>,
}

impl<'a> OpenFile<'a> {
    fn new(file: &'a File, path: &'a [u8], real: &'a Path) -> Self {
        Self { file, path, real, reader: PassingReader::new(file, real) }
    }
}

/// A file, or a part of one.
#[derive(Clone, Copy)]
struct Part<'a> {
    /// Relative to the data directory.
    path: &'a [u8],
    /// Where the part begins: a multiple of an extent.
    offset: u64,
    /// How long it is.
    bytes: u64,
}

/// What the parent holds of a part.
#[derive(Default)]
struct Known {
    extents: Vec<Extent>,
    /// The table that has them, if one does.
    table: Option<(TableRef, ExtentTable)>,
    /// Length of the file there.
    file_bytes: u64,
}

impl Known {
    fn extents(&self) -> &[Extent] {
        self.table.as_ref().map_or(&self.extents, |(_, table)| &table.extents)
    }
}

impl<'a, 'p> FileCopier<'a, 'p> {
    pub(crate) fn new(context: &'a CopyContext<'a>, packs: PackWriter<'p>) -> Self {
        Self { context, packs, owners: OwnerNames::default(), buffer: Vec::new() }
    }

    fn small_file(&mut self, path: Vec<u8>, known: ParentPiece, result: &mut CopyResult) -> Result<(), Error> {
        let known = self.known(known, result)?;
        if let Some(entry) = self.unopened(&path, &known, result)? {
            result.done.push(entry);
            return Ok(());
        }
        let real = file_list::real(self.context.data_directory, &path);
        let opened = file_list::open(self.context.data_directory, &path).map_err(|e| file_error(Kind::Config, e))?;
        let Some((file, attributes)) = opened else { return Ok(()) };
        // It may have grown since the list was made: what is beyond its first piece is in the log.
        let size_bytes = attributes.size_bytes.min(FILE_PIECE_BYTES);
        let part = Part { path: &path, offset: 0, bytes: size_bytes };
        let fates = self.fates(part, size_bytes, &known);
        let mut source = OpenFile::new(&file, &path, &real);
        let copied = self.small(part, Some(&mut source), &known, &fates, &attributes, result)?;
        result.done.push(copied);
        Ok(())
    }

    /// A file that is taken over as a whole, without opening it; `None` where that cannot be.
    fn unopened(&mut self, path: &[u8], known: &Known, result: &mut CopyResult) -> Result<Option<CopiedItem>, Error> {
        if known.extents().is_empty() || self.untouched(path).is_none() {
            return Ok(None);
        }
        let attributes = file_list::attributes(self.context.data_directory, path).map_err(|e| file_error(Kind::Config, e))?;
        let Some(attributes) = attributes.filter(|attributes| attributes.kind == LiveKind::File) else { return Ok(None) };
        let part = Part { path, offset: 0, bytes: attributes.size_bytes };
        if part.bytes > FILE_PIECE_BYTES {
            return Ok(None);
        }
        let fates = self.fates(part, part.bytes, known);
        if fates.iter().any(|fate| *fate != Fate::Taken) {
            return Ok(None);
        }
        self.small(part, None, known, &fates, &attributes, result).map(Some)
    }

    /// A file of one piece.
    fn small(
        &mut self,
        part: Part<'_>,
        source: Option<&mut OpenFile<'_>>,
        known: &Known,
        fates: &[Fate],
        attributes: &Attributes,
        result: &mut CopyResult,
    ) -> Result<CopiedItem, Error> {
        let (content, crc32c, uses) = if extents_in(part.bytes) <= MAX_INLINE_EXTENTS as u64 {
            let extents = self.extents(part, source, known.extents(), fates, result)?;
            let table = ExtentTable { bytes: part.bytes, extents };
            let crc32c = table.crc32c();
            (Content::Extents(table.extents), crc32c, PackBytes::new())
        } else {
            let (table, uses) = self.tabled(part, source, known, fates, result)?;
            (Content::Tables(vec![table]), table.crc32c, uses)
        };
        let entry = self.entry(part.path.to_vec(), attributes, part.bytes, crc32c, content);
        Ok(CopiedItem::File(entry, uses))
    }

    /// A piece of a large file; `None` when that is gone.
    fn piece(
        &mut self,
        file: &LargeFile,
        index: u64,
        known: ParentPiece,
        result: &mut CopyResult,
    ) -> Result<Option<(TableRef, PackBytes)>, Error> {
        let offset = index * FILE_PIECE_BYTES;
        let part = Part { path: &file.path, offset, bytes: (file.size_bytes - offset).min(FILE_PIECE_BYTES) };
        let known = self.known(known, result)?;
        let fates = self.fates(part, file.size_bytes, &known);
        if fates.iter().all(|fate| *fate == Fate::Taken) {
            return self.tabled(part, None, &known, &fates, result).map(Some);
        }
        let Some((open, _)) = file.open(self.context.data_directory)? else { return Ok(None) };
        let real = file_list::real(self.context.data_directory, &file.path);
        let mut source = OpenFile::new(open, &file.path, &real);
        self.tabled(part, Some(&mut source), &known, &fates, result).map(Some)
    }

    /// What is known not to have changed of a file.
    fn untouched(&self, path: &[u8]) -> Option<UntouchedFile<'a>> {
        self.context.untouched.and_then(|untouched| untouched.file(path))
    }

    /// What becomes of each extent of a part of a file that has `file_bytes` now. Taken over is only what the parent
    /// has in the same length, in packs that are worth referring to, of a file that did not get shorter.
    fn fates(&self, part: Part<'_>, file_bytes: u64, known: &Known) -> Vec<Fate> {
        let untouched = self.untouched(part.path).filter(|_| known.file_bytes <= file_bytes);
        let fate = |(index, extent): (u64, &Extent)| {
            let at = part.offset + index * EXTENT_BYTES as u64;
            let bytes = |file_bytes: u64| file_bytes.saturating_sub(at).min(EXTENT_BYTES as u64);
            let is_there = extent.stored.is_none_or(|stored| !self.context.packs_not_reused.contains(&stored.place.pack));
            match untouched {
                Some(untouched) if is_there && bytes(known.file_bytes) == bytes(file_bytes) => {
                    untouched.fate(at / EXTENT_BYTES as u64, bytes(file_bytes))
                }
                _ => Fate::Read,
            }
        };
        let mut fates: Vec<Fate> = (0..).zip(known.extents()).map(fate).collect();
        fates.resize(extents_in(part.bytes) as usize, Fate::Read);
        fates
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

    /// Stores a list of items of the manifest.
    ///
    /// # Errors
    /// As the store's.
    pub(crate) fn store_list(&mut self, list: &[u8]) -> Result<RecordLocation, Error> {
        self.packs.append(RecordKind::Table, list)
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
    fn known(&self, piece: ParentPiece, result: &mut CopyResult) -> Result<Known, Error> {
        let file_bytes = piece.file_bytes;
        match piece.content {
            ParentContent::Nothing => Ok(Known::default()),
            ParentContent::Extents(extents) => Ok(Known { extents, table: None, file_bytes }),
            ParentContent::Table(reference) => match self.context.reader.table(&reference.place) {
                Ok(table) => Ok(Known { extents: Vec::new(), table: Some((reference, table)), file_bytes }),
                Err(error) if matches!(error.kind, Kind::Damaged | Kind::Denied) => {
                    // Of packs that are gone it was said already.
                    if !self.context.packs_not_reused.contains(&reference.place.pack) {
                        result.warnings.push(format!("a piece of an earlier backup is damaged: {}", error.what));
                    }
                    Ok(Known::default())
                }
                Err(error) => Err(error),
            },
        }
    }

    /// Sees to the extents of a piece, and to its table.
    fn tabled(
        &mut self,
        part: Part<'_>,
        source: Option<&mut OpenFile<'_>>,
        known: &Known,
        fates: &[Fate],
        result: &mut CopyResult,
    ) -> Result<(TableRef, PackBytes), Error> {
        let extents = self.extents(part, source, known.extents(), fates, result)?;
        let table = ExtentTable { bytes: part.bytes, extents };
        let uses = uses_of(&table.extents);
        if let Some((earlier, known)) = &known.table
            && *known == table
            && !self.context.packs_not_reused.contains(&earlier.place.pack)
        {
            return Ok((*earlier, uses));
        }
        let crc32c = table.crc32c();
        Ok((self.store_table(&table, crc32c)?, uses))
    }

    fn store_table(&mut self, table: &ExtentTable, crc32c: u32) -> Result<TableRef, Error> {
        let encoded = table.encode().ok_or_else(|| Error::new(Kind::Bug, "a table of extents that no piece can have"))?;
        Ok(TableRef { place: self.packs.append(RecordKind::Table, &encoded)?, crc32c })
    }

    /// Takes over or reads the extents of a part of a file. `source` is wanted where any is read.
    fn extents(
        &mut self,
        part: Part<'_>,
        mut source: Option<&mut OpenFile<'_>>,
        known: &[Extent],
        fates: &[Fate],
        result: &mut CopyResult,
    ) -> Result<Vec<Extent>, Error> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(FILE_READ_BYTES, 0);
        let mut extents = Vec::with_capacity(fates.len());
        let mut pages = PageReport::default();
        let mut has_read = false;
        while let (Some(fate), done) = (fates.get(extents.len()), (extents.len() * EXTENT_BYTES) as u64) {
            if self.context.stop.is_set() {
                return Err(Error::new(Kind::Bug, "a worker was told to stop"));
            }
            let bytes_of = |count: usize| (part.bytes - done).min((count * EXTENT_BYTES) as u64) as usize;
            let taken = known.get(extents.len()).filter(|_| *fate != Fate::Read);
            let Some(taken) = taken else {
                let run = fates.iter().skip(extents.len()).take_while(|fate| **fate == Fate::Read).count();
                let len = bytes_of(run.clamp(1, FILE_READ_BYTES / EXTENT_BYTES));
                let Some(chunk) = buffer.get_mut(..len) else { break };
                let next = bytes_of(run.min(2 * FILE_READ_BYTES / EXTENT_BYTES)).saturating_sub(len);
                self.read(source.as_deref_mut(), part.offset + done, chunk, next, &mut pages)?;
                has_read = true;
                for extent in chunk.chunks(EXTENT_BYTES) {
                    let known = known.get(extents.len());
                    extents.push(self.extent(extent, known, &mut result.reused_bytes)?);
                }
                continue;
            };
            let len = bytes_of(1);
            let extent = match *fate {
                Fate::HeaderRead(page) => {
                    self.look_at_header(source.as_deref_mut(), part.offset + done + u64::from(page) * PAGE_BYTES as u64, taken)?;
                    self.context.done_bytes.fetch_add(len as u64, Ordering::Relaxed);
                    Some(*taken)
                }
                Fate::WholeRead => {
                    let chunk = buffer.get_mut(..len).unwrap_or_default();
                    self.look_at_extent(source.as_deref_mut(), part.offset + done, chunk, taken, &mut pages, result)?
                }
                Fate::Taken | Fate::Read => {
                    self.context.done_bytes.fetch_add(len as u64, Ordering::Relaxed);
                    Some(*taken)
                }
            };
            // Otherwise it was stored anew.
            match extent {
                Some(extent) => {
                    result.taken_bytes += len as u64;
                    result.reused_bytes += if extent.stored.is_some() { len as u64 } else { 0 };
                    extents.push(extent);
                }
                None => {
                    let chunk = buffer.get(..len).unwrap_or_default();
                    extents.push(self.extent(chunk, None, &mut result.reused_bytes)?);
                }
            }
        }
        self.buffer = buffer;
        if has_read && !part.bytes.is_multiple_of(PAGE_BYTES as u64) && self.pages_of(part.path).is_some() {
            self.check_length(opened(source)?, result)?;
        }
        result.verified += pages.verified;
        result.damaged.extend(pages.damaged.into_iter().map(|(block, detail)| PageDamage {
            path: part.path.to_vec(),
            block,
            detail,
        }));
        Ok(extents)
    }

    /// Which gigabyte of a relation a file is, where its pages carry checksums.
    fn pages_of(&self, path: &[u8]) -> Option<u32> {
        relation_file(path).filter(|_| self.context.page_checksums).map(|(_, name)| name.segment)
    }

    /// Reads a part of a file, and verifies its pages. What is not there any more is zeros; how much was there.
    /// `next_bytes` are read next.
    fn read(
        &self,
        source: Option<&mut OpenFile<'_>>,
        at: u64,
        chunk: &mut [u8],
        next_bytes: usize,
        report: &mut PageReport,
    ) -> Result<usize, Error> {
        let source = opened(source)?;
        if let Some(throttle) = &self.context.throttle {
            throttle.take(chunk.len(), &|| self.context.stop.is_set());
        }
        let read = source.reader.read_full_at(chunk, at, next_bytes).map_err(|e| file_error(Kind::Config, e))?;
        chunk.get_mut(read..).unwrap_or_default().fill(0);
        self.context.done_bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        self.context.read_bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        if let Some(segment) = self.pages_of(source.path) {
            let (start, horizon) = (self.context.start, &self.context.horizon);
            let pages = PageFile { file: source.file, path: source.real, segment, start, horizon };
            pages.verify(chunk, at, report).map_err(|e| match e {
                PagesError::File(e) => file_error(Kind::Config, e),
                PagesError::Server(e) => e,
            })?;
        }
        Ok(read)
    }

    /// Looks at the beginning of one page of an extent that is taken over: its LSN is there.
    fn look_at_header(&self, source: Option<&mut OpenFile<'_>>, at: u64, taken: &Extent) -> Result<(), Error> {
        let (source, Some(untouched)) = (opened(source)?, self.context.untouched) else { return Ok(()) };
        let mut header = [0; PAGE_LOOK_BYTES];
        let read = source.reader.read_full_at(&mut header, at, 0).map_err(|e| file_error(Kind::Config, e))?;
        self.context.read_bytes.fetch_add(read as u64, Ordering::Relaxed);
        // Shorter: cut off after the backup began.
        if read < PAGE_LOOK_BYTES {
            return Ok(());
        }
        let look = SecondLook { range: untouched.range(), known: taken };
        look.page(&header).map_or(Ok(()), |wrong| Err(self.doubt(source, at, &wrong)))
    }

    /// Looks at an extent that is taken over, all of it: what to refer to, or nothing where `chunk` has to be stored,
    /// because the parent's cannot be read.
    fn look_at_extent(
        &self,
        mut source: Option<&mut OpenFile<'_>>,
        at: u64,
        chunk: &mut [u8],
        taken: &Extent,
        report: &mut PageReport,
        result: &mut CopyResult,
    ) -> Result<Option<Extent>, Error> {
        let damaged = report.damaged.len();
        let read = self.read(source.as_deref_mut(), at, chunk, 0, report)?;
        let source = opened(source)?;
        let (Some(untouched), Some(file)) = (self.context.untouched, self.untouched(source.path)) else { return Ok(None) };
        // Shorter: cut off after the backup began.
        if read < chunk.len() || self.is_same(chunk, taken) {
            return Ok(Some(*taken));
        }
        let blocks: Vec<u64> = report.damaged.iter().skip(damaged).map(|(block, _)| *block).collect();
        let first = file.first_page() + at / PAGE_BYTES as u64;
        let look = SecondLook { range: untouched.range(), known: taken };
        let is_damaged = |page: usize| blocks.contains(&(first + page as u64));
        match look.pages(chunk, &is_damaged, &|| self.content_of(taken, chunk.len())) {
            Ok(None) => Ok(Some(*taken)),
            Ok(Some((page, wrong))) => Err(self.doubt(source, at + (page * PAGE_BYTES) as u64, &wrong)),
            Err(error) if matches!(error.kind, Kind::Damaged | Kind::Denied) => {
                result.warnings.push(format!("a piece of an earlier backup is damaged, it is stored anew: {}", error.what));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// What the parent stored of an extent.
    fn content_of(&self, extent: &Extent, bytes: usize) -> Result<Vec<u8>, Error> {
        let mut content = Vec::with_capacity(bytes);
        if let Some(StoredExtent { place, .. }) = &extent.stored {
            let reader = &self.context.reader;
            let mut sealed = reader.range(place.pack, place.offset.into(), place.end())?;
            reader.open(RecordKind::Extent, place, &mut sealed, Some(bytes), &mut content)?;
        }
        Ok(content)
    }

    /// Remembers that the log does not say all that changed: all has to be read.
    fn doubt(&self, source: &OpenFile<'_>, at: u64, wrong: &str) -> Error {
        let (path, page) = (RawText::from(source.path), at / PAGE_BYTES as u64);
        let what = format!("page {page} of {path} should be as it was: {wrong}");
        let _first_one_counts = self.context.doubt.set(what.clone());
        Error::new(Kind::Damaged, what)
    }

    /// A relation that is being extended may have half a page for a moment; one that keeps it is odd.
    fn check_length(&self, source: &OpenFile<'_>, result: &mut CopyResult) -> Result<(), Error> {
        let size = fsio::present_size(source.file, source.real).map_err(|e| file_error(Kind::Config, e))?;
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
        let hash = self.hash_of(bytes);
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

    fn hash_of(&self, bytes: &[u8]) -> [u8; 16] {
        blake3::keyed_hash(&self.context.hash_key, bytes).as_bytes().first_chunk().copied().unwrap_or_default()
    }

    /// Whether bytes are what the parent has.
    fn is_same(&self, bytes: &[u8], known: &Extent) -> bool {
        match &known.stored {
            Some(stored) => stored.hash == self.hash_of(bytes) && known.crc32c == crc32c::crc32c(bytes),
            None => is_zero(bytes),
        }
    }
}

/// A file that has to be read.
fn opened<'a, 'f>(source: Option<&'a mut OpenFile<'f>>) -> Result<&'a mut OpenFile<'f>, Error> {
    source.ok_or_else(|| Error::new(Kind::Bug, "a file is read that was not opened"))
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
                let piece = self.piece(&file, index, known, &mut result)?;
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
