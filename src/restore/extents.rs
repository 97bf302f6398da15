//! From packs to files: workers take batches of pieces, read what they need of packs in few ranges, authenticate every extent, hold
//! it against its hash, and write it where it belongs.
//!
//! Memory per worker: one range, one extent, one block on its way to the disk, the tables of one batch. The queue holds a batch per worker.
use crate::codec::pack::RecordKind;
use crate::error::{Error, Kind};
use crate::format::extent::{Extent, StoredExtent, extent_bytes, extents_in};
use crate::format::manifest::{Content, FileEntry, TableRef};
use crate::fsio::{self, DirectWriter, FsError, RestoreTree};
use crate::limits::{EXTENT_BYTES, EXTENTS_PER_TABLE, KIB, MIB};
use crate::raw_text::shown;
use crate::repo::backups::PackReader;
use crate::restore::target_directory::local;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};

/// Unused bytes between two extents that are read all the same rather than with another request.
const MAX_GAP_BYTES: u64 = 128 * KIB as u64;
/// Longest range that is read at once.
const MAX_RANGE_BYTES: u64 = 8 * MIB as u64;
/// What the ranges of all workers take together.
const RANGES_MEMORY_BYTES: u64 = 96 * MIB as u64;
/// Small files are taken together until they have so many bytes, so that thousands of them cost few requests.
const BATCH_BYTES: u64 = 8 * MIB as u64;
/// And so many at most.
const BATCH_FILES: usize = 2048;

/// A file that workers restore.
#[derive(Debug)]
struct Task {
    path: Vec<u8>,
    size_bytes: u64,
    mode: u32,
    modified_unix_us: i64,
    /// Pieces that are not done. Who does the last one gives the file its attributes.
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
pub struct Batches {
    queue: SyncSender<Batch>,
    small: Batch,
    small_bytes: u64,
}

/// The workers have ended: there is a failure.
pub struct Ended;

impl Batches {
    /// Hands batches to this queue.
    pub fn new(queue: SyncSender<Batch>) -> Self {
        Self { queue, small: Batch::default(), small_bytes: 0 }
    }

    /// Adds a file.
    ///
    /// # Errors
    /// When no worker is left.
    pub fn add(&mut self, file: FileEntry) -> Result<(), Ended> {
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
                if self.small_bytes >= BATCH_BYTES || self.small.parts.len() >= BATCH_FILES {
                    return self.send_small();
                }
            }
            Content::Tables(tables) => {
                for (number, table) in tables.into_iter().enumerate() {
                    let first = (number * EXTENTS_PER_TABLE) as u64;
                    let part = Part { task: Arc::clone(&task), first, source: Source::Table(table) };
                    self.queue.send(Batch { parts: vec![part] }).map_err(|_| Ended)?;
                }
            }
        }
        Ok(())
    }

    /// Hands over what is left.
    ///
    /// # Errors
    /// When no worker is left.
    pub fn finish(mut self) -> Result<(), Ended> {
        if self.small.parts.is_empty() { Ok(()) } else { self.send_small() }
    }

    fn send_small(&mut self) -> Result<(), Ended> {
        self.small_bytes = 0;
        self.queue.send(std::mem::take(&mut self.small)).map_err(|_| Ended)
    }
}

/// What workers share.
pub struct ExtentWorker<'a> {
    /// Where files are written.
    pub tree: &'a RestoreTree,
    /// Where extents are read.
    pub reader: PackReader<'a>,
    /// Key of the extents' hashes.
    pub hash_key: [u8; 32],
    /// Whether what is there already is looked at.
    pub reuse: bool,
    /// How many workers there are.
    pub jobs: usize,
    /// What was done.
    pub tally: RestoreCounters,
    /// Something failed: nobody begins anything new.
    pub failed: AtomicBool,
    /// What.
    pub failure: Mutex<Option<Error>>,
}

/// Counts, in bytes of files but for `read`.
#[derive(Debug, Default)]
pub struct RestoreCounters {
    /// Read from packs.
    pub read: AtomicU64,
    /// Requests for that.
    pub requests: AtomicU64,
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

/// An extent that has to be read.
struct Want {
    part: usize,
    /// Number in its file.
    index: u64,
    stored: StoredExtent,
    crc32c: u32,
}

impl ExtentWorker<'_> {
    /// Takes batches until there are no more. After a failure they are taken and dropped, so that nobody waits for ever.
    pub fn work(&self, queue: &Mutex<Receiver<Batch>>) {
        let mut buffer = Vec::with_capacity(EXTENT_BYTES);
        let mut writer = DirectWriter::new();
        loop {
            let batch = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(batch) = batch else { return };
            if self.failed.load(Ordering::Acquire) {
                continue;
            }
            if let Err(error) = self.restore(&batch, &mut buffer, &mut writer) {
                self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                self.failed.store(true, Ordering::Release);
            }
        }
    }

