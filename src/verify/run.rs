//! A verification of one cluster in one repository, from the listing to the findings.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::fault::Fault;
use super::findings::{Checked, Cost, Finding, Findings, Problem, Subject};
use super::full::Full;
use super::heads::Heads;
use super::inventory::{Inventory, SystemInventory};
use super::known::Known;
use super::meter::Meter;
use super::request::{Hooks, Keep, Mode, Progress, VerifyRequest};
use super::rolling::{Ages, Tally};
use super::window::needed_by;
use super::{lost_manifests, quick};
use crate::error::{Error, Kind};
use crate::limits::{LISTED_NAMES, MAX_TIMED_LOSSES};
use crate::pg::WalFileName;
use crate::pg::scan::Summary;
use crate::repo::{ClusterName, EvidenceProblem, Facts, ObjectName, Prefix, Repository, SystemId};

/// What there is of one system identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// The system identifier.
    pub system_id: SystemId,
    /// Segments that are stored.
    pub segments: u64,
    /// Backups that can be read.
    pub backups: u64,
    /// Packs that are stored.
    pub packs: u64,
    /// All objects.
    pub objects: u64,
    /// Their stored bytes.
    pub bytes: u64,
}

/// What a verification looked at, and found.
#[derive(Debug, Default)]
pub struct Verified {
    /// What there is, oldest system identifier first.
    pub counts: Vec<Counts>,
    /// What was read, of each system identifier of which anything was.
    pub checked: Vec<Checked>,
    /// What was found.
    pub findings: Findings,
    /// What ended it while objects were read, `go_on` or the store: what was read by then is known all the same.
    pub ended_by: Option<Error>,
}

impl Verified {
    /// Adds what is wrong with evidence of earlier verifications. No backup needs it.
    pub fn add_evidence_problems<'p>(&mut self, problems: impl Iterator<Item = (SystemId, &'p EvidenceProblem)>) {
        for (system_id, problem) in problems {
            self.findings.add(Finding {
                subject: Subject::Other(format!("evidence of system identifier {system_id}")),
                system_id: Some(system_id),
                problem: Problem::Damaged,
                detail: problem.to_string(),
                cost: Cost::default(),
                matters: false,
                is_repaired: false,
            });
        }
    }
}

/// Verifies a cluster.
///
/// # Errors
/// [`Kind::Config`] when nothing is stored of the cluster; unreachable, denied; as `go_on`'s, before objects are read.
/// Damage is no error: it is found.
pub fn verify(
    repository: &Repository,
    cluster: &ClusterName,
    request: &VerifyRequest<'_>,
    hooks: &Hooks<'_>,
) -> Result<Verified, Error> {
    let listed = Listed::of(repository, cluster, &BTreeMap::new(), hooks)?;
    verify_listed((repository, cluster), listed, request, hooks, None)
}

/// What a verification begins with: the names of all that is stored.
pub(super) struct Listed {
    facts: Vec<Facts>,
    wrong: Vec<WrongBinding>,
    inventory: Inventory,
}

impl Listed {
    /// Lists. Of the system identifiers of `ages` it is counted how old what is stored is.
    ///
    /// # Errors
    /// [`Kind::Config`] when nothing is stored of the cluster; unreachable, denied; as `go_on`'s.
    pub(super) fn of(
        repository: &Repository,
        cluster: &ClusterName,
        ages: &BTreeMap<SystemId, Ages<'_>>,
        hooks: &Hooks<'_>,
    ) -> Result<Self, Error> {
        let (facts, wrong) = known_systems(repository, cluster)?;
        // A listing tells often how far it is.
        let listed = |objects: u64| {
            if objects.is_multiple_of(LISTED_NAMES as u64) {
                (hooks.go_on)()?;
                (hooks.progress)(Progress::Listing { objects });
            }
            Ok(())
        };
        let inventory = Inventory::of(repository, cluster, &facts, ages, &listed)?;
        Ok(Self { facts, wrong, inventory })
    }

    /// How old what is stored is, once.
    pub(super) fn take_tallies(&mut self) -> BTreeMap<SystemId, Tally> {
        std::mem::take(&mut self.inventory.tallies)
    }
}

/// A binding that is damaged: its number, and why.
type WrongBinding = (u32, Error);

/// The system identifiers of a cluster, oldest first, and what is wrong with its bindings.
fn known_systems(repository: &Repository, cluster: &ClusterName) -> Result<(Vec<Facts>, Vec<WrongBinding>), Error> {
    let (bindings, mut wrong) = repository.bindings_despite_damage(cluster)?;
    let mut facts: Vec<Facts> = Vec::new();
    for binding in bindings {
        if facts.iter().all(|known| known.system_id != binding.facts.system_id) {
            facts.push(binding.facts);
        }
    }
    if facts.is_empty() && wrong.is_empty() {
        facts = unbound(repository, cluster, &facts)?;
        if facts.is_empty() {
            // Says that nothing is stored of it.
            repository.facts(cluster)?;
        }
        let location = repository.location();
        wrong.push((1, Error::new(Kind::Damaged, format!("no binding of cluster {cluster} in {location} is stored"))));
    } else if !wrong.is_empty() {
        facts.extend(unbound(repository, cluster, &facts)?);
    }
    Ok((facts, wrong))
}

