//! Reading and writing past the page cache (`O_DIRECT`), for large things that are written once and not read soon.
//!
//! Through the cache every byte is copied once more, and pages that the database server needs are pushed out for it.
//! File systems that cannot do it, or not with this file, are read and written as usual: the first refusal is the
//! answer.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag};

use crate::limits::{DIRECT_ALIGNMENT as ALIGNMENT, DIRECT_BLOCK_BYTES, MIN_DIRECT_BYTES};

/// Memory at an address that the disk can read into and write from. It is used again and again, so that its pages are
/// taken from the system once.
#[derive(Debug, Default)]
pub struct DirectBuffer {
    memory: Vec<u8>,
    start: usize,
}

impl DirectBuffer {
    /// So many bytes of it; what is in them is whatever was there before. It takes what the longest of these took.
    pub fn room(&mut self, bytes: usize) -> &mut [u8] {
        if self.memory.len() < bytes + ALIGNMENT {
            // Not grown: that would copy what nobody needs.
            self.memory = Vec::new();
            self.memory = vec![0; bytes + ALIGNMENT];
            self.start = self.memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        }
        self.memory.get_mut(self.start..self.start + bytes).unwrap_or_default()
    }

    /// A part of the [room](Self::room) that was given last.
    fn filled(&self, bytes: std::ops::Range<usize>) -> &[u8] {
        self.memory.get(self.start + bytes.start..self.start + bytes.end).unwrap_or_default()
    }
}

/// Whether the cache is passed by from now on; `false` when the file system cannot.
fn pass_by(file: &File, yes: bool) -> bool {
    let Ok(flags) = nix::fcntl::fcntl(file.as_fd(), FcntlArg::F_GETFL).map(OFlag::from_bits_retain) else { return false };
    let wanted = if yes { flags | OFlag::O_DIRECT } else { flags - OFlag::O_DIRECT };
    wanted == flags || nix::fcntl::fcntl(file.as_fd(), FcntlArg::F_SETFL(wanted)).is_ok()
}

fn is_refusal(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EINVAL as i32)
}

fn is_aligned(value: u64) -> bool {
    value.is_multiple_of(ALIGNMENT as u64)
}

/// Writes a part of a file, past the cache but for its last bytes where it is large enough. The file is as usual
/// afterwards.
///
/// # Errors
/// As `write`.
pub(super) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    if bytes.len() < MIN_DIRECT_BYTES {
        return file.write_all_at(bytes, offset);
    }
    let mut writer = DirectWriter::new();
    let written = writer.write_at(file, bytes, offset).and_then(|()| writer.flush(file));
    pass_by(file, false);
    written
}

/// Gathers what is written into blocks. One for several files, one after the other: each has to be flushed before the
/// next one.
#[derive(Debug)]
pub struct DirectWriter {
    block: DirectBuffer,
    /// Where the block begins in the file.
    offset: u64,
    filled: usize,
    can: bool,
}

impl Default for DirectWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl DirectWriter {
    /// One with an empty block. It takes 1 MiB.
    pub fn new() -> Self {
        Self { block: DirectBuffer::default(), offset: 0, filled: 0, can: true }
    }

    /// Writes at an offset, now or with what comes next.
    ///
    /// # Errors
    /// As `write`, also for what was given before.
    pub fn write_at(&mut self, file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        if offset != self.offset + self.filled as u64 {
            self.flush(file)?;
        }
        while !bytes.is_empty() {
            if self.filled == 0 {
                self.offset = offset;
            }
            let room = self.block.room(DIRECT_BLOCK_BYTES).get_mut(self.filled..).unwrap_or_default();
            let (now, rest) = bytes.split_at(bytes.len().min(room.len()));
            room.get_mut(..now.len()).unwrap_or_default().copy_from_slice(now);
            self.filled += now.len();
            offset += now.len() as u64;
            bytes = rest;
            if self.filled == DIRECT_BLOCK_BYTES {
                self.flush(file)?;
            }
        }
        Ok(())
    }

