//! What verifications of a cluster leave for later ones: evidence, and what a rolling one reads because of it.
//!
//! Lives here: which of what was read counts as whole, and what is said of backups. May not live here: the form of
//! evidence (`repo::evidence`), the choice of a share ([`rolling`](super::rolling)).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use super::checked_backups::checked_backups;
use super::findings::{Checked, Finding, Findings, Problem, Subject};
use super::request::SeenManifests;
use super::rolling::{Ages, Share, Tally};
use super::run::Verified;
use crate::error::Error;
use crate::fsio;
use crate::limits::MAX_EVIDENCE_FINDINGS;
use crate::pg::WalSegmentSize;
use crate::repo::{
    ClusterName, EvidenceId, EvidenceProblem, Facts, ObjectName, ObjectSet, Remembered, Repository, SavedFinding, SystemId,
    Verification, VerificationMode,
};

/// A verification, as evidence has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occasion {
    /// How it looked.
    pub mode: VerificationMode,
    /// Of a rolling one: the time in which everything is read once.
    pub period: Option<Duration>,
    /// When it began, in microseconds since 1970 UTC by this host's clock.
    pub began_unix_us: i64,
    /// How long it took.
    pub took: Duration,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
}

/// What evidence tells of a cluster.
#[derive(Debug, Default)]
pub struct Memory {
    systems: BTreeMap<SystemId, (Facts, Remembered)>,
}

/// What a rolling verification of a cluster reads now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shares {
    /// The objects of each system identifier; all of them are here, also where nothing is due.
    pub objects: BTreeMap<SystemId, ObjectSet>,
    /// Their stored bytes.
    pub bytes: BTreeMap<SystemId, u64>,
}

impl Shares {
    /// Chooses from what was listed.
    ///
    /// # Errors
    /// As the store's.
    pub(super) fn of(
        repository: &Repository,
        cluster: &ClusterName,
        ages: &BTreeMap<SystemId, Ages<'_>>,
        mut tallies: BTreeMap<SystemId, Tally>,
    ) -> Result<Self, Error> {
        let mut shares = Self::default();
        for (system_id, ages) in ages {
            let Share { objects, bytes, .. } = ages.share(repository, cluster, tallies.remove(system_id).unwrap_or_default())?;
            shares.objects.insert(*system_id, objects);
            shares.bytes.insert(*system_id, bytes);
        }
        Ok(shares)
    }

    /// Stored bytes of all that is read now.
    pub fn due_bytes(&self) -> u64 {
        self.bytes.values().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes))
    }
}

impl Memory {
    /// Reads all evidence of a cluster. A system identifier whose binding cannot be read is left out.
    ///
    /// # Errors
    /// Unreachable, denied.
    pub fn of(repository: &Repository, cluster: &ClusterName) -> Result<Self, Error> {
        let mut memory = Self::default();
        for binding in repository.bindings_despite_damage(cluster)?.0 {
            let system_id = binding.facts.system_id;
            if let Entry::Vacant(free) = memory.systems.entry(system_id) {
                free.insert((binding.facts, repository.remembered(cluster, system_id)?));
            }
        }
        Ok(memory)
    }

    /// The manifests that were read at one time or another.
    pub fn seen_manifests(&self) -> SeenManifests {
        self.systems.iter().map(|(id, (_, remembered))| (*id, remembered.checked.manifests().collect())).collect()
    }

    /// What is wrong with evidence: it is missing, was changed, or cannot be read.
    pub fn problems(&self) -> impl Iterator<Item = (SystemId, &EvidenceProblem)> {
        let systems = self.systems.iter();
        systems.flat_map(|(id, (_, remembered))| remembered.problems.iter().map(|problem| (*id, problem)))
    }

    /// What tells how old everything is. `now_unix_s` is this host's time, in Unix seconds.
    pub(super) fn ages(&self, period: Duration, now_unix_s: i64) -> BTreeMap<SystemId, Ages<'_>> {
        self.systems.iter().map(|(id, (facts, remembered))| (*id, Ages::new(remembered, *facts, period, now_unix_s))).collect()
    }

    /// Writes down what a verification read and found. Of a rolling one that had nothing to read and found nothing
    /// there is nothing to write: the time since the last one that did counts.
    ///
    /// # Errors
    /// [`Kind::Denied`](crate::error::Kind::Denied) when the credentials cannot write; as the store's.
    pub fn write(
        &mut self,
        repository: &Repository,
        cluster: &ClusterName,
        occasion: &Occasion,
        shares: Option<&Shares>,
        verified: &Verified,
    ) -> Result<Vec<EvidenceId>, Error> {
        let mut written = Vec::new();
        for (system_id, (facts, remembered)) in &mut self.systems {
            let nothing = Checked { system_id: *system_id, objects: ObjectSet::new(facts.wal_segment_size), bytes: 0 };
            let checked = verified.checked.iter().find(|checked| checked.system_id == *system_id).unwrap_or(&nothing);
            written.extend(write_one((repository, cluster), *facts, remembered, occasion, shares, checked, &verified.findings)?);
        }
        Ok(written)
    }

    /// Writes down what a verification that goes on has read so far of one system identifier.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_part(
        &mut self,
        (repository, cluster): (&Repository, &ClusterName),
        occasion: &Occasion,
        shares: Option<&Shares>,
        checked: &Checked,
        findings: &Findings,
    ) -> Result<(), Error> {
        let Some((facts, remembered)) = self.systems.get_mut(&checked.system_id) else { return Ok(()) };
        write_one((repository, cluster), *facts, remembered, occasion, shares, checked, findings).map(drop)
    }
}

