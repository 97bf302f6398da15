//! Manifests that somebody deleted, and what only looks like that: backups that expired, were interrupted, or given up.

use std::fs;
use std::time::Duration;

use walvis::format::extent::BackupId;
use walvis::repo::{Content, ObjectName};
use walvis::verify::{Finding, Mode, Problem, Verified};

use super::world::{Story, World, noise};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn manifest(world: &World, backup: BackupId) -> ObjectName {
    ObjectName::Manifest { cluster: world.cluster.clone(), system_id: world.facts.system_id, backup }
}

/// As `expire` does.
fn expire(world: &World, backup: BackupId) {
    world.repository.forget_begun(&world.cluster, world.facts.system_id, &[backup]).unwrap();
    world.repository.objects().delete(&manifest(world, backup)).unwrap();
}

#[track_caller]
fn only(verified: &Verified) -> &Finding {
    assert_eq!(verified.findings.that_matter.len(), 1, "{:#?}", verified.findings);
    &verified.findings.that_matter[0]
}

#[test]
fn a_manifest_to_whose_packs_another_refers_is_missed() {
    let Story { world, backups } = Story::new();
    let name = manifest(&world, backups[0]).to_string();
    let bytes = fs::read(world.object(&name)).unwrap();
    world.remove(&name);
    let verified = world.verify(Mode::Quick);
    let finding = only(&verified);
    assert_eq!((finding.problem, finding.subject.to_string()), (Problem::Missing, name.clone()));
    assert_eq!(finding.cost.backups, [backups[0]]);
    assert!(finding.detail.contains("refers to its packs"), "{}", finding.detail);
    fs::write(world.object(&name), bytes).unwrap();
    assert!(world.verify(Mode::Quick).findings.is_clean());

    expire(&world, backups[0]);
    assert!(world.verify(Mode::Quick).findings.is_clean());
}

#[test]
fn a_manifest_that_was_read_once_is_missed_by_every_look() {
    let Story { world, backups } = Story::new();
    world.pass(DAY);
    world.walvis(&["verify"]).exits(0);
    // Nobody refers to the packs of the third.
    let name = manifest(&world, backups[2]).to_string();
    let bytes = fs::read(world.object(&name)).unwrap();
    world.remove(&name);
    assert!(world.verify(Mode::Quick).findings.is_clean(), "without what was read nobody knows");
    for look in [&["--quick"][..], &["--rolling", "7d"], &["--full"], &["--quick"]] {
        let ran = world.walvis(&[&["verify"], look].concat()).exits(18);
        assert!(ran.stdout.contains(&name) && ran.stdout.contains("an earlier verification read it"), "{look:?}: {ran:?}");
        assert!(ran.stdout.contains(&format!("costs backups: {}", backups[2])), "{look:?}: {ran:?}");
        assert!(ran.stdout.contains("of a backup whose manifest is missing"), "{look:?}: {ran:?}");
    }
    fs::write(world.object(&name), bytes).unwrap();
    world.walvis(&["verify", "--quick"]).exits(0);

    // Given up since: what is lost is lost, and nothing that is kept needs it.
    world.remove(&name);
    world.repository.give_up(&world.cluster, world.facts.system_id, backups[2], "no manifest").unwrap();
    let ran = world.walvis(&["verify", "--quick"]).exits(0);
    assert!(ran.stdout.contains("was given up since"), "{ran:?}");
    world.remove(&name);
    expire(&world, backups[2]);
    let ran = world.walvis(&["verify", "--quick"]).exits(0);
    assert!(!ran.stdout.contains(&name), "{ran:?}");
}

#[test]
fn what_expired_was_interrupted_or_given_up_is_not_missed() {
    let Story { mut world, backups } = Story::new();
    let (cluster, system_id) = (world.cluster.clone(), world.facts.system_id);
    // One that was interrupted: packs, and no manifest. One that was given up.
    let at = (walvis::pg::Lsn(4 << 20), walvis::pg::Lsn(5 << 20));
    let interrupted = world.backup(7, 1, at, &[("base/5/9", noise(9, 200_000))]);
    world.remove(&manifest(&world, interrupted).to_string());
    let given_up = BackupId::new(1_790_900_000, 8).unwrap();
    world.repository.begin_backup(&cluster, system_id, given_up).unwrap();
    world.repository.give_up(&cluster, system_id, given_up, "its host is gone").unwrap();
    world.pass(DAY);
    for _ in 0..2 {
        let ran = world.walvis(&["verify", "--full"]).exits(0);
        assert!(ran.stdout.contains("of a backup that is under way, was interrupted, or expired"), "{ran:?}");
    }
    // All were read, and go one after the other.
    for backup in [backups[1], backups[0]] {
        expire(&world, backup);
        for look in ["--quick", "--full"] {
            let ran = world.walvis(&["verify", look]).exits(0);
            assert!(!ran.stdout.contains("manifest was deleted"), "{ran:?}");
        }
    }
    // A run that was killed between the two deletions.
    world.repository.forget_begun(&cluster, system_id, &[backups[2]]).unwrap();
    world.walvis(&["verify", "--full"]).exits(0);
}

#[test]
fn a_pinned_backup_that_is_not_there_is_missed() {
    let Story { world, backups } = Story::new();
    let (cluster, system_id, backup) = (world.cluster.clone(), world.facts.system_id, backups[2]);
    let pin = |number, json: String| {
        let name = ObjectName::Pin { cluster: cluster.clone(), system_id, backup, number };
        world.repository.put(&name, &Content::of_bytes(json.as_bytes())).unwrap();
    };
    let now = jiff::Timestamp::now().as_second();
    let written =
        |ago: i64, rest: &str| format!(r#"{{"backup_id":"{backup}","reason":"an audit","written_unix_s":{},{rest}}}"#, now - ago);
    pin(1, written(86_400, r#""keep":true"#));
    assert!(world.verify(Mode::Quick).findings.is_clean());
    expire(&world, backup);
    let verified = world.verify(Mode::Quick);
    let finding = only(&verified);
    assert_eq!((finding.problem, finding.subject.to_string()), (Problem::Missing, manifest(&world, backup).to_string()));
    assert!(finding.detail.contains("(an audit)") && finding.detail.contains("unpin"), "{}", finding.detail);
    assert_eq!(finding.cost.backups, [backup]);
    // One whose time is over, one that is just being made, one that was taken away.
    pin(2, written(86_400, &format!(r#""keep":true,"until_unix_s":{}"#, now - 60)));
    assert!(world.verify(Mode::Quick).findings.is_clean());
    pin(3, written(10, r#""keep":true"#));
    assert!(world.verify(Mode::Quick).findings.is_clean());
    pin(4, written(86_400, r#""keep":true"#));
    only(&world.verify(Mode::Quick));
    assert!(world.repository.unpin(&cluster, system_id, backup).unwrap());
    assert!(world.verify(Mode::Quick).findings.is_clean());
}
