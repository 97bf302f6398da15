//! What stands beside the objects that `expire` deletes: good copies of damaged ones go after them and never before,
//! and that a backup had begun is forgotten when it was given up.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;

use walvis::config::Retention;
use walvis::error::{Error, Kind};
use walvis::format::extent::BackupId;
use walvis::repo::ObjectName;
use walvis::repo::backups::Given;
use walvis::store::{Key, Store};

use super::history::{DAY, Happening, History, Script, cluster, facts_of};
use super::oracle::Object;
use super::replica::Replica;
use super::runs::{GRACE, named, run, try_run};

fn rules(keep_last: u32) -> Retention {
    Retention { keep_last: Some(keep_last), grace: GRACE, ..Retention::default() }
}

/// Puts copies beside an object, as `verify --repair-from` does where it cannot delete.
fn copy(replica: &Replica<'_>, key: &str, numbers: std::ops::RangeInclusive<u32>) {
    let bytes = replica.store.bytes(&Key::new(key).unwrap());
    for number in numbers {
        let name = Key::new(format!("repairs/{number}/{key}")).unwrap();
        assert!(ObjectName::parse(name.as_str()).is_some(), "{name}");
        replica.store.put_at(&name, bytes.clone(), replica.store.now());
    }
}

/// What copies are there of.
fn copied(replica: &Replica<'_>) -> BTreeSet<String> {
    let parsed = replica.store.keys().into_iter().filter_map(|key| ObjectName::parse(&key));
    parsed.filter_map(|name| name.repaired().map(ToString::to_string)).collect()
}

fn key_of(objects: &BTreeSet<Object>, wanted: impl Fn(&Object) -> bool) -> String {
    objects.iter().rev().find(|object| wanted(object)).unwrap().key()
}

/// A replica in which a run has named something, with copies beside some of that, beside what leads to it, and beside
/// what stays; the keys of both.
fn with_copies(history: &History) -> (Replica<'_>, i64, BTreeSet<String>, BTreeSet<String>) {
    let mut replica = Replica::new(history);
    let now = history.end - DAY;
    replica.advance(now);
    let executed = run(&replica, &rules(1), now);
    let goes = named(&replica, &executed);
    let stays: BTreeSet<Object> = replica.present.difference(&goes).cloned().collect();
    let kinds: [fn(&Object) -> bool; 3] = [
        |object| matches!(object, Object::Segment(..)),
        |object| matches!(object, Object::Pack(..)),
        |object| matches!(object, Object::Manifest(..)),
    ];
    let each = |of: &BTreeSet<Object>| kinds.iter().map(|kind| key_of(of, kind)).collect::<BTreeSet<String>>();
    let (mut goes, stays) = (each(&goes), each(&stays));
    let manifest = goes.iter().find(|key| key.contains("/backups/")).unwrap();
    goes.insert(manifest.replace("/backups/", "/begun/"));
    let tombstone = executed.waiting[0].id;
    let names = replica.store.keys().into_iter().find(|key| key.ends_with(&format!("tombstones/{tombstone}"))).unwrap();
    goes.insert(names);
    let node = replica.store.keys().into_iter().find(|key| key.contains("/index/")).unwrap();
    goes.insert(node);
    for key in goes.iter().chain(&stays) {
        copy(&replica, key, 1..=2);
    }
    (replica, now + DAY, goes, stays)
}

