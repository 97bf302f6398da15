//! Golden vectors of a manifest whose items are in lists, and of these lists: what was written must be readable for
//! ever. `WALVIS_TEST_BLESS=1` writes them anew, for a new version of the format only.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use walvis::codec::SpareBuffers;
use walvis::codec::pack::{PackBuilder, PackKey, RecordKind};
use walvis::codec::{self, Address, Digest, Sealing};
use walvis::crypto::{DataKey, DataKeys};
use walvis::format::envelope::{HEADER_BYTES, Metadata, ObjectKind};
use walvis::format::extent::{BackupId, Extent, PackId, RecordLocation, StoredExtent, TableError};
use walvis::format::manifest::{
    BackupFacts, BackupSummary, Content, DirectoryEntry, FileEntry, Item, ItemLists, ManifestHead, ManifestReader,
    ManifestWriter, TableRef,
};
use walvis::repo::SystemId;
use walvis::repo::backups::index_contradicts;

use crate::support::backup::made_up;

const REPOSITORY_ID: [u8; 16] = *b"golden vectors 1";
const DATA_KEY: [u8; 32] = *b"thirty-two bytes, not too secret";
const PACK: &str = "clusters/main/7123456789012345678/packs/20261121T081500Z-2b3c4d5e/00000000";
const MANIFEST: &str = "clusters/main/7123456789012345678/backups/20261121T081500Z-2b3c4d5e";

/// What is done to the manifest or to one of its lists, once they are opened, and what a reader says of it.
#[derive(Debug, Serialize, Deserialize)]
struct Damage {
    what: String,
    /// The list; `None` for the manifest.
    list: Option<usize>,
    /// Which byte gets which value.
    byte: Option<(usize, u8)>,
    /// How many bytes are left.
    keep: Option<usize>,
    /// The list that stands in the place of this one.
    instead: Option<usize>,
    says: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Vectors {
    pack_object: String,
    manifest_object: String,
    /// Offset, and length with tag, of each list in the pack.
    lists: Vec<(u32, u32)>,
    /// All items: their paths, and a hash of everything that is known of them.
    paths: Vec<String>,
    items_blake3: String,
    /// Of the only pack: bytes that are needed, bytes of all records.
    pack: (u64, u64),
    damaged: Vec<Damage>,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/backup")
}

fn id() -> BackupId {
    BackupId::parse("20261121T081500Z-2b3c4d5e").unwrap()
}

fn summary() -> BackupSummary {
    made_up(id(), SystemId(7_123_456_789_012_345_678))
}

fn address(kind: ObjectKind) -> Address<'static> {
    Address { repository_id: &REPOSITORY_ID, kind, name: if kind == ObjectKind::Pack { PACK } else { MANIFEST } }
}

fn keys() -> DataKeys {
    DataKeys::Encrypted { current: DataKey::from_bytes(DATA_KEY).into(), earlier: vec![] }
}

