//! Golden vectors of the envelope: what version 1 wrote must be readable for ever, and what is damaged must be refused
//! by the layer that is named. `WALVIS_TEST_BLESS=1` writes them anew, for a new version of the format only.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use walvis::codec::{self, Address, CodecError, Digest, Sealing};
use walvis::crypto::{DataKey, DataKeys};
use walvis::format::changes;
use walvis::format::envelope::{HEADER_BYTES, Metadata, ObjectKind, SEALED_FRAME_BYTES};
use walvis::format::node::{Aggregate, Children, Edge, Entry, Node, NodeId};
use walvis::pg::changes::{ChangeSet, Collector, Extents};
use walvis::pg::scan::{
    DatabaseFiles, Mark, Parameters, PgTime, Record, RelFile, Scanner, Segment, Summary, TablespacePath, XactEnd, XactKind, Xid,
};
use walvis::pg::{Lsn, SegmentName, Timeline, WalSegmentSize};

use crate::support::wal::Writer;

/// One vector.
#[derive(Debug, Serialize, Deserialize)]
struct Vector {
    what: String,
    /// The stored object; for the damaged ones, what it was before these edits, in this order.
    file: String,
    /// Byte ranges of it, one after the other, instead of the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ranges: Option<Vec<(usize, usize)>>,
    /// The byte whose fifth bit is flipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flip: Option<usize>,
    /// Number of zero bytes that follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    append: Option<usize>,
    /// Hexadecimal; absent in an unencrypted repository.
    data_key: Option<String>,
    repository_id: String,
    kind: u8,
    object: String,
    /// BLAKE3 of the plaintext, if it can be read.
    plaintext_blake3: Option<String>,
    /// Of a segment with a WAL summary: how many transactions that says end in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transactions: Option<u64>,
    /// The layer that must reject it otherwise, and a part of what it says.
    rejected_by: Option<String>,
    says: Option<String>,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/envelope")
}

const OBJECT: &str = "clusters/main/7123456789012345678/wal/00000001/00000000/000000010000000000000001";
const REPOSITORY_ID: [u8; 16] = *b"golden vectors 1";
const DATA_KEY: [u8; 32] = *b"thirty-two bytes, not too secret";

fn edited(vector: &Vector) -> Vec<u8> {
    let whole = std::fs::read(directory().join(&vector.file)).unwrap();
    let ranges = vector.ranges.clone().unwrap_or_else(|| vec![(0, whole.len())]);
    let mut object: Vec<u8> = ranges.into_iter().flat_map(|(from, to)| whole[from..to].to_vec()).collect();
    if let Some(at) = vector.flip {
        object[at] ^= 0x10;
    }
    object.resize(object.len() + vector.append.unwrap_or(0), 0);
    object
}

fn keyring(vector: &Vector) -> DataKeys {
    match &vector.data_key {
        None => DataKeys::Unencrypted,
        Some(text) => {
            let mut key = [0; 32];
            hex::decode_to_slice(text, &mut key).unwrap();
            DataKeys::Encrypted { current: DataKey::from_bytes(key).into(), earlier: vec![] }
        }
    }
}

fn kind(number: u8) -> ObjectKind {
    use ObjectKind::{Backup, Binding, Changes, History, Node, Partial, Segment};
    [Segment, Partial, History, Backup, Binding, Node, Changes].into_iter().find(|k| *k as u8 == number).unwrap()
}

