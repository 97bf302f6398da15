//! What no implementation of the format can avoid, and nothing else.

use std::hint::black_box;

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use walvis::limits::FRAME_BYTES;

/// One thread's zstd, ChaCha20-Poly1305 and BLAKE3.
pub struct LowerBound {
    zstd: zstd::bulk::Compressor<'static>,
    cipher: ChaCha20Poly1305,
    buffer: Vec<u8>,
}

impl LowerBound {
    /// For segments of at most so many bytes.
    pub fn new(segment_bytes: usize) -> Self {
        let buffer = vec![0; zstd::zstd_safe::compress_bound(segment_bytes)];
        let zstd = zstd::bulk::Compressor::new(1).expect("level 1 exists");
        Self { zstd, cipher: ChaCha20Poly1305::new(&[1; 32].into()), buffer }
    }

    /// Returns how many bytes came out.
    pub fn compress(&mut self, plain: &[u8]) -> usize {
        self.zstd.compress_to_buffer(plain, self.buffer.as_mut_slice()).expect("the buffer is large enough")
    }

    /// Encrypts so many bytes of the buffer where they are.
    pub fn encrypt(&mut self, bytes: usize) {
        for frame in self.buffer.get_mut(..bytes).unwrap_or_default().chunks_mut(FRAME_BYTES) {
            black_box(self.cipher.encrypt_inout_detached(&[0; 12].into(), b"", frame.into()).expect("a short text"));
        }
    }
}
