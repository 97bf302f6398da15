//! The report of `list` as text.

use super::pin::words;
use super::units::{duration_of, pages, size};
use super::verified;
use crate::cli::lines::Lines;
use crate::report::list::{ListReport, ListedBackup, StoredFile, WindowEnd};

/// What the repositories hold.
pub(in crate::cli) fn text(reports: &[ListReport]) -> Lines {
    let mut out = Lines::new();
    for report in reports {
        let cipher = if report.encrypted { "encrypted" } else { "NOT encrypted" };
        writeln!(out, "repository {} ({cipher})", report.repository);
        if report.clusters.is_empty() {
            writeln!(out, "  no cluster yet");
        }
        for cluster in &report.clusters {
            for system in &cluster.systems {
                let major = system.postgres_major.map_or_else(String::new, |major| format!("PostgreSQL {major}, "));
                writeln!(
                    out,
                    "  cluster {}, {major}system identifier {}, segments of {}, {} stored",
                    cluster.cluster,
                    system.system_id,
                    size(system.wal_segment_bytes),
                    size(system.stored_bytes)
                );
                for timeline in &system.timelines {
                    let range = match (&timeline.first_segment, &timeline.last_segment) {
                        (Some(first), Some(last)) => format!("{first} to {last}"),
                        _ => "no complete segment".to_owned(),
                    };
                    let mut extras = String::new();
                    for (count, what) in [(timeline.partials, ".partial"), (timeline.backup_histories, ".backup")] {
                        if count > 0 {
                            extras.push_str(&format!(", {count} {what}"));
                        }
                    }
                    writeln!(
                        out,
                        "    timeline {}: {} segments, {range}{extras}, {} stored",
                        timeline.timeline,
                        timeline.segments,
                        size(timeline.stored_bytes)
                    );
                    for range in &timeline.missing {
                        writeln!(out, "      MISSING {} to {}", range.first_segment, range.last_segment);
                    }
                    if timeline.missing_runs > timeline.missing.len() as u64 {
                        writeln!(out, "      and {} more gaps", timeline.missing_runs - timeline.missing.len() as u64);
                    }
                }
                if !system.histories.is_empty() {
                    writeln!(out, "    histories: {}", system.histories.join(", "));
                }
                for line in &system.backups {
                    backup(&mut out, line);
                }
                match system.last_verifications.as_deref() {
                    Some([]) => writeln!(out, "    NEVER VERIFIED"),
                    Some(last) => {
                        last.iter().for_each(|verification| writeln!(out, "    verified: {}", verified::last(verification)));
                    }
                    None => {}
                }
            }
        }
    }
    out
}

/// One base backup.
fn backup(out: &mut Lines, backup: &ListedBackup) {
    let backup = match backup {
        ListedBackup::Readable(backup) => backup,
        ListedBackup::Damaged { backup_id, damage } => {
            writeln!(out, "    backup {backup_id} DAMAGED: {damage}");
            return;
        }
    };
    let checksums = pages(backup.page_checksums, backup.pages_verified, backup.pages_damaged);
    let standby = if backup.from_standby { ", of a standby" } else { "" };
    writeln!(
        out,
        "    backup {} {:?}: {} in {} files, {} new, took {}, {checksums}{standby}",
        backup.backup_id,
        backup.label,
        size(backup.bytes),
        backup.files,
        size(backup.new_bytes),
        duration_of(backup.duration_s.floor()),
    );
    let bound = |bound: &WindowEnd| {
        let time = bound.time.as_ref().map_or_else(String::new, |time| format!("{time}, "));
        format!("{} ({time}timeline {})", bound.lsn, bound.timeline)
    };
    let from = bound(&backup.window_from);
    let nowhere = if backup.has_wal == Some(false) { "NOWHERE: its WAL is missing" } else { "?" };
    let until = backup.window_until.as_ref().map_or_else(|| nowhere.to_owned(), bound);
    writeln!(out, "      recoverable from {from} to {until}");
    match (backup.verified_at, backup.damaged_objects) {
        (Some(time), None | Some(0)) => writeln!(out, "      verified since {}", verified::since(time)),
        (Some(time), Some(damaged)) => {
            writeln!(out, "      DAMAGED: {damaged} objects, verified since {}", verified::since(time));
        }
        (None, _) => {}
    }
    if let Some(pin) = &backup.pin {
        writeln!(out, "      {}", words(pin));
    }
    for warning in &backup.warnings {
        writeln!(out, "      warning: {warning}");
    }
    if backup.warnings_total > backup.warnings.len() as u64 {
        writeln!(out, "      and {} more warnings", backup.warnings_total - backup.warnings.len() as u64);
    }
    for database in backup.databases.iter().flatten() {
        writeln!(out, "      database {}, {}", database.name, database.bytes.map_or_else(|| "?".to_owned(), size));
    }
}

/// One stored file, a line of `list --files`.
pub(in crate::cli) fn file(stored: &StoredFile) -> String {
    format!("{:>12}  {}  {}", stored.stored_bytes, stored.cluster, stored.file)
}
