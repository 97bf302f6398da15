//! Evidence of what was verified, and what `list`, `catalog` and `resolve` say because of it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use walvis::pg::Timeline;
use walvis::repo::{ObjectName, ObjectSet, Repository, VerificationMode};
use walvis::store::Store;
use walvis::store::fault::{Fault, Op};
use walvis::store::file::FileStore;
use walvis::verify::{
    Checked, Cost, Finding, Hooks, Look, Memory, Mode, Occasion, Problem, Session, SessionRequest, Subject, Verified, Window,
    session, share,
};

use super::world::{Story, World, size};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// All WAL files, packs and manifests.
fn everything(world: &World) -> ObjectSet {
    let mut objects = ObjectSet::new(size());
    for part in ["wal", "packs", "backups"] {
        for name in world.objects(part) {
            match ObjectName::parse(&name).unwrap() {
                ObjectName::Wal { file, .. } => objects.insert_wal(&file),
                ObjectName::Pack { pack, .. } => objects.insert_pack(pack),
                ObjectName::Manifest { backup, .. } => objects.insert_manifest(backup),
                other => panic!("{other}"),
            }
        }
    }
    objects
}

/// As if every byte of these had been read, and these were damaged.
fn read(world: &World, objects: ObjectSet, damaged: &[&str]) -> Verified {
    let system_id = world.facts.system_id;
    let mut verified = Verified { checked: vec![Checked { system_id, objects, bytes: 1000 }], ..Verified::default() };
    for name in damaged {
        verified.findings.add(Finding {
            subject: Subject::Object(ObjectName::parse(name).unwrap()),
            system_id: Some(system_id),
            problem: Problem::Damaged,
            detail: "a frame does not authenticate".to_owned(),
            cost: Cost::default(),
            matters: true,
            is_repaired: false,
        });
    }
    verified
}

fn write(world: &World, mode: VerificationMode, verified: &Verified) {
    let mut memory = Memory::of(&world.repository, &world.cluster).unwrap();
    assert_eq!(memory.problems().count(), 0);
    let began_unix_us = jiff::Timestamp::now().as_microsecond();
    let occasion = Occasion { mode, period: None, began_unix_us, took: Duration::from_millis(200), interrupted: false };
    let written = memory.write(&world.repository, &world.cluster, &occasion, None, verified).unwrap();
    assert_eq!(written.len(), 1);
}

fn json(world: &World, arguments: &[&str]) -> Value {
    let ran = world.walvis(&[arguments, &["--json"]].concat());
    assert_eq!(ran.code(), 0, "{ran:?}");
    serde_json::from_str(&ran.stdout).unwrap()
}

/// What `list` says of the verification of each backup, newest first.
fn backups(world: &World) -> Vec<(bool, Option<u64>)> {
    let list = json(world, &["list"]);
    let backups = list[0]["clusters"][0]["systems"][0]["backups"].as_array().unwrap();
    backups.iter().map(|backup| (backup["verified_at"].is_string(), backup["damaged_objects"].as_u64())).collect()
}

fn last(world: &World) -> Value {
    json(world, &["list"])[0]["clusters"][0]["systems"][0]["last_verifications"].clone()
}

/// Objects that are needed, those that were never read, and those that were damaged.
fn resolved(world: &World) -> (u64, u64, u64) {
    let verified = json(world, &["resolve", "--target", "latest"])["verified"].clone();
    let number = |field: &str| verified[field].as_u64().unwrap();
    assert_eq!(verified["verified_at"].is_null(), number("unverified_objects") == number("objects"));
    (number("objects"), number("unverified_objects"), number("damaged_objects"))
}

/// The same of the windows of `catalog`, all together.
fn catalogued(world: &World) -> (u64, u64, u64) {
    let catalog = json(world, &["catalog"]);
    let mut sum = (0, 0, 0);
    for timeline in catalog["systems"][0]["timelines"].as_array().unwrap() {
        for window in timeline["windows"].as_array().unwrap() {
            let number = |field: &str| window["verified"][field].as_u64().unwrap();
            sum.0 += number("objects");
            sum.1 += number("unverified_objects");
            sum.2 += number("damaged_objects");
        }
    }
    sum
}

