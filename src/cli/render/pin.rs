//! The reports of `pin` and `unpin` as text.

use crate::cli::lines::Lines;
use crate::report::pin::{PinReport, PinnedUntil, UnpinReport};

/// What is kept now.
pub(in crate::cli) fn pinned(reports: &[PinReport]) -> Lines {
    let mut out = Lines::new();
    for report in reports {
        writeln!(out, "backup {} in {} is {}", report.backup_id, report.repository, words(&report.pin));
    }
    out
}

/// What the rules alone decide about now.
pub(in crate::cli) fn unpinned(reports: &[UnpinReport]) -> Lines {
    let mut out = Lines::new();
    for report in reports {
        let said = if report.was_pinned { "is not pinned any more" } else { "was not pinned" };
        writeln!(out, "backup {} in {} {said}", report.backup_id, report.repository);
    }
    out
}

/// Until when, and why.
pub(super) fn words(pin: &PinnedUntil) -> String {
    let until = pin.pin_ends_at.map_or_else(String::new, |until| format!(" until {until}"));
    format!("pinned{until}: {}", pin.reason)
}
