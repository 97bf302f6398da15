//! Extents of files: how they are named, and the table that says where those of one piece of a file are.
//!
//! Numbers are written as in `pg::scan`'s summaries: LEB128 of the shortest form; signed ones zigzagged. Every byte
//! string that decodes is the only one of its value. `docs/FORMAT.md` has the layout, `docs/BACKUP.md` the reasons.

use std::fmt;

use crate::limits::{EXTENT_BYTES, EXTENTS_PER_TABLE, MAX_RECORD_BYTES};
use crate::varint::{put_varint, take_varint, unzigzag, zigzag};

/// The version of a table that is written, and the only one read.
const VERSION: u8 = 1;

/// Names a base backup: when it began, and random bits. Sorts by time, also within a second
/// ([`begun_at`](Self::begun_at)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId {
    /// When it began, seconds since 1970 UTC; at most the last second of the year 9999.
    pub started_unix_s: i64,
    /// Tells two backups of one second apart: which 4096th of it in the upper 12 bits, random ones below.
    pub random: u32,
}

/// The first second of the year 10000: ids before it have as many digits as all others.
const FIVE_DIGIT_YEARS: i64 = 253_402_300_800;

impl BackupId {
    /// The id of a backup that begins at this second; `None` outside the years 1970 to 9999.
    pub fn new(started_unix_s: i64, random: u32) -> Option<Self> {
        (0..FIVE_DIGIT_YEARS).contains(&started_unix_s).then_some(Self { started_unix_s, random })
    }

    /// The id of a backup that begins at this moment, in microseconds since 1970 UTC; of `random` the lower bits are
    /// used.
    pub fn begun_at(unix_us: i64, random: u32) -> Option<Self> {
        const SECOND_US: i64 = 1_000_000;
        let part = u32::try_from(unix_us.rem_euclid(SECOND_US) * 4096 / SECOND_US).ok()?;
        Self::new(unix_us.div_euclid(SECOND_US), part << 20 | random & 0xF_FFFF)
    }

    /// Reads what [`Display`](fmt::Display) writes, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let (time, random) = text.split_once('-')?;
        let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", time).ok()?;
        let started = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second();
        let id = Self::new(started, u32::from_str_radix(random, 16).ok()?)?;
        (id.to_string() == text).then_some(id)
    }

    fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.started_unix_s.to_le_bytes());
        out.extend_from_slice(&self.random.to_le_bytes());
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let started_unix_s = i64::from_le_bytes(*take_array(bytes)?);
        Self::new(started_unix_s, u32::from_le_bytes(*take_array(bytes)?))
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = jiff::Timestamp::from_second(self.started_unix_s).unwrap_or_default();
        write!(f, "{}-{:08x}", time.strftime("%Y%m%dT%H%M%SZ"), self.random)
    }
}

impl serde::Serialize for BackupId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for BackupId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not the id of a backup")))
    }
}

/// Names a pack: the backup that wrote it, and a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId {
    /// The backup that wrote it.
    pub backup: BackupId,
    /// From 0 on.
    pub number: u32,
}

impl PackId {
    /// Reads what [`Display`](fmt::Display) writes, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let (backup, number) = text.split_once('/')?;
        let pack = Self { backup: BackupId::parse(backup)?, number: u32::from_str_radix(number, 16).ok()? };
        (pack.to_string() == text).then_some(pack)
    }

    pub(in crate::format) fn put(self, out: &mut Vec<u8>) {
        self.backup.put(out);
        put_varint(out, self.number.into());
    }

    pub(in crate::format) fn take(bytes: &mut &[u8]) -> Option<Self> {
        let backup = BackupId::take(bytes)?;
        Some(Self { backup, number: take_u32(bytes)? })
    }
}

impl serde::Serialize for PackId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for PackId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not the name of a pack")))
    }
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:08x}", self.backup, self.number)
    }
}

/// Where a sealed record, an extent or a table, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct RecordLocation {
    /// The pack.
    pub pack: PackId,
    /// Bytes between the end of the pack's metadata and the record.
    pub offset: u32,
    /// Length of the record as it is stored, its tag included.
    pub sealed_bytes: u32,
}

impl RecordLocation {
    /// The first byte after it.
    pub fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.sealed_bytes)
    }
}

/// One extent of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extent {
    /// CRC-32C of its content.
    pub crc32c: u32,
    /// What and where it is; `None`: zeros, stored nowhere.
    pub stored: Option<StoredExtent>,
}

/// An extent that is not all zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StoredExtent {
    /// Keyed BLAKE3 of its content, the first 128 bits.
    #[serde(with = "hash_text")]
    pub hash: ExtentHash,
    /// Where it is.
    #[serde(flatten)]
    pub place: RecordLocation,
}

