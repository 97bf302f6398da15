//! Changes of a manifest that tells the truth.

use serde_json::{Value, json};

use super::OID;
use crate::hostile::raw::{DIRECTORY, EXTENTS, Raw, RawItem};

/// What has to come of a change, if it is the only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is restored, with the right content.
    Harmless,
    /// It is refused.
    Refused,
    /// Either, or there is no such target.
    Elsewhere,
    /// Either is fine.
    Any,
}

/// Numbers that programs stumble over.
fn odd(random: &mut fastrand::Rng) -> u64 {
    let some =
        [0, 1, 2, 3, 127, 128, 255, 256, 4096, 65_535, 65_536, 65_537, 1 << 20, 1 << 31, 1 << 32, 1 << 40, 1 << 56, 1 << 63];
    match random.u32(0..4) {
        0 => random.u64(..),
        1 => u64::MAX - random.u64(0..3),
        _ => *random.choice(&some).unwrap(),
    }
}

fn item<'a>(raw: &'a mut Raw, random: &mut fastrand::Rng, fits: impl Fn(&RawItem) -> bool) -> Option<&'a mut RawItem> {
    let fitting: Vec<usize> = (0..raw.items.len()).filter(|index| fits(&raw.items[*index])).collect();
    random.choice(&fitting).copied().map(|index| &mut raw.items[index])
}

/// Adds an item where it sorts, unless there is one of that path.
fn add(raw: &mut Raw, path: &[u8], kind: u8) {
    if raw.items.iter().any(|item| item.path == path) {
        return;
    }
    let places = vec![];
    let (path, mode) = (path.to_vec(), 0o700);
    let new = RawItem { kind, path, shared: None, mode, owner: 0, group: 0, size: 0, modified: 0, crc: 0, places };
    let at = raw.items.iter().position(|item| item.path > new.path).unwrap_or(raw.items.len());
    raw.items.insert(at, new);
}

/// Paths that a backup of this cluster cannot have, and whether each is a file's.
const ELSEWHERE: [(&[u8], u8); 22] = [
    (b"../escaped", EXTENTS),
    (b"..", DIRECTORY),
    (b"/etc/passwd", EXTENTS),
    (b"base/../../escaped", EXTENTS),
    (b"base//5", DIRECTORY),
    (b"base/./5", DIRECTORY),
    (b"base/5/", DIRECTORY),
    (b"base/5/a\0b", EXTENTS),
    (b"nowhere/file", EXTENTS),
    (b"PG_VERSION/file", EXTENTS),
    (b"base/5/1259/below", EXTENTS),
    (b"pg_tblspc/16400/other-data", DIRECTORY),
    (b"pg_tblspc/16400/other-file", EXTENTS),
    (b"pg_tblspc/16400/PG_15_202209061", DIRECTORY),
    (b"pg_tblspc/16400/PG_16_202307071x", DIRECTORY),
    (b"pg_tblspc/16400/..", DIRECTORY),
    (b"walvis.restore", DIRECTORY),
    (b"backup_manifest", DIRECTORY),
    (b"global/pg_control.walvis-new", DIRECTORY),
    (b"postmaster.pid", DIRECTORY),
    (b"pg_replslot", EXTENTS),
    (b"base/5/1259\xFF/x", EXTENTS),
];

