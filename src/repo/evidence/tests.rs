//! Evidence is read as it was written, and what is missing or was changed is found out.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::crypto::DataKeys;
use crate::format::descriptor::{CreateIfAbsent, Descriptor, RepositoryCipher};
use crate::pg::{Timeline, WalSegmentSize};
use crate::repo::raw_objects::{RawObjects, content_id};
use crate::store::Created;
use crate::store::memory::MemoryStore;

const SYSTEM: SystemId = SystemId(7);

struct Place {
    store: Arc<MemoryStore>,
    repository: Repository,
    cluster: ClusterName,
}

impl Place {
    fn new() -> Self {
        let create_if_absent = CreateIfAbsent::Store;
        let descriptor =
            Descriptor { repository_id: [1; 16], cipher: RepositoryCipher::None, create_if_absent, created_unix_s: 0 };
        let store = Arc::new(MemoryStore::new());
        let objects = RawObjects::new(Arc::<MemoryStore>::clone(&store));
        let repository = Repository::new(objects, descriptor, DataKeys::Unencrypted, 1, 1);
        Self { store, repository, cluster: ClusterName::new("main").unwrap() }
    }

    fn remembered(&self) -> Remembered {
        self.repository.remembered(&self.cluster, SYSTEM).unwrap()
    }

    /// Evidence that knows all there is.
    fn put(&self, verification: &Verification) -> EvidenceId {
        let newest = self.remembered().newest;
        self.put_after(verification, &newest)
    }

    fn put_after(&self, verification: &Verification, newest: &[EvidenceLink]) -> EvidenceId {
        self.repository.put_evidence(&self.cluster, SYSTEM, verification, newest).unwrap().last().unwrap().id
    }

    fn name(&self, id: EvidenceId) -> ObjectName {
        ObjectName::Evidence { cluster: self.cluster.clone(), system_id: SYSTEM, id }
    }

    fn delete(&self, id: EvidenceId) {
        self.repository.objects().delete(&self.name(id)).unwrap();
    }

    fn backdate(&self, id: EvidenceId, by_s: u64) {
        assert!(self.store.backdate(&self.name(id).key().unwrap(), Duration::from_secs(by_s)));
    }
}

fn set(first: u64, last: u64) -> ObjectSet {
    let mut set = ObjectSet::new(WalSegmentSize::new(16 << 20).unwrap());
    set.insert_segments(Timeline(1), first, last);
    set
}

fn none() -> ObjectSet {
    set(1, 1).none_of_it()
}

fn verification(mode: VerificationMode, whole: ObjectSet) -> Verification {
    Verification {
        mode,
        period_s: None,
        host: "db1".to_owned(),
        began_unix_us: 1_790_000_000_000_000,
        duration_us: 2_500_000,
        interrupted: false,
        piece: 1,
        read_bytes: 5,
        owed_bytes: 6,
        whole,
        damaged: none(),
        backups: Vec::new(),
        findings: Vec::new(),
        findings_total: 0,
        findings_that_matter: 0,
    }
}

fn full(first: u64, last: u64) -> Verification {
    verification(VerificationMode::Full, set(first, last))
}

#[test]
fn what_was_looked_at_is_remembered() {
    let place = Place::new();
    assert!(place.remembered().is_empty());
    let backup = BackupId::new(1_790_000_000, 1).unwrap();
    let mut first = full(10, 20);
    first.damaged.insert_manifest(backup);
    first.backups = vec![CheckedBackup { backup_id: backup, after_unix_s: 77, damaged: 1 }];
    first.findings = vec![SavedFinding { object: "x".to_owned(), what: "cut".to_owned(), matters: true }];
    (first.findings_total, first.findings_that_matter) = (9, 1);
    let first_id = place.put(&first);
    let quick_id = place.put(&verification(VerificationMode::Quick, none()));

    let remembered = place.remembered();
    assert_eq!(remembered.problems, []);
    assert_eq!(remembered.last[&VerificationMode::Quick].id, quick_id);
    let last = &remembered.last[&VerificationMode::Full];
    assert_eq!(last.id, first_id);
    let without_sets = Verification { whole: none(), damaged: none(), ..first.clone() };
    assert_eq!(last.verification, without_sets);
    assert_eq!(remembered.last_read.as_ref(), Some(last), "a quick one reads nothing");
    assert_eq!(remembered.last_runs()[0].id, quick_id);
    assert_eq!(remembered.backup(backup), Some(first.backups[0]));
    let look = remembered.checked.segment(Timeline(1), 15).unwrap();
    assert!(!look.is_damaged && remembered.checked.segment(Timeline(1), 21).is_none());
    assert!(remembered.checked.manifest(backup).unwrap().is_damaged);
    // It took two seconds and a half, so what was read was read no earlier than three seconds before.
    assert!((first_id.started_unix_s - 4..=first_id.started_unix_s - 3).contains(&look.after_unix_s), "{look:?}");
    // By the store's clock it was written much earlier.
    place.backdate(first_id, 1000);
    let earlier = place.remembered().checked.segment(Timeline(1), 15).unwrap();
    assert!(earlier.after_unix_s < look.after_unix_s - 990, "{earlier:?}");
}

