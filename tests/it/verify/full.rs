//! The full look.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use walvis::codec::Digest;
use walvis::format::node::{Children, Entry, Node};
use walvis::limits::{EXTENT_BYTES, MAX_SUMMARY_BYTES};
use walvis::pg::scan::{Scanner, Segment};
use walvis::pg::{Lsn, SegmentName, Timeline, WalFileName};
use walvis::repo::{Content, ObjectName, ObjectSet};
use walvis::verify::{Finding, Hooks, Mode, Problem, Progress, VerifyRequest, Window, verify};

use super::world::{Story, World, size};
use crate::support::wal::{SEGMENT_BYTES, Writer};

#[track_caller]
fn only(world: &World) -> Finding {
    let verified = world.verify(Mode::Full);
    assert_eq!(verified.findings.that_matter.len(), 1, "{:#?}", verified.findings);
    verified.findings.that_matter[0].clone()
}

#[test]
fn what_is_whole_is_found_whole_and_was_looked_at() {
    let Story { world, backups } = Story::new();
    let verified = world.verify(Mode::Full);
    assert!(verified.findings.is_clean() && verified.findings.others.is_empty(), "{:#?}", verified.findings);
    let checked = &verified.checked[0];
    let files = ["wal", "packs", "backups"].map(|part| world.objects(part).len() as u64);
    assert_eq!(checked.objects.count(), files.iter().sum::<u64>());
    assert!(backups.iter().all(|id| checked.objects.has_manifest(*id)));
    let stored: u64 = ["wal", "packs", "index"]
        .iter()
        .flat_map(|part| world.objects(part))
        .map(|name| fs::metadata(world.object(&name)).unwrap().len())
        .sum();
    assert!(checked.bytes >= stored, "{} of {stored} bytes", checked.bytes);
}

/// Each object of each kind, damaged by itself in each way: it is what is found, and nothing else.
#[test]
fn every_damaged_object_is_found_and_no_other() {
    let Story { world, .. } = Story::new();
    let mut random = fastrand::Rng::with_seed(11);
    let mut names: Vec<String> = ["wal", "packs", "backups", "index"].iter().flat_map(|part| world.objects(part)).collect();
    random.shuffle(&mut names);
    for (round, name) in names.iter().take(40).enumerate() {
        let good = fs::read(world.object(name)).unwrap();
        let how = match round % 3 {
            0 => {
                world.change(name, |bytes| {
                    let at = random.usize(..bytes.len());
                    bytes[at] ^= random.u8(1..);
                });
                "flipped"
            }
            1 => {
                world.change(name, |bytes| bytes.truncate(random.usize(..bytes.len())));
                "cut"
            }
            _ => {
                let other = fs::read(world.object(random.choice(&names).unwrap())).unwrap();
                world.change(name, |bytes| if *bytes == other { bytes.push(0) } else { *bytes = other });
                "swapped"
            }
        };
        let finding = only(&world);
        assert_eq!(finding.subject.to_string(), *name, "{how}: {finding:?}");
        fs::write(world.object(name), good).unwrap();
    }
    assert!(world.verify(Mode::Full).findings.is_clean());
}

#[test]
fn a_damaged_record_costs_the_backups_that_refer_to_it() {
    let Story { world, backups } = Story::new();
    // Extent 3 of the first file is of the first backup alone, all its others are in the later ones too.
    let packs = world.objects("packs");
    let of_first: Vec<&String> = packs.iter().filter(|name| name.contains(&backups[0].to_string())).collect();
    let mut harmed = BTreeSet::new();
    for name in &of_first {
        let good = fs::read(world.object(name)).unwrap();
        let mut at = good.len().saturating_sub(1000);
        while at > 1500 {
            world.change(name, |bytes| bytes[at] ^= 1);
            let finding = only(&world);
            assert_eq!(finding.subject.to_string(), **name);
            if !finding.cost.backups.is_empty() {
                assert!(!finding.cost.files.is_empty(), "{finding:?}");
                harmed.insert(finding.cost.backups.clone());
            }
            fs::write(world.object(name), &good).unwrap();
            at = at.saturating_sub(EXTENT_BYTES);
        }
    }
    let all = backups.to_vec();
    assert!(harmed.contains(&all) && harmed.contains(&all[..1]), "{harmed:?}");
}

