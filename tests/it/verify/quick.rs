//! The quick look.

use std::fs;

use walvis::pg::Timeline;
use walvis::verify::{Finding, Mode, Problem, Verified};

use super::world::Story;
use crate::support::wal::SEGMENT_BYTES;

/// The one finding that matters.
#[track_caller]
fn only(verified: &Verified) -> &Finding {
    assert_eq!(verified.findings.that_matter.len(), 1, "{:#?}", verified.findings);
    &verified.findings.that_matter[0]
}

/// Numbers of the segments in which lost moments begin and end, by timeline.
fn lost(finding: &Finding) -> Vec<(u32, u64, u64)> {
    let number = |lsn: walvis::pg::Lsn| lsn.0 / SEGMENT_BYTES;
    finding
        .cost
        .moments
        .iter()
        .map(|lost| (lost.timeline.0, number(lost.from), number(walvis::pg::Lsn(lost.until.0 - 1))))
        .collect()
}

#[test]
fn what_is_whole_is_found_whole() {
    let Story { world, .. } = Story::new();
    let verified = world.verify(Mode::Quick);
    assert!(verified.findings.is_clean() && verified.findings.others.is_empty(), "{:#?}", verified.findings);
    let counts = verified.counts[0];
    assert_eq!((counts.backups, counts.packs), (3, world.objects("packs").len() as u64));
    assert_eq!(counts.segments, world.objects("wal").iter().filter(|name| !name.contains("history")).count() as u64);
    assert!(counts.segments > 50 && verified.checked.is_empty());
}

#[test]
fn a_missing_segment_costs_what_no_later_backup_leads_to() {
    let Story { world, backups } = Story::new();
    world.remove(&world.segment(1, 10));
    let verified = world.verify(Mode::Quick);
    let finding = only(&verified);
    assert_eq!((finding.problem, finding.subject.to_string()), (Problem::Missing, world.segment(1, 10)));
    assert_eq!(lost(finding), [(1, 10, 16)], "up to where the second backup is consistent");
    assert!(finding.cost.backups.is_empty(), "{finding:?}");
    let moments = finding.cost.moments[0];
    assert!(moments.from_time.unwrap() < moments.until_time.unwrap(), "{moments:?}");

    // Those that a backup needs.
    world.remove(&world.segment(1, 15));
    let verified = world.verify(Mode::Quick);
    assert_eq!(verified.findings.that_matter.len(), 2, "{:#?}", verified.findings);
    let second = &verified.findings.that_matter[1];
    assert_eq!(second.cost.backups, [backups[1]]);
    let ends = lost(second);
    assert_eq!((ends[0].0, ends[0].1), (1, 15));
    assert_eq!((ends[1].0, ends[1].2), (2, 30), "the third one is whole: {ends:?}");

    // What nobody needs is no matter.
    let Story { world, .. } = Story::new();
    world.remove(&world.segment(1, 2));
    let verified = world.verify(Mode::Quick);
    assert!(verified.findings.is_clean(), "{:#?}", verified.findings);
}

#[test]
fn the_segment_of_a_fork_is_the_child_s_own() {
    let Story { world, .. } = Story::new();
    world.remove(&world.segment(2, 20));
    let verified = world.verify(Mode::Quick);
    let finding = only(&verified);
    assert_eq!(lost(finding), [(2, 20, 30)]);
    // The parent's is of no use to the child.
    let Story { world, .. } = Story::new();
    world.remove(&world.segment(1, 20));
    assert_eq!(lost(only(&world.verify(Mode::Quick))).iter().map(|lost| lost.0).collect::<Vec<_>>(), [1]);
}

#[test]
fn segments_of_a_backup_at_the_end_of_the_log_are_missed() {
    let Story { world, backups } = Story::new();
    for number in 30..=52 {
        let object = world.object(&world.segment(2, number));
        if object.exists() {
            fs::remove_file(object).unwrap();
        }
    }
    let verified = world.verify(Mode::Quick);
    let finding = only(&verified);
    assert_eq!(finding.cost.backups, [backups[2]]);
    assert_eq!(lost(finding).iter().map(|lost| lost.0).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_missing_history_and_a_missing_pack_are_told() {
    let Story { world, backups } = Story::new();
    world.remove(&format!("clusters/main/{}/wal/history/00000002.history", world.facts.system_id));
    let verified = world.verify(Mode::Quick);
    let finding = only(&verified);
    assert!(finding.subject.to_string().ends_with("00000002.history"), "{finding:?}");
    assert!(finding.cost.moments.iter().all(|lost| lost.timeline == Timeline(2)), "{finding:?}");

    let Story { world, backups: _ } = Story::new();
    let packs = world.objects("packs");
    let of_first: Vec<&String> = packs.iter().filter(|name| name.contains(&backups[0].to_string())).collect();
    world.remove(of_first[0]);
    let verified = world.verify(Mode::Quick);
    let finding = only(&verified);
    assert_eq!((finding.problem, finding.subject.to_string()), (Problem::Missing, of_first[0].clone()));
    assert!(finding.cost.backups.contains(&backups[0]), "{finding:?}");
    // Too short.
    let last = packs.last().unwrap();
    world.change(last, |bytes| bytes.truncate(bytes.len() / 2));
    let verified = world.verify(Mode::Quick);
    let cut = verified.findings.that_matter.iter().find(|finding| finding.subject.to_string() == *last).unwrap();
    assert_eq!((cut.problem, cut.cost.backups.as_slice()), (Problem::WrongSize, &backups[2..]));
}

#[test]
fn foreign_names_and_leftovers_are_told_and_do_not_matter() {
    let Story { world, backups } = Story::new();
    fs::write(world.object("notes.txt"), "x").unwrap();
    fs::write(world.object("clusters/main/notes"), "y").unwrap();
    let manifest = world.objects("backups").pop().unwrap();
    world.remove(&manifest);
    let verified = world.verify(Mode::Quick);
    assert!(verified.findings.is_clean(), "{:#?}", verified.findings);
    let found: Vec<(Problem, String)> =
        verified.findings.others.iter().map(|finding| (finding.problem, finding.subject.to_string())).collect();
    assert!(found.contains(&(Problem::Foreign, "notes.txt".to_owned())), "{found:?}");
    assert!(found.contains(&(Problem::Foreign, "clusters/main/notes".to_owned())), "{found:?}");
    assert!(found.contains(&(Problem::Leftover, format!("packs of backup {}", backups[2]))), "{found:?}");
}

#[test]
fn a_damaged_head_of_a_manifest_costs_its_backup() {
    let Story { world, backups } = Story::new();
    let manifest = world.objects("backups")[0].clone();
    world.change(&manifest, |bytes| bytes[100] ^= 1);
    let verified = world.verify(Mode::Quick);
    let finding = only(&verified);
    assert_eq!((finding.problem, finding.subject.to_string()), (Problem::Damaged, manifest));
    assert_eq!(finding.cost.backups, [backups[0]]);
    assert!(verified.findings.others.is_empty(), "nobody knows what it refers to: {:#?}", verified.findings.others);
}

#[test]
fn a_damaged_binding_is_found_and_does_not_hide_the_rest() {
    let Story { world, .. } = Story::new();
    world.flip("clusters/main/bindings/00000001");
    world.remove(&world.segment(1, 10));
    let verified = world.verify(Mode::Quick);
    let subjects: Vec<String> = verified.findings.that_matter.iter().map(|finding| finding.subject.to_string()).collect();
    assert_eq!(subjects, ["clusters/main/bindings/00000001".to_owned(), world.segment(1, 10)]);
}
