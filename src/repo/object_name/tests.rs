//! Names are read as they are written, and no other way.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::pg::SegmentName;
use crate::store::ContentId;

fn wal_file() -> impl Strategy<Value = StoredName> {
    let segment = (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(timeline, log, segment)| SegmentName {
        timeline: Timeline(timeline),
        log,
        segment,
    });
    (segment, any::<u32>(), 0..4_u8, 1..10_u32).prop_map(|(name, offset, kind, copy)| match kind {
        0 => WalFileName::Segment(name).into(),
        1 => WalFileName::History(name.timeline).into(),
        2 => StoredName { file: WalFileName::Partial(name), copy },
        _ => StoredName { file: WalFileName::Backup(name, offset), copy },
    })
}

fn backup_id() -> impl Strategy<Value = BackupId> {
    (0..200_000_000_000_i64, any::<u32>()).prop_map(|(second, random)| BackupId::new(second, random).unwrap())
}

fn of_a_cluster() -> impl Strategy<Value = ObjectName> {
    let cluster = "[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}".prop_map(|name| ClusterName::new(&name).unwrap());
    let level = (1..=MAX_LEVEL, any::<u64>()).prop_map(|(level, number)| (level, number / span(level) * span(level)));
    let parts = (cluster, any::<u64>().prop_map(SystemId), wal_file(), backup_id(), any::<u32>(), level, 0..11_u8);
    parts.prop_map(|(cluster, system_id, file, backup, number, (level, first_segment), kind)| match kind {
        0 => ObjectName::Binding { cluster, generation: number % 100_000_000 },
        1 => ObjectName::Node { cluster, system_id, timeline: Timeline(number), level, first_segment },
        2 => ObjectName::Pack { cluster, system_id, pack: PackId { backup, number } },
        3 => ObjectName::Manifest { cluster, system_id, backup },
        4 => ObjectName::BegunBackup { cluster, system_id, backup },
        5 => {
            let part = [TombstonePart::Names, TombstonePart::Open, TombstonePart::Begun][(number % 3) as usize];
            ObjectName::Tombstone { cluster, system_id, id: backup, part }
        }
        6 => ObjectName::Pin { cluster, system_id, backup, number: number % 100_000_000 },
        7 => ObjectName::Evidence { cluster, system_id, id: backup },
        8 => {
            let (timeline, level) = (Timeline(number), 1 + number % MAX_CHANGES_LEVEL);
            ObjectName::Changes { cluster, system_id, timeline, level, first_segment: first_segment / span(level) * span(level) }
        }
        9 => ObjectName::BackupIndex { cluster, system_id, first: backup, last: backup },
        _ => ObjectName::Wal { cluster, system_id, file },
    })
}

fn any_name() -> impl Strategy<Value = ObjectName> {
    let key = "[a-z0-9]{1,9}(/[a-z0-9][a-z0-9._-]{0,9}){0,3}".prop_map(|key| Key::new(key).unwrap());
    (of_a_cluster(), key, any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u64>(), 0..9_u8).prop_map(
        |(name, key, one, other, random, kind)| match kind {
            0 => ObjectName::Descriptor,
            1 => ObjectName::DataKey { key_id: KeyId(one), wrapping_key_id: KeyId(other) },
            2 => ObjectName::Probe(key),
            4 => ObjectName::Repair { number: 1 + u32::from(one[0]), of: Box::new(name) },
            3 => ObjectName::Claim(ClaimName { object: key, content: ContentId(one), random }),
            _ => name,
        },
    )
}

proptest! {
    #[test]
    fn a_name_that_is_written_is_read_again(name in any_name()) {
        let text = name.to_string();
        prop_assert_eq!(name.key().unwrap().to_string(), text.clone());
        prop_assert_eq!(ObjectName::parse(&text), Some(name));
    }

    /// One character more, less or otherwise makes it another name or none; nothing has two spellings.
    #[test]
    fn every_name_has_one_spelling(name in any_name(), at in any::<prop::sample::Index>(), change in 0..3, other in "[ -~]") {
        let mut text = name.to_string();
        let at = at.index(text.len());
        let end = if change == 0 { at } else { at + 1 };
        text.replace_range(at..end, if change == 1 { "" } else { &other });
        if let Some(read) = ObjectName::parse(&text) {
            prop_assert_eq!(read.to_string(), text);
        }
    }

    #[test]
    fn names_of_others_are_read_without_a_panic(text in "[a-zA-Z0-9/._-]{0,80}|\\PC{0,40}") {
        if let Some(read) = ObjectName::parse(&text) {
            prop_assert_eq!(read.to_string(), text);
        }
    }
}

