//! The reports of `push-wal --missed` as text.

use crate::cli::lines::Lines;
use crate::report::push::MissedReport;

/// What was sent to optional repositories.
pub(in crate::cli) fn missed(reports: &[MissedReport]) -> Lines {
    let mut out = Lines::new();
    for report in reports {
        match report.sent_files.as_slice() {
            [] => writeln!(out, "{} has everything", report.repository),
            sent => writeln!(out, "{}: {} files sent: {}", report.repository, sent.len(), sent.join(" ")),
        }
    }
    out
}
