//! `walvis expire --confirm`: the two phases. `docs/RETENTION.md` has the steps, and the argument why each is there.
//!
//! Lives here: the order of steps. May not live here: what shall go (`plan`), the objects of tombstones and what must
//! not be taken apart (`repo`), how a set of objects is deleted (`expire_system`).
//!
//! Killed anywhere, it leaves a repository in which nothing that is needed is missing, and the next run goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::clock::{cannot_delete, cannot_purge, store_now};
use super::copies::is_of;
use super::deleting::Deleting;
use super::expire_system::{Expiring, present};
use super::leftovers::Sweeping;
use super::plan::{Hooks, Plan, PlanRequest, SystemPlan, plan};
use super::rules;
use crate::config::Retention;
use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::pg::scan::PgTime;
use crate::repo::backups::Given;
use crate::repo::{ClusterName, Facts, ObjectName, ObjectSet, Purged, Removal, Repository, SystemId, TombstoneId, TombstonePart};

pub use super::deleting::{Tally, Watch};
pub use super::expire_system::Expired;
pub use super::leftovers::Swept;

/// What is asked.
#[derive(Clone, Copy)]
pub struct ExpireRequest<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// The cluster, with all system identifiers that it had.
    pub cluster: &'a ClusterName,
    /// The rules.
    pub rules: &'a Retention,
    /// Backups that may go although nobody knows what they need, although their manifests were deleted, or although
    /// they may still be under way.
    pub give_up: &'a BTreeSet<BackupId>,
    /// Whether versions go that the store keeps of what is deleted.
    pub purge_versions: bool,
    /// The clock of this host.
    pub now: &'a dyn Fn() -> PgTime,
    /// How a plan is interrupted, and how far it is.
    pub hooks: Hooks<'a>,
    /// The same of the deleting.
    pub watch: Watch<'a>,
}

/// What is planned, beside what is named already.
#[derive(Debug)]
pub struct Preview {
    /// The plan. What tombstones name does not occur in it.
    pub plan: Plan,
    /// The tombstones that are there.
    pub waiting: Vec<Waiting>,
}

/// What was done.
#[derive(Debug)]
pub struct Executed {
    /// What stays from now on, and what is named now.
    pub plan: Plan,
    /// What a new tombstone names, of each system identifier.
    pub named: Vec<(SystemId, TombstoneId, u64)>,
    /// The tombstones that are there afterwards, those among them.
    pub waiting: Vec<Waiting>,
    /// Tombstones that were withdrawn: some of what they named is needed again.
    pub withdrawn: Vec<TombstoneId>,
    /// Backups that had begun and were given up.
    pub given_up: Vec<BackupId>,
    /// What was deleted by tombstones.
    pub expired: Expired,
    /// Versions of it that were removed.
    pub purged: Purged,
    /// What else was removed.
    pub swept: Swept,
}

impl Executed {
    /// What the command ends with when something could not be deleted.
    pub fn denied(&self, location: &str) -> Option<Error> {
        let because = self.expired.tally.denied_because.as_ref().or(self.swept.tally.denied_because.as_ref());
        let of_versions = self.purged.denied_because.as_ref().map(|why| cannot_purge(location, why));
        because.map(|why| cannot_delete(location, why)).or(of_versions)
    }
}

/// A tombstone that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Of which system identifier.
    pub system_id: SystemId,
    /// Its id.
    pub id: TombstoneId,
    /// When what it names may be deleted, in Unix seconds by the store's clock; `None` where that is not known.
    pub due_unix_s: Option<i64>,
    /// Whether the deleting has begun.
    pub begun: bool,
    /// How many objects it names; `None` where it cannot be read.
    pub objects: Option<u64>,
}

/// A tombstone that may be acted on.
struct Due {
    facts: Facts,
    id: TombstoneId,
    begun: bool,
    names: ObjectSet,
}

/// Plans, and changes nothing.
///
/// # Errors
/// As [`plan`].
pub fn preview(request: &ExpireRequest<'_>) -> Result<Preview, Error> {
    let mut run = Run { request, systems: request.repository.systems(request.cluster)?, ahead: Duration::ZERO };
    run.look_ahead(unix_s((request.now)()))?;
    let give_up = run.unreadable(run.request.give_up.iter().copied())?;
    let plan = run.plan(&[], &give_up)?;
    Ok(Preview { plan, waiting: run.waiting()? })
}