/// Everything that a reader knows of items.
fn hash_of(items: &[Item]) -> String {
    let mut text = String::new();
    for item in items {
        text.push_str(&match item {
            Item::Directory(d) => format!("d {:?} {:o} {} {}\n", d.path, d.mode, d.owner, d.group),
            Item::File(f) => {
                let content = match &f.content {
                    Content::Extents(extents) => extents
                        .iter()
                        .map(|e| {
                            format!("{} {:?};", e.crc32c, e.stored.map(|s| (s.hash, s.place.pack.to_string(), s.place.offset)))
                        })
                        .collect::<String>(),
                    Content::Tables(tables) => {
                        tables.iter().map(|t| format!("{} {} {};", t.crc32c, t.place.offset, t.place.sealed_bytes)).collect()
                    }
                };
                let FileEntry { path, size_bytes, mode, owner, group, modified_unix_us, crc32c, .. } = f;
                format!("f {path:?} {size_bytes} {mode:o} {owner} {group} {modified_unix_us} {crc32c} {content}\n")
            }
        });
    }
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

fn read(manifest: &[u8], lists: &[Vec<u8>]) -> Result<(Vec<Item>, ManifestHead), TableError> {
    let mut reader = ManifestReader::of_backup(&summary(), manifest.len() as u64);
    reader.feed(manifest);
    assert_eq!(reader.next_item()?, None);
    let mut items = Vec::new();
    for list in lists {
        items.extend(reader.list(list)?);
    }
    reader.finish().map(|head| (items, head))
}

/// The manifest and the lists that it names, opened.
fn stored() -> (Vec<u8>, Vec<RecordLocation>, Vec<Vec<u8>>) {
    let mut manifest = Vec::new();
    let object = std::fs::read(directory().join("manifest-lists")).unwrap();
    codec::open(object.as_slice(), address(ObjectKind::Manifest), &keys()).unwrap().copy_to(&mut manifest).unwrap();
    let mut reader = ManifestReader::of_backup(&summary(), manifest.len() as u64);
    reader.feed(&manifest);
    assert!(reader.begin().unwrap());
    let places = reader.head().unwrap().lists.clone();
    let pack = std::fs::read(directory().join("pack-lists")).unwrap();
    let key = PackKey::new(&pack[..HEADER_BYTES], address(ObjectKind::Pack), &keys()).unwrap();
    let open = |place: &RecordLocation| {
        let start = key.body_at() as usize + place.offset as usize;
        let mut sealed = pack[start..start + place.sealed_bytes as usize].to_vec();
        let mut content = Vec::new();
        key.open(RecordKind::Table, place.offset, &mut sealed, None, &mut content).unwrap();
        content
    };
    let lists = places.iter().map(open).collect();
    (manifest, places, lists)
}

#[test]
fn lists_of_items_are_read_or_rejected_as_their_vectors_say() {
    if std::env::var_os("WALVIS_TEST_BLESS").is_some() {
        bless();
    }
    let vectors: Vectors = serde_json::from_slice(&std::fs::read(directory().join("lists.json")).unwrap()).unwrap();
    assert_eq!((vectors.pack_object.as_str(), vectors.manifest_object.as_str()), (PACK, MANIFEST));
    let (manifest, places, lists) = stored();
    let (items, head) = read(&manifest, &lists).unwrap();
    assert_eq!(places.iter().map(|place| (place.offset, place.sealed_bytes)).collect::<Vec<_>>(), vectors.lists);
    let paths: Vec<String> = items.iter().map(|item| String::from_utf8_lossy(item.path()).into_owned()).collect();
    assert_eq!((paths, hash_of(&items)), (vectors.paths, vectors.items_blake3));
    assert_eq!((head.packs[0].live_bytes, head.packs[0].total_bytes), vectors.pack);
    // The same items make the same lists.
    let mut writer = ItemLists::default();
    let mut written: Vec<Vec<u8>> = items.iter().filter_map(|item| writer.add(item).unwrap()).collect();
    written.extend(writer.finish());
    assert_eq!(written, lists);

    assert!(vectors.damaged.len() >= 7);
    for damage in vectors.damaged {
        let (mut manifest, mut changed) = (manifest.clone(), lists.clone());
        let bytes = damage.list.map_or(&mut manifest, |list| &mut changed[list]);
        if let Some((at, value)) = damage.byte {
            bytes[at] = value;
        }
        if let Some(instead) = damage.instead {
            *bytes = lists[instead].clone();
        }
        bytes.truncate(damage.keep.unwrap_or(usize::MAX));
        let error = read(&manifest, &changed).expect_err(&damage.what).to_string();
        assert!(error.contains(&damage.says), "{}: {error}", damage.what);
    }
}

const INDEX: &str = "clusters/main/7123456789012345678/index/backups/20261121T081500Z-2b3c4d5e/20261121T061500Z-1a2b3c4d";

/// What is known of two backups.
fn indexed() -> [BackupSummary; 2] {
    let earlier = BackupId::parse("20261121T061500Z-1a2b3c4d").unwrap();
    [made_up(earlier, SystemId(7_123_456_789_012_345_678)), summary()]
}

#[test]
fn a_part_of_the_index_of_backups_is_read_or_rejected() {
    let address = Address { repository_id: &REPOSITORY_ID, kind: ObjectKind::BackupIndex, name: INDEX };
    if std::env::var_os("WALVIS_TEST_BLESS").is_some() {
        let plain = serde_json::to_vec(&indexed()).unwrap();
        let digest = Digest::of(&mut plain.as_slice()).unwrap();
        let metadata = Metadata {
            plaintext_bytes: digest.bytes,
            plaintext_blake3: digest.blake3,
            sealed_unix_us: 1_795_241_760_000_000,
            writer: "0.1.0".to_owned(),
            ..Metadata::by_this_program()
        };
        let (mut object, sealing) = (Vec::new(), Sealing { level: 1, salt: [0x5A; 32] });
        let key = DataKey::from_bytes(DATA_KEY);
        codec::seal(&mut plain.as_slice(), &mut object, address, Some(&key), &metadata, sealing).unwrap();
        std::fs::write(directory().join("index"), &object).unwrap();
    }
    let object = std::fs::read(directory().join("index")).unwrap();
    let mut plain = Vec::new();
    codec::open(object.as_slice(), address, &keys()).unwrap().copy_to(&mut plain).unwrap();
    assert_eq!(serde_json::from_slice::<Vec<BackupSummary>>(&plain).unwrap(), indexed());
    assert_eq!(index_contradicts(&plain, indexed().iter()), None);
    let other = BackupSummary { files: 7, ..summary() };
    assert!(index_contradicts(&plain, [other].iter()).unwrap().contains("20261121T081500Z-2b3c4d5e"));
    assert_eq!(index_contradicts(&plain[1..], indexed().iter()).unwrap(), "it is no part of the index of backups");
    // Under another name it is not opened.
    let name = INDEX.replace("1a2b3c4d", "1a2b3c4e");
    let elsewhere = Address { name: &name, ..address };
    assert!(codec::open(object.as_slice(), elsewhere, &keys()).is_err());
}

fn bless() {
    let pack = PackId { backup: id(), number: 0 };
    let (owner, group) = ("postgres".to_owned(), "dba".to_owned());
    let directory_entry = |path: &str| {
        Item::Directory(DirectoryEntry { path: path.into(), mode: 0o700, owner: owner.clone(), group: owner.clone() })
    };
    let place = |offset| RecordLocation { pack, offset, sealed_bytes: 100 };
    let mut items = vec![directory_entry(""), directory_entry("base"), directory_entry("base/5")];
    for number in 0..300_u32 {
        let (size_bytes, content) = match number % 3 {
            0 => (0, Content::Extents(vec![])),
            1 => {
                let stored = Some(StoredExtent { hash: [number as u8; 16], place: place(number) });
                (10, Content::Extents(vec![Extent { crc32c: number, stored }]))
            }
            _ => (1 << 20, Content::Tables(vec![TableRef { place: place(number), crc32c: number }])),
        };
        items.push(Item::File(FileEntry {
            path: format!("base/5/{}", 16_384 + number).into_bytes(),
            size_bytes,
            mode: 0o600,
            owner: owner.clone(),
            group: if number == 250 { owner.clone() } else { group.clone() },
            modified_unix_us: 1_795_241_600_123_456 - i64::from(number),
            crc32c: number,
            content,
        }));
    }
    let key = DataKey::from_bytes(DATA_KEY);
    let mut builder = PackBuilder::new(3, 1 << 20, SpareBuffers::keeping(1)).unwrap();
    let (mut lists, mut writer) = (ItemLists::default(), ManifestWriter::new(Vec::new()));
    let mut contents = Vec::new();
    for item in &items {
        contents.extend(lists.add(item).unwrap());
        writer.add(item, &[]).unwrap();
    }
    contents.extend(lists.finish());
    let mut total = 0;
    let mut places = Vec::new();
    for content in &contents {
        let record = builder.append(RecordKind::Table, content).unwrap();
        places.push(RecordLocation { pack, offset: record.offset, sealed_bytes: record.sealed_bytes });
        total = u64::from(record.offset + record.sealed_bytes);
    }
    let object = builder.take().seal(address(ObjectKind::Pack), Some(&key), [0xA5; 32], 1_795_241_700_000_000).unwrap();
    std::fs::write(directory().join("pack-lists"), &object).unwrap();
    let facts = BackupFacts {
        attachments: vec![],
        hash_key: hex::encode([0x42; 32]),
        databases: vec![],
        tablespaces: vec![],
        annotations: BTreeMap::new(),
        damage: vec![],
        warnings: vec![],
        verified_up_to: 0,
    };
    let plain = writer.end().unwrap().1.in_lists(&places, &facts, |_| Some(total)).unwrap();
    let digest = Digest::of(&mut plain.as_slice()).unwrap();
    let metadata = Metadata {
        plaintext_bytes: digest.bytes,
        plaintext_blake3: digest.blake3,
        sealed_unix_us: 1_795_241_760_000_000,
        writer: "0.1.0".to_owned(),
        backup_summary: Some(serde_json::to_vec(&summary()).unwrap()),
        ..Metadata::by_this_program()
    };
    let mut manifest = Vec::new();
    let sealing = Sealing { level: 1, salt: [0x5A; 32] };
    codec::seal(&mut plain.as_slice(), &mut manifest, address(ObjectKind::Manifest), Some(&key), &metadata, sealing).unwrap();
    std::fs::write(directory().join("manifest-lists"), &manifest).unwrap();

    let (items, head) = read(&plain, &contents).unwrap();
    let damage = |what: &str, list: Option<usize>, byte: Option<(usize, u8)>, says: &str| Damage {
        what: what.to_owned(),
        list,
        byte,
        keep: None,
        instead: None,
        says: says.to_owned(),
    };
    let last = contents.len() - 1;
    let order = "out of order";
    let vectors = Vectors {
        pack_object: PACK.to_owned(),
        manifest_object: MANIFEST.to_owned(),
        lists: places.iter().map(|place| (place.offset, place.sealed_bytes)).collect(),
        paths: items.iter().map(|item| String::from_utf8_lossy(item.path()).into_owned()).collect(),
        items_blake3: hash_of(&items),
        pack: (head.packs[0].live_bytes, head.packs[0].total_bytes),
        damaged: vec![
            damage("a later version of the manifest", None, Some((0, 3)), "format version is 3"),
            Damage { keep: Some(plain.len() - 1), ..damage("a manifest that is cut", None, None, "its head breaks the rules") },
            damage("a table in the place of a list", Some(0), Some((0, 1)), "format version is 1"),
            Damage { instead: Some(last), ..damage("the last list comes first", Some(0), None, "no directory") },
            Damage { instead: Some(0), ..damage("the first list comes twice", Some(1), None, order) },
            Damage {
                keep: Some(contents[1].len() - 1),
                ..damage("a list that is cut", Some(1), None, "list of its items breaks")
            },
            Damage { keep: Some(0), ..damage("an empty list", Some(last), None, "list of its items breaks") },
            // Names: 2, `postgres`, `dba`; packs: 1, and its id.
            damage("a list with a pack of another backup", Some(1), Some((16, 0x99)), "names a pack that it does not"),
        ],
    };
    let text = serde_json::to_string_pretty(&vectors).unwrap();
    std::fs::write(directory().join("lists.json"), text + "\n").unwrap();
}
