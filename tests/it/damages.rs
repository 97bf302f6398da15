//! Random damages of a repository with WAL of two timelines and three backups: the full look finds every one that
//! matters and says what it costs, by an account of our own of who needs what; a repair from a copy brings back exactly
//! what was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::{ControlFlow, Range};
use std::path::Path;

use walvis::format::extent::{BackupId, PackId, StoredExtent};
use walvis::format::manifest::{Content, Item};
use walvis::limits::EXTENTS_PER_TABLE;
use walvis::pg::WalFileName;
use walvis::repo::backups::{ExtentReader, PackReader};
use walvis::repo::{ObjectName, Repository};
use walvis::store::memory::MemoryStore;
use walvis::store::{ContentId, Key, Store};
use walvis::verify::repair::{RepairSource, Repaired, repair};
use walvis::verify::{Finding, Hooks, Mode, Problem, Verified, VerifyRequest, Window, repair_found};

use crate::support::command::files_below;
use crate::support::wal::SEGMENT_BYTES;
use crate::verify::world::{Story, World, size};

type Files = BTreeMap<String, Vec<u8>>;

fn all(root: &Path) -> Files {
    let files = files_below(root);
    let name = |file: &Path| file.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    files.iter().map(|file| (name(file), fs::read(file).unwrap())).collect()
}

fn put(root: &Path, name: &str, bytes: &[u8]) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let _ = fs::remove_file(&path);
    fs::write(&path, bytes).unwrap();
}

/// What was done to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Damage {
    /// Bytes from here on, as many as this.
    Flipped(Range<usize>),
    Cut(usize),
    Longer,
    /// Another object's bytes.
    Swapped,
    Deleted,
}

/// Who needs a pack.
#[derive(Default)]
struct Users {
    /// Where records lie in the object, and the backups that refer to each.
    records: Vec<(Range<usize>, BTreeSet<BackupId>)>,
    /// Of the whole pack.
    all: BTreeSet<BackupId>,
}

struct Scene {
    story: Story,
    good: Files,
    source: Repository,
    packs: BTreeMap<String, Users>,
}

impl Scene {
    fn new() -> Self {
        let story = Story::new();
        let good = all(&story.world.root());
        let memory = MemoryStore::new();
        for (name, bytes) in &good {
            let _ = memory.create(&Key::new(name.clone()).unwrap(), bytes.clone().into(), &ContentId([0; 16])).unwrap();
        }
        let source = Repository::over(std::sync::Arc::new(memory), &story.world.secret(), 1).unwrap();
        let packs = users(&story);
        Self { story, good, source, packs }
    }

    fn world(&self) -> &World {
        &self.story.world
    }

    /// Everything as it was.
    fn restore(&self, damaged: &[(String, Damage)]) {
        for (name, _) in damaged {
            put(&self.world().root(), name, &self.good[name]);
        }
        let _ = fs::remove_dir_all(self.world().root().join("repairs"));
    }

    fn do_damage(&self, name: &str, random: &mut fastrand::Rng) -> Damage {
        let good = &self.good[name];
        let mut bytes = good.clone();
        let damage = match random.u32(0..12) {
            0..=4 => {
                let at = random.usize(..bytes.len());
                let until = if random.bool() { at + 1 } else { (at + random.usize(1..5000)).min(bytes.len()) };
                for byte in &mut bytes[at..until] {
                    *byte ^= random.u8(1..);
                }
                Damage::Flipped(at..until)
            }
            5..=6 => {
                // Nothing at all, now and then.
                let at = if random.u32(0..8) == 0 { 0 } else { random.usize(..bytes.len()) };
                bytes.truncate(at);
                Damage::Cut(at)
            }
            7 => {
                bytes.extend((0..random.usize(1..100_000)).map(|_| random.u8(..)));
                Damage::Longer
            }
            8..=9 => {
                let others: Vec<&String> = self.good.keys().filter(|other| *other != name).collect();
                bytes.clone_from(&self.good[*random.choice(&others).unwrap()]);
                Damage::Swapped
            }
            _ => {
                fs::remove_file(self.world().object(name)).unwrap();
                return Damage::Deleted;
            }
        };
        put(&self.world().root(), name, &bytes);
        damage
    }

