//! Compressing while a file is read for the first time: what it hashes to and what its scan found are known only at its
//! end, but stand in front of its content. So the compressed content waits in memory, with room for what comes before
//! and between, and is sealed in place. One pass over the file serves hash, scan and content, and they cannot disagree.

use std::io::{self, Write};
use std::sync::{LazyLock, Mutex, PoisonError};

use bytes::Bytes;
use zstd::stream::write::Encoder;

use super::spare_buffers::SpareBuffers;
use super::{Address, CodecError, Sealing, preamble, tune};
use crate::crypto::{DataKey, Domain};
use crate::format::envelope::{Metadata, SEALED_FRAME_BYTES};
use crate::limits::{FRAME_BYTES, METADATA_READ_BYTES, PART_BYTES, PUSH_AHEAD_MAX_THREADS, TAG_BYTES};

/// Room for header and metadata.
const FRONT_BYTES: usize = METADATA_READ_BYTES;
const _: () = assert!(FRONT_BYTES + SEALED_FRAME_BYTES <= PART_BYTES);

/// For segments: as many as are pushed at once.
static SPARE: LazyLock<SpareBuffers> = LazyLock::new(|| SpareBuffers::keeping(PUSH_AHEAD_MAX_THREADS));

/// Compresses what is written to it, as long as the object will fit into one part.
pub struct Compressing {
    /// `None` when it became too long.
    encoder: Option<Encoder<'static, Frames>>,
    level: i32,
}

impl Compressing {
    /// For a plaintext of this many bytes, at a level of zstd.
    ///
    /// # Errors
    /// When zstd does not know the level.
    pub fn new(level: i32, bytes: u64) -> io::Result<Self> {
        let most = usize::try_from(bytes).map_or(PART_BYTES, |bytes| bytes + bytes / 64 + 2 * FRONT_BYTES);
        let mut buffer = SPARE.take(most.min(PART_BYTES));
        buffer.resize(FRONT_BYTES, 0);
        let frames = Frames { buffer };
        let mut encoder = Encoder::new(frames, level)?;
        tune(&mut encoder, level, bytes)?;
        Ok(Self { encoder: Some(encoder), level })
    }

    /// The content; `None` when it is too long to wait in memory: it has to be read again.
    ///
    /// # Errors
    /// [`CodecError::SourceChanged`] when less was written than was announced.
    pub fn finish(self) -> Result<Option<Compressed>, CodecError> {
        let Some(encoder) = self.encoder else { return Ok(None) };
        match encoder.finish() {
            Ok(mut frames) => {
                frames.buffer.extend_from_slice(&[0; TAG_BYTES]);
                Ok(Some(Compressed { buffer: frames.buffer, level: self.level }))
            }
            Err(e) if is_too_long(&e) => Ok(None),
            // More or less was written than was announced.
            Err(_) => Err(CodecError::SourceChanged),
        }
    }
}

