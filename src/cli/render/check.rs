//! The report of `check` as text.

use super::units::{duration, duration_of, size};
use crate::cli::lines::Lines;
use crate::report::check::{CheckReport, LockMode, Severity, Switch};

/// A line about what is known.
fn fact(out: &mut Lines, name: &str, value: Option<bool>, yes: &str, no: &str) {
    if let Some(value) = value {
        writeln!(out, "            {name}: {}", if value { yes } else { no });
    }
}

/// As text.
fn switch(switch: Switch) -> &'static str {
    match switch {
        Switch::On => "yes",
        Switch::Off => "no",
        Switch::Suspended => "no longer",
        Switch::Unknown => "not known",
    }
}

/// What `check` found.
pub(in crate::cli) fn text(report: &CheckReport) -> Lines {
    let mut out = Lines::new();
    if let Some(server) = &report.server {
        let role = if server.in_recovery { "standby" } else { "primary" };
        writeln!(out, "server      PostgreSQL {}, {role}, system identifier {}", server.postgres_version, server.system_id);
        writeln!(
            out,
            "settings    archive_mode {}, wal_level {}, archive_timeout {}, segments of {}",
            server.archive_mode,
            server.wal_level,
            if server.archive_timeout_s == 0 {
                "off".to_owned()
            } else {
                duration(server.archive_timeout_s.saturating_mul(1000))
            },
            size(server.wal_segment_bytes)
        );
        writeln!(out, "            archive_command {}", server.archive_command);
        if let Some(segment) = &server.switched_segment {
            writeln!(out, "segment     {segment} switched");
        }
    }
    for repository in &report.repositories {
        writeln!(out, "repository  {}", repository.repository);
        fact(&mut out, "opened", Some(repository.opened), "yes", "NO");
        fact(&mut out, "encrypted", repository.encrypted, "yes", "NO");
        let refuses = match repository.store_races {
            Some(races) if races > 0 => format!("yes, in {races} rounds of many writers at once"),
            _ => "yes".to_owned(),
        };
        fact(&mut out, "store refuses to overwrite", repository.store_refuses_overwrite, &refuses, "no");
        fact(&mut out, "these credentials can delete", repository.can_delete, "yes", "no");
        if let Some(protection) = &repository.protection {
            fact(&mut out, "a policy refuses what could replace objects", protection.refuses_replacing, "yes", "no");
            writeln!(out, "            keeps versions: {}", switch(protection.versioning));
            let days = protection.lock_days.map(|days| format!(", new objects for {days} days"));
            let mode = match protection.lock_mode {
                Some(LockMode::Governance) => " (governance)",
                Some(LockMode::Compliance) => " (compliance)",
                None => "",
            };
            writeln!(out, "            object lock: {}{}{mode}", switch(protection.object_lock), days.unwrap_or_default());
        }
        let arrived = repository
            .arrived_after_s
            .map_or_else(String::new, |seconds| format!("yes, {} after the switch", duration_of(seconds)));
        fact(&mut out, "segment arrived and read back whole", repository.segment_verified, &arrived, "NO");
    }
    for finding in &report.findings {
        let severity = match finding.severity {
            Severity::Problem => "PROBLEM",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        writeln!(out, "{severity:<11} {}: {}", finding.about, finding.message);
        if let Some(hint) = &finding.hint {
            writeln!(out, "            → {hint}");
        }
    }
    writeln!(out, "{}", if report.has_problems() { "NOT WORKING" } else { "all is well" });
    out
}
