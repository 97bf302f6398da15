//! The one pipeline: plaintext → zstd → sealed frames → sink, and back.
//!
//! Lives here: streaming in both directions with bounded memory (a frame, a zstd window of at most 8 MiB, a copy
//! buffer), and the hash over the plaintext. May not live here: where bytes come from or go to. Depends on `crypto`,
//! `format`, `limits`.
//!
//! [`Opened::copy_to`] hands bytes on before the whole object is known to be good; a caller publishes them only after
//! it returned `Ok`.

mod one_pass;
pub mod pack;
mod spare_buffers;

use std::io::{self, BufRead, Read, Write};

use zstd::zstd_safe::CParameter;

pub use one_pass::{Compressed, Compressing, SharedCompressed};
pub use spare_buffers::SpareBuffers;

use crate::crypto::{DataKey, DataKeys, Domain, FrameCipher, KeyId};
use crate::format::envelope::{Cipher, Codec, FormatError, HEADER_BYTES, Header, Metadata, ObjectKind, SEALED_FRAME_BYTES};
use crate::limits::{COPY_BUFFER_BYTES, FRAME_BYTES, MAX_METADATA_BYTES, MAX_WINDOW_LOG, MIB, TAG_BYTES};

/// What goes wrong between plaintext and sealed object.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Reading the source failed. From a store it wraps a `StoreError`.
    #[error(transparent)]
    Read(io::Error),
    /// Writing the sink failed. To a store it wraps a `StoreError`.
    #[error(transparent)]
    Write(io::Error),
    /// The object is not what was sealed under this name.
    #[error("{0}")]
    Damaged(String),
    /// Sealed with a data key that this repository's keys do not include, or the key id in its header is damaged.
    #[error("it is sealed with data key {0}, which is not among the keys of this repository that the given key opens")]
    UnknownKey(KeyId),
    /// The file changed while it was being read.
    #[error("the file changed while it was read")]
    SourceChanged,
    /// The system has no random source.
    #[error("{0}")]
    Random(String),
}

impl From<FormatError> for CodecError {
    fn from(error: FormatError) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// Which object: what its frames are bound to.
#[derive(Debug, Clone, Copy)]
pub struct Address<'a> {
    /// Of the descriptor.
    pub repository_id: &'a [u8; 16],
    /// What it is.
    pub kind: ObjectKind,
    /// Its key in the store.
    pub name: &'a str,
}

/// How to seal.
#[derive(Debug, Clone, Copy)]
pub struct Sealing {
    /// zstd level, 1 to 19.
    pub level: i32,
    /// Random, per object.
    pub salt: [u8; 32],
}

impl Sealing {
    /// A new salt.
    ///
    /// # Errors
    /// When the system has no random source.
    pub fn with_level(level: i32) -> Result<Self, CodecError> {
        Ok(Self { level, salt: crate::crypto::random_bytes().map_err(CodecError::Random)? })
    }
}

/// Length and hash of a plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// Bytes.
    pub bytes: u64,
    /// BLAKE3.
    pub blake3: [u8; 32],
}

impl Digest {
    /// Of a stream, read to its end.
    ///
    /// # Errors
    /// When reading fails.
    pub fn of(source: &mut dyn Read) -> io::Result<Self> {
        Self::of_copied(source, &mut io::sink())
    }

    /// Of a stream, read to its end and written to `sink` too, so that one pass over a file serves both.
    ///
    /// # Errors
    /// When reading or writing fails.
    pub fn of_copied(source: &mut dyn Read, sink: &mut dyn Write) -> io::Result<Self> {
        let mut hasher = Hashing::default();
        copy(source, sink, &mut hasher, u64::MAX).map_err(|e| match e {
            CodecError::Read(e) | CodecError::Write(e) => e,
            other => io::Error::other(other),
        })?;
        Ok(hasher.digest())
    }

