//! What is stored of one system identifier of a cluster, as a plan looks at it: listings, and the heads of manifests.
//!
//! Lives here: collecting that with little memory, and whether each backup is good. May not live here: what is kept.
//!
//! Memory: WAL as runs of segments and a sum of sizes for every [`SUMMED_SEGMENTS`]; 24 bytes for each pack; of each
//! backup its summary and which packs it refers to ([`PackUsers`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::needed::left_before;
use crate::error::{Error, Kind};
use crate::format::extent::{BackupId, PackId};
use crate::format::manifest::{BackupSummary, ManifestHead};
use crate::limits::{CATALOG_READERS, LOOK_EVERY_OBJECTS, SUMMED_SEGMENTS};
use crate::pg::scan::PgTime;
use crate::pg::{Timeline, WalFileName, WalSegmentSize};
use crate::repo::backups::{BackupReferences, BackupWal, PackUsers};
use crate::repo::{
    BegunBackup, Catalog, ClusterName, Facts, ListedObject, LostManifest, ObjectName, ObjectSet, Pin, Prefix, Repository,
    StoredName,
};
use crate::report::expire::Amounts;
use crate::threads::at_once;

/// How a plan is interrupted, and how far it is.
#[derive(Clone, Copy)]
pub struct Hooks<'a> {
    /// Fails when the command has to end.
    pub go_on: &'a dyn Fn() -> Result<(), Error>,
    /// Is told how many objects were looked at so far.
    pub looked_at: &'a dyn Fn(u64),
}

/// What is stored of one system identifier.
pub(super) struct StoredSystem<'a> {
    pub(super) facts: Facts,
    /// Opened after the WAL was listed: it knows all timelines of the listing.
    pub(super) catalog: Catalog<'a>,
    pub(super) wal: StoredWal,
    /// By name.
    pub(super) packs: Vec<(PackId, u64)>,
    /// When the newest pack of each backup was stored.
    pub(super) newest_pack_unix_s: BTreeMap<BackupId, i64>,
    /// Whose names are taken, be it by a manifest or by a void.
    pub(super) taken: BTreeSet<BackupId>,
    /// Oldest first.
    pub(super) backups: Vec<StoredBackup>,
    pub(super) users: PackUsers,
    /// Backups whose manifests somebody deleted, and that nobody gave up.
    pub(super) lost: Vec<LostManifest>,
    /// The latest time that the store says.
    pub(super) newest_unix_s: Option<i64>,
}

/// A backup.
pub(super) struct StoredBackup {
    pub(super) id: BackupId,
    pub(super) manifest_bytes: u64,
    /// What its manifest says, or why it cannot be read.
    pub(super) summary: Result<BackupSummary, String>,
    /// When it began: what its manifest says, but no later than that was stored.
    pub(super) began: PgTime,
    /// Why it is not good, if it is not.
    pub(super) problem: Option<String>,
}

/// The WAL files but histories.
pub(super) struct StoredWal {
    pub(super) files: ObjectSet,
    /// Number and size of the segments in each block of [`SUMMED_SEGMENTS`].
    blocks: BTreeMap<(Timeline, u64), (u64, u64)>,
    /// Sizes of the others.
    others: BTreeMap<StoredName, u64>,
    /// When the newest file of each timeline was stored.
    pub(super) newest_unix_s: BTreeMap<Timeline, i64>,
    size: WalSegmentSize,
}

/// Visits the objects with a prefix, and counts them.
fn list(
    repository: &Repository,
    prefix: Prefix<'_>,
    hooks: Hooks<'_>,
    looked_at: &mut u64,
    newest_unix_s: &mut Option<i64>,
    visit: &mut dyn FnMut(&ListedObject),
) -> Result<(), Error> {
    let mut stopped = Ok(());
    repository.objects().list(prefix, "", &mut |object| {
        *looked_at += 1;
        if looked_at.is_multiple_of(LOOK_EVERY_OBJECTS) {
            (hooks.looked_at)(*looked_at);
            stopped = (hooks.go_on)();
            if stopped.is_err() {
                return ControlFlow::Break(());
            }
        }
        *newest_unix_s = (*newest_unix_s).max(object.modified_unix_s);
        visit(&object);
        ControlFlow::Continue(())
    })?;
    (hooks.looked_at)(*looked_at);
    stopped
}