    /// Room for so many bytes at an offset, at most [`DIRECT_BLOCK_BYTES`]: whoever fills it says so with
    /// [`filled`](Self::filled). This spares a copy.
    ///
    /// # Errors
    /// As `write`, for what was given before; when it is too much.
    pub fn room_at(&mut self, file: &File, offset: u64, bytes: usize) -> io::Result<&mut [u8]> {
        if bytes > DIRECT_BLOCK_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more than a block at once"));
        }
        if offset != self.offset + self.filled as u64 || self.filled + bytes > DIRECT_BLOCK_BYTES {
            self.flush(file)?;
        }
        if self.filled == 0 {
            self.offset = offset;
        }
        let filled = self.filled;
        Ok(self.block.room(DIRECT_BLOCK_BYTES).get_mut(filled..filled + bytes).unwrap_or_default())
    }

    /// So many bytes of the room that was given last are to be written, now or with what comes next. The others are
    /// forgotten.
    ///
    /// # Errors
    /// As `write`, also for what was given before.
    pub fn filled(&mut self, file: &File, bytes: usize) -> io::Result<()> {
        self.filled = (self.filled + bytes).min(DIRECT_BLOCK_BYTES);
        if self.filled == DIRECT_BLOCK_BYTES { self.flush(file) } else { Ok(()) }
    }

    /// Writes what was gathered.
    ///
    /// # Errors
    /// As `write`. What was gathered is forgotten then.
    pub fn flush(&mut self, file: &File) -> io::Result<()> {
        let filled = std::mem::take(&mut self.filled);
        let bytes = self.block.filled(0..filled);
        let (mut direct, mut rest) = bytes.split_at(if is_aligned(self.offset) { filled - filled % ALIGNMENT } else { 0 });
        if direct.len() < MIN_DIRECT_BYTES || !self.can || !pass_by(file, true) {
            (direct, rest) = (&[], bytes);
        }
        if !direct.is_empty() {
            match file.write_all_at(direct, self.offset) {
                Ok(()) => {}
                Err(e) if is_refusal(&e) => {
                    self.can = false;
                    (direct, rest) = (&[], bytes);
                }
                Err(e) => return Err(e),
            }
        }
        if rest.is_empty() {
            return Ok(());
        }
        pass_by(file, false);
        file.write_all_at(rest, self.offset + direct.len() as u64)
    }
}

/// Reads a file from front to back, past the cache.
#[derive(Debug)]
pub struct DirectReader {
    block: DirectBuffer,
    /// What of the block was read and not yet taken.
    unread: std::ops::Range<usize>,
    can: bool,
}

impl Default for DirectReader {
    fn default() -> Self {
        Self { block: DirectBuffer::default(), unread: 0..0, can: true }
    }
}

impl DirectReader {
    /// Whether to read this many bytes like this.
    pub fn is_worth_it(bytes: u64) -> bool {
        bytes >= MIN_DIRECT_BYTES as u64
    }

