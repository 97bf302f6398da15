//! Packs: many small plaintexts, each compressed and sealed by itself, in one object.
//!
//! A pack is an envelope whose content is records instead of frames. Each record is bound to the object, to its kind
//! and to its position, so it opens nowhere else. To read a record whose place is known, one needs the 68 bytes of the
//! header, the record, and nothing else. The list of contents is in the metadata, so a pack can be checked without any
//! manifest.

use std::cell::RefCell;
use std::io;

use bytes::Bytes;

use super::spare_buffers::SpareBuffers;
use super::{Address, CodecError, Opened, cipher_for};
use crate::crypto::{DataKey, DataKeys, Domain, FrameCipher, KeyId};
use crate::format::envelope::{Cipher, Codec, FormatError, HEADER_BYTES, Header, Metadata};
use crate::limits::{KIB, MAX_METADATA_BYTES, MAX_PACK_RECORDS, MAX_RECORD_BYTES, TAG_BYTES};
use crate::varint::{put_varint, take_varint};

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// An extent of a file.
    Extent,
    /// A table of extents.
    Table,
}

impl RecordKind {
    fn domain(self) -> Domain {
        match self {
            Self::Extent => Domain::Extent,
            Self::Table => Domain::Table,
        }
    }
}

/// A line of a pack's contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// What it is.
    pub kind: RecordKind,
    /// Where it begins after the metadata.
    pub offset: u32,
    /// Its length as it is stored.
    pub sealed_bytes: u32,
    /// Its length before compression.
    pub plaintext_bytes: u32,
}

const STORED: u8 = 0;
const ZSTD: u8 = 1;

/// What header, metadata and its tag take at most: room for them is left in front of the records.
const FRONT_BYTES: usize = HEADER_BYTES + MAX_PACK_RECORDS * 6 + 4 * KIB + TAG_BYTES;

/// Gathers records, and seals them when it is known what all of them are. It has a buffer only while it has records.
pub struct PackBuilder {
    /// The records, compressed; each with room for its tag.
    buffer: Vec<u8>,
    records: Vec<Record>,
    compressor: zstd::bulk::Compressor<'static>,
    scratch: Vec<u8>,
    full_at: usize,
    spare: SpareBuffers,
}

impl PackBuilder {
    /// An empty pack that is full with this many bytes of records. `level` is zstd's.
    ///
    /// # Errors
    /// When zstd does not know the level.
    pub fn new(level: i32, full_at: usize, spare: SpareBuffers) -> io::Result<Self> {
        Ok(Self {
            buffer: Vec::new(),
            records: Vec::new(),
            compressor: zstd::bulk::Compressor::new(level)?,
            scratch: Vec::with_capacity(zstd::zstd_safe::compress_bound(MAX_RECORD_BYTES)),
            full_at,
            spare,
        })
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether no other record should be added.
    pub fn is_full(&self) -> bool {
        self.body_bytes() >= self.full_at || self.records.len() >= MAX_PACK_RECORDS
    }

    /// Bytes of all records.
    pub fn body_bytes(&self) -> usize {
        self.buffer.len().saturating_sub(FRONT_BYTES)
    }

    /// Compresses a record of at most an extent's length and adds it.
    ///
    /// # Errors
    /// [`CodecError::Damaged`] when it is too long or the pack is full.
    pub fn append(&mut self, kind: RecordKind, plaintext: &[u8]) -> Result<Record, CodecError> {
        let too_much = || CodecError::Damaged("a record is longer than a pack can hold".to_owned());
        if plaintext.len() > MAX_RECORD_BYTES - 1 - TAG_BYTES || self.records.len() >= MAX_PACK_RECORDS {
            return Err(too_much());
        }
        if self.buffer.is_empty() {
            self.buffer = self.spare.take(FRONT_BYTES + self.full_at + MAX_RECORD_BYTES);
            self.buffer.resize(FRONT_BYTES, 0);
        }
        let offset = u32::try_from(self.body_bytes()).map_err(|_| too_much())?;
        self.compressor.compress_to_buffer(plaintext, &mut self.scratch).map_err(CodecError::Write)?;
        let (codec, bytes) =
            if self.scratch.len() < plaintext.len() { (ZSTD, self.scratch.as_slice()) } else { (STORED, plaintext) };
        self.buffer.push(codec);
        self.buffer.extend_from_slice(bytes);
        self.buffer.extend_from_slice(&[0; TAG_BYTES]);
        let record =
            Record { kind, offset, sealed_bytes: (1 + bytes.len() + TAG_BYTES) as u32, plaintext_bytes: plaintext.len() as u32 };
        self.records.push(record);
        Ok(record)
    }

    /// What was added since the pack was empty, for [`PackedRecords::seal`]; afterwards it is empty again.
    pub fn take(&mut self) -> PackedRecords {
        PackedRecords {
            buffer: std::mem::take(&mut self.buffer),
            records: std::mem::take(&mut self.records),
            spare: self.spare.clone(),
        }
    }
}

/// The records of a pack, not yet sealed.
pub struct PackedRecords {
    buffer: Vec<u8>,
    records: Vec<Record>,
    spare: SpareBuffers,
}

impl PackedRecords {
    /// Bytes of all records.
    pub fn body_bytes(&self) -> usize {
        self.buffer.len() - FRONT_BYTES
    }

