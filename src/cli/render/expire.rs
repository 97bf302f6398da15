//! The report of `expire` as text.

use super::moments::moment;
use super::units::size;
use crate::cli::lines::Lines;
use crate::limits::MAX_RUNS_PRINTED;
use crate::pg::target::Zone;
use crate::report::expire::{Amounts, ExpireDone, ExpireReport, ExpiredBackup, ExpiredSystem, Reason, TombstoneReport};

/// What stays and why, what may go, and what can be restored after that.
pub(in crate::cli) fn text(reports: &[ExpireReport], zone: &Zone) -> Lines {
    let mut out = Lines::new();
    for report in reports {
        let what = match report.done {
            None => "nothing is changed, this is what may go",
            Some(_) => "what may go is named, and goes after the grace period",
        };
        writeln!(out, "repository {}, cluster {}: {what}", report.repository, report.cluster);
        let rules: Vec<String> = report.rules.iter().map(|rule| format!("{} {}", rule.name, rule.value)).collect();
        writeln!(out, "  rules: {}", rules.join(", "));
        for system in &report.systems {
            of_system(&mut out, system, zone);
        }
        writeln!(out, "  goes:  {}", amounts(report.goes));
        writeln!(out, "  stays: {}", amounts(report.stays));
        for tombstone in &report.tombstones {
            of_tombstone(&mut out, tombstone);
        }
        if let Some(done) = &report.done {
            of_done(&mut out, done);
        }
    }
    out
}

fn of_tombstone(out: &mut Lines, tombstone: &TombstoneReport) {
    let objects = tombstone.objects.map_or_else(|| "CANNOT be read".to_owned(), |objects| format!("names {objects} objects"));
    let when = match (tombstone.begun, tombstone.due_at) {
        (true, _) => "; the deleting has begun".to_owned(),
        (false, Some(due)) => format!("; they may be deleted from {due} on"),
        (false, None) => String::new(),
    };
    writeln!(out, "  tombstone {} {objects}{when}", tombstone.tombstone_id);
}

fn of_done(out: &mut Lines, done: &ExpireDone) {
    let ExpireDone { deleted_manifests, deleted_packs, deleted_wal_files, deleted_nodes, .. } = done;
    writeln!(
        out,
        "  deleted: {deleted_manifests} backups, {deleted_packs} packs, {deleted_wal_files} WAL files, {deleted_nodes} nodes of \
         the catalog"
    );
    if done.deleted_copies > 0 {
        writeln!(out, "  deleted with them: {} good copies of damaged objects", done.deleted_copies);
    }
    if done.held_objects > 0 {
        let until = done.held_until_at.map_or_else(String::new, |until| format!(", until {until} at most"));
        writeln!(out, "  held by the store: {} objects{until}; later runs try again", done.held_objects);
    }
    if done.denied_objects > 0 {
        writeln!(out, "  CANNOT be deleted with these credentials: {} objects", done.denied_objects);
    }
    if done.purged_objects > 0 {
        writeln!(out, "  versions removed: of {} objects, {}", done.purged_objects, size(done.purged_bytes));
    }
    for id in &done.withdrawn_tombstones {
        writeln!(out, "  tombstone {id} is withdrawn: something that it named is needed again");
    }
    for id in &done.given_up_backups {
        writeln!(out, "  backup {id} had begun, and is given up");
    }
    let left = &done.leftovers;
    let parts = [
        (left.claims, "claims"),
        (left.probes, "objects of probes"),
        (left.temporary_files, "temporary files"),
        (left.uploads, "unfinished uploads"),
        (left.evidence, "records of verifications"),
        (left.indexes, "parts of the index of backups"),
        (left.begun_marks, "marks of backups that were given up"),
        (left.copies, "copies of what is gone"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if !parts.is_empty() {
        writeln!(out, "  removed, too: {}", parts.join(", "));
    }
}

fn of_system(out: &mut Lines, system: &ExpiredSystem, zone: &Zone) {
    writeln!(out, "  system identifier {}", system.system_id);
    for backup in &system.backups {
        of_backup(out, backup);
    }
    for window in &system.recovery_windows {
        let from = match &window.wal_from_lsn {
            Some(lsn) => format!("WAL from {lsn} on"),
            None => "all WAL, as no good backup leads there".to_owned(),
        };
        writeln!(out, "    window on timeline {}: {from}", window.timeline);
        for reach in &window.reaches {
            writeln!(
                out,
                "      from {} to {}, by backup {}",
                moment(&reach.earliest, zone),
                moment(&reach.latest, zone),
                reach.backup_id
            );
        }
    }
    for range in system.goes_segments.iter().take(MAX_RUNS_PRINTED) {
        writeln!(out, "    goes: {} to {}", range.first_segment, range.last_segment);
    }
    if let Some(more) = system.goes_segments.len().checked_sub(MAX_RUNS_PRINTED).filter(|more| *more > 0) {
        writeln!(out, "    and {more} more runs of segments: --json lists all");
    }
    if system.left_packs > 0 {
        let bytes = size(system.left_pack_bytes);
        writeln!(out, "    goes: {} packs that interrupted backups left, {bytes}", system.left_packs);
    }
}

fn of_backup(out: &mut Lines, backup: &ExpiredBackup) {
    let label = backup.label.as_ref().map_or_else(String::new, |label| format!(" {label:?}"));
    let began = backup.started_at.map_or_else(String::new, |began| format!(" of {began}"));
    let problem = backup.broken_because.as_ref().map_or_else(String::new, |problem| format!("; CANNOT be restored: {problem}"));
    let id = &backup.backup_id;
    if backup.kept_by.is_empty() {
        writeln!(out, "    goes:  backup {id}{label}{began}{problem}");
    } else {
        let reasons: Vec<&str> = backup.kept_by.iter().map(|reason| word(*reason)).collect();
        writeln!(out, "    stays: backup {id}{label}{began}: {}{problem}", reasons.join(", "));
    }
}

/// A reason in words: the setting, where there is one.
fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::Newest => "the newest good one",
        Reason::Last => "keep_last",
        Reason::Within => "keep_within",
        Reason::Daily => "keep_daily",
        Reason::Weekly => "keep_weekly",
        Reason::Monthly => "keep_monthly",
        Reason::Yearly => "keep_yearly",
        Reason::Window => "the window",
        Reason::WindowSoon => "the window before long",
        Reason::Pinned => "pinned",
    }
}

fn amounts(amounts: Amounts) -> String {
    let Amounts { manifests, packs, wal_files, .. } = amounts;
    format!("{manifests} backups, {packs} packs, {wal_files} WAL files, {}", size(amounts.bytes()))
}