#[test]
fn kinds_follow_from_names() {
    let segment = "00000001000000A0000000FE";
    let zeros = "0".repeat(32);
    let tombstone = |suffix: &str| format!("clusters/main/7/tombstones/20260102T030405Z-0000beef{suffix}");
    let names = [
        ("walvis.json".to_owned(), NameKind::Descriptor, None),
        (format!("keys/{zeros}/{zeros}.json"), NameKind::DataKey, None),
        ("clusters/main/bindings/00000001".to_owned(), NameKind::Binding, Some(ObjectKind::Binding)),
        (format!("clusters/main/7/wal/00000001/000000A0/{segment}"), NameKind::WalFile, Some(ObjectKind::Segment)),
        (format!("clusters/main/7/wal/00000001/000000A0/{segment}.partial"), NameKind::WalFile, Some(ObjectKind::Partial)),
        (format!("clusters/main/7/wal/00000001/000000A0/{segment}.00000028.backup"), NameKind::WalFile, Some(ObjectKind::Backup)),
        (format!("clusters/main/7/wal/00000001/000000A0/{segment}.partial.2"), NameKind::WalCopy, Some(ObjectKind::Partial)),
        ("clusters/main/7/wal/history/0000000B.history".to_owned(), NameKind::History, Some(ObjectKind::History)),
        ("clusters/main/7/index/00000001/2/000000000001/0000000000010100".to_owned(), NameKind::Node, Some(ObjectKind::Node)),
        (
            "clusters/main/7/index/00000001/c2/000000000001/0000000000010100".to_owned(),
            NameKind::Changes,
            Some(ObjectKind::Changes),
        ),
        ("clusters/main/7/packs/20260102T030405Z-0000beef/0000000a".to_owned(), NameKind::Pack, Some(ObjectKind::Pack)),
        ("clusters/main/7/backups/20260102T030405Z-0000beef".to_owned(), NameKind::Manifest, Some(ObjectKind::Manifest)),
        (format!("claims/walvis.json/{zeros}-00000000000000ff"), NameKind::Claim, None),
        (
            "clusters/main/7/index/backups/20260102T030405Z-0000beef/20250102T030405Z-0000beef".to_owned(),
            NameKind::BackupIndex,
            Some(ObjectKind::BackupIndex),
        ),
        ("clusters/main/7/begun/20260102T030405Z-0000beef".to_owned(), NameKind::BegunBackup, Some(ObjectKind::BegunBackup)),
        (tombstone(""), NameKind::Tombstone, Some(ObjectKind::Tombstone)),
        (tombstone(".open"), NameKind::TombstoneOpen, Some(ObjectKind::Tombstone)),
        (tombstone(".begun"), NameKind::TombstoneBegun, Some(ObjectKind::Tombstone)),
        ("clusters/main/7/pins/20260102T030405Z-0000beef/00000001".to_owned(), NameKind::Pin, Some(ObjectKind::Pin)),
        ("clusters/main/7/evidence/20260102T030405Z-0000beef".to_owned(), NameKind::Evidence, Some(ObjectKind::Evidence)),
        ("repairs/1/clusters/main/bindings/00000001".to_owned(), NameKind::Repair, Some(ObjectKind::Binding)),
        ("probe/kept".to_owned(), NameKind::Probe, None),
    ];
    let mut seen = HashSet::new();
    for (text, kind, sealed) in names {
        let name = ObjectName::parse(&text).unwrap_or_else(|| panic!("{text} is not read"));
        assert_eq!((name.kind(), name.sealed_kind(), name.to_string().as_str()), (kind, sealed, text.as_str()));
        assert_eq!(name.cluster().is_some(), text.contains("clusters/"));
        seen.insert(kind);
    }
    assert_eq!(seen, HashSet::from(NameKind::ALL));
}

#[test]
fn other_names_are_ignored() {
    let (zeros, segment) = ("0".repeat(32), "00000001000000A0000000FE");
    for text in [
        "",
        "walvis.json/x",
        "Walvis.json",
        "clusters/main",
        "clusters/-main/bindings/00000001",
        "clusters/main/bindings/1",
        "clusters/main/bindings/000000001",
        "clusters/main/7/bindings/00000001",
        "clusters/main/07/backups/20260102T030405Z-0000beef",
        "clusters/main/7/backups/20260102T030405Z-0000BEEF",
        "clusters/main/7/backups/20260102T030405Z-0000beef/x",
        "clusters/main/7/packs/20260102T030405Z-0000beef/A",
        "clusters/main/7/packs/20260102T030405Z-0000beef",
        // Of another directory, of no level, of the middle of a node.
        "clusters/main/7/index/00000001/1/000000000002/0000000000010100",
        "clusters/main/7/index/00000001/0/000000000001/0000000000010100",
        "clusters/main/7/index/00000001/12/000000000000/0000000000000000",
        "clusters/main/7/index/00000001/2/000000000001/0000000000010110",
        "clusters/main/7/index/0000000a/2/000000000001/0000000000010100",
        "clusters/main/7/index/00000001/c4/000000000000/0000000000000000",
        "clusters/main/7/index/00000001/c0/000000000000/0000000000000000",
        "clusters/main/7/index/00000001/c02/000000000001/0000000000010100",
        "clusters/main/7/index/00000001/C2/000000000001/0000000000010100",
        "clusters/main/7/wal/history/0000000B.history.2",
        "clusters/main/7/wal/0000000B/00000000/0000000B.history",
        "claims/walvis.json",
        "probe/",
        "probe/.x",
        "dumps/x",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([
        format!("keys/{zeros}/{zeros}"),
        format!("keys/{}/{zeros}.json", "A".repeat(32)),
        format!("clusters/main/7/wal/00000002/000000A0/{segment}"),
        format!("clusters/main/7/wal/history/{segment}"),
        format!("clusters/main/7/wal/00000001/000000A0/{segment}.2"),
        format!("claims/walvis.json/{zeros}-ff"),
    ]) {
        assert_eq!(ObjectName::parse(&text), None, "{text}");
    }
}