/// Writes down what was read and found of one system identifier, and remembers it.
fn write_one(
    (repository, cluster): (&Repository, &ClusterName),
    facts: Facts,
    remembered: &mut Remembered,
    occasion: &Occasion,
    shares: Option<&Shares>,
    checked: &Checked,
    findings: &Findings,
) -> Result<Vec<EvidenceId>, Error> {
    let system_id = facts.system_id;
    let (whole, damaged) = told_apart(checked, findings, facts.wal_segment_size);
    let has_read = !whole.is_empty() || !damaged.is_empty();
    let found = Found::of(findings, system_id);
    if occasion.mode == VerificationMode::Rolling && !has_read && found.total == 0 {
        return Ok(Vec::new());
    }
    let share_bytes = shares.and_then(|shares| shares.bytes.get(&system_id)).copied().unwrap_or(0);
    let mut verification = Verification {
        mode: occasion.mode,
        period_s: occasion.period.map(|period| period.as_secs()),
        host: fsio::host_name(),
        began_unix_us: occasion.began_unix_us,
        duration_us: u64::try_from(occasion.took.as_micros()).unwrap_or(u64::MAX),
        interrupted: occasion.interrupted,
        piece: 1,
        read_bytes: checked.bytes,
        // What a finished run did not read is gone, or was not worth a request.
        owed_bytes: if occasion.interrupted { share_bytes.saturating_sub(checked.bytes) } else { 0 },
        whole,
        damaged,
        backups: Vec::new(),
        findings: found.first,
        findings_total: found.total,
        findings_that_matter: found.that_matter,
    };
    if has_read {
        let now_unix_s = jiff::Timestamp::now().as_second();
        verification.backups = checked_backups(repository, cluster, facts, remembered.with(now_unix_s, &verification))?;
    }
    let links = repository.put_evidence(cluster, system_id, &verification, &remembered.newest)?;
    remembered.has_written(&links);
    Ok(links.iter().map(|link| link.id).collect())
}

/// What was found of one system identifier. What is of none is told with each.
struct Found {
    first: Vec<SavedFinding>,
    total: u64,
    that_matter: u64,
}

impl Found {
    fn of(findings: &Findings, system_id: SystemId) -> Self {
        let is_its_own = |finding: &&Finding| finding.system_id.is_none_or(|of| of == system_id);
        let kept = || findings.iter().filter(is_its_own);
        // Those that were counted only may be of any.
        let more = |total: u64, kept: &[Finding]| total.saturating_sub(kept.len() as u64);
        let that_matter =
            kept().filter(|finding| finding.matters).count() as u64 + more(findings.that_matter_total, &findings.that_matter);
        let others = kept().filter(|finding| !finding.matters).count() as u64 + more(findings.others_total, &findings.others);
        let first = kept().take(MAX_EVIDENCE_FINDINGS).map(|finding| SavedFinding {
            object: finding.subject.to_string(),
            what: finding.detail.clone(),
            matters: finding.matters,
        });
        Self { first: first.collect(), total: that_matter + others, that_matter }
    }
}

/// What is whole of what was read, and what is damaged. What readers have a good copy of counts as whole. Where there
/// was more damage than findings are kept of, nobody knows which objects are whole.
fn told_apart(checked: &Checked, findings: &Findings, size: WalSegmentSize) -> (ObjectSet, ObjectSet) {
    let read = &checked.objects;
    let mut damaged = read.none_of_it();
    for finding in findings.iter().filter(|finding| finding.system_id == Some(checked.system_id) && !finding.is_repaired) {
        if matches!(finding.problem, Problem::Damaged | Problem::Unreadable | Problem::WrongSize | Problem::Contradiction) {
            add(&mut damaged, &finding.subject, size);
        }
    }
    // What was not read, because it is missing or was not asked for, is neither.
    let damaged = damaged.intersection(read);
    let is_all =
        findings.that_matter_total == findings.that_matter.len() as u64 && findings.others_total == findings.others.len() as u64;
    let whole = if is_all { read.difference(&damaged) } else { read.none_of_it() };
    (whole, damaged)
}

fn add(objects: &mut ObjectSet, subject: &Subject, size: WalSegmentSize) {
    match subject {
        Subject::Object(ObjectName::Wal { file, .. }) => objects.insert_wal(file),
        Subject::Object(ObjectName::Pack { pack, .. }) => objects.insert_pack(*pack),
        Subject::Object(ObjectName::Manifest { backup, .. }) => objects.insert_manifest(*backup),
        Subject::Segments { first, last, .. } => {
            if let (Some(from), Some(to)) = (first.number(size), last.number(size)) {
                objects.insert_segments(first.timeline, from, to);
            }
        }
        Subject::Object(_) | Subject::Other(_) => {}
    }
}
