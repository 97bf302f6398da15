//! A plan as commands answer it.

use super::plan::{Plan, PlannedBackup, SystemPlan};
use crate::config::Retention;
use crate::pg::SegmentName;
use crate::recovery::promised::Promised;
use crate::repo::{ClusterName, Repository};
use crate::report::expire::{Amounts, ExpireReport, ExpiredBackup, ExpiredSystem, ReachAfter, Rule, WindowAfter};
use crate::report::segments::SegmentRange;

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
    }
}

fn of_system(plan: SystemPlan) -> ExpiredSystem {
    let size = plan.facts.wal_segment_size;
    let name = |timeline, number| SegmentName::from_number(timeline, number, size).map(|name| name.to_string());
    let runs = plan.goes.segments().flat_map(|(timeline, runs)| runs.iter().map(move |(first, last)| (timeline, first, last)));
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
