//! The report of `resolve` as text.

use super::moments::{both, moment, transaction};
use super::units::{duration_of, size};
use super::verified;
use crate::cli::lines::Lines;
use crate::limits::MAX_LOCKS_PRINTED;
use crate::pg::target::Zone;
use crate::report::resolve::ResolveReport;
use crate::report::time::Time;

/// Where a recovery stops.
pub(in crate::cli) fn text(report: &ResolveReport, zone: &Zone) -> Lines {
    let mut out = Lines::new();
    let mut line = |name: &str, text: String| {
        writeln!(out, "{name:<15} {text}");
    };
    line("repository", format!("{}, cluster {}, system identifier {}", report.repository, report.cluster, report.system_id));
    // The zone is said back also where nothing had to be converted: a time without one was taken in it.
    let in_zone = report.target_in_zone.as_ref().map_or_else(String::new, |time| match report.zone.as_str() {
        zone if report.target.ends_with(time) => format!(" (zone {zone})"),
        zone => format!(" ({time}, zone {zone})"),
    });
    let exclusive = if report.inclusive { "" } else { ", exclusive" };
    line("target", format!("{}{in_zone}{exclusive}", report.target));
    let legs = report.timeline_path.iter().map(|leg| match &leg.fork_lsn {
        Some(fork) => format!("{} until {fork}", leg.timeline),
        None => leg.timeline.to_string(),
    });
    line("timelines", legs.collect::<Vec<_>>().join(", then "));
    if let Some(reason) = &report.timeline_reason {
        line("", reason.clone());
    }
    for other in &report.other_timelines {
        let last =
            other.last_transaction.as_ref().map_or_else(String::new, |last| format!(", the last {}", transaction(last, zone)));
        line(
            "NOT INCLUDED",
            format!("{} transactions of timeline {} from {} on{last}", other.transactions, other.timeline, other.from_lsn),
        );
    }
    if report.reachable {
        let none = || "none".to_owned();
        line("last included", report.last_included.as_ref().map_or_else(none, |t| transaction(t, zone)));
        line("first excluded", report.first_excluded.as_ref().map_or_else(none, |t| transaction(t, zone)));
        line(
            "stops",
            match &report.stop {
                Some(stop) => {
                    let fork = if stop.is_fork { ", where the timeline begins: nothing of its own is stored" } else { "" };
                    format!("{} the record at {}{fork}", if stop.replayed { "after" } else { "before" }, stop.lsn)
                }
                None => "at the end of what is archived".to_owned(),
            },
        );
        if let Some(stop) = &report.stop {
            if let Some(own) = &stop.instead_of_lsn {
                line(
                    "",
                    format!("the data are those before the record at {own}, where PostgreSQL by itself stops with more locks"),
                );
            }
            for lock in stop.locks.iter().take(MAX_LOCKS_PRINTED) {
                let (relation, database, xid) = (lock.relation_oid, lock.database_oid, lock.xid);
                line(
                    "LOCKED",
                    format!("relation {relation} of database {database}, by transaction {xid}, which is not included"),
                );
            }
            if stop.locks.len() > MAX_LOCKS_PRINTED {
                line("LOCKED", format!("and {} more", stop.locks.len() - MAX_LOCKS_PRINTED));
            }
            if !stop.locks.is_empty() {
                line("", "queries on these wait while recovery is paused; its end (promote) releases them".to_owned());
            }
        }
        line("starts", report.start_lsn.clone().unwrap_or_default());
        for setting in &report.settings {
            line("setting", format!("{} = '{}'", setting.name, setting.value));
        }
    } else {
        line("NOT REACHABLE", report.reason.clone().unwrap_or_default());
        for (name, near) in [("nearest before", &report.nearest_before), ("nearest after", &report.nearest_after)] {
            if let Some(near) = near {
                line(name, moment(near, zone));
            }
        }
    }
    replay(report, zone, &mut line);
    for place in &report.candidates {
        let time = place.time.map_or_else(String::new, |time| format!(", {}", both(time, zone)));
        line("candidate", format!("{} on timeline {}{time}", place.lsn, place.timeline));
        if let Some(last) = &place.last_included {
            line("", format!("with it the last commit would be: {}", transaction(last, zone)));
        }
    }
    if let Some(backup) = &report.backup {
        let id = backup.backup_id.as_ref().map_or_else(String::new, |id| format!("{id} "));
        line("backup", format!("{id}from {}, consistent at {}", backup.start_lsn, backup.stop_lsn));
        if let (Some(label), Some(bytes), Some(stored)) = (&backup.label, backup.bytes, backup.stored_bytes) {
            line("", format!("{label:?}, {} of files, {} stored", size(bytes), size(stored)));
        }
        if let Some(damaged) = backup.pages_damaged.filter(|damaged| *damaged > 0) {
            line("DAMAGED", format!("{damaged} pages of this backup were damaged already when it was taken"));
        }
    }
    if let Some(wal) = &report.wal {
        let range = format!("{} to {}", wal.first_segment, wal.last_segment);
        line("WAL needed", format!("{range}: {} segments, {} stored, {}", wal.segments, wal.present, size(wal.stored_bytes)));
        for range in &wal.missing {
            line("MISSING", format!("{} to {}", range.first_segment, range.last_segment));
        }
    }
    if let Some(known) = &report.verified {
        let (word, text) = verified::objects(known);
        line(word, text);
    }
    if let Some(estimate) = &report.estimate {
        let download = size(estimate.download_bytes);
        line("estimate", format!("{download} to download, about {}; {}", duration_of(estimate.duration_s), estimate.assuming));
    }
    if let Some(oldest) = &report.oldest_backup {
        line("oldest backup", format!("from {}, consistent at {}", oldest.start_lsn, oldest.stop_lsn));
    }
    for (name, end) in [("archived from", &report.earliest), ("archived until", &report.latest)] {
        if let Some(end) = end {
            line(name, moment(end, zone));
        }
    }
    for note in &report.notes {
        line("note", note.clone());
    }
    out
}

/// What replay does outside the data directory, and what it asks for.
fn replay(report: &ResolveReport, zone: &Zone, line: &mut dyn FnMut(&str, String)) {
    let when = |time: Option<Time>| time.map_or_else(String::new, |time| format!(", about {}", both(time, zone)));
    for tablespace in &report.tablespaces_created {
        let path = match &tablespace.path {
            Some(path) => format!("{path}: replay links it to this directory of the original, and removes what it finds there"),
            None => "in the data directory".to_owned(),
        };
        line("NEW TABLESPACE", format!("{}, created at {}{}, {path}", tablespace.oid, tablespace.lsn, when(tablespace.time)));
    }
    for tablespace in &report.tablespaces_dropped {
        line("drops", format!("tablespace {} at {}{}", tablespace.oid, tablespace.lsn, when(tablespace.time)));
    }
    for database in &report.databases_created {
        let what = if database.moved { "is moved to" } else { "is created in" };
        let (oid, tablespace, lsn) = (database.oid, database.tablespace_oid, &database.lsn);
        line("database", format!("{oid} {what} the new tablespace {tablespace} at {lsn}{}", when(database.time)));
    }
    for setting in &report.required_settings {
        let Some(lsn) = &setting.lsn else { continue };
        let before = setting.at_backup.map_or_else(String::new, |value| format!(" (it was {value} when the backup was taken)"));
        line("needs", format!("{} = {} or more from {lsn} on{before}", setting.name, setting.minimum));
    }
}
