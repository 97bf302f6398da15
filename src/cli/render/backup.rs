//! The report of `base-backup` as text.

use super::units::{duration_of, pages, size};
use crate::cli::lines::Lines;
use crate::limits::MAX_FINDINGS_PRINTED;
use crate::report::backup::BackupReport;

/// What was read of the files.
fn read(report: &BackupReport) -> String {
    let bytes = size(report.read_bytes);
    match (&report.read_all_because, &report.parent_backup_id) {
        (Some(why), _) => format!("{bytes}, all of it: {why}"),
        (None, Some(parent)) => {
            format!("{bytes}; {} did not change since {parent} by the log, and were taken over", size(report.taken_over_bytes))
        }
        (None, None) => bytes,
    }
}

/// What was backed up.
pub(in crate::cli) fn text(report: &BackupReport) -> Lines {
    let mut out = Lines::new();
    let mut line = |name: &str, text: String| {
        writeln!(out, "{name:<12} {text}");
    };
    line("backup", format!("{} of cluster {} in {}", report.backup_id, report.cluster, report.repository));
    line("label", report.label.clone());
    let version = report.postgres_version_num;
    let role = if report.from_standby { "standby" } else { "primary" };
    line("server", format!("PostgreSQL {}.{}, {role}, {}", version / 10_000, version % 10_000, report.data_directory));
    line("from", format!("{}, consistent at {}, timeline {}", report.start_lsn, report.stop_lsn, report.timeline));
    line("files", format!("{} in {} files, with {} jobs", size(report.bytes), report.files, report.jobs));
    line("read", read(report));
    let parent = report.parent_backup_id.as_ref().map_or_else(
        || "no earlier backup to compare with".to_owned(),
        |parent| format!("{} were stored already by {parent} or before it", size(report.reused_bytes)),
    );
    line("stored", format!("{} new, and a manifest of {}; {parent}", size(report.new_bytes), size(report.manifest_bytes)));
    line("restore", format!("reads {}", size(report.stored_bytes)));
    line("checksums", pages(report.page_checksums, report.pages_verified, report.pages_damaged));
    let (took, waited) = (duration_of(report.duration_s), duration_of(report.waited_for_wal_s));
    line("took", format!("{took}, of these {waited} waiting for WAL to be archived"));
    for file in &report.attachments {
        line("with", format!("{} ({}), {}", file.path, file.setting, size(file.bytes)));
    }
    for (key, value) in &report.annotations {
        line("note", format!("{key} = {value}"));
    }
    for page in report.damaged_pages.iter().take(MAX_FINDINGS_PRINTED) {
        let relation = page.relation.as_ref().map_or_else(String::new, |relation| format!(" of {relation}"));
        line("DAMAGED", format!("page {}{relation} in {}: {}", page.block, page.file, page.detail));
    }
    if report.pages_damaged as usize > MAX_FINDINGS_PRINTED.min(report.damaged_pages.len()) {
        line(
            "DAMAGED",
            format!("and {} more pages", report.pages_damaged as usize - MAX_FINDINGS_PRINTED.min(report.damaged_pages.len())),
        );
    }
    for warning in report.warnings.iter().take(MAX_FINDINGS_PRINTED) {
        line("warning", warning.clone());
    }
    if report.warnings.len() > MAX_FINDINGS_PRINTED {
        line("warning", format!("and {} more", report.warnings.len() - MAX_FINDINGS_PRINTED));
    }
    out
}
