//! Data keys and wrapping keys.

use std::sync::{Arc, Mutex, PoisonError};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::ids::KeyId;
use crate::limits::{MAX_ARGON2_LANES, MAX_ARGON2_MEMORY_KIB, MAX_ARGON2_PASSES, MAX_ARGON2_WORK_KIB};

/// Fills an array from the operating system's random source.
///
/// # Errors
/// When the system has none.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| format!("the system's random source failed: {e}"))?;
    Ok(bytes)
}

/// The key that seals a repository's objects.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct DataKey([u8; 32]);

impl DataKey {
    /// A new random key.
    ///
    /// # Errors
    /// When the system has no random source.
    pub fn generate() -> Result<Self, String> {
        random_bytes().map(Self)
    }

    /// A key with these bytes (golden vectors).
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Its id.
    pub fn id(&self) -> KeyId {
        KeyId::derive("walvis 1 data key id", &self.0)
    }

    /// A fingerprint of an object's content that only holders of this key can compute, so that names of claims tell
    /// nothing, not even whether two objects have the same content.
    pub fn fingerprint(&self, object: &str, content: &[u8; 32]) -> [u8; 16] {
        let key = Zeroizing::new(blake3::derive_key("walvis 1 content fingerprint", &self.0));
        let mut id = [0; 16];
        blake3::Hasher::new_keyed(&key).update(content).update(object.as_bytes()).finalize_xof().fill(&mut id);
        id
    }
}

/// The data keys of one repository, as far as the operator's key opens them.
pub enum DataKeys {
    /// The repository is unencrypted, by explicit wish.
    Unencrypted,
    /// At least one key.
    Encrypted {
        /// The one that seals new objects.
        current: Arc<DataKey>,
        /// Earlier ones.
        earlier: Vec<DataKey>,
    },
}

impl DataKeys {
    /// The key with this id.
    pub fn find(&self, id: KeyId) -> Option<&DataKey> {
        match self {
            Self::Unencrypted => None,
            Self::Encrypted { current, earlier } => std::iter::once(&**current).chain(earlier).find(|key| key.id() == id),
        }
    }

    /// The key that seals new objects; `None` in an unencrypted repository.
    pub fn current(&self) -> Option<&DataKey> {
        match self {
            Self::Unencrypted => None,
            Self::Encrypted { current, .. } => Some(current),
        }
    }

    /// The same, to share with what seals and needs no other.
    pub fn shared_current(&self) -> Option<Arc<DataKey>> {
        match self {
            Self::Unencrypted => None,
            Self::Encrypted { current, .. } => Some(Arc::clone(current)),
        }
    }
}

/// Length of a derived key as it is kept in memory between processes: the key, and the proof of its passphrase.
pub const CACHED_KEY_BYTES: usize = 64;

/// The operator's key, which seals data keys.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct WrappingKey([u8; 32]);

/// A data key under a wrapping key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// Random.
    pub nonce: [u8; 12],
    /// Sealed key and tag.
    pub sealed: [u8; 48],
}

/// The wrapping key does not open this data key although the ids fit: the object is damaged or forged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sealed key fails authentication")]
pub struct WrongKey;

/// Held by the thread that derives a key.
static DERIVING: Mutex<()> = Mutex::new(());

