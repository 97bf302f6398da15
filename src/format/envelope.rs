//! The envelope's header and metadata.

use crate::crypto::KeyId;
use crate::limits::{FRAME_BYTES, MAX_METADATA_BYTES, TAG_BYTES};

/// First bytes of every envelope: one that is no text, the name, one that a text transfer would change.
pub const MAGIC: [u8; 8] = *b"\x89WALVIS\n";
/// The version this program writes and reads.
pub const VERSION: u16 = 1;
/// Size of the header.
pub const HEADER_BYTES: usize = 68;
/// A sealed frame with its tag.
pub const SEALED_FRAME_BYTES: usize = FRAME_BYTES + TAG_BYTES;

/// What an object is. It is bound into every frame and follows from the object's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ObjectKind {
    /// A complete WAL segment.
    Segment = 1,
    /// A `.partial` segment.
    Partial = 2,
    /// A timeline history file.
    History = 3,
    /// A backup history file.
    Backup = 4,
    /// A cluster name's binding to a system identifier.
    Binding = 5,
    /// A node of the catalog.
    Node = 6,
    /// Extents of a base backup.
    Pack = 7,
    /// The manifest of a base backup.
    Manifest = 8,
    /// That a base backup has begun.
    BegunBackup = 9,
    /// What shall go, and how far that is.
    Tombstone = 10,
    /// That a backup is to be kept.
    Pin = 11,
    /// What a verification looked at, and found.
    Evidence = 12,
    /// What consecutive segments changed.
    Changes = 13,
    /// What is known of many base backups.
    BackupIndex = 14,
}

/// How the content is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// Not at all.
    Stored = 0,
    /// One zstd frame.
    Zstd = 1,
    /// Not a stream but records, each compressed by itself: a pack.
    Records = 2,
}

/// How frames are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cipher {
    /// Hashes only.
    None = 0,
    /// ChaCha20-Poly1305, STREAM.
    ChaCha20Poly1305 = 1,
}

/// Why bytes are not an envelope that this program can read. All are damage, except `Newer`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// It ends within the header or metadata.
    #[error("it is truncated: {0}")]
    Truncated(&'static str),
    /// Not our magic.
    #[error("it does not begin as a Walvis object does")]
    Magic,
    /// Written by a later version, or the version bytes are damaged.
    #[error("its {field} is {value}, which this version of Walvis does not know")]
    Newer {
        /// The header field or metadata tag.
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// A rule of the format is broken.
    #[error("{0}")]
    Invalid(&'static str),
}

/// The header, in clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Compression.
    pub codec: Codec,
    /// Protection.
    pub cipher: Cipher,
    /// The data key; zero without a cipher.
    pub key_id: KeyId,
    /// Random, per object.
    pub salt: [u8; 32],
    /// Length of the sealed metadata without its tag.
    pub metadata_bytes: u32,
}

impl Header {
    /// The 68 bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let fields: [&[u8]; 7] = [
            &MAGIC,
            &VERSION.to_le_bytes(),
            &[self.codec as u8, self.cipher as u8],
            &[0; 4],
            &self.key_id.0,
            &self.salt,
            &self.metadata_bytes.to_le_bytes(),
        ];
        for (slot, byte) in out.iter_mut().zip(fields.into_iter().flatten()) {
            *slot = *byte;
        }
        out
    }

    /// Reads the 68 bytes.
    ///
    /// # Errors
    /// See [`FormatError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor(bytes);
        let truncated = FormatError::Truncated("the header is incomplete");
        if cursor.array::<8>().ok_or(truncated.clone())? != MAGIC {
            return Err(FormatError::Magic);
        }
        let version = u16::from_le_bytes(cursor.array().ok_or(truncated.clone())?);
        if version != VERSION {
            return Err(FormatError::Newer { field: "format version", value: version.into() });
        }
        let [codec, cipher] = cursor.array().ok_or(truncated.clone())?;
        let codec = match codec {
            0 => Codec::Stored,
            1 => Codec::Zstd,
            2 => Codec::Records,
            other => return Err(FormatError::Newer { field: "codec", value: other.into() }),
        };
        let cipher = match cipher {
            0 => Cipher::None,
            1 => Cipher::ChaCha20Poly1305,
            other => return Err(FormatError::Newer { field: "cipher", value: other.into() }),
        };
        let flags = u32::from_le_bytes(cursor.array().ok_or(truncated.clone())?);
        if flags != 0 {
            return Err(FormatError::Newer { field: "flag word", value: flags });
        }
        let key_id = KeyId(cursor.array().ok_or(truncated.clone())?);
        let salt = cursor.array().ok_or(truncated.clone())?;
        let metadata_bytes = u32::from_le_bytes(cursor.array().ok_or(truncated)?);
        if metadata_bytes as usize > MAX_METADATA_BYTES {
            return Err(FormatError::Invalid("its metadata is longer than the format allows"));
        }
        if cipher == Cipher::None && key_id.0 != [0; 16] {
            return Err(FormatError::Invalid("it names a key and no cipher"));
        }
        Ok(Self { codec, cipher, key_id, salt, metadata_bytes })
    }

    /// What ties every frame to this header, kind, name and repository.
    pub fn binding(&self, repository_id: &[u8; 16], kind: ObjectKind, name: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("walvis 1 binding");
        hasher.update(repository_id).update(&[kind as u8]).update(&self.encode()).update(name.as_bytes());
        *hasher.finalize().as_bytes()
    }
}