    /// As `pread`. `offset` has to go on where the last call ended; `left` bytes will be asked for in all, this call's
    /// among them. What lies in the file where the disk can read it from is read straight into a
    /// [buffer](DirectBuffer) that is given.
    ///
    /// # Errors
    /// As `read`.
    pub fn read_at(&mut self, file: &File, buf: &mut [u8], offset: u64, left: u64) -> io::Result<usize> {
        if self.unread.is_empty() {
            if !self.can || !pass_by(file, true) {
                pass_by(file, false);
                return file.read_at(buf, offset);
            }
            let whole = buf.len() - buf.len() % ALIGNMENT;
            let is_straight = is_aligned(offset) && buf.as_ptr().align_offset(ALIGNMENT) == 0 && whole > 0;
            let skip = (offset % ALIGNMENT as u64) as usize;
            let wanted = usize::try_from(left).unwrap_or(DIRECT_BLOCK_BYTES).min(DIRECT_BLOCK_BYTES);
            let len = (skip + wanted).next_multiple_of(ALIGNMENT).min(DIRECT_BLOCK_BYTES);
            let read = match buf.get_mut(..whole).filter(|_| is_straight) {
                Some(straight) => file.read_at(straight, offset),
                None => file.read_at(self.block.room(len), offset - skip as u64),
            };
            match read {
                Ok(n) if is_straight => return Ok(n),
                Ok(n) => self.unread = skip.min(n)..n,
                Err(e) if is_refusal(&e) => {
                    self.can = false;
                    pass_by(file, false);
                    return file.read_at(buf, offset);
                }
                Err(e) => return Err(e),
            }
        }
        let unread = self.block.filled(self.unread.clone());
        let n = unread.len().min(buf.len());
        buf.get_mut(..n).unwrap_or_default().copy_from_slice(unread.get(..n).unwrap_or_default());
        self.unread.start += n;
        Ok(n)
    }
}

