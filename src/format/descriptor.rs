//! The two JSON objects that are read before any key is known: the repository's descriptor and its wrapped data keys.

use serde::{Deserialize, Serialize};

use crate::crypto::{Argon2id, KeyId, WrappedKey};
use crate::limits::MAX_DESCRIPTOR_BYTES;

/// The format that this program writes and reads.
pub const FORMAT: u32 = 1;

/// Why a JSON object cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    /// Written by a later version.
    #[error("it is of format {0}, which this version of Walvis does not know")]
    Newer(u64),
    /// Not what was written.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

/// How new objects are kept from replacing existing ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CreateIfAbsent {
    /// The store refuses to overwrite.
    Store,
    /// It does not; writers announce themselves (`store::claims`).
    Claims,
}

/// `cipher` of the descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RepositoryCipher {
    /// Unencrypted, by explicit wish.
    #[serde(rename = "none")]
    None,
    /// Encrypted.
    #[serde(rename = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

/// `walvis.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Random; bound into every object.
    pub repository_id: [u8; 16],
    /// Whether objects are encrypted.
    pub cipher: RepositoryCipher,
    /// What the store was found to do.
    pub create_if_absent: CreateIfAbsent,
    /// When it was made, Unix seconds.
    pub created_unix_s: i64,
}

/// The JSON text of a descriptor.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DescriptorJson {
    format: u32,
    repository_id: String,
    cipher: RepositoryCipher,
    create_if_absent: CreateIfAbsent,
    created_unix_s: i64,
    check: String,
}

impl DescriptorJson {
    /// All fields but the check, as text that is the same for the same values.
    fn fields(&self) -> String {
        let cipher = match self.cipher {
            RepositoryCipher::None => "none",
            RepositoryCipher::ChaCha20Poly1305 => "chacha20-poly1305",
        };
        let create = match self.create_if_absent {
            CreateIfAbsent::Store => "store",
            CreateIfAbsent::Claims => "claims",
        };
        lines(&[
            ("format", &self.format.to_string()),
            ("repository_id", &self.repository_id),
            ("cipher", cipher),
            ("create_if_absent", create),
            ("created_unix_s", &self.created_unix_s.to_string()),
        ])
    }
}

impl From<&Descriptor> for DescriptorJson {
    fn from(descriptor: &Descriptor) -> Self {
        Self {
            format: FORMAT,
            repository_id: hex::encode(descriptor.repository_id),
            cipher: descriptor.cipher,
            create_if_absent: descriptor.create_if_absent,
            created_unix_s: descriptor.created_unix_s,
            check: String::new(),
        }
    }
}

impl Descriptor {
    /// The object's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut json = DescriptorJson::from(self);
        json.check = check(&json.fields());
        to_text(&json)
    }

    /// What data keys are sealed with, so that who changes a field needs the wrapping key: anybody can compute the
    /// check.
    fn seal(&self) -> [u8; 32] {
        blake3::derive_key("walvis 1 descriptor", DescriptorJson::from(self).fields().as_bytes())
    }

    /// Reads the object's bytes.
    ///
    /// # Errors
    /// See [`DescriptorError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, DescriptorError> {
        let json: DescriptorJson = from_text(bytes)?;
        expect_check(&json.check, &check(&json.fields()))?;
        Ok(Self {
            repository_id: hex_array(&json.repository_id, "repository_id")?,
            cipher: json.cipher,
            create_if_absent: json.create_if_absent,
            created_unix_s: json.created_unix_s,
        })
    }
}

