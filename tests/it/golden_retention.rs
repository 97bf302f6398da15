//! Golden vectors of what retention stores: what version 1 wrote must be readable for ever, and what is damaged must be
//! refused, or count for the careful answer. The objects belong into the repository
//! `tests/golden/repository/by-key-file`; their content is written here as docs/FORMAT.md has it. `WALVIS_TEST_BLESS=1`
//! writes them anew, for a new version of the format only.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use walvis::deadline::Deadline;
use walvis::error::Kind;
use walvis::format::extent::{BackupId, PackId};
use walvis::pg::{SegmentName, Timeline, WalFileName, WalSegmentSize};
use walvis::repo::backups::Given;
use walvis::repo::{
    ClusterName, Content, Facts, KeySource, ObjectName, ObjectSet, Repository, StoreSettings, StoreUrl, StoredName, SystemId,
    TombstonePart,
};

use crate::support::command::files_below;

const SYSTEM: SystemId = SystemId(7_123_456_789_012_345_678);
const FINISHED: &str = "20261121T061500Z-1a2b3c4d";
const GIVEN_UP: &str = "20261122T061500Z-2b3c4d5e";
const TOMBSTONE: &str = "20261123T061500Z-3c4d5e6f";
const WITHDRAWN: &str = "20261124T061500Z-4d5e6f70";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn id(text: &str) -> BackupId {
    BackupId::parse(text).unwrap()
}

fn main_cluster() -> ClusterName {
    ClusterName::new("main").unwrap()
}

fn facts() -> Facts {
    Facts { system_id: SYSTEM, wal_segment_size: WalSegmentSize::new(16 << 20).unwrap(), postgres_major: Some(18) }
}

fn copy(from: &Path, to: &Path) {
    for file in files_below(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, target).unwrap();
    }
}

/// The golden repository, without what retention stores.
fn empty() -> (TempDir, Repository) {
    let dir = TempDir::new().unwrap();
    copy(&golden("repository/by-key-file"), dir.path());
    let deadline = Deadline::after(Duration::from_secs(60));
    let settings = StoreSettings { url: StoreUrl::File(dir.path().to_owned()), create_if_absent: None, known: None };
    let key = KeySource::File(golden("repository/key")).read(&deadline).unwrap();
    let repository = Repository::open(&settings, &key, 1, deadline).unwrap();
    (dir, repository)
}

/// What the tombstone names.
fn named() -> ObjectSet {
    let mut names = ObjectSet::new(facts().wal_segment_size);
    names.insert_segments(Timeline(1), 1, 300);
    let partial = SegmentName::from_number(Timeline(1), 301, facts().wal_segment_size).unwrap();
    names.insert_wal(&StoredName { file: WalFileName::Partial(partial), copy: 2 });
    (0..3).for_each(|number| names.insert_pack(PackId { backup: id(FINISHED), number }));
    names.insert_manifest(id(FINISHED));
    names
}

