//! Repair of all that a verification found.
//!
//! Lives here: which findings are about objects that a good copy helps, in which order they are repaired, and what is
//! looked at once more afterwards. May not live here: how one object is repaired (`repair`).

use std::collections::BTreeSet;

use super::findings::{Finding, Findings, Problem, Subject};
use super::repair::{RepairSource, Repaired, repair};
use super::request::{Hooks, Mode, VerifyRequest};
use super::run::{Verified, verify};
use crate::error::Error;
use crate::format::envelope::ObjectKind;
use crate::limits::{MAX_FINDINGS_KEPT, MAX_REPAIR_ROUNDS};
use crate::pg::{SegmentName, WalFileName, WalSegmentSize};
use crate::repo::{ClusterName, ObjectName, Repository, SystemId};

/// An object that was to be repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairedObject {
    /// The object.
    pub name: ObjectName,
    /// What became of it.
    pub outcome: Repaired,
}

/// What became of all that was to be repaired.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RepairRun {
    /// Objects that were missing, and are there again.
    pub created: u64,
    /// Damaged objects that were replaced.
    pub replaced: u64,
    /// Damaged objects that have a good copy beside them.
    pub beside: u64,
    /// Objects that were found good.
    pub good: u64,
    /// Objects of which there is no good copy.
    pub lost: u64,
    /// The first [`MAX_FINDINGS_KEPT`] of all these, in the order in which they were looked at.
    pub objects: Vec<RepairedObject>,
}

impl RepairRun {
    fn add(&mut self, name: ObjectName, outcome: Repaired) {
        let count = match outcome {
            Repaired::Good => &mut self.good,
            Repaired::Created => &mut self.created,
            Repaired::Replaced => &mut self.replaced,
            Repaired::Beside { .. } => &mut self.beside,
            Repaired::Lost { .. } => &mut self.lost,
        };
        *count += 1;
        if self.objects.len() < MAX_FINDINGS_KEPT {
            self.objects.push(RepairedObject { name, outcome });
        }
    }

    /// Objects that were brought back.
    pub fn brought_back(&self) -> u64 {
        self.created + self.replaced + self.beside
    }
}

/// Repairs what was found. A finding whose objects all were brought back does not matter any more. Where something came
/// back that says what else is needed (a manifest, a history, a binding), the quick look is taken again, and what it
/// finds is added and repaired too. Where something was found wrong that may have followed from what is good again, all
/// is looked at once more.
///
/// # Errors
/// As [`repair`] and [`verify`].
pub fn repair_found(
    (target, cluster): (&Repository, &ClusterName),
    source: &RepairSource<'_>,
    request: &VerifyRequest<'_>,
    hooks: &Hooks<'_>,
    verified: &mut Verified,
) -> Result<RepairRun, Error> {
    let mut run = RepairRun::default();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for _ in 0..MAX_REPAIR_ROUNDS {
        let mut says_more = false;
        let mut helped = BTreeSet::new();
        let mut findings: Vec<&Finding> = verified.findings.iter().collect();
        findings.sort_by_key(|finding| !is_first(&finding.subject));
        for finding in findings {
            let subject = finding.subject.to_string();
            if !can_help(finding) || !seen.insert(subject.clone()) {
                continue;
            }
            let is_unreadable = finding.problem == Problem::Unreadable;
            let (mut all, mut any) = (true, false);
            each_object(target, finding, &mut |name| {
                (hooks.go_on)()?;
                let outcome = repair(target, source, &name, is_unreadable)?;
                let is_back = matches!(outcome, Repaired::Created | Repaired::Replaced | Repaired::Beside { .. });
                all &= is_back;
                any |= is_back;
                run.add(name, outcome);
                Ok(())
            })?;
            if all && any {
                helped.insert(subject);
            }
            says_more |= any && is_first(&finding.subject);
        }
        settle(&mut verified.findings, &helped);
        if !says_more {
            break;
        }
        let quick = VerifyRequest { mode: Mode::Quick, ..*request };
        let again = verify(target, cluster, &quick, hooks)?;
        let known: BTreeSet<String> = verified.findings.iter().map(|finding| finding.subject.to_string()).collect();
        for finding in again.findings.iter().filter(|finding| !known.contains(&finding.subject.to_string())) {
            verified.findings.add(finding.clone());
        }
    }
    // What was found wrong with others may have followed from what is good again.
    if run.brought_back() > 0 && verified.findings.that_matter.iter().any(follows) {
        look_again((target, cluster), request, hooks, verified)?;
    }
    Ok(run)
}

