//! The index of backups: it answers what the manifests say with few reads, and is never relied on for what it cannot
//! know.

use std::io::Cursor;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use walvis::deadline::Deadline;
use walvis::error::Kind;
use walvis::format::extent::BackupId;
use walvis::format::manifest::BackupSummary;
use walvis::limits::BACKUPS_PER_INDEX;
use walvis::pg::Lsn;
use walvis::pg::target::{Target, Zone};
use walvis::recovery::{ResolveRequest, answer};
use walvis::repo::{ClusterName, ObjectName, Repository, Secret, StoreSettings, StoreUrl};
use walvis::store::fault::{Fault, Op};
use walvis::store::memory::MemoryStore;
use walvis::store::{ContentId, Key, ReadRange, Store};

use crate::resolve_random::{facts, put};
use crate::support::backup::made_up;
use crate::support::wal::{SEGMENT_BYTES, Writer};

struct World {
    memory: Arc<MemoryStore>,
    store: Arc<Fault>,
    repository: Repository,
    cluster: ClusterName,
}

fn id(number: u32) -> BackupId {
    BackupId::new(1_790_000_000 + i64::from(number) * 3600, number).unwrap()
}

/// Of a manifest that is longer than what a void may be, of which each is looked at.
fn long_content() -> Vec<u8> {
    let mut bytes = vec![0; 5000];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("repository");
        let settings = StoreSettings { url: StoreUrl::File(root.clone()), create_if_absent: None, known: None };
        Repository::init(&settings, &Secret::None, 1, Deadline::after(Duration::from_secs(60))).unwrap();
        let memory = Arc::new(MemoryStore::new());
        let descriptor = Bytes::from(std::fs::read(root.join("walvis.json")).unwrap());
        let _ = memory.create(&Key::new("walvis.json").unwrap(), descriptor, &ContentId([0; 16])).unwrap();
        let store = Arc::new(Fault::new(Arc::clone(&memory) as Arc<dyn Store>));
        let repository = Repository::over(Arc::clone(&store) as Arc<dyn Store>, &Secret::None, 1).unwrap();
        Self { memory, store, repository, cluster: ClusterName::new("main").unwrap() }
    }

    fn put_backup(&self, number: u32, start: Lsn) -> BackupSummary {
        let summary = BackupSummary {
            start_lsn: start,
            checkpoint_lsn: start,
            stop_lsn: start,
            started_unix_us: 0,
            wal_segment_bytes: SEGMENT_BYTES,
            ..made_up(id(number), facts().system_id)
        };
        let content = long_content();
        self.repository
            .put_manifest(&self.cluster, facts().system_id, &summary, || Box::new(Cursor::new(content.clone())))
            .unwrap();
        summary
    }

    /// Backups one by one, each with a look whether the index is to go on.
    fn put_backups(&self, numbers: std::ops::Range<u32>) -> Vec<BackupSummary> {
        let put = |number| {
            let summary = self.put_backup(number, Lsn(SEGMENT_BYTES + u64::from(number) * 8));
            self.index();
            summary
        };
        numbers.map(put).collect()
    }

    fn index(&self) -> bool {
        self.repository.index_backups(&self.cluster, facts().system_id).unwrap()
    }

    /// What is known of all backups, and with how many reads.
    fn known(&self) -> (Vec<BackupSummary>, usize) {
        let before = self.store.calls(Op::Read);
        let known = self.repository.known_backups(&self.cluster, facts().system_id).unwrap();
        let summaries = known.into_iter().map(|backup| backup.summary.unwrap()).collect();
        (summaries, self.store.calls(Op::Read) - before)
    }

    fn parts(&self) -> Vec<ObjectName> {
        let mut parts = Vec::new();
        self.memory
            .list("", "", &mut |entry| {
                let name = ObjectName::parse(entry.key.as_str());
                parts.extend(name.filter(|name| matches!(name, ObjectName::BackupIndex { .. })));
                ControlFlow::Continue(())
            })
            .unwrap();
        parts
    }

    fn damage(&self, name: &ObjectName) {
        let key = name.key().unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut self.memory.read(&key, ReadRange::All).unwrap().body, &mut bytes).unwrap();
        // Of what is known of it.
        bytes[100] ^= 1;
        self.memory.delete(&key).unwrap();
        let _ = self.memory.create(&key, bytes.into(), &ContentId([0; 16])).unwrap();
    }

    fn manifest(&self, number: u32) -> ObjectName {
        ObjectName::Manifest { cluster: self.cluster.clone(), system_id: facts().system_id, backup: id(number) }
    }

    fn resolve(&self, backup: Option<u32>) -> Result<walvis::report::resolve::ResolveReport, walvis::error::Error> {
        let request = ResolveRequest {
            target: Target::Latest,
            inclusive: true,
            timeline: None,
            from: None,
            backup: backup.map(id),
            system_id: None,
            zone: Zone::utc(),
        };
        answer(&self.repository, &self.cluster, facts(), &request)
    }
}

