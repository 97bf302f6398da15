//! What a repository keeps of a cluster, and what may go. Nothing is changed here.
//!
//! Lives here: the order in which rules, pins, windows and references are asked, and the cases in which nothing may be
//! deleted. May not live here: what deletes. `docs/RETENTION.md` has the rules and the reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::needed::{KeptWal, NeededWal};
use super::rules::{self, Candidate};
use super::stored::{StoredBackup, StoredSystem};
use crate::config::Retention;
use crate::error::{Error, Kind};
use crate::format::extent::{BackupId, PackId};
use crate::format::manifest::BackupSummary;
use crate::limits::{MAX_CLOCK_DIFFERENCE, PLAN_ATTEMPTS};
use crate::pg::scan::PgTime;
use crate::recovery::choice_of_backup::Backups;
use crate::recovery::promised::{Asked, Promised, promised};
use crate::repo::backups::BackupWal;
use crate::repo::{ClusterName, Facts, ObjectSet, Repository, SystemId};
use crate::report::expire::{Amounts, Reason};

pub use super::stored::Hooks;

/// What is asked.
pub struct PlanRequest<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// The cluster, with all system identifiers that it had.
    pub cluster: &'a ClusterName,
    /// The rules.
    pub rules: &'a Retention,
    /// Backups that are pinned at the moment.
    pub pins: &'a BTreeSet<BackupId>,
    /// Backups that may go although their manifests cannot be read.
    pub give_up: &'a BTreeSet<BackupId>,
    /// Backups that may go although somebody deleted their manifests.
    pub may_be_lost: &'a BTreeSet<BackupId>,
    /// What counts as gone already, because tombstones name it: nothing is let go for the sake of what another run may
    /// delete at any time.
    pub gone: &'a BTreeMap<SystemId, ObjectSet>,
    /// The present.
    pub now: PgTime,
    /// How much later what is named now may be deleted: until then nothing of it may be needed again.
    pub ahead: Duration,
    /// How it is interrupted, and how far it is.
    pub hooks: Hooks<'a>,
}

/// What is kept, and what may go.
#[derive(Debug)]
pub struct Plan {
    /// Each system identifier, the current one first.
    pub systems: Vec<SystemPlan>,
}

/// The plan of one system identifier.
#[derive(Debug)]
pub struct SystemPlan {
    /// The system identifier.
    pub facts: Facts,
    /// Its backups, oldest first.
    pub backups: Vec<PlannedBackup>,
    /// What the window needs, on each timeline that was alive in it.
    pub windows: Vec<Promised>,
    /// What the rules let go at this moment: manifests, packs, WAL files. What is named already may be deleted by this.
    pub goes: ObjectSet,
    /// Of it, what no window will need again before it is deleted: what may be named.
    pub named: ObjectSet,
    /// How much is in `named`.
    pub goes_amounts: Amounts,
    /// How much stays of the same kinds.
    pub stays_amounts: Amounts,
    /// The WAL that the rules keep at this moment, whether it is there or not.
    pub(super) kept_wal: KeptWal,
    /// Of what is in `named`, packs of backups that were interrupted, and their size in bytes.
    pub left: (u64, u64),
}

/// A backup, and what becomes of it.
#[derive(Debug)]
pub struct PlannedBackup {
    /// Its id.
    pub id: BackupId,
    /// What its manifest says, if that can be read.
    pub summary: Option<BackupSummary>,
    /// When it began: what its manifest says, but no later than that was stored.
    pub began: PgTime,
    /// Why it cannot be restored, if that is so.
    pub problem: Option<String>,
    /// Why it is kept; empty if it may go.
    pub reasons: BTreeSet<Reason>,
}

impl PlannedBackup {
    /// Whether a rule keeps it at this moment. One that no rule keeps stays if a window begins with it before long.
    pub fn stays(&self) -> bool {
        self.reasons.iter().any(|reason| *reason != Reason::WindowSoon)
    }
}

