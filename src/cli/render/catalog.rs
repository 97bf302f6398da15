//! The report of `catalog`, and the lines of its lists, as text.

use super::moments::{both, moment, transaction};
use super::units::duration;
use super::verified;
use crate::cli::lines::Lines;
use crate::pg::target::Zone;
use crate::report::catalog::{CatalogLine, CatalogReport, CatalogTimeline};

/// What can be recovered.
pub(in crate::cli) fn text(report: &CatalogReport, zone: &Zone) -> Lines {
    let mut out = Lines::new();
    writeln!(out, "repository {}, cluster {}", report.repository, report.cluster);
    for system in &report.systems {
        writeln!(out, "  system identifier {}", system.system_id);
        for one in &system.timelines {
            timeline(&mut out, one, zone);
        }
        match system.last_verifications.as_deref() {
            Some([]) => writeln!(out, "    NEVER VERIFIED"),
            Some(last) => {
                last.iter().for_each(|verification| writeln!(out, "    verified: {}", verified::last(verification)));
            }
            None => {}
        }
    }
    match (&report.newest_commit, report.newest_commit_age_s) {
        (Some(commit), Some(age)) => {
            let age = duration(u64::try_from(age).unwrap_or_default().saturating_mul(1000));
            writeln!(out, "newest archived commit: {}, {age} ago", transaction(commit, zone));
        }
        _ => {
            writeln!(out, "newest archived commit: none");
        }
    }
    out
}

fn timeline(out: &mut Lines, report: &CatalogTimeline, zone: &Zone) {
    let fork = match (report.parent_timeline, &report.fork_lsn) {
        (Some(parent), Some(fork)) => format!(", left timeline {parent} at {fork}"),
        _ => String::new(),
    };
    writeln!(out, "    timeline {}{fork}", report.timeline);
    if report.history_missing {
        writeln!(out, "      MISSING {:08X}.history: nobody knows where it began", report.timeline);
    }
    if report.windows.is_empty() {
        writeln!(out, "      no WAL of its own");
    }
    for window in &report.windows {
        writeln!(out, "      archived from {}", moment(&window.from, zone));
        writeln!(out, "                to {}", moment(&window.until, zone));
        match (&window.recoverable_from, &window.backup_id) {
            (Some(from), Some(backup)) => {
                writeln!(out, "        recoverable from {}, backup {backup}", moment(from, zone))
            }
            _ => writeln!(out, "        NOT RECOVERABLE: no base backup in the repository leads into it"),
        }
        if let Some(known) = &window.verified {
            let (word, text) = verified::objects(known);
            writeln!(out, "        {word}: {text}");
        }
    }
    for gap in &report.gaps {
        let what = if gap.first_segment == gap.last_segment {
            gap.first_segment.clone()
        } else {
            format!("{} to {}", gap.first_segment, gap.last_segment)
        };
        writeln!(out, "      GAP {}: {what}: {}", gap.kind.as_str(), gap.detail);
    }
    if let (Some(first), Some(last)) = (report.unscanned_segments.first(), report.unscanned_segments.last()) {
        writeln!(out, "      {} segments stored without a scan, {first} to {last}", report.unscanned_segments.len());
    }
}

/// A line of a list.
pub(in crate::cli) fn line(line: &CatalogLine, zone: &Zone) -> String {
    match line {
        CatalogLine::Transaction(end) => transaction(end, zone),
        CatalogLine::RestorePoint { name, time, lsn, timeline } => {
            format!("{:<17} timeline {timeline}  {}  {name}", lsn, both(*time, zone))
        }
        CatalogLine::Gap { gap_from_lsn, gap_until_lsn } => format!("GAP from {gap_from_lsn} to {gap_until_lsn}"),
    }
}
