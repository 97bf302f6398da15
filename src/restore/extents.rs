//! From packs to files: workers take batches of pieces, have their extents read, and write each where it belongs.
//!
//! May not live here: how extents are read and checked ([`ExtentReader`]), which files there are
//! ([`files`](super::files)).
//!
//! Memory per worker: one range, one block on its way to the disk, one of what is there already, the tables of one
//! batch. The queue holds a batch per worker.

use crate::error::{Error, Kind};
use crate::format::extent::{Extent, extent_bytes};
use crate::format::manifest::{Content, FileEntry, TableRef};
use crate::fsio::{self, DirectBuffer, DirectWriter, FsError, RestoreTree};
use crate::limits::{DIRECT_BLOCK_BYTES, EXTENT_BYTES, EXTENTS_PER_TABLE, RESTORE_BATCH_BYTES, RESTORE_BATCH_FILES};
use crate::raw_text::shown;
use crate::repo::backups::{ExtentReader, ReadBuffers, TakeExtents, WantedExtent};
use crate::restore::target_directory::local;
use crate::threads::{Jobs, Stop, Stopped, Worker};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Of what is there already so much is read at once.
const EXTENTS_PER_BLOCK: usize = DIRECT_BLOCK_BYTES / EXTENT_BYTES;

/// A file that workers restore.
#[derive(Debug)]
struct Task {
    path: Vec<u8>,
    size_bytes: u64,
    mode: u32,
    modified_unix_us: i64,
    /// Pieces that are not done. The file gets its attributes after the last one.
    left: AtomicU64,
}

/// A piece of a file.
#[derive(Debug)]
struct Part {
    task: Arc<Task>,
    /// The first extent of the piece.
    first: u64,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Extents(Vec<Extent>),
    Table(TableRef),
}

/// What one worker takes at once.
#[derive(Debug, Default)]
pub struct Batch {
    parts: Vec<Part>,
}

/// Cuts files into batches.
#[derive(Debug)]
pub struct Batches<'a> {
    jobs: &'a Jobs<'a, Batch>,
    small: Batch,
    small_bytes: u64,
}

impl<'a> Batches<'a> {
    /// Hands batches to these workers.
    pub fn new(jobs: &'a Jobs<'a, Batch>) -> Self {
        Self { jobs, small: Batch::default(), small_bytes: 0 }
    }

    /// Adds a file.
    ///
    /// # Errors
    /// When the workers have stopped.
    pub fn add(&mut self, file: FileEntry) -> Result<(), Stopped> {
        let pieces = match &file.content {
            Content::Extents(_) => 1,
            Content::Tables(tables) => tables.len() as u64,
        };
        let task = Arc::new(Task {
            path: file.path,
            size_bytes: file.size_bytes,
            mode: file.mode,
            modified_unix_us: file.modified_unix_us,
            left: AtomicU64::new(pieces),
        });
        match file.content {
            Content::Extents(extents) => {
                self.small.parts.push(Part { task, first: 0, source: Source::Extents(extents) });
                self.small_bytes += file.size_bytes;
                if self.small_bytes >= RESTORE_BATCH_BYTES || self.small.parts.len() >= RESTORE_BATCH_FILES {
                    return self.send_small();
                }
            }
            Content::Tables(tables) => {
                for (number, table) in tables.into_iter().enumerate() {
                    let first = (number * EXTENTS_PER_TABLE) as u64;
                    let part = Part { task: Arc::clone(&task), first, source: Source::Table(table) };
                    self.jobs.send(Batch { parts: vec![part] })?;
                }
            }
        }
        Ok(())
    }

    /// Hands over what is left.
    ///
    /// # Errors
    /// When the workers have stopped.
    pub fn finish(mut self) -> Result<(), Stopped> {
        if self.small.parts.is_empty() { Ok(()) } else { self.send_small() }
    }

    fn send_small(&mut self) -> Result<(), Stopped> {
        self.small_bytes = 0;
        self.jobs.send(std::mem::take(&mut self.small))
    }
}

/// What workers share.
pub struct FileRestore<'a> {
    /// Where files are written.
    pub tree: &'a RestoreTree,
    /// Where extents are read.
    pub reader: ExtentReader<'a>,
    /// Whether what is there already is looked at.
    pub reuse: bool,
    /// What was done.
    pub counters: RestoreCounters,
    /// Whether to begin nothing new.
    pub stop: Stop,
}