    /// Backups that cannot be restored because of this, by our own account: at least the first, at most the second.
    fn harmed(&self, name: &str, damage: &Damage) -> (BTreeSet<BackupId>, BTreeSet<BackupId>) {
        let exactly = |set: BTreeSet<BackupId>| (set.clone(), set);
        match ObjectName::parse(name).unwrap() {
            ObjectName::Manifest { backup, .. } => exactly(BTreeSet::from([backup])),
            ObjectName::Pack { .. } => {
                let users = &self.packs[name];
                let of = |range: &Range<usize>| {
                    let hit = users.records.iter().filter(|(at, _)| at.start < range.end && range.start < at.end);
                    hit.flat_map(|(_, backups)| backups.iter().copied()).collect::<BTreeSet<_>>()
                };
                let first = users.records.first().map_or(0, |(at, _)| at.start);
                match damage {
                    // The list of contents is no restore's business, and yet its damage is called one of the pack.
                    Damage::Flipped(range) if range.start < first => (of(range), users.all.clone()),
                    Damage::Flipped(range) => exactly(of(range)),
                    Damage::Cut(at) if *at >= first => exactly(of(&(*at..usize::MAX))),
                    Damage::Longer => (BTreeSet::new(), users.all.clone()),
                    Damage::Cut(_) | Damage::Swapped | Damage::Deleted => exactly(users.all.clone()),
                }
            }
            ObjectName::Wal { file, .. } => match file.file {
                WalFileName::Segment(segment) => {
                    let (from, timeline) = (segment.number(size()).unwrap() * SEGMENT_BYTES, segment.timeline.0);
                    let during = |id: &BackupId| {
                        let summary =
                            self.world().repository.backup_summary(&self.world().cluster, self.world().facts.system_id, *id);
                        let summary = summary.unwrap().unwrap();
                        summary.timeline == timeline && summary.start_lsn.0 < from + SEGMENT_BYTES && from < summary.stop_lsn.0
                    };
                    exactly(self.story.backups.iter().copied().filter(during).collect())
                }
                // The third is on the second timeline.
                _ => (BTreeSet::new(), BTreeSet::from([self.story.backups[2]])),
            },
            _ => (BTreeSet::new(), self.story.backups.into_iter().collect()),
        }
    }

    /// Whether somebody needs the object, and the damage can be told.
    fn must_be_found(&self, name: &str, damage: &Damage, damaged: &[(String, Damage)]) -> bool {
        let ObjectName::Wal { file, .. } = ObjectName::parse(name).unwrap() else {
            // Nodes are made anew from the segments.
            // To the packs of the third backup nobody refers.
            let third = self.story.backups[2].to_string();
            let is_referred = name.contains("/backups/") && !name.ends_with(&third);
            let shows_when_gone = is_referred || name.contains("/packs/") || name.contains("/bindings/");
            return !name.contains("/index/") && (*damage != Damage::Deleted || shows_when_gone);
        };
        let WalFileName::Segment(segment) = file.file else { return true };
        let (timeline, number) = (segment.timeline.0, segment.number(size()).unwrap());
        // What is gone at the end of a timeline cannot be told from what was never archived.
        let is_there = |number: u64| {
            let name = self.world().segment(timeline, number);
            self.good.contains_key(&name) && !damaged.iter().any(|(other, how)| *other == name && *how == Damage::Deleted)
        };
        let at_the_end = *damage == Damage::Deleted && !(number + 1..60).any(is_there);
        // The first backup begins in segment 4, and nothing leads to what is before it.
        number >= 4 && !at_the_end
    }

    fn full(&self) -> Verified {
        self.world().verify(Mode::Full)
    }