/// Deletes by the tombstones whose time has come, names what else may go, and removes leftovers.
///
/// # Errors
/// [`Kind::Refused`] in the cases in which nothing may be deleted; [`Kind::Denied`] when the credentials cannot delete
/// at all; as the store's. What could not be deleted, be it held or denied, is no error here: it is in the answer.
pub fn execute(request: &ExpireRequest<'_>) -> Result<Executed, Error> {
    let (repository, cluster) = (request.repository, request.cluster);
    let mut run = Run { request, systems: repository.systems(cluster)?, ahead: Duration::ZERO };
    if !request.rules.has_rules() {
        // It says so, and what to do.
        run.plan(&[], &BTreeSet::new())?;
    }
    let now_unix_s = store_now(repository.objects(), &|| unix_s((request.now)()))?;
    run.look_ahead(now_unix_s)?;
    let mut due = run.due(now_unix_s)?;
    let named = due.iter().flat_map(|due| due.names.manifests());
    let give_up = run.unreadable(named.chain(request.give_up.iter().copied()))?;
    if !request.give_up.is_empty() {
        // Where this refuses, no backup is given up either: a void is for good.
        run.plan(&due, &give_up)?;
    }
    let mut given_up = run.give_up_begun()?;

    // Phase 2, up to the point from which on pins come too late.
    let mut planned = run.plan(&due, &give_up)?;
    let withdrawn = run.withdraw(&planned, &mut due)?;
    let mut acting = Vec::new();
    for mut due in due {
        (request.hooks.go_on)()?;
        match repository.begin_deletion(cluster, due.facts.system_id, due.id)? {
            Some(deletion) => {
                due.names = deletion.names;
                given_up.extend(deletion.given_up);
                acting.push(due);
            }
            // Another run ended it, or withdrew it.
            None => drop(repository.remove_tombstone(cluster, due.facts, due.id)?),
        }
    }

    let mut done = Done::default();
    let mut spared = false;
    if !acting.is_empty() {
        planned = run.plan(&acting, &give_up)?;
        spared = !run.staying(&planned, &acting)?.is_empty();
        if spared && acting.len() > 1 {
            // Something that one of them names stays, and another run may delete it: nothing that the others name may
            // go for its sake.
            for one in acting.chunks(1) {
                planned = run.plan(one, &give_up)?;
                run.delete(&planned, one, &give_up, &mut done)?;
            }
        } else {
            run.delete(&planned, &acting, &give_up, &mut done)?;
        }
        if done.expired.tally.denied == 0 {
            run.end(&acting, &mut done)?;
        }
    }

    // Phase 1.
    if spared || !withdrawn.is_empty() {
        planned = run.plan(&[], &give_up)?;
    }
    let named = run.name_what_goes(&planned, &acting)?;
    if done.expired.tally.denied == 0 {
        let before_unix_s = request.rules.evidence_within.map(|within| unix_s(rules::before((request.now)(), within)));
        let mut deleting = Deleting::new(repository.objects(), request.watch);
        let readable: BTreeSet<BackupId> =
            planned.systems.iter().flat_map(|system| &system.backups).map(|backup| backup.id).collect();
        let sweeping = Sweeping { repository, cluster, systems: &run.systems, backups: &readable };
        done.swept = sweeping.sweep(before_unix_s, now_unix_s, &mut deleting)?;
    }
    let Done { expired, purged, swept, .. } = done;
    Ok(Executed { plan: planned, named, waiting: run.waiting()?, withdrawn, given_up, expired, purged, swept })
}

#[derive(Default)]
struct Done {
    expired: Expired,
    /// Objects of which a good copy stays that is to go.
    copied: BTreeSet<String>,
    purged: Purged,
    swept: Swept,
}

struct Run<'r, 'a> {
    request: &'r ExpireRequest<'a>,
    /// The current one first.
    systems: Vec<Facts>,
    /// How much later what is named now may be deleted.
    ahead: Duration,
}