pub(super) fn mutate(raw: &mut Raw, random: &mut fastrand::Rng) -> (String, Fate) {
    let value = odd(random);
    let which = random.u32(0..40);
    if matches!(which, 28..=31 | 37..=38) && !(raw.facts.is_object() && raw.facts["attachments"].is_array()) {
        return ("nothing".to_owned(), Fate::Harmless);
    }
    match which {
        0..=4 => {
            let (path, kind) = *random.choice(&ELSEWHERE).unwrap();
            add(raw, path, kind);
            (format!("an item {:?}", String::from_utf8_lossy(path)), Fate::Refused)
        }
        5 => {
            let mode = random.u64(0..=0o7777);
            for item in &mut raw.items {
                item.mode = mode;
            }
            (format!("all modes {mode:o}"), Fate::Harmless)
        }
        6 => {
            let mode = value.max(0o10_000);
            raw.items[1].mode = mode;
            (format!("a mode {mode:o}"), Fate::Refused)
        }
        7 => {
            let time = value.cast_signed();
            for item in &mut raw.items {
                item.modified = time;
            }
            (format!("all times {time}"), Fate::Harmless)
        }
        8 => {
            let names: [&[u8]; 8] = [b"root", b"0", b"", b"a\nb", b"4294967295", b"no such", b"\xFF", b"postgres"];
            let name = (*random.choice(&names).unwrap()).to_vec();
            let shown = String::from_utf8_lossy(&name).into_owned();
            let index = random.usize(0..2);
            let is_bad = matches!(name.as_slice(), b"" | b"a\nb" | b"\xFF") || (name == b"postgres" && index == 1);
            raw.names[index] = name;
            // Whom a file is given to is for the restore to say.
            (format!("name {index} {shown:?}"), if is_bad { Fate::Refused } else { Fate::Any })
        }
        9 => {
            if let Some(item) = item(raw, random, |item| item.kind != DIRECTORY) {
                item.size = value;
            }
            (format!("a length {value}"), Fate::Any)
        }
        10 => {
            if let Some(item) = item(raw, random, |item| !item.places.is_empty()) {
                let place = random.choice(&mut item.places).unwrap();
                place.offset = value.cast_signed();
            }
            (format!("an offset {value}"), Fate::Any)
        }
        11 => {
            if let Some(item) = item(raw, random, |item| !item.places.is_empty()) {
                let place = random.choice(&mut item.places).unwrap();
                place.sealed = value;
            }
            (format!("a sealed length {value}"), Fate::Any)
        }
        12 => {
            if let Some(item) = item(raw, random, |item| !item.places.is_empty()) {
                let place = random.choice(&mut item.places).unwrap();
                place.pack = if random.bool() { None } else { Some(value % 4) };
            }
            ("another pack, or zeros".to_owned(), Fate::Any)
        }
        13 => {
            // The map is never the backup's own.
            let is_read = |item: &RawItem| item.kind == EXTENTS && !item.path.ends_with(b"_map");
            if let Some(item) = item(raw, random, |item| is_read(item) && item.places.iter().any(|place| place.pack.is_some())) {
                for place in &mut item.places {
                    place.hash[0] ^= 1;
                    place.crc ^= 1;
                }
            }
            ("other hashes".to_owned(), Fate::Refused)
        }
        14 => {
            let at = random.usize(0..raw.items.len());
            let copy = raw.items[at].clone();
            raw.items.insert(at, copy);
            ("an item twice".to_owned(), Fate::Refused)
        }
        15 => {
            let at = random.usize(1..raw.items.len());
            raw.items.swap(at - 1, at);
            ("two items exchanged".to_owned(), Fate::Refused)
        }
        16 => {
            let needed: [&[u8]; 6] = [b"PG_VERSION", b"backup_label", b"global/pg_control", b"base", b"base/5", b"global"];
            let path = *random.choice(&needed).unwrap();
            raw.items.retain(|item| item.path != path);
            (format!("no {}", String::from_utf8_lossy(path)), Fate::Refused)
        }
        17 => {
            raw.cut = random.usize(1..200);
            (format!("{} bytes less", raw.cut), Fate::Refused)
        }
        18 => {
            raw.tail = vec![random.u8(..); random.usize(1..3000)];
            (format!("{} bytes more", raw.tail.len()), Fate::Refused)
        }
        19 => {
            raw.item_count = Some(value);
            (format!("{value} items"), if value == raw.items.len() as u64 { Fate::Harmless } else { Fate::Refused })
        }
        20 => {
            let which = random.u32(0..3);
            let (slot, truth) = match which {
                0 => (&mut raw.name_count, raw.names.len()),
                1 => (&mut raw.pack_count, raw.packs.len()),
                _ => (&mut raw.facts_bytes, usize::MAX),
            };
            *slot = Some(value);
            (format!("count {which} is {value}"), if value == truth as u64 { Fate::Any } else { Fate::Refused })
        }
        21 => {
            let pack = random.choice(&mut raw.packs).unwrap();
            match random.u32(0..5) {
                0 => pack.started_unix_s = value.cast_signed(),
                1 => pack.random ^= 1,
                2 => pack.number = value,
                3 => pack.live = value,
                _ => pack.total = value,
            }
            ("another pack".to_owned(), Fate::Any)
        }
        22 => {
            let version = random.u8(..);
            raw.version = version;
            (format!("version {version}"), if version == 1 { Fate::Harmless } else { Fate::Refused })
        }
        23 => {
            let item = random.choice(&mut raw.items).unwrap();
            item.shared = Some(value);
            (format!("a common beginning of {value}"), Fate::Any)
        }
        24 => {
            let item = random.choice(&mut raw.items).unwrap();
            item.kind = random.u8(0..5);
            ("another kind".to_owned(), Fate::Any)
        }
        25 => {
            let name = vec![b'x'; random.usize(256..5000)];
            add(raw, &[b"base/", name.as_slice()].concat(), EXTENTS);
            ("a long name".to_owned(), Fate::Refused)
        }
        26 => {
            let mut path = b"base".to_vec();
            for _ in 0..random.usize(1..400) {
                path.extend_from_slice(b"/d");
                add(raw, &path, DIRECTORY);
            }
            ("deep directories".to_owned(), Fate::Harmless)
        }
        27 => {
            let path = format!("pg_tblspc/{}", random.u32(1..20_000));
            add(raw, path.as_bytes(), if random.bool() { DIRECTORY } else { EXTENTS });
            (format!("an item {path}"), if path == format!("pg_tblspc/{OID}") { Fate::Any } else { Fate::Harmless })
        }
        28..=31 => facts(raw, random, value),
        32..=36 => summary(raw, random, value),
        37 => {
            raw.facts["something"] = nested(random.usize(1..100));
            ("an unknown fact".to_owned(), Fate::Harmless)
        }
        38 => {
            raw.facts["something"] = Value::Null;
            raw.facts["warnings"] = vec![Value::from("again"); random.usize(0..1000)].into();
            ("many warnings".to_owned(), Fate::Harmless)
        }
        _ => {
            let bit = random.usize(0..64);
            raw.items[2].owner = 1 << bit;
            (format!("owner {}", 1_u64 << bit), if bit == 0 { Fate::Any } else { Fate::Refused })
        }
    }
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(Value::Null, |value, _| json!([value]))
}