    /// Whether an object with this metadata holds the same content.
    pub fn matches(&self, metadata: &Metadata) -> bool {
        self.bytes == metadata.plaintext_bytes && self.blake3 == metadata.plaintext_blake3
    }
}

#[derive(Default)]
struct Hashing {
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Hashing {
    fn digest(&self) -> Digest {
        Digest { bytes: self.bytes, blake3: *self.hasher.finalize().as_bytes() }
    }
}

/// Copies to the end, hashing; more than `limit` bytes are damage.
fn copy(source: &mut dyn Read, sink: &mut dyn Write, hashing: &mut Hashing, limit: u64) -> Result<(), CodecError> {
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    loop {
        let n = match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(CodecError::Read(e)),
        };
        let chunk = buffer.get(..n).unwrap_or_default();
        hashing.bytes += n as u64;
        if hashing.bytes > limit {
            return Err(CodecError::Damaged("it holds more than its metadata says".to_owned()));
        }
        hashing.hasher.update(chunk);
        sink.write_all(chunk).map_err(CodecError::Write)?;
    }
}

/// Seals a stream. `expected` was taken in an earlier pass over the same file, so that the metadata can stand in front.
///
/// # Errors
/// [`CodecError::SourceChanged`] when the stream differs from `expected`; what the sink got must then be thrown away.
pub fn seal(
    source: &mut dyn Read,
    sink: &mut dyn Write,
    address: Address<'_>,
    key: Option<&DataKey>,
    metadata: &Metadata,
    sealing: Sealing,
) -> Result<(), CodecError> {
    let (cipher, front) = preamble(address, key, metadata, sealing)?;
    sink.write_all(&front).map_err(CodecError::Write)?;
    let frames = FrameWriter { sink, cipher, buffer: Vec::with_capacity(SEALED_FRAME_BYTES), number: 0 };
    let mut encoder = zstd::stream::write::Encoder::new(frames, sealing.level).map_err(CodecError::Write)?;
    tune(&mut encoder, sealing.level, metadata.plaintext_bytes).map_err(CodecError::Write)?;
    let mut hashing = Hashing::default();
    match copy(source, &mut encoder, &mut hashing, metadata.plaintext_bytes) {
        Err(CodecError::Damaged(_)) => return Err(CodecError::SourceChanged),
        other => other?,
    }
    if !hashing.digest().matches(metadata) {
        return Err(CodecError::SourceChanged);
    }
    encoder.finish().map_err(CodecError::Write)?.finish().map_err(CodecError::Write)
}

/// For a plaintext of this many bytes. At the fastest level, searches as suits WAL. Its records are short and repeat
/// what the ones just before hold: matches of 5 bytes instead of 7, in a window of 128 KiB with 32 KiB to look them up,
/// which stay in the processor's cache, give up to 5 % less on pgbench's WAL in 2 to 7 % less time
/// (docs/BENCHMARKS.md).
fn tune(encoder: &mut zstd::stream::write::Encoder<'_, impl Write>, level: i32, bytes: u64) -> io::Result<()> {
    if level == 1 && bytes >= MIB as u64 {
        encoder.set_parameter(CParameter::MinMatch(5))?;
        encoder.set_parameter(CParameter::WindowLog(17))?;
        encoder.set_parameter(CParameter::HashLog(13))?;
    }
    encoder.set_pledged_src_size(Some(bytes))?;
    encoder.include_checksum(false)
}