/// Plans.
///
/// # Errors
/// [`Kind::Refused`] in the cases in which nothing may be deleted; as the store's and the catalog's.
pub fn plan(request: &PlanRequest<'_>) -> Result<Plan, Error> {
    let mut attempts = 1;
    loop {
        match plan_once(request) {
            Ok(plan) => return Ok(plan),
            // Another run may delete what was listed a moment ago: a new listing does not have it.
            Err(Failed::Catalog(_)) if attempts < PLAN_ATTEMPTS => attempts += 1,
            Err(Failed::Catalog(error) | Failed::Other(error)) => return Err(error),
        }
    }
}

/// Why there is no plan.
enum Failed {
    /// What was listed cannot be read.
    Catalog(Error),
    Other(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

fn plan_once(request: &PlanRequest<'_>) -> Result<Plan, Failed> {
    let PlanRequest { repository, cluster, rules, .. } = *request;
    if !rules.has_rules() {
        return Err(no_rules(repository.location()).into());
    }
    let mut looked_at = 0;
    let facts = repository.systems(cluster)?;
    let stored = facts
        .into_iter()
        .map(|facts| {
            let none = ObjectSet::new(facts.wal_segment_size);
            let gone = request.gone.get(&facts.system_id).unwrap_or(&none);
            StoredSystem::look(repository, cluster, facts, gone, request.hooks, &mut looked_at)
        })
        .collect::<Result<Vec<_>, _>>()?;
    refuse(request, &stored)?;

    let all = || stored.iter().flat_map(|system| &system.backups).filter(|backup| backup.summary.is_ok());
    let candidates: Vec<Candidate> =
        all().map(|backup| Candidate { id: backup.id, began: backup.began, is_good: backup.problem.is_none() }).collect();
    let mut kept = rules::kept(rules, &candidates, request.now);
    for backup in all().filter(|backup| request.pins.contains(&backup.id)) {
        kept.entry(backup.id).or_default().insert(Reason::Pinned);
    }
    let has_backups = all().next().is_some();
    let since = rules.recovery_window.map(|window| rules::before(request.now, window));
    let mut systems = Vec::new();
    // Until the current one has a backup, the way to the present is that of the one before.
    let mut always_newest = true;
    for system in stored {
        (request.hooks.go_on)()?;
        let good = Backups::known(system.backups.iter().filter_map(good).cloned().collect());
        let windows = if has_backups { windows(request, &system, &good, since, always_newest)? } else { Vec::new() };
        always_newest &= good.readable.is_empty();
        for id in windows.iter().flat_map(|window| &window.backups) {
            kept.entry(*id).or_default().insert(Reason::Window);
        }
        systems.push(of_system(request, system, windows, &kept, has_backups)?);
    }
    Ok(Plan { systems })
}

/// The backups of a cluster that are pinned at a moment, of whatever system identifier.
///
/// # Errors
/// As the store's.
pub fn pinned(repository: &Repository, cluster: &ClusterName, now: PgTime) -> Result<BTreeSet<BackupId>, Error> {
    let now_unix_s = now.unix_us().map_or(i64::MIN, |us| us.div_euclid(1_000_000));
    let mut pinned = BTreeSet::new();
    for facts in repository.systems(cluster)? {
        let pins = repository.pins(cluster, facts.system_id)?;
        pinned.extend(pins.into_iter().filter(|pin| pin.keeps_at(now_unix_s)).map(|pin| pin.backup));
    }
    Ok(pinned)
}

/// What an error says when nothing says what is kept.
pub fn no_rules(location: &str) -> Error {
    Error::new(Kind::Refused, format!("nothing says what is to be kept in {location}, so nothing may go")).hint(
        "write rules into [repository.retention] of this repository in the settings file: docs/SETTINGS.md has them, for example \
         recovery_window = \"7d\"",
    )
}

fn good(backup: &StoredBackup) -> Option<&BackupSummary> {
    backup.summary.as_ref().ok().filter(|_| backup.problem.is_none())
}

/// The cases in which something looks wrong, so that nothing may be deleted.
fn refuse(request: &PlanRequest<'_>, stored: &[StoredSystem<'_>]) -> Result<(), Error> {
    let (location, cluster) = (request.repository.location(), request.cluster);
    let difference = i64::try_from(MAX_CLOCK_DIFFERENCE.as_secs()).unwrap_or(i64::MAX);
    let now_unix_s = request.now.unix_us().map_or(i64::MAX, |us| us.div_euclid(1_000_000));
    let newest = stored.iter().filter_map(|system| system.newest_unix_s).max();
    if let Some(newest) = newest.filter(|newest| *newest > now_unix_s.saturating_add(difference)) {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "by this host's clock {location} has an object that was stored {} s from now: one of the clocks is wrong, so \
                 nothing may go",
                newest.saturating_sub(now_unix_s)
            ),
        )
        .hint("set the clocks of this host and of the store"));
    }
    let is_given_up = |backup: &&StoredBackup| request.give_up.contains(&backup.id);
    let all = || stored.iter().flat_map(|system| &system.backups);
    for backup in all().filter(|backup| !is_given_up(backup)) {
        if let Err(why) = &backup.summary {
            return Err(Error::new(Kind::Refused, format!("nobody knows what backup {} needs, so nothing may go: {why}", backup.id))
                .hint(format!(
                    "'walvis verify --repair-from' may bring its manifest back; 'walvis expire --give-up {}' says that this backup may go",
                    backup.id
                )));
        }
    }
    let lost = || stored.iter().flat_map(|system| &system.lost).filter(|lost| !request.may_be_lost.contains(&lost.id));
    if let Some(first) = lost().next() {
        let more = lost().count() - 1;
        let more = if more > 0 { format!("; {more} more are missing like it") } else { String::new() };
        return Err(Error::new(
            Kind::Refused,
            format!(
                "the manifest of backup {} was deleted, and not by expire, so nothing may go: {}{more}",
                first.id, first.proof
            ),
        )
        .hint(format!(
            "'walvis verify --repair-from URL' brings it back from a copy of the repository; 'walvis expire --give-up {}' says that \
             this backup may go",
            first.id
        )));
    }
    if let Some(backup) = all().find(|backup| is_given_up(backup) && backup.summary.is_ok()) {
        return Err(Error::new(Kind::Refused, format!("the manifest of backup {} can be read", backup.id))
            .hint("leave --give-up out: the rules say when it goes"));
    }
    if let Some(unknown) = request.give_up.iter().find(|id| all().all(|backup| backup.id != **id)) {
        return Err(Error::new(Kind::Target, format!("{location} has no backup {unknown} of cluster {cluster}"))
            .hint("'walvis list' shows the backups"));
    }
    let readable = all().filter(|backup| !is_given_up(backup));
    let problems: Vec<&str> = readable.filter_map(|backup| backup.problem.as_deref()).collect();
    let readable = all().filter(|backup| !is_given_up(backup)).count();
    if readable > 0 && problems.len() == readable {
        let first = problems.first().copied().unwrap_or_default();
        return Err(Error::new(
            Kind::Refused,
            format!(
                "none of the {readable} backups of cluster {cluster} in {location} can be restored, so nothing may go: {first}"
            ),
        )
        .hint("is the right disk mounted, and is all of the repository there? 'walvis list' shows what is"));
    }
    Ok(())
}

