//! A manifest there and back, and what a reader refuses.

use super::rules::is_safe;
use super::*;
use crate::format::extent::{StoredExtent, TableError};
use crate::limits::{
    EXTENT_BYTES, MAX_LIST_BYTES, MAX_LISTED_TABLES, MAX_MANIFEST_LISTS, MAX_MANIFEST_NAMES, MAX_MANIFEST_PACKS, MAX_PATH_BYTES,
};
use crate::pg::Lsn;
use crate::varint::put_varint;

fn place(number: u32, offset: u32) -> RecordLocation {
    let backup = BackupId::new(1_790_000_000, 3).unwrap();
    RecordLocation { pack: PackId { backup, number }, offset, sealed_bytes: 100 }
}

fn facts() -> BackupFacts {
    BackupFacts {
        hash_key: "00".repeat(32),
        databases: vec![Database { oid: 5, name: "shop".into(), bytes: Some(7) }],
        tablespaces: vec![Tablespace { oid: 16399, path: (&b"/mnt/f\xE4st"[..]).into() }],
        annotations: BTreeMap::from([("ticket".to_owned(), "42".to_owned())]),
        damage: Vec::new(),
        warnings: vec!["pg_wal is a link".to_owned()],
        attachments: vec![Attachment {
            path: "/etc/postgresql/15/main/pg_hba.conf".into(),
            setting: "hba_file".to_owned(),
            mode: 0o640,
            owner: "postgres".to_owned(),
            group: "postgres".to_owned(),
            modified_unix_us: 9,
            size_bytes: EXTENT_BYTES as u64 + 5,
            crc32c: 7,
            extents: vec![
                Extent { crc32c: 9, stored: Some(StoredExtent { hash: [4; 16], place: place(9, 0) }) },
                Extent::zeros(5),
            ],
        }],
        verified_up_to: 77,
    }
}

fn items() -> Vec<Item> {
    let directory = |path: &str| {
        Item::Directory(DirectoryEntry {
            path: path.into(),
            mode: 0o700,
            owner: "postgres".to_owned(),
            group: "postgres".to_owned(),
        })
    };
    let file = |path: &[u8], size_bytes: u64, content: Content| {
        Item::File(FileEntry {
            path: path.to_vec(),
            size_bytes,
            mode: 0o640,
            owner: "postgres".to_owned(),
            group: "dba".to_owned(),
            modified_unix_us: -5,
            crc32c: 0xDEAD_BEEF,
            content,
        })
    };
    let stored = |n, o| Extent { crc32c: 9, stored: Some(StoredExtent { hash: [4; 16], place: place(n, o) }) };
    let table = |n, o| TableRef { place: place(n, o), crc32c: 1 };
    vec![
        directory(""),
        file(b"PG_VERSION", 3, Content::Extents(vec![stored(0, 0)])),
        directory("base"),
        directory("base/5"),
        file(b"base/5/1259", 2 * EXTENT_BYTES as u64, Content::Extents(vec![stored(0, 100), Extent::zeros(EXTENT_BYTES)])),
        file(b"base/5/1259_vm", 0, Content::Extents(vec![])),
        file(b"base/5/16384", (1 << 30) - 1, Content::Tables((0..16).map(|i| table(i / 4, i * 100)).collect())),
        file(b"base/5/\xFFodd", 1, Content::Extents(vec![Extent::zeros(1)])),
    ]
}

fn encoded() -> Vec<u8> {
    let mut writer = ManifestWriter::new(Vec::new());
    for item in items() {
        let uses = if item.path() == b"base/5/16384" { vec![(place(9, 0).pack, 5_000)] } else { vec![] };
        writer.add(&item, &uses).unwrap();
    }
    let (body, head) = writer.finish(&facts(), |_| Some(12_000)).unwrap();
    [head, body].concat()
}