#[test]
fn many_backups_are_known_with_few_reads() {
    let world = World::new();
    let few = world.put_backups(0..BACKUPS_PER_INDEX as u32 - 1);
    assert!(world.parts().is_empty());
    assert!(world.known() == (few.clone(), few.len()));
    let all = [few, world.put_backups(BACKUPS_PER_INDEX as u32 - 1..300)].concat();
    let (known, reads) = world.known();
    assert!(known == all);
    // Those that are in no part yet, and the parts.
    assert!(reads < BACKUPS_PER_INDEX + 6, "{reads}");

    // What goes is not known any more; one that came late is.
    for gone in [3, 40, 41, 299] {
        world.repository.objects().delete(&world.manifest(gone)).unwrap();
    }
    let late = BackupSummary { started_unix_us: 0, ..made_up(BackupId::new(1_790_003_605, 9).unwrap(), facts().system_id) };
    let content = long_content();
    world.repository.put_manifest(&world.cluster, facts().system_id, &late, || Box::new(Cursor::new(content.clone()))).unwrap();
    let mut expected: Vec<BackupSummary> =
        all.into_iter().filter(|summary| ![3, 40, 41, 299].map(id).contains(&summary.id)).chain([late]).collect();
    expected.sort_by_key(|summary| summary.id);
    assert!(world.known().0 == expected);

    // Parts that cannot be read, and none at all.
    world.damage(world.parts().last().unwrap());
    assert!(world.known().0 == expected);
    assert!(world.index(), "what the damaged part knew is written again");
    assert!(world.known().0 == expected);
    for part in world.parts() {
        world.repository.objects().delete(&part).unwrap();
    }
    assert!(world.known() == (expected.clone(), expected.len()));
    assert!(world.index() && !world.index());
    assert!(world.known() == (expected, 1));
}

#[test]
fn parts_that_nobody_needs_can_be_told() {
    let world = World::new();
    world.put_backups(0..200);
    let unneeded = |ids: std::ops::Range<u32>| {
        world.repository.unneeded_indexes(&world.cluster, facts().system_id, &ids.map(id).collect()).unwrap()
    };
    let superseded = unneeded(0..200);
    assert!(!superseded.is_empty() && superseded.len() < world.parts().len());
    let (known, reads) = world.known();
    for part in superseded {
        world.repository.objects().delete(&part).unwrap();
    }
    assert!(world.known() == (known, reads), "they are not read either");
    assert!(unneeded(0..200).is_empty());
    assert_eq!(unneeded(0..0).len(), world.parts().len());
}

#[test]
fn a_restore_does_not_rely_on_what_the_index_alone_knows() {
    let world = World::new();
    let mut writer = Writer::new(7, 1);
    (0..6).for_each(|_| writer.segment());
    let log = writer.finish();
    for (_, name, bytes) in &log.segments {
        put(&world.repository, &world.cluster, *name, bytes, true);
    }
    let start = log.found.iter().map(|record| record.start).find(|start| start.0 > 2 * SEGMENT_BYTES).unwrap();
    (0..40).for_each(|number| drop(world.put_backup(number, start)));
    assert!(world.index());
    let chosen = |report: &walvis::report::resolve::ResolveReport| report.backup.as_ref().unwrap().backup_id.clone().unwrap();
    let report = world.resolve(None).unwrap();
    assert!(report.reachable, "{report:?}");
    assert_eq!(chosen(&report), id(39).to_string());

    // The index says nothing of it: its manifest has to be there.
    world.damage(&world.manifest(39));
    let report = world.resolve(None).unwrap();
    assert_eq!((report.reachable, chosen(&report)), (true, id(38).to_string()));
    assert_eq!(report.damaged_backups.len(), 1);
    assert!(report.notes.iter().any(|note| note.contains(&format!("backup {} is left out", id(39)))), "{:?}", report.notes);
    let error = world.resolve(Some(39)).unwrap_err();
    assert!(error.kind == Kind::Damaged && error.what.contains(&id(39).to_string()), "{error:?}");
    assert!(world.resolve(Some(37)).unwrap().reachable);
}