    fn restore(&self, batch: &Batch, buffer: &mut Vec<u8>, writer: &mut DirectWriter) -> Result<(), Error> {
        let mut wants = Vec::new();
        let mut left: Vec<usize> = Vec::with_capacity(batch.parts.len());
        for (number, part) in batch.parts.iter().enumerate() {
            let before = wants.len();
            self.look(number, part, buffer, &mut wants)?;
            left.push(wants.len() - before);
        }
        wants.sort_unstable_by_key(|want| (want.stored.place, want.part, want.index));
        let limit = (RANGES_MEMORY_BYTES / self.jobs.max(1) as u64).clamp(256 * KIB as u64, MAX_RANGE_BYTES);
        let mut output = Output { shop: self, batch, writer, open: None };
        let mut rest = wants.as_slice();
        while !rest.is_empty() {
            if self.failed.load(Ordering::Acquire) {
                return Ok(());
            }
            let (count, until) = range(rest, limit);
            let (these, after) = rest.split_at(count);
            rest = after;
            self.restore_range(batch, these, until, buffer, &mut output, &mut left)?;
        }
        Ok(())
    }

    /// Reads one range and writes its extents.
    fn restore_range(
        &self,
        batch: &Batch,
        wants: &[Want],
        until: u64,
        buffer: &mut Vec<u8>,
        output: &mut Output<'_>,
        left: &mut [usize],
    ) -> Result<(), Error> {
        let Some(first) = wants.first() else { return Ok(()) };
        let (pack, from) = (first.stored.place.pack, u64::from(first.stored.place.offset));
        let name = |want: &Want| batch.parts.get(want.part).map_or_else(String::new, |part| self.name(&part.task.path));
        let mut bytes = self.reader.range(pack, from, until).map_err(|e| e.while_doing(format!("restore {}", name(first))))?;
        RestoreCounters::add(&self.tally.read, bytes.len() as u64);
        RestoreCounters::add(&self.tally.requests, 1);
        let mut before = None;
        for want in wants {
            let Some(part) = batch.parts.get(want.part) else { continue };
            let (place, len) = (want.stored.place, extent_bytes(part.task.size_bytes, want.index));
            // The same content twice was opened already: that happens in place.
            if before != Some((place, len)) {
                let start = usize::try_from(u64::from(place.offset) - from).unwrap_or(usize::MAX);
                let sealed = bytes.get_mut(start..start.saturating_add(place.sealed_bytes as usize)).unwrap_or_default();
                buffer.clear();
                self.reader
                    .open(RecordKind::Extent, &place, sealed, Some(len), buffer)
                    .map_err(|e| e.while_doing(format!("restore {}", name(want))))?;
                before = Some((place, len));
            }
            if !self.is(buffer, &want.stored, want.crc32c) {
                return Err(Error::new(
                    Kind::Damaged,
                    format!(
                        "restore {}: extent {} in pack {} is not what the backup says it is",
                        name(want),
                        want.index,
                        place.pack
                    ),
                )
                .hint("restore another backup, and please report this: what was read is authentic"));
            }
            output.write(want, part, buffer)?;
            RestoreCounters::add(&self.tally.written, len as u64);
            if let Some(left) = left.get_mut(want.part) {
                *left -= 1;
                if *left == 0
                    && let Some(file) = output.flush()?
                {
                    self.done(part, file)?;
                }
            }
        }
        Ok(())
    }

