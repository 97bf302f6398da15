//! A manifest as a writer without scruples writes it: every number can lie.

use serde_json::Value;

/// Everything of a manifest's plaintext, and its summary.
#[derive(Debug, Clone)]
pub(super) struct Raw {
    pub version: u8,
    pub summary: Value,
    pub facts: Value,
    pub names: Vec<Vec<u8>>,
    pub packs: Vec<RawPack>,
    pub items: Vec<RawItem>,
    /// What is said instead of the true number.
    pub facts_bytes: Option<u64>,
    pub name_count: Option<u64>,
    pub pack_count: Option<u64>,
    pub item_count: Option<u64>,
    /// What follows the last item.
    pub tail: Vec<u8>,
    /// How many bytes are left out at the end.
    pub cut: usize,
}

#[derive(Debug, Clone)]
pub(super) struct RawPack {
    pub started_unix_s: i64,
    pub random: u32,
    pub number: u64,
    pub live: u64,
    pub total: u64,
}

#[derive(Debug, Clone)]
pub(super) struct RawItem {
    pub kind: u8,
    pub path: Vec<u8>,
    /// Length of the common beginning, where it lies.
    pub shared: Option<u64>,
    pub mode: u64,
    pub owner: u64,
    pub group: u64,
    pub size: u64,
    pub modified: i64,
    pub crc: u32,
    pub places: Vec<RawPlace>,
}

/// An extent, a table, or zeros.
#[derive(Debug, Clone)]
pub(super) struct RawPlace {
    /// Number of the pack; `None`: zeros.
    pub pack: Option<u64>,
    pub offset: i64,
    pub sealed: u64,
    pub hash: [u8; 16],
    pub crc: u32,
}

pub(super) const DIRECTORY: u8 = 1;
pub(super) const EXTENTS: u8 = 2;
pub(super) const TABLES: u8 = 3;

pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

impl Raw {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.version];
        let facts = serde_json::to_vec(&self.facts).unwrap();
        put(&mut out, self.facts_bytes.unwrap_or(facts.len() as u64));
        out.extend_from_slice(&facts);
        put(&mut out, self.name_count.unwrap_or(self.names.len() as u64));
        for name in &self.names {
            put(&mut out, name.len() as u64);
            out.extend_from_slice(name);
        }
        put(&mut out, self.pack_count.unwrap_or(self.packs.len() as u64));
        for pack in &self.packs {
            out.extend_from_slice(&pack.started_unix_s.to_le_bytes());
            out.extend_from_slice(&pack.random.to_le_bytes());
            for number in [pack.number, pack.live, pack.total] {
                put(&mut out, number);
            }
        }
        put(&mut out, self.item_count.unwrap_or(self.items.len() as u64));
        let mut before: &[u8] = &[];
        for item in &self.items {
            item.encode(before, &mut out);
            before = &item.path;
        }
        out.extend_from_slice(&self.tail);
        out.truncate(out.len() - self.cut.min(out.len()));
        out
    }
}

impl RawItem {
    fn encode(&self, before: &[u8], out: &mut Vec<u8>) {
        out.push(self.kind);
        let common = self.path.iter().zip(before).take_while(|(a, b)| a == b).count() as u64;
        let shared = self.shared.unwrap_or(common);
        let rest = self.path.get(usize::try_from(shared).unwrap_or(usize::MAX)..).unwrap_or_default();
        put(out, shared);
        put(out, rest.len() as u64);
        out.extend_from_slice(rest);
        for number in [self.mode, self.owner, self.group] {
            put(out, number);
        }
        if self.kind == DIRECTORY {
            return;
        }
        put(out, self.size);
        put(out, zigzag(self.modified));
        out.extend_from_slice(&self.crc.to_le_bytes());
        let mut last: Option<(u64, i64)> = None;
        for place in &self.places {
            let Some(pack) = place.pack else {
                out.push(0);
                continue;
            };
            if self.kind == TABLES {
                for number in [pack, place.offset.cast_unsigned(), place.sealed] {
                    put(out, number);
                }
            } else {
                put(out, pack.wrapping_add(1));
                let expected = last.filter(|(before, _)| *before == pack).map_or(0, |(_, end)| end);
                put(out, zigzag(place.offset.wrapping_sub(expected)));
                put(out, place.sealed);
                out.extend_from_slice(&place.hash);
            }
            out.extend_from_slice(&place.crc.to_le_bytes());
            last = Some((pack, place.offset.wrapping_add(place.sealed.cast_signed())));
        }
    }
}