/// Parameters of Argon2id (RFC 9106) that turn a passphrase into a wrapping key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argon2id {
    /// Random, per key.
    pub salt: [u8; 16],
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Argon2id {
    /// New parameters: 64 MiB, 3 passes, 4 lanes, as RFC 9106 (section 4) recommends where memory is constrained; more
    /// than OWASP's 46 MiB and 1 pass or 19 MiB and 2. A process that derives the key takes so much for a moment before
    /// it does anything else; where the kernel has a keyring, that is one process an hour.
    ///
    /// # Errors
    /// When the system has no random source.
    pub fn generate() -> Result<Self, String> {
        Ok(Self { salt: random_bytes()?, memory_kib: 64 * 1024, passes: 3, lanes: 4 })
    }

    /// Whether a reader may run them: a writer to the repository must not be able to exhaust the host.
    pub fn is_bearable(&self) -> bool {
        (8..=MAX_ARGON2_MEMORY_KIB).contains(&self.memory_kib)
            && (1..=MAX_ARGON2_PASSES).contains(&self.passes)
            && (1..=MAX_ARGON2_LANES).contains(&self.lanes)
            && self.memory_kib.saturating_mul(self.passes) <= MAX_ARGON2_WORK_KIB
    }

    /// The name of what is derived with this salt and these parameters. It depends on no passphrase, so it helps nobody
    /// to guess one.
    pub fn cache_name(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("walvis 1 cache name");
        hasher.update(&self.salt);
        for number in [self.memory_kib, self.passes, self.lanes] {
            hasher.update(&number.to_le_bytes());
        }
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        format!("walvis:{}", hex::encode(id))
    }

    /// Derives the wrapping key. One thread at a time does, so that several repositories do not need the memory several
    /// times; it is wiped.
    ///
    /// # Errors
    /// When the parameters are out of range, or there is not so much memory.
    pub fn derive(&self, passphrase: &[u8]) -> Result<WrappingKey, String> {
        if !self.is_bearable() {
            return Err(format!(
                "Argon2id parameters out of range: {} KiB, {} passes, {} lanes",
                self.memory_kib, self.passes, self.lanes
            ));
        }
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32)).map_err(|e| e.to_string())?;
        let mut key = WrappingKey([0; 32]);
        let _alone = DERIVING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut memory = Zeroizing::new(Vec::new());
        memory.try_reserve_exact(params.block_count()).map_err(|_| format!("no memory for Argon2id: {} KiB", self.memory_kib))?;
        memory.resize(params.block_count(), Block::default());
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(passphrase, &self.salt, &mut key.0, memory.as_mut_slice())
            .map_err(|e| e.to_string())?;
        Ok(key)
    }
}

impl WrappingKey {
    /// A new random key.
    ///
    /// # Errors
    /// When the system has no random source.
    pub fn generate() -> Result<Self, String> {
        random_bytes().map(Self)
    }

    /// Its id.
    pub fn id(&self) -> KeyId {
        KeyId::derive("walvis 1 wrapping key id", &self.0)
    }

    /// The key with a proof of the passphrase that it was derived from, for [`from_cached`](Self::from_cached). As
    /// secret as the key.
    pub fn to_cached(&self, passphrase: &[u8]) -> Zeroizing<[u8; CACHED_KEY_BYTES]> {
        let mut cached = Zeroizing::new([0; CACHED_KEY_BYTES]);
        let (front, back) = cached.split_at_mut(32);
        front.copy_from_slice(&self.0);
        back.copy_from_slice(self.proof(passphrase).as_bytes());
        cached
    }

    /// A key that was derived before; `None` when it was not from this passphrase. Its id is still to be checked.
    pub fn from_cached(cached: &[u8; CACHED_KEY_BYTES], passphrase: &[u8]) -> Option<Self> {
        let (front, back) = (cached.first_chunk::<32>()?, cached.last_chunk::<32>()?);
        let key = Self(*front);
        // `blake3::Hash` compares in constant time.
        (key.proof(passphrase) == *back).then_some(key)
    }

    /// What only a holder of the key can compute, so it gives nobody else a way to try passphrases that is faster than
    /// Argon2id.
    fn proof(&self, passphrase: &[u8]) -> blake3::Hash {
        let key = Zeroizing::new(blake3::derive_key("walvis 1 passphrase proof", &self.0));
        blake3::keyed_hash(&key, passphrase)
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(super) fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(*bytes)
    }