#[test]
fn every_vector_is_read_or_rejected_as_it_says() {
    if std::env::var_os("WALVIS_TEST_BLESS").is_some() {
        bless();
    }
    let text = std::fs::read_to_string(directory().join("vectors.json")).unwrap();
    let vectors: Vec<Vector> = serde_json::from_str(&text).unwrap();
    assert!(vectors.len() >= 20);
    for vector in &vectors {
        let object = edited(vector);
        let mut id = [0; 16];
        hex::decode_to_slice(&vector.repository_id, &mut id).unwrap();
        let address = Address { repository_id: &id, kind: kind(vector.kind), name: &vector.object };
        let mut plain = Vec::new();
        let opened = codec::open(object.as_slice(), address, &keyring(vector));
        let layer = if opened.is_ok() { "frames" } else { "preamble" };
        match (opened.and_then(|opened| opened.copy_to(&mut plain)), &vector.plaintext_blake3) {
            (Ok(metadata), Some(hash)) => {
                assert_eq!(blake3::hash(&plain).to_hex().as_str(), hash, "{}", vector.what);
                let summary = metadata.wal_summary.map(|bytes| Summary::decode(&bytes).unwrap());
                assert_eq!(summary.as_ref().map(|s| s.xact_stats.unwrap().count), vector.transactions, "{}", vector.what);
                let is_frozen = FROZEN.contains(&vector.file.as_str());
                if let Some(summary) = summary {
                    let mut scanner = Scanner::new(summary.segment, ());
                    scanner.push(&plain);
                    let scanned = Summary { knows_files: !is_frozen, ..scanner.finish().summary };
                    assert_eq!(scanned, summary, "{}", vector.what);
                }
                if let Some(changes) = metadata.wal_changes {
                    let (span, set) = changes::decode(&changes).unwrap();
                    assert_eq!((span, &set), (changes_span(0, 1), &collected(&plain)), "{}", vector.what);
                    assert_eq!(changes::encode(span, &set), changes, "{}", vector.what);
                }
                if vector.kind == ObjectKind::Changes as u8 {
                    assert_eq!(changes::decode(&plain), Ok((changes_span(1, 7), changes_of())), "{}", vector.what);
                    assert_eq!(changes::encode(changes_span(1, 7), &changes_of()), plain, "{}", vector.what);
                }
                if vector.kind == ObjectKind::Node as u8 {
                    let node = Node::decode(&plain).unwrap();
                    assert_eq!(node.aggregate().marks.uncounted, is_frozen, "{}", vector.what);
                    // Of the first version all is read that there is, and the rest is not known.
                    assert_eq!(node, node_of(is_frozen), "{}", vector.what);
                    assert_eq!(node.encode() == Some(plain), !is_frozen, "{}", vector.what);
                }
            }
            (Err(e @ (CodecError::Damaged(_) | CodecError::UnknownKey(_))), None) => {
                assert_eq!(vector.rejected_by.as_deref(), Some(layer), "{}: {e}", vector.what);
                assert!(e.to_string().contains(vector.says.as_deref().unwrap()), "{}: {e}", vector.what);
            }
            (result, expected) => panic!("{}: {result:?}, expected {expected:?}", vector.what),
        }
    }
}

/// Compressible in part, so that there are several frames and yet a small file.
fn plaintext(len: usize) -> Vec<u8> {
    let mut bytes = vec![0x5a; len];
    let noisy = len / 4;
    blake3::Hasher::new().finalize_xof().fill(&mut bytes[..noisy]);
    bytes
}

fn seal(plain: &[u8], key: Option<&DataKey>, object: &str, kind: ObjectKind, wal_summary: Option<Vec<u8>>) -> Vec<u8> {
    seal_with(plain, key, object, kind, (wal_summary, None))
}

/// As a segment with what a scan found, and what it changed.
fn seal_with(
    plain: &[u8],
    key: Option<&DataKey>,
    object: &str,
    kind: ObjectKind,
    (wal_summary, wal_changes): (Option<Vec<u8>>, Option<Vec<u8>>),
) -> Vec<u8> {
    let digest = Digest::of(&mut &*plain).unwrap();
    let metadata = Metadata {
        plaintext_bytes: digest.bytes,
        plaintext_blake3: digest.blake3,
        sealed_unix_us: 1_763_683_200_000_000,
        writer: "0.1.0".to_owned(),
        wal_summary,
        wal_changes,
        ..Metadata::by_this_program()
    };
    let mut out = Vec::new();
    let address = Address { repository_id: &REPOSITORY_ID, kind, name: object };
    codec::seal(&mut &*plain, &mut out, address, key, &metadata, Sealing { level: 1, salt: [0xA5; 32] }).unwrap();
    out
}

/// Objects of the first versions of summaries and nodes. Nothing writes them any more; they are read for ever.
const FROZEN: [&str; 2] = ["summary", "node"];