fn facts(raw: &mut Raw, random: &mut fastrand::Rng, value: u64) -> (String, Fate) {
    let facts = &mut raw.facts;
    let refused = |what: &str| (what.to_owned(), Fate::Refused);
    match random.u32(0..16) {
        0 => {
            let paths = ["relative", "/mnt/../etc", "/", "", "/a\0b", "/mnt//x", "/./x"];
            let path = *random.choice(&paths).unwrap();
            facts["tablespaces"][0]["path"] = path.into();
            refused(&format!("a tablespace at {path:?}"))
        }
        1 => {
            facts["tablespaces"][0]["oid"] = value.into();
            (format!("tablespace {value}"), if value == u64::from(OID) { Fate::Harmless } else { Fate::Any })
        }
        2 => {
            let twice = vec![facts["tablespaces"][0].clone(); 2];
            facts["tablespaces"] = twice.into();
            refused("a tablespace twice")
        }
        3 => {
            facts["hash_key"] = "00".repeat(32).into();
            refused("another key of the hashes")
        }
        4 => {
            facts["hash_key"] = "zz".into();
            refused("no key of the hashes")
        }
        5 => {
            let fields = ["hash_key", "databases", "tablespaces", "annotations", "damage", "warnings"];
            let field = *random.choice(&fields).unwrap();
            facts.as_object_mut().unwrap().remove(field);
            refused(&format!("no {field}"))
        }
        6 => {
            facts["warnings"] = vec![Value::from(""); 1001].into();
            refused("too many warnings")
        }
        7 => {
            let extra: serde_json::Map<String, Value> = (0..1001).map(|n| (n.to_string(), "".into())).collect();
            facts["annotations"] = extra.into();
            refused("too many annotations")
        }
        8 => {
            facts["something"] = nested(200);
            ("something nested deeply".to_owned(), Fate::Harmless)
        }
        9 => {
            let paths = ["etc/passwd", "/etc/../root/x", "/a\0b", "", "/"];
            let path = *random.choice(&paths).unwrap();
            facts["attachments"][0]["path"] = path.into();
            refused(&format!("an attachment {path:?}"))
        }
        10 => {
            facts["attachments"][0]["size_bytes"] = value.into();
            (format!("an attachment of {value} bytes"), if value == 9 { Fate::Harmless } else { Fate::Any })
        }
        11 => {
            facts["attachments"][0]["mode"] = (value % 0o10_000).into();
            ("a mode of an attachment".to_owned(), Fate::Harmless)
        }
        12 => {
            facts["attachments"][0]["extents"][0]["stored"]["sealed_bytes"] = (value % (1 << 32)).into();
            ("a sealed length of an attachment".to_owned(), Fate::Any)
        }
        13 => {
            facts["attachments"][0]["extents"][0]["stored"]["offset"] = (value % (1 << 32)).into();
            ("an offset of an attachment".to_owned(), Fate::Any)
        }
        14 => {
            facts["attachments"][0]["setting"] = "config_file".into();
            ("an attachment that is the main file".to_owned(), Fate::Harmless)
        }
        _ => {
            *facts = json!([1e308, -1, "\u{202e}"]);
            refused("facts that are a list")
        }
    }
}

