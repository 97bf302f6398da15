//! The cipher of one object's frames: ChaCha20-Poly1305 in the STREAM construction, or, in an unencrypted repository, a
//! hash in the place of the tag.

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use zeroize::Zeroizing;

use super::keys::DataKey;
use crate::limits::TAG_BYTES;

/// Which sequence of frames a nonce belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// The metadata block.
    Metadata = 0,
    /// The frames of the content.
    Frame = 1,
    /// A record of a pack that is an extent; the number is where it begins.
    Extent = 2,
    /// A record of a pack that is a table of extents; the number is where it begins.
    Table = 3,
}

/// The bytes are not what was sealed under this key, for this object, at this place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("authentication failed")]
pub struct Forged;

/// Seals and opens the frames of one object. The salt makes its key unique, so nonces are plain counters.
pub struct FrameCipher {
    inner: Inner,
    binding: [u8; 32],
}

enum Inner {
    Sealed(Box<ChaCha20Poly1305>),
    Hashed([u8; 32]),
}

impl FrameCipher {
    /// The cipher of the object with this salt and binding; without a key, the hash of an unencrypted repository.
    pub fn new(key: Option<&DataKey>, salt: &[u8; 32], binding: [u8; 32]) -> Self {
        let inner = match key {
            Some(key) => {
                let mut material = Zeroizing::new([0; 64]);
                let (front, back) = material.split_at_mut(32);
                front.copy_from_slice(key.bytes());
                back.copy_from_slice(salt);
                let object_key = Zeroizing::new(blake3::derive_key("walvis 1 object key", material.as_ref()));
                Inner::Sealed(Box::new(ChaCha20Poly1305::new((&*object_key).into())))
            }
            None => Inner::Hashed(blake3::derive_key("walvis 1 object hash", salt)),
        };
        Self { inner, binding }
    }

    /// Seals `bytes` in place and returns the tag that follows them.
    ///
    /// # Errors
    /// Never for frames within [`crate::limits`]; the cipher refuses texts beyond 256 GiB.
    pub fn seal(&self, domain: Domain, number: u64, last: bool, bytes: &mut [u8]) -> Result<[u8; TAG_BYTES], Forged> {
        let nonce = nonce(domain, number, last);
        match &self.inner {
            Inner::Sealed(cipher) => {
                cipher.encrypt_inout_detached(&nonce.into(), &self.binding, bytes.into()).map(Into::into).map_err(|_| Forged)
            }
            Inner::Hashed(key) => Ok(hash_tag(key, &nonce, &self.binding, bytes)),
        }
    }

    /// Opens `bytes` in place.
    ///
    /// # Errors
    /// [`Forged`]; `bytes` are then unspecified and must not be used.
    pub fn open(&self, domain: Domain, number: u64, last: bool, bytes: &mut [u8], tag: &[u8; TAG_BYTES]) -> Result<(), Forged> {
        let nonce = nonce(domain, number, last);
        match &self.inner {
            Inner::Sealed(cipher) => {
                cipher.decrypt_inout_detached(&nonce.into(), &self.binding, bytes.into(), tag.into()).map_err(|_| Forged)
            }
            Inner::Hashed(key) if hash_tag(key, &nonce, &self.binding, bytes) == *tag => Ok(()),
            Inner::Hashed(_) => Err(Forged),
        }
    }
}

fn nonce(domain: Domain, number: u64, last: bool) -> [u8; 12] {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    [domain as u8, 0, 0, a, b, c, d, e, f, g, h, u8::from(last)]
}

fn hash_tag(key: &[u8; 32], nonce: &[u8; 12], binding: &[u8; 32], bytes: &[u8]) -> [u8; TAG_BYTES] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(nonce).update(binding).update(bytes);
    let mut tag = [0; TAG_BYTES];
    hasher.finalize_xof().fill(&mut tag);
    tag
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::FRAME_BYTES;

    #[test]
    fn a_frame_opens_only_where_it_was_sealed() {
        let key = DataKey::generate().unwrap();
        let other = DataKey::generate().unwrap();
        let (salt, binding) = ([1; 32], [2; 32]);
        for key in [Some(&key), None] {
            let cipher = FrameCipher::new(key, &salt, binding);
            let plain = b"sixteen shillings".to_vec();
            let mut sealed = plain.clone();
            let tag = cipher.seal(Domain::Frame, 7, false, &mut sealed).unwrap();
            assert_eq!(key.is_some(), sealed != plain);
            let open = |c: &FrameCipher, d, n, l, t: &[u8; 16]| c.open(d, n, l, &mut sealed.clone(), t);
            assert!(open(&cipher, Domain::Frame, 7, false, &tag).is_ok());
            assert!(open(&cipher, Domain::Metadata, 7, false, &tag).is_err());
            assert!(open(&cipher, Domain::Frame, 8, false, &tag).is_err());
            assert!(open(&cipher, Domain::Frame, 7, true, &tag).is_err());
            assert!(open(&FrameCipher::new(key, &[3; 32], binding), Domain::Frame, 7, false, &tag).is_err());
            assert!(open(&FrameCipher::new(key, &salt, [3; 32]), Domain::Frame, 7, false, &tag).is_err());
            assert!(open(&FrameCipher::new(Some(&other), &salt, binding), Domain::Frame, 7, false, &tag).is_err());
            let mut bad = tag;
            bad[15] ^= 1;
            assert!(open(&cipher, Domain::Frame, 7, false, &bad).is_err());
        }
    }

    /// Whatever instructions the processor has, another library's cipher makes the same of it, at every length of a
    /// block and around the length of a frame.
    #[test]
    fn it_is_the_cipher_that_others_know() {
        use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

        let (key, salt, binding) = (DataKey::from_bytes([9; 32]), [1; 32], [2; 32]);
        let object_key = blake3::derive_key("walvis 1 object key", &[[9; 32], salt].concat());
        let other = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &object_key).unwrap());
        let cipher = FrameCipher::new(Some(&key), &salt, binding);
        let mut plain = vec![0; FRAME_BYTES + 40];
        blake3::Hasher::new().finalize_xof().fill(&mut plain);
        for len in (0..1300).chain(FRAME_BYTES - 20..=FRAME_BYTES) {
            let (mut ours, mut theirs) = (plain[..len].to_vec(), plain[..len].to_vec());
            let tag = cipher.seal(Domain::Extent, len as u64, true, &mut ours).unwrap();
            let nonce = Nonce::assume_unique_for_key(nonce(Domain::Extent, len as u64, true));
            let their_tag = other.seal_in_place_separate_tag(nonce, Aad::from(binding), &mut theirs).unwrap();
            assert!(ours == theirs && tag == their_tag.as_ref(), "{len} bytes");
            cipher.open(Domain::Extent, len as u64, true, &mut ours, &tag).unwrap();
            assert!(ours == plain[..len], "{len} bytes");
        }
    }
}