/// What is known of an object without reading its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Length of the plaintext.
    pub plaintext_bytes: u64,
    /// BLAKE3 of the plaintext.
    pub plaintext_blake3: [u8; 32],
    /// When it was sealed, microseconds since 1970 UTC.
    pub sealed_unix_us: i64,
    /// Version of the program that wrote it.
    pub writer: String,
    /// What the scan of a WAL segment found, encoded as `pg::scan` documents it. Absent: it was not scanned.
    pub wal_summary: Option<Vec<u8>>,
    /// What a WAL segment changed, encoded as `format::changes` documents it. Absent: it is not known.
    pub wal_changes: Option<Vec<u8>>,
    /// Of a manifest: the backup's summary, JSON.
    pub backup_summary: Option<Vec<u8>>,
    /// Of a void, which stands in the place of a manifest: why the backup was given up, JSON.
    pub void: Option<Vec<u8>>,
    /// Of a pack: its list of contents.
    pub contents: Option<Vec<u8>>,
}

const TAG_LENGTH: u16 = 1;
const TAG_BLAKE3: u16 = 2;
const TAG_SEALED: u16 = 3;
const TAG_CONTENTS: u16 = 4;
const TAG_WRITER: u16 = 0x8001;
const TAG_WAL_SUMMARY: u16 = 0x8010;
const TAG_WAL_CHANGES: u16 = 0x8011;
const TAG_BACKUP_SUMMARY: u16 = 0x8020;
const TAG_VOID: u16 = 0x8021;
/// Sections from this tag on may be skipped by those who don't know them.
const TAG_OPTIONAL: u16 = 0x8000;

impl Metadata {
    /// Metadata of nothing, sealed never, by this version.
    pub fn by_this_program() -> Self {
        Self {
            plaintext_bytes: 0,
            plaintext_blake3: [0; 32],
            sealed_unix_us: 0,
            writer: env!("CARGO_PKG_VERSION").to_owned(),
            wal_summary: None,
            wal_changes: None,
            backup_summary: None,
            void: None,
            contents: None,
        }
    }

