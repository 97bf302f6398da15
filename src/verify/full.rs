//! The full look: every byte of every object, or of those that are selected.
//!
//! Manifests come first, since they say what packs must hold; then packs, in rounds, as far as there is room for what
//! is referred to; then everything else in the order of names, so that segments come in the order of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use super::continuity::Continuity;
use super::costs::Harm;
use super::fault::{Fault, is_damage};
use super::findings::{Checked, Findings, Problem, Subject};
use super::heads::damaged_manifest;
use super::known::Known;
use super::meter::Meter;
use super::nodes::Nodes;
use super::read::{BadRecords, Done, Job, Outcome, ReadWorker};
use super::references::{References, Referred, walk};
use super::request::{Hooks, Keep, Mode, Progress, VerifyRequest};
use crate::error::{Error, Kind};
use crate::format::extent::{BackupId, PackId};
use crate::limits::{
    MAX_HARMED_FILES_NAMED, MAX_REFERENCES_KEPT, MAX_UNREADABLE_IN_A_ROW, VERIFY_JOBS_AHEAD, VERIFY_LOOK_EVERY, VERIFY_READ_BYTES,
};
use crate::pg::scan::Summary;
use crate::pg::{SegmentName, Timeline, WalFileName};
use crate::repo::{ListedObject, ObjectName, ObjectSet, Prefix, StoredName};
use crate::threads::{Order, Stop, in_order};

/// A full look at one system identifier.
pub(super) struct Full<'f> {
    known: &'f Known<'f>,
    request: &'f VerifyRequest<'f>,
    hooks: &'f Hooks<'f>,
    keep: Option<Keep<'f>>,
    kept: Instant,
    meter: &'f Meter,
    /// What was read before this look.
    bytes_before: u64,
    total_bytes: Option<u64>,
    faults: Vec<Fault>,
    checked: ObjectSet,
    objects: u64,
    /// Objects in a row that could not be read.
    unreadable: u64,
    /// Packs with records that cannot be used.
    bad: BTreeMap<PackId, BadRecords>,
}

/// What is held against segments that come in the order of their names.
struct Log {
    continuity: Continuity,
    nodes: Nodes,
}

impl Log {
    fn of(known: &Known<'_>) -> Self {
        Self { continuity: Continuity::of(known), nodes: Nodes::default() }
    }
}

/// What was found, and what was looked at.
pub(super) type Looked = (Vec<Fault>, Checked);

impl<'f> Full<'f> {
    /// Of what is known.
    pub(super) fn new(
        known: &'f Known<'f>,
        request: &'f VerifyRequest<'f>,
        hooks: &'f Hooks<'f>,
        keep: Option<Keep<'f>>,
        meter: &'f Meter,
    ) -> Self {
        let total_bytes = (request.mode == Mode::Full).then_some(known.inventory.bytes);
        Self {
            known,
            request,
            hooks,
            keep,
            kept: Instant::now(),
            meter,
            bytes_before: meter.bytes(),
            total_bytes,
            faults: Vec::new(),
            checked: ObjectSet::new(known.facts.wal_segment_size),
            objects: 0,
            unreadable: 0,
            bad: BTreeMap::new(),
        }
    }

    /// Looks.
    ///
    /// # Errors
    /// As the store's, and `go_on`'s. What was found by then is there all the same.
    pub(super) fn look(&mut self) -> Result<(), Error> {
        self.manifests()?;
        let bad_tables = self.packs()?;
        self.others()?;
        self.harmed_backups(bad_tables)
    }

    /// What was found so far, and looked at.
    pub(super) fn finish(self) -> Looked {
        let bytes = self.meter.bytes().saturating_sub(self.bytes_before);
        (self.faults, Checked { system_id: self.known.facts.system_id, objects: self.checked, bytes })
    }

