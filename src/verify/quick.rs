//! The quick look: what listings, heads of manifests and the catalog tell by themselves.

use std::collections::{BTreeMap, BTreeSet};

use super::costs::Harm;
use super::fault::Fault;
use super::findings::{Problem, Subject};
use super::inventory::{Inventory, SystemInventory};
use super::known::Known;
use super::lines::SegmentRun;
use crate::error::Error;
use crate::format::extent::{BackupId, PackId};
use crate::pg::{Lsn, SegmentName, Timeline, WalFileName};
use crate::repo::{ClusterName, ObjectName};

/// What is wrong around a cluster: its bindings, and names that are no object's.
pub(super) fn around(cluster: &ClusterName, inventory: &Inventory, bindings: Vec<(u32, Error)>) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (generation, error) in bindings {
        let name = ObjectName::Binding { cluster: cluster.clone(), generation };
        let problem = if inventory.bindings.contains(&generation) { Problem::Damaged } else { Problem::Missing };
        faults.push(Fault::new(Subject::Object(name), problem, error.what, true));
    }
    for foreign in &inventory.foreign {
        let detail = format!("{} bytes; nobody reads it", foreign.size_bytes);
        faults.push(Fault::new(Subject::Other(foreign.name.clone()), Problem::Foreign, detail, false));
    }
    faults
}

/// What is wrong with one system identifier, besides manifests that are lost. `stops` says whether to tell of segments
/// in which recovery ends, as the catalog has them.
///
/// # Errors
/// As the store's.
pub(super) fn faults(known: &Known<'_>, lost: &[Fault], stops: bool) -> Result<Vec<Fault>, Error> {
    let mut faults = Vec::new();
    missing_segments(known, &mut faults);
    odd_segments(known, &mut faults);
    missing_histories(known, &mut faults);
    packs(known, lost, &mut faults)?;
    catalog_damage(known, &mut faults);
    if stops {
        stopped_segments(known, &mut faults);
    }
    Ok(faults)
}

/// What kept the catalog from being asked: usually one object, which the error begins with.
fn catalog_damage(known: &Known<'_>, faults: &mut Vec<Fault>) {
    for error in &known.catalog_damage {
        let name = error.what.split_whitespace().next().and_then(ObjectName::parse);
        let (subject, (harm, matters)) = match name {
            Some(name) => (Subject::Object(name.clone()), known.consequences(&name)),
            None => {
                let catalog = format!("catalog of {}/{}", known.cluster, known.facts.system_id);
                (Subject::Other(catalog), (Harm::default(), true))
            }
        };
        // Several lines run through it.
        if !faults.iter().any(|fault| fault.subject == subject && fault.problem == Problem::Damaged) {
            faults.push(Fault::new(subject, Problem::Damaged, error.what.clone(), matters).harming(harm));
        }
    }
}

fn missing_segments(known: &Known<'_>, faults: &mut Vec<Fault>) {
    let size = known.facts.wal_segment_size;
    for (timeline, runs) in &known.missing {
        for (first, last) in runs.iter() {
            let run = SegmentRun { timeline: *timeline, first, last };
            let Some((first_name, last_name)) = run.names(size) else { continue };
            let subject = Subject::Segments {
                cluster: known.cluster.clone(),
                system_id: known.facts.system_id,
                first: first_name,
                last: last_name,
            };
            let detail = match last - first {
                0 => "the segment is not stored".to_owned(),
                more => format!("{} segments are not stored", more + 1),
            };
            let fault = Fault::new(subject, Problem::Missing, detail, known.wants(run));
            faults.push(fault.harming(Harm::of_segments(run, size)));
        }
    }
}

fn odd_segments(known: &Known<'_>, faults: &mut Vec<Fault>) {
    let size = known.facts.wal_segment_size;
    for (name, bytes) in &known.inventory.odd_segments {
        let subject = Subject::Object(segment(known, *name));
        let Some(number) = name.number(size) else {
            let detail = format!("no segment of {} bytes has this name", size.bytes());
            faults.push(Fault::new(subject, Problem::Foreign, detail, false));
            continue;
        };
        let run = SegmentRun { timeline: name.timeline, first: number, last: number };
        let fault = Fault::new(subject, Problem::WrongSize, format!("no segment has {bytes} stored bytes"), known.wants(run));
        faults.push(fault.harming(Harm::of_segments(run, size)));
    }
}

/// The object of a segment.
pub(super) fn segment(known: &Known<'_>, name: SegmentName) -> ObjectName {
    ObjectName::wal(known.cluster, known.facts.system_id, WalFileName::Segment(name))
}

