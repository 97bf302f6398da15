//! `expire` and manifests that somebody else deleted: nothing goes, and no void takes the name, until the manifest is
//! back or an operator gives the backup up. What expired or was interrupted does not stop it.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use walvis::config::Retention;
use walvis::error::{Error, Kind};
use walvis::format::extent::BackupId;
use walvis::pg::Lsn;
use walvis::pg::scan::PgTime;
use walvis::repo::{Content, Facts, ObjectName, ObjectSet, SystemId};
use walvis::retention::execute::{Executed, ExpireRequest, Watch, execute, preview};
use walvis::retention::plan::Hooks;
use walvis::verify::Mode;

use super::world::{Story, World, noise, size};
use crate::support::command::files_below;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn asked<T>(world: &World, keep_last: u32, give_up: &[BackupId], ask: impl FnOnce(&ExpireRequest<'_>) -> T) -> T {
    let give_up: BTreeSet<BackupId> = give_up.iter().copied().collect();
    let now = || PgTime::from_unix_us(jiff::Timestamp::now().as_microsecond()).unwrap();
    ask(&ExpireRequest {
        repository: &world.repository,
        cluster: &world.cluster,
        rules: &Retention { keep_last: Some(keep_last), grace: DAY, ..Retention::default() },
        give_up: &give_up,
        purge_versions: false,
        now: &now,
        hooks: Hooks { go_on: &|| Ok(()), looked_at: &|_| {} },
        watch: Watch { go_on: &|| Ok(()), deleted: &|_| {} },
    })
}

fn run(world: &World, keep_last: u32, give_up: &[BackupId]) -> Result<Executed, Error> {
    asked(world, keep_last, give_up, execute)
}

/// It refuses because of this backup, says what to do, and changes nothing.
#[track_caller]
fn refuses(world: &World, give_up: &[BackupId], lost: BackupId, because: &str) {
    let before = content(world);
    let previewed = asked(world, 3, give_up, |request| preview(request).err());
    for error in [previewed, run(world, 3, give_up).err()] {
        let error = error.expect("it goes on");
        let hint = error.hint_in_brackets().to_string();
        assert_eq!(error.kind, Kind::Refused, "{error}");
        assert!(error.what.contains(&format!("the manifest of backup {lost} was deleted, and not by expire")), "{error}");
        assert!(error.what.contains(because), "{error}");
        assert!(hint.contains("verify --repair-from") && hint.contains(&format!("expire --give-up {lost}")), "{hint}");
    }
    assert_eq!(content(world), before, "something was changed");
}

fn content(world: &World) -> Vec<(PathBuf, u64)> {
    let files = files_below(&world.root()).into_iter();
    let mut found: Vec<(PathBuf, u64)> = files
        .filter(|path| !path.to_str().unwrap().contains("/probes/"))
        .map(|path| (path.clone(), path.metadata().unwrap().len()))
        .collect();
    found.sort();
    found
}

fn manifest(world: &World, backup: BackupId) -> String {
    ObjectName::Manifest { cluster: world.cluster.clone(), system_id: world.facts.system_id, backup }.to_string()
}

fn begun(world: &World, backup: BackupId) -> bool {
    let begun = world.repository.begun_backups(&world.cluster, world.facts.system_id).unwrap();
    begun.iter().any(|begun| begun.id == backup)
}

/// Packs of a backup that was interrupted.
fn interrupted(world: &mut World) -> BackupId {
    let backup = world.backup(7, 1, (Lsn(4 << 20), Lsn(5 << 20)), &[("base/5/9", noise(9, 200_000))]);
    world.remove(&manifest(world, backup));
    backup
}

#[test]
fn a_manifest_to_whose_packs_another_refers_stops_it() {
    let Story { mut world, backups } = Story::new();
    let (cluster, system_id) = (world.cluster.clone(), world.facts.system_id);
    // The backups are those of the system identifier before.
    let after = Facts { system_id: SystemId(77), wal_segment_size: size(), postgres_major: Some(17) };
    world.repository.rebind(&cluster, after).unwrap();
    // The tombstone came while the first backup was under way, and is due.
    let left = interrupted(&mut world);
    let mut names = ObjectSet::new(size());
    names.insert_packs(left, 0, 100);
    let lost = manifest(&world, backups[0]);
    let bytes = fs::read(world.object(&lost)).unwrap();
    world.remove(&lost);
    let id = world.repository.put_tombstone(&cluster, system_id, &names).unwrap();
    world.repository.complete_tombstone(&cluster, system_id, id).unwrap();
    world.pass(2 * DAY);
    refuses(&world, &[], backups[0], "refers to its packs");
    // What is brought back is kept, and the tombstone acted on.
    fs::write(world.object(&lost), bytes).unwrap();
    let executed = run(&world, 3, &[]).unwrap();
    assert_eq!(executed.given_up, [left]);
    assert!(executed.expired.packs > 0 && world.object(&lost).exists());

    world.remove(&lost);
    world.pass(2 * DAY);
    refuses(&world, &[], backups[0], "refers to its packs");
    // One of two is not enough, and is not given up before that is known.
    let other = manifest(&world, backups[1]);
    world.remove(&other);
    refuses(&world, &[backups[0]], backups[1], "refers to its packs");
    asked(&world, 3, &backups[..2], preview).unwrap();
    let executed = run(&world, 3, &backups[..2]).unwrap();
    assert_eq!(executed.given_up, backups[..2]);
    // From now on they are like any that was given up; the third has all that it needs.
    for _ in 0..2 {
        world.pass(2 * DAY);
        run(&world, 3, &[]).unwrap();
    }
    assert!(!begun(&world, backups[0]) && !begun(&world, backups[1]));
    assert!(world.verify(Mode::Full).findings.that_matter.is_empty());
}

#[test]
fn a_manifest_that_a_verification_read_stops_it() {
    let Story { world, backups } = Story::new();
    world.pass(2 * DAY);
    world.walvis(&["verify"]).exits(0);
    world.pass(2 * DAY);
    // Nobody refers to the packs of the third.
    world.remove(&manifest(&world, backups[2]));
    refuses(&world, &[], backups[2], "an earlier verification read it");
    let executed = run(&world, 3, &[backups[2]]).unwrap();
    assert_eq!(executed.given_up, [backups[2]]);
    world.pass(2 * DAY);
    assert!(run(&world, 3, &[]).unwrap().expired.packs > 0);
}

/// Also where nobody read it, and nobody refers to its packs: a pin is only left where there is a manifest.
#[test]
fn a_manifest_that_a_pin_keeps_stops_it() {
    let Story { world, backups } = Story::new();
    let (cluster, system_id, backup) = (world.cluster.clone(), world.facts.system_id, backups[2]);
    world.pass(2 * DAY);
    world.remove(&manifest(&world, backup));
    let pinned = |number, ago: i64| {
        let at = jiff::Timestamp::now().as_second() - ago;
        let json = format!(r#"{{"backup_id":"{backup}","reason":"an audit","written_unix_s":{at},"keep":true}}"#);
        let name = ObjectName::Pin { cluster: cluster.clone(), system_id, backup, number };
        world.repository.put(&name, &Content::of_bytes(json.as_bytes())).unwrap();
    };
    // One that was made just now may be taken back.
    pinned(1, 10);
    asked(&world, 3, &[], |request| preview(request).map(drop)).unwrap();
    pinned(2, 7200);
    refuses(&world, &[], backup, "a pin keeps it");
    // Not for ever.
    assert!(world.repository.unpin(&cluster, system_id, backup).unwrap());
    asked(&world, 3, &[], |request| preview(request).map(drop)).unwrap();
}

#[test]
fn a_backup_that_was_interrupted_goes_and_one_under_way_stays() {
    let Story { mut world, backups } = Story::new();
    let left = interrupted(&mut world);
    // Nobody knows of this one either: it is like one that was interrupted.
    world.remove(&manifest(&world, backups[2]));
    world.pass(2 * DAY);
    world.walvis(&["verify", "--full"]).exits(0);
    let under_way = BackupId::new(jiff::Timestamp::now().as_second(), 9).unwrap();
    let system_id = world.facts.system_id;
    world.repository.begin_backup(&world.cluster, system_id, under_way).unwrap();
    let executed = run(&world, 3, &[]).unwrap();
    assert!(executed.given_up.is_empty() && !executed.named.is_empty());
    world.pass(2 * DAY);
    let executed = run(&world, 3, &[]).unwrap();
    assert!(executed.given_up.contains(&left) && executed.given_up.contains(&backups[2]), "{:?}", executed.given_up);
    assert!(executed.expired.packs > 0);
}

#[test]
fn what_expired_is_not_missed() {
    let Story { world, backups } = Story::new();
    world.pass(2 * DAY);
    world.walvis(&["verify"]).exits(0);
    run(&world, 1, &[]).unwrap();
    // Killed before it deleted the manifest.
    world.repository.forget_begun(&world.cluster, world.facts.system_id, &[backups[1]]).unwrap();
    run(&world, 1, &[]).unwrap();
    world.pass(2 * DAY);
    assert_eq!(run(&world, 1, &[]).unwrap().expired.backups, 2);
    assert!(!world.object(&manifest(&world, backups[0])).exists() && !begun(&world, backups[0]));
    run(&world, 1, &[]).unwrap();
    let ran = world.walvis(&["verify", "--quick"]).exits(0);
    assert!(!ran.stdout.contains("manifest was deleted"), "{ran:?}");
}

#[test]
fn a_manifest_that_a_copy_brought_back_stops_nothing() {
    let Story { world, backups } = Story::new();
    world.pass(2 * DAY);
    let copy = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-a").arg(world.root()).arg(copy.path().join("copy")).status().unwrap();
    assert!(copied.success());
    let lost = manifest(&world, backups[0]);
    world.remove(&lost);
    refuses(&world, &[], backups[0], "refers to its packs");
    let ran = world.walvis(&["verify", "--repair-from", &format!("file://{}", copy.path().join("copy").display())]);
    assert!(world.object(&lost).exists(), "{ran:?}");
    run(&world, 3, &[]).unwrap();
    assert_eq!(run(&world, 3, &[]).unwrap().plan.systems[0].backups.len(), 3);
}