    /// Hands out what was read so far, where it is time to.
    fn keep(&mut self) -> Result<(), Error> {
        let Some(Keep { every, keep }) = self.keep else { return Ok(()) };
        if self.kept.elapsed() < every {
            return Ok(());
        }
        let system_id = self.known.facts.system_id;
        let bytes = self.meter.bytes().saturating_sub(self.bytes_before);
        let mut found = Findings::default();
        self.faults.iter().for_each(|fault| found.add(fault.clone().into_finding(Some(system_id))));
        keep(&Checked { system_id, objects: self.checked.clone(), bytes }, &found)?;
        self.kept = Instant::now();
        Ok(())
    }

    /// What is selected of this system identifier; `None` is all.
    fn selected(&self) -> Option<Option<&'f ObjectSet>> {
        match self.request.mode {
            Mode::Selected(sets) => Some(sets.get(&self.known.facts.system_id)),
            Mode::Quick | Mode::Full => None,
        }
    }

    fn wants_pack(&self, pack: PackId) -> bool {
        self.selected().is_none_or(|set| set.is_some_and(|set| set.has_pack(pack)))
    }

    fn wants_manifest(&self, backup: BackupId) -> bool {
        self.selected().is_none_or(|set| set.is_some_and(|set| set.has_manifest(backup)))
    }

    fn go_on(&self) -> Result<(), Error> {
        go_on(self.hooks, self.meter, self.total_bytes, self.objects)
    }

    /// Reads manifests whole. Those that are damaged at their heads are known already.
    fn manifests(&mut self) -> Result<(), Error> {
        let (cluster, system_id) = (self.known.cluster, self.known.facts.system_id);
        let ids: Vec<BackupId> = self.known.inventory.manifests.iter().copied().filter(|id| self.wants_manifest(*id)).collect();
        for backup in ids {
            self.go_on()?;
            self.objects += 1;
            if self.known.heads.unreadable.contains(&backup) {
                self.checked.insert_manifest(backup);
                continue;
            }
            let (meter, stop) = (self.meter, Stop::default());
            let mut asked = meter.bytes();
            let read = self.known.repository.read_manifest_parts(
                cluster,
                system_id,
                backup,
                &|bytes| meter.take(bytes, &stop),
                &mut |_, _| {
                    if meter.bytes() - asked >= VERIFY_READ_BYTES as u64 {
                        asked = meter.bytes();
                        self.go_on()?;
                    }
                    Ok(ControlFlow::Continue(()))
                },
            );
            match read {
                // A void, or gone.
                Ok(None) => continue,
                Ok(Some(_)) => {}
                Err(error) if is_damage(&error) => {
                    let name = ObjectName::Manifest { cluster: cluster.clone(), system_id, backup };
                    self.faults.push(damaged_manifest(self.known.repository, name, error)?);
                }
                Err(error) => return Err(error),
            }
            self.checked.insert_manifest(backup);
        }
        Ok(())
    }

    /// Reads packs, round by round. Answers tables that no backup can use.
    fn packs(&mut self) -> Result<BTreeMap<BackupId, String>, Error> {
        let mut from = None;
        let mut bad_tables = BTreeMap::new();
        loop {
            let known = self.known;
            let wanted: Vec<PackId> = known
                .inventory
                .packs
                .iter()
                .flat_map(|(backup, packs)| packs.iter().map(|(number, _)| PackId { backup: *backup, number: *number }))
                .filter(|pack| from.is_none_or(|from| from <= *pack) && self.wants_pack(*pack))
                .collect();
            if wanted.is_empty() {
                return Ok(bad_tables);
            }
            let mut references =
                References::of(known, from, &|pack| self.wants_pack(pack), MAX_REFERENCES_KEPT, (self.meter, &|| self.go_on()))?;
            bad_tables.append(&mut references.bad_tables);
            let next = references.next_round();
            let keys = std::mem::take(&mut references.keys);
            let jobs = wanted.into_iter().filter(|pack| next.is_none_or(|next| *pack < next));
            self.read(
                &keys,
                |send| {
                    for pack in jobs {
                        send(Job::Pack(pack, references.take(pack)))?;
                    }
                    Ok(())
                },
                &mut Log::of(known),
            )?;
            from = next;
            if from.is_none() {
                return Ok(bad_tables);
            }
        }
    }

    /// Reads everything else.
    fn others(&mut self) -> Result<(), Error> {
        let known = self.known;
        let selected = self.selected();
        let wants = |object: &ListedObject| match (&object.name, selected) {
            (ObjectName::Pack { .. } | ObjectName::Manifest { .. }, _) => false,
            (name, None) => name.system_id() == Some(known.facts.system_id),
            (ObjectName::Wal { file, .. }, Some(set)) => set.is_some_and(|set| set.has_wal(file)),
            // What is small is looked at each time.
            (ObjectName::Node { .. } | ObjectName::Changes { .. }, Some(_)) => false,
            (name, Some(_)) => name.system_id() == Some(known.facts.system_id),
        };
        let prefix = Prefix::System(known.cluster, known.facts.system_id);
        let mut log = Log::of(known);
        self.read(
            &[],
            |send| {
                let mut outcome = Ok(());
                known.repository.objects().list(prefix, "", &mut |object| {
                    if wants(&object) {
                        outcome = send(Job::Object(object));
                    }
                    if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                })?;
                outcome
            },
            &mut log,
        )?;
        self.faults.extend(log.nodes.finish(known)?);
        Ok(())
    }

    /// Has threads do jobs, and takes what comes of them in order.
    fn read(
        &mut self,
        keys: &[[u8; 32]],
        feed: impl FnOnce(&mut dyn FnMut(Job) -> Result<(), Error>) -> Result<(), Error> + Send,
        log: &mut Log,
    ) -> Result<(), Error> {
        let stop = Stop::default();
        let (known, meter, threads) = (self.known, self.meter, self.request.threads());
        let workers = (0..threads).map(|_| ReadWorker { known, meter, stop: &stop, keys }).collect();
        let order = Order { window: VERIFY_JOBS_AHEAD.max(2 * threads as u64), tick: VERIFY_LOOK_EVERY };
        let (hooks, total_bytes, objects) = (self.hooks, self.total_bytes, std::cell::Cell::new(self.objects));
        let go_on = || go_on(hooks, meter, total_bytes, objects.get());
        let take = |done: Done| {
            objects.set(objects.get() + 1);
            self.take(done, log)
        };
        in_order(workers, order, &stop, |jobs| feed(&mut |job| Ok(jobs.send(job)?)), take, &go_on)
    }

    fn take(&mut self, done: Done, log: &mut Log) -> Result<(), Error> {
        let Done { name, outcome, is_repaired, summary, bad } = done;
        self.objects += 1;
        if let Outcome::Unreadable(_) = &outcome {
            self.unreadable += 1;
        } else {
            self.unreadable = 0;
        }
        match &name {
            ObjectName::Wal { file, .. } => self.checked.insert_wal(file),
            ObjectName::Pack { pack, .. } => self.checked.insert_pack(*pack),
            _ => {}
        }
        if let ObjectName::Wal { file: StoredName { file: WalFileName::Segment(segment), .. }, .. } = &name {
            self.follow(*segment, summary, log)?;
        }
        if let (ObjectName::Pack { pack, .. }, Some(bad), false) = (&name, bad, is_repaired) {
            self.bad.insert(*pack, bad);
        }
        let (problem, detail) = match outcome {
            // What expires meanwhile; what is needed is missed by the quick look of the next run.
            Outcome::Good | Outcome::Gone => return self.keep(),
            Outcome::Wrong(why) => (Problem::Damaged, why),
            Outcome::Contradicts(why) => (Problem::Contradiction, why),
            Outcome::Unreadable(error) if self.unreadable >= MAX_UNREADABLE_IN_A_ROW => return Err(error),
            Outcome::Unreadable(error) => (Problem::Unreadable, error.what),
        };
        let (harm, matters) = self.known.consequences(&name);
        let mut fault = Fault::new(Subject::Object(name), problem, detail, matters && !is_repaired);
        fault.is_repaired = is_repaired;
        if !is_repaired {
            fault = fault.harming(harm);
        }
        self.faults.push(fault);
        self.keep()
    }

    /// Holds a segment against the one before it, and the catalog against it.
    fn follow(&mut self, name: SegmentName, summary: Option<Arc<Summary>>, log: &mut Log) -> Result<(), Error> {
        self.faults.extend(log.nodes.take(self.known, name, summary.as_ref())?);
        let continuity = &mut log.continuity;
        let size = self.known.facts.wal_segment_size;
        if self.selected().is_some()
            && let Some(before) = name.number(size).and_then(|number| continuity.needs(name.timeline, number))
            && let Some(summary) = self.stored_summary(before)?
        {
            continuity.learn(before, summary);
        }
        self.faults.extend(continuity.take(self.known, name, summary));
        Ok(())
    }

    /// What is stored of a segment that is not read now; nothing of one that is not there, or damaged.
    fn stored_summary(&self, (timeline, number): (Timeline, u64)) -> Result<Option<Summary>, Error> {
        let known = self.known;
        let Some(name) = SegmentName::from_number(timeline, number, known.facts.wal_segment_size) else { return Ok(None) };
        match known.repository.wal_metadata(known.cluster, known.facts.system_id, &WalFileName::Segment(name)) {
            Ok(metadata) => Ok(metadata.and_then(|m| m.wal_summary).and_then(|bytes| Summary::decode(&bytes).ok())),
            Err(error) if matches!(error.kind, Kind::Damaged | Kind::Denied) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Finds out which backups refer to what is bad, and says so with the faults of the packs.
    fn harmed_backups(&mut self, bad_tables: BTreeMap<BackupId, String>) -> Result<(), Error> {
        let mut users: BTreeSet<BackupId> = bad_tables.keys().copied().collect();
        self.bad.keys().for_each(|pack| users.extend(self.known.heads.users.users(*pack)));
        let mut harmed: BTreeMap<PackId, (BTreeSet<BackupId>, Vec<String>)> = BTreeMap::new();
        for id in users {
            let mut is_harmed = false;
            let mut take = |path: &[u8], referred: Referred<'_>, _: u16| {
                let (pack, offset) = match referred {
                    Referred::Record(pack, reference) => (pack, reference.offset),
                    Referred::BadTable(place, _) => (place.pack, place.offset),
                };
                let is_bad = match self.bad.get(&pack) {
                    None => false,
                    Some(BadRecords::All) => true,
                    Some(BadRecords::At(offsets)) => offsets.binary_search(&offset).is_ok(),
                };
                if is_bad {
                    is_harmed = true;
                    let (backups, files) = harmed.entry(pack).or_default();
                    backups.insert(id);
                    let path = String::from_utf8_lossy(path);
                    if files.len() < MAX_HARMED_FILES_NAMED && !files.iter().any(|known| *known == path) {
                        files.push(path.into_owned());
                    }
                }
                Ok(())
            };
            match walk(self.known, id, &mut Vec::new(), None, (self.meter, &|| self.go_on()), &mut take) {
                Err(error) if !is_damage(&error) => return Err(error),
                _ => {}
            }
            if let (false, Some(why)) = (is_harmed, bad_tables.get(&id)) {
                let (cluster, system_id) = (self.known.cluster.clone(), self.known.facts.system_id);
                let subject = Subject::Object(ObjectName::Manifest { cluster, system_id, backup: id });
                let fault = Fault::new(subject, Problem::Contradiction, why.clone(), true);
                self.faults.push(fault.harming(Harm::of_backups(vec![id])));
            }
        }
        for fault in &mut self.faults {
            if let Subject::Object(ObjectName::Pack { pack, .. }) = &fault.subject
                && let Some((backups, files)) = harmed.remove(pack)
            {
                fault.harm.backups = backups.into_iter().collect();
                fault.files = files;
            }
        }
        Ok(())
    }
}

/// Whether to go on; and says how far the look is. What is read besides is more to read than was listed.
fn go_on(hooks: &Hooks<'_>, meter: &Meter, total_bytes: Option<u64>, objects: u64) -> Result<(), Error> {
    (hooks.go_on)()?;
    let total_bytes = total_bytes.map(|total| total.saturating_add(meter.again()));
    (hooks.progress)(Progress::Reading { done_bytes: meter.bytes(), total_bytes, objects });
    Ok(())
}