/// Reads at an offset until the buffer's first `bytes` are full or the file ends, past the cache where it can be done;
/// gives what was read. The file is as usual afterwards.
///
/// # Errors
/// As `read`.
pub fn read_past_cache<'b>(file: &File, buffer: &'b mut DirectBuffer, bytes: usize, offset: u64) -> io::Result<&'b [u8]> {
    let (mut reader, mut read) = (DirectReader::default(), 0);
    let room = buffer.room(bytes);
    while let Some(rest) = room.get_mut(read..).filter(|rest| !rest.is_empty()) {
        let left = rest.len() as u64;
        match reader.read_at(file, rest, offset + read as u64, left) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    pass_by(file, false);
    Ok(room.get(..read).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 7 + at / 4096) as u8).collect()
    }

    #[test]
    fn what_is_written_is_there() {
        let place = tempfile::NamedTempFile::new_in(".").unwrap();
        let file = place.as_file();
        for len in [0, 1, 4095, MIN_DIRECT_BYTES, DIRECT_BLOCK_BYTES - 1, DIRECT_BLOCK_BYTES, 3 * DIRECT_BLOCK_BYTES + 4097] {
            file.set_len(0).unwrap();
            let bytes = content(len);
            write_all_at(file, &bytes, 0).unwrap();
            assert_eq!(std::fs::read(place.path()).unwrap(), bytes, "{len}");
        }
    }

    #[test]
    fn gaps_and_odd_offsets() {
        let place = tempfile::NamedTempFile::new_in(".").unwrap();
        let (file, bytes) = (place.as_file(), content(5 * DIRECT_BLOCK_BYTES));
        let mut writer = DirectWriter::new();
        let mut expected = vec![0; bytes.len()];
        for (from, until) in
            [(65_536, 400_000), (400_000, 2_000_000), (2_097_152, 3_000_000), (10, 60_000), (4_000_001, 5_242_880)]
        {
            writer.write_at(file, &bytes[from..until], from as u64).unwrap();
            expected[from..until].copy_from_slice(&bytes[from..until]);
        }
        writer.flush(file).unwrap();
        assert!(std::fs::read(place.path()).unwrap() == expected);
    }

    #[test]
    fn a_range_is_read_whole() {
        let place = tempfile::NamedTempFile::new_in(".").unwrap();
        let (file, bytes) = (place.as_file(), content(2 * DIRECT_BLOCK_BYTES + 5000));
        write_all_at(file, &bytes, 0).unwrap();
        for from in [0, 1, 4096, 70_001, bytes.len() - 1, bytes.len()] {
            let (mut reader, mut read, mut buffer) = (DirectReader::default(), Vec::new(), vec![0; 70_000]);
            loop {
                let n = reader
                    .read_at(file, &mut buffer, (from + read.len()) as u64, (bytes.len() - from - read.len()) as u64)
                    .unwrap();
                if n == 0 {
                    break;
                }
                read.extend_from_slice(&buffer[..n]);
            }
            assert!(read == bytes[from..], "{from}");
        }
    }

    #[test]
    fn rooms_that_are_filled_are_written_and_others_are_not() {
        let place = tempfile::NamedTempFile::new_in(".").unwrap();
        let (file, bytes) = (place.as_file(), content(4 * DIRECT_BLOCK_BYTES));
        let (mut writer, mut expected) = (DirectWriter::new(), vec![0; bytes.len()]);
        // In order, with a gap, backwards, of odd lengths, and across the end of a block.
        let ranges = [0..65_536, 65_536..131_072, 262_144..1_310_720, 1_310_720..1_400_001, 4096..9001, 2_000_000..3_048_576];
        for range in ranges {
            // What is given up leaves no trace.
            writer.room_at(file, range.start as u64, range.len()).unwrap().fill(99);
            let room = writer.room_at(file, range.start as u64, range.len()).unwrap();
            room.copy_from_slice(&bytes[range.clone()]);
            writer.filled(file, range.len()).unwrap();
            expected[range.clone()].copy_from_slice(&bytes[range]);
        }
        writer.room_at(file, 3_500_000, 1000).unwrap().fill(99);
        writer.flush(file).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        assert!(std::fs::read(place.path()).unwrap() == expected);
        let too_much = writer.room_at(file, 0, DIRECT_BLOCK_BYTES + 1).unwrap_err();
        assert_eq!(too_much.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn what_is_aligned_is_read_straight_into_its_place() {
        let place = tempfile::NamedTempFile::new_in(".").unwrap();
        let (file, bytes) = (place.as_file(), content(3 * DIRECT_BLOCK_BYTES + 5000));
        write_all_at(file, &bytes, 0).unwrap();
        let mut buffer = DirectBuffer::default();
        for (from, len) in [(0, bytes.len()), (8192, 2 * DIRECT_BLOCK_BYTES), (4096, 4096), (4096, 100), (5, 70_000), (0, 0)] {
            let read = read_past_cache(file, &mut buffer, len, from as u64).unwrap();
            assert!(read == &bytes[from..from + len], "{from}, {len}");
        }
        let rest = read_past_cache(file, &mut buffer, 8192, bytes.len() as u64 - 5000).unwrap();
        assert!(rest == &bytes[bytes.len() - 5000..], "at the end there is no more");
        let address = buffer.room(4096).as_ptr().addr();
        assert_eq!((address % ALIGNMENT, buffer.room(bytes.len()).as_ptr().addr()), (0, address), "memory is used again");
        // Nothing but whole blocks went through the block of the reader.
        let mut reader = DirectReader::default();
        let room = buffer.room(2 * DIRECT_BLOCK_BYTES);
        let n = reader.read_at(file, room, 4096, 2 * DIRECT_BLOCK_BYTES as u64).unwrap();
        assert!(room[..n] == bytes[4096..4096 + n]);
        if reader.can && pass_by(file, true) {
            assert_eq!((n, reader.block.memory.len()), (2 * DIRECT_BLOCK_BYTES, 0), "it was copied");
        }
    }

    #[test]
    fn where_it_cannot_be_done_it_is_done_as_usual() {
        // Memory has no disk below it.
        let Ok(file) = tempfile::tempfile_in("/dev/shm") else { return };
        let bytes = content(DIRECT_BLOCK_BYTES + 77);
        write_all_at(&file, &bytes, 0).unwrap();
        let (mut reader, mut read) = (DirectReader::default(), vec![0; bytes.len()]);
        let mut done = 0;
        while done < read.len() {
            let left = (read.len() - done) as u64;
            done += reader.read_at(&file, &mut read[done..], done as u64, left).unwrap();
        }
        assert!(read == bytes);
    }
}