    /// Seals a data key.
    ///
    /// # Errors
    /// When the system has no random source.
    pub fn wrap(&self, key: &DataKey, associated: &[u8]) -> Result<WrappedKey, String> {
        let nonce = random_bytes()?;
        let mut bytes = Zeroizing::new(*key.bytes());
        let tag = self
            .cipher()
            .encrypt_inout_detached(&nonce.into(), associated, bytes.as_mut_slice().into())
            .map_err(|_| "the cipher refused to wrap a key".to_owned())?;
        let mut sealed = [0; 48];
        let (front, back) = sealed.split_at_mut(32);
        front.copy_from_slice(bytes.as_slice());
        back.copy_from_slice(&tag);
        Ok(WrappedKey { nonce, sealed })
    }

    /// Opens a data key.
    ///
    /// # Errors
    /// [`WrongKey`].
    pub fn unwrap_key(&self, wrapped: &WrappedKey, associated: &[u8]) -> Result<DataKey, WrongKey> {
        let (Some(front), Some(tag)) = (wrapped.sealed.first_chunk::<32>(), wrapped.sealed.last_chunk::<16>()) else {
            return Err(WrongKey);
        };
        let mut key = DataKey(*front);
        self.cipher()
            .decrypt_inout_detached(&wrapped.nonce.into(), associated, key.0.as_mut_slice().into(), tag.into())
            .map_err(|_| WrongKey)?;
        Ok(key)
    }

    fn cipher(&self) -> ChaCha20Poly1305 {
        let key = Zeroizing::new(blake3::derive_key("walvis 1 key wrapping", &self.0));
        ChaCha20Poly1305::new((&*key).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_key_opens_under_its_wrapping_key_and_association_only() {
        let (wrapping, data) = (WrappingKey::generate().unwrap(), DataKey::generate().unwrap());
        let wrapped = wrapping.wrap(&data, b"repository 1").unwrap();
        assert_eq!(wrapping.unwrap_key(&wrapped, b"repository 1").unwrap().id(), data.id());
        assert!(wrapping.unwrap_key(&wrapped, b"repository 2").is_err());
        assert!(WrappingKey::generate().unwrap().unwrap_key(&wrapped, b"repository 1").is_err());
        let mut bad = wrapped.clone();
        bad.sealed[0] ^= 1;
        assert!(wrapping.unwrap_key(&bad, b"repository 1").is_err());
    }

    /// RFC 9106, section 4, "SECOND RECOMMENDED option".
    #[test]
    fn new_parameters_are_those_that_are_recommended() {
        let params = Argon2id::generate().unwrap();
        assert_eq!((params.memory_kib, params.passes, params.lanes), (1 << 16, 3, 4));
        assert!(params.is_bearable());
        assert_ne!(params.salt, Argon2id::generate().unwrap().salt);
    }

    #[test]
    fn a_fingerprint_is_of_one_content_of_one_object_under_one_key() {
        let (key, other) = (DataKey([1; 32]), DataKey([2; 32]));
        let all = [
            key.fingerprint("a", &[3; 32]),
            key.fingerprint("b", &[3; 32]),
            key.fingerprint("a", &[4; 32]),
            other.fingerprint("a", &[3; 32]),
        ];
        assert_eq!(std::collections::BTreeSet::from(all).len(), all.len());
        assert_eq!(all[0], key.fingerprint("a", &[3; 32]));
    }

    #[test]
    fn a_passphrase_gives_one_key_per_salt() {
        let params = Argon2id { salt: [1; 16], memory_kib: 64, passes: 1, lanes: 1 };
        let id = params.derive(b"correct horse").unwrap().id();
        assert_eq!(params.derive(b"correct horse").unwrap().id(), id);
        assert_ne!(params.derive(b"correct horsf").unwrap().id(), id);
        assert_ne!(Argon2id { salt: [2; 16], ..params.clone() }.derive(b"correct horse").unwrap().id(), id);
        assert!(Argon2id { memory_kib: 1 << 22, ..params }.derive(b"x").is_err());
    }
}