/// Of everything that a summary can have a mark of.
fn marks() -> [Mark; 6] {
    let path = TablespacePath::new(b"/srv/caf\xE9").unwrap();
    let copied_from = Some(DatabaseFiles { tablespace: 1663, database: 1 });
    [
        Mark::TablespaceCreate { tablespace: 16384, path },
        Mark::DatabaseCreate { database: 16385, tablespace: 16384, copied_from },
        Mark::DatabaseCreate { database: 16386, tablespace: 1663, copied_from: None },
        Mark::DatabaseDrop { database: 16385, tablespaces: Some(vec![16384, 1663]) },
        Mark::TablespaceDrop { tablespace: 16384 },
        Mark::ParameterChange(Parameters {
            max_connections: 100,
            max_worker_processes: 8,
            max_wal_senders: 0,
            max_prepared_transactions: 0,
            max_locks_per_transaction: 64,
            wal_level: 0,
            wal_log_hints: false,
            track_commit_timestamp: true,
        }),
    ]
}

/// A segment of 1 MiB, its summary, and how many transactions end in it.
fn scanned() -> (Vec<u8>, Vec<u8>, u64) {
    let mut writer = Writer::new(1, 1);
    (0..10).for_each(|_| writer.little());
    marks().into_iter().for_each(|mark| writer.mark(mark));
    writer.point("golden");
    writer.segment();
    let (_, name, bytes) = writer.finish().segments.swap_remove(0);
    let size = WalSegmentSize::new(bytes.len() as u64).unwrap();
    let mut scanner = Scanner::new(Segment::new(name, size).unwrap(), ());
    scanner.push(&bytes);
    let summary = scanner.finish().summary;
    (bytes, summary.encode(), summary.xact_stats.unwrap().count)
}

/// What change sets are of: at level 0 a segment of 1 MiB, else of 16.
fn changes_span(level: u32, number: u64) -> NodeId {
    let size = WalSegmentSize::new(if level == 0 { 1 } else { 16 } << 20).unwrap();
    NodeId { timeline: Timeline(1), size, level, number }
}

fn relation(relation: u32) -> RelFile {
    RelFile { tablespace: 1663, database: 5, relation }
}

/// A segment of 1 MiB that changes a little of everything.
fn changed() -> Vec<u8> {
    let mut writer = Writer::new(2, 1);
    writer.change(&[(relation(16384), 0, 7), (relation(16384), 2, 0), (relation(16390), 0, 1 << 20)], 50);
    writer.change(&[(relation(16384), 0, 8), (RelFile { database: 6, ..relation(2608) }, 0, 0)], 9000);
    marks().into_iter().take(5).for_each(|mark| writer.mark(mark));
    writer.drops(2);
    writer.segment();
    writer.finish().segments.swap_remove(0).2
}

fn collected(segment: &[u8]) -> ChangeSet {
    let (size, name) = (changes_span(0, 1).size, SegmentName::from_number(Timeline(1), 1, changes_span(0, 1).size).unwrap());
    let mut scanner = Scanner::new(Segment::new(name, size).unwrap(), Collector::new(size.bytes()));
    scanner.push(segment);
    scanner.finish().visitor.finish()
}

/// What 16 segments changed: of each kind of entry more than one.
fn changes_of() -> ChangeSet {
    let mut set = ChangeSet::new();
    [16400, 16401].into_iter().for_each(|tablespace| set.add_tablespace(tablespace));
    for (tablespace, database) in [(1663, 6), (1663, 9), (1664, 6)] {
        set.add_database(DatabaseFiles { tablespace, database });
    }
    let mut extents = Extents::new();
    [(0, 1), (3, 4), (100, 300), (70_000, 70_001)].into_iter().for_each(|(first, end)| extents.push(first, end));
    set.add(relation(16384), &extents);
    set.add(relation(16390), &Extents::all());
    set.add(RelFile { database: 7, ..relation(16384) }, &Extents::from(12));
    set
}