#[test]
fn copies_go_after_what_they_are_copies_of() {
    let history = History::make(&Script::quiet(31, 14));
    let (replica, later, goes, stays) = with_copies(&history);
    let all: BTreeSet<String> = goes.union(&stays).cloned().collect();
    assert_eq!((copied(&replica), goes.len()), (all, 6));
    replica.store.set_now(later);
    // Ended before each batch of deletions in turn.
    let mut ends = 0_usize;
    let executed = loop {
        let left = Cell::new(ends);
        let deletes = || match left.get().checked_sub(1) {
            Some(less) => {
                left.set(less);
                Ok(())
            }
            None => Err(Error::new(Kind::Unavailable, "enough")),
        };
        let done = try_run(&replica, &rules(1), later, &deletes);
        let there: BTreeSet<String> = replica.store.keys().into_iter().collect();
        let copies = copied(&replica);
        for key in goes.iter().filter(|key| there.contains(*key)) {
            assert!(copies.contains(key), "after {ends} batches {key} is there, and its copy is gone");
        }
        assert!(stays.is_subset(&copies), "after {ends} batches");
        match done {
            Ok(executed) => break executed,
            Err(error) => assert_eq!(error.kind, Kind::Unavailable, "{error}"),
        }
        ends += 1;
    };
    assert!(ends >= 4, "{ends}");
    assert!(executed.waiting.iter().all(|waiting| !waiting.begun), "{:?}", executed.waiting);
    assert_eq!(copied(&replica), stays);
    let there: BTreeSet<String> = replica.store.keys().into_iter().collect();
    assert!(goes.is_disjoint(&there) && stays.is_subset(&there));
}

/// Whoever repairs deletes the damaged object, and has nothing but the copy for a moment.
#[test]
fn the_copy_of_what_is_replaced_at_this_moment_stays_if_a_backup_needs_it() {
    let history = History::make(&Script::quiet(32, 14));
    let (replica, later, goes, _) = with_copies(&history);
    replica.store.set_now(later);
    // The deleting has begun, and gets nowhere.
    let stops = || Err(Error::new(Kind::Unavailable, "enough"));
    assert_eq!(try_run(&replica, &rules(1), later, &stops).unwrap_err().kind, Kind::Unavailable);
    let wanted = |part: &str| copied(&replica).into_iter().filter(|key| key.contains(part)).collect::<Vec<String>>();
    let replaced: Vec<String> = ["/packs/", "/wal/"].into_iter().flat_map(wanted).filter(|key| goes.contains(key)).collect();
    for key in &replaced {
        replica.store.delete(&Key::new(key.clone()).unwrap()).unwrap();
    }
    assert_eq!(replaced.len(), 2);
    // Other rules: everything is kept, whole or not.
    let ever = Some(Duration::from_secs(400 * 86_400));
    let all = Retention { keep_within: ever, recovery_window: ever, ..rules(1) };
    let executed = run(&replica, &all, later);
    let copies = copied(&replica);
    assert!(replaced.iter().all(|key| copies.contains(key)), "{replaced:?} and {copies:?}");
    assert!(executed.waiting.iter().any(|waiting| waiting.begun), "what may still be deleted is named still");
}

#[test]
fn that_a_backup_had_begun_is_forgotten_when_it_was_given_up() {
    let history = History::make(&Script::quiet(33, 6).on(2, Happening::Interrupted));
    let mut replica = Replica::new(&history);
    replica.advance(history.end);
    let system_id = facts_of(history.truth.systems[0].id).system_id;
    let id = |number| BackupId::new(history.end - 60, number).unwrap();
    let (given_up, under_way) = (id(1), id(2));
    for id in [given_up, under_way] {
        replica.repository.begin_backup(&cluster(), system_id, id).unwrap();
    }
    let given = || replica.repository.give_up(&cluster(), system_id, given_up, "a test").unwrap();
    assert_eq!(given(), Given::Void);
    let begun = || -> BTreeSet<BackupId> {
        replica.repository.begun_backups(&cluster(), system_id).unwrap().iter().map(|begun| begun.id).collect()
    };
    let before = begun();
    let executed = run(&replica, &rules(1), history.end);
    assert_eq!(executed.swept.begun, 1);
    let gone: Vec<BackupId> = before.difference(&begun()).copied().collect();
    assert_eq!(gone, [given_up], "and not of those that are under way, finished or interrupted");
    assert!(begun().contains(&under_way) && begun().len() > 5);
    assert_eq!(given(), Given::Void, "the void stays");
    assert_eq!(run(&replica, &rules(1), history.end).swept.begun, 0);
}