    /// Prepares a piece: its file is there and has its length, its zeros are zeros, and what has to be read is known.
    fn look(&self, number: usize, part: &Part, buffer: &mut Vec<u8>, wants: &mut Vec<Want>) -> Result<(), Error> {
        let task = &part.task;
        let table;
        let extents = match &part.source {
            Source::Extents(extents) => extents,
            Source::Table(reference) => {
                table = self.table(part, reference)?;
                &table
            }
        };
        let stored = extents.iter().filter(|extent| extent.stored.is_some()).count();
        // Written from beginning to end it has its length by itself.
        let is_plain = !self.reuse && stored == extents.len() && stored > 0 && matches!(part.source, Source::Extents(_));
        if is_plain {
            wants.extend(extents.iter().enumerate().filter_map(|(at, extent)| want(number, part.first + at as u64, extent)));
            return Ok(());
        }
        let file = self.tree.open_file(&task.path).map_err(local)?;
        let there = file.metadata().map_err(|e| self.io("stat", part, e))?.len();
        if there != task.size_bytes {
            file.set_len(task.size_bytes).map_err(|e| self.io("set the length of", part, e))?;
        }
        let before = wants.len();
        for (at, extent) in extents.iter().enumerate() {
            let index = part.first + at as u64;
            let (from, len) = (index * EXTENT_BYTES as u64, extent_bytes(task.size_bytes, index));
            // What is beyond the end of the file as it was is zeros now; what another worker made longer meanwhile is too.
            let may_have = self.reuse && from < there;
            let has = if may_have {
                buffer.resize(len, 0);
                file.read_exact_at(buffer, from).map_err(|e| self.io("read", part, e))?;
                match &extent.stored {
                    Some(stored) => self.is(buffer, stored, extent.crc32c),
                    None => is_zeros(buffer),
                }
            } else {
                extent.stored.is_none()
            };
            match (&extent.stored, has) {
                (None, true) if !may_have => RestoreCounters::add(&self.tally.zeros, len as u64),
                (_, true) => RestoreCounters::add(&self.tally.kept, len as u64),
                (None, false) => {
                    fsio::zero_range(&file, &self.tree.path_of(&task.path), from, len).map_err(local)?;
                    RestoreCounters::add(&self.tally.zeros, len as u64);
                }
                (Some(_), false) => wants.extend(want(number, index, extent)),
            }
        }
        if wants.len() == before {
            self.done(part, &file)?;
        }
        Ok(())
    }

    fn table(&self, part: &Part, reference: &TableRef) -> Result<Vec<Extent>, Error> {
        let name = || self.name(&part.task.path);
        let table = self.reader.table(&reference.place).map_err(|e| e.while_doing(format!("restore {}", name())))?;
        RestoreCounters::add(&self.tally.read, reference.place.sealed_bytes.into());
        RestoreCounters::add(&self.tally.requests, 1);
        let left = part.task.size_bytes.saturating_sub(part.first * EXTENT_BYTES as u64);
        let expected = left.min((EXTENTS_PER_TABLE * EXTENT_BYTES) as u64);
        if table.bytes != expected || table.extents.len() as u64 != extents_in(expected) || table.crc32c() != reference.crc32c {
            let pack = reference.place.pack;
            return Err(Error::new(
                Kind::Damaged,
                format!("restore {}: the table of extents in pack {pack} is not the one of this piece", name()),
            )
            .hint("restore another backup, and please report this: what was read is authentic"));
        }
        Ok(table.extents)
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

    fn is(&self, content: &[u8], stored: &StoredExtent, crc32c: u32) -> bool {
        is(&self.hash_key, content, stored, crc32c)
    }

    /// As [`read_whole`].
    ///
    /// # Errors
    /// As [`read_whole`].
    pub fn content(&self, file: &FileEntry) -> Result<Vec<u8>, Error> {
        read_whole(&self.reader, &self.hash_key, &self.name(&file.path), file)
    }

    fn name(&self, path: &[u8]) -> String {
        shown(self.tree.path_of(path)).to_string()
    }

    fn io(&self, action: &'static str, part: &Part, error: std::io::Error) -> Error {
        local(FsError::new(action, self.tree.path_of(&part.task.path), error))
    }
}

/// Where a worker writes: one file after the other.
struct Output<'a> {
    shop: &'a ExtentWorker<'a>,
    batch: &'a Batch,
    writer: &'a mut DirectWriter,
    open: Option<(usize, File)>,
}

impl Output<'_> {
    /// Writes an extent, now or with those that come next.
    fn write(&mut self, want: &Want, part: &Part, content: &[u8]) -> Result<(), Error> {
        if self.open.as_ref().is_none_or(|(number, _)| *number != want.part) {
            self.flush()?;
            // The one before may come again: its last extent may lie elsewhere.
            self.open = Some((want.part, self.shop.tree.open_file(&part.task.path).map_err(local)?));
        }
        let Some((_, file)) = &self.open else { return Ok(()) };
        self.writer.write_at(file, content, want.index * EXTENT_BYTES as u64).map_err(|e| self.shop.io("write", part, e))
    }

    /// Writes what waits, and says which file is open.
    fn flush(&mut self) -> Result<Option<&File>, Error> {
        let Some((number, file)) = &self.open else { return Ok(None) };
        let written = self.writer.flush(file);
        let Some(part) = self.batch.parts.get(*number) else { return Ok(None) };
        written.map_err(|e| self.shop.io("write", part, e)).map(|()| Some(file))
    }
}