/// The cipher of a new object, and its header and sealed metadata.
fn preamble(
    address: Address<'_>,
    key: Option<&DataKey>,
    metadata: &Metadata,
    sealing: Sealing,
) -> Result<(FrameCipher, Vec<u8>), CodecError> {
    let mut sealed_metadata = metadata.encode();
    let header = Header {
        codec: Codec::Zstd,
        cipher: if key.is_some() { Cipher::ChaCha20Poly1305 } else { Cipher::None },
        key_id: key.map_or(KeyId([0; 16]), DataKey::id),
        salt: sealing.salt,
        metadata_bytes: u32::try_from(sealed_metadata.len()).unwrap_or(u32::MAX),
    };
    if sealed_metadata.len() > MAX_METADATA_BYTES {
        return Err(CodecError::Damaged("metadata is longer than the format allows".to_owned()));
    }
    let binding = header.binding(address.repository_id, address.kind, address.name);
    let cipher = FrameCipher::new(key, &header.salt, binding);
    let tag = cipher.seal(Domain::Metadata, 0, true, &mut sealed_metadata).map_err(|e| CodecError::Damaged(e.to_string()))?;
    let front = [header.encode().as_slice(), &sealed_metadata, &tag].concat();
    Ok((cipher, front))
}

/// Cuts a stream into sealed frames. A frame is written only when it is known whether another follows.
struct FrameWriter<'a> {
    sink: &'a mut dyn Write,
    cipher: FrameCipher,
    buffer: Vec<u8>,
    number: u64,
}

impl FrameWriter<'_> {
    fn flush_frame(&mut self, last: bool) -> io::Result<()> {
        let tag = self.cipher.seal(Domain::Frame, self.number, last, &mut self.buffer).map_err(io::Error::other)?;
        self.buffer.extend_from_slice(&tag);
        self.sink.write_all(&self.buffer)?;
        self.buffer.clear();
        self.number += 1;
        Ok(())
    }

    /// Writes the last frame with the end mark.
    fn finish(mut self) -> io::Result<()> {
        self.flush_frame(true)
    }
}

impl Write for FrameWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        if self.buffer.len() == FRAME_BYTES {
            self.flush_frame(false)?;
        }
        let taken = bytes.len().min(FRAME_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An object whose header and metadata are authenticated.
pub struct Opened<R> {
    metadata: Metadata,
    header: Header,
    cipher: FrameCipher,
    source: R,
}

/// Reads and authenticates header and metadata; needs only the first bytes of the object.
///
/// # Errors
/// [`CodecError::Damaged`] also when the source ends within the metadata.
pub fn open<R: Read>(mut source: R, address: Address<'_>, keys: &DataKeys) -> Result<Opened<R>, CodecError> {
    let mut header = [0; HEADER_BYTES];
    let got = read_full(&mut source, &mut header)?;
    let header = Header::parse(header.get(..got).unwrap_or_default())?;
    let cipher = cipher_for(&header, address, keys)?;
    let mut sealed = vec![0; header.metadata_bytes as usize + TAG_BYTES];
    let got = read_full(&mut source, &mut sealed)?;
    let truncated = || CodecError::from(FormatError::Truncated("the metadata is incomplete"));
    if got < sealed.len() {
        return Err(truncated());
    }
    let (bytes, tag) = sealed.split_last_chunk_mut::<TAG_BYTES>().ok_or_else(truncated)?;
    cipher
        .open(Domain::Metadata, 0, true, bytes, tag)
        .map_err(|_| CodecError::Damaged("its header or metadata fails authentication".to_owned()))?;
    Ok(Opened { metadata: Metadata::parse(bytes)?, header, cipher, source })
}

/// The cipher of an object, from its header.
fn cipher_for(header: &Header, address: Address<'_>, keys: &DataKeys) -> Result<FrameCipher, CodecError> {
    let key = match (keys, header.cipher) {
        (DataKeys::Unencrypted, Cipher::None) => None,
        (DataKeys::Encrypted { .. }, Cipher::ChaCha20Poly1305) => {
            Some(keys.find(header.key_id).ok_or(CodecError::UnknownKey(header.key_id))?)
        }
        (DataKeys::Encrypted { .. }, Cipher::None) => {
            return Err(CodecError::Damaged("it is not encrypted, in an encrypted repository".to_owned()));
        }
        (DataKeys::Unencrypted, Cipher::ChaCha20Poly1305) => {
            return Err(CodecError::Damaged("it is encrypted, in an unencrypted repository".to_owned()));
        }
    };
    Ok(FrameCipher::new(key, &header.salt, header.binding(address.repository_id, address.kind, address.name)))
}

/// How many bytes of an object header and metadata take, from its header: what a second ranged read asks for.
pub fn preamble_bytes(header: &[u8]) -> Option<u64> {
    let header = Header::parse(header).ok()?;
    Some((HEADER_BYTES + header.metadata_bytes as usize + TAG_BYTES) as u64)
}

impl<R: Read> Opened<R> {
    /// What is known without the content.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Writes the plaintext to `sink`. Only after `Ok` is it known to be whole and genuine.
    ///
    /// # Errors
    /// [`CodecError::Damaged`] with what is wrong; [`CodecError::Read`] and [`CodecError::Write`] from source and sink.
    pub fn copy_to(self, sink: &mut dyn Write) -> Result<Metadata, CodecError> {
        let mut frames = FrameReader {
            source: self.source,
            cipher: self.cipher,
            buffer: vec![0; SEALED_FRAME_BYTES + 1],
            at: 0,
            plain_end: 0,
            carry: None,
            number: 0,
            done: false,
        };
        let mut hashing = Hashing::default();
        let limit = self.metadata.plaintext_bytes;
        match self.header.codec {
            Codec::Stored => copy(&mut frames, sink, &mut hashing, limit).map_err(from_decoder)?,
            Codec::Records => return Err(CodecError::Damaged("it is a pack, where a stream belongs".to_owned())),
            Codec::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(&mut frames).map_err(CodecError::Read)?.single_frame();
                decoder.window_log_max(MAX_WINDOW_LOG).map_err(CodecError::Read)?;
                copy(&mut decoder, sink, &mut hashing, limit).map_err(from_decoder)?;
                if read_full(decoder.finish(), &mut [0]).map_err(from_decoder)? > 0 {
                    return Err(CodecError::Damaged("bytes follow its compressed content".to_owned()));
                }
            }
        }
        if !hashing.digest().matches(&self.metadata) {
            return Err(CodecError::Damaged("its content does not have the length and hash that its metadata says".to_owned()));
        }
        Ok(self.metadata)
    }
}