fn summary(raw: &mut Raw, random: &mut fastrand::Rng, value: u64) -> (String, Fate) {
    let summary = &mut raw.summary;
    let numbers = [
        "started_unix_us",
        "stopped_unix_us",
        "timeline",
        "postgres_version_num",
        "catalog_version",
        "wal_segment_bytes",
        "files",
        "bytes",
        "new_bytes",
        "reused_bytes",
        "stored_bytes",
        "warnings_total",
        "jobs",
    ];
    match random.u32(0..8) {
        0 => {
            let field = *random.choice(&["start_lsn", "stop_lsn", "checkpoint_lsn"]).unwrap();
            let lsn = format!("{:X}/{:X}", value >> 32, value & 0xFFFF_FFFF);
            summary[field] = lsn.clone().into();
            (format!("{field} {lsn}"), Fate::Elsewhere)
        }
        1 => {
            let fields = ["id", "system_id", "label", "data_directory", "pages", "parent", "start_lsn"];
            let field = *random.choice(&fields).unwrap();
            summary[field] = json!([value]);
            (format!("{field} is a list"), Fate::Elsewhere)
        }
        2 => {
            summary["parameters"] = json!({
                "max_connections": value as i32, "max_worker_processes": -1, "max_wal_senders": 0, "max_prepared_transactions": 0,
                "max_locks_per_transaction": i32::MAX, "wal_level": value as i32, "wal_log_hints": true, "track_commit_timestamp": true,
            });
            ("parameters".to_owned(), Fate::Elsewhere)
        }
        3 => {
            summary["label"] = "x".repeat(random.usize(501..10_000)).into();
            ("a long label".to_owned(), Fate::Elsewhere)
        }
        _ => {
            let field = *random.choice(&numbers).unwrap();
            summary[field] = if random.bool() { value.into() } else { value.cast_signed().into() };
            (format!("{field} {value}"), Fate::Elsewhere)
        }
    }
}