impl Run<'_, '_> {
    /// Plans: what tombstones name but these counts as gone.
    fn plan(&self, except: &[Due], give_up: &BTreeSet<BackupId>) -> Result<Plan, Error> {
        let ExpireRequest { repository, cluster, rules, hooks, .. } = *self.request;
        let (mut gone, mut pins) = (BTreeMap::new(), BTreeSet::new());
        let now = (self.request.now)();
        for facts in &self.systems {
            let own: Vec<TombstoneId> =
                except.iter().filter(|due| due.facts.system_id == facts.system_id).map(|due| due.id).collect();
            let others = repository.tombstoned(cluster, *facts, &own)?;
            for (id, error) in &others.unreadable {
                tracing::warn!("tombstone {id} is not acted on: {error}{}", error.hint_in_brackets());
            }
            gone.insert(facts.system_id, others.names);
            let current = repository.pins(cluster, facts.system_id)?;
            pins.extend(current.iter().filter(|pin| pin.keeps_at(unix_s(now))).map(|pin| pin.backup));
        }
        // What counts as gone is not asked about.
        let give_up: BTreeSet<BackupId> =
            give_up.iter().copied().filter(|id| !gone.values().any(|gone| gone.has_manifest(*id))).collect();
        let (pins, gone, may_be_lost, ahead) = (&pins, &gone, self.request.give_up, self.ahead);
        let give_up = &give_up;
        plan(&PlanRequest { repository, cluster, rules, pins, give_up, may_be_lost, gone, now, ahead, hooks })
    }

    /// How much later what is named now may be deleted. Runs come as they come: what one names, the first one acts on
    /// that comes after the grace period. Where this one finds something due that was named long ago, the next one may
    /// be as far away. With a grace period on top, that what is late by less does no harm.
    fn look_ahead(&mut self, now_unix_s: i64) -> Result<(), Error> {
        let ExpireRequest { repository, cluster, rules, .. } = *self.request;
        let mut ahead = rules.grace;
        for facts in &self.systems {
            let tombstones = repository.tombstones(cluster, facts.system_id)?;
            // What began to be deleted may be held, and be old for that.
            let waiting = tombstones.iter().filter(|listed| !listed.has(TombstonePart::Begun));
            let ages = waiting.filter_map(|listed| u64::try_from(now_unix_s.saturating_sub(listed.open_unix_s()?)).ok());
            // None that is not due yet is older than the grace period.
            ahead = ahead.max(Duration::from_secs(ages.max().unwrap_or_default()));
        }
        self.ahead = ahead.saturating_add(rules.grace);
        Ok(())
    }

    /// The backups among these whose manifests cannot be read, and those that nobody knows: the plan says so.
    fn unreadable(&self, ids: impl Iterator<Item = BackupId>) -> Result<BTreeSet<BackupId>, Error> {
        let ExpireRequest { repository, cluster, give_up, .. } = *self.request;
        let mut found = BTreeSet::new();
        for id in ids {
            let (mut known, mut damaged) = (false, false);
            for facts in &self.systems {
                // Its metadata may be whole where the rest is not.
                let head = repository.read_manifest_head(cluster, facts.system_id, id);
                match head {
                    Ok(head) => known |= head.is_some(),
                    Err(error) if error.kind == Kind::Damaged => damaged = true,
                    Err(error) => return Err(error),
                }
            }
            if damaged || (give_up.contains(&id) && (known || !self.has_begun(id)?)) {
                found.insert(id);
            }
        }
        Ok(found)
    }