/// Counts, in bytes of files.
#[derive(Debug, Default)]
pub struct RestoreCounters {
    /// Written.
    pub written: AtomicU64,
    /// There already, with the right content.
    pub kept: AtomicU64,
    /// Zeros, written nowhere.
    pub zeros: AtomicU64,
}

impl RestoreCounters {
    fn add(counter: &AtomicU64, value: u64) {
        counter.fetch_add(value, Ordering::Relaxed);
    }

    /// Bytes of files that are done.
    pub fn done(&self) -> u64 {
        [&self.written, &self.kept, &self.zeros].iter().map(|counter| counter.load(Ordering::Relaxed)).sum()
    }
}

/// One worker.
pub struct RestoreWorker<'a> {
    shared: &'a FileRestore<'a>,
    buffers: ReadBuffers,
    /// For what is there already.
    there: DirectBuffer,
    writer: DirectWriter,
}

impl<'a> RestoreWorker<'a> {
    /// A worker with buffers of its own.
    pub fn new(shared: &'a FileRestore<'a>) -> Self {
        Self { shared, buffers: ReadBuffers::default(), there: DirectBuffer::default(), writer: DirectWriter::new() }
    }
}

impl Worker for RestoreWorker<'_> {
    type Job = Batch;
    type Output = ();

    fn run(&mut self, batch: Batch) -> Result<(), Error> {
        let Self { shared, buffers, there, writer } = self;
        let shared: &FileRestore<'_> = shared;
        let mut wanted = Vec::new();
        // How many extents of each part are missing.
        let mut left: Vec<usize> = Vec::with_capacity(batch.parts.len());
        for (number, part) in batch.parts.iter().enumerate() {
            let before = wanted.len();
            shared.prepare(number, part, there, &mut wanted)?;
            left.push(wanted.len() - before);
        }
        let mut output = Output { shared, batch: &batch, writer, left, open: None };
        for range in shared.reader.ranges(&mut wanted) {
            if shared.stop.is_set() {
                return Ok(());
            }
            shared.reader.read(range, buffers, &mut output)?;
        }
        Ok(())
    }
}

impl FileRestore<'_> {
    /// Prepares a piece: its file is there and has its length, its zeros are zeros, and what has to be read is known.
    fn prepare(
        &self,
        number: usize,
        part: &Part,
        buffer: &mut DirectBuffer,
        wanted: &mut Vec<WantedExtent>,
    ) -> Result<(), Error> {
        let task = &part.task;
        let table;
        let extents = match &part.source {
            Source::Extents(extents) => extents,
            Source::Table(reference) => {
                let read = self.reader.table(reference, task.size_bytes, part.first);
                table = read.map_err(|e| self.while_restoring(e, &task.path))?;
                &table
            }
        };
        let stored = extents.iter().filter(|extent| extent.stored.is_some()).count();
        // Written from beginning to end it has its length by itself.
        let is_plain = !self.reuse && stored == extents.len() && stored > 0 && matches!(part.source, Source::Extents(_));
        if is_plain {
            let all = (part.first..).zip(extents);
            wanted.extend(all.filter_map(|(index, extent)| WantedExtent::new(number, task.size_bytes, index, extent)));
            return Ok(());
        }
        let file = self.tree.open_file(&task.path).map_err(local)?;
        let there = file.metadata().map_err(|e| self.io("stat", part, e))?.len();
        if there != task.size_bytes {
            file.set_len(task.size_bytes).map_err(|e| self.io("set the length of", part, e))?;
        }
        let before = wanted.len();
        for (number_of_block, chunk) in (0..).zip(extents.chunks(EXTENTS_PER_BLOCK)) {
            let first = part.first + number_of_block * EXTENTS_PER_BLOCK as u64;
            let bytes: usize = (first..).zip(chunk).map(|(index, _)| extent_bytes(task.size_bytes, index)).sum();
            // What is beyond the end of the file as it was is zeros now; what another worker made longer meanwhile is
            // too.
            let was_there = |index: u64| self.reuse && index * (EXTENT_BYTES as u64) < there;
            let mut present: &[u8] = &[];
            if was_there(first) {
                let read = fsio::read_past_cache(&file, buffer, bytes, first * EXTENT_BYTES as u64);
                present = read.map_err(|e| self.io("read", part, e))?;
                if present.len() < bytes {
                    return Err(self.io("read", part, io::ErrorKind::UnexpectedEof.into()));
                }
            }
            for (index, extent) in (first..).zip(chunk) {
                let (from, len) = (index * EXTENT_BYTES as u64, extent_bytes(task.size_bytes, index));
                let at = (index - first) as usize * EXTENT_BYTES;
                let old = present.get(at..at + len).filter(|_| was_there(index));
                let has = match old {
                    Some(old) => self.reader.is_content_of(extent, old),
                    None => extent.stored.is_none(),
                };
                match (&extent.stored, has) {
                    (None, true) if old.is_none() => RestoreCounters::add(&self.counters.zeros, len as u64),
                    (_, true) => RestoreCounters::add(&self.counters.kept, len as u64),
                    (None, false) => {
                        fsio::zero_range(&file, &self.tree.path_of(&task.path), from, len).map_err(local)?;
                        RestoreCounters::add(&self.counters.zeros, len as u64);
                    }
                    (Some(_), false) => wanted.extend(WantedExtent::new(number, task.size_bytes, index, extent)),
                }
            }
        }
        if wanted.len() == before {
            self.done(part, &file)?;
        }
        Ok(())
    }

    /// A piece is done; the last one completes its file.
    fn done(&self, part: &Part, file: &File) -> Result<(), Error> {
        let task = &part.task;
        // Acquire and release: the writes of all pieces come before the time is set.
        if task.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.tree.finish_file(file, &task.path, task.mode, task.modified_unix_us).map_err(local)?;
        }
        Ok(())
    }

    fn while_restoring(&self, error: Error, path: &[u8]) -> Error {
        error.while_doing(format!("restore {}", shown(self.tree.path_of(path))))
    }

    fn io(&self, action: &'static str, part: &Part, error: io::Error) -> Error {
        local(FsError::new(action, self.tree.path_of(&part.task.path), error))
    }
}

