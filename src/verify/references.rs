//! What manifests and tables refer to, record by record, for holding packs against it.
//!
//! Lives here: reading them, and remembering what they say of some packs. Memory:
//! [`MAX_REFERENCES_KEPT`](crate::limits::MAX_REFERENCES_KEPT) references, and the places of the tables of one round.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

use super::fault::is_damage;
use super::known::Known;
use super::meter::Meter;
use crate::error::Error;
use crate::format::extent::{BackupId, Extent, ExtentHash, PackId, RecordLocation, extent_bytes};
use crate::format::manifest::{BackupFacts, Content, Item, TableRef};
use crate::limits::{CATALOG_READERS, EXTENT_BYTES, EXTENTS_PER_TABLE, VERIFY_READ_BYTES};
use crate::repo::backups::{ExtentReader, ManifestPart, PackReader};
use crate::threads::{Stop, at_once};

/// What a backup says of an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ExtentContent {
    /// Its length.
    pub(super) bytes: u32,
    /// CRC-32C.
    pub(super) crc32c: u32,
    /// Keyed hash.
    pub(super) hash: ExtentHash,
    /// Which of the keys.
    pub(super) key: u16,
}

/// A reference to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reference {
    /// Where it begins.
    pub(super) offset: u32,
    /// Its stored length.
    pub(super) sealed_bytes: u32,
    /// Of an extent, what it must hold; of a table nothing: its extents say what it holds.
    pub(super) content: Option<ExtentContent>,
}

/// What is referred to in the packs of one round.
#[derive(Debug, Default)]
pub(super) struct References {
    by_pack: BTreeMap<PackId, Vec<Reference>>,
    count: usize,
    /// The first pack of a later round.
    until: Option<PackId>,
    /// Keys of hashes; all backups of a chain have the same.
    pub(super) keys: Vec<[u8; 32]>,
    /// Tables that are authentic, and not what the backup refers to; or that cannot be read.
    pub(super) bad_tables: BTreeMap<BackupId, String>,
}

/// Something that a backup refers to.
pub(super) enum Referred<'r> {
    /// A record.
    Record(PackId, Reference),
    /// A table that cannot be used.
    BadTable(&'r RecordLocation, Error),
}

/// A table of a file, with what is needed to read it.
struct WantedTable {
    path: usize,
    size_bytes: u64,
    first: u64,
    reference: TableRef,
}

impl References {
    /// Of all backups that can be read, to the packs from `from` on that are `wanted`, as many as there is room for.
    ///
    /// # Errors
    /// As the store's, and `go_on`'s.
    pub(super) fn of(
        known: &Known<'_>,
        from: Option<PackId>,
        wanted: &dyn Fn(PackId) -> bool,
        most: usize,
        asked: Asked<'_>,
    ) -> Result<Self, Error> {
        let mut all = Self::default();
        // Most tables are those of earlier backups, too.
        let mut seen = HashSet::new();
        for summary in &known.heads.backups {
            let id = summary.id;
            let mut keys = std::mem::take(&mut all.keys);
            let mut take = |_: &[u8], referred: Referred<'_>, key: u16| {
                match referred {
                    Referred::Record(pack, reference) => {
                        let is_now = from.is_none_or(|from| from <= pack) && all.until.is_none_or(|until| pack < until);
                        if is_now && wanted(pack) {
                            let content = reference.content.map(|content| ExtentContent { key, ..content });
                            all.add(pack, Reference { content, ..reference }, most);
                        }
                    }
                    Referred::BadTable(place, error) => {
                        all.bad_tables
                            .entry(id)
                            .or_insert_with(|| format!("table at {} of {}: {}", place.offset, place.pack, error.what));
                    }
                }
                Ok(())
            };
            let read = walk(known, id, &mut keys, Some(&mut seen), asked, &mut take);
            all.keys = keys;
            match read {
                // Told of where manifests are read.
                Err(error) if !is_damage(&error) => return Err(error),
                _ => {}
            }
        }
        all.by_pack.values_mut().for_each(tidy);
        Ok(all)
    }

    fn add(&mut self, pack: PackId, reference: Reference, most: usize) {
        self.by_pack.entry(pack).or_default().push(reference);
        self.count += 1;
        if self.count <= most {
            return;
        }
        // Several backups say the same of most of them.
        self.by_pack.values_mut().for_each(tidy);
        self.count = self.by_pack.values().map(Vec::len).sum();
        while self.count > most / 2
            && self.by_pack.len() > 1
            && let Some((pack, dropped)) = self.by_pack.pop_last()
        {
            self.count -= dropped.len();
            self.until = Some(pack);
        }
    }

    /// The first pack that is left for another round.
    pub(super) fn next_round(&self) -> Option<PackId> {
        self.until
    }

    /// Takes what is referred to in a pack.
    pub(super) fn take(&mut self, pack: PackId) -> Vec<Reference> {
        self.by_pack.remove(&pack).unwrap_or_default()
    }
}

fn tidy(references: &mut Vec<Reference>) {
    references.sort_unstable();
    references.dedup();
}

/// What counts the bytes that are read, and whether to go on.
pub(super) type Asked<'a> = (&'a Meter, &'a dyn Fn() -> Result<(), Error>);

