//! The report of `end-recovery` as text.

use crate::cli::lines::Lines;
use crate::report::end_recovery::EndReport;
use crate::restore::recovery_settings::ARCHIVE_AGAIN;

/// What the server's log gets.
pub(in crate::cli) fn text(report: &EndReport) -> Lines {
    let mut text = match report.removed_settings.as_slice() {
        [] => "recovery is over; postgresql.auto.conf has no settings of it".to_owned(),
        removed => format!("recovery is over; taken out of postgresql.auto.conf: {}", removed.join(", ")),
    };
    if report.archiving_is_off {
        text.push_str(&format!("; archive_mode is off there: {ARCHIVE_AGAIN}"));
    }
    let mut out = Lines::new();
    writeln!(out, "{text}");
    out
}