/// What [`FrameReader`] said comes back out of zstd as it was; every other error is zstd's own, and so damage.
fn from_decoder(error: CodecError) -> CodecError {
    match error {
        CodecError::Read(e) if e.get_ref().is_some_and(|inner| inner.is::<CodecError>()) => {
            e.downcast::<CodecError>().unwrap_or_else(CodecError::Read)
        }
        CodecError::Read(e) => CodecError::Damaged(format!("its content cannot be decompressed: {e}")),
        other => other,
    }
}

/// Joins sealed frames into a stream.
struct FrameReader<R> {
    source: R,
    cipher: FrameCipher,
    /// Room for a frame, and the first byte of the next.
    buffer: Vec<u8>,
    at: usize,
    plain_end: usize,
    /// The first byte of the next frame, read to learn whether there is one.
    carry: Option<u8>,
    number: u64,
    done: bool,
}

impl<R: Read> FrameReader<R> {
    fn next_frame(&mut self) -> Result<(), CodecError> {
        let mut filled = 0;
        if let (Some(carry), Some(first)) = (self.carry.take(), self.buffer.first_mut()) {
            *first = carry;
            filled = 1;
        }
        filled += read_full(&mut self.source, self.buffer.get_mut(filled..).unwrap_or_default())?;
        if filled > SEALED_FRAME_BYTES {
            filled = SEALED_FRAME_BYTES;
            self.carry = self.buffer.last().copied();
        }
        let last = self.carry.is_none();
        let number = self.number;
        let frame = self.buffer.get_mut(..filled).unwrap_or_default();
        let Some((bytes, tag)) = frame.split_last_chunk_mut::<TAG_BYTES>() else {
            return Err(CodecError::Damaged(format!("it is truncated in frame {number}")));
        };
        self.cipher.open(Domain::Frame, number, last, bytes, tag).map_err(|_| {
            CodecError::Damaged(format!(
                "frame {number} fails authentication{}",
                if last { " (it is the last: the object may be truncated)" } else { "" }
            ))
        })?;
        if bytes.is_empty() && number > 0 {
            return Err(CodecError::Damaged("its last frame is empty".to_owned()));
        }
        (self.at, self.plain_end) = (0, bytes.len());
        self.number += 1;
        self.done = last;
        Ok(())
    }
}