/// Where a worker writes: one file after the other.
struct Output<'a> {
    shared: &'a FileRestore<'a>,
    batch: &'a Batch,
    writer: &'a mut DirectWriter,
    /// How many extents of each part are missing.
    left: Vec<usize>,
    open: Option<(usize, File)>,
}

impl<'a> Output<'a> {
    fn part(&self, number: usize) -> Result<&'a Part, Error> {
        self.batch.parts.get(number).ok_or_else(|| Error::new(Kind::Bug, "an extent of no file"))
    }

    /// Writes what waits.
    fn flush(&mut self) -> Result<(), Error> {
        let Some((number, file)) = &self.open else { return Ok(()) };
        let written = self.writer.flush(file);
        written.map_err(|e| self.part(*number).map_or_else(|bug| bug, |part| self.shared.io("write", part, e)))
    }
}

impl TakeExtents for Output<'_> {
    fn room(&mut self, wanted: &WantedExtent) -> Result<&mut [u8], Error> {
        let part = self.part(wanted.file)?;
        if self.open.as_ref().is_none_or(|(number, _)| *number != wanted.file) {
            self.flush()?;
            // The one before may come again: its last extent may lie elsewhere.
            self.open = Some((wanted.file, self.shared.tree.open_file(&part.task.path).map_err(local)?));
        }
        let (shared, offset) = (self.shared, wanted.index * EXTENT_BYTES as u64);
        let Some((_, file)) = &self.open else { return Err(Error::new(Kind::Bug, "an extent without a file")) };
        self.writer.room_at(file, offset, wanted.bytes).map_err(|e| shared.io("write", part, e))
    }

    /// Has it written, now or with those that come next.
    fn take(&mut self, wanted: &WantedExtent, read: Result<(), Error>) -> Result<(), Error> {
        let (shared, part) = (self.shared, self.part(wanted.file)?);
        read.map_err(|e| shared.while_restoring(e, &part.task.path))?;
        let Some((_, file)) = &self.open else { return Err(Error::new(Kind::Bug, "an extent without a file")) };
        let written = self.writer.filled(file, wanted.bytes);
        written.map_err(|e| shared.io("write", part, e))?;
        RestoreCounters::add(&shared.counters.written, wanted.bytes as u64);
        let Some(left) = self.left.get_mut(wanted.file) else { return Ok(()) };
        *left -= 1;
        if *left > 0 {
            return Ok(());
        }
        self.flush()?;
        match &self.open {
            Some((_, file)) => shared.done(part, file),
            None => Ok(()),
        }
    }
}
