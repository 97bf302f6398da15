//! One system identifier of a cluster, as far as listings, heads of manifests and the catalog tell it: what is needed,
//! what is missing, and what a fault costs.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::costs::{Costs, Harm, Interval};
use super::fault::Fault;
use super::findings::{Cost, Finding, LostMoments};
use super::heads::Heads;
use super::inventory::SystemInventory;
use super::lines::{Line, SegmentRun};
use super::needed::Needed;
use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::format::manifest::BackupSummary;
use crate::format::node::span;
use crate::limits::{MAX_HARMED_FILES_NAMED, MAX_RUNS_ASKED_AGAIN};
use crate::pg::scan::PgTime;
use crate::pg::{Lsn, Timeline, WalFileName};
use crate::recovery::log::{Log as _, WantedEnds};
use crate::recovery::path_log::PathLog;
use crate::repo::backups::BackupWal;
use crate::repo::{Catalog, ClusterName, Facts, ObjectName, Repository, Runs, StoredName};

/// One system identifier.
pub(super) struct Known<'a> {
    /// The repository.
    pub(super) repository: &'a Repository,
    /// The cluster.
    pub(super) cluster: &'a ClusterName,
    /// Its catalog.
    pub(super) catalog: &'a Catalog<'a>,
    /// The system identifier, and the size of its segments.
    pub(super) facts: Facts,
    /// What is listed.
    pub(super) inventory: SystemInventory,
    /// Its backups.
    pub(super) heads: Heads,
    /// The path to each timeline.
    pub(super) lines: Vec<Line<'a>>,
    /// Segments that are missing, of each timeline.
    pub(super) missing: BTreeMap<Timeline, Runs>,
    /// What somebody needs.
    pub(super) needed: Needed,
    /// Why the catalog could not be asked for all of it.
    pub(super) catalog_damage: Vec<Error>,
    costs: Costs,
}

impl<'a> Known<'a> {
    /// Puts together what is known. Segments that seem to be missing are looked for once more.
    ///
    /// # Errors
    /// As the store's.
    pub(super) fn of(
        (repository, cluster): (&'a Repository, &'a ClusterName),
        catalog: &'a Catalog<'a>,
        mut inventory: SystemInventory,
        heads: Heads,
        window: Option<&BTreeMap<Timeline, Runs>>,
    ) -> Result<Self, Error> {
        let facts = catalog.facts();
        let size = facts.wal_segment_size;
        let mut damage = Vec::new();
        let mut lines = lines((repository, cluster), catalog, &inventory, &heads, &mut damage)?;
        let mut gone = missing(&lines, &inventory, &heads);
        if ask_again((repository, cluster), facts, &gone, &mut inventory)? {
            damage.clear();
            lines = self::lines((repository, cluster), catalog, &inventory, &heads, &mut damage)?;
            gone = missing(&lines, &inventory, &heads);
        }
        let needed = Needed::of(&heads.backups, &lines, size, window, !heads.unreadable.is_empty());
        let costs = Costs::of(&lines, size, &|run| needed.wants(run));
        Ok(Self {
            repository,
            cluster,
            catalog,
            facts,
            inventory,
            heads,
            lines,
            missing: gone,
            needed,
            catalog_damage: damage,
            costs,
        })
    }

    /// Says what a fault costs. `times` is how many intervals may still be looked up in the log.
    ///
    /// # Errors
    /// As the store's.
    pub(super) fn finding(&self, fault: Fault, times: &mut usize) -> Result<Finding, Error> {
        let Fault { subject, problem, detail, harm, mut files, matters, is_repaired } = fault;
        let mut cost = Cost::default();
        if matters {
            cost.backups = self.harmed(&harm);
            for (timeline, interval) in self.costs.lost(&harm) {
                cost.moments.push(self.moments(timeline, interval, times)?);
            }
        }
        files.truncate(MAX_HARMED_FILES_NAMED);
        cost.files = files;
        let system_id = Some(self.facts.system_id);
        Ok(Finding { subject, system_id, problem, detail, cost, matters, is_repaired })
    }

    /// The backups that cannot be restored.
    fn harmed(&self, harm: &Harm) -> Vec<BackupId> {
        let is_harmed = |summary: &&BackupSummary| {
            let wal = BackupWal::of(summary);
            self.costs.harms(harm, summary.id, wal.timeline, (wal.start, wal.stop))
        };
        let readable = self.heads.backups.iter().filter(is_harmed).map(|summary| summary.id);
        // Those whose manifest cannot be read, or is missing.
        let is_readable = |id: &BackupId| self.heads.backups.iter().any(|summary| summary.id == *id);
        let others = harm.backups.iter().copied().filter(|id| !is_readable(id));
        let found: BTreeSet<BackupId> = readable.chain(others).collect();
        found.into_iter().collect()
    }