/// Takes the path of a file, what it refers to, and the number of the key of its hashes.
type Take<'t> = &'t mut dyn FnMut(&[u8], Referred<'_>, u16) -> Result<(), Error>;

/// Reads a manifest and its tables, and hands on every reference. Tables that were `seen` are passed over. A manifest
/// that cannot be read is handed on as far as it can be, and answered with why.
///
/// # Errors
/// As the store's, and `go_on`'s; damaged when the manifest is.
pub(super) fn walk(
    known: &Known<'_>,
    id: BackupId,
    keys: &mut Vec<[u8; 32]>,
    mut seen: Option<&mut HashSet<RecordLocation>>,
    (meter, go_on): Asked<'_>,
    take: Take<'_>,
) -> Result<(), Error> {
    go_on()?;
    let (stop, mut asked_at) = (Stop::default(), meter.bytes());
    let (repository, cluster, system_id) = (known.repository, known.cluster, known.facts.system_id);
    let (mut tables, mut paths): (Vec<WantedTable>, Vec<Vec<u8>>) = (Vec::new(), Vec::new());
    let mut key: Option<u16> = None;
    let read =
        repository.read_manifest_parts(cluster, system_id, id, &|bytes| meter.take_again(bytes, &stop), &mut |head, part| {
            if meter.bytes() - asked_at >= VERIFY_READ_BYTES as u64 {
                asked_at = meter.bytes();
                go_on()?;
            }
            let key = match key {
                Some(key) => key,
                None => {
                    let hash_key = hash_key(&head.facts);
                    for attachment in &head.facts.attachments {
                        let number = number_of(keys, hash_key);
                        extents(attachment.path.as_bytes(), attachment.size_bytes, &attachment.extents, number, take)?;
                    }
                    *key.insert(number_of(keys, hash_key))
                }
            };
            let file = match part {
                ManifestPart::Item(Item::File(file)) => file,
                ManifestPart::Item(Item::Directory(_)) => return Ok(ControlFlow::Continue(())),
                ManifestPart::List(place, _) => {
                    let record = Reference { offset: place.offset, sealed_bytes: place.sealed_bytes, content: None };
                    take(b"", Referred::Record(place.pack, record), key)?;
                    return Ok(ControlFlow::Continue(()));
                }
            };
            match &file.content {
                Content::Extents(listed) => extents(&file.path, file.size_bytes, listed, key, take)?,
                Content::Tables(listed) => {
                    for (first, reference) in (0..).step_by(EXTENTS_PER_TABLE).zip(listed) {
                        let place = reference.place;
                        let record = Reference { offset: place.offset, sealed_bytes: place.sealed_bytes, content: None };
                        take(&file.path, Referred::Record(place.pack, record), key)?;
                        if seen.as_mut().is_none_or(|seen| seen.insert(place)) {
                            if tables.last().is_none_or(|last| paths.get(last.path) != Some(&file.path)) {
                                paths.push(file.path.clone());
                            }
                            tables.push(WantedTable {
                                path: paths.len().saturating_sub(1),
                                size_bytes: file.size_bytes,
                                first,
                                reference: *reference,
                            });
                        }
                    }
                }
            }
            Ok(ControlFlow::Continue(()))
        });
    let Some((_, head)) = read? else { return Ok(()) };
    let hash_key = hash_key(&head.facts);
    let key = number_of(keys, hash_key);
    let reader = ExtentReader::new(PackReader::new(repository, cluster, system_id), hash_key, CATALOG_READERS);
    for some in tables.chunks(CATALOG_READERS) {
        go_on()?;
        let read_before = reader.read_bytes();
        let read = at_once(some, CATALOG_READERS, |wanted| reader.table(&wanted.reference, wanted.size_bytes, wanted.first));
        meter.take_again(usize::try_from(reader.read_bytes() - read_before).unwrap_or(usize::MAX), &stop);
        for (wanted, read) in some.iter().zip(read) {
            let path = paths.get(wanted.path).map_or(&b""[..], Vec::as_slice);
            match read {
                Ok(listed) => {
                    let piece = wanted.size_bytes.saturating_sub(wanted.first.saturating_mul(EXTENT_BYTES as u64));
                    extents(path, piece, &listed, key, take)?;
                }
                Err(error) if is_damage(&error) => {
                    take(path, Referred::BadTable(&wanted.reference.place, error), key)?;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// The key of the hashes of a backup. A manifest without a proper one is read as damaged.
fn hash_key(facts: &BackupFacts) -> [u8; 32] {
    hex::decode(&facts.hash_key).ok().and_then(|key| key.try_into().ok()).unwrap_or_default()
}

/// The number of a key.
fn number_of(keys: &mut Vec<[u8; 32]>, key: [u8; 32]) -> u16 {
    let at = keys.iter().position(|known| *known == key).unwrap_or_else(|| {
        keys.push(key);
        keys.len() - 1
    });
    u16::try_from(at).unwrap_or(u16::MAX)
}

/// Hands on the extents of a piece of `size_bytes`.
fn extents(path: &[u8], size_bytes: u64, listed: &[Extent], key: u16, take: Take<'_>) -> Result<(), Error> {
    for (index, extent) in (0..).zip(listed) {
        let Some(stored) = extent.stored else { continue };
        let bytes = u32::try_from(extent_bytes(size_bytes, index)).unwrap_or(u32::MAX);
        let content = ExtentContent { bytes, crc32c: extent.crc32c, hash: stored.hash, key };
        let reference =
            Reference { offset: stored.place.offset, sealed_bytes: stored.place.sealed_bytes, content: Some(content) };
        take(path, Referred::Record(stored.place.pack, reference), key)?;
    }
    Ok(())
}
