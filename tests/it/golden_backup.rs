//! Golden vectors of packs and manifests: what version 1 wrote must be readable for ever, and what is damaged must be
//! refused by the layer that is named. `WALVIS_TEST_BLESS=1` writes them anew, for a new version of the format only.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use walvis::codec::SpareBuffers;
use walvis::codec::pack::{PackBuilder, PackKey, RecordKind, contents};
use walvis::codec::{self, Address, CodecError, Digest, Sealing};
use walvis::crypto::{DataKey, DataKeys};
use walvis::format::envelope::{HEADER_BYTES, Metadata, ObjectKind};
use walvis::format::extent::{BackupId, Extent, ExtentTable, PackId, RecordLocation, StoredExtent, TableError};
use walvis::format::manifest::{
    Attachment, BackupFacts, BackupSummary, Content, DamagedPage, Database, DirectoryEntry, FileEntry, Item, ManifestReader,
    ManifestWriter, PageChecksums, TableRef, Tablespace,
};
use walvis::limits::EXTENT_BYTES;
use walvis::pg::Lsn;
use walvis::pg::scan::Parameters;

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
    /// Of the only table: length of the piece, CRC-32C, and of each extent the offset of its record, or nothing for
    /// zeros.
    table: (u64, String, Vec<Option<u32>>),
    items: Vec<GoldenItem>,
    live_bytes: Vec<u64>,
    damaged: Vec<Damage>,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/backup")
}

fn keys() -> DataKeys {
    DataKeys::Encrypted { current: DataKey::from_bytes(DATA_KEY).into(), earlier: vec![] }
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
    let mut pack = PackBuilder::new(3, 1 << 20, SpareBuffers::keeping(1)).unwrap();
    let hash_key = [0x42; 32];
    let mut extent = |bytes: &[u8]| {
        let record = pack.append(RecordKind::Extent, bytes).unwrap();
        let place = RecordLocation { pack: pack_id, offset: record.offset, sealed_bytes: record.sealed_bytes };
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
    let table_place = RecordLocation { pack: pack_id, offset: record.offset, sealed_bytes: record.sealed_bytes };
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
        verified_up_to: 0,
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

const NAMES_MANIFEST: &str = "clusters/main/7123456789012345678/backups/20261121T071500Z-5e6f7a8b";

/// A change of the JSON in a manifest's facts, or in its summary, by something as long.
#[derive(Debug, Serialize, Deserialize)]
struct JsonDamage {
    what: String,
    of: String,
    from: String,
    to: String,
}

/// A manifest with attachments, and with names and paths that are not UTF-8.
#[derive(Debug, Serialize, Deserialize)]
struct NamesVectors {
    manifest_object: String,
    /// The exact JSON.
    facts: String,
    summary: String,
    /// Path of its only file, hexadecimal.
    file: String,
    damaged: Vec<JsonDamage>,
}

/// Names and paths of all sorts, and two attachments: the second extent of the golden pack with zeros after it, and an
/// empty file.
fn names_facts(pack: &[u8]) -> BackupFacts {
    let header = pack.get(..HEADER_BYTES).unwrap();
    let key = PackKey::new(header, address(ObjectKind::Pack), &keys()).unwrap();
    let opened = codec::open(pack, address(ObjectKind::Pack), &keys()).unwrap();
    let record = contents(opened.metadata()).unwrap()[1];
    let at = key.body_at() as usize + record.offset as usize;
    let mut sealed = pack[at..at + record.sealed_bytes as usize].to_vec();
    let mut bytes = Vec::new();
    key.open(RecordKind::Extent, record.offset, &mut sealed, Some(EXTENT_BYTES), &mut bytes).unwrap();
    let pack = PackId { backup: summary().id, number: 0 };
    let place = RecordLocation { pack, offset: record.offset, sealed_bytes: record.sealed_bytes };
    let hash = *blake3::keyed_hash(&[0x42; 32], &bytes).as_bytes().first_chunk().unwrap();
    let stored = Extent { crc32c: crc32c::crc32c(&bytes), stored: Some(StoredExtent { hash, place }) };
    bytes.extend_from_slice(&[0; 5]);
    let attachment = |path: &[u8], setting: &str, content: &[u8], extents: Vec<Extent>| Attachment {
        path: path.into(),
        setting: setting.to_owned(),
        mode: 0o640,
        owner: "postgres".to_owned(),
        group: "dba".to_owned(),
        modified_unix_us: 1_795_241_600_123_456,
        size_bytes: content.len() as u64,
        crc32c: crc32c::crc32c(content),
        extents,
    };
    let database = |oid, name: &[u8], bytes| Database { oid, name: name.into(), bytes };
    BackupFacts {
        attachments: vec![
            attachment(b"/etc/k\xe4se/pg_hba.conf", "hba_file", &bytes, vec![stored, Extent::zeros(5)]),
            attachment("/etc/café/empty.conf".as_bytes(), "config_file", b"", vec![]),
        ],
        hash_key: hex::encode([0x42; 32]),
        databases: vec![database(5, b"postgres", Some(7_000_000)), database(16_384, b"caf\xe9", None)],
        tablespaces: vec![Tablespace { oid: 16_399, path: (&b"/mnt/f\xe4st"[..]).into() }],
        annotations: BTreeMap::new(),
        damage: vec![DamagedPage {
            file: (&b"base/5/1259"[..]).into(),
            block: 7,
            relation: Some((&b"caf\xe9: public.t"[..]).into()),
            detail: "checksum".to_owned(),
        }],
        warnings: vec![],
        verified_up_to: 0,
    }
}

fn names_summary() -> BackupSummary {
    BackupSummary {
        id: BackupId::parse("20261121T071500Z-5e6f7a8b").unwrap(),
        data_directory: (&b"/srv/caf\xe9/main"[..]).into(),
        warnings: vec!["pg_wal is a link".to_owned()],
        warnings_total: 12,
        parameters: Some(Parameters {
            max_connections: 100,
            max_worker_processes: 8,
            max_wal_senders: 10,
            max_prepared_transactions: 0,
            max_locks_per_transaction: 64,
            wal_level: 1,
            wal_log_hints: false,
            track_commit_timestamp: true,
        }),
        ..summary()
    }
}

fn names_address() -> Address<'static> {
    Address { repository_id: &REPOSITORY_ID, kind: ObjectKind::Manifest, name: NAMES_MANIFEST }
}

fn read_facts(plain: &[u8]) -> Result<(Vec<Item>, BackupFacts), TableError> {
    let mut reader = ManifestReader::default();
    reader.feed(plain);
    let mut items = Vec::new();
    while let Some(item) = reader.next_item()? {
        items.push(item);
    }
    reader.finish().map(|head| (items, head.facts))
}

/// The bytes with a text, that is there once, replaced by one that is as long.
fn changed(bytes: &[u8], damage: &JsonDamage) -> Vec<u8> {
    let (from, to) = (damage.from.as_bytes(), damage.to.as_bytes());
    assert_eq!(from.len(), to.len(), "{}", damage.what);
    let places: Vec<usize> = (0..=bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from)).collect();
    assert_eq!(places.len(), 1, "{}", damage.what);
    let mut bytes = bytes.to_vec();
    bytes[places[0]..places[0] + to.len()].copy_from_slice(to);
    bytes
}