/// Keyed BLAKE3 of an extent's content, the first 128 bits.
pub type ExtentHash = [u8; 16];

impl Extent {
    /// An extent of `bytes` zeros.
    pub fn zeros(bytes: usize) -> Self {
        Self { crc32c: crc32c_of_zeros(bytes), stored: None }
    }
}

/// CRC-32C of that many zeros, at most an extent of them.
fn crc32c_of_zeros(bytes: usize) -> u32 {
    static ZEROS: [u8; EXTENT_BYTES] = [0; EXTENT_BYTES];
    crc32c::crc32c(ZEROS.get(..bytes).unwrap_or(&ZEROS))
}

/// What becomes of a CRC-32C when an extent of zeros follows: all that combining takes for the length that nearly all
/// extents have. It is linear, so 32 values say everything; working them out each time would cost more than the
/// checksum of the extent itself.
fn after_an_extent(crc: u32) -> u32 {
    static OF_BITS: std::sync::OnceLock<[u32; 32]> = std::sync::OnceLock::new();
    let of_bits = OF_BITS.get_or_init(|| std::array::from_fn(|bit| crc32c::crc32c_combine(1 << bit, 0, EXTENT_BYTES)));
    of_bits.iter().enumerate().fold(0, |sum, (bit, value)| if crc >> bit & 1 == 1 { sum ^ value } else { sum })
}

/// How many extents a file of this size has.
pub fn extents_in(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(EXTENT_BYTES as u64)
}

/// How many tables the extents of a file of this size fill.
pub fn tables_in(size_bytes: u64) -> u64 {
    extents_in(size_bytes).div_ceil(EXTENTS_PER_TABLE as u64)
}

/// How long an extent is in a file or piece of `size_bytes`.
pub fn extent_bytes(size_bytes: u64, index: u64) -> usize {
    size_bytes.saturating_sub(index.saturating_mul(EXTENT_BYTES as u64)).min(EXTENT_BYTES as u64) as usize
}

/// Why bytes are not a table or manifest that this program can read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Written by a later version.
    #[error("its format version is {0}, which this version of Walvis does not know")]
    Newer(u8),
    /// A rule of the format is broken.
    #[error("{0}")]
    Invalid(&'static str),
}

/// The extents of one piece of a file: at most [`EXTENTS_PER_TABLE`], all but the last one of [`EXTENT_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtentTable {
    /// Length of the piece.
    pub bytes: u64,
    /// In order.
    pub extents: Vec<Extent>,
}

impl ExtentTable {
    /// CRC-32C of the whole piece.
    pub fn crc32c(&self) -> u32 {
        let lengths = (0..).map(|index| extent_bytes(self.bytes, index));
        self.extents.iter().zip(lengths).fold(0, |crc, (extent, len)| match len {
            EXTENT_BYTES => after_an_extent(crc) ^ extent.crc32c,
            len => crc32c::crc32c_combine(crc, extent.crc32c, len),
        })
    }

    /// The bytes that are stored in a pack. `None` when the number of extents is not that of a piece of this length.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let count = self.extents.len();
        if count == 0 || count > EXTENTS_PER_TABLE || count as u64 != extents_in(self.bytes) {
            return None;
        }
        let mut packs: Vec<PackId> = Vec::new();
        for stored in self.extents.iter().filter_map(|extent| extent.stored) {
            if packs.last() != Some(&stored.place.pack) && !packs.contains(&stored.place.pack) {
                packs.push(stored.place.pack);
            }
        }
        let mut out = Vec::with_capacity(32 + count * 28);
        out.push(VERSION);
        put_varint(&mut out, self.bytes);
        put_varint(&mut out, packs.len() as u64);
        for pack in &packs {
            pack.put(&mut out);
        }
        let index_of = |pack: PackId| packs.iter().position(|other| *other == pack).map(|index| index as u64);
        put_extents(&mut out, &self.extents, &mut |pack| index_of(pack))?;
        Some(out)
    }

    /// Reads them back.
    ///
    /// # Errors
    /// See [`TableError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, TableError> {
        let mut rest = bytes;
        match take_array::<1>(&mut rest) {
            Some([VERSION]) => {}
            Some([other]) => return Err(TableError::Newer(*other)),
            None => return Err(TableError::Invalid("the table is empty")),
        }
        let table = Self::decode_body(&mut rest).filter(|_| rest.is_empty());
        table.ok_or(TableError::Invalid("the table of extents breaks the rules of its format"))
    }

    fn decode_body(rest: &mut &[u8]) -> Option<Self> {
        let bytes = take_varint(rest)?;
        let count = usize::try_from(extents_in(bytes)).ok().filter(|count| (1..=EXTENTS_PER_TABLE).contains(count))?;
        let packs = usize::try_from(take_varint(rest)?).ok().filter(|packs| *packs <= count)?;
        let packs: Vec<PackId> = (0..packs).map(|_| PackId::take(rest)).collect::<Option<_>>()?;
        let mut used = 0;
        let extents = take_extents(rest, bytes, count as u64, &mut |index| {
            // In the order of their first use, each once.
            used += u64::from(index == used);
            if index < used { packs.get(usize::try_from(index).ok()?).copied() } else { None }
        })?;
        let distinct = packs.iter().collect::<std::collections::HashSet<_>>().len() == packs.len();
        (used == packs.len() as u64 && distinct).then_some(Self { bytes, extents })
    }
}