#[test]
fn what_is_shown_says_when_it_was_verified() {
    let Story { world, backups: [first, ..] } = Story::new();
    world.pass(10 * DAY);
    let segments = world.objects("wal").iter().filter(|name| !name.ends_with(".history")).count() as u64;

    assert_eq!(last(&world), serde_json::json!([]));
    assert_eq!(backups(&world), [(false, None); 3]);
    let (objects, unverified, _) = resolved(&world);
    assert!(objects > 10 && unverified == objects, "{unverified} of {objects}");
    assert_eq!(catalogued(&world), (segments, segments, 0));
    world.walvis(&["list"]).exits(0).says(&[]);
    let says = |arguments: &[&str], word: &str| {
        let ran = world.walvis(arguments);
        assert!(ran.code() == 0 && ran.stdout.contains(word), "{word}: {ran:?}");
    };
    says(&["list"], "NEVER VERIFIED");
    says(&["catalog"], "NOT VERIFIED: none of");
    says(&["resolve", "--target", "latest"], "NOT VERIFIED    none of");

    // Everything is read, and whole.
    write(&world, VerificationMode::Full, &read(&world, everything(&world), &[]));
    assert_eq!(backups(&world), [(true, Some(0)); 3]);
    assert_eq!(resolved(&world), (objects, 0, 0));
    assert_eq!(catalogued(&world), (segments, 0, 0));
    let said = last(&world);
    assert_eq!((said[0]["verification_mode"].as_str(), said[0]["findings_total"].as_u64()), (Some("full"), Some(0)));
    assert!(said[0]["evidence_id"].is_string() && said[0]["interrupted"] == false && said[1].is_null(), "{said}");
    says(&["list"], "verified: full, ");
    says(&["list"], "      verified since ");
    says(&["catalog"], "        verified: all ");
    says(&["resolve", "--target", "latest"], &format!("verified        all {objects} objects since "));

    // Two days later one of the packs of the first backup is damaged.
    world.pass(2 * DAY);
    let pack = world.objects(&format!("packs/{first}"))[0].clone();
    let mut some = ObjectSet::new(size());
    let Some(ObjectName::Pack { pack: id, .. }) = ObjectName::parse(&pack) else { panic!("{pack}") };
    some.insert_pack(id);
    some.insert_segments(Timeline(1), 2, 3);
    write(&world, VerificationMode::Rolling, &read(&world, some, &[&pack]));
    // All three refer to it.
    assert_eq!(backups(&world), [(true, Some(1)); 3]);
    // Whoever needs it is told, and not refused anything.
    assert_eq!(resolved(&world), (objects, 0, 1));
    let said = last(&world);
    assert_eq!((said[0]["verification_mode"].as_str(), said[0]["findings_that_matter"].as_u64()), (Some("rolling"), Some(1)));
    assert_eq!(said[1]["verification_mode"].as_str(), Some("full"));
    says(&["list"], "DAMAGED: 1 objects, verified since ");
    says(&["list"], "1 finding, which MATTERS");
    says(&["resolve", "--target", "latest"], "DAMAGED         1 objects, when they were last read");
    says(&["catalog"], "(2 d 0 h ago)");

    // What is stored again is not what was read.
    let needed = json(&world, &["resolve", "--target", "latest"])["wal"]["last_segment"].as_str().unwrap().to_owned();
    let last_segment = world.objects("wal").into_iter().find(|name| name.ends_with(&needed)).unwrap();
    world.change(&last_segment, |_| {});
    assert_eq!(resolved(&world), (objects, 1, 1));
}

/// What a full look reads is remembered, and what it finds; a rolling one then has nothing to do but look again at
/// that.
#[test]
fn a_full_look_is_remembered() {
    let Story { world, backups: [_, second, _] } = Story::new();
    world.pass(10 * DAY);
    let manifest = format!("clusters/main/{}/backups/{second}", world.facts.system_id);
    let segment = world.segment(1, 9);
    world.flip(&manifest);
    world.flip(&segment);
    world.pass(DAY);
    let verified = world.verify(Mode::Full);
    assert_eq!(verified.checked[0].objects, everything(&world), "{:#?}", verified.findings);
    write(&world, VerificationMode::Full, &verified);
    assert_eq!(last(&world)[0]["findings_that_matter"].as_u64(), Some(verified.findings.that_matter_total));
    // Newest first. What the second one needs is not known without its manifest.
    let list = json(&world, &["list"]);
    let said = &list[0]["clusters"][0]["systems"][0]["backups"];
    assert!(said[0]["verified_at"].is_string() && said[2]["verified_at"].is_string(), "{said}");
    assert!(said[1]["verified_at"].is_null(), "{said}");
    assert_eq!(catalogued(&world).2, 1);

    world.pass(DAY / 24);
    let remembered = world.repository.remembered(&world.cluster, world.facts.system_id).unwrap();
    let now = jiff::Timestamp::now().as_second();
    let share = share(&world.repository, &world.cluster, world.facts, &remembered, 3000 * DAY, now).unwrap().objects;
    assert!(share.has_manifest(second) && share.has_segment(Timeline(1), 9) && share.count() == 2, "{share:?}");
    let shares = [(world.facts.system_id, share)].into();
    let again = world.verify(Mode::Selected(&shares));
    assert_eq!(again.checked[0].objects, shares[&world.facts.system_id]);
    assert_eq!(again.findings.that_matter_total, verified.findings.that_matter_total, "{:#?}", again.findings);
}

