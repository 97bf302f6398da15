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

use crate::limits::{DIRECT_BLOCK_BYTES, KIB, MIN_DIRECT_BYTES};

/// What addresses, offsets and lengths have to be multiples of: no disk has larger logical blocks.
const ALIGNMENT: usize = 4 * KIB;

/// Memory for one block, at an address that the disk can take it from.
#[derive(Debug)]
struct Block {
    memory: Vec<u8>,
    start: usize,
}

impl Block {
    fn new() -> Self {
        let memory = vec![0; DIRECT_BLOCK_BYTES + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { memory, start }
    }

    fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..self.start + DIRECT_BLOCK_BYTES).unwrap_or_default()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.start..self.start + DIRECT_BLOCK_BYTES).unwrap_or_default()
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
    block: Block,
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
        Self { block: Block::new(), offset: 0, filled: 0, can: true }
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
            let room = self.block.bytes_mut().get_mut(self.filled..).unwrap_or_default();
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

    /// Writes what was gathered.
    ///
    /// # Errors
    /// As `write`. What was gathered is forgotten then.
    pub fn flush(&mut self, file: &File) -> io::Result<()> {
        let filled = std::mem::take(&mut self.filled);
        let bytes = self.block.bytes().get(..filled).unwrap_or_default();
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
    block: Block,
    /// What of the block was read and not yet taken.
    unread: std::ops::Range<usize>,
    can: bool,
}

impl Default for DirectReader {
    fn default() -> Self {
        Self { block: Block::new(), unread: 0..0, can: true }
    }
}

impl DirectReader {
    /// Whether to read this many bytes like this.
    pub fn is_worth_it(bytes: u64) -> bool {
        bytes >= MIN_DIRECT_BYTES as u64
    }

    /// As `pread`. `offset` has to go on where the last call ended; `left` bytes will be asked for in all, this call's
    /// among them.
    ///
    /// # Errors
    /// As `read`.
    pub fn read_at(&mut self, file: &File, buf: &mut [u8], offset: u64, left: u64) -> io::Result<usize> {
        if self.unread.is_empty() {
            if !self.can || !pass_by(file, true) {
                pass_by(file, false);
                return file.read_at(buf, offset);
            }
            let skip = (offset % ALIGNMENT as u64) as usize;
            let wanted = usize::try_from(left).unwrap_or(DIRECT_BLOCK_BYTES).min(DIRECT_BLOCK_BYTES);
            let len = (skip + wanted).next_multiple_of(ALIGNMENT).min(DIRECT_BLOCK_BYTES);
            match file.read_at(self.block.bytes_mut().get_mut(..len).unwrap_or_default(), offset - skip as u64) {
                Ok(n) => self.unread = skip.min(n)..n,
                Err(e) if is_refusal(&e) => {
                    self.can = false;
                    pass_by(file, false);
                    return file.read_at(buf, offset);
                }
                Err(e) => return Err(e),
            }
        }
        let unread = self.block.bytes().get(self.unread.clone()).unwrap_or_default();
        let n = unread.len().min(buf.len());
        buf.get_mut(..n).unwrap_or_default().copy_from_slice(unread.get(..n).unwrap_or_default());
        self.unread.start += n;
        Ok(n)
    }
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