/// Adds extents, with packs as numbers.
pub(in crate::format) fn put_extents(
    out: &mut Vec<u8>,
    extents: &[Extent],
    index_of: &mut dyn FnMut(PackId) -> Option<u64>,
) -> Option<()> {
    let mut before: Option<RecordLocation> = None;
    for extent in extents {
        let Some(StoredExtent { hash, place }) = &extent.stored else {
            out.push(0);
            continue;
        };
        put_varint(out, 1 + index_of(place.pack)?);
        let expected = before.filter(|before| before.pack == place.pack).map_or(0, |before| before.end());
        put_varint(out, zigzag(i64::from(place.offset) - expected as i64));
        put_varint(out, place.sealed_bytes.into());
        out.extend_from_slice(hash);
        out.extend_from_slice(&extent.crc32c.to_le_bytes());
        before = Some(*place);
    }
    Some(())
}

/// Takes `count` extents of a piece or file of `size_bytes`.
pub(in crate::format) fn take_extents(
    rest: &mut &[u8],
    size_bytes: u64,
    count: u64,
    pack_of: &mut dyn FnMut(u64) -> Option<PackId>,
) -> Option<Vec<Extent>> {
    let mut extents = Vec::with_capacity(usize::try_from(count).ok()?);
    let mut before: Option<RecordLocation> = None;
    for number in 0..count {
        let Some(index) = take_varint(rest)?.checked_sub(1) else {
            extents.push(Extent::zeros(extent_bytes(size_bytes, number)));
            continue;
        };
        let pack = pack_of(index)?;
        let expected = before.filter(|before| before.pack == pack).map_or(0, |before| before.end());
        let offset = (expected as i64).checked_add(unzigzag(take_varint(rest)?))?;
        let place = take_place_rest(pack, u64::try_from(offset).ok()?, rest)?;
        let hash = *take_array(rest)?;
        let crc32c = u32::from_le_bytes(*take_array(rest)?);
        extents.push(Extent { crc32c, stored: Some(StoredExtent { hash, place }) });
        before = Some(place);
    }
    Some(extents)
}

/// The rest of a place: its length, and whether it can be one.
pub(in crate::format) fn take_place_rest(pack: PackId, offset: u64, rest: &mut &[u8]) -> Option<RecordLocation> {
    let sealed_bytes = take_u32(rest).filter(|bytes| (1..=MAX_RECORD_BYTES).contains(&(*bytes as usize)))?;
    Some(RecordLocation { pack, offset: u32::try_from(offset).ok()?, sealed_bytes })
}

pub(in crate::format) fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    u32::try_from(take_varint(bytes)?).ok()
}

pub(in crate::format) fn take_array<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (front, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(front)
}