fn read(bytes: &[u8], chunk: usize) -> Result<(Vec<Item>, ManifestHead), TableError> {
    let mut reader = ManifestReader::default();
    let mut found = Vec::new();
    for chunk in bytes.chunks(chunk) {
        reader.feed(chunk);
        while let Some(item) = reader.next_item()? {
            found.push(item);
        }
    }
    reader.finish().map(|head| (found, head))
}

#[test]
fn it_round_trips_in_any_chunks() {
    let bytes = encoded();
    for chunk in [1, 2, 7, 100, bytes.len()] {
        let (found, head) = read(&bytes, chunk).unwrap();
        assert_eq!(found, items());
        assert_eq!(head.facts, facts());
        let live: Vec<(u32, u64)> = head.packs.iter().map(|used| (used.pack.number, used.live_bytes)).collect();
        assert_eq!(live, [(0, 600), (1, 400), (2, 400), (3, 400), (9, 5_000)]);
        assert_eq!(head.packs.iter().map(PackUse::is_mostly_dead).collect::<Vec<_>>(), [true; 5]);
    }
}

#[test]
fn cut_and_flipped_manifests_are_refused_or_differ() {
    let bytes = encoded();
    let whole = read(&bytes, bytes.len()).unwrap();
    for cut in 0..bytes.len() {
        assert!(read(&bytes[..cut], 64).is_err(), "{cut}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&bad, bad.len()).is_err() || read(&bad, bad.len()).unwrap() != whole, "bit {bit}");
    }
    assert!(read(&[bytes.as_slice(), &[0]].concat(), 64).is_err());
}

#[test]
fn items_out_of_order_and_paths_that_lead_elsewhere_are_refused() {
    let mut writer = ManifestWriter::new(Vec::new());
    let items = items();
    writer.add(&items[3], &[]).unwrap();
    assert!(writer.add(&items[2], &[]).is_err());
    assert!(writer.add(&items[3], &[]).is_err());
    for path in ["../x", "/etc/passwd", "base/../../x", "base//x", "base/.", "a\0b"] {
        assert!(!is_safe(path.as_bytes()), "{path}");
    }
}

/// A backup of no files, for tests that need one of some backup.
pub(crate) fn made_up(id: BackupId) -> BackupSummary {
    BackupSummary {
        id,
        label: "nightly".to_owned(),
        started_unix_us: id.started_unix_s * 1_000_000,
        stopped_unix_us: id.started_unix_s * 1_000_000 + 1_000_000,
        start_lsn: Lsn(0x100_0028),
        checkpoint_lsn: Lsn(0x100_0060),
        stop_lsn: Lsn(0x100_0100),
        timeline: 1,
        system_id: "7".to_owned(),
        postgres_version_num: 150_004,
        catalog_version: 202_209_061,
        wal_segment_bytes: 16 << 20,
        from_standby: false,
        files: 0,
        bytes: 0,
        new_bytes: 0,
        reused_bytes: 0,
        stored_bytes: 0,
        pages: PageChecksums::default(),
        parent: None,
        data_directory: "/data".into(),
        jobs: 1,
        warnings: Vec::new(),
        warnings_total: 0,
        parameters: None,
    }
}

fn summary() -> BackupSummary {
    let id = BackupId::new(1_790_000_000, 3).unwrap();
    BackupSummary { files: 4, bytes: 5, new_bytes: 5, stored_bytes: 5, ..made_up(id) }
}

fn directory(path: &str) -> Item {
    Item::Directory(DirectoryEntry { path: path.into(), mode: 0o700, owner: "postgres".to_owned(), group: "dba".to_owned() })
}

fn file(path: &str) -> Item {
    let (owner, group, content) = ("postgres".to_owned(), "dba".to_owned(), Content::Extents(vec![]));
    let path = path.as_bytes().to_vec();
    Item::File(FileEntry { path, size_bytes: 0, mode: 0o600, owner, group, modified_unix_us: 0, crc32c: 0, content })
}

/// Reads what a writer without scruples wrote as a backup of a repository.
fn read_as_backup(items: &[Item], facts: &BackupFacts, total: u64) -> Result<(Vec<Item>, ManifestHead), TableError> {
    let mut writer = ManifestWriter::new(Vec::new());
    for item in items {
        writer.add(item, &[(place(9, 0).pack, 5_000)][..usize::from(matches!(item, Item::File(_)))]).unwrap();
    }
    let (body, head) = writer.finish(facts, |_| Some(total)).unwrap();
    let mut reader = ManifestReader::of_backup(&summary(), (head.len() + body.len()) as u64);
    let mut found = Vec::new();
    for bytes in [head, body] {
        reader.feed(&bytes);
        while let Some(item) = reader.next_item()? {
            found.push(item);
        }
    }
    reader.finish().map(|head| (found, head))
}

fn plain_facts() -> BackupFacts {
    BackupFacts { attachments: vec![], ..facts() }
}

#[test]
fn a_backup_that_keeps_the_rules_is_read() {
    let found = read_as_backup(&items(), &facts(), 12_000).unwrap();
    assert_eq!(found.0, items());
    assert_eq!(found.1.facts, facts());
    // `base.x` sorts between `base` and what is in it, and so does what is in `base.x`.
    let paths = ["", "base", "base.x", "base.x/1", "base/5", "base/5.1", "base/5/1", "base/6", "pg_tblspc", "pg_tblspc/16399"];
    let more =
        ["pg_tblspc/16399/PG_15_202209061", "pg_tblspc/16399/PG_15_202209061/5", "pg_tblspc/7", "pg_tblspc/7/PG_9", "pg_wal"];
    let all: Vec<Item> = paths.into_iter().chain(more).map(directory).collect();
    assert_eq!(read_as_backup(&all, &plain_facts(), 12_000).unwrap().0, all);
}

#[test]
fn what_leads_elsewhere_is_refused() {
    let spaces = |more: &[Item]| [vec![directory("pg_tblspc")], more.to_vec()].concat();
    for (what, items) in [
        ("below nothing", vec![file("base/1")]),
        ("below a file", vec![file("base2"), file("base2/1")]),
        ("below a directory that has ended", vec![directory("base"), directory("base0"), file("base0/1"), file("basf/1")]),
        ("below a sibling", vec![directory("base"), directory("base.x"), file("base.x/1"), file("base.y/1")]),
        ("a file in a tablespace's place", spaces(&[file("pg_tblspc/16399")])),
        ("a file beside the own directory", spaces(&[directory("pg_tblspc/16399"), file("pg_tblspc/16399/PG_15_202209061")])),
        ("something beside the own directory", spaces(&[directory("pg_tblspc/16399"), directory("pg_tblspc/16399/other-data")])),
        ("another version", spaces(&[directory("pg_tblspc/16399"), directory("pg_tblspc/16399/PG_16_202209061")])),
        ("a name longer than any", vec![file(&"x".repeat(256))]),
        ("the data directory as a file", vec![file("")]),
        ("the log as a file", vec![file("pg_wal")]),
        ("the tablespaces as a file", vec![file("pg_tblspc")]),
        ("a directory as the label", vec![directory("backup_label")]),
        ("a directory as pg_control", vec![directory("global"), directory("global/pg_control")]),
        ("a directory in the way of a file", vec![directory("tablespace_map.walvis-new")]),
    ] {
        assert!(matches!(read_as_backup(&items, &plain_facts(), 12_000), Err(TableError::Invalid(_))), "{what}");
    }
    assert!(read_as_backup(&items(), &facts(), 1_599).is_err(), "an extent beyond the end of its pack");
}

#[test]
fn modes_are_those_of_a_server() {
    for (mode, of_directory, of_file) in
        [(0, 0o700, 0o600), (0o7777, 0o750, 0o640), (0o4755, 0o750, 0o640), (0o2700, 0o700, 0o600), (0o400, 0o700, 0o600)]
    {
        assert_eq!((directory_mode(mode), file_mode(mode)), (of_directory, of_file), "{mode:o}");
        let (mut tree, mut passwd) = (directory("base"), file("base/passwd"));
        if let (Item::Directory(tree), Item::File(passwd)) = (&mut tree, &mut passwd) {
            (tree.mode, passwd.mode) = (mode, mode);
        }
        let mut claims = facts();
        claims.attachments[0].mode = mode;
        let (found, head) = read_as_backup(&[tree, passwd], &claims, 12_000).unwrap();
        assert!(matches!(&found[0], Item::Directory(entry) if entry.mode == of_directory));
        assert!(matches!(&found[1], Item::File(entry) if entry.mode == of_file));
        assert_eq!(head.facts.attachments[0].mode, of_file);
    }
    let mut odd = directory("base");
    if let Item::Directory(entry) = &mut odd {
        entry.mode = 0o40_700;
    }
    assert!(read_as_backup(&[odd], &plain_facts(), 12_000).is_err());
}

#[test]
fn facts_that_cannot_be_are_refused() {
    type Change = fn(&mut BackupFacts);
    let changes: [(&str, Change); 16] = [
        ("a short key", |facts| facts.hash_key.truncate(62)),
        ("a key of other letters", |facts| facts.hash_key = "AB".repeat(32)),
        ("a relative tablespace", |facts| facts.tablespaces[0].path = "fast".into()),
        ("a tablespace with a detour", |facts| facts.tablespaces[0].path = "/mnt/../etc".into()),
        ("a tablespace that is everything", |facts| facts.tablespaces[0].path = "/".into()),
        ("a tablespace with a NUL", |facts| facts.tablespaces[0].path = "/mnt/a\0b".into()),
        ("a tablespace without a number", |facts| facts.tablespaces[0].oid = 0),
        ("a tablespace twice", |facts| facts.tablespaces.push(facts.tablespaces[0].clone())),
        ("a long attachment", |facts| facts.attachments[0].size_bytes = u64::MAX),
        ("an attachment with few extents", |facts| facts.attachments[0].extents.truncate(1)),
        ("an attachment somewhere", |facts| facts.attachments[0].path = "etc/passwd".into()),
        ("an attachment with a detour", |facts| facts.attachments[0].path = "/etc/../root/x".into()),
        ("an attachment twice", |facts| facts.attachments.push(facts.attachments[0].clone())),
        ("an attachment of nobody", |facts| facts.attachments[0].owner = String::new()),
        ("an attachment of an unknown pack", |facts| facts.attachments[0].extents[0].stored = stored(8, 0)),
        ("an attachment that is everything in its pack", |facts| {
            let extent = &mut facts.attachments[0].extents[0];
            extent.stored.as_mut().unwrap().place.sealed_bytes = u32::MAX;
        }),
    ];
    for (what, change) in changes {
        let mut facts = facts();
        change(&mut facts);
        assert!(read_as_backup(&items(), &facts, 12_000).is_err(), "{what}");
    }
}

fn stored(number: u32, offset: u32) -> Option<StoredExtent> {
    Some(StoredExtent { hash: [4; 16], place: place(number, offset) })
}

/// The head is parsed once, however it comes: a reader that began anew with each chunk would take a million times as
/// long.
#[test]
fn a_head_that_never_ends_is_refused_early() {
    let facts = serde_json::to_vec(&facts()).unwrap();
    let mut head = vec![VERSION];
    put_varint(&mut head, facts.len() as u64);
    head.extend_from_slice(&facts);
    let of_names = |count: u64| {
        let mut head = head.clone();
        put_varint(&mut head, count);
        head
    };
    let of_packs = |count: u64| {
        let mut head = of_names(0);
        put_varint(&mut head, count);
        head
    };
    for (what, head) in [
        ("names", of_names(MAX_MANIFEST_NAMES as u64 + 1)),
        ("packs", of_packs(MAX_MANIFEST_PACKS as u64 + 1)),
        ("facts", [vec![VERSION], [0xFF; 9].to_vec(), vec![1]].concat()),
        ("a number", [vec![VERSION], [0x80; 600].to_vec()].concat()),
    ] {
        let mut reader = ManifestReader::of_backup(&summary(), 1 << 30);
        reader.feed(&head);
        assert!(reader.next_item().is_err(), "{what}");
    }
    // A name of no bytes for each byte.
    let mut reader = ManifestReader::of_backup(&summary(), 1 << 30);
    reader.feed(&of_names(MAX_MANIFEST_NAMES as u64));
    for _ in 0..MAX_MANIFEST_NAMES / 2 {
        reader.feed(&[0]);
        assert_eq!(reader.next_item(), Ok(None));
        assert!(reader.buffered() <= 1, "what was taken is not parsed again");
    }
    let mut reader = ManifestReader::of_backup(&summary(), 1000);
    let mut many = of_packs(0);
    put_varint(&mut many, 1 << 40);
    reader.feed(&many);
    assert!(reader.next_item().is_err(), "a thousand bytes hold no such number of items");
}

#[test]
fn lists_of_facts_end_where_no_backup_has_so_many() {
    let json = serde_json::to_value(facts()).unwrap();
    let with = |field: &str, member: serde_json::Value, count: usize| {
        let mut json = json.clone();
        json[field] = vec![member; count].into();
        serde_json::from_value::<BackupFacts>(json).is_ok()
    };
    let damage = serde_json::json!({"file": "", "block": 0, "relation": null, "detail": ""});
    for (field, member, limit) in [
        ("warnings", "".into(), MAX_WARNINGS),
        ("damage", damage, MAX_DAMAGE_LISTED),
        ("attachments", json["attachments"][0].clone(), MAX_ATTACHMENTS),
        ("tablespaces", json["tablespaces"][0].clone(), MAX_TABLESPACES),
    ] {
        assert!(with(field, member.clone(), limit) && !with(field, member, limit + 1), "{field}");
    }
    let mut many = json.clone();
    many["annotations"] = (0..=MAX_ANNOTATIONS).map(|n| (n.to_string(), "".into())).collect::<serde_json::Map<_, _>>().into();
    assert!(serde_json::from_value::<BackupFacts>(many).is_err());
    assert!(serde_json::from_str::<BackupFacts>(&"[".repeat(100_000)).is_err(), "nested deeply");
}

#[test]
fn a_summary_must_make_sense() {
    assert!(summary().is_sane());
    type Change = fn(&mut BackupSummary);
    let changes: [Change; 11] = [
        |s| s.wal_segment_bytes = 0,
        |s| s.timeline = 0,
        |s| s.started_unix_us = i64::MIN,
        |s| s.stopped_unix_us = i64::MAX,
        |s| s.bytes = u64::MAX,
        |s| s.files = u64::MAX,
        |s| s.postgres_version_num = u32::MAX,
        |s| s.stop_lsn = Lsn(1),
        |s| s.start_lsn = Lsn(u64::MAX),
        |s| s.label = "x".repeat(1 << 20),
        |s| s.warnings = vec![String::new(); 11],
    ];
    for change in changes {
        let mut summary = summary();
        change(&mut summary);
        assert!(!summary.is_sane(), "{summary:?}");
    }
}

/// The items of a backup in lists: each where it would be stored, and its content.
fn in_lists(items: &[Item]) -> Vec<(RecordLocation, Vec<u8>)> {
    let mut lists = ItemLists::default();
    let mut contents: Vec<Vec<u8>> = items.iter().filter_map(|item| lists.add(item).unwrap()).collect();
    contents.extend(lists.finish());
    (0..).zip(contents).map(|(number, content)| (place(number % 3, number / 3 * 100), content)).collect()
}

/// The manifest whose items are in these lists.
fn with_lists(items: &[Item], lists: &[RecordLocation], total: u64) -> Vec<u8> {
    let mut writer = ManifestWriter::new(Vec::new());
    for item in items {
        writer.add(item, &[]).unwrap();
    }
    writer.end().unwrap().1.in_lists(lists, &plain_facts(), |_| Some(total)).unwrap()
}

/// Reads a manifest with lists as one of a repository.
fn read_lists(whole: &[u8], contents: &[Vec<u8>]) -> Result<(Vec<Item>, ManifestHead), TableError> {
    let mut reader = ManifestReader::of_backup(&summary(), whole.len() as u64);
    for chunk in whole.chunks(7) {
        reader.feed(chunk);
        assert_eq!(reader.next_item()?, None);
    }
    let mut found = Vec::new();
    for content in contents {
        found.extend(reader.list(content)?);
    }
    reader.finish().map(|head| (found, head))
}

/// A tree of so many files in ten directories, each file with something of its own.
fn tree(files: u32) -> Vec<Item> {
    let mut items = vec![directory(""), directory("base")];
    for number in 0..files {
        if number % (files / 10) == 0 {
            items.push(directory(&format!("base/{}", 10 + number / (files / 10))));
        }
        let mut file = file(&format!("base/{}/{:06}", 10 + number / (files / 10), 16_384 + number));
        if let Item::File(entry) = &mut file {
            entry.size_bytes = 5;
            entry.content = Content::Extents(vec![Extent { crc32c: number, stored: stored(number % 50, number) }]);
        }
        items.push(file);
    }
    items
}

#[test]
fn items_in_lists_are_read_back_in_order() {
    let items = tree(3000);
    let lists = in_lists(&items);
    assert!((10..50).contains(&lists.len()), "{}", lists.len());
    let places: Vec<RecordLocation> = lists.iter().map(|(place, _)| *place).collect();
    let contents: Vec<Vec<u8>> = lists.iter().map(|(_, content)| content.clone()).collect();
    let whole = with_lists(&items, &places, 12_000);
    let (found, head) = read_lists(&whole, &contents).unwrap();
    assert_eq!(found, items);
    assert_eq!((head.items, head.lists), (items.len() as u64, places.clone()));
    // What the items refer to, and the lists themselves.
    let live: u64 = head.packs.iter().map(|used| used.live_bytes).sum();
    assert_eq!(live, 100 * (3000 + lists.len() as u64));

    let with = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut contents = contents.clone();
        change(&mut contents);
        read_lists(&whole, &contents)
    };
    assert!(with(&|lists| lists.swap(3, 4)).is_err(), "out of order");
    assert!(with(&|lists| drop(lists.remove(3))).is_err(), "one is missing");
    assert!(with(&|lists| lists.insert(3, contents[3].clone())).is_err(), "one comes twice");
    assert!(with(&|lists| lists[3] = Vec::new()).is_err(), "nothing is no list");
    let (cut, longer) = (contents[3][..contents[3].len() - 1].to_vec(), [contents[3].as_slice(), &[0]].concat());
    assert!(with(&|lists| lists[3] = cut.clone()).is_err(), "cut");
    assert!(with(&|lists| lists[3] = longer.clone()).is_err(), "longer");
    assert_eq!(with(&|lists| lists[3] = vec![1, 0, 0]).unwrap_err(), TableError::Newer(1), "a table of extents");
    // The manifest itself.
    assert!(read_lists(&[whole.as_slice(), &[0]].concat(), &contents).is_err(), "bytes follow");
    for cut in 0..whole.len() {
        assert!(read_lists(&whole[..cut], &contents).is_err(), "{cut}");
    }
    for bit in (0..whole.len() * 8).step_by(3) {
        let mut bad = whole.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(
            read_lists(&bad, &contents).map_or(true, |read| read != (found.clone(), read_lists(&whole, &contents).unwrap().1)),
            "bit {bit}"
        );
    }
    let short = with_lists(&items, &places, 500);
    assert!(read_lists(&short, &contents).is_err(), "a list beyond the end of its pack");
}