    /// Seals everything: the bytes of the object.
    ///
    /// # Errors
    /// [`CodecError::Damaged`] by a defect only.
    pub fn seal(
        mut self,
        address: Address<'_>,
        key: Option<&DataKey>,
        salt: [u8; 32],
        sealed_unix_us: i64,
    ) -> Result<Bytes, CodecError> {
        let defect = |what: &str| CodecError::Damaged(what.to_owned());
        let contents = encode_contents(&self.records);
        let mut metadata = Metadata {
            plaintext_bytes: self.records.iter().map(|record| u64::from(record.plaintext_bytes)).sum(),
            plaintext_blake3: *blake3::hash(&contents).as_bytes(),
            sealed_unix_us,
            contents: Some(contents),
            ..Metadata::by_this_program()
        }
        .encode();
        if metadata.len() > MAX_METADATA_BYTES {
            return Err(defect("metadata is longer than the format allows"));
        }
        let header = Header {
            codec: Codec::Records,
            cipher: if key.is_some() { Cipher::ChaCha20Poly1305 } else { Cipher::None },
            key_id: key.map_or(KeyId([0; 16]), DataKey::id),
            salt,
            metadata_bytes: metadata.len() as u32,
        };
        let cipher = FrameCipher::new(key, &salt, header.binding(address.repository_id, address.kind, address.name));
        let forged = |e: crate::crypto::Forged| CodecError::Damaged(e.to_string());
        let tag = cipher.seal(Domain::Metadata, 0, true, &mut metadata).map_err(forged)?;
        let mut rest = self.buffer.get_mut(FRONT_BYTES..).ok_or_else(|| defect("a pack without room for its header"))?;
        for record in &self.records {
            let (sealed, after) =
                rest.split_at_mut_checked(record.sealed_bytes as usize).ok_or_else(|| defect("a record that is not there"))?;
            let (bytes, tag) = sealed.split_last_chunk_mut::<TAG_BYTES>().ok_or_else(|| defect("a record without a tag"))?;
            *tag = cipher.seal(record.kind.domain(), record.offset.into(), true, bytes).map_err(forged)?;
            rest = after;
        }
        let front = [header.encode().as_slice(), &metadata, &tag].concat();
        let start = FRONT_BYTES.checked_sub(front.len()).ok_or_else(|| defect("contents that are too long"))?;
        if let Some(place) = self.buffer.get_mut(start..FRONT_BYTES) {
            place.copy_from_slice(&front);
        }
        Ok(self.spare.object(self.buffer, start))
    }
}

fn encode_contents(records: &[Record]) -> Vec<u8> {
    let mut out = Vec::with_capacity(records.len() * 6);
    for record in records {
        put_varint(&mut out, u64::from(record.plaintext_bytes) << 1 | u64::from(record.kind == RecordKind::Table));
        put_varint(&mut out, record.sealed_bytes.into());
    }
    out
}

/// The list of contents of a pack, from its metadata.
///
/// # Errors
/// [`CodecError::Damaged`] when it is no such list.
pub fn contents(metadata: &Metadata) -> Result<Vec<Record>, CodecError> {
    let damaged = || CodecError::Damaged("its list of contents breaks the rules of its format".to_owned());
    let mut rest = metadata.contents.as_deref().ok_or_else(damaged)?;
    if *blake3::hash(rest).as_bytes() != metadata.plaintext_blake3 {
        return Err(damaged());
    }
    let mut records: Vec<Record> = Vec::new();
    let mut offset = 0_u32;
    while !rest.is_empty() {
        let plaintext = take_varint(&mut rest).ok_or_else(damaged)?;
        let kind = if plaintext & 1 == 1 { RecordKind::Table } else { RecordKind::Extent };
        let sealed =
            take_varint(&mut rest).filter(|sealed| (1..=MAX_RECORD_BYTES as u64).contains(sealed)).ok_or_else(damaged)?;
        let plaintext_bytes = u32::try_from(plaintext >> 1).map_err(|_| damaged())?;
        let record = Record { kind, offset, sealed_bytes: sealed as u32, plaintext_bytes };
        offset = offset.checked_add(record.sealed_bytes).ok_or_else(damaged)?;
        records.push(record);
        if records.len() > MAX_PACK_RECORDS {
            return Err(damaged());
        }
    }
    Ok(records)
}

/// Decompresses with a context that each thread keeps: making one takes as long as a record does.
fn decompress(bytes: &[u8], room: &mut [u8]) -> io::Result<usize> {
    thread_local! {
        static CONTEXT: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
    }
    CONTEXT.with_borrow_mut(|context| match context {
        Some(context) => context.decompress_to_buffer(bytes, room),
        None => context.insert(zstd::bulk::Decompressor::new()?).decompress_to_buffer(bytes, room),
    })
}

/// Opens the records of one pack. Cheap to make and to keep.
pub struct PackKey {
    cipher: FrameCipher,
    body_at: u64,
}

impl PackKey {
    /// From the header of the pack, its first 68 bytes. A header that was changed opens no record.
    ///
    /// # Errors
    /// [`CodecError::Damaged`], [`CodecError::UnknownKey`].
    pub fn new(header: &[u8], address: Address<'_>, keys: &DataKeys) -> Result<Self, CodecError> {
        let header = Header::parse(header)?;
        if header.codec != Codec::Records {
            return Err(FormatError::Invalid("it is not a pack").into());
        }
        Ok(Self::of(cipher_for(&header, address, keys)?, &header))
    }

