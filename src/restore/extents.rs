//! From packs to files: workers take batches of pieces, have their extents read, and write each where it belongs.
//!
//! May not live here: how extents are read and checked ([`ExtentReader`]), which files there are
//! ([`files`](super::files)).
//!
//! Memory per worker: one range, one extent, one block on its way to the disk, the tables of one batch. The queue holds
//! a batch per worker.

use crate::error::Error;
use crate::format::extent::{Extent, extent_bytes};
use crate::format::manifest::{Content, FileEntry, TableRef};
use crate::fsio::{self, DirectWriter, FsError, RestoreTree};
use crate::limits::{EXTENT_BYTES, EXTENTS_PER_TABLE, RESTORE_BATCH_BYTES, RESTORE_BATCH_FILES};
use crate::raw_text::shown;
use crate::repo::backups::{ExtentReader, WantedExtent};
use crate::restore::target_directory::local;
use crate::threads::{Jobs, Stop, Stopped, Worker};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
    buffer: Vec<u8>,
    writer: DirectWriter,
}

impl<'a> RestoreWorker<'a> {
    /// A worker with buffers of its own.
    pub fn new(shared: &'a FileRestore<'a>) -> Self {
        Self { shared, buffer: Vec::with_capacity(EXTENT_BYTES), writer: DirectWriter::new() }
    }
}

impl Worker for RestoreWorker<'_> {
    type Job = Batch;
    type Output = ();

    fn run(&mut self, batch: Batch) -> Result<(), Error> {
        self.shared.restore(&batch, &mut self.buffer, &mut self.writer)
    }
}

impl FileRestore<'_> {
    fn restore(&self, batch: &Batch, buffer: &mut Vec<u8>, writer: &mut DirectWriter) -> Result<(), Error> {
        let mut wanted = Vec::new();
        // How many extents of each part are missing.
        let mut left: Vec<usize> = Vec::with_capacity(batch.parts.len());
        for (number, part) in batch.parts.iter().enumerate() {
            let before = wanted.len();
            self.prepare(number, part, buffer, &mut wanted)?;
            left.push(wanted.len() - before);
        }
        let mut output = Output { shared: self, batch, writer, open: None };
        for range in self.reader.ranges(&mut wanted) {
            if self.stop.is_set() {
                return Ok(());
            }
            self.reader.read(range, buffer, &mut |wanted, content| {
                let Some(part) = batch.parts.get(wanted.file) else { return Ok(()) };
                let content = content.map_err(|e| self.while_restoring(e, &part.task.path))?;
                output.write(wanted, part, content)?;
                RestoreCounters::add(&self.counters.written, wanted.bytes as u64);
                if let Some(left) = left.get_mut(wanted.file) {
                    *left -= 1;
                    if *left == 0
                        && let Some(file) = output.flush()?
                    {
                        self.done(part, file)?;
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Prepares a piece: its file is there and has its length, its zeros are zeros, and what has to be read is known.
    fn prepare(&self, number: usize, part: &Part, buffer: &mut Vec<u8>, wanted: &mut Vec<WantedExtent>) -> Result<(), Error> {
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
        for (index, extent) in (part.first..).zip(extents) {
            let (from, len) = (index * EXTENT_BYTES as u64, extent_bytes(task.size_bytes, index));
            // What is beyond the end of the file as it was is zeros now; what another worker made longer meanwhile is
            // too.
            let may_have = self.reuse && from < there;
            let has = if may_have {
                buffer.resize(len, 0);
                file.read_exact_at(buffer, from).map_err(|e| self.io("read", part, e))?;
                self.reader.is_content_of(extent, buffer)
            } else {
                extent.stored.is_none()
            };
            match (&extent.stored, has) {
                (None, true) if !may_have => RestoreCounters::add(&self.counters.zeros, len as u64),
                (_, true) => RestoreCounters::add(&self.counters.kept, len as u64),
                (None, false) => {
                    fsio::zero_range(&file, &self.tree.path_of(&task.path), from, len).map_err(local)?;
                    RestoreCounters::add(&self.counters.zeros, len as u64);
                }
                (Some(_), false) => wanted.extend(WantedExtent::new(number, task.size_bytes, index, extent)),
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

    fn io(&self, action: &'static str, part: &Part, error: std::io::Error) -> Error {
        local(FsError::new(action, self.tree.path_of(&part.task.path), error))
    }
}

/// Where a worker writes: one file after the other.
struct Output<'a> {
    shared: &'a FileRestore<'a>,
    batch: &'a Batch,
    writer: &'a mut DirectWriter,
    open: Option<(usize, File)>,
}

impl Output<'_> {
    /// Writes an extent, now or with those that come next.
    fn write(&mut self, wanted: &WantedExtent, part: &Part, content: &[u8]) -> Result<(), Error> {
        if self.open.as_ref().is_none_or(|(number, _)| *number != wanted.file) {
            self.flush()?;
            // The one before may come again: its last extent may lie elsewhere.
            self.open = Some((wanted.file, self.shared.tree.open_file(&part.task.path).map_err(local)?));
        }
        let Some((_, file)) = &self.open else { return Ok(()) };
        self.writer.write_at(file, content, wanted.index * EXTENT_BYTES as u64).map_err(|e| self.shared.io("write", part, e))
    }

    /// Writes what waits, and says which file is open.
    fn flush(&mut self) -> Result<Option<&File>, Error> {
        let Some((number, file)) = &self.open else { return Ok(None) };
        let written = self.writer.flush(file);
        let Some(part) = self.batch.parts.get(*number) else { return Ok(None) };
        written.map_err(|e| self.shared.io("write", part, e)).map(|()| Some(file))
    }
}
