//! The report of `check --policies` as text.

use serde_json::{Map, Value};

use crate::cli::lines::Lines;
use crate::report::policies::PoliciesReport;

/// The policies, each as it is handed to the store.
pub(in crate::cli) fn text(reports: &[PoliciesReport]) -> Lines {
    let mut out = Lines::new();
    for report in reports {
        writeln!(out, "repository  {}", report.repository);
        for note in &report.notes {
            writeln!(out, "            {note}");
        }
        for (title, document) in [
            ("IAM policy of a host that archives, backs up and restores", &report.writing_host),
            ("IAM policy of the host that expires", &report.expiring_host),
            ("IAM policy of the host that expires, in addition, for --purge-versions", &report.purging_host),
            ("Policy of the bucket", &report.bucket),
        ] {
            writeln!(out);
            writeln!(out, "{title}:");
            out.text("", &pretty(document));
        }
    }
    out
}

/// With line breaks. A document of JSON values can always be written.
fn pretty(document: &Map<String, Value>) -> String {
    serde_json::to_string_pretty(document).unwrap_or_default()
}