impl<'a> StoredSystem<'a> {
    /// Looks. Manifests are listed first: whatever one of them needs was stored before it, and is in the later lists.
    /// What is in `gone` counts as if it was not there: another run may delete it at any time.
    ///
    /// # Errors
    /// As the store's and the catalog's. A manifest that is damaged is no error here.
    pub(super) fn look(
        repository: &'a Repository,
        cluster: &ClusterName,
        facts: Facts,
        gone: &ObjectSet,
        hooks: Hooks<'_>,
        looked_at: &mut u64,
    ) -> Result<Self, Error> {
        let (mut newest_unix_s, system_id) = (None, facts.system_id);
        let mut manifests: Vec<(BackupId, u64, Option<i64>)> = Vec::new();
        list(repository, Prefix::Manifests(cluster, system_id), hooks, looked_at, &mut newest_unix_s, &mut |object| {
            if let ObjectName::Manifest { backup, .. } = object.name {
                manifests.push((backup, object.size_bytes, object.modified_unix_s));
            }
        })?;
        manifests.sort_unstable();
        let taken: BTreeSet<BackupId> = manifests.iter().map(|(id, ..)| *id).collect();
        manifests.retain(|(id, ..)| !gone.has_manifest(*id));

        let (mut packs, mut newest_pack_unix_s) = (Vec::new(), BTreeMap::new());
        list(repository, Prefix::Packs(cluster, system_id), hooks, looked_at, &mut newest_unix_s, &mut |object| {
            let ObjectName::Pack { pack, .. } = object.name else { return };
            if gone.has_pack(pack) {
                return;
            }
            packs.push((pack, object.size_bytes));
            let stored = object.modified_unix_s.unwrap_or(pack.backup.started_unix_s);
            let newest: &mut i64 = newest_pack_unix_s.entry(pack.backup).or_insert(stored);
            *newest = (*newest).max(stored);
        })?;
        packs.sort_unstable();

        let mut wal = StoredWal::new(facts.wal_segment_size);
        list(repository, Prefix::Wal(cluster, system_id), hooks, looked_at, &mut newest_unix_s, &mut |object| {
            if !matches!(&object.name, ObjectName::Wal { file, .. } if gone.has_wal(file)) {
                wal.add(object);
            }
        })?;
        let catalog = repository.catalog(cluster, facts)?;

        let (mut backups, mut users) = (Vec::new(), PackUsers::default());
        for some in manifests.chunks(CATALOG_READERS) {
            (hooks.go_on)()?;
            let heads = at_once(some, CATALOG_READERS, |(id, ..)| read_head(repository, cluster, facts, *id));
            for ((id, manifest_bytes, stored_unix_s), read) in some.iter().zip(heads) {
                let stored_by = stored_unix_s.and_then(end_of_second);
                let known = StoredBackup {
                    id: *id,
                    manifest_bytes: *manifest_bytes,
                    summary: Err(String::new()),
                    began: stored_by.unwrap_or(PgTime(i64::MAX)),
                    problem: None,
                };
                match read {
                    // A void, or deleted since it was listed.
                    Ok(None) => {}
                    Ok(Some((summary, head))) => {
                        let problem = problem_of(&summary, &head, &wal.files, &packs, &catalog);
                        users.add(&BackupReferences::of(&summary, &head));
                        let said = PgTime::from_unix_us(summary.started_unix_us).unwrap_or(PgTime(i64::MAX));
                        backups.push(StoredBackup { began: known.began.min(said), summary: Ok(summary), problem, ..known });
                    }
                    Err(error) if error.kind == Kind::Damaged => {
                        backups.push(StoredBackup { problem: Some(error.what.clone()), summary: Err(error.what), ..known });
                    }
                    Err(error) => return Err(error),
                }
            }
            *looked_at += some.len() as u64;
            (hooks.looked_at)(*looked_at);
        }
        let mut without = repository.begun_backups(cluster, system_id)?;
        without.retain(|begun| !taken.contains(&begun.id));
        let lost = lost(repository, (cluster, facts), &without, &users)?;
        Ok(Self { facts, catalog, wal, packs, newest_pack_unix_s, taken, backups, users, lost, newest_unix_s })
    }

    /// How much is stored.
    pub(super) fn amounts(&self) -> Amounts {
        Amounts {
            manifests: self.backups.len() as u64,
            manifest_bytes: self.backups.iter().map(|backup| backup.manifest_bytes).sum(),
            packs: self.packs.len() as u64,
            pack_bytes: self.packs.iter().map(|(_, bytes)| bytes).sum(),
            wal_files: self.wal.files.count(),
            wal_bytes: self.wal.bytes(),
        }
    }
}

/// Those of backups that have begun, and have neither manifest nor void, whose manifests somebody deleted.
fn lost(
    repository: &Repository,
    (cluster, facts): (&ClusterName, Facts),
    without: &[BegunBackup],
    users: &PackUsers,
) -> Result<Vec<LostManifest>, Error> {
    if without.is_empty() {
        return Ok(Vec::new());
    }
    let ids = without.iter().map(|begun| begun.id).collect();
    let now_unix_s = jiff::Timestamp::now().as_second();
    let pins = repository.pins(cluster, facts.system_id)?;
    let keep = |pin: &&Pin| pin.keeps_at(now_unix_s) && pin.has_settled(now_unix_s);
    let pinned = pins.iter().filter(keep).map(|pin| pin.backup).collect();
    let mut lost = repository.lost_manifests((cluster, facts.system_id), &ids, users, &pinned, &|open| {
        let open: Vec<BegunBackup> = without.iter().copied().filter(|begun| open.contains(&begun.id)).collect();
        repository.manifests_in_evidence(cluster, facts.system_id, &open)
    })?;
    lost.retain(|lost| !lost.given_up);
    Ok(lost)
}