    /// From what opens the pack.
    fn of(cipher: FrameCipher, header: &Header) -> Self {
        Self { cipher, body_at: (HEADER_BYTES + header.metadata_bytes as usize + TAG_BYTES) as u64 }
    }

    /// Where in the object the records begin.
    pub fn body_at(&self) -> u64 {
        self.body_at
    }

    /// Authenticates a record, in place, and adds its content to `out`; it is known to be `plaintext_bytes` long, or,
    /// with `None`, to have at most the length of an extent.
    ///
    /// # Errors
    /// [`CodecError::Damaged`]; `out` is as it was then.
    pub fn open(
        &self,
        kind: RecordKind,
        offset: u32,
        sealed: &mut [u8],
        plaintext_bytes: Option<usize>,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        let before = out.len();
        out.resize(before + plaintext_bytes.unwrap_or(MAX_RECORD_BYTES), 0);
        let room = out.get_mut(before..).unwrap_or_default();
        let opened = match plaintext_bytes {
            Some(_) => self.open_into(kind, offset, sealed, room).map(|()| room.len()),
            None => self.open_within(kind, offset, sealed, room),
        };
        out.truncate(before + opened.as_ref().map_or(0, |opened| *opened));
        opened.map(|_| ())
    }

    /// Authenticates a record, in place, and puts its content into `room`, which has its length.
    ///
    /// # Errors
    /// [`CodecError::Damaged`], also where the content has another length; what is in `room` then is nobody's content.
    pub fn open_into(&self, kind: RecordKind, offset: u32, sealed: &mut [u8], room: &mut [u8]) -> Result<(), CodecError> {
        if self.open_within(kind, offset, sealed, room)? == room.len() {
            return Ok(());
        }
        Err(damaged_record(offset, "has not the length that it must have"))
    }