/// What is due is known from the listing that every verification begins with.
#[test]
fn a_rolling_run_with_nothing_new_lists_no_more_than_a_quick_one() {
    let Story { world, .. } = Story::new();
    let store = Arc::new(Fault::new(Arc::new(FileStore::open(&world.root()).unwrap())));
    let repository = Repository::over(Arc::clone(&store) as Arc<dyn Store>, &world.secret(), 1).unwrap();
    let listings = |look| {
        let request =
            SessionRequest { look, jobs: 1, max_bytes_per_s: None, window: Window::Everything, source: None, keep_every: DAY };
        let before = store.calls(Op::List);
        let Session { verified, .. } =
            session(&repository, &world.cluster, &request, &Hooks { go_on: &|| Ok(()), progress: &|_| {} }).unwrap();
        (store.calls(Op::List) - before, verified.checked.len())
    };
    let (_, read) = listings(Look::Full);
    assert_eq!(read, 1);
    let (rolling, read) = listings(Look::Rolling(4 * DAY));
    assert_eq!(read, 0);
    assert_eq!(rolling, listings(Look::Quick).0);
}

/// Runs of the command: each reads its share, and all have read everything; evidence that is missing is found.
#[test]
fn a_rolling_run_goes_on_from_the_last_one() {
    let Story { world, .. } = Story::new();
    world.pass(10 * DAY);
    let sizes = ["wal", "packs", "backups"].map(|part| world.objects(part)).concat();
    let total: u64 = sizes.iter().map(|name| std::fs::metadata(world.object(name)).unwrap().len()).sum();
    let run = || json(&world, &["verify", "--rolling", "4d"])[0].clone();
    let evidence = || std::fs::read_dir(world.object(&format!("clusters/main/{}/evidence", world.facts.system_id)));
    for day in 0..5 {
        let before = evidence().map_or(0, Iterator::count);
        let done = run();
        let read = done["read_bytes"].as_u64().unwrap();
        assert!(day > 3 || (total / 8 < read && read < total / 2), "day {day}: {read} of {total}");
        assert_eq!((done["verification_mode"].as_str(), done["findings_total"].as_u64()), (Some("rolling"), Some(0)), "{done}");
        assert_eq!(evidence().unwrap().count(), before + 1);
        world.pass(5 * SECOND);
        // At once there is nothing to do, and nothing to be written.
        assert_eq!(run()["read_bytes"], 0, "day {day}");
        assert_eq!(evidence().unwrap().count(), before + 1);
        world.pass(DAY - 5 * SECOND);
    }
    assert_eq!(backups(&world), [(true, Some(0)); 3]);
    let (segments, unverified, damaged) = catalogued(&world);
    assert!(segments > 40 && (unverified, damaged) == (0, 0), "{unverified} of {segments}");

    let evidence = world.objects("evidence");
    world.remove(&evidence[2]);
    let done = json(&world, &["verify", "--quick"])[0].clone();
    assert_eq!((done["findings_total"].as_u64(), done["findings_that_matter"].as_u64()), (Some(1), Some(0)), "{done}");
    let id = evidence[2].rsplit('/').next().unwrap();
    assert!(done["findings"][0]["detail"].as_str().unwrap().contains(&format!("{id} is missing")), "{done}");
    assert_eq!(last(&world)[0]["findings_total"], 1);
}

/// Evidence that cannot be read, or that somebody took away, keeps nothing from being restored.
#[test]
fn evidence_that_is_damaged_is_no_reason_to_refuse() {
    let Story { world, .. } = Story::new();
    world.pass(10 * DAY);
    let everything = everything(&world);
    write(&world, VerificationMode::Full, &read(&world, everything.clone(), &[]));
    let (objects, ..) = resolved(&world);
    let evidence = world.objects("evidence")[0].clone();
    world.flip(&evidence);
    assert_eq!(resolved(&world), (objects, objects, 0));
    let ran = world.walvis(&["list"]);
    assert!(ran.code() == 0 && ran.stderr.contains("cannot be read") && ran.stderr.contains("evidence"), "{ran:?}");
    world.remove(&evidence);
    assert_eq!(resolved(&world), (objects, objects, 0));
    // Where it cannot even be asked for.
    let directory = world.object(&format!("clusters/main/{}/evidence", world.facts.system_id));
    std::fs::remove_dir(&directory).unwrap();
    std::fs::write(&directory, "in the way").unwrap();
    let ran = world.walvis(&["resolve", "--target", "latest"]);
    assert!(ran.code() == 0, "{ran:?}");
}

/// More damage than is kept of: nothing counts as whole.
#[test]
fn what_is_not_known_to_be_whole_is_not_said_to_be() {
    let Story { world, .. } = Story::new();
    world.pass(10 * DAY);
    let mut verified = read(&world, everything(&world), &[]);
    verified.findings.that_matter_total += 1;
    let mut memory = Memory::of(&world.repository, &world.cluster).unwrap();
    let began_unix_us = jiff::Timestamp::now().as_microsecond();
    let mode = VerificationMode::Full;
    let occasion = Occasion { mode, period: None, began_unix_us, took: Duration::ZERO, interrupted: false };
    memory.write(&world.repository, &world.cluster, &occasion, None, &verified).unwrap();
    let (objects, unverified, _) = resolved(&world);
    assert_eq!(objects, unverified);
    assert_eq!(last(&world)[0]["findings_that_matter"], 1);
}