fn bless() {
    let (dir, repository) = empty();
    let cluster = main_cluster();
    let put = |name: ObjectName, json: &str| repository.put(&name, &Content::of_bytes(json.as_bytes())).map(drop).unwrap();
    let tombstone = |of: &str, part, json: &str| {
        put(ObjectName::Tombstone { cluster: cluster.clone(), system_id: SYSTEM, id: id(of), part }, json);
    };
    for backup in [FINISHED, GIVEN_UP] {
        let name = ObjectName::BegunBackup { cluster: cluster.clone(), system_id: SYSTEM, backup: id(backup) };
        put(name, &format!(r#"{{"backup_id":"{backup}"}}"#));
    }
    assert_eq!(repository.give_up(&cluster, SYSTEM, id(GIVEN_UP), "a golden vector").unwrap(), Given::Void);
    let names = format!(
        r#"{{"wal_segment_bytes":16777216,"segments":[{{"first_segment":"000000010000000000000001","last_segment":"00000001000000010000002C"}}],"wal_files":["00000001000000010000002D.partial.2"],"packs":[{{"backup_id":"{FINISHED}","first":0,"last":2}}],"manifests":["{FINISHED}"]}}"#
    );
    tombstone(TOMBSTONE, TombstonePart::Names, &names);
    tombstone(TOMBSTONE, TombstonePart::Open, &format!(r#"{{"backups":["{GIVEN_UP}"]}}"#));
    tombstone(TOMBSTONE, TombstonePart::Begun, r#"{"fate":"deletes"}"#);
    let nothing = r#"{"wal_segment_bytes":16777216,"segments":[],"wal_files":[],"packs":[],"manifests":[]}"#;
    tombstone(WITHDRAWN, TombstonePart::Names, nothing);
    tombstone(WITHDRAWN, TombstonePart::Open, r#"{"backups":[]}"#);
    tombstone(WITHDRAWN, TombstonePart::Begun, r#"{"fate":"withdrawn"}"#);
    let pin = |backup: &str, number, json: &str| {
        put(ObjectName::Pin { cluster: cluster.clone(), system_id: SYSTEM, backup: id(backup), number }, json);
    };
    let written = r#""written_unix_s":1795241700"#;
    pin(
        FINISHED,
        1,
        &format!(r#"{{"backup_id":"{FINISHED}","keep":true,"reason":"an audit","until_unix_s":1890000000,{written}}}"#),
    );
    pin(GIVEN_UP, 1, &format!(r#"{{"backup_id":"{GIVEN_UP}","keep":true,"reason":"a mistake",{written}}}"#));
    pin(GIVEN_UP, 2, &format!(r#"{{"backup_id":"{GIVEN_UP}","keep":false,"reason":"",{written}}}"#));
    let target = golden("retention");
    if target.exists() {
        fs::remove_dir_all(&target).unwrap();
    }
    copy(&dir.path().join("clusters"), &target.join("clusters"));
}

#[test]
fn what_retention_stored_in_version_1_is_read_and_damaged_objects_are_not() {
    if std::env::var_os("WALVIS_TEST_BLESS").is_some() {
        bless();
    }
    let (dir, repository) = empty();
    copy(&golden("retention"), dir.path());
    let cluster = main_cluster();
    let begun = repository.begun_backups(&cluster, SYSTEM).unwrap();
    assert_eq!(begun.iter().map(|backup| backup.id).collect::<Vec<_>>(), [id(FINISHED), id(GIVEN_UP)]);
    assert_eq!(repository.backup_ids(&cluster, SYSTEM).unwrap(), [], "a void is no backup");
    assert_eq!(repository.give_up(&cluster, SYSTEM, id(GIVEN_UP), "once more").unwrap(), Given::Void);
    let listed = repository.tombstones(&cluster, SYSTEM).unwrap();
    assert_eq!(
        listed.iter().map(|listed| (listed.id, listed.parts.len())).collect::<Vec<_>>(),
        [(id(TOMBSTONE), 3), (id(WITHDRAWN), 3)]
    );
    assert_eq!(repository.read_tombstone(&cluster, SYSTEM, id(TOMBSTONE)).unwrap().unwrap(), named());
    assert_eq!(repository.tombstoned(&cluster, facts(), &[]).unwrap().names, named());
    let going = repository.deletion_of_backup_has_begun(&cluster, SYSTEM, id(FINISHED)).unwrap();
    assert_eq!(going, Some(id(TOMBSTONE)));
    assert!(repository.begin_deletion(&cluster, SYSTEM, id(WITHDRAWN)).unwrap().is_none());
    let deletion = repository.begin_deletion(&cluster, SYSTEM, id(TOMBSTONE)).unwrap().unwrap();
    // FINISHED has begun, has no manifest, and its packs are named.
    assert_eq!((deletion.names, deletion.given_up), (named(), vec![id(FINISHED)]));
    let pins = repository.pins(&cluster, SYSTEM).unwrap();
    assert_eq!(pins.len(), 1);
    assert_eq!((pins[0].backup, pins[0].reason.as_str()), (id(FINISHED), "an audit"));
    assert_eq!((pins[0].until_unix_s, pins[0].pinned_unix_s), (Some(1_890_000_000), 1_795_241_700));

    // A bit of each object, from its header to its last byte.
    let below = |part: &str| golden("retention").join("clusters/main").join(SYSTEM.to_string()).join(part);
    let mut damaged = 0;
    for file in files_below(&golden("retention")) {
        let bytes = fs::read(&file).unwrap();
        for at in [20, bytes.len() / 2, bytes.len() - 1] {
            let (dir, repository) = empty();
            copy(&golden("retention"), dir.path());
            let changed = dir.path().join(file.strip_prefix(golden("retention")).unwrap());
            let mut other = bytes.clone();
            other[at] ^= 0x10;
            fs::remove_file(&changed).unwrap();
            fs::write(&changed, other).unwrap();
            let refused = |kind: Kind| matches!(kind, Kind::Damaged | Kind::Denied);
            damaged += 1;
            if file == below("tombstones").join(TOMBSTONE) {
                let all = repository.tombstoned(&cluster, facts(), &[]).unwrap();
                assert_eq!(all.unreadable.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [id(TOMBSTONE)]);
                assert!(refused(repository.begin_deletion(&cluster, SYSTEM, id(TOMBSTONE)).unwrap_err().kind));
            } else if file.starts_with(below("tombstones")) && file.to_str().unwrap().contains(TOMBSTONE) {
                assert!(refused(repository.begin_deletion(&cluster, SYSTEM, id(TOMBSTONE)).unwrap_err().kind), "{file:?}");
            } else if file == below("tombstones").join(format!("{WITHDRAWN}.begun")) {
                assert!(refused(repository.begin_deletion(&cluster, SYSTEM, id(WITHDRAWN)).unwrap_err().kind));
            } else if file.starts_with(below("pins")) && !file.ends_with("00000001") {
                // It may have said that the backup is to be kept.
                assert_eq!(repository.pins(&cluster, SYSTEM).unwrap().len(), 2);
            } else if file.starts_with(below("pins").join(FINISHED)) {
                assert!(repository.pins(&cluster, SYSTEM).unwrap()[0].until_unix_s.is_none());
            } else if file.starts_with(below("backups")) && at == bytes.len() - 1 {
                // Its plaintext is empty: what says that it is a void is the metadata, and that is whole.
                assert_eq!(repository.give_up(&cluster, SYSTEM, id(GIVEN_UP), "x").unwrap(), Given::Void);
            } else if file.starts_with(below("backups")) {
                assert!(refused(repository.give_up(&cluster, SYSTEM, id(GIVEN_UP), "x").unwrap_err().kind));
                assert_eq!(repository.backup_ids(&cluster, SYSTEM).unwrap(), [id(GIVEN_UP)], "whoever reads it finds out");
            } else {
                damaged -= 1;
            }
        }
    }
    assert!(damaged >= 15, "{damaged}");
}