    fn check(&self, verified: &Verified, damaged: &[(String, Damage)]) {
        let covers = |finding: &Finding, name: &str| match &finding.subject {
            walvis::verify::Subject::Segments { first, last, .. } => {
                let Some(ObjectName::Wal { file, .. }) = ObjectName::parse(name) else { return false };
                matches!(file.file, WalFileName::Segment(segment) if segment.timeline == first.timeline && (*first..=*last).contains(&segment))
            }
            subject => subject.to_string() == name,
        };
        for (name, damage) in damaged {
            let says = || format!("{name} {damage:?} among {damaged:?}: {:#?}", verified.findings);
            let found: Vec<&Finding> = verified.findings.iter().filter(|finding| covers(finding, name)).collect();
            if *damage != Damage::Deleted {
                assert!(!found.is_empty(), "not found: {}", says());
            }
            if !self.must_be_found(name, damage, damaged) {
                continue;
            }
            assert!(found.iter().any(|finding| finding.matters), "does not matter: {}", says());
            let cost: BTreeSet<BackupId> = found.iter().flat_map(|finding| finding.cost.backups.iter().copied()).collect();
            let (least, most) = self.harmed(name, damage);
            // A run of missing segments costs what all of them do.
            let is_run = matches!(found[0].subject, walvis::verify::Subject::Segments { first, last, .. } if first != last);
            assert!(
                least.is_subset(&cost) && (is_run || cost.is_subset(&most)),
                "costs {cost:?}, not {least:?}..{most:?}: {}",
                says()
            );
            if let Some(ObjectName::Wal { file, .. }) = ObjectName::parse(name)
                && let WalFileName::Segment(segment) = file.file
            {
                let begin = segment.number(size()).unwrap() * SEGMENT_BYTES;
                let moments = found.iter().flat_map(|finding| &finding.cost.moments);
                // Where a backup cannot be restored because of it, they begin where that one would be consistent.
                let is_of = |lost: &walvis::verify::LostMoments| lost.from.0 < begin + 3 * SEGMENT_BYTES && begin < lost.until.0;
                assert!(moments.into_iter().any(is_of), "no moments: {}", says());
            }
        }
        // Nothing else is found that matters.
        for finding in &verified.findings.that_matter {
            let is_of = damaged.iter().any(|(name, _)| covers(finding, name));
            assert!(is_of || follows_from(finding, damaged), "{finding:#?} after {damaged:?}");
        }
    }

    fn repair_all(&self, verified: &mut Verified, damaged: &[(String, Damage)]) {
        let world = self.world();
        let request = VerifyRequest { mode: Mode::Full, jobs: 2, max_bytes_per_s: None, window: Window::Everything, seen: None };
        let hooks = Hooks { go_on: &|| Ok(()), progress: &|_| {} };
        let source = RepairSource::new(&world.repository, &self.source);
        let run = repair_found((&world.repository, &world.cluster), &source, &request, &hooks, verified).unwrap();
        assert_eq!(run.lost, 0, "{run:#?}");
        let names: BTreeSet<String> = run.objects.iter().map(|object| object.name.to_string()).collect();
        let now = all(&world.root());
        for (name, damage) in damaged {
            let copy = now.get(&format!("repairs/1/{name}"));
            let is_back = now.get(name) == Some(&self.good[name]) || copy == Some(&self.good[name]);
            let may_stay = *damage == Damage::Deleted && !self.must_be_found(name, damage, damaged);
            assert!(is_back || may_stay, "{name} {damage:?} among {damaged:?}: {run:#?}");
            if copy.is_some() && now.get(name) != Some(&self.good[name]) {
                let outcome = &run.objects.iter().find(|object| object.name.to_string() == *name).unwrap().outcome;
                assert!(matches!(outcome, Repaired::Beside { .. }), "{outcome:?}");
            }
        }
        // Nothing but what was damaged was touched.
        let others = |files: &Files| {
            let is_other = |name: &&String| !name.starts_with("repairs/") && !damaged.iter().any(|(other, _)| other == *name);
            files.iter().filter(|(name, _)| is_other(name)).map(|(name, bytes)| (name.clone(), bytes.clone())).collect::<Files>()
        };
        assert!(others(&now) == others(&self.good), "{damaged:?}");
        assert!(names.iter().all(|name| damaged.iter().any(|(damaged, _)| damaged == name)), "{names:?} of {damaged:?}");
        assert!(verified.findings.is_clean(), "{damaged:?}: {:#?}", verified.findings);
    }

    /// Damages objects, looks, repairs, looks again where somebody may doubt it, and puts everything back.
    fn round(&self, names: &[String], again: bool, random: &mut fastrand::Rng) {
        let damaged: Vec<(String, Damage)> = names.iter().map(|name| (name.clone(), self.do_damage(name, random))).collect();
        let mut verified = self.full();
        self.check(&verified, &damaged);
        self.repair_all(&mut verified, &damaged);
        if again {
            let verified = self.full();
            assert!(verified.findings.is_clean(), "after the repair of {damaged:?}: {:#?}", verified.findings);
        }
        self.restore(&damaged);
    }

