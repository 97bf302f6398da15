//! Golden vectors of packs and manifests: what version 1 wrote must be readable for ever, and what is damaged must be refused by the
//! layer that is named. `WALVIS_TEST_BLESS=1` writes them anew, for a new version of the format only.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use walvis::codec::pack::{PackBuilder, PackKey, RecordKind, SpareBuffers, contents};
use walvis::codec::{self, Address, CodecError, Digest, Sealing};
use walvis::crypto::{DataKey, Keyring};
use walvis::format::envelope::{HEADER_BYTES, Metadata, ObjectKind};
use walvis::format::extent::{BackupId, Extent, ExtentTable, PackId, Place, StoredExtent, TableError};
use walvis::format::manifest::{
    BackupFacts, BackupSummary, Content, Database, DirectoryEntry, FileEntry, Item, ManifestReader, ManifestWriter,
    PageChecksums, TableRef,
};
use walvis::limits::EXTENT_BYTES;
use walvis::pg::Lsn;

const REPOSITORY_ID: [u8; 16] = *b"golden vectors 1";
const DATA_KEY: [u8; 32] = *b"thirty-two bytes, not too secret";
const PACK: &str = "clusters/main/7123456789012345678/packs/20261121T061500Z-1a2b3c4d/00000000";
const MANIFEST: &str = "clusters/main/7123456789012345678/backups/20261121T061500Z-1a2b3c4d";

/// What a good pack holds.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct GoldenRecord {
    table: bool,
    offset: u32,
    sealed_bytes: u32,
    plaintext_blake3: String,
}

/// One line of a manifest, as a reader must understand it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct GoldenItem {
    path: String,
    mode: String,
    owner: String,
    group: String,
    /// Of a file: length, CRC-32C in hexadecimal, number of extents or tables in the manifest.
    file: Option<(u64, String, usize)>,
}