fn want(part: usize, index: u64, extent: &Extent) -> Option<Want> {
    extent.stored.map(|stored| Want { part, index, stored, crc32c: extent.crc32c })
}

fn is_zeros(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

/// How many of the extents, sorted by place, are read at once, and where their range ends.
fn range(wants: &[Want], limit: u64) -> (usize, u64) {
    let Some(first) = wants.first() else { return (0, 0) };
    let (pack, from) = (first.stored.place.pack, u64::from(first.stored.place.offset));
    let mut until = first.stored.place.end();
    let mut count = 1;
    for want in wants.iter().skip(1) {
        let place = want.stored.place;
        let end = until.max(place.end());
        if place.pack != pack || u64::from(place.offset) > until + MAX_GAP_BYTES || end - from > limit {
            break;
        }
        (count, until) = (count + 1, end);
    }
    (count, until)
}

fn is(hash_key: &[u8; 32], content: &[u8], stored: &StoredExtent, crc32c: u32) -> bool {
    let hash = blake3::keyed_hash(hash_key, content);
    crc32c::crc32c(content) == crc32c && hash.as_bytes().first_chunk() == Some(&stored.hash)
}

/// Reads a small file's content, for what is written by other means. `name` is for messages.
///
/// # Errors
/// As the reader's.
pub fn read_whole(reader: &PackReader<'_>, hash_key: &[u8; 32], name: &str, file: &FileEntry) -> Result<Vec<u8>, Error> {
    let Content::Extents(extents) = &file.content else {
        return Err(Error::new(Kind::Damaged, format!("{name} is much too long")).hint("restore another backup"));
    };
    let mut content = Vec::new();
    for (index, extent) in (0..).zip(extents) {
        let len = extent_bytes(file.size_bytes, index);
        let before = content.len();
        match &extent.stored {
            None => content.resize(before + len, 0),
            Some(stored) => {
                let place = &stored.place;
                let doing = |e: Error| e.while_doing(format!("restore {name}"));
                let mut sealed = reader.range(place.pack, place.offset.into(), place.end()).map_err(doing)?;
                reader.open(RecordKind::Extent, place, &mut sealed, Some(len), &mut content).map_err(doing)?;
                if !is(hash_key, content.get(before..).unwrap_or_default(), stored, extent.crc32c) {
                    let what = format!("restore {name}: it is not what the backup says it is");
                    return Err(Error::new(Kind::Damaged, what).hint("restore another backup"));
                }
            }
        }
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::extent::{BackupId, PackId, RecordLocation};

    fn at(number: u32, offset: u32, sealed_bytes: u32) -> Want {
        let pack = PackId { backup: BackupId::new(1_790_000_000, 3).unwrap(), number };
        let stored = StoredExtent { hash: [0; 16], place: RecordLocation { pack, offset, sealed_bytes } };
        Want { part: 0, index: 0, stored, crc32c: 0 }
    }

    #[test]
    fn ranges_span_small_gaps_of_one_pack() {
        let gap = MAX_GAP_BYTES as u32;
        let wants = [at(0, 100, 50), at(0, 150, 50), at(0, 200 + gap, 10), at(0, 300 + 2 * gap, 10), at(1, 0, 7)];
        assert_eq!(range(&wants, 1 << 23), (3, u64::from(210 + gap)));
        assert_eq!(range(&wants[3..], 1 << 23), (1, u64::from(310 + 2 * gap)));
        assert_eq!(range(&wants[4..], 1 << 23), (1, 7));
        assert_eq!(range(&wants, 100), (2, 200));
        assert_eq!(range(&wants, 1), (1, 150), "one extent at least");
        assert_eq!(range(&[], 1), (0, 0));
    }

    #[test]
    fn zeros_are_told() {
        let mut bytes = vec![0; 1003];
        assert!(is_zeros(&bytes) && is_zeros(&[]));
        for at in [0, 15, 16, 1002] {
            bytes[at] = 1;
            assert!(!is_zeros(&bytes));
            bytes[at] = 0;
        }
    }
}