    /// As many damages as this, most of them several at once, and each kind of object that says what others are for by
    /// itself.
    fn damages(&self, seed: u64, count: usize) {
        let mut random = fastrand::Rng::with_seed(seed);
        let of = |parts: &[&str]| -> Vec<String> {
            let is_of = |name: &&String| parts.iter().any(|part| name.contains(part));
            self.good.keys().filter(is_of).cloned().collect()
        };
        let (content, index) = (of(&["/wal/0", "/packs/"]), of(&["/backups/", "/wal/history/", "/bindings/", "/index/"]));
        let (mut done, mut round) = (0, 0);
        while done < count {
            round += 1;
            let mut names = if round % 3 == 0 { index.clone() } else { content.clone() };
            random.shuffle(&mut names);
            // Where a pack with tables is gone, nobody can tell whose the other packs are: one at a time.
            let mut packs = 0;
            names.retain(|name| {
                packs += usize::from(name.contains("/packs/"));
                packs <= 1 || !name.contains("/packs/")
            });
            names.truncate(if round % 3 == 0 { 1 } else { 24 });
            self.round(&names, round % 8 == 0, &mut random);
            done += names.len();
        }
    }
}

/// What may be found besides the damaged object itself: a manifest of which a table cannot be read, a log that does not
/// go on.
fn follows_from(finding: &Finding, damaged: &[(String, Damage)]) -> bool {
    matches!(finding.problem, Problem::RecoveryStops | Problem::Contradiction)
        && damaged.iter().any(|(name, _)| name.contains("/wal/") || name.contains("/packs/"))
}

/// Who needs which record, read from the manifests while all is well.
fn users(story: &Story) -> BTreeMap<String, Users> {
    let world = &story.world;
    let (repository, cluster, system_id) = (&world.repository, &world.cluster, world.facts.system_id);
    let mut of_place: BTreeMap<(PackId, u32), BTreeSet<BackupId>> = BTreeMap::new();
    for backup in story.backups {
        let mut items = Vec::new();
        let (_, head) = repository
            .read_manifest(cluster, system_id, backup, &mut |_, item| {
                items.push(item);
                Ok(ControlFlow::Continue(()))
            })
            .unwrap()
            .unwrap();
        let key: [u8; 32] = hex::decode(&head.facts.hash_key).unwrap().try_into().unwrap();
        let reader = ExtentReader::new(PackReader::new(repository, cluster, system_id), key, 1);
        let mut needs = |pack, offset| {
            of_place.entry((pack, offset)).or_default().insert(backup);
        };
        for item in items {
            let Item::File(file) = item else { continue };
            let extents = match &file.content {
                Content::Extents(extents) => extents.clone(),
                Content::Tables(tables) => {
                    let mut extents = Vec::new();
                    for (table, first) in tables.iter().zip((0..).step_by(EXTENTS_PER_TABLE)) {
                        needs(table.place.pack, table.place.offset);
                        extents.extend(reader.table(table, file.size_bytes, first).unwrap());
                    }
                    extents
                }
            };
            for StoredExtent { place, .. } in extents.iter().filter_map(|extent| extent.stored) {
                needs(place.pack, place.offset);
            }
        }
    }
    let mut packs = BTreeMap::new();
    for name in world.objects("packs") {
        let Some(ObjectName::Pack { pack, .. }) = ObjectName::parse(&name) else { panic!("{name}") };
        let contents = PackReader::new(repository, cluster, system_id).contents(pack).unwrap();
        let body: usize = contents.iter().map(|record| record.sealed_bytes as usize).sum();
        let begin = fs::metadata(world.object(&name)).unwrap().len() as usize - body;
        let mut users = Users::default();
        for record in contents {
            let at = begin + record.offset as usize;
            let backups = of_place.get(&(pack, record.offset)).cloned().unwrap_or_default();
            users.all.extend(backups.iter().copied());
            users.records.push((at..at + record.sealed_bytes as usize, backups));
        }
        packs.insert(name, users);
    }
    packs
}

#[test]
fn every_damage_that_matters_is_found_and_repaired() {
    Scene::new().damages(5, 400);
}

#[test]
#[ignore = "long: about 5 min"]
fn long_ten_thousand_damages_are_found_and_repaired() {
    let scene = Scene::new();
    for seed in 0..10 {
        scene.damages(100 + seed, 1000);
    }
}