    /// The sections.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        let mut section = |tag: u16, bytes: &[u8]| {
            out.extend_from_slice(&tag.to_le_bytes());
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        section(TAG_LENGTH, &self.plaintext_bytes.to_le_bytes());
        section(TAG_BLAKE3, &self.plaintext_blake3);
        section(TAG_SEALED, &self.sealed_unix_us.to_le_bytes());
        if let Some(contents) = &self.contents {
            section(TAG_CONTENTS, contents);
        }
        section(TAG_WRITER, self.writer.as_bytes());
        let optional = [
            (TAG_WAL_SUMMARY, &self.wal_summary),
            (TAG_WAL_CHANGES, &self.wal_changes),
            (TAG_BACKUP_SUMMARY, &self.backup_summary),
            (TAG_VOID, &self.void),
        ];
        for (tag, bytes) in optional {
            if let Some(bytes) = bytes {
                section(tag, bytes);
            }
        }
        out
    }

    /// Reads the sections.
    ///
    /// # Errors
    /// See [`FormatError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let truncated = FormatError::Truncated("a metadata section is incomplete");
        let wrong_length = FormatError::Invalid("a metadata section has a wrong length");
        let mut cursor = Cursor(bytes);
        let (mut length, mut hash, mut sealed, mut writer) = (None, None, None, String::new());
        let (mut wal_summary, mut wal_changes, mut backup_summary, mut void, mut contents) = (None, None, None, None, None);
        let mut previous = None;
        while !cursor.0.is_empty() {
            let tag = u16::from_le_bytes(cursor.array().ok_or(truncated.clone())?);
            let len = u32::from_le_bytes(cursor.array().ok_or(truncated.clone())?);
            let mut section = Cursor(cursor.take(len as usize).ok_or(truncated.clone())?);
            if previous.is_some_and(|p| p >= tag) {
                return Err(FormatError::Invalid("its metadata sections are out of order"));
            }
            previous = Some(tag);
            match tag {
                TAG_LENGTH => length = Some(u64::from_le_bytes(section.array().ok_or(wrong_length.clone())?)),
                TAG_BLAKE3 => hash = Some(section.array().ok_or(wrong_length.clone())?),
                TAG_SEALED => sealed = Some(i64::from_le_bytes(section.array().ok_or(wrong_length.clone())?)),
                TAG_WRITER => writer = String::from_utf8_lossy(section.take(len as usize).unwrap_or_default()).into_owned(),
                TAG_CONTENTS => contents = section.take(len as usize).map(<[u8]>::to_vec),
                TAG_BACKUP_SUMMARY => backup_summary = section.take(len as usize).map(<[u8]>::to_vec),
                TAG_VOID => void = section.take(len as usize).map(<[u8]>::to_vec),
                TAG_WAL_SUMMARY => wal_summary = section.take(len as usize).map(<[u8]>::to_vec),
                TAG_WAL_CHANGES => wal_changes = section.take(len as usize).map(<[u8]>::to_vec),
                other if other >= TAG_OPTIONAL => continue,
                other => return Err(FormatError::Newer { field: "metadata section", value: other.into() }),
            }
            if !section.0.is_empty() {
                return Err(wrong_length);
            }
        }
        match (length, hash, sealed) {
            (Some(plaintext_bytes), Some(plaintext_blake3), Some(sealed_unix_us)) => Ok(Self {
                plaintext_bytes,
                plaintext_blake3,
                sealed_unix_us,
                writer,
                wal_summary,
                wal_changes,
                backup_summary,
                void,
                contents,
            }),
            _ => Err(FormatError::Invalid("its metadata lacks length, hash or time")),
        }
    }
}

/// Takes bytes off the front, never beyond the end.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(front)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.first_chunk().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            codec: Codec::Zstd,
            cipher: Cipher::ChaCha20Poly1305,
            key_id: KeyId([7; 16]),
            salt: [9; 32],
            metadata_bytes: 300,
        }
    }

    fn metadata() -> Metadata {
        Metadata {
            plaintext_bytes: 16 << 20,
            plaintext_blake3: [3; 32],
            sealed_unix_us: 1_700_000_000_000_000,
            writer: "0.1.0".into(),
            ..Metadata::by_this_program()
        }
    }

    #[test]
    fn header_and_metadata_round_trip() {
        assert_eq!(Header::parse(&header().encode()), Ok(header()));
        assert_eq!(Metadata::parse(&metadata().encode()), Ok(metadata()));
        let with = |bytes: &[u8]| Some(bytes.to_vec());
        let full = Metadata {
            wal_summary: with(&[1]),
            wal_changes: with(&[6]),
            backup_summary: with(&[2, 3]),
            void: with(&[5]),
            contents: with(&[4]),
            ..metadata()
        };
        assert_eq!(Metadata::parse(&full.encode()), Ok(full));
    }

    #[test]
    fn every_cut_is_an_error() {
        let (header, metadata) = (header().encode(), metadata().encode());
        for len in 0..header.len() {
            assert!(Header::parse(&header[..len]).is_err(), "{len}");
        }
        // The last section may be absent: it is optional. Every other cut is seen.
        let optional = metadata.len() - (6 + "0.1.0".len());
        for len in (0..metadata.len()).filter(|len| *len != optional) {
            assert!(Metadata::parse(&metadata[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (at, field) in [(8, "format version"), (10, "codec"), (11, "cipher"), (12, "flag word")] {
            let mut bytes = header().encode();
            bytes[at] = 99;
            assert!(matches!(Header::parse(&bytes), Err(FormatError::Newer { field: f, .. }) if f == field), "{field}");
        }
        let mut unknown = vec![0, 0, 0, 0, 0, 0];
        unknown[0] = 5;
        let mut with_unknown = metadata().encode();
        with_unknown.splice(66..66, unknown); // after length, hash and time
        assert!(matches!(Metadata::parse(&with_unknown), Err(FormatError::Newer { field: "metadata section", value: 5 })));
        let mut optional = metadata().encode();
        optional.extend_from_slice(&[0x99, 0x99, 2, 0, 0, 0, 1, 2]);
        assert_eq!(Metadata::parse(&optional), Ok(metadata()));
        let mut long = header();
        long.metadata_bytes = u32::MAX;
        assert!(matches!(Header::parse(&long.encode()), Err(FormatError::Invalid(_))));
    }
}