    fn has_begun(&self, id: BackupId) -> Result<bool, Error> {
        let ExpireRequest { repository, cluster, .. } = *self.request;
        for facts in &self.systems {
            if repository.begun_backups(cluster, facts.system_id)?.iter().any(|begun| begun.id == id) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Gives up backups that have begun and have no manifest, where the operator says so.
    fn give_up_begun(&self) -> Result<Vec<BackupId>, Error> {
        let ExpireRequest { repository, cluster, give_up, .. } = *self.request;
        let mut given_up = Vec::new();
        if give_up.is_empty() {
            return Ok(given_up);
        }
        for facts in &self.systems {
            let system_id = facts.system_id;
            for begun in repository.begun_backups(cluster, system_id)?.iter().filter(|begun| give_up.contains(&begun.id)) {
                if !repository.has_backup(cluster, system_id, begun.id)?
                    && repository.give_up(cluster, system_id, begun.id, "an operator gave it up")? == Given::Void
                {
                    given_up.push(begun.id);
                }
            }
        }
        Ok(given_up)
    }

    /// Completes tombstones, clears up after those that are ended, and says whose time has come.
    fn due(&self, now_unix_s: i64) -> Result<Vec<Due>, Error> {
        let ExpireRequest { repository, cluster, rules, .. } = *self.request;
        let grace = i64::try_from(rules.grace.as_secs()).unwrap_or(i64::MAX);
        let mut due = Vec::new();
        for facts in &self.systems {
            let system_id = facts.system_id;
            for listed in repository.tombstones(cluster, system_id)? {
                if !listed.has(TombstonePart::Names) {
                    // Another run, or an earlier one, is about to remove it: all that it named is gone.
                    self.remove(*facts, listed.id)?;
                    continue;
                }
                if !listed.has(TombstonePart::Open) {
                    repository.complete_tombstone(cluster, system_id, listed.id)?;
                    continue;
                }
                let is_old = listed.open_unix_s().is_some_and(|open| open.saturating_add(grace) <= now_unix_s);
                let begun = listed.has(TombstonePart::Begun);
                if !begun && !is_old {
                    continue;
                }
                match repository.read_tombstone(cluster, system_id, listed.id) {
                    Ok(Some(names)) => due.push(Due { facts: *facts, id: listed.id, begun, names }),
                    Ok(None) => self.remove(*facts, listed.id)?,
                    Err(error) if matches!(error.kind, Kind::Damaged | Kind::Denied) => {
                        tracing::warn!("{error}{}", error.hint_in_brackets());
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(due)
    }

    /// Removes what is left of a tombstone that is not there any more.
    fn remove(&self, facts: Facts, id: TombstoneId) -> Result<(), Error> {
        self.request.repository.remove_tombstone(self.request.cluster, facts, id).map(drop)
    }

    /// Withdraws the tombstones of which something stays, unless their deleting has begun.
    fn withdraw(&self, planned: &Plan, due: &mut Vec<Due>) -> Result<Vec<TombstoneId>, Error> {
        let ExpireRequest { repository, cluster, .. } = *self.request;
        let (mut withdrawn, mut rest) = (Vec::new(), Vec::new());
        for one in std::mem::take(due) {
            let stays = !one.begun && !self.staying(planned, std::slice::from_ref(&one))?.is_empty();
            if stays && repository.withdraw_tombstone(cluster, one.facts.system_id, one.id)? {
                self.remove(one.facts, one.id)?;
                withdrawn.push(one.id);
            } else {
                rest.push(one);
            }
        }
        *due = rest;
        Ok(withdrawn)
    }

    /// What tombstones name that is there and stays by a plan.
    fn staying(&self, planned: &Plan, tombstones: &[Due]) -> Result<Vec<ObjectSet>, Error> {
        let mut staying = Vec::new();
        for one in tombstones {
            let rest = match of_system(planned, one.facts) {
                Some(system) => one.names.difference(&system.goes),
                None => one.names.clone(),
            };
            let there = present(self.request.repository, self.request.cluster, one.facts, &rest)?;
            staying.extend(Some(there).filter(|there| !there.is_empty()));
        }
        Ok(staying)
    }

    /// Deletes what tombstones name and a plan lets go.
    fn delete(&self, planned: &Plan, tombstones: &[Due], give_up: &BTreeSet<BackupId>, done: &mut Done) -> Result<(), Error> {
        let ExpireRequest { repository, cluster, watch, .. } = *self.request;
        for facts in &self.systems {
            let Some(system) = of_system(planned, *facts) else { continue };
            let mut doomed = ObjectSet::new(facts.wal_segment_size);
            for one in tombstones.iter().filter(|one| one.facts.system_id == facts.system_id) {
                doomed.extend(&one.names.intersection(&system.goes));
            }
            let mut named = ObjectSet::new(facts.wal_segment_size);
            tombstones.iter().filter(|one| one.facts.system_id == facts.system_id).for_each(|one| named.extend(&one.names));
            if named.is_empty() || done.expired.tally.denied > 0 {
                continue;
            }
            let kept = system.backups.iter().filter(|backup| backup.stays()).map(|backup| backup.id).collect();
            let deleting = Deleting::new(repository.objects(), watch);
            let mut expiring = Expiring { repository, cluster, facts: *facts, kept: &kept, give_up, deleting };
            let mut expired = if doomed.is_empty() { Expired::default() } else { expiring.delete(doomed)? };
            if expired.tally.denied == 0 {
                expiring.copies(&named, &system.kept_wal, &mut expired, &mut done.copied)?;
            }
            done.expired.add(expired);
        }
        Ok(())
    }

    /// Removes versions of what is gone where that is asked for, and then the tombstones of which nothing is left.
    fn end(&self, tombstones: &[Due], done: &mut Done) -> Result<(), Error> {
        let ExpireRequest { repository, cluster, purge_versions, .. } = *self.request;
        if purge_versions {
            for facts in &self.systems {
                let own = tombstones.iter().filter(|one| one.facts.system_id == facts.system_id);
                let names: Vec<&ObjectSet> = own.map(|one| &one.names).collect();
                if !names.is_empty() {
                    super::expire_system::purge(repository, cluster, *facts, &names, &mut done.purged)?;
                }
            }
            super::expire_system::purge_probes(repository, &mut done.purged)?;
            if done.purged.held + done.purged.denied > 0 {
                // The next run that is asked to has to know which versions may go.
                return Ok(());
            }
        }
        let has_copy = |one: &Due, copied: &BTreeSet<String>| {
            let names = copied.iter().filter_map(|name| ObjectName::parse(name));
            let mut own = names.filter(|name| is_of(name, cluster, one.facts, &one.names));
            own.next().is_some()
        };
        for one in tombstones {
            if has_copy(one, &done.copied) {
                tracing::info!("tombstone {} stays: good copies of what it names are still there", one.id);
                continue;
            }
            match repository.remove_tombstone(cluster, one.facts, one.id) {
                Ok(Removal::Removed) => {}
                Ok(Removal::Stays(left)) => tracing::info!("tombstone {} stays: {left} of its objects are still there", one.id),
                Err(error) if error.kind == Kind::Denied => {
                    done.expired.tally.add(Tally { denied: 1, denied_because: Some(error.what), ..Tally::default() });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Phase 1: names what may go and no tombstone names yet.
    fn name_what_goes(&self, planned: &Plan, acted_on: &[Due]) -> Result<Vec<(SystemId, TombstoneId, u64)>, Error> {
        let ExpireRequest { repository, cluster, hooks, .. } = *self.request;
        let mut named = Vec::new();
        for system in &planned.systems {
            let mut fresh = system.named.clone();
            for one in acted_on.iter().filter(|one| one.facts.system_id == system.facts.system_id) {
                fresh = fresh.difference(&one.names);
            }
            if fresh.is_empty() {
                continue;
            }
            (hooks.go_on)()?;
            let system_id = system.facts.system_id;
            let id = repository.put_tombstone(cluster, system_id, &fresh)?;
            repository.complete_tombstone(cluster, system_id, id)?;
            named.push((system_id, id, fresh.count()));
        }
        Ok(named)
    }

    /// The tombstones that are there.
    fn waiting(&self) -> Result<Vec<Waiting>, Error> {
        let ExpireRequest { repository, cluster, rules, .. } = *self.request;
        let grace = i64::try_from(rules.grace.as_secs()).unwrap_or(i64::MAX);
        let mut waiting = Vec::new();
        for facts in &self.systems {
            let system_id = facts.system_id;
            for listed in repository.tombstones(cluster, system_id)? {
                let objects = match repository.read_tombstone(cluster, system_id, listed.id) {
                    Ok(names) => names.map(|names| names.count()),
                    Err(error) if matches!(error.kind, Kind::Damaged | Kind::Denied) => None,
                    Err(error) => return Err(error),
                };
                let due_unix_s = listed.open_unix_s().map(|open| open.saturating_add(grace));
                let begun = listed.has(TombstonePart::Begun);
                waiting.push(Waiting { system_id, id: listed.id, due_unix_s, begun, objects });
            }
        }
        Ok(waiting)
    }
}

/// A time in Unix seconds.
fn unix_s(time: PgTime) -> i64 {
    time.unix_us().map_or(i64::MIN, |us| us.div_euclid(1_000_000))
}

fn of_system(planned: &Plan, facts: Facts) -> Option<&SystemPlan> {
    planned.systems.iter().find(|system| system.facts.system_id == facts.system_id)
}
