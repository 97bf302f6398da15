//! The steps of the protocol on a store in memory: what each leaves, and what it answers. Their orders are tried by the
//! model in `src/retention/model.rs`.

use std::io::Cursor;
use std::sync::Arc;

use super::*;
use crate::crypto::DataKeys;
use crate::format::descriptor::{CreateIfAbsent, Descriptor, RepositoryCipher};
use crate::format::extent::PackId;
use crate::format::manifest::tests::made_up;
use crate::pg::{SegmentName, WalFileName};
use crate::repo::backups::Given;
use crate::repo::raw_objects::RawObjects;
use crate::repo::stored_name::StoredName;
use crate::store::ContentId;
use crate::store::memory::MemoryStore;

struct World {
    repository: Repository,
    cluster: ClusterName,
    facts: Facts,
}

fn world() -> World {
    let create_if_absent = CreateIfAbsent::Store;
    let descriptor = Descriptor { repository_id: [1; 16], cipher: RepositoryCipher::None, create_if_absent, created_unix_s: 0 };
    let objects = RawObjects::new(Arc::new(MemoryStore::new()));
    let repository = Repository::new(objects, descriptor, DataKeys::Unencrypted, 1, 1);
    let facts =
        Facts { system_id: SystemId(7), wal_segment_size: WalSegmentSize::new(16 << 20).unwrap(), postgres_major: Some(18) };
    World { repository, cluster: ClusterName::new("main").unwrap(), facts }
}

fn id(number: u32) -> BackupId {
    BackupId::new(1_790_000_000 + i64::from(number), number).unwrap()
}

impl World {
    fn begin(&self, number: u32) {
        self.repository.begin_backup(&self.cluster, self.facts.system_id, id(number)).unwrap();
    }

    fn complete(&self, number: u32) -> Result<(), Error> {
        let open = || -> Box<dyn std::io::Read> { Box::new(Cursor::new(Vec::new())) };
        self.repository.complete_backup(&self.cluster, self.facts.system_id, &made_up(id(number)), open).map(drop)
    }

    fn put_raw(&self, name: &ObjectName) {
        let created = self.repository.objects().create(name, "x".into(), &ContentId([0; 16])).unwrap();
        assert_eq!(created, Created::New);
    }

    fn put_pack(&self, number: u32) {
        let pack = PackId { backup: id(number), number: 0 };
        self.put_raw(&ObjectName::Pack { cluster: self.cluster.clone(), system_id: self.facts.system_id, pack });
    }

    fn delete_pack(&self, number: u32) {
        let pack = PackId { backup: id(number), number: 0 };
        let name = ObjectName::Pack { cluster: self.cluster.clone(), system_id: self.facts.system_id, pack };
        self.repository.objects().delete(&name).unwrap();
    }

    fn manifest(&self, number: u32) -> ObjectName {
        ObjectName::Manifest { cluster: self.cluster.clone(), system_id: self.facts.system_id, backup: id(number) }
    }

    /// A tombstone that names the manifests and packs of these backups; not complete.
    fn tombstone(&self, numbers: &[u32]) -> TombstoneId {
        let mut names = ObjectSet::new(self.facts.wal_segment_size);
        for number in numbers {
            names.insert_manifest(id(*number));
            names.insert_pack(PackId { backup: id(*number), number: 0 });
        }
        self.repository.put_tombstone(&self.cluster, self.facts.system_id, &names).unwrap()
    }

    fn complete_tombstone(&self, id: TombstoneId) {
        self.repository.complete_tombstone(&self.cluster, self.facts.system_id, id).unwrap();
    }

    fn begin_deletion(&self, id: TombstoneId) -> Option<Deletion> {
        self.repository.begin_deletion(&self.cluster, self.facts.system_id, id).unwrap()
    }