#[test]
fn a_segment_that_does_not_follow_is_found() {
    let Story { world, .. } = Story::new();
    // Another log under the name of one segment: genuine, and sealed by the same key.
    let mut other = Writer::new(99, 10);
    other.busy(3);
    let log = other.finish();
    let (_, name, bytes) = &log.segments[0];
    world.remove(&world.segment(1, 10));
    let mut scanner = Scanner::new(Segment::new(*name, size()).unwrap(), ());
    scanner.push(bytes);
    let summary = scanner.finish().summary.encode_within(MAX_SUMMARY_BYTES);
    let content = Content::known(Digest::of(&mut bytes.as_slice()).unwrap(), || Box::new(bytes.as_slice())).with_summary(summary);
    let file = WalFileName::Segment(*name);
    world.repository.put_wal(&world.cluster, world.facts.system_id, &file, &content).unwrap();
    let verified = world.verify(Mode::Full);
    let found: Vec<&Finding> = verified.findings.that_matter.iter().filter(|f| f.problem == Problem::RecoveryStops).collect();
    assert!(found.iter().any(|finding| finding.subject.to_string() == world.segment(1, 10)), "{:#?}", verified.findings);
    assert!(found.iter().all(|finding| !finding.cost.moments.is_empty()));
}

#[test]
fn a_summary_that_does_not_fit_is_found() {
    let Story { world, .. } = Story::new();
    let file = WalFileName::Segment(SegmentName::from_number(Timeline(1), 10, size()).unwrap());
    let mut bytes = Vec::new();
    world.repository.get_wal(&world.cluster, world.facts, &file, &mut bytes).unwrap();
    world.remove(&world.segment(1, 10));
    let mut scanner = Scanner::new(Segment::new(SegmentName::from_number(Timeline(1), 10, size()).unwrap(), size()).unwrap(), ());
    scanner.push(&bytes);
    let mut summary = scanner.finish().summary;
    summary.records.as_mut().unwrap().count += 1;
    let content = Content::known(Digest::of(&mut bytes.as_slice()).unwrap(), || Box::new(bytes.as_slice()))
        .with_summary(summary.encode_within(MAX_SUMMARY_BYTES));
    world.repository.put_wal(&world.cluster, world.facts.system_id, &file, &content).unwrap();
    let finding = only(&world);
    assert_eq!((finding.problem, finding.subject.to_string()), (Problem::Contradiction, world.segment(1, 10)));
}

/// A node that is genuine, and says something else than the segments under it: a search would believe it.
#[test]
fn a_node_that_says_something_else_than_its_segments_is_found() {
    let Story { world, .. } = Story::new();
    let changes: [fn(&mut Entry); 3] = [
        |entry| entry.aggregate.marks.checkpoints += 1,
        |entry| entry.first_record = entry.first_record.map(|lsn| Lsn(lsn.0 + 8)),
        |entry| entry.good_until = entry.start,
    ];
    let names = world.objects("index");
    assert!(names.len() >= 2, "{names:?}");
    for (number, name) in names.iter().enumerate() {
        let object = ObjectName::parse(name).unwrap();
        let (good, mut bytes) = (fs::read(world.object(name)).unwrap(), Vec::new());
        world.repository.opener().get(&object, &mut bytes).unwrap().unwrap();
        let mut node = Node::decode(&bytes).unwrap();
        let Children::Segments(entries) = &mut node.children else { panic!("a node over nodes") };
        changes[number % changes.len()](&mut entries[number % 16]);
        world.remove(name);
        world.repository.put(&object, &Content::of_bytes(&node.encode().unwrap())).unwrap();
        let finding = only(&world);
        assert_eq!((finding.problem, finding.subject.to_string()), (Problem::Contradiction, name.clone()));
        assert!(finding.detail.contains("catalog rebuild --force"), "{finding:?}");
        world.remove(name);
        fs::write(world.object(name), good).unwrap();
    }
    assert!(world.verify(Mode::Full).findings.is_clean());
}