/// `keys/<key id>/<wrapping key id>.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyObject {
    /// Of the repository that the key was made for.
    pub repository_id: [u8; 16],
    /// The data key's id.
    pub key_id: KeyId,
    /// The highest one seals new objects.
    pub generation: u64,
    /// The wrapping key's id.
    pub wrapping_key_id: KeyId,
    /// How a passphrase becomes the wrapping key; `None` for a key file or command.
    pub argon2id: Option<Argon2id>,
    /// The data key, sealed.
    pub wrapped: WrappedKey,
    /// When it was made, Unix seconds.
    pub created_unix_s: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Argon2idJson {
    salt: String,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyJson {
    format: u32,
    repository_id: String,
    key_id: String,
    generation: u64,
    wrapping_key_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    argon2id: Option<Argon2idJson>,
    nonce: String,
    sealed_key: String,
    created_unix_s: i64,
    check: String,
}

impl KeyJson {
    fn fields(&self) -> String {
        let argon2id =
            self.argon2id.as_ref().map_or_else(String::new, |a| format!("{},{},{},{}", a.salt, a.memory_kib, a.passes, a.lanes));
        lines(&[
            ("format", &self.format.to_string()),
            ("repository_id", &self.repository_id),
            ("key_id", &self.key_id),
            ("generation", &self.generation.to_string()),
            ("wrapping_key_id", &self.wrapping_key_id),
            ("argon2id", &argon2id),
            ("nonce", &self.nonce),
            ("sealed_key", &self.sealed_key),
            ("created_unix_s", &self.created_unix_s.to_string()),
        ])
    }
}

impl KeyObject {
    /// What the wrapping is tied to: the repository, what its descriptor says, and the key.
    pub fn associated(descriptor: &Descriptor, key_id: KeyId, generation: u64) -> Vec<u8> {
        [descriptor.repository_id.as_slice(), &key_id.0, &generation.to_le_bytes(), &descriptor.seal()].concat()
    }

    /// The object's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut json = KeyJson {
            format: FORMAT,
            repository_id: hex::encode(self.repository_id),
            key_id: self.key_id.to_string(),
            generation: self.generation,
            wrapping_key_id: self.wrapping_key_id.to_string(),
            argon2id: self.argon2id.as_ref().map(|a| Argon2idJson {
                salt: hex::encode(a.salt),
                memory_kib: a.memory_kib,
                passes: a.passes,
                lanes: a.lanes,
            }),
            nonce: hex::encode(self.wrapped.nonce),
            sealed_key: hex::encode(self.wrapped.sealed),
            created_unix_s: self.created_unix_s,
            check: String::new(),
        };
        json.check = check(&json.fields());
        to_text(&json)
    }

    /// Reads the object's bytes.
    ///
    /// # Errors
    /// See [`DescriptorError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, DescriptorError> {
        let json: KeyJson = from_text(bytes)?;
        expect_check(&json.check, &check(&json.fields()))?;
        let argon2id = match &json.argon2id {
            Some(a) => Some(Argon2id {
                salt: hex_array(&a.salt, "argon2id salt")?,
                memory_kib: a.memory_kib,
                passes: a.passes,
                lanes: a.lanes,
            }),
            None => None,
        };
        if argon2id.as_ref().is_some_and(|a| !a.is_bearable()) {
            return Err(DescriptorError::Damaged("its Argon2id parameters are out of range".to_owned()));
        }
        Ok(Self {
            repository_id: hex_array(&json.repository_id, "repository_id")?,
            key_id: KeyId(hex_array(&json.key_id, "key_id")?),
            generation: json.generation,
            wrapping_key_id: KeyId(hex_array(&json.wrapping_key_id, "wrapping_key_id")?),
            argon2id,
            wrapped: WrappedKey { nonce: hex_array(&json.nonce, "nonce")?, sealed: hex_array(&json.sealed_key, "sealed_key")? },
            created_unix_s: json.created_unix_s,
        })
    }
}

fn lines(fields: &[(&str, &str)]) -> String {
    fields.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}

fn check(fields: &str) -> String {
    blake3::hash(fields.as_bytes()).to_hex().to_string()
}

fn expect_check(found: &str, expected: &str) -> Result<(), DescriptorError> {
    if found == expected { Ok(()) } else { Err(DescriptorError::Damaged("its fields do not fit its check".to_owned())) }
}

fn hex_array<const N: usize>(text: &str, field: &str) -> Result<[u8; N], DescriptorError> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| DescriptorError::Damaged(format!("{field} is not {} hexadecimal digits", 2 * N)))?;
    Ok(bytes)
}