impl Write for Compressing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(encoder) = &mut self.encoder
            && let Err(e) = encoder.write_all(bytes)
        {
            self.encoder = None;
            if !is_too_long(&e) {
                return Err(e);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compressed content that no key has sealed yet.
#[derive(Clone)]
pub struct Compressed {
    /// Room for the front; frames, each with room for its tag.
    buffer: Vec<u8>,
    level: i32,
}

impl Compressed {
    /// The whole object; `None` when the metadata is longer than there is room for. Its memory is used again when
    /// nobody has it in use any more.
    ///
    /// # Errors
    /// [`CodecError::Damaged`] when the metadata is longer than the format allows.
    pub fn seal(
        mut self,
        address: Address<'_>,
        key: Option<&DataKey>,
        metadata: &Metadata,
        sealing: Sealing,
    ) -> Result<Option<Bytes>, CodecError> {
        let (cipher, front) = preamble(address, key, metadata, sealing)?;
        let Some(begin) = FRONT_BYTES.checked_sub(front.len()) else { return Ok(None) };
        let (room, frames) = self.buffer.split_at_mut(FRONT_BYTES);
        if let Some(place) = room.get_mut(begin..) {
            place.copy_from_slice(&front);
        }
        let mut frames = frames.chunks_mut(SEALED_FRAME_BYTES).enumerate().peekable();
        while let Some((number, frame)) = frames.next() {
            let last = frames.peek().is_none();
            let short = || CodecError::Damaged("a frame without room for its tag".to_owned());
            let (bytes, tag) = frame.split_last_chunk_mut::<TAG_BYTES>().ok_or_else(short)?;
            *tag = cipher.seal(Domain::Frame, number as u64, last, bytes).map_err(|e| CodecError::Damaged(e.to_string()))?;
        }
        Ok(Some(SPARE.object(self.buffer, begin)))
    }
}

/// Compressed content that several repositories take, each under its own key.
#[derive(Default)]
pub struct SharedCompressed(Mutex<(usize, Option<Compressed>)>);

impl SharedCompressed {
    /// For this many takers.
    pub fn for_takers(takers: usize, compressed: Option<Compressed>) -> Self {
        Self(Mutex::new((takers, compressed)))
    }

    /// A copy, or for the last one the content itself; `None` when there is none, or none of this level: read the file
    /// again.
    pub fn take(&self, level: i32) -> Option<Compressed> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (takers, compressed) = &mut *waiting;
        if compressed.as_ref()?.level != level {
            return None;
        }
        *takers = takers.saturating_sub(1);
        if *takers == 0 { compressed.take() } else { compressed.clone() }
    }
}

/// Lays frames out with room for their tags. The room is left when the next frame begins: the last one may be full.
struct Frames {
    buffer: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
#[error("it does not fit into one part")]
struct TooLong;

fn is_too_long(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<TooLong>())
}

impl Write for Frames {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let filled = (self.buffer.len() - FRONT_BYTES) % SEALED_FRAME_BYTES;
        if filled == FRAME_BYTES && !bytes.is_empty() {
            self.buffer.extend_from_slice(&[0; TAG_BYTES]);
            return self.write(bytes);
        }
        let taken = bytes.len().min(FRAME_BYTES - filled);
        if self.buffer.len() + taken + TAG_BYTES > PART_BYTES {
            return Err(io::Error::other(TooLong));
        }
        self.buffer.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Digest, open, seal};
    use super::*;
    use crate::crypto::DataKeys;
    use crate::format::envelope::ObjectKind;
    use crate::limits::MIB;

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn compressed(plain: &[u8], level: i32) -> Result<Option<Compressed>, CodecError> {
        let mut compressing = Compressing::new(level, plain.len() as u64).unwrap();
        for piece in plain.chunks(100_001) {
            compressing.write_all(piece).unwrap();
        }
        compressing.finish()
    }

    fn metadata(plain: &[u8], summary: Option<Vec<u8>>) -> Metadata {
        let digest = Digest::of(&mut &*plain).unwrap();
        Metadata {
            plaintext_bytes: digest.bytes,
            plaintext_blake3: digest.blake3,
            sealed_unix_us: 1,
            wal_summary: summary,
            ..Metadata::by_this_program()
        }
    }

    /// Byte for byte what two passes give, so that everything proven of them holds.
    #[test]
    fn one_pass_gives_the_object_that_two_passes_give() {
        let address = Address { repository_id: &[6; 16], kind: ObjectKind::Segment, name: "a" };
        let keys = DataKeys::Encrypted { current: DataKey::from_bytes([1; 32]).into(), earlier: vec![] };
        let near = (2 * FRAME_BYTES - 90..2 * FRAME_BYTES).map(noise);
        let mixed: Vec<u8> = (0..4).flat_map(|_| [noise(MIB), vec![7; MIB]].concat()).collect();
        for plain in near.chain([vec![], vec![0; 1], noise(FRAME_BYTES), vec![0; 2 * MIB], mixed]) {
            for (key, level) in [(keys.current(), 1), (None, 3)] {
                let sealing = Sealing { level, salt: [7; 32] };
                let metadata = metadata(&plain, Some(noise(5000)));
                let mut expected = Vec::new();
                seal(&mut &*plain, &mut expected, address, key, &metadata, sealing).unwrap();
                let once = compressed(&plain, level).unwrap().unwrap();
                let object = once.seal(address, key, &metadata, sealing).unwrap().unwrap();
                assert!(object == expected, "{} bytes at level {level}", plain.len());
                let opening = if key.is_some() { &keys } else { &DataKeys::Unencrypted };
                let mut out = Vec::new();
                open(&*object, address, opening).unwrap().copy_to(&mut out).unwrap();
                assert_eq!(out, plain);
                // Its memory goes back: what is left in it must not show in the next one.
                drop(object);
            }
        }
    }

    #[test]
    fn the_last_taker_gets_the_content_itself() {
        let waiting = SharedCompressed::for_takers(2, compressed(b"x", 1).unwrap());
        assert!(waiting.take(3).is_none());
        assert!(waiting.take(1).is_some());
        assert!(waiting.take(1).is_some());
        assert!(waiting.take(1).is_none());
        assert!(SharedCompressed::default().take(1).is_none());
    }

    #[test]
    fn what_does_not_fit_is_left_to_two_passes() {
        let long = noise(PART_BYTES);
        assert!(compressed(&long, 1).unwrap().is_none());
        let fits = compressed(&long[..PART_BYTES - MIB], 1).unwrap().unwrap();
        let address = Address { repository_id: &[6; 16], kind: ObjectKind::Segment, name: "a" };
        let sealing = Sealing { level: 1, salt: [7; 32] };
        let object = fits.clone().seal(address, None, &metadata(b"", None), sealing).unwrap().unwrap();
        assert!(object.len() <= PART_BYTES);
        let wide = metadata(b"", Some(noise(FRONT_BYTES)));
        assert!(fits.seal(address, None, &wide, sealing).unwrap().is_none());
    }

    #[test]
    fn a_file_of_another_length_than_announced_is_seen() {
        for (announced, written) in [(10, 9), (0, 1)] {
            let mut compressing = Compressing::new(1, announced).unwrap();
            let fails = compressing.write_all(&vec![0; written]).is_err() || compressing.finish().is_err();
            assert!(fails, "{announced} {written}");
        }
    }
}
