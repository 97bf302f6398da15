//! The report of `init` as text.

use crate::cli::lines::Lines;
use crate::report::init::{InitReport, Known};

/// What `init` did.
pub(in crate::cli) fn text(reports: &[InitReport]) -> Lines {
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
