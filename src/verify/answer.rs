//! What a verification found, as a report.

use super::findings::{Finding, LostMoments};
use super::repair::Repaired;
use super::repair_found::{RepairRun, RepairedObject};
use super::run::Counts;
use super::session::{Session, SessionRequest};
use crate::repo::{ClusterName, Repository};
use crate::report::verify::{Damage, LostInterval, ObjectRepair, RepairOutcome, RepairReport, VerifiedSystem, VerifyReport};

/// The report of one repository.
pub fn answer(repository: &Repository, cluster: &ClusterName, asked: &SessionRequest<'_>, session: &Session) -> VerifyReport {
    let Session { verified, repaired, took, ended_by } = session;
    let repair = asked.source.zip(repaired.as_ref()).map(|(source, run)| repair_answer(source.location(), run));
    let system = |counts: &Counts| VerifiedSystem {
        system_id: counts.system_id.to_string(),
        segments: counts.segments,
        readable_backups: counts.backups,
        packs: counts.packs,
        objects: counts.objects,
        stored_bytes: counts.bytes,
    };
    VerifyReport {
        repository: repository.location().to_owned(),
        cluster: cluster.to_string(),
        verification_mode: asked.look.mode().into(),
        duration_s: took.as_secs_f64(),
        read_bytes: verified.checked.iter().map(|checked| checked.bytes).sum(),
        systems: verified.counts.iter().map(system).collect(),
        findings: verified.findings.iter().map(damage).collect(),
        findings_total: verified.findings.that_matter_total.saturating_add(verified.findings.others_total),
        findings_that_matter: verified.findings.that_matter_total,
        repair,
        interrupted: ended_by.is_some(),
    }
}

/// What was brought back from the repository at `source`.
fn repair_answer(source: &str, run: &RepairRun) -> RepairReport {
    RepairReport {
        repaired_from: source.to_owned(),
        repaired_objects: run.brought_back(),
        lost_objects: run.lost,
        repairs: run.objects.iter().map(object_repair).collect(),
    }
}

fn object_repair(object: &RepairedObject) -> ObjectRepair {
    let (repair_outcome, detail) = match &object.outcome {
        Repaired::Good => (RepairOutcome::Good, None),
        Repaired::Created => (RepairOutcome::Created, None),
        Repaired::Replaced => (RepairOutcome::Replaced, None),
        Repaired::Beside { copy, because } => (RepairOutcome::CopyBeside, Some(format!("{copy}: {because}"))),
        Repaired::Lost { because } => (RepairOutcome::Lost, Some(because.clone())),
    };
    ObjectRepair { object: object.name.to_string(), repair_outcome, detail }
}

fn damage(finding: &Finding) -> Damage {
    Damage {
        object: finding.subject.to_string(),
        system_id: finding.system_id.map(|id| id.to_string()),
        problem: finding.problem,
        detail: finding.detail.clone(),
        matters: finding.matters,
        has_good_copy: finding.is_repaired,
        lost_backups: finding.cost.backups.iter().map(ToString::to_string).collect(),
        lost_files: finding.cost.files.clone(),
        lost_moments: finding.cost.moments.iter().map(interval).collect(),
    }
}

fn interval(lost: &LostMoments) -> LostInterval {
    LostInterval {
        timeline: lost.timeline.0,
        lost_from_lsn: lost.from.to_string(),
        lost_until_lsn: lost.until.to_string(),
        lost_from_at: lost.from_time.map(Into::into),
        lost_until_at: lost.until_time.map(Into::into),
    }
}
