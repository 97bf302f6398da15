//! The report of `catalog rebuild` as text.

use crate::cli::lines::Lines;
use crate::report::catalog_rebuild::RebuildReport;

/// What `catalog rebuild` did.
pub(in crate::cli) fn text(reports: &[RebuildReport]) -> Lines {
    let mut out = Lines::new();
    for report in reports {
        writeln!(
            out,
            "{} cluster {} timeline {}: {} nodes written, {} kept, {} deleted first; nodes of changes: {} written, {} kept, {} deleted first; {} segments scanned; {} blocks without a node (at the ends, or with a hole)",
            report.repository,
            report.cluster,
            report.timeline,
            report.written_nodes,
            report.kept_nodes,
            report.deleted_nodes,
            report.written_changes,
            report.kept_changes,
            report.deleted_changes,
            report.scanned_segments,
            report.incomplete_blocks
        );
    }
    out
}
