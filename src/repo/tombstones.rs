//! Tombstones: what shall go, in two phases. `docs/RETENTION.md` has the protocol, and the argument why each step is
//! there; each function here is one of its steps, or several that must not be taken apart.
//!
//! Lives here: the objects of a tombstone, and the order of steps on them. May not live here: what shall go, and the
//! deleting itself ([`retention`](crate::retention)).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::cluster::{ClusterName, Facts, SystemId};
use super::content::Content;
use super::new_id::new_id;
use super::object_name::ObjectName;
use super::object_set::ObjectSet;
use super::prefix::Prefix;
use super::repository::Repository;
use super::tombstone_name::{TombstoneId, TombstonePart};
use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::limits::MAX_TOMBSTONE_BYTES;
use crate::pg::{Timeline, WalSegmentSize};
use crate::store::Created;

/// What to do about a tombstone that cannot be read.
const HINT: &str = "nothing is deleted by a tombstone that cannot be read; remove this object, and the two beside it that begin with its \
                    name, or bring it back from a copy of the repository";

/// A tombstone in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedTombstone {
    /// Its id.
    pub id: TombstoneId,
    /// Its objects, each with the time of its storing in Unix seconds by the store's clock, where the store tells.
    pub parts: BTreeMap<TombstonePart, Option<i64>>,
}

impl ListedTombstone {
    /// Whether it has this object.
    pub fn has(&self, part: TombstonePart) -> bool {
        self.parts.contains_key(&part)
    }

    /// When the list of open backups was stored, from which the grace period counts. In Unix seconds by the store's
    /// clock; `None` where it is missing, or the store does not tell.
    pub fn open_unix_s(&self) -> Option<i64> {
        self.parts.get(&TombstonePart::Open).copied().flatten()
    }

    /// When the deleting began, or it was withdrawn; as [`open_unix_s`](Self::open_unix_s).
    pub fn begun_unix_s(&self) -> Option<i64> {
        self.parts.get(&TombstonePart::Begun).copied().flatten()
    }
}

/// A tombstone by which may be deleted from now on. Pins and manifests are to be listed after this.
#[derive(Debug)]
pub struct Deletion {
    /// What it names.
    pub names: ObjectSet,
    /// The backups that were given up by it just now, or by an earlier run: open ones without a manifest.
    pub given_up: Vec<BackupId>,
}

/// What tombstones name.
#[derive(Debug)]
pub struct Tombstoned {
    /// All of it.
    pub names: ObjectSet,
    /// Tombstones that cannot be read: what they name is not known.
    pub unreadable: Vec<(TombstoneId, Error)>,
}

/// What became of the removal of a tombstone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Its objects are gone.
    Removed,
    /// It stays, because so many of the objects that it names are still there.
    Stays(u64),
}

