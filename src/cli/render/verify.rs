//! The report of `verify` as text.

use super::units::{duration_of, size};
use crate::cli::lines::Lines;
use crate::limits::MAX_FINDINGS_PRINTED;
use crate::report::verified::VerificationMode;
use crate::report::verify::{Damage, LostInterval, ObjectRepair, RepairOutcome, RepairReport, VerifyReport};

/// What was found.
pub(in crate::cli) fn text(reports: &[VerifyReport]) -> Lines {
    let mut out = Lines::new();
    for report in reports {
        let how = match report.verification_mode {
            VerificationMode::Quick => "looked at quickly".to_owned(),
            VerificationMode::Full => format!("read in full, {}", size(report.read_bytes)),
            VerificationMode::Rolling => format!("read what was due, {}", size(report.read_bytes)),
        };
        writeln!(out, "{} cluster {}: {how}, in {}", report.repository, report.cluster, duration_of(report.duration_s));
        for system in &report.systems {
            writeln!(
                out,
                "  system identifier {}: {} segments, {} backups, {} packs, {} in {} objects",
                system.system_id,
                system.segments,
                system.readable_backups,
                system.packs,
                size(system.stored_bytes),
                system.objects
            );
        }
        let (matter, others): (Vec<&Damage>, Vec<&Damage>) = report.findings.iter().partition(|damage| damage.matters);
        for damage in matter.iter().take(MAX_FINDINGS_PRINTED) {
            one(&mut out, "DAMAGED", damage, report.interrupted);
        }
        more(&mut out, "places that matter", report.findings_that_matter);
        for damage in others.iter().take(MAX_FINDINGS_PRINTED) {
            one(&mut out, "noted", damage, report.interrupted);
        }
        more(&mut out, "places that do not matter", report.findings_total.saturating_sub(report.findings_that_matter));
        if let Some(repair) = &report.repair {
            repaired(&mut out, repair);
        }
        if report.interrupted {
            writeln!(out, "  interrupted: what was read by then is remembered");
        } else if !report.has_damage() {
            writeln!(out, "  nothing is wrong that matters");
        }
    }
    out
}

fn repaired(out: &mut Lines, repair: &RepairReport) {
    let RepairReport { repaired_from, repaired_objects, lost_objects, repairs } = repair;
    writeln!(
        out,
        "  repaired from {repaired_from}: {repaired_objects} objects brought back, {lost_objects} have no good copy there"
    );
    for ObjectRepair { object, repair_outcome, detail } in repairs.iter().take(MAX_FINDINGS_PRINTED) {
        let what = match repair_outcome {
            RepairOutcome::Good => "is good by now",
            RepairOutcome::Created => "was missing, and is there again",
            RepairOutcome::Replaced => "was damaged, and is replaced",
            RepairOutcome::CopyBeside => "is damaged, and has a good copy beside it",
            RepairOutcome::Lost => "could not be repaired",
        };
        let detail = detail.as_ref().map_or_else(String::new, |detail| format!(": {detail}"));
        writeln!(out, "    {object} {what}{detail}");
    }
    more(out, "objects", repairs.len() as u64);
}

fn more(out: &mut Lines, what: &str, total: u64) {
    let more = total.saturating_sub(MAX_FINDINGS_PRINTED as u64);
    if more > 0 {
        writeln!(out, "  and {more} more {what}; --json has more of them");
    }
}

fn one(out: &mut Lines, word: &str, damage: &Damage, is_cut_short: bool) {
    let copy = if damage.has_good_copy { "; readers take a good copy" } else { "" };
    writeln!(out, "  {word} {}: {}{copy}", damage.object, damage.detail);
    if !damage.lost_backups.is_empty() {
        writeln!(out, "    costs backups: {}", damage.lost_backups.join(", "));
    }
    if !damage.lost_files.is_empty() {
        writeln!(out, "    in files such as: {}", damage.lost_files.join(", "));
    }
    for lost in &damage.lost_moments {
        writeln!(out, "    costs every moment {}", interval(lost));
    }
    // What a pack costs is known at the end.
    if damage.matters && !is_cut_short && damage.lost_backups.is_empty() && damage.lost_moments.is_empty() {
        writeln!(out, "    costs nothing else as long as the rest is whole");
    }
}

fn interval(lost: &LostInterval) -> String {
    let at = |time: &Option<crate::report::time::Time>| time.as_ref().map_or_else(String::new, |time| format!(" ({time})"));
    format!(
        "on timeline {} after {}{} and before {}{}",
        lost.timeline,
        lost.lost_from_lsn,
        at(&lost.lost_from_at),
        lost.lost_until_lsn,
        at(&lost.lost_until_at)
    )
}