/// Verifies what was listed, and hands out meanwhile what was read.
///
/// # Errors
/// As [`verify`].
pub(super) fn verify_listed(
    (repository, cluster): (&Repository, &ClusterName),
    Listed { facts, wrong, mut inventory }: Listed,
    request: &VerifyRequest<'_>,
    hooks: &Hooks<'_>,
    keep: Option<Keep<'_>>,
) -> Result<Verified, Error> {
    let mut verified = Verified::default();
    for fault in quick::around(cluster, &inventory, wrong) {
        verified.findings.add(fault.into_finding(None));
    }
    verified.findings.others_total += inventory.foreign_total.saturating_sub(inventory.foreign.len() as u64);
    let mut times = MAX_TIMED_LOSSES;
    let meter = Meter::new(request.max_bytes_per_s);
    let current = facts.last().map(|facts| facts.system_id);
    for facts in facts {
        let Some(listed) = inventory.systems.remove(&facts.system_id) else { continue };
        let is_current = Some(facts.system_id) == current;
        system(repository, cluster, facts, listed, request, hooks, keep, &meter, is_current, &mut times, &mut verified)?;
        if verified.ended_by.is_some() {
            break;
        }
    }
    Ok(verified)
}

/// Verifies one system identifier.
#[expect(clippy::too_many_arguments, reason = "each is another thing, and this is called once")]
fn system(
    repository: &Repository,
    cluster: &ClusterName,
    facts: Facts,
    listed: SystemInventory,
    request: &VerifyRequest<'_>,
    hooks: &Hooks<'_>,
    keep: Option<Keep<'_>>,
    meter: &Meter,
    is_current: bool,
    times: &mut usize,
    verified: &mut Verified,
) -> Result<(), Error> {
    let mut heads = Heads::read(repository, cluster, facts.system_id, &listed, hooks.go_on)?;
    let mut faults = std::mem::take(&mut heads.faults);
    verified.counts.push(Counts {
        system_id: facts.system_id,
        segments: listed.segment_count(),
        backups: heads.backups.len() as u64,
        packs: listed.packs.values().map(|packs| packs.len() as u64).sum(),
        objects: listed.objects,
        bytes: listed.bytes,
    });
    let catalog = repository.catalog_despite_damage(cluster, facts, &mut |timeline, error| {
        let name = ObjectName::wal(cluster, facts.system_id, WalFileName::History(timeline));
        let fault = Fault::new(Subject::Object(name), Problem::Damaged, error.what, true);
        faults.push(fault.harming(super::costs::Harm { timelines: vec![timeline], ..Default::default() }));
    })?;
    let place = (repository, cluster);
    let window = needed_by(place, &catalog, &listed, &heads, request.window, is_current)?;
    let known = Known::of(place, &catalog, listed, heads, window.as_ref())?;
    let lost = lost_manifests::faults(&known, request.seen)?;
    faults.extend(quick::faults(&known, &lost, request.mode != Mode::Full)?);
    faults.extend(lost);
    if request.mode != Mode::Quick {
        let mut full = Full::new(&known, request, hooks, keep, meter);
        verified.ended_by = full.look().err();
        let (found, checked) = full.finish();
        // What was read is known better.
        faults.retain(|fault| !found.iter().any(|other| other.subject == fault.subject));
        faults.extend(found);
        verified.checked.push(checked);
    }
    for fault in faults {
        verified.findings.add(known.finding(fault, times)?);
    }
    Ok(())
}

/// System identifiers of which objects are stored although no binding that can be read names them: with the size of
/// segments that a backup or a segment says.
fn unbound(repository: &Repository, cluster: &ClusterName, bound: &[Facts]) -> Result<Vec<Facts>, Error> {
    let mut found = BTreeSet::new();
    repository.objects().list(Prefix::Cluster(cluster), "", &mut |object| {
        found.extend(object.name.system_id().filter(|id| bound.iter().all(|facts| facts.system_id != *id)));
        ControlFlow::Continue(())
    })?;
    let mut facts = Vec::new();
    for system_id in found {
        if let Some(wal_segment_size) = size_of(repository, cluster, system_id)? {
            facts.push(Facts { system_id, wal_segment_size, postgres_major: None });
        }
    }
    Ok(facts)
}

fn size_of(
    repository: &Repository,
    cluster: &ClusterName,
    system_id: SystemId,
) -> Result<Option<crate::pg::WalSegmentSize>, Error> {
    let summaries = repository.backups(cluster, system_id)?;
    if let Some(summary) = summaries.iter().find_map(|(_, summary)| summary.as_ref().ok()) {
        return Ok(crate::pg::WalSegmentSize::new(summary.wal_segment_bytes));
    }
    // The first few segments: one of them can be read.
    let mut names = Vec::new();
    repository.objects().list(Prefix::Wal(cluster, system_id), "", &mut |object| {
        names.extend(object.name.wal_file().filter(|file| matches!(file, WalFileName::Segment(_))).copied());
        if names.len() < crate::limits::CATALOG_READERS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    for name in names {
        let Ok(Some(metadata)) = repository.wal_metadata(cluster, system_id, &name) else { continue };
        let size = metadata.wal_summary.and_then(|bytes| Summary::decode(&bytes).ok()).map(|s| s.segment.size_bytes());
        if let Some(size) = size.or(Some(metadata.plaintext_bytes)).and_then(crate::pg::WalSegmentSize::new) {
            return Ok(Some(size));
        }
    }
    Ok(None)
}