    /// As [`open_into`](Self::open_into), for a content that may be shorter; says how long it is.
    fn open_within(&self, kind: RecordKind, offset: u32, sealed: &mut [u8], room: &mut [u8]) -> Result<usize, CodecError> {
        let damaged = |why| damaged_record(offset, why);
        let (bytes, tag) = sealed.split_last_chunk_mut::<TAG_BYTES>().ok_or_else(|| damaged("is too short"))?;
        self.cipher.open(kind.domain(), offset.into(), true, bytes, tag).map_err(|_| damaged("fails authentication"))?;
        let (codec, bytes) = bytes.split_first().ok_or_else(|| damaged("is empty"))?;
        match *codec {
            STORED => {
                let place = room.get_mut(..bytes.len()).ok_or_else(|| damaged("is longer than it can be"))?;
                place.copy_from_slice(bytes);
                Ok(bytes.len())
            }
            ZSTD => decompress(bytes, room).map_err(|_| damaged("cannot be decompressed")),
            other => Err(FormatError::Newer { field: "codec of a record", value: other.into() }.into()),
        }
    }
}

fn damaged_record(offset: u32, why: &str) -> CodecError {
    CodecError::Damaged(format!("the record at {offset} {why}"))
}

impl<R> Opened<R> {
    /// Of a pack: the list of its records, what opens them, and the source, which stands where they begin.
    ///
    /// # Errors
    /// [`CodecError::Damaged`] when it is no pack, or its list of contents is none.
    pub fn into_pack(self) -> Result<(Vec<Record>, PackKey, R), CodecError> {
        if self.header.codec != Codec::Records {
            return Err(FormatError::Invalid("it is not a pack").into());
        }
        let records = contents(&self.metadata)?;
        Ok((records, PackKey::of(self.cipher, &self.header), self.source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::envelope::ObjectKind;
    use crate::limits::EXTENT_BYTES;

    const ID: [u8; 16] = [6; 16];

    fn address(name: &str) -> Address<'_> {
        Address { repository_id: &ID, kind: ObjectKind::Pack, name }
    }

    fn sets_of_keys() -> [DataKeys; 2] {
        [DataKeys::Encrypted { current: DataKey::from_bytes([1; 32]).into(), earlier: vec![] }, DataKeys::Unencrypted]
    }

    fn plaintexts() -> Vec<(RecordKind, Vec<u8>)> {
        let mut noise = vec![0; EXTENT_BYTES];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        vec![
            (RecordKind::Extent, noise),
            (RecordKind::Extent, vec![7; EXTENT_BYTES]),
            (RecordKind::Table, b"a table".to_vec()),
            (RecordKind::Extent, vec![1]),
        ]
    }

    fn sealed(keys: &DataKeys) -> (Bytes, Vec<Record>) {
        let mut pack = PackBuilder::new(3, 1 << 20, SpareBuffers::keeping(1)).unwrap();
        let records = plaintexts().iter().map(|(kind, bytes)| pack.append(*kind, bytes).unwrap()).collect();
        let object = pack.take().seal(address("p"), keys.current(), [9; 32], 5).unwrap();
        assert!(pack.is_empty());
        (object, records)
    }

    fn open(object: &[u8], name: &str, keys: &DataKeys, record: &Record, kind: RecordKind) -> Result<Vec<u8>, CodecError> {
        let key = PackKey::new(&object[..HEADER_BYTES], address(name), keys)?;
        let start = key.body_at() as usize + record.offset as usize;
        let mut bytes = object[start..start + record.sealed_bytes as usize].to_vec();
        let mut out = b"before".to_vec();
        key.open(kind, record.offset, &mut bytes, Some(record.plaintext_bytes as usize), &mut out)?;
        Ok(out.split_off(6))
    }

    #[test]
    fn records_open_by_themselves_and_nowhere_else() {
        for keys in sets_of_keys() {
            let (object, records) = sealed(&keys);
            let listed = super::super::open(&*object, address("p"), &keys).unwrap();
            assert_eq!(contents(listed.metadata()).unwrap(), records);
            assert!(matches!(listed.copy_to(&mut io::sink()), Err(CodecError::Damaged(_))), "records are not frames");
            for (record, (kind, plain)) in records.iter().zip(plaintexts()) {
                assert_eq!(open(&object, "p", &keys, record, kind).unwrap(), plain);
                assert!(open(&object, "q", &keys, record, kind).is_err());
                let other = if kind == RecordKind::Table { RecordKind::Extent } else { RecordKind::Table };
                assert!(open(&object, "p", &keys, record, other).is_err());
                let longer = Record { plaintext_bytes: record.plaintext_bytes + 1, ..*record };
                assert!(open(&object, "p", &keys, &longer, kind).is_err());
                if record.plaintext_bytes > 1 {
                    let shorter = Record { plaintext_bytes: record.plaintext_bytes - 1, ..*record };
                    assert!(open(&object, "p", &keys, &shorter, kind).is_err());
                }
            }
        }
    }

    #[test]
    fn every_changed_bit_of_header_and_record_is_seen() {
        for keys in sets_of_keys() {
            let (object, records) = sealed(&keys);
            let record = records[2];
            let body = PackKey::new(&object[..HEADER_BYTES], address("p"), &keys).unwrap().body_at() as usize;
            let start = body + record.offset as usize;
            for byte in (0..HEADER_BYTES).chain(start..start + record.sealed_bytes as usize) {
                for bit in 0..8 {
                    let mut bad = object.to_vec();
                    bad[byte] ^= 1 << bit;
                    // A wrong length of the metadata leads to other bytes, or beyond the end.
                    if (64..68).contains(&byte) {
                        bad.resize(bad.len() + (1 << 21), 0);
                    }
                    assert!(open(&bad, "p", &keys, &record, RecordKind::Table).is_err(), "byte {byte} bit {bit}");
                }
            }
        }
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let mut pack = PackBuilder::new(1, 1000, SpareBuffers::keeping(1)).unwrap();
        assert!(pack.append(RecordKind::Extent, &vec![0; EXTENT_BYTES + 1]).is_err());
        assert!(pack.is_empty() && !pack.is_full());
        let mut noise = vec![0; 1000];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        pack.append(RecordKind::Extent, &noise).unwrap();
        assert!(pack.is_full());
    }
}