/// A node over 16 segments; every third one ends in the middle of a transaction. Every fifth has marks, which the first
/// version did not count.
fn node_of(first_version: bool) -> Node {
    let id = NodeId { timeline: Timeline(1), size: WalSegmentSize::new(16 << 20).unwrap(), level: 1, number: 7 };
    let entry = |number: u64| {
        let start = Lsn(number << 24);
        let end = XactEnd { kind: XactKind::Commit, time: PgTime(1 << 49), xid: Xid::new(number as u32) };
        let mut aggregate = Aggregate { segments: 1, ..Aggregate::default() };
        let crossing = number.is_multiple_of(3).then(|| {
            aggregate.add_xact(&end);
            Record { start: Lsn(start.0 + (1 << 24) - 24), end: Lsn(start.0 + (1 << 24) + 64), what: end }
        });
        aggregate.marks.uncounted = first_version;
        if number.is_multiple_of(5) && !first_version {
            marks().iter().for_each(|mark| aggregate.marks.add(mark));
        }
        Entry {
            segment: SegmentName::from_number(id.timeline, number, id.size).unwrap(),
            start,
            first_record: Some(Lsn(start.0 + 40)),
            last_record: Some(Lsn(start.0 + (1 << 24) - 24)),
            good_until: Lsn(start.0 + (1 << 24)),
            edge: Edge::Follows,
            crossing,
            aggregate,
        }
    };
    Node { id, children: Children::Segments((id.first()..=id.last()).map(entry).collect()) }
}