/// What is decided about a tombstone: the content of its `.begun`, which is written once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Fate {
    /// What it names may be deleted.
    Deletes,
    /// Nothing will ever be deleted by it.
    Withdrawn,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenFate {
    fate: Fate,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenOpen {
    backups: Vec<BackupId>,
}

impl Repository {
    /// The tombstones of a cluster, oldest first.
    ///
    /// # Errors
    /// As the store's.
    pub fn tombstones(&self, cluster: &ClusterName, system_id: SystemId) -> Result<Vec<ListedTombstone>, Error> {
        let mut found: BTreeMap<TombstoneId, ListedTombstone> = BTreeMap::new();
        self.objects().list(Prefix::Tombstones(cluster, system_id), "", &mut |object| {
            if let ObjectName::Tombstone { id, part, .. } = object.name {
                let listed = found.entry(id).or_insert_with(|| ListedTombstone { id, parts: BTreeMap::new() });
                listed.parts.insert(part, object.modified_unix_s);
            }
            ControlFlow::Continue(())
        })?;
        for listed in found.values_mut() {
            // It comes first of the three in a listing, so it may have been created after its place was passed.
            let name = part(cluster, system_id, listed.id, TombstonePart::Names);
            if !listed.has(TombstonePart::Names) && self.objects().exists(&name)? {
                listed.parts.insert(TombstonePart::Names, None);
            }
        }
        Ok(found.into_values().collect())
    }

    /// What a tombstone names; `None` when it is not there (any more).
    ///
    /// # Errors
    /// [`Kind::Damaged`] when it cannot be read: nothing may be deleted by it then; as the store's.
    pub fn read_tombstone(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        id: TombstoneId,
    ) -> Result<Option<ObjectSet>, Error> {
        self.read_part(&part(cluster, system_id, id, TombstonePart::Names))
    }

    /// Stores a new tombstone that names these objects. It is not acted on before it is complete
    /// ([`complete_tombstone`](Self::complete_tombstone)).
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_tombstone(&self, cluster: &ClusterName, system_id: SystemId, names: &ObjectSet) -> Result<TombstoneId, Error> {
        let json = encode(names)?;
        if json.len() as u64 > MAX_TOMBSTONE_BYTES {
            let what = format!("a tombstone of {} objects is too long to be stored: {} bytes", names.count(), json.len());
            return Err(Error::new(Kind::Refused, what).hint("let less go at once"));
        }
        let id = new_id(jiff::Timestamp::now())?;
        self.put(&part(cluster, system_id, id, TombstonePart::Names), &Content::of_bytes(&json))?;
        Ok(id)
    }

    /// Completes a tombstone that is stored: lists the backups that have begun and have no manifest, and stores that.
    /// If another run completed it before, its list stays: either was made after the tombstone was there.
    ///
    /// # Errors
    /// As the store's.
    pub fn complete_tombstone(&self, cluster: &ClusterName, system_id: SystemId, id: TombstoneId) -> Result<(), Error> {
        let begun = self.begun_backups(cluster, system_id)?;
        let decided = self.decided_backups(cluster, system_id)?;
        let backups = begun.into_iter().map(|backup| backup.id).filter(|id| !decided.contains(id)).collect();
        let name = part(cluster, system_id, id, TombstonePart::Open);
        let json = encode(&WrittenOpen { backups })?;
        match self.sealer().create(&name, &Content::of_bytes(&json).identified_by(b"open"))? {
            Created::New => Ok(()),
            Created::Exists => self.still_there(&name).map(drop),
        }
    }

    /// Begins to delete by a tombstone that is complete and whose time has come, or goes on: says so in the repository,
    /// reads the tombstone, and gives up all backups that do not know of it and have no manifest. `None` when nothing
    /// is to be deleted by it: it was withdrawn, is not complete, or another run has ended it.
    ///
    /// **After** this pins and manifests are to be listed, and the plan is to be made anew. Only what the tombstone
    /// names **and** that plan lets go **and** nothing that stays refers to may be deleted: first that backups have
    /// begun ([`forget_begun`](Self::forget_begun)), then their manifests, then the rest.
    ///
    /// # Errors
    /// [`Kind::Damaged`] when the tombstone cannot be read; as the store's.
    pub fn begin_deletion(&self, cluster: &ClusterName, system_id: SystemId, id: TombstoneId) -> Result<Option<Deletion>, Error> {
        let open = part(cluster, system_id, id, TombstonePart::Open);
        if !self.objects().exists(&open)? {
            return Ok(None);
        }
        if self.decide(cluster, system_id, id, Fate::Deletes)? != Some(Fate::Deletes) {
            return Ok(None);
        }
        // Only now: what was withdrawn, and removed since, is not there any more. Both, in this order: the request that
        // creates one of them may have been repeated, and have arrived after the removal.
        let Some(names) = self.read_tombstone(cluster, system_id, id)? else { return Ok(None) };
        let Some(open) = self.read_part::<WrittenOpen>(&open)? else { return Ok(None) };
        let decided = self.decided_backups(cluster, system_id)?;
        let begun: Vec<BackupId> = self.begun_backups(cluster, system_id)?.into_iter().map(|backup| backup.id).collect();
        let named: BTreeSet<BackupId> = names.packs().map(|(backup, _)| backup).collect();
        let late = begun.into_iter().filter(|backup| named.contains(backup));
        let without: BTreeSet<BackupId> = open.backups.into_iter().chain(late).filter(|id| !decided.contains(id)).collect();
        let mut given_up = Vec::new();
        for backup in without {
            let reason = format!("it had begun before tombstone {id}, and had no manifest when the grace period had passed");
            if self.create_void(cluster, system_id, backup, &reason)? == Created::New {
                given_up.push(backup);
            }
        }
        Ok(Some(Deletion { names, given_up }))
    }

    /// Makes sure that nothing will ever be deleted by a tombstone: some of what it names is needed again. Says whether
    /// that is so; `false` when the deleting began before.
    ///
    /// # Errors
    /// As the store's.
    pub fn withdraw_tombstone(&self, cluster: &ClusterName, system_id: SystemId, id: TombstoneId) -> Result<bool, Error> {
        Ok(self.decide(cluster, system_id, id, Fate::Withdrawn)? != Some(Fate::Deletes))
    }

    /// Whether a tombstone was withdrawn, or its deleting began; `None` when neither is so.
    fn fate(&self, cluster: &ClusterName, system_id: SystemId, id: TombstoneId) -> Result<Option<Fate>, Error> {
        let written: Option<WrittenFate> = self.read_part(&part(cluster, system_id, id, TombstonePart::Begun))?;
        Ok(written.map(|written| written.fate))
    }

    /// Writes the fate of a tombstone, if it is not decided; the answer is what was decided. `None` when the tombstone
    /// is being removed at this moment.
    fn decide(&self, cluster: &ClusterName, system_id: SystemId, id: TombstoneId, fate: Fate) -> Result<Option<Fate>, Error> {
        let name = part(cluster, system_id, id, TombstonePart::Begun);
        match self.sealer().create(&name, &Content::of_bytes(&encode(&WrittenFate { fate })?))? {
            Created::New => Ok(Some(fate)),
            Created::Exists => {
                let decided = self.fate(cluster, system_id, id)?;
                Ok(if decided.is_some() && !self.still_there(&name)? { None } else { decided })
            }
        }
    }

    /// What the tombstones of a cluster name, but those of `except` and those that were withdrawn. A writer of a
    /// manifest refers to none of it; whoever plans what goes counts it as gone already, so that nothing is relied on
    /// that another run may delete.
    ///
    /// # Errors
    /// As the store's; one that cannot be read is no error.
    pub fn tombstoned(&self, cluster: &ClusterName, facts: Facts, except: &[TombstoneId]) -> Result<Tombstoned, Error> {
        let system_id = facts.system_id;
        let mut all = Tombstoned { names: ObjectSet::new(facts.wal_segment_size), unreadable: Vec::new() };
        for listed in self.tombstones(cluster, system_id)? {
            if except.contains(&listed.id) || !listed.has(TombstonePart::Names) {
                continue;
            }
            let read = match listed.has(TombstonePart::Begun) {
                true => self.fate(cluster, system_id, listed.id),
                false => Ok(None),
            };
            let names = match read {
                Ok(Some(Fate::Withdrawn)) => continue,
                Ok(_) => self.read_tombstone(cluster, system_id, listed.id),
                Err(error) => Err(error),
            };
            match names {
                Ok(Some(names)) => all.names.extend(&names),
                Ok(None) => {} // All that it named is gone.
                Err(error) if matches!(error.kind, Kind::Damaged | Kind::Denied) => all.unreadable.push((listed.id, error)),
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Whether the deletion of a backup has begun: a tombstone that names its manifest has a `.begun`.
    ///
    /// # Errors
    /// As the store's; [`Kind::Damaged`] when such a tombstone cannot be read.
    pub fn deletion_of_backup_has_begun(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        backup: BackupId,
    ) -> Result<Option<TombstoneId>, Error> {
        for listed in self.tombstones(cluster, system_id)? {
            if !listed.has(TombstonePart::Begun) || self.fate(cluster, system_id, listed.id)? == Some(Fate::Withdrawn) {
                continue;
            }
            let names = self.read_tombstone(cluster, system_id, listed.id)?;
            if names.is_some_and(|names| names.has_manifest(backup)) {
                return Ok(Some(listed.id));
            }
        }
        Ok(None)
    }

    /// Removes a tombstone that was withdrawn, or whose objects are all gone; looks for them first. As long as one is
    /// there the tombstone stays: another run may have chosen to delete it, and may do so at any time, so no new backup
    /// may refer to it.
    ///
    /// # Errors
    /// [`Kind::Bug`] when the deleting has not begun; as the store's.
    pub fn remove_tombstone(&self, cluster: &ClusterName, facts: Facts, id: TombstoneId) -> Result<Removal, Error> {
        let system_id = facts.system_id;
        if let Some(names) = self.read_tombstone(cluster, system_id, id)? {
            match self.fate(cluster, system_id, id)? {
                Some(Fate::Withdrawn) => {}
                Some(Fate::Deletes) => match self.count_present(cluster, system_id, &names)? {
                    0 => {}
                    left => return Ok(Removal::Stays(left)),
                },
                None => return Err(Error::new(Kind::Bug, format!("tombstone {id} is to be removed, and has not been acted on"))),
            }
        }
        // In this order: whoever finds `.begun` free, and creates it once more, does not find the tombstone any more.
        for which in [TombstonePart::Names, TombstonePart::Open, TombstonePart::Begun] {
            self.objects().delete(&part(cluster, system_id, id, which))?;
        }
        Ok(Removal::Removed)
    }

    /// How many objects of a set are there: a listing for each run of them, which ends where the run does.
    fn count_present(&self, cluster: &ClusterName, system_id: SystemId, set: &ObjectSet) -> Result<u64, Error> {
        let mut count = 0_u64;
        if set.manifests().next().is_some() {
            let stored: BTreeSet<BackupId> = self.backup_ids(cluster, system_id)?.into_iter().collect();
            count += set.manifests().filter(|id| stored.contains(id)).count() as u64;
        }
        for (backup, _) in set.packs() {
            let prefix = Prefix::Packs(cluster, system_id);
            self.objects().list(prefix, &format!("{prefix}{backup}/"), &mut |object| match object.name {
                ObjectName::Pack { pack, .. } if pack.backup == backup => {
                    count += u64::from(set.has_pack(pack));
                    ControlFlow::Continue(())
                }
                _ => ControlFlow::Break(()),
            })?;
        }
        for (timeline, runs) in set.segments() {
            for (first, last) in runs.iter() {
                count += self.count_segments((cluster, system_id), timeline, (first, last), set.segment_size())?;
            }
        }
        for file in set.wal_files() {
            count += u64::from(self.objects().exists(&ObjectName::wal(cluster, system_id, file))?);
        }
        Ok(count)
    }

    fn count_segments(
        &self,
        (cluster, system_id): (&ClusterName, SystemId),
        timeline: Timeline,
        (first, last): (u64, u64),
        size: WalSegmentSize,
    ) -> Result<u64, Error> {
        let facts = Facts { system_id, wal_segment_size: size, postgres_major: None };
        let mut count = 0;
        self.visit_segments(cluster, facts, timeline, (first, last), &mut |_, _| count += 1)?;
        Ok(count)
    }

    /// The backups whose fate is decided: they have a manifest or a void.
    fn decided_backups(&self, cluster: &ClusterName, system_id: SystemId) -> Result<BTreeSet<BackupId>, Error> {
        let mut decided = BTreeSet::new();
        self.visit_manifest_names(cluster, system_id, &mut |id, _| {
            decided.insert(id);
        })?;
        Ok(decided)
    }

    /// Makes what was found durable; `false` when another run, which ended the tombstone, has removed it meanwhile.
    fn still_there(&self, name: &ObjectName) -> Result<bool, Error> {
        match self.objects().make_durable(name) {
            Ok(()) => Ok(true),
            Err(error) => match self.objects().exists(name)? {
                true => Err(error),
                false => Ok(false),
            },
        }
    }

    fn read_part<T: for<'de> Deserialize<'de>>(&self, name: &ObjectName) -> Result<Option<T>, Error> {
        let mut bytes = Vec::new();
        let hinted = |error: Error| if error.kind == Kind::Damaged { error.hint(HINT) } else { error };
        if self.opener().get_at_most(name, MAX_TOMBSTONE_BYTES, &mut bytes).map_err(hinted)?.is_none() {
            return Ok(None);
        }
        let damaged = |e| Error::new(Kind::Damaged, format!("{name} in {} is damaged: {e}", self.location())).hint(HINT);
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }
}

fn part(cluster: &ClusterName, system_id: SystemId, id: TombstoneId, part: TombstonePart) -> ObjectName {
    ObjectName::Tombstone { cluster: cluster.clone(), system_id, id, part }
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|e| Error::new(Kind::Bug, format!("encode a part of a tombstone: {e}")))
}

#[cfg(test)]
mod tests;