#[test]
fn a_list_names_no_pack_that_the_manifest_does_not() {
    let (items, more) = (tree(100), [tree(100), vec![file("base/19/zz")]].concat());
    let mut odd = more.clone();
    if let Some(Item::File(entry)) = odd.last_mut() {
        entry.size_bytes = 5;
        entry.content = Content::Extents(vec![Extent { crc32c: 1, stored: stored(77, 0) }]);
    }
    let read = |items: &[Item], of: &[Item]| {
        let lists = in_lists(items);
        let places: Vec<RecordLocation> = lists.iter().map(|(place, _)| *place).collect();
        let contents: Vec<Vec<u8>> = lists.iter().map(|(_, content)| content.clone()).collect();
        read_lists(&with_lists(of, &places, 12_000), &contents)
    };
    assert!(read(&items, &items).is_ok() && read(&more, &more).is_ok());
    assert!(read(&odd, &odd).is_ok());
    assert!(read(&odd, &more).is_err());
}

#[test]
fn a_change_of_a_file_changes_one_list() {
    let items = tree(3000);
    let before = in_lists(&items);
    let differing = |items: &[Item]| {
        let known: Vec<&[u8]> = before.iter().map(|(_, content)| content.as_slice()).collect();
        in_lists(items).iter().filter(|(_, content)| !known.contains(&content.as_slice())).count()
    };
    assert_eq!(differing(&items), 0);
    for at in [5, 700, 2999] {
        let mut changed = items.clone();
        if let Item::File(entry) = &mut changed[at] {
            entry.modified_unix_us += 1;
        }
        assert_eq!(differing(&changed), 1, "{at}");
        let mut gone = items.clone();
        gone.remove(at);
        assert!(differing(&gone) <= 2, "{at}");
        let mut new = items.clone();
        let mut path = items[at].path().to_vec();
        path.push(b'x');
        new.insert(at + 1, file(std::str::from_utf8(&path).unwrap()));
        assert!(differing(&new) <= 2, "{at}");
    }
}