/// The last microsecond of a second since 1970.
fn end_of_second(unix_s: i64) -> Option<PgTime> {
    unix_s.checked_mul(1_000_000)?.checked_add(999_999).and_then(PgTime::from_unix_us)
}

fn read_head(
    repository: &Repository,
    cluster: &ClusterName,
    facts: Facts,
    id: BackupId,
) -> Result<Option<(BackupSummary, ManifestHead)>, Error> {
    repository.read_manifest_head(cluster, facts.system_id, id)
}

/// Why a backup cannot be restored, as far as listings tell.
fn problem_of(
    summary: &BackupSummary,
    head: &ManifestHead,
    wal: &ObjectSet,
    packs: &[(PackId, u64)],
    catalog: &Catalog<'_>,
) -> Option<String> {
    let stored = |pack: PackId| {
        let at = packs.binary_search_by_key(&pack, |(pack, _)| *pack).ok()?;
        packs.get(at).map(|(_, bytes)| *bytes)
    };
    let mut bad = head.packs.iter().filter(|used| stored(used.pack).is_none_or(|bytes| bytes < used.total_bytes));
    if let Some(used) = bad.next() {
        let what = if stored(used.pack).is_some() { "is too short" } else { "is missing" };
        let more = bad.count();
        let more = if more > 0 { format!(", and {more} more are missing or too short") } else { String::new() };
        return Some(format!("pack {} {what}{more}", used.pack));
    }
    let (size, own) = (catalog.facts().wal_segment_size, BackupWal::of(summary));
    let children: Vec<Timeline> = if summary.from_standby {
        left_before(catalog.timelines(), own.timeline, own.stop).map(|(child, _)| child).collect()
    } else {
        Vec::new()
    };
    let is_stored =
        |number: u64| wal.has_segment(own.timeline, number) || children.iter().any(|child| wal.has_segment(*child, number));
    let missing = own.segments(size).find(|number| !is_stored(*number))?;
    let name = crate::pg::SegmentName::from_number(own.timeline, missing, size);
    Some(format!("WAL that it needs is missing: {}", name.map_or_else(|| missing.to_string(), |name| name.to_string())))
}

impl StoredWal {
    fn new(size: WalSegmentSize) -> Self {
        Self {
            files: ObjectSet::new(size),
            blocks: BTreeMap::new(),
            others: BTreeMap::new(),
            newest_unix_s: BTreeMap::new(),
            size,
        }
    }

    fn add(&mut self, object: &ListedObject) {
        let ObjectName::Wal { file, .. } = &object.name else { return };
        let timeline = match file.file {
            WalFileName::History(_) => return,
            WalFileName::Segment(name) | WalFileName::Partial(name) | WalFileName::Backup(name, _) => name.timeline,
        };
        self.files.insert_wal(file);
        if let Some(stored) = object.modified_unix_s {
            let newest = self.newest_unix_s.entry(timeline).or_insert(stored);
            *newest = (*newest).max(stored);
        }
        match self.number_of(file) {
            Some(number) => {
                let (count, bytes) = self.blocks.entry((timeline, number / SUMMED_SEGMENTS)).or_default();
                (*count, *bytes) = (*count + 1, bytes.saturating_add(object.size_bytes));
            }
            None => drop(self.others.insert(*file, object.size_bytes)),
        }
    }

    fn number_of(&self, file: &StoredName) -> Option<u64> {
        match file.file {
            WalFileName::Segment(name) => name.number(self.size),
            _ => None,
        }
    }

    fn bytes(&self) -> u64 {
        self.blocks.values().map(|(_, bytes)| bytes).chain(self.others.values()).fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// The stored size of some of these files. What is a part of a block only is listed once more.
    ///
    /// # Errors
    /// As the store's.
    pub(super) fn bytes_of(
        &self,
        some: &ObjectSet,
        repository: &Repository,
        cluster: &ClusterName,
        facts: Facts,
    ) -> Result<u64, Error> {
        let mut bytes = some.wal_files().filter_map(|file| self.others.get(&file)).fold(0_u64, |sum, b| sum.saturating_add(*b));
        for (timeline, runs) in some.segments() {
            let mut parts: BTreeMap<u64, u64> = BTreeMap::new();
            for (first, last) in runs.iter() {
                for block in first / SUMMED_SEGMENTS..=last / SUMMED_SEGMENTS {
                    let begin = block.saturating_mul(SUMMED_SEGMENTS);
                    let (low, high) = (first.max(begin), last.min(begin.saturating_add(SUMMED_SEGMENTS - 1)));
                    *parts.entry(block).or_default() += high - low + 1;
                }
            }
            for (block, count) in parts {
                let (all, sum) = self.blocks.get(&(timeline, block)).copied().unwrap_or_default();
                if all == count {
                    bytes = bytes.saturating_add(sum);
                    continue;
                }
                let begin = block.saturating_mul(SUMMED_SEGMENTS);
                let range = (begin, begin.saturating_add(SUMMED_SEGMENTS - 1));
                repository.visit_segments(cluster, facts, timeline, range, &mut |number, stored| {
                    if runs.contains(number) {
                        bytes = bytes.saturating_add(stored);
                    }
                })?;
            }
        }
        Ok(bytes)
    }
}
