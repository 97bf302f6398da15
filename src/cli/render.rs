//! Reports and errors as text.
use super::lines::Lines;
use crate::report::catalog_rebuild::RebuildReport;
use crate::report::check::{CheckReport, Severity};
use crate::report::init::{InitReport, Known};
use crate::report::key::KeyReport;
use crate::report::list::{ListReport, ListedBackup, WindowEnd};
use crate::report::push::MissedReport;

/// A new key file.
pub(super) fn key(report: &KeyReport) -> Lines {
    let mut out = Lines::new();
    writeln!(out, "key {} written to {}", report.key_id, report.path);
    if report.owner == "root" {
        writeln!(
            out,
            "Only root can read it: let the group of the user that PostgreSQL runs as read it, too, with 'chgrp postgres FILE' and 'chmod 640 FILE'."
        );
    }
    writeln!(
        out,
        "Keep a copy of this file apart from this host and from the repository: without it the backups cannot be read."
    );
    out
}

/// What `init` did.
pub(super) fn init(reports: &[InitReport]) -> Lines {
    let mut out = Lines::new();
    for report in reports {
        let state = if report.created { "made" } else { "is there already" };
        let cipher = if report.encrypted { "encrypted" } else { "NOT encrypted" };
        writeln!(out, "repository {} {state}, {cipher}, id {}", report.repository, report.repository_id);
        match &report.known {
            None | Some(Known::Already) => {}
            Some(Known::Added { location }) => writeln!(out, "  {location} belongs to it now, and opens no other repository"),
            Some(Known::ToBeAdded { line, location, reason }) => {
                let reason = reason.as_deref().map_or_else(String::new, |reason| format!(" (not done: {reason})"));
                writeln!(out, "  so that no other repository passes for it, add this line to {location}{reason}:");
                writeln!(out, "    {line}");
            }
        }
        if report.owner.as_deref() == Some("root") {
            writeln!(out, "  it belongs to root: the user that PostgreSQL runs as must be able to write there");
        }
        if !report.store_refuses_overwrite {
            writeln!(
                out,
                "  the store does not refuse to overwrite: writers announce themselves under claims/ first, with a few more requests"
            );
        }
        if let Some(bound) = &report.bound {
            writeln!(out, "  cluster {} is system identifier {}", bound.cluster, bound.system_id);
        }
    }
    out
}

/// What `catalog rebuild` did.
pub(super) fn rebuild(reports: &[RebuildReport]) -> Lines {
    let mut out = Lines::new();
    for report in reports {
        writeln!(
            out,
            "{} cluster {} timeline {}: {} nodes written, {} kept, {} deleted first; {} segments scanned; {} blocks without a node (at the ends, or with a hole)",
            report.repository,
            report.cluster,
            report.timeline,
            report.written_nodes,
            report.kept_nodes,
            report.deleted_nodes,
            report.scanned_segments,
            report.incomplete_blocks
        );
    }
    out
}

/// What `check` found.
pub(super) fn check(report: &CheckReport) -> Lines {
    let mut out = Lines::new();
    if let Some(server) = &report.server {
        let role = if server.in_recovery { "standby" } else { "primary" };
        writeln!(out, "server      PostgreSQL {}, {role}, system identifier {}", server.postgres_version, server.system_id);
        writeln!(
            out,
            "settings    archive_mode {}, wal_level {}, archive_timeout {}, segments of {}",
            server.archive_mode,
            server.wal_level,
            if server.archive_timeout_s == 0 {
                "off".to_owned()
            } else {
                duration(server.archive_timeout_s.saturating_mul(1000))
            },
            size(server.wal_segment_bytes)
        );
        writeln!(out, "            archive_command {}", server.archive_command);
        if let Some(segment) = &server.switched_segment {
            writeln!(out, "segment     {segment} switched");
        }
    }
    for repository in &report.repositories {
        writeln!(out, "repository  {}", repository.repository);
        let mut fact = |name: &str, value: Option<bool>, yes: &str, no: &str| {
            if let Some(value) = value {
                writeln!(out, "            {name}: {}", if value { yes } else { no });
            }
        };
        fact("opened", Some(repository.opened), "yes", "NO");
        fact("encrypted", repository.encrypted, "yes", "NO");
        let refuses = match repository.store_races {
            Some(races) if races > 0 => format!("yes, in {races} rounds of many writers at once"),
            _ => "yes".to_owned(),
        };
        fact("store refuses to overwrite", repository.store_refuses_overwrite, &refuses, "no");
        fact("these credentials can delete", repository.can_delete, "yes", "no");
        let arrived = repository
            .arrived_after_s
            .map_or_else(String::new, |seconds| format!("yes, {} after the switch", duration_of(seconds)));
        fact("segment arrived and read back whole", repository.segment_verified, &arrived, "NO");
    }
    for finding in &report.findings {
        let severity = match finding.severity {
            Severity::Problem => "PROBLEM",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        writeln!(out, "{severity:<11} {}: {}", finding.about, finding.message);
        if let Some(hint) = &finding.hint {
            writeln!(out, "            → {hint}");
        }
    }
    writeln!(out, "{}", if report.has_problems() { "NOT WORKING" } else { "all is well" });
    out
}

/// What the repositories hold.
pub(super) fn list(reports: &[ListReport]) -> Lines {
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

/// Milliseconds in the largest two units that there are, below a minute to a tenth of a second.
pub(super) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 if ms.is_multiple_of(1000) => format!("{seconds} s"),
        0..60 => format!("{seconds}.{} s", ms % 1000 / 100),
        60..3600 if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// The same of seconds.
pub(super) fn duration_of(seconds: f64) -> String {
    duration((seconds.max(0.0) * 1000.0) as u64)
}

/// What became of the checksums of a backup's pages.
pub(super) fn pages(enabled: bool, verified: u64, damaged: u64) -> String {
    match (enabled, damaged) {
        (false, _) => "no page checksums".to_owned(),
        (true, 0) => format!("{verified} pages verified"),
        (true, damaged) => format!("{verified} pages verified, {damaged} DAMAGED"),
    }
}

/// Bytes in the largest binary unit that leaves at least one.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, factor) in UNITS {
        if bytes >= factor {
            let tenths = bytes.saturating_mul(10) / factor;
            return if tenths.is_multiple_of(10) {
                format!("{} {unit}", tenths / 10)
            } else {
                format!("{}.{} {unit}", tenths / 10, tenths % 10)
            };
        }
    }
    format!("{bytes} B")
}

/// What was sent to optional repositories.
pub(super) fn missed(reports: &[MissedReport]) -> Lines {
    let mut out = Lines::new();
    for report in reports {
        match report.sent_files.as_slice() {
            [] => writeln!(out, "{} has everything", report.repository),
            sent => writeln!(out, "{}: {} files sent: {}", report.repository, sent.len(), sent.join(" ")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        for (ms, expected) in [
            (0, "0 s"),
            (40, "0.0 s"),
            (1250, "1.2 s"),
            (59_999, "59.9 s"),
            (60_000, "1 min"),
            (61_500, "1 min 1 s"),
            (3_725_000, "1 h 2 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(duration(ms), expected);
        }
        assert_eq!(duration_of(2.5), "2.5 s");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(16 << 20), "16 MiB");
        assert_eq!(size(1536), "1.5 KiB");
    }
}