fn to_text<T: Serialize>(json: &T) -> Vec<u8> {
    // Serialising strings and numbers into memory cannot fail.
    let mut text = serde_json::to_vec_pretty(json).unwrap_or_default();
    text.push(b'\n');
    text
}

/// The format number, whatever else there is.
#[derive(Deserialize)]
struct Front {
    format: Option<u64>,
}

/// The format number is looked at first, so that a later format is named as such whatever its fields are.
fn from_text<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, DescriptorError> {
    let damaged = |e: serde_json::Error| DescriptorError::Damaged(e.to_string());
    if bytes.len() > MAX_DESCRIPTOR_BYTES {
        return Err(DescriptorError::Damaged("it is longer than it can be".to_owned()));
    }
    match serde_json::from_slice::<Front>(bytes).map_err(damaged)?.format {
        Some(format) if format == u64::from(FORMAT) => serde_json::from_slice(bytes).map_err(damaged),
        Some(format) => Err(DescriptorError::Newer(format)),
        None => Err(DescriptorError::Damaged("it names no format".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor() -> Descriptor {
        Descriptor {
            repository_id: [5; 16],
            cipher: RepositoryCipher::ChaCha20Poly1305,
            create_if_absent: CreateIfAbsent::Claims,
            created_unix_s: 1_800_000_000,
        }
    }

    fn key() -> KeyObject {
        KeyObject {
            repository_id: [5; 16],
            key_id: KeyId([1; 16]),
            generation: 3,
            wrapping_key_id: KeyId([2; 16]),
            argon2id: Some(Argon2id { salt: [4; 16], memory_kib: 1024, passes: 2, lanes: 1 }),
            wrapped: WrappedKey { nonce: [8; 12], sealed: [9; 48] },
            created_unix_s: 1_800_000_000,
        }
    }

    /// Flips every bit: each time the text must be refused, or (white space, letter case of a digit) mean the same.
    fn survives_flips<T: PartialEq>(text: &[u8], good: &T, parse: impl Fn(&[u8]) -> Result<T, DescriptorError>) -> usize {
        let mut refused = 0;
        for bit in 0..text.len() * 8 {
            let mut bad = text.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            match parse(&bad) {
                Ok(value) => assert!(value == *good, "bit {bit} was believed"),
                Err(_) => refused += 1,
            }
        }
        refused
    }

    #[test]
    fn they_round_trip_and_damage_is_seen() {
        let text = descriptor().encode();
        assert_eq!(Descriptor::parse(&text), Ok(descriptor()));
        assert!(survives_flips(&text, &descriptor(), Descriptor::parse) > text.len() * 7);
        let text = key().encode();
        assert_eq!(KeyObject::parse(&text), Ok(key()));
        assert!(survives_flips(&text, &key(), KeyObject::parse) > text.len() * 7);
        assert!(Descriptor::parse(b"<html>not found</html>").is_err());
        assert!(Descriptor::parse(b"").is_err());
    }

    /// Each field of the descriptor is in what the data keys are sealed with.
    #[test]
    fn a_key_is_tied_to_every_field_of_the_descriptor() {
        let associated = |descriptor: &Descriptor| KeyObject::associated(descriptor, KeyId([1; 16]), 1);
        let all = [
            descriptor(),
            Descriptor { repository_id: [6; 16], ..descriptor() },
            Descriptor { cipher: RepositoryCipher::None, ..descriptor() },
            Descriptor { create_if_absent: CreateIfAbsent::Store, ..descriptor() },
            Descriptor { created_unix_s: 1_800_000_001, ..descriptor() },
        ];
        let different: std::collections::BTreeSet<Vec<u8>> = all.iter().map(associated).collect();
        assert_eq!(different.len(), all.len());
        assert_ne!(associated(&descriptor()), KeyObject::associated(&descriptor(), KeyId([1; 16]), 2));
    }

    #[test]
    fn a_later_format_is_named() {
        assert_eq!(Descriptor::parse(br#"{"format": 2, "anything": true}"#), Err(DescriptorError::Newer(2)));
    }
}