#[test]
fn attachments_and_names_as_bytes_are_read_or_rejected_as_their_vectors_say() {
    let pack = std::fs::read(directory().join("pack")).unwrap();
    if std::env::var_os("WALVIS_TEST_BLESS").is_some() {
        bless_names(&pack);
    }
    let vectors: NamesVectors = serde_json::from_slice(&std::fs::read(directory().join("names.json")).unwrap()).unwrap();
    assert_eq!(vectors.manifest_object, NAMES_MANIFEST);
    let manifest = std::fs::read(directory().join("manifest-names")).unwrap();
    let mut plain = Vec::new();
    let metadata = codec::open(manifest.as_slice(), names_address(), &keys()).unwrap().copy_to(&mut plain).unwrap();
    // What is stored, what a reader makes of it, and what a writer writes today.
    let (items, facts) = read_facts(&plain).unwrap();
    assert!(plain.windows(vectors.facts.len()).any(|window| window == vectors.facts.as_bytes()));
    assert_eq!(facts, names_facts(&pack));
    assert_eq!(serde_json::to_string(&facts).unwrap(), vectors.facts);
    let stored = metadata.backup_summary.unwrap();
    assert_eq!(String::from_utf8(stored.clone()).unwrap(), vectors.summary);
    let read: BackupSummary = serde_json::from_slice(&stored).unwrap();
    assert_eq!(read, names_summary());
    assert_eq!(serde_json::to_string(&read).unwrap(), vectors.summary);
    let Item::File(file) = &items[1] else { panic!("{items:?}") };
    assert_eq!((hex::encode(&file.path), items.len()), (vectors.file, 2));
    // What was written before there were attachments has none.
    let mut before = Vec::new();
    let earlier = std::fs::read(directory().join("manifest")).unwrap();
    codec::open(earlier.as_slice(), address(ObjectKind::Manifest), &keys()).unwrap().copy_to(&mut before).unwrap();
    assert!(read_facts(&before).unwrap().1.attachments.is_empty());

    assert!(vectors.damaged.len() >= 12);
    for damage in &vectors.damaged {
        if damage.of == "facts" {
            let error = read_facts(&changed(&plain, damage)).unwrap_err();
            assert!(error.to_string().contains("its facts are not what belongs there"), "{}: {error}", damage.what);
        } else {
            let read = serde_json::from_slice::<BackupSummary>(&changed(&stored, damage));
            assert!(read.is_err(), "{}: {read:?}", damage.what);
        }
    }
}

