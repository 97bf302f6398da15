//! A plan as commands answer it.

use super::execute::{Executed, ExpireRequest, Preview, Waiting};
use super::plan::{Plan, PlannedBackup, SystemPlan};
use crate::config::Retention;
use crate::pg::SegmentName;
use crate::recovery::promised::Promised;
use crate::repo::{ClusterName, Repository};
use crate::report::expire::{
    Amounts, ExpireDone, ExpireReport, ExpiredBackup, ExpiredSystem, LeftoversReport, ReachAfter, Rule, TombstoneReport,
    WindowAfter,
};
use crate::report::segments::SegmentRange;
use crate::report::time::Time;

/// The report of a plan.
pub fn report(repository: &Repository, cluster: &ClusterName, rules: &Retention, plan: Plan) -> ExpireReport {
    let sum = |of: fn(&SystemPlan) -> Amounts| plan.systems.iter().map(of).fold(Amounts::default(), Amounts::plus);
    let (goes, stays) = (sum(|system| system.goes_amounts), sum(|system| system.stays_amounts));
    ExpireReport {
        repository: repository.location().to_owned(),
        cluster: cluster.to_string(),
        rules: rules.said().into_iter().map(|(name, value)| Rule { name, value }).collect(),
        systems: plan.systems.into_iter().rev().map(of_system).collect(),
        goes,
        stays,
        tombstones: Vec::new(),
        done: None,
    }
}

/// The report of what is planned beside what tombstones name.
pub fn previewed(request: &ExpireRequest<'_>, preview: Preview) -> ExpireReport {
    let report = report(request.repository, request.cluster, request.rules, preview.plan);
    ExpireReport { tombstones: preview.waiting.into_iter().map(of_tombstone).collect(), ..report }
}

/// The report of what was done.
pub fn executed(request: &ExpireRequest<'_>, executed: Executed) -> ExpireReport {
    let Executed { plan, named, waiting, withdrawn, given_up, expired, purged, swept } = executed;
    let time = |unix_s: i64| unix_s.checked_mul(1_000_000).and_then(Time::from_unix_us);
    let tallies = [&expired.tally, &swept.tally];
    let until = tallies.iter().filter_map(|tally| tally.held_until_unix_s).chain(purged.held_until_unix_s).max();
    let done = ExpireDone {
        named_objects: named.iter().map(|(.., objects)| objects).sum(),
        withdrawn_tombstones: withdrawn.iter().map(ToString::to_string).collect(),
        given_up_backups: given_up.iter().map(ToString::to_string).collect(),
        deleted_manifests: expired.backups,
        deleted_packs: expired.packs,
        deleted_wal_files: expired.wal_files,
        deleted_nodes: expired.nodes,
        deleted_copies: expired.copies,
        held_objects: tallies.iter().map(|tally| tally.held).sum::<u64>() + purged.held,
        held_until_at: until.and_then(time),
        denied_objects: tallies.iter().map(|tally| tally.denied).sum::<u64>() + purged.denied,
        purged_objects: purged.objects,
        purged_bytes: purged.bytes,
        leftovers: LeftoversReport {
            claims: swept.claims,
            probes: swept.probes,
            temporary_files: swept.files,
            uploads: swept.uploads,
            leftover_bytes: swept.bytes,
            evidence: swept.evidence,
            indexes: swept.indexes,
            begun_marks: swept.begun,
            copies: swept.copies,
        },
    };
    let report = report(request.repository, request.cluster, request.rules, plan);
    ExpireReport { tombstones: waiting.into_iter().map(of_tombstone).collect(), done: Some(done), ..report }
}

fn of_tombstone(waiting: Waiting) -> TombstoneReport {
    TombstoneReport {
        tombstone_id: waiting.id.to_string(),
        system_id: waiting.system_id.to_string(),
        due_at: waiting.due_unix_s.and_then(|unix_s| Time::from_unix_us(unix_s.checked_mul(1_000_000)?)),
        begun: waiting.begun,
        objects: waiting.objects,
    }
}

fn of_system(plan: SystemPlan) -> ExpiredSystem {
    let size = plan.facts.wal_segment_size;
    let name = |timeline, number| SegmentName::from_number(timeline, number, size).map(|name| name.to_string());
    let runs = plan.named.segments().flat_map(|(timeline, runs)| runs.iter().map(move |(first, last)| (timeline, first, last)));
    let range = |(timeline, first, last)| {
        Some(SegmentRange { first_segment: name(timeline, first)?, last_segment: name(timeline, last)? })
    };
    ExpiredSystem {
        system_id: plan.facts.system_id.to_string(),
        goes_segments: runs.filter_map(range).collect(),
        backups: plan.backups.into_iter().rev().map(of_backup).collect(),
        recovery_windows: plan.windows.into_iter().map(of_window).collect(),
        goes: plan.goes_amounts,
        stays: plan.stays_amounts,
        left_packs: plan.left.0,
        left_pack_bytes: plan.left.1,
    }
}

fn of_backup(backup: PlannedBackup) -> ExpiredBackup {
    ExpiredBackup {
        backup_id: backup.id.to_string(),
        started_at: backup.summary.is_some().then(|| backup.began.into()),
        label: backup.summary.map(|summary| summary.label),
        broken_because: backup.problem,
        kept_by: backup.reasons.into_iter().collect(),
    }
}

fn of_window(window: Promised) -> WindowAfter {
    let reach = |reach: crate::recovery::promised::PromisedReach| ReachAfter {
        backup_id: reach.backup.to_string(),
        earliest: reach.earliest,
        latest: reach.latest,
    };
    WindowAfter {
        timeline: window.timeline.0,
        wal_from_lsn: window.from.map(|lsn| lsn.to_string()),
        reaches: window.reaches.into_iter().map(reach).collect(),
    }
}