    fn ids(&self) -> Vec<BackupId> {
        let ids = self.repository.backup_ids(&self.cluster, self.facts.system_id).unwrap();
        // Whoever reads sees the same.
        let listed = self.repository.backups(&self.cluster, self.facts.system_id).unwrap();
        assert_eq!(listed.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
        ids
    }

    fn remove(&self, id: TombstoneId) -> Removal {
        self.repository.remove_tombstone(&self.cluster, self.facts, id).unwrap()
    }

    fn avoided(&self, number: u32) -> bool {
        let all = self.repository.tombstoned(&self.cluster, self.facts, &[]).unwrap();
        assert!(all.unreadable.is_empty());
        all.names.has_pack(PackId { backup: id(number), number: 0 })
    }
}

#[test]
fn a_backup_that_is_given_up_fails_at_its_end_and_is_no_backup_to_readers() {
    let world = world();
    let system_id = world.facts.system_id;
    (1..=3).for_each(|number| world.begin(number));
    world.complete(1).unwrap();
    let give_up = |number| world.repository.give_up(&world.cluster, system_id, id(number), "a test").unwrap();
    assert_eq!(give_up(1), Given::Manifest);
    assert_eq!((give_up(2), give_up(2)), (Given::Void, Given::Void));
    let error = world.complete(2).unwrap_err();
    assert_eq!(error.kind, Kind::Refused, "{error}");
    assert!(error.what.contains("was given up") && error.hint.is_some(), "{error}");
    assert_eq!(world.ids(), [id(1)]);
    assert!(world.repository.backup_summary(&world.cluster, system_id, id(2)).unwrap().is_none());
    let read = world.repository.read_manifest(&world.cluster, system_id, id(2), &mut |_, _| panic!("an item of a void"));
    assert!(read.unwrap().is_none());
    assert!(!world.repository.has_backup(&world.cluster, system_id, id(2)).unwrap());
    // A second call after a lost answer.
    world.complete(3).unwrap();
    world.complete(3).unwrap();
    assert_eq!(world.ids(), [id(1), id(3)]);
    // What is small and no void is found by whoever reads it.
    world.put_raw(&world.manifest(4));
    assert_eq!(world.ids(), [id(1), id(3), id(4)]);
    assert!(world.repository.give_up(&world.cluster, system_id, id(4), "a test").is_err());
}

#[test]
fn a_manifest_that_expired_is_not_brought_back_by_its_own_writer() {
    let world = world();
    world.begin(1);
    world.complete(1).unwrap();
    // Its writer sleeps before it has the answer, for longer than the backup is kept.
    world.repository.forget_begun(&world.cluster, world.facts.system_id, &[id(1)]).unwrap();
    world.repository.objects().delete(&world.manifest(1)).unwrap();
    let error = world.complete(1).unwrap_err();
    assert_eq!(error.kind, Kind::Refused, "{error}");
    assert!(error.what.contains("expired before"), "{error}");
    assert_eq!(world.ids(), []);
}

#[test]
fn a_deletion_gives_up_what_had_begun_and_lists_what_it_names() {
    let world = world();
    (1..=4).for_each(|number| world.begin(number));
    [1, 4].into_iter().for_each(|number| world.complete(number).unwrap());
    (1..=3).for_each(|number| world.put_pack(number));
    let tombstone = world.tombstone(&[1]);
    // Nothing is done by one that is not complete.
    assert!(world.begin_deletion(tombstone).is_none());
    world.complete_tombstone(tombstone);
    world.complete_tombstone(tombstone);
    // This one begins later, and knows of it.
    world.begin(5);
    world.complete(3).unwrap();
    let deletion = world.begin_deletion(tombstone).unwrap();
    assert_eq!(deletion.given_up, [id(2)]);
    assert!(deletion.names.has_manifest(id(1)) && deletion.names.count() == 2);
    assert_eq!(world.complete(2).unwrap_err().kind, Kind::Refused);
    world.complete(5).unwrap();
    // The next run goes on.
    assert_eq!(world.begin_deletion(tombstone).unwrap().given_up, []);
    let listed = world.repository.tombstones(&world.cluster, world.facts.system_id).unwrap();
    assert_eq!(listed.len(), 1);
    assert!(listed[0].open_unix_s().is_some() && listed[0].begun_unix_s().is_some());

    // Its packs are avoided as long as one of its objects is there.
    assert!(world.avoided(1) && !world.avoided(2));
    assert_eq!(world.remove(tombstone), Removal::Stays(2));
    world.repository.objects().delete(&world.manifest(1)).unwrap();
    assert_eq!(world.remove(tombstone), Removal::Stays(1));
    world.delete_pack(1);
    assert_eq!(world.remove(tombstone), Removal::Removed);
    assert_eq!(world.repository.tombstones(&world.cluster, world.facts.system_id).unwrap(), []);
    assert!(world.begin_deletion(tombstone).is_none());
    assert_eq!(world.remove(tombstone), Removal::Removed);
}

#[test]
fn backups_whose_packs_a_tombstone_names_are_given_up_even_if_they_began_after_it() {
    let world = world();
    world.put_pack(1);
    world.put_pack(2);
    let tombstone = world.tombstone(&[1, 2]);
    world.complete_tombstone(tombstone);
    world.begin(1);
    assert_eq!(world.begin_deletion(tombstone).unwrap().given_up, [id(1)], "of 2 nobody knows that it began");
}

#[test]
fn what_is_withdrawn_is_never_acted_on_and_what_is_acted_on_never_withdrawn() {
    let world = world();
    let system_id = world.facts.system_id;
    world.put_pack(1);
    let withdraw = |id| world.repository.withdraw_tombstone(&world.cluster, system_id, id).unwrap();
    let (first, second) = (world.tombstone(&[1]), world.tombstone(&[1]));
    [first, second].into_iter().for_each(|id| world.complete_tombstone(id));
    assert!(withdraw(first) && withdraw(first));
    assert!(world.begin_deletion(first).is_none());
    assert!(world.avoided(1), "the second names it");
    assert!(world.begin_deletion(second).is_some());
    assert!(!withdraw(second));
    assert_eq!(world.remove(second), Removal::Stays(1));
    assert_eq!(world.remove(first), Removal::Removed);
    // A run that read it before, and creates its `.begun` only now, finds that the tombstone is gone.
    assert_eq!(world.repository.decide(&world.cluster, system_id, first, Fate::Deletes).unwrap(), Some(Fate::Deletes));
    assert!(world.begin_deletion(first).is_none());
    // One that nobody acted on is not removed.
    let third = world.tombstone(&[1]);
    let error = world.repository.remove_tombstone(&world.cluster, world.facts, third).unwrap_err();
    assert_eq!(error.kind, Kind::Bug, "{error}");
}

#[test]
fn a_tombstone_with_wal_stays_until_that_is_gone() {
    let world = world();
    let (system_id, size) = (world.facts.system_id, world.facts.wal_segment_size);
    let segment = |number| SegmentName::from_number(Timeline(1), number, size).unwrap();
    let wal = |file: WalFileName| ObjectName::wal(&world.cluster, system_id, StoredName::from(file));
    let partial = StoredName::from(WalFileName::Partial(segment(9)));
    let mut names = ObjectSet::new(size);
    names.insert_segments(Timeline(1), 0, 5);
    names.insert_wal(&partial);
    [0, 5, 6].into_iter().for_each(|number| world.put_raw(&wal(WalFileName::Segment(segment(number)))));
    world.put_raw(&wal(partial.file));
    let tombstone = world.repository.put_tombstone(&world.cluster, system_id, &names).unwrap();
    world.complete_tombstone(tombstone);
    assert!(world.begin_deletion(tombstone).is_some());
    for (left, file) in [(3, WalFileName::Segment(segment(0))), (2, WalFileName::Segment(segment(5))), (1, partial.file)] {
        assert_eq!(world.remove(tombstone), Removal::Stays(left));
        world.repository.objects().delete(&wal(file)).unwrap();
    }
    assert_eq!(world.remove(tombstone), Removal::Removed);
}

#[test]
fn a_tombstone_that_cannot_be_read_is_reported_and_not_acted_on() {
    let world = world();
    let system_id = world.facts.system_id;
    let forged = |which| part(&world.cluster, system_id, id(9), which);
    world.put_raw(&forged(TombstonePart::Names));
    world.put_raw(&forged(TombstonePart::Open));
    let all = world.repository.tombstoned(&world.cluster, world.facts, &[]).unwrap();
    assert!(all.names.is_empty());
    assert_eq!(all.unreadable.iter().map(|(id, error)| (*id, error.kind)).collect::<Vec<_>>(), [(id(9), Kind::Damaged)]);
    let error = world.repository.begin_deletion(&world.cluster, system_id, id(9)).unwrap_err();
    assert_eq!(error.kind, Kind::Damaged);
    assert!(error.hint.is_some());
    assert!(world.repository.tombstoned(&world.cluster, world.facts, &[id(9)]).unwrap().unreadable.is_empty());
}

#[test]
fn the_highest_pin_counts() {
    let world = world();
    let (cluster, system_id) = (&world.cluster, world.facts.system_id);
    let pin = |number, reason, until| world.repository.pin(cluster, system_id, id(number), reason, until);
    let pinned = || world.repository.pins(cluster, system_id).unwrap();
    let unpin = |number| world.repository.unpin(cluster, system_id, id(number)).unwrap();
    let long = "x".repeat(501);
    for (reason, until) in [("", None), (" ", None), ("two\nlines", None), (&*long, None), ("past", Some(5))] {
        assert_eq!(pin(1, reason, until).unwrap_err().kind, Kind::Usage, "{reason:?}");
    }
    assert_eq!(pin(1, "an audit", None).unwrap_err().kind, Kind::Target);
    assert_eq!(pinned(), []);
    (1..=2).for_each(|number| {
        world.begin(number);
        world.complete(number).unwrap();
    });
    assert!(!unpin(1));
    let until = jiff::Timestamp::now().as_second() + 1000;
    let first = pin(1, "an audit", None).unwrap();
    let second = pin(2, "before the migration", Some(until)).unwrap();
    assert_eq!(pinned(), [first, second.clone()]);
    assert!(second.keeps_at(until - 1) && !second.keeps_at(until));
    let again = pin(1, "a longer audit", Some(until)).unwrap();
    assert_eq!(pinned(), [again, second.clone()]);
    assert!(unpin(1) && !unpin(1));
    assert_eq!(pinned(), [second]);
    // What nobody can read keeps the backup, until somebody says otherwise.
    world.put_raw(&ObjectName::Pin { cluster: cluster.clone(), system_id, backup: id(1), number: 99 });
    assert_eq!(pinned()[0].backup, id(1));
    assert!(pinned()[0].reason.contains("cannot be read") && pinned()[0].until_unix_s.is_none());
    assert!(unpin(1));
    assert_eq!(pinned().len(), 1);
}

#[test]
fn a_backup_whose_deletion_has_begun_cannot_be_pinned() {
    let world = world();
    let (cluster, system_id) = (&world.cluster, world.facts.system_id);
    (1..=2).for_each(|number| {
        world.begin(number);
        world.complete(number).unwrap();
    });
    let pin = |number| world.repository.pin(cluster, system_id, id(number), "an audit", None);
    let tombstone = world.tombstone(&[1]);
    world.complete_tombstone(tombstone);
    pin(1).unwrap();
    assert!(world.repository.unpin(cluster, system_id, id(1)).unwrap());
    assert!(world.begin_deletion(tombstone).is_some());
    let error = pin(1).unwrap_err();
    assert_eq!(error.kind, Kind::Refused, "{error}");
    assert!(error.what.contains("is being deleted") && error.hint.is_some());
    assert_eq!(world.repository.pins(cluster, system_id).unwrap(), [], "the pin is taken back");
    pin(2).unwrap();
    // Of one that was withdrawn nothing goes.
    let withdrawn = world.tombstone(&[2]);
    world.complete_tombstone(withdrawn);
    assert!(world.repository.withdraw_tombstone(cluster, system_id, withdrawn).unwrap());
    pin(2).unwrap();
}