impl<R: Read> Read for FrameReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(out)?;
        self.consume(n);
        Ok(n)
    }
}

/// What was decrypted is handed on where it is.
impl<R: Read> BufRead for FrameReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.plain_end && !self.done {
            self.next_frame().map_err(io::Error::other)?;
        }
        Ok(self.buffer.get(self.at..self.plain_end).unwrap_or_default())
    }

    fn consume(&mut self, bytes: usize) {
        self.at = self.plain_end.min(self.at.saturating_add(bytes));
    }
}

/// Reads until the buffer is full or the source ends; returns how much it read.
fn read_full(source: &mut dyn Read, buffer: &mut [u8]) -> Result<usize, CodecError> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(CodecError::Read(e)),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 16] = [6; 16];

    fn address(name: &str) -> Address<'_> {
        Address { repository_id: &ID, kind: ObjectKind::Segment, name }
    }

    fn data_keys() -> DataKeys {
        DataKeys::Encrypted { current: DataKey::from_bytes([1; 32]).into(), earlier: vec![DataKey::from_bytes([2; 32])] }
    }

    fn metadata(plain: &[u8]) -> Metadata {
        let digest = Digest::of(&mut &*plain).unwrap();
        Metadata {
            plaintext_bytes: digest.bytes,
            plaintext_blake3: digest.blake3,
            sealed_unix_us: 1,
            ..Metadata::by_this_program()
        }
    }

    fn sealed(plain: &[u8], keys: &DataKeys) -> Vec<u8> {
        let mut out = Vec::new();
        let sealing = Sealing { level: 1, salt: [7; 32] };
        seal(&mut &*plain, &mut out, address("a"), keys.current(), &metadata(plain), sealing).unwrap();
        out
    }

    fn opened(object: &[u8], name: &str, keys: &DataKeys) -> Result<Vec<u8>, CodecError> {
        let mut out = Vec::new();
        open(object, address(name), keys)?.copy_to(&mut out)?;
        Ok(out)
    }

    /// Incompressible, so that sizes after compression are under the test's control.
    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn every_length_round_trips() {
        for keys in [data_keys(), DataKeys::Unencrypted] {
            for len in [0, 1, 100, FRAME_BYTES - 20, FRAME_BYTES, FRAME_BYTES + 1, 5 * FRAME_BYTES, 1 << 20] {
                for plain in [vec![0; len], noise(len)] {
                    assert_eq!(opened(&sealed(&plain, &keys), "a", &keys).unwrap(), plain, "{len}");
                }
            }
        }
    }

    /// zstd adds a few bytes to noise: find the plaintext whose compressed form fills two frames exactly.
    #[test]
    fn a_stream_that_ends_on_a_frame_boundary_round_trips() {
        let keys = data_keys();
        let preamble = sealed(&[], &keys).len();
        let exact = (2 * FRAME_BYTES - 200..2 * FRAME_BYTES)
            .map(noise)
            .find(|plain| (sealed(plain, &keys).len() - (preamble - TAG_BYTES)) % SEALED_FRAME_BYTES < 12)
            .unwrap();
        for drop in 0..40 {
            let plain = &exact[..exact.len() - drop];
            assert_eq!(opened(&sealed(plain, &keys), "a", &keys).unwrap(), plain);
        }
    }

    #[test]
    fn every_cut_extension_and_swap_is_damage() {
        for keys in [data_keys(), DataKeys::Unencrypted] {
            let plain = noise(3 * FRAME_BYTES + 5);
            let object = sealed(&plain, &keys);
            let cuts = (0..400).chain((1..4).flat_map(|n| {
                let end = n * SEALED_FRAME_BYTES + 200;
                end - 150..end + 150
            }));
            for cut in cuts.filter(|cut| *cut < object.len()).chain([object.len() - 1]) {
                assert!(matches!(opened(&object[..cut], "a", &keys), Err(CodecError::Damaged(_))), "{cut}");
            }
            for extra in [1, 16, SEALED_FRAME_BYTES] {
                let longer = [object.as_slice(), &vec![0; extra]].concat();
                assert!(matches!(opened(&longer, "a", &keys), Err(CodecError::Damaged(_))), "{extra}");
            }
            assert!(matches!(opened(&object, "b", &keys), Err(CodecError::Damaged(_))));
            let other = Address { kind: ObjectKind::Partial, ..address("a") };
            assert!(matches!(open(&*object, other, &keys).map(drop), Err(CodecError::Damaged(_))));
            let other = Address { repository_id: &[0; 16], ..address("a") };
            assert!(matches!(open(&*object, other, &keys).map(drop), Err(CodecError::Damaged(_))));
            // Whole frames exchanged, repeated, left out.
            let first = object.len() - (sealed_content_bytes(&object));
            let frame = |n: usize| &object[first + n * SEALED_FRAME_BYTES..first + (n + 1) * SEALED_FRAME_BYTES];
            let rest = &object[first + 2 * SEALED_FRAME_BYTES..];
            for frames in [vec![frame(1), frame(0)], vec![frame(0), frame(0)], vec![frame(1)], vec![]] {
                let swapped = [&object[..first], &frames.concat(), rest].concat();
                assert!(matches!(opened(&swapped, "a", &keys), Err(CodecError::Damaged(_))));
            }
        }
    }

    fn sealed_content_bytes(object: &[u8]) -> usize {
        object.len() - preamble_bytes(&object[..HEADER_BYTES]).unwrap() as usize
    }

    #[test]
    fn every_single_bit_matters() {
        for keys in [data_keys(), DataKeys::Unencrypted] {
            let object = sealed(b"a small history file", &keys);
            for bit in 0..object.len() * 8 {
                let mut bad = object.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(opened(&bad, "a", &keys).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn keys_are_told_apart_from_damage() {
        let object = sealed(b"x", &data_keys());
        let other = DataKeys::Encrypted { current: DataKey::from_bytes([9; 32]).into(), earlier: vec![] };
        assert!(matches!(opened(&object, "a", &other), Err(CodecError::UnknownKey(_))));
        assert!(matches!(opened(&object, "a", &DataKeys::Unencrypted), Err(CodecError::Damaged(_))));
        assert!(matches!(opened(&sealed(b"x", &DataKeys::Unencrypted), "a", &data_keys()), Err(CodecError::Damaged(_))));
        let rotated =
            DataKeys::Encrypted { current: DataKey::from_bytes([9; 32]).into(), earlier: vec![DataKey::from_bytes([1; 32])] };
        assert_eq!(opened(&object, "a", &rotated).unwrap(), b"x");
    }

    #[test]
    fn a_file_that_changes_between_the_passes_is_seen() {
        let keys = data_keys();
        let plain = noise(100_000);
        let sealing = Sealing { level: 1, salt: [7; 32] };
        for changed in [&plain[..99_999], &[plain.as_slice(), b"1"].concat(), &[b"1", &plain[1..]].concat()] {
            let result = seal(&mut &*changed, &mut Vec::new(), address("a"), keys.current(), &metadata(&plain), sealing);
            assert!(matches!(result, Err(CodecError::SourceChanged)), "{}", changed.len());
        }
    }
}