fn windows(
    request: &PlanRequest<'_>,
    system: &StoredSystem<'_>,
    good: &Backups,
    since: Option<PgTime>,
    always_newest: bool,
) -> Result<Vec<Promised>, Failed> {
    let asked = Asked {
        repository: request.repository,
        cluster: request.cluster,
        catalog: &system.catalog,
        good,
        since,
        moves_to: since.map(|since| rules::after(since, request.ahead)),
        stored: &system.wal.files,
        newest_stored_unix_s: &system.wal.newest_unix_s,
        always_newest,
    };
    promised(&asked).map_err(|error| match error.kind {
        Kind::Damaged => Failed::Catalog(Error {
            kind: Kind::Refused,
            ..error.while_doing("the catalog cannot say what the recovery window needs, so nothing may go")
        }),
        _ => Failed::Other(error),
    })
}

/// What becomes of the objects of one system identifier.
fn of_system(
    request: &PlanRequest<'_>,
    system: StoredSystem<'_>,
    windows: Vec<Promised>,
    kept: &BTreeMap<BackupId, BTreeSet<Reason>>,
    has_backups: bool,
) -> Result<SystemPlan, Error> {
    let (facts, size) = (system.facts, system.facts.wal_segment_size);
    let mut needed = NeededWal::new(size, system.catalog.timelines());
    windows.iter().for_each(|window| needed.path(window));
    let stays = |id: BackupId| kept.contains_key(&id);
    let soon: BTreeSet<BackupId> = windows.iter().flat_map(|window| &window.soon).copied().filter(|soon| !stays(*soon)).collect();
    let backups_need = |needed: &mut NeededWal<'_>, counts: &dyn Fn(BackupId) -> bool| {
        for backup in system.backups.iter().filter(|backup| counts(backup.id)) {
            if let Ok(summary) = &backup.summary {
                needed.backup(BackupWal::of(summary), summary.from_standby);
            }
        }
    };
    backups_need(&mut needed, &stays);
    let kept_wal = needed.kept().clone();
    // Without any backup of ours the WAL may belong to those of another program.
    let mut goes = if has_backups { needed.kept().rest_of(&system.wal.files) } else { ObjectSet::new(size) };
    backups_need(&mut needed, &|id| soon.contains(&id));
    let mut named = if has_backups { needed.kept().rest_of(&system.wal.files) } else { ObjectSet::new(size) };
    let mut amounts = Amounts {
        wal_files: named.count(),
        wal_bytes: system.wal.bytes_of(&named, request.repository, request.cluster, facts)?,
        ..Amounts::default()
    };
    for backup in system.backups.iter().filter(|backup| !stays(backup.id)) {
        goes.insert_manifest(backup.id);
        if soon.contains(&backup.id) {
            continue;
        }
        named.insert_manifest(backup.id);
        amounts.manifests += 1;
        amounts.manifest_bytes = amounts.manifest_bytes.saturating_add(backup.manifest_bytes);
    }
    let mut left = (0_u64, 0_u64);
    for (pack, bytes) in &system.packs {
        let is_left = !system.taken.contains(&pack.backup);
        if system.users.users(*pack).any(stays) || (is_left && may_be_used(request, &system, *pack)) {
            continue;
        }
        goes.insert_pack(*pack);
        if system.users.users(*pack).any(|id| soon.contains(&id)) {
            continue;
        }
        named.insert_pack(*pack);
        amounts.packs += 1;
        amounts.pack_bytes = amounts.pack_bytes.saturating_add(*bytes);
        if is_left && system.users.total_bytes(*pack).is_none() {
            left = (left.0 + 1, left.1.saturating_add(*bytes));
        }
    }
    let stored = system.amounts();
    let rest = |all: u64, some: u64| all.saturating_sub(some);
    let stays_amounts = Amounts {
        manifests: rest(stored.manifests, amounts.manifests),
        manifest_bytes: rest(stored.manifest_bytes, amounts.manifest_bytes),
        packs: rest(stored.packs, amounts.packs),
        pack_bytes: rest(stored.pack_bytes, amounts.pack_bytes),
        wal_files: rest(stored.wal_files, amounts.wal_files),
        wal_bytes: rest(stored.wal_bytes, amounts.wal_bytes),
    };
    let planned = |backup: StoredBackup| {
        let mut reasons = kept.get(&backup.id).cloned().unwrap_or_default();
        reasons.extend(soon.contains(&backup.id).then_some(Reason::WindowSoon));
        let StoredBackup { id, began, problem, summary, .. } = backup;
        PlannedBackup { id, summary: summary.ok(), began, problem, reasons }
    };
    let backups = system.backups.into_iter().map(planned).collect();
    Ok(SystemPlan { facts, backups, windows, goes, named, kept_wal, goes_amounts: amounts, stays_amounts, left })
}

/// Whether a pack without a manifest may be one of a backup that is still being taken: it, or another one of the same
/// backup, was stored within the grace period.
fn may_be_used(request: &PlanRequest<'_>, system: &StoredSystem<'_>, pack: PackId) -> bool {
    let newest = system.newest_pack_unix_s.get(&pack.backup).copied().unwrap_or(pack.backup.started_unix_s);
    let newest = newest.checked_mul(1_000_000).and_then(PgTime::from_unix_us).unwrap_or(PgTime(i64::MAX));
    newest >= rules::before(request.now, request.rules.grace)
}