/// Writes all vectors.
fn bless() {
    let key = DataKey::from_bytes(DATA_KEY);
    let plain = plaintext(600_000);
    let before = std::fs::read_to_string(directory().join("vectors.json")).unwrap();
    let before: Vec<Vector> = serde_json::from_str(&before).unwrap();
    let mut vectors: Vec<Vector> = before.into_iter().filter(|vector| FROZEN.contains(&vector.file.as_str())).collect();
    let vector = |file: &str, what: &str| Vector {
        what: what.to_owned(),
        file: file.to_owned(),
        ranges: None,
        flip: None,
        append: None,
        data_key: Some(hex::encode(DATA_KEY)),
        repository_id: hex::encode(REPOSITORY_ID),
        kind: ObjectKind::Segment as u8,
        object: OBJECT.to_owned(),
        plaintext_blake3: None,
        transactions: None,
        rejected_by: None,
        says: None,
    };
    let history = b"1\t0/3000000\tno recovery target specified\n".as_slice();
    let other_name = OBJECT.replace("000000010000000000000001", "000000010000000000000002");
    let sealed = [
        ("good", "three frames, encrypted", Some(&key), OBJECT, ObjectKind::Segment, plain.as_slice()),
        ("unencrypted", "three frames, hashes only", None, OBJECT, ObjectKind::Segment, &plain),
        ("empty", "an empty plaintext", Some(&key), OBJECT, ObjectKind::Segment, b""),
        ("history", "a small one", Some(&key), OBJECT, ObjectKind::History, history),
        ("other", "an object of another name", Some(&key), &other_name, ObjectKind::Segment, b"other"),
    ];
    for (file, what, key, object, kind, plain) in sealed {
        std::fs::write(directory().join(file), seal(plain, key, object, kind, None)).unwrap();
        vectors.push(Vector {
            data_key: key.map(|_| hex::encode(DATA_KEY)),
            kind: kind as u8,
            object: object.to_owned(),
            plaintext_blake3: Some(blake3::hash(plain).to_hex().to_string()),
            ..vector(file, what)
        });
    }
    let (segment, summary, transactions) = scanned();
    let node = node_of(false).encode().unwrap();
    let node_name = "clusters/main/7123456789012345678/index/00000001/1/000000000000/0000000000000070";
    let (segment_object, node_object) = (
        seal(&segment, Some(&key), OBJECT, ObjectKind::Segment, Some(summary)),
        seal(&node, Some(&key), node_name, ObjectKind::Node, None),
    );
    let hash = |bytes: &[u8]| Some(blake3::hash(bytes).to_hex().to_string());
    std::fs::write(directory().join("summary-2"), segment_object).unwrap();
    std::fs::write(directory().join("node-2"), node_object).unwrap();
    vectors.push(Vector {
        plaintext_blake3: hash(&segment),
        transactions: Some(transactions),
        ..vector("summary-2", "a segment with a WAL summary of version 2")
    });
    vectors.push(Vector {
        kind: ObjectKind::Node as u8,
        object: node_name.to_owned(),
        plaintext_blake3: hash(&node),
        ..vector("node-2", "a node of the catalog of version 2")
    });
    let segment = changed();
    let span = changes_span(0, 1);
    let name = SegmentName::from_number(span.timeline, span.number, span.size).unwrap();
    let mut scanner = Scanner::new(Segment::new(name, span.size).unwrap(), ());
    scanner.push(&segment);
    let summary = scanner.finish().summary;
    let of_scan = (Some(summary.encode()), Some(changes::encode(span, &collected(&segment))));
    let object = seal_with(&segment, Some(&key), OBJECT, ObjectKind::Segment, of_scan);
    std::fs::write(directory().join("changed"), object).unwrap();
    vectors.push(Vector {
        plaintext_blake3: hash(&segment),
        transactions: summary.xact_stats.map(|stats| stats.count),
        ..vector("changed", "a segment with a change set")
    });
    let changes = changes::encode(changes_span(1, 7), &changes_of());
    let changes_name = "clusters/main/7123456789012345678/index/00000001/c1/000000000000/0000000000000070";
    let object = seal(&changes, Some(&key), changes_name, ObjectKind::Changes, None);
    std::fs::write(directory().join("changes"), object).unwrap();
    vectors.push(Vector {
        kind: ObjectKind::Changes as u8,
        object: changes_name.to_owned(),
        plaintext_blake3: hash(&changes),
        ..vector("changes", "what 16 segments changed")
    });
    let good = std::fs::read(directory().join("good")).unwrap();
    let first = codec::preamble_bytes(&good[..HEADER_BYTES]).unwrap() as usize;
    let (second, third, end) = (first + SEALED_FRAME_BYTES, first + 2 * SEALED_FRAME_BYTES, good.len());
    let mut reject = |what: &str, layer: &str, says: &str, edit: &dyn Fn(&mut Vector)| {
        let mut damaged = Vector { rejected_by: Some(layer.to_owned()), says: Some(says.to_owned()), ..vector("good", what) };
        edit(&mut damaged);
        vectors.push(damaged);
    };
    for (at, what, says) in [
        (0, "a byte of the magic", "does not begin"),
        (8, "an unknown version", "format version"),
        (10, "an unknown codec", "codec"),
        (11, "an unknown cipher", "cipher"),
        (12, "an unknown flag", "flag"),
        (20, "another key id", "data key"),
        (40, "another salt", "fails authentication"),
        (66, "an impossible metadata length", "longer than the format allows"),
        (80, "a bit of the metadata", "fails authentication"),
    ] {
        reject(what, "preamble", says, &|v| v.flip = Some(at));
    }
    reject("ends in the metadata", "preamble", "truncated", &|v| v.ranges = Some(vec![(0, 100)]));
    reject("an unencrypted object in an encrypted repository", "preamble", "not encrypted", &|v| {
        v.file = "unencrypted".to_owned()
    });
    reject("an encrypted object in an unencrypted repository", "preamble", "encrypted", &|v| v.data_key = None);
    reject("an object of another kind", "preamble", "fails authentication", &|v| v.kind = ObjectKind::Partial as u8);
    reject("an object of another name", "preamble", "fails authentication", &|v| v.file = "other".to_owned());
    reject("an object of another repository", "preamble", "fails authentication", &|v| v.repository_id = hex::encode([0; 16]));
    reject("a bit of the first frame", "frames", "frame 0", &|v| v.flip = Some(first + 5));
    reject("a bit of the second frame", "frames", "frame 1", &|v| v.flip = Some(second + 5));
    reject("a bit of the last tag", "frames", "frame 2", &|v| v.flip = Some(end - 1));
    reject("a bit of an unencrypted frame", "frames", "frame 1", &|v| {
        (v.file, v.data_key, v.flip) = ("unencrypted".to_owned(), None, Some(second + 5));
    });
    reject("two frames exchanged", "frames", "frame 0", &|v| {
        v.ranges = Some(vec![(0, first), (second, third), (first, second), (third, end)]);
    });
    reject("a frame twice", "frames", "frame 1", &|v| v.ranges = Some(vec![(0, second), (first, second), (third, end)]));
    reject("ends after the second frame", "frames", "frame 1", &|v| v.ranges = Some(vec![(0, third)]));
    reject("ends after the metadata", "frames", "truncated", &|v| v.ranges = Some(vec![(0, first)]));
    reject("the last byte is missing", "frames", "frame 2", &|v| v.ranges = Some(vec![(0, end - 1)]));
    reject("a byte follows", "frames", "frame 2", &|v| v.append = Some(1));
    let text = serde_json::to_string_pretty(&vectors).unwrap();
    std::fs::write(directory().join("vectors.json"), text + "\n").unwrap();
}