/// What a run wrote down on its way may begin later than the run by whole seconds, and is older all the same.
#[test]
fn the_end_of_a_run_is_newer_than_what_it_wrote_on_its_way() {
    let run = |written_unix_s: i64, duration_us: u64, piece: u64, random: u32| {
        let verification = Verification { duration_us, piece, ..full(1, 1) };
        let id = EvidenceId { started_unix_s: written_unix_s, random };
        LastRun { id, after_unix_s: verification.begins_after(written_unix_s), verification }
    };
    let on_its_way = run(1000, 100_000, 1, 9);
    let end = run(1000, 1_050_000, 1, 1);
    assert!(on_its_way.after_unix_s > end.after_unix_s && on_its_way.order() < end.order());
    assert!(end.order() < run(1000, 1_050_000, 2, 0).order(), "of several pieces the last one");
    assert!(run(1001, 0, 1, 0).order() > end.order());
}

#[test]
fn evidence_names_what_nobody_named() {
    let place = Place::new();
    let first = place.put(&full(1, 1));
    let known = place.remembered().newest;
    assert_eq!(known.iter().map(|link| link.id).collect::<Vec<_>>(), [first]);
    // Two hosts at the same time.
    let second = place.put_after(&full(2, 2), &known);
    let third = place.put_after(&full(3, 3), &known);
    let newest = place.remembered().newest;
    assert_eq!(newest.iter().map(|link| link.id).collect::<BTreeSet<_>>(), BTreeSet::from([second, third]));
    let fourth = place.put(&full(4, 4));
    let remembered = place.remembered();
    assert_eq!(remembered.newest.iter().map(|link| link.id).collect::<Vec<_>>(), [fourth]);
    assert_eq!(remembered.problems, []);
}

#[test]
fn what_is_missing_is_found_out() {
    let place = Place::new();
    let ids: Vec<EvidenceId> = (0..5).map(|number| place.put(&full(number, number))).collect();
    // The oldest may have expired.
    place.delete(ids[0]);
    assert_eq!(place.remembered().problems, []);
    place.delete(ids[2]);
    let missing = EvidenceProblem::Missing { id: ids[2], named_by: ids[3] };
    let remembered = place.remembered();
    assert_eq!(remembered.problems, [missing]);
    // The rest counts all the same.
    assert!(remembered.checked.segment(Timeline(1), 1).is_some() && remembered.checked.segment(Timeline(1), 2).is_none());
}

#[test]
fn what_was_changed_is_found_out() {
    let place = Place::new();
    let ids: Vec<EvidenceId> = (0..3).map(|number| place.put(&full(number, number))).collect();
    // Somebody with the key writes it anew: it says that more was looked at.
    place.delete(ids[1]);
    let json = serde_json::to_vec(&Written { newest: Vec::new(), verification: Some(full(1, 500)) }).unwrap();
    place.repository.put(&place.name(ids[1]), &Content::of_bytes(&json)).unwrap();
    assert_eq!(place.remembered().problems, [EvidenceProblem::Changed { id: ids[1], named_by: ids[2] }]);
}

#[test]
fn what_is_damaged_is_a_problem_and_no_failure() {
    let place = Place::new();
    let ids: Vec<EvidenceId> = (0..3).map(|number| place.put(&full(number, number))).collect();
    let name = place.name(ids[1]);
    let mut bytes = place.repository.objects().read_at_most(&name, 1 << 20).unwrap().unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    place.delete(ids[1]);
    let id = content_id(&bytes);
    assert_eq!(place.repository.objects().create(&name, bytes.into(), &id).unwrap(), Created::New);
    let remembered = place.remembered();
    let [EvidenceProblem::Unreadable { id, why }] = remembered.problems.as_slice() else { panic!("{remembered:?}") };
    assert!(*id == ids[1] && why.contains("damaged"), "{why}");
    assert!(remembered.checked.segment(Timeline(1), 0).is_some() && remembered.checked.segment(Timeline(1), 1).is_none());
    // New evidence goes on from what can be read.
    place.put(&full(9, 9));
    assert_eq!(place.remembered().problems.len(), 1);
}

