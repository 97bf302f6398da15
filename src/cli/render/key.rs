//! The report of `key generate` as text.

use crate::cli::lines::Lines;
use crate::report::key::KeyReport;

/// A new key file.
pub(in crate::cli) fn text(report: &KeyReport) -> Lines {
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