    /// What the loss of an object means, and whether anybody needs it. Which backups a pack harms is found out later.
    pub(super) fn consequences(&self, name: &ObjectName) -> (Harm, bool) {
        match name {
            ObjectName::Wal { file: StoredName { file, .. }, .. } => match file {
                WalFileName::Segment(name) => {
                    let number = name.number(self.facts.wal_segment_size).unwrap_or_default();
                    let run = SegmentRun { timeline: name.timeline, first: number, last: number };
                    (Harm::of_segments(run, self.facts.wal_segment_size), self.wants(run))
                }
                WalFileName::History(timeline) => (Harm { timelines: vec![*timeline], ..Harm::default() }, true),
                // Recovery never reads them.
                WalFileName::Partial(_) | WalFileName::Backup(..) => (Harm::default(), false),
            },
            // Derived data, but a search for a target stops at it.
            ObjectName::Node { timeline, level, first_segment, .. } => {
                let last = first_segment.saturating_add(span(*level) - 1);
                (Harm::default(), self.wants(SegmentRun { timeline: *timeline, first: *first_segment, last }))
            }
            ObjectName::Pack { pack, .. } => {
                let is_needed = self.heads.users.users(*pack).next().is_some() || !self.heads.unreadable.is_empty();
                (Harm::default(), is_needed)
            }
            // Derived data: a backup that cannot read it reads the cluster instead.
            ObjectName::Changes { .. } => (Harm::default(), false),
            // Nobody knows which backups it keeps.
            ObjectName::Pin { .. } => (Harm::default(), true),
            _ => (Harm::default(), false),
        }
    }

    /// When the moments of an interval were, as far as the log tells.
    fn moments(&self, timeline: Timeline, (from, until): Interval, times: &mut usize) -> Result<LostMoments, Error> {
        let system_id = self.facts.system_id;
        let mut lost = LostMoments { system_id, timeline, from, until, from_time: None, until_time: None };
        let is_on =
            |line: &&Line<'_>| line.legs.iter().any(|leg| leg.timeline == timeline && leg.begin <= from && from < leg.end);
        let line = self.lines.iter().find(is_on);
        if let (Some(log), Some(left)) = (line.and_then(|line| line.log.as_ref()), times.checked_sub(1)) {
            *times = left;
            lost.from_time = known_time(log.last_commit(Lsn(0), from).map(|end| end.map(|end| end.end.time)))?;
            lost.until_time = known_time(first_end(log, until))?;
        }
        Ok(lost)
    }

    /// The timeline of a run, as somebody needs it.
    pub(super) fn wants(&self, run: SegmentRun) -> bool {
        self.needed.wants(run)
    }
}

/// When the first transaction at or after a position ended.
fn first_end(log: &PathLog<'_>, from: Lsn) -> Result<Option<PgTime>, Error> {
    let mut first = None;
    log.ends(from, Lsn(u64::MAX), WantedEnds::All, &mut |end| {
        first = Some(end.end.time);
        ControlFlow::Break(())
    })?;
    Ok(first)
}

/// A time that the log tells, unless it is damaged there: that is told of by itself.
fn known_time(told: Result<Option<PgTime>, Error>) -> Result<Option<PgTime>, Error> {
    match told {
        Err(error) if matches!(error.kind, Kind::Damaged | Kind::Denied) => {
            tracing::debug!("when the lost moments were is not known: {error}");
            Ok(None)
        }
        told => told,
    }
}

/// The line to every timeline.
fn lines<'a>(
    place: (&'a Repository, &'a ClusterName),
    catalog: &'a Catalog<'a>,
    inventory: &SystemInventory,
    heads: &Heads,
    damage: &mut Vec<Error>,
) -> Result<Vec<Line<'a>>, Error> {
    let mut found = Vec::new();
    let is_stored = |timeline: Timeline| {
        inventory.segments.contains_key(&timeline) || heads.backups.iter().any(|backup| backup.timeline == timeline.0)
    };
    for info in catalog.timelines().iter().filter(|info| is_stored(info.timeline)) {
        found.extend(Line::of(place, catalog, info.timeline, inventory, &heads.backups, &mut |error| damage.push(error))?);
    }
    Ok(found)
}

/// Which segments are missing, by the lines and by the backups that are on none.
fn missing(lines: &[Line<'_>], inventory: &SystemInventory, heads: &Heads) -> BTreeMap<Timeline, Runs> {
    let mut gone: BTreeMap<Timeline, Runs> = BTreeMap::new();
    for run in lines.iter().flat_map(|line| &line.missing) {
        gone.entry(run.timeline).or_default().insert_run(run.first, run.last);
    }
    let is_on_a_line = |id: BackupId| lines.iter().any(|line| line.backups.iter().any(|backup| backup.id == id));
    for summary in heads.backups.iter().filter(|summary| !is_on_a_line(summary.id)) {
        let wal = BackupWal::of(summary);
        // One of a standby may end on a later timeline.
        let is_stored = |number: u64| {
            let mut later = inventory.segments.range(wal.timeline..);
            later.any(|(_, runs)| runs.contains(number))
        };
        for number in wal.segments(inventory.size).filter(|number| !is_stored(*number)) {
            gone.entry(wal.timeline).or_default().insert(number);
        }
    }
    gone
}

/// Lists runs of segments that seem to be missing once more, and adds what is there to the inventory; whether anything
/// was.
fn ask_again(
    (repository, cluster): (&Repository, &ClusterName),
    facts: Facts,
    missing: &BTreeMap<Timeline, Runs>,
    inventory: &mut SystemInventory,
) -> Result<bool, Error> {
    let mut found = false;
    let runs = missing.iter().flat_map(|(timeline, runs)| runs.iter().map(move |run| (*timeline, run)));
    for (timeline, run) in runs.take(MAX_RUNS_ASKED_AGAIN) {
        repository.visit_segments(cluster, facts, timeline, run, &mut |number, _| {
            inventory.segments.entry(timeline).or_default().insert(number);
            found = true;
        })?;
    }
    Ok(found)
}