#[test]
fn what_is_not_evidence_is_damage() {
    let place = Place::new();
    let now = jiff::Timestamp::now().as_microsecond();
    for (number, json) in (0..).zip([r#"{"newest":1}"#, r#"{"newest":[{"id":"x","blake3":""}]}"#, "no JSON"]) {
        let id = EvidenceId::begun_at(now, number).unwrap();
        place.repository.put(&place.name(id), &Content::of_bytes(json.as_bytes())).unwrap();
    }
    assert_eq!(place.remembered().problems.len(), 3);
    // What a later version adds is none.
    let id = EvidenceId::begun_at(now, 9).unwrap();
    place.repository.put(&place.name(id), &Content::of_bytes(br#"{"newest":[],"drill":{}}"#)).unwrap();
    let remembered = place.remembered();
    assert!(remembered.problems.len() == 3 && remembered.newest.len() == 1 && remembered.is_empty());
}

#[test]
fn many_separate_objects_take_several_pieces() {
    let place = Place::new();
    let (mut whole, mut damaged) = (none(), none());
    for number in 0..MAX_EVIDENCE_RUNS as u64 + 10 {
        whole.insert_segments(Timeline(1), 2 * number, 2 * number);
    }
    (0..20).for_each(|number| damaged.insert_segments(Timeline(2), 2 * number, 2 * number));
    let mut much = Verification { damaged, ..verification(VerificationMode::Full, whole) };
    let finding =
        |number| SavedFinding { object: format!("{number} {}", "ä".repeat(4096)), what: "cut".to_owned(), matters: false };
    much.findings = (0..2 * MAX_EVIDENCE_FINDINGS).map(finding).collect();
    much.findings_total = much.findings.len() as u64;
    let links = place.repository.put_evidence(&place.cluster, SYSTEM, &much, &[]).unwrap();
    assert!(links.len() == 2 && links.is_sorted(), "{links:?}");

    let remembered = place.remembered();
    assert!(remembered.problems.is_empty() && remembered.newest.len() == 1);
    for number in 0..MAX_EVIDENCE_RUNS as u64 + 10 {
        assert!(!remembered.checked.segment(Timeline(1), 2 * number).unwrap().is_damaged, "{number}");
    }
    assert!(remembered.checked.segment(Timeline(2), 38).unwrap().is_damaged);
    let last = &remembered.last_read.unwrap().verification;
    assert_eq!((last.findings.len(), last.findings_total), (MAX_EVIDENCE_FINDINGS, much.findings_total));
    assert!(last.findings.iter().all(|finding| finding.object.len() <= MAX_EVIDENCE_TEXT_BYTES && finding.object.ends_with('…')));
    assert!(!last.interrupted);
}

#[test]
fn the_newest_evidence_is_read_first_and_no_more_than_is_wanted() {
    let place = Place::new();
    let ids: Vec<EvidenceId> = (0..3 * EVIDENCE_READERS as u64).map(|number| place.put(&full(number, number))).collect();
    // In the order in which the store got them, as far as it tells: the first of them last.
    for (age, id) in (0..).zip(ids.iter().rev()) {
        place.backdate(*id, 10 * age);
    }
    let lately = place.repository.lately_remembered(&place.cluster, SYSTEM, &mut |_| true).unwrap();
    assert_eq!(lately.older, 2 * EVIDENCE_READERS);
    assert_eq!(lately.last_runs().first().map(|run| run.id), ids.last().copied());
    assert!(lately.checked.segment(Timeline(1), 0).is_none());
    assert_eq!(lately.problems, [], "what was not read is not missing");
    let all = place.repository.lately_remembered(&place.cluster, SYSTEM, &mut |_| false).unwrap();
    assert!(all.older == 0 && all.checked.segment(Timeline(1), 0).is_some());
}

#[test]
fn old_evidence_may_go_but_never_the_newest() {
    let place = Place::new();
    let ids: Vec<EvidenceId> = (0..4).map(|number| place.put(&full(number, number))).collect();
    let before = |unix_s| place.repository.evidence_before(&place.cluster, SYSTEM, unix_s).unwrap();
    assert_eq!(before(ids[0].started_unix_s), []);
    let all = before(ids[3].started_unix_s + 1000);
    assert_eq!(all, ids[..3], "but the newest, oldest first");
    for id in all {
        place.delete(id);
        assert_eq!(place.remembered().problems, []);
    }
}