/// Each by itself, without a look at all the rest: what was lost is back, byte for byte, or stands beside it.
#[test]
fn thousands_of_damaged_objects_are_repaired_one_by_one() {
    let scene = Scene::new();
    let mut random = fastrand::Rng::with_seed(17);
    let source = RepairSource::new(&scene.world().repository, &scene.source);
    assert!(source.is_copy());
    let names: Vec<&String> = scene.good.keys().filter(|name| name.starts_with("clusters/")).collect();
    for _ in 0..2500 {
        let name = random.choice(&names).unwrap().as_str();
        let damage = scene.do_damage(name, &mut random);
        let outcome = repair(&scene.world().repository, &source, &ObjectName::parse(name).unwrap(), false).unwrap();
        let read = |name: &str| fs::read(scene.world().object(name)).unwrap();
        match (&damage, &outcome) {
            (Damage::Deleted, Repaired::Created) => assert!(read(name) == scene.good[name], "{name}"),
            (Damage::Deleted, _) => panic!("{name} {damage:?}: {outcome:?}"),
            (_, Repaired::Replaced) => assert!(read(name) == scene.good[name], "{name} {damage:?}"),
            (_, Repaired::Beside { copy, .. }) => assert!(read(&copy.to_string()) == scene.good[name], "{name} {damage:?}"),
            _ => panic!("{name} {damage:?}: {outcome:?}"),
        }
        scene.restore(&[(name.to_owned(), damage)]);
    }
    assert!(scene.full().findings.is_clean());
}

/// What does not belong there is found, costs nothing, and is left alone; so is what looks like an object.
#[test]
fn foreign_objects_are_found_and_left_alone() {
    let scene = Scene::new();
    let root = scene.world().root();
    let mut random = fastrand::Rng::with_seed(23);
    let system = format!("clusters/main/{}", scene.world().facts.system_id);
    let packs = scene.world().objects("packs");
    for round in 0..12 {
        let number = random.u32(1000..);
        let segment = scene.world().segment(1, 10);
        let name = match round % 6 {
            0 => format!("{system}/wal/00000001/00000000/{number}.txt"),
            1 => format!("{segment}.gz"),
            2 => format!("clusters/main/notes{number}"),
            3 => format!("{system}/backups/{number}"),
            4 => format!("{}.partial", segment),
            _ => format!("{}{number:08X}", packs[0].trim_end_matches(|c: char| c.is_ascii_hexdigit())),
        };
        put(&root, &name, b"whatever");
        let mut verified = scene.full();
        assert!(verified.findings.is_clean(), "{name}: {:#?}", verified.findings);
        assert!(
            verified.findings.others.iter().any(|finding| finding.subject.to_string().contains(&name)),
            "{name}: {:#?}",
            verified.findings
        );
        let before = all(&root);
        let world = scene.world();
        let request = VerifyRequest { mode: Mode::Full, jobs: 2, max_bytes_per_s: None, window: Window::Everything, seen: None };
        let hooks = Hooks { go_on: &|| Ok(()), progress: &|_| {} };
        let source = RepairSource::new(&world.repository, &scene.source);
        repair_found((&world.repository, &world.cluster), &source, &request, &hooks, &mut verified).unwrap();
        assert!(all(&root) == before, "{name}");
        fs::remove_file(root.join(&name)).unwrap();
    }
}

#[test]
fn the_command_repairs_from_a_copy() {
    let scene = Scene::new();
    let world = scene.world();
    let copy = tempfile::tempdir().unwrap();
    scene.good.iter().for_each(|(name, bytes)| put(copy.path(), name, bytes));
    let from = format!("file://{}", copy.path().display());
    let (segment, pack) = (world.segment(1, 10), world.objects("packs").remove(0));
    world.remove(&segment);
    world.flip(&pack);
    world.walvis(&["verify"]).exits(18);
    let own = format!("file://{}", world.root().display());
    world.walvis(&["verify", "--repair-from", &own]).exits(16);
    let ran = world.walvis(&["verify", "--repair-from", &from]);
    let ran = ran.exits(0);
    assert!(ran.stdout.contains("2 objects brought back"), "{}", ran.stdout);
    assert!([&segment, &pack].iter().all(|name| fs::read(world.object(name)).unwrap() == scene.good[*name]));
    world.walvis(&["verify"]).exits(0);
}