mod hash_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::ExtentHash;

    pub(super) fn serialize<S: Serializer>(hash: &ExtentHash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(hash))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ExtentHash, D::Error> {
        let mut hash = ExtentHash::default();
        let text = String::deserialize(deserializer)?;
        hex::decode_to_slice(&text, &mut hash).map_err(serde::de::Error::custom)?;
        if hex::encode(hash) == text { Ok(hash) } else { Err(serde::de::Error::custom("not lower-case hexadecimal digits")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn extent(value: (Option<(u8, u32, u32)>, u32), id: BackupId, bytes: usize) -> Extent {
        match value.0 {
            None => Extent::zeros(bytes),
            Some((pack, offset, sealed_bytes)) => Extent {
                crc32c: value.1,
                stored: Some(StoredExtent {
                    hash: [pack; 16],
                    place: RecordLocation { pack: PackId { backup: id, number: (pack % 5).into() }, offset, sealed_bytes },
                }),
            },
        }
    }

    proptest! {
        #[test]
        fn checksums_of_extents_combine_to_that_of_the_piece(seed: u64, extents in 0..3_usize, last in 1..=EXTENT_BYTES) {
            let mut bytes = vec![0; extents * EXTENT_BYTES + last];
            fastrand::Rng::with_seed(seed).fill(&mut bytes);
            let extents = bytes.chunks(EXTENT_BYTES).map(|part| Extent { crc32c: crc32c::crc32c(part), stored: None }).collect();
            prop_assert_eq!(ExtentTable { bytes: bytes.len() as u64, extents }.crc32c(), crc32c::crc32c(&bytes));
        }

        #[test]
        fn tables_round_trip(
            values in proptest::collection::vec((proptest::option::of((any::<u8>(), any::<u32>(), 1..=MAX_RECORD_BYTES as u32)), any::<u32>()), 1..40),
            last in 1..=EXTENT_BYTES as u64,
            started in 0..FIVE_DIGIT_YEARS,
            random: u32,
        ) {
            let id = BackupId::new(started, random).unwrap();
            prop_assert_eq!(BackupId::parse(&id.to_string()), Some(id));
            let pack = PackId { backup: id, number: random };
            prop_assert_eq!(PackId::parse(&pack.to_string()), Some(pack));
            prop_assert_eq!(PackId::parse(&format!("{id}/+000000f")), None);
            let bytes = (values.len() as u64 - 1) * EXTENT_BYTES as u64 + last;
            let extents = values.iter().enumerate().map(|(i, v)| extent(*v, id, extent_bytes(bytes, i as u64))).collect();
            let table = ExtentTable { bytes, extents };
            let encoded = table.encode().unwrap();
            prop_assert_eq!(ExtentTable::decode(&encoded), Ok(table));
            for cut in 0..encoded.len() {
                prop_assert!(ExtentTable::decode(&encoded[..cut]).is_err());
            }
        }

        #[test]
        fn what_decodes_is_canonical(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            if let Ok(table) = ExtentTable::decode(&bytes) {
                prop_assert_eq!(table.encode(), Some(bytes));
            }
        }
    }

    #[test]
    fn a_flipped_table_decodes_to_something_else_or_not_at_all() {
        let id = BackupId::new(1_790_000_000, 7).unwrap();
        let values = [(Some((1, 0, 900)), 1), (None, 0), (Some((1, 900, 30)), 2), (Some((2, 5, 65_553)), 3)];
        let bytes = 3 * EXTENT_BYTES as u64 + 8192;
        let extents = values.iter().enumerate().map(|(i, v)| extent(*v, id, extent_bytes(bytes, i as u64))).collect();
        let table = ExtentTable { bytes, extents };
        let encoded = table.encode().unwrap();
        for bit in 0..encoded.len() * 8 {
            let mut bad = encoded.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = ExtentTable::decode(&bad) {
                assert_ne!(other, table);
                assert_eq!(other.encode(), Some(bad));
            }
        }
    }

    #[test]
    fn the_crc_of_a_piece_is_that_of_its_bytes() {
        let mut content = vec![0_u8; 2 * EXTENT_BYTES + 100];
        content[70_000] = 9;
        let extents: Vec<Extent> =
            content.chunks(EXTENT_BYTES).map(|bytes| Extent { crc32c: crc32c::crc32c(bytes), stored: None }).collect();
        assert_eq!(extents[0], Extent::zeros(EXTENT_BYTES));
        assert_eq!(ExtentTable { bytes: content.len() as u64, extents }.crc32c(), crc32c::crc32c(&content));
    }

    #[test]
    fn ids_are_read_strictly() {
        let id = BackupId::new(1_795_241_700, 0x1a2b_3c4d).unwrap();
        assert_eq!(id.to_string(), "20261121T061500Z-1a2b3c4d");
        for bad in
            ["", "20261121T061500Z-1A2B3C4D", "20261121T061500Z-1a2b3c4", "20261121T061500-1a2b3c4d", "20261321T061500Z-1a2b3c4d"]
        {
            assert_eq!(BackupId::parse(bad), None, "{bad}");
        }
        assert_eq!(BackupId::new(-1, 0), None);
        // Whatever the random bits are, the later one sorts later.
        let ids: Vec<BackupId> = [(0, u32::MAX), (250, 0), (999_999, u32::MAX), (1_000_000, 0)]
            .map(|(us, random)| BackupId::begun_at(1_795_241_700_000_000 + us, random).unwrap())
            .to_vec();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
        assert_eq!(ids[2].random, u32::MAX);
        assert_eq!(BackupId::begun_at(-1, 0), None);
    }
}