/// Manifests are read for themselves, and with their tables for what packs must hold: all of it counts.
#[test]
fn what_is_read_of_manifests_is_counted() {
    let Story { world, backups } = Story::new();
    let bytes_of =
        |part: &str| -> u64 { world.objects(part).iter().map(|name| fs::metadata(world.object(name)).unwrap().len()).sum() };
    let read = |set: &ObjectSet| {
        let selected = BTreeMap::from([(world.facts.system_id, set.clone())]);
        world.verify(Mode::Selected(&selected)).checked[0].bytes
    };
    let mut set = ObjectSet::new(size());
    let others = read(&set);
    backups.iter().for_each(|id| set.insert_manifest(*id));
    let manifests = read(&set) - others;
    assert_eq!(manifests, bytes_of("backups"));
    let Some(ObjectName::Pack { pack, .. }) = ObjectName::parse(&world.objects("packs")[0]) else { panic!("no pack") };
    set.insert_pack(pack);
    let first_pack = fs::metadata(world.object(&world.objects("packs")[0])).unwrap().len();
    assert!(read(&set) >= others + 2 * manifests + first_pack);

    let last = Cell::new((0, 0));
    let progress = |state| {
        if let Progress::Reading { done_bytes, total_bytes: Some(total), .. } = state {
            assert!(done_bytes <= total, "{done_bytes} of {total}");
            assert!(done_bytes >= last.get().0);
            last.set((done_bytes, total));
        }
    };
    let request = VerifyRequest { mode: Mode::Full, jobs: 2, max_bytes_per_s: None, window: Window::Everything, seen: None };
    let verified =
        verify(&world.repository, &world.cluster, &request, &Hooks { go_on: &|| Ok(()), progress: &progress }).unwrap();
    let stored: u64 = ["wal", "packs", "index", "backups"].map(bytes_of).iter().sum();
    assert!(verified.checked[0].bytes >= stored + manifests && last.get().1 > stored, "{:?}", last.get());
}

#[test]
fn only_what_is_selected_is_read() {
    let Story { world, backups } = Story::new();
    let mut set = ObjectSet::new(size());
    set.insert_segments(Timeline(1), 5, 9);
    set.insert_segments(Timeline(2), 20, 20);
    set.insert_manifest(backups[1]);
    for name in [world.segment(1, 6), world.segment(1, 12)] {
        world.flip(&name);
    }
    let packs = world.objects("packs");
    world.flip(packs.last().unwrap());
    let selected = BTreeMap::from([(world.facts.system_id, set.clone())]);
    let verified = world.verify(Mode::Selected(&selected));
    let subjects: Vec<String> = verified.findings.that_matter.iter().map(|finding| finding.subject.to_string()).collect();
    assert_eq!(subjects, [world.segment(1, 6)], "{:#?}", verified.findings);
    assert_eq!(verified.checked[0].objects, set);
    assert!(verified.checked[0].bytes < 7 * SEGMENT_BYTES);
}

#[test]
fn a_good_copy_beside_a_damaged_object_is_seen() {
    let Story { world, .. } = Story::new();
    let name = world.segment(1, 10);
    let repair = world.object(&format!("repairs/1/{name}"));
    fs::create_dir_all(repair.parent().unwrap()).unwrap();
    fs::copy(world.object(&name), &repair).unwrap();
    world.flip(&name);
    let verified = world.verify(Mode::Full);
    assert!(verified.findings.is_clean(), "{:#?}", verified.findings);
    assert!(verified.findings.others.iter().any(|finding| finding.is_repaired && finding.subject.to_string() == name));
    world.flip(&format!("repairs/1/{name}"));
    assert!(!only(&world).is_repaired);
}

#[test]
fn what_nobody_refers_to_does_not_matter() {
    let Story { world, backups } = Story::new();
    let manifest = world.objects("backups").remove(0);
    assert!(manifest.contains(&backups[0].to_string()));
    // As `expire` does.
    world.repository.forget_begun(&world.cluster, world.facts.system_id, &[backups[0]]).unwrap();
    world.remove(&manifest);
    world.flip(&world.segment(1, 3));
    let verified = world.verify(Mode::Full);
    assert!(verified.findings.is_clean(), "{:#?}", verified.findings);
    assert_eq!(verified.findings.others.iter().filter(|finding| finding.problem == Problem::Damaged).count(), 1);
}