fn bless_names(pack: &[u8]) {
    let facts = names_facts(pack);
    let (owner, group) = ("postgres".to_owned(), "dba".to_owned());
    let mut writer = ManifestWriter::new(Vec::new());
    let pack_id = PackId { backup: summary().id, number: 0 };
    let root = Item::Directory(DirectoryEntry { path: vec![], mode: 0o700, owner: owner.clone(), group: group.clone() });
    let path = b"caf\xe9.conf".to_vec();
    let extents = facts.attachments.iter().flat_map(|attachment| &attachment.extents);
    let attached = extents.filter_map(|extent| extent.stored).map(|stored| u64::from(stored.place.sealed_bytes)).sum();
    let file = Item::File(FileEntry {
        path: path.clone(),
        size_bytes: 0,
        mode: 0o600,
        owner,
        group,
        modified_unix_us: 1_795_241_600_123_456,
        crc32c: 0,
        content: Content::Extents(vec![]),
    });
    writer.add(&root, &[]).unwrap();
    writer.add(&file, &[(pack_id, attached)]).unwrap();
    let (body, head) = writer.finish(&facts, |_| Some(pack.len() as u64)).unwrap();
    let plain = [head, body].concat();
    let digest = Digest::of(&mut plain.as_slice()).unwrap();
    let summary = serde_json::to_string(&names_summary()).unwrap();
    let metadata = Metadata {
        plaintext_bytes: digest.bytes,
        plaintext_blake3: digest.blake3,
        sealed_unix_us: 1_795_245_360_000_000,
        writer: "0.1.0".to_owned(),
        backup_summary: Some(summary.clone().into_bytes()),
        ..Metadata::by_this_program()
    };
    let mut manifest = Vec::new();
    let sealing = Sealing { level: 1, salt: [0x3C; 32] };
    let key = DataKey::from_bytes(DATA_KEY);
    codec::seal(&mut plain.as_slice(), &mut manifest, names_address(), Some(&key), &metadata, sealing).unwrap();
    std::fs::write(directory().join("manifest-names"), &manifest).unwrap();

    let hash = hex::encode(facts.attachments[0].extents[0].stored.unwrap().hash);
    let damage = |what: &str, of: &str, from: &str, to: &str| JsonDamage {
        what: what.to_owned(),
        of: of.to_owned(),
        from: from.to_owned(),
        to: to.to_owned(),
    };
    let vectors = NamesVectors {
        manifest_object: NAMES_MANIFEST.to_owned(),
        facts: serde_json::to_string(&facts).unwrap(),
        summary,
        file: hex::encode(&path),
        damaged: vec![
            damage("upper-case digits of a database", "facts", r#""hex":"636166e9"}"#, r#""hex":"636166E9"}"#),
            damage("no digit in a database", "facts", r#""hex":"636166e9"}"#, r#""hex":"636166eg"}"#),
            damage("digits of a database that is text", "facts", r#""hex":"636166e9"}"#, r#""hex":"63616665"}"#),
            damage("another encoding of a database", "facts", r#"{"hex":"636166e9"}"#, r#"{"h64":"636166e9"}"#),
            damage("a database that is a number", "facts", r#""name":"postgres""#, r#""name":1234567890"#),
            damage("a tablespace without a path", "facts", r#""oid":16399,"path""#, r#""oid":16399,"pfad""#),
            damage("an attachment without a length", "facts", r#""size_bytes":65541"#, r#""size_bites":65541"#),
            damage("an attachment of a negative length", "facts", r#""size_bytes":65541"#, r#""size_bytes":-5541"#),
            damage("an attachment without a setting", "facts", r#""setting":"hba_file""#, r#""sitting":"hba_file""#),
            damage("an extent with an unknown field", "facts", r#""stored":null"#, r#""sterod":null"#),
            damage("a hash in upper case", "facts", &hash, &hash.to_uppercase()),
            damage("a pack that is none", "facts", "/00000000\"", "/0000000g\""),
            damage("a pack of no backup", "facts", "20261121T061500Z-1a2b3c4d/", "20261121T061500Z_1a2b3c4d/"),
            damage("upper-case digits of the data directory", "summary", "2f636166e92f", "2f636166E92f"),
            damage("a data directory that is text in digits", "summary", "2f636166e92f", "2f636166652f"),
            damage("no data directory", "summary", r#""data_directory""#, r#""data-directory""#),
        ],
    };
    let text = serde_json::to_string_pretty(&vectors).unwrap();
    std::fs::write(directory().join("names.json"), text + "\n").unwrap();
}