/// A change of a stored object, and who must see it.
#[derive(Debug, Serialize, Deserialize)]
struct Damage {
    what: String,
    file: String,
    flip: Option<usize>,
    keep: Option<usize>,
    rejected_by: String,
    says: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Vectors {
    data_key: String,
    repository_id: String,
    pack_object: String,
    manifest_object: String,
    records: Vec<GoldenRecord>,
    /// Of the only table: length of the piece, CRC-32C, and of each extent the offset of its record, or nothing for zeros.
    table: (u64, String, Vec<Option<u32>>),
    items: Vec<GoldenItem>,
    live_bytes: Vec<u64>,
    damaged: Vec<Damage>,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/backup")
}

fn keys() -> Keyring {
    Keyring::Encrypted { current: DataKey::from_bytes(DATA_KEY), earlier: vec![] }
}

fn address(kind: ObjectKind) -> Address<'static> {
    Address { repository_id: &REPOSITORY_ID, kind, name: if kind == ObjectKind::Pack { PACK } else { MANIFEST } }
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

type Opened = (Vec<GoldenRecord>, Vec<u8>);

/// All records of a pack, by its own list of contents; and the plaintext of its last one, a table.
fn read_pack(object: &[u8]) -> Result<Opened, (&'static str, CodecError)> {
    let opened = codec::open(object, address(ObjectKind::Pack), &keys()).map_err(|e| ("preamble", e))?;
    let records = contents(opened.metadata()).map_err(|e| ("contents", e))?;
    let header = object.get(..HEADER_BYTES).unwrap();
    let key = PackKey::new(header, address(ObjectKind::Pack), &keys()).map_err(|e| ("preamble", e))?;
    let mut found = Vec::new();
    let mut last = Vec::new();
    for record in records {
        let start = key.body_at() as usize + record.offset as usize;
        let end = object.len().min(start + record.sealed_bytes as usize);
        let mut sealed = object.get(start..end).unwrap_or_default().to_vec();
        last.clear();
        key.open(record.kind, record.offset, &mut sealed, Some(record.plaintext_bytes as usize), &mut last)
            .map_err(|e| ("record", e))?;
        found.push(GoldenRecord {
            table: record.kind == RecordKind::Table,
            offset: record.offset,
            sealed_bytes: record.sealed_bytes,
            plaintext_blake3: hash(&last),
        });
    }
    Ok((found, last))
}

fn golden(item: &Item) -> GoldenItem {
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    match item {
        Item::Directory(d) => GoldenItem {
            path: text(&d.path),
            mode: format!("{:o}", d.mode),
            owner: d.owner.clone(),
            group: d.group.clone(),
            file: None,
        },
        Item::File(f) => GoldenItem {
            path: text(&f.path),
            mode: format!("{:o}", f.mode),
            owner: f.owner.clone(),
            group: f.group.clone(),
            file: Some((
                f.size_bytes,
                format!("{:08x}", f.crc32c),
                match &f.content {
                    Content::Extents(extents) => extents.len(),
                    Content::Tables(tables) => tables.len(),
                },
            )),
        },
    }
}

fn read_items(plain: &[u8]) -> Result<(Vec<GoldenItem>, Vec<u64>), TableError> {
    let mut reader = ManifestReader::default();
    reader.feed(plain);
    let mut items = Vec::new();
    while let Some(item) = reader.next_item()? {
        items.push(golden(&item));
    }
    reader.finish().map(|head| (items, head.packs.iter().map(|used| used.live_bytes).collect()))
}

#[test]
fn every_vector_of_packs_and_manifests_is_read_or_rejected_as_it_says() {
    if std::env::var_os("WALVIS_TEST_BLESS").is_some() {
        bless();
    }
    let vectors: Vectors = serde_json::from_slice(&std::fs::read(directory().join("vectors.json")).unwrap()).unwrap();
    assert_eq!((vectors.pack_object.as_str(), vectors.manifest_object.as_str()), (PACK, MANIFEST));
    let (pack, manifest) =
        (std::fs::read(directory().join("pack")).unwrap(), std::fs::read(directory().join("manifest")).unwrap());
    let (records, table) = read_pack(&pack).unwrap();
    assert_eq!(records, vectors.records);
    let table = ExtentTable::decode(&table).unwrap();
    let offsets = table.extents.iter().map(|extent| extent.stored.map(|stored| stored.place.offset)).collect::<Vec<_>>();
    assert_eq!((table.bytes, format!("{:08x}", table.crc32c()), offsets), vectors.table);
    let mut plain = Vec::new();
    let metadata = codec::open(manifest.as_slice(), address(ObjectKind::Manifest), &keys()).unwrap().copy_to(&mut plain).unwrap();
    assert_eq!(read_items(&plain).unwrap(), (vectors.items, vectors.live_bytes));
    let read: BackupSummary = serde_json::from_slice(&metadata.backup_summary.unwrap()).unwrap();
    assert_eq!(read, summary());

    assert!(vectors.damaged.len() >= 8);
    for damage in vectors.damaged {
        let mut object = if damage.file == "pack" { pack.clone() } else { manifest.clone() };
        if let Some(at) = damage.flip {
            object[at] ^= 0x10;
        }
        object.truncate(damage.keep.unwrap_or(usize::MAX));
        let (layer, error) = if damage.file == "pack" {
            read_pack(&object).unwrap_err()
        } else {
            match codec::open(object.as_slice(), address(ObjectKind::Manifest), &keys()) {
                Err(error) => ("preamble", error),
                Ok(opened) => ("frames", opened.copy_to(&mut std::io::sink()).unwrap_err()),
            }
        };
        assert_eq!(layer, damage.rejected_by, "{}: {error}", damage.what);
        assert!(error.to_string().contains(&damage.says), "{}: {error}", damage.what);
    }
}

fn summary() -> BackupSummary {
    BackupSummary {
        id: BackupId::parse("20261121T061500Z-1a2b3c4d").unwrap(),
        label: "golden".to_owned(),
        started_unix_us: 1_795_241_700_000_000,
        stopped_unix_us: 1_795_241_760_000_000,
        start_lsn: Lsn(0x200_0028),
        checkpoint_lsn: Lsn(0x200_0060),
        stop_lsn: Lsn(0x200_0100),
        timeline: 1,
        system_id: "7123456789012345678".to_owned(),
        postgres_version_num: 150_018,
        catalog_version: 202_209_061,
        wal_segment_bytes: 16 << 20,
        from_standby: false,
        files: 3,
        bytes: 5 * EXTENT_BYTES as u64 + 3,
        new_bytes: 70_000,
        reused_bytes: 0,
        stored_bytes: 70_000,
        pages: PageChecksums { enabled: true, verified: 32, damaged: 0 },
        parent: None,
        data_directory: "/var/lib/postgresql/15/main".into(),
        warnings: vec![],
        warnings_total: 0,
        parameters: None,
        jobs: 2,
    }
}

fn bless() {
    let key = DataKey::from_bytes(DATA_KEY);
    let id = BackupId::parse("20261121T061500Z-1a2b3c4d").unwrap();
    let pack_id = PackId { backup: id, number: 0 };
    let mut pack = PackBuilder::new(3, 1 << 20, SpareBuffers::default()).unwrap();
    let hash_key = [0x42; 32];
    let mut extent = |bytes: &[u8]| {
        let record = pack.append(RecordKind::Extent, bytes).unwrap();
        let place = Place { pack: pack_id, offset: record.offset, sealed_bytes: record.sealed_bytes };
        let hash = *blake3::keyed_hash(&hash_key, bytes).as_bytes().first_chunk().unwrap();
        Extent { crc32c: crc32c::crc32c(bytes), stored: Some(StoredExtent { hash, place }) }
    };
    let version = extent(b"15\n");
    let mut noise = vec![0; 1000];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let mut pages = vec![0x5A; EXTENT_BYTES];
    pages[..1000].copy_from_slice(&noise);
    let first = extent(&pages);
    let last = extent(&noise);
    let zeros = Extent::zeros(EXTENT_BYTES);
    let table = ExtentTable { bytes: 5 * EXTENT_BYTES as u64 - 64_536, extents: vec![first, zeros, zeros, first, last] };
    let record = pack.append(RecordKind::Table, &table.encode().unwrap()).unwrap();
    let total = u64::from(record.offset + record.sealed_bytes);
    let table_place = Place { pack: pack_id, offset: record.offset, sealed_bytes: record.sealed_bytes };
    let object = pack.take().seal(address(ObjectKind::Pack), Some(&key), [0xA5; 32], 1_795_241_700_000_000).unwrap();
    std::fs::create_dir_all(directory()).unwrap();
    std::fs::write(directory().join("pack"), &object).unwrap();

    let (owner, group) = ("postgres".to_owned(), "dba".to_owned());
    let mut writer = ManifestWriter::new(Vec::new());
    let directory_entry = |path: &str| {
        Item::Directory(DirectoryEntry { path: path.into(), mode: 0o700, owner: owner.clone(), group: owner.clone() })
    };
    let file = |path: &str, size_bytes: u64, crc32c: u32, content: Content| {
        Item::File(FileEntry {
            path: path.into(),
            size_bytes,
            mode: 0o600,
            owner: owner.clone(),
            group: group.clone(),
            modified_unix_us: 1_795_241_600_123_456,
            crc32c,
            content,
        })
    };
    let table_ref = TableRef { place: table_place, crc32c: table.crc32c() };
    let uses: u64 = table.extents.iter().filter_map(|e| e.stored).map(|s| u64::from(s.place.sealed_bytes)).sum();
    writer.add(&directory_entry(""), &[]).unwrap();
    writer.add(&file("PG_VERSION", 3, version.crc32c, Content::Extents(vec![version])), &[]).unwrap();
    writer.add(&directory_entry("base"), &[]).unwrap();
    writer.add(&directory_entry("base/5"), &[]).unwrap();
    let relation = file("base/5/1259", table.bytes, table.crc32c(), Content::Tables(vec![table_ref]));
    writer.add(&relation, &[(pack_id, uses)]).unwrap();
    writer.add(&file("base/5/1259_vm", 0, 0, Content::Extents(vec![])), &[]).unwrap();
    let facts = BackupFacts {
        attachments: vec![],
        hash_key: hex::encode(hash_key),
        databases: vec![Database { oid: 5, name: "postgres".into(), bytes: Some(7_000_000) }],
        tablespaces: vec![],
        annotations: BTreeMap::from([("ticket".to_owned(), "42".to_owned())]),
        damage: vec![],
        warnings: vec![],
    };
    let (body, head) = writer.finish(&facts, |_| Some(total)).unwrap();
    let plain = [head, body].concat();
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
    std::fs::write(directory().join("manifest"), &manifest).unwrap();

    let body_at = codec::preamble_bytes(&object[..HEADER_BYTES]).unwrap() as usize;
    let damage = |what: &str, file: &str, flip: Option<usize>, keep: Option<usize>, rejected_by: &str, says: &str| Damage {
        what: what.to_owned(),
        file: file.to_owned(),
        flip,
        keep,
        rejected_by: rejected_by.to_owned(),
        says: says.to_owned(),
    };
    let (records, _) = read_pack(&object).unwrap();
    let (items, live_bytes) = read_items(&plain).unwrap();
    let vectors = Vectors {
        data_key: hex::encode(DATA_KEY),
        repository_id: hex::encode(REPOSITORY_ID),
        pack_object: PACK.to_owned(),
        manifest_object: MANIFEST.to_owned(),
        records,
        table: (
            table.bytes,
            format!("{:08x}", table.crc32c()),
            table.extents.iter().map(|extent| extent.stored.map(|stored| stored.place.offset)).collect(),
        ),
        items,
        live_bytes,
        damaged: vec![
            damage("an unknown codec", "pack", Some(10), None, "preamble", "codec"),
            damage("another salt of a pack", "pack", Some(40), None, "preamble", "fails authentication"),
            damage("a bit of the list of contents", "pack", Some(90), None, "preamble", "fails authentication"),
            damage("a bit of the first record", "pack", Some(body_at + 3), None, "record", "fails authentication"),
            damage("a bit of the table", "pack", Some(object.len() - 20), None, "record", "fails authentication"),
            damage("a pack without its last byte", "pack", None, Some(object.len() - 1), "record", "fails authentication"),
            damage("a pack without records", "pack", None, Some(body_at), "record", "too short"),
            damage("a bit of the summary", "manifest", Some(300), None, "preamble", "fails authentication"),
            damage("the last bit of a manifest", "manifest", Some(manifest.len() - 1), None, "frames", "frame 0"),
            damage("a manifest that is cut", "manifest", None, Some(manifest.len() - 30), "frames", "frame 0"),
        ],
    };
    let text = serde_json::to_string_pretty(&vectors).unwrap();
    std::fs::write(directory().join("vectors.json"), text + "\n").unwrap();
}