fn missing_histories(known: &Known<'_>, faults: &mut Vec<Fault>) {
    let SystemInventory { segments, histories, .. } = &known.inventory;
    let of_backups = known.heads.backups.iter().map(|backup| Timeline(backup.timeline));
    let timelines: BTreeSet<Timeline> = segments.keys().copied().chain(of_backups).collect();
    for timeline in timelines.into_iter().filter(|timeline| timeline.0 > 1 && !histories.contains(timeline)) {
        let name = ObjectName::wal(known.cluster, known.facts.system_id, WalFileName::History(timeline));
        let matters = known.needed.wants_timeline(timeline, &known.inventory);
        let detail = "nobody knows where the timeline began, and no server can be told to take it";
        let fault = Fault::new(Subject::Object(name), Problem::Missing, detail, matters);
        faults.push(fault.harming(Harm { timelines: vec![timeline], ..Harm::default() }));
    }
}

fn packs(known: &Known<'_>, lost: &[Fault], faults: &mut Vec<Fault>) -> Result<(), Error> {
    let users = &known.heads.users;
    let mut wanted: BTreeMap<PackId, u64> = users.packs().collect();
    let mut unused: BTreeMap<BackupId, (u64, u64)> = BTreeMap::new();
    let mut short: BTreeMap<PackId, u64> = BTreeMap::new();
    for (backup, listed) in &known.inventory.packs {
        for (number, bytes) in listed {
            let pack = PackId { backup: *backup, number: *number };
            match wanted.remove(&pack) {
                Some(total) if *bytes < total => drop(short.insert(pack, *bytes)),
                Some(_) => {}
                None => {
                    let (count, sum) = unused.entry(*backup).or_default();
                    (*count, *sum) = (*count + 1, sum.saturating_add(*bytes));
                }
            }
        }
    }
    if !wanted.is_empty() || !short.is_empty() {
        // A backup that expires meanwhile loses its manifest first.
        let there: BTreeSet<BackupId> = known.repository.backup_ids(known.cluster, known.facts.system_id)?.into_iter().collect();
        let harmed = |pack: PackId| users.users(pack).filter(|id| there.contains(id)).collect::<Vec<BackupId>>();
        let gone = wanted.into_keys().map(|pack| (pack, Problem::Missing, "it is not stored".to_owned()));
        let cut = short.into_iter().map(|(pack, bytes)| {
            (pack, Problem::WrongSize, format!("it has {bytes} bytes, fewer than its records have by the manifests"))
        });
        for (pack, problem, detail) in gone.chain(cut) {
            let backups = harmed(pack);
            if backups.is_empty() {
                continue;
            }
            let fault = Fault::new(Subject::Object(pack_name(known, pack)), problem, detail, true);
            faults.push(fault.harming(Harm::of_backups(backups)));
        }
    }
    // Where a manifest cannot be read, nobody knows what it refers to.
    if known.heads.unreadable.is_empty() {
        for (backup, (count, bytes)) in unused {
            let why = if known.inventory.manifests.contains(&backup) {
                "that no backup refers to"
            } else if lost.iter().any(|fault| fault.harm.backups.contains(&backup)) {
                "of a backup whose manifest is missing"
            } else {
                "of a backup that is under way, was interrupted, or expired"
            };
            let subject = Subject::Other(format!("packs of backup {backup}"));
            faults.push(Fault::new(subject, Problem::Leftover, format!("{count} packs {why}: {bytes} bytes"), false));
        }
    }
    Ok(())
}

/// The object of a pack.
pub(super) fn pack_name(known: &Known<'_>, pack: PackId) -> ObjectName {
    ObjectName::Pack { cluster: known.cluster.clone(), system_id: known.facts.system_id, pack }
}

fn stopped_segments(known: &Known<'_>, faults: &mut Vec<Fault>) {
    let mut seen = BTreeSet::new();
    for stop in known.lines.iter().flat_map(|line| &line.stops) {
        if seen.insert(stop.segment) {
            faults.push(stopped(known, stop.segment, stop.until, if stop.is_broken { NEXT_DOES_NOT_FOLLOW } else { STOPS }));
        }
    }
}

const NEXT_DOES_NOT_FOLLOW: &str = "the next segment does not follow";
const STOPS: &str = "reading ends in it, and more is stored";

/// Recovery ends in a segment.
pub(super) fn stopped(known: &Known<'_>, name: SegmentName, until: Lsn, why: &str) -> Fault {
    let size = known.facts.wal_segment_size;
    let subject = Subject::Object(segment(known, name));
    let number = name.number(size).unwrap_or_default();
    let run = SegmentRun { timeline: name.timeline, first: number, last: number };
    let end = run.positions(size).1;
    let fault = Fault::new(subject, Problem::RecoveryStops, format!("recovery ends at {until}: {why}"), known.wants(run));
    fault.harming(Harm { holes: vec![(name.timeline, (until.min(end), end))], ..Harm::default() })
}