/// Whether a finding may be about an object that is good, and found wrong because of another one.
fn follows(finding: &Finding) -> bool {
    matches!(finding.problem, Problem::Contradiction | Problem::RecoveryStops)
}

/// Verifies once more. What was repaired stays among what was found.
fn look_again(
    (target, cluster): (&Repository, &ClusterName),
    request: &VerifyRequest<'_>,
    hooks: &Hooks<'_>,
    verified: &mut Verified,
) -> Result<(), Error> {
    let before = std::mem::replace(verified, verify(target, cluster, request, hooks)?);
    let known: BTreeSet<String> = verified.findings.iter().map(|finding| finding.subject.to_string()).collect();
    for finding in before.findings.iter().filter(|finding| finding.is_repaired) {
        if !known.contains(&finding.subject.to_string()) {
            verified.findings.add(finding.clone());
        }
    }
    Ok(())
}

/// Whether a good copy would help.
fn can_help(finding: &Finding) -> bool {
    let is_object = match &finding.subject {
        Subject::Object(name) => name.sealed_kind().is_some() && name.repaired().is_none(),
        Subject::Segments { .. } => true,
        Subject::Other(_) => false,
    };
    is_object && matches!(finding.problem, Problem::Missing | Problem::WrongSize | Problem::Damaged | Problem::Unreadable)
}

/// Whether it is about an object that says what else is needed.
fn is_first(subject: &Subject) -> bool {
    let Subject::Object(name) = subject else { return false };
    matches!(name.sealed_kind(), Some(ObjectKind::Manifest | ObjectKind::History | ObjectKind::Binding))
}

fn each_object(
    target: &Repository,
    finding: &Finding,
    visit: &mut dyn FnMut(ObjectName) -> Result<(), Error>,
) -> Result<(), Error> {
    match &finding.subject {
        Subject::Object(name) => visit(name.clone()),
        Subject::Other(_) => Ok(()),
        Subject::Segments { cluster, system_id, first, last } => {
            let Some(size) = segment_size(target, cluster, *system_id)? else { return Ok(()) };
            let (Some(from), Some(to)) = (first.number(size), last.number(size)) else { return Ok(()) };
            for number in from..=to {
                if let Some(name) = SegmentName::from_number(first.timeline, number, size) {
                    visit(ObjectName::wal(cluster, *system_id, WalFileName::Segment(name)))?;
                }
            }
            Ok(())
        }
    }
}

/// The size of a system identifier's segments: what its binding says, or a backup.
fn segment_size(target: &Repository, cluster: &ClusterName, system_id: SystemId) -> Result<Option<WalSegmentSize>, Error> {
    let (bindings, _) = target.bindings_despite_damage(cluster)?;
    if let Some(binding) = bindings.iter().find(|binding| binding.facts.system_id == system_id) {
        return Ok(Some(binding.facts.wal_segment_size));
    }
    let backups = target.backups(cluster, system_id)?;
    let size = backups.iter().find_map(|(_, summary)| summary.as_ref().ok()).map(|summary| summary.wal_segment_bytes);
    Ok(size.and_then(WalSegmentSize::new))
}

/// Marks the findings of these subjects as repaired: they do not matter any more.
fn settle(findings: &mut Findings, helped: &BTreeSet<String>) {
    let mut kept = Findings {
        that_matter_total: findings.that_matter_total - findings.that_matter.len() as u64,
        others_total: findings.others_total - findings.others.len() as u64,
        ..Findings::default()
    };
    let all = std::mem::take(&mut findings.that_matter).into_iter().chain(std::mem::take(&mut findings.others));
    for mut finding in all {
        if helped.contains(&finding.subject.to_string()) {
            finding.is_repaired = true;
            finding.matters = false;
        }
        kept.add(finding);
    }
    *findings = kept;
}