#[test]
fn the_longest_items_fit_into_lists() {
    let tables = |count: usize| (0..count as u32).map(|n| TableRef { place: place(n, u32::MAX - 100), crc32c: n }).collect();
    let with_tables = |count: usize| {
        let mut longest = file(&"x".repeat(MAX_PATH_BYTES));
        if let Item::File(entry) = &mut longest {
            entry.size_bytes = count as u64 * 64 * 1024 * 1024;
            entry.content = Content::Tables(tables(count));
            (entry.owner, entry.group) = ("o".repeat(256), "g".repeat(256));
        }
        longest
    };
    let longest = with_tables(MAX_LISTED_TABLES);
    assert!(ItemLists::can_hold(&longest) && !ItemLists::can_hold(&with_tables(MAX_LISTED_TABLES + 1)));
    // Beside others it begins a list of its own.
    let mut lists = ItemLists::default();
    let mut ended = Vec::new();
    for item in [directory("a"), longest, directory("y")] {
        ended.extend(lists.add(&item).unwrap());
    }
    ended.extend(lists.finish());
    assert!(ended.len() <= 3 && ended.iter().all(|list| list.len() <= MAX_LIST_BYTES), "{}", ended.len());
    assert!(lists.finish().is_none());
    // A manifest without lists, or with too many, is none.
    let mut head = with_lists(&[directory("")], &[place(0, 0)], 12_000);
    head.truncate(head.len() - 3);
    assert_eq!(head.pop(), Some(1), "the number of lists");
    for count in [0, MAX_MANIFEST_LISTS as u64 + 1] {
        let mut head = head.clone();
        put_varint(&mut head, count);
        let mut reader = ManifestReader::of_backup(&summary(), 1 << 30);
        reader.feed(&head);
        assert!(reader.next_item().is_err(), "{count}");
    }
}
