//! The index of backups: what is known of many backups without their files, in few objects, so that listing a thousand
//! of them is not a thousand reads.
//!
//! Derived data, like the nodes of the catalog: which backups there are is said by the names of manifests alone, and of
//! each backup that no index has, or that cannot be read there, the manifest itself is asked. A manifest is written
//! once, so an index is right for ever, and may be too old only in that it lacks backups.
//!
//! A part of the index covers the backups from one id to another. Whoever takes a backup writes a part when
//! [`BACKUPS_PER_INDEX`] are in none: with these, and with all of the newest part before if that has no more, and so
//! on. So there are few parts at any time, and each backup is written again only as often as their number doubles.
//! Parts that others cover, or in which no backup is left, are removed by `expire`; nobody needs them.
//!
//! What is known of a backup through the index says nothing about its manifest: whoever relies on one reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::manifests::Listed;
use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::format::manifest::BackupSummary;
use crate::limits::{BACKUPS_PER_INDEX, CATALOG_READERS, MAX_BACKUP_INDEX_BYTES, MAX_INDEXED_BACKUPS};
use crate::repo::cluster::{ClusterName, SystemId};
use crate::repo::content::Content;
use crate::repo::object_name::ObjectName;
use crate::repo::prefix::Prefix;
use crate::repo::repository::Repository;
use crate::store::Created;
use crate::threads::at_once;

/// The backups that a part of the index covers, from the first id to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    first: BackupId,
    last: BackupId,
}

impl Part {
    fn covers(self, id: BackupId) -> bool {
        self.first <= id && id <= self.last
    }

    fn has_any_of(self, ids: &BTreeSet<BackupId>) -> bool {
        ids.range(self.first..=self.last).next().is_some()
    }

    fn name(self, cluster: &ClusterName, system_id: SystemId) -> ObjectName {
        ObjectName::BackupIndex { cluster: cluster.clone(), system_id, first: self.first, last: self.last }
    }
}

/// What is known of backups, and through which parts of the index.
#[derive(Default)]
struct Known {
    summaries: BTreeMap<BackupId, BackupSummary>,
    /// The newest first; none covers what another one does.
    parts: Vec<Part>,
}

/// A backup that is there.
pub struct KnownBackup {
    /// Its id.
    pub id: BackupId,
    /// What is known of it, unless its manifest cannot be read.
    pub summary: Result<BackupSummary, Error>,
    /// Whether its manifest was read: otherwise the index says it.
    pub is_read: bool,
}

impl Repository {
    /// What is known of all backups of a cluster, oldest first: of most by the index, of the others each with one small
    /// read. A manifest that cannot be read is an error in its place.
    ///
    /// # Errors
    /// As the store's, when the backups cannot be listed.
    pub fn known_backups(&self, cluster: &ClusterName, system_id: SystemId) -> Result<Vec<KnownBackup>, Error> {
        let ids = self.manifest_names(cluster, system_id)?;
        let mut known = self.backup_index(cluster, system_id, &ids)?;
        let unknown: Vec<BackupId> = ids.iter().copied().filter(|id| !known.summaries.contains_key(id)).collect();
        let mut read: BTreeMap<BackupId, Result<BackupSummary, Error>> =
            self.summaries(cluster, system_id, &unknown).into_iter().collect();
        let all = ids.into_iter().filter_map(|id| match known.summaries.remove(&id) {
            Some(summary) => Some(KnownBackup { id, summary: Ok(summary), is_read: false }),
            // Otherwise it expired since it was listed, or was given up.
            None => read.remove(&id).map(|summary| KnownBackup { id, summary, is_read: true }),
        });
        Ok(all.collect())
    }

    /// Writes a part of the index if there are enough backups in none. Says whether it did.
    ///
    /// # Errors
    /// As the store's. Nothing depends on a part that is not there.
    pub fn index_backups(&self, cluster: &ClusterName, system_id: SystemId) -> Result<bool, Error> {
        let ids = self.manifest_names(cluster, system_id)?;
        let known = self.backup_index(cluster, system_id, &ids)?;
        let unknown: Vec<BackupId> = ids.iter().copied().filter(|id| !known.summaries.contains_key(id)).collect();
        if unknown.len() < BACKUPS_PER_INDEX {
            return Ok(false);
        }
        let read = self.summaries(cluster, system_id, &unknown).into_iter();
        let new = read.filter_map(|(id, summary)| Some((id, summary.ok()?))).collect();
        let Some(merged) = merged(new, &known) else { return Ok(false) };
        let Some((part, content)) = encoded(&merged)? else { return Ok(false) };
        // Where another one has this name, it covers the same backups.
        let created = self.sealer().create(&part.name(cluster, system_id), &Content::of_bytes(&content))?;
        Ok(created == Created::New)
    }

    /// Parts of the index that nobody needs: others cover what they do, or no backup in them is left. `ids` are all
    /// backups.
    ///
    /// # Errors
    /// As the store's.
    pub fn unneeded_indexes(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        ids: &BTreeSet<BackupId>,
    ) -> Result<Vec<ObjectName>, Error> {
        let parts = self.index_parts(cluster, system_id)?;
        let needed = cover(parts.clone(), ids);
        Ok(parts.into_iter().filter(|part| !needed.contains(part)).map(|part| part.name(cluster, system_id)).collect())
    }

    /// The ids under which a manifest is stored, or a void: that shows where it is read. What an index knows is none.
    fn manifest_names(&self, cluster: &ClusterName, system_id: SystemId) -> Result<BTreeSet<BackupId>, Error> {
        let mut ids = BTreeSet::new();
        self.visit_manifest_names(cluster, system_id, &mut |id, _| {
            ids.insert(id);
        })?;
        Ok(ids)
    }

    /// What is known of these backups, each by its manifest; nothing of one that expired meanwhile, or was given up.
    fn summaries(&self, cluster: &ClusterName, system_id: SystemId, ids: &[BackupId]) -> Vec<Listed> {
        let mut found = Vec::with_capacity(ids.len());
        for some in ids.chunks(CATALOG_READERS) {
            let read = at_once(some, CATALOG_READERS, |id| self.backup_summary(cluster, system_id, *id));
            found.extend(some.iter().zip(read).filter_map(|(id, summary)| Some((*id, summary.transpose()?))));
        }
        found
    }

    fn index_parts(&self, cluster: &ClusterName, system_id: SystemId) -> Result<Vec<Part>, Error> {
        let mut parts = Vec::new();
        self.objects().list(Prefix::BackupIndex(cluster, system_id), "", &mut |object| {
            if let ObjectName::BackupIndex { first, last, .. } = object.name {
                parts.push(Part { first, last });
            }
            ControlFlow::Continue(())
        })?;
        Ok(parts)
    }

    /// What the index knows of these backups. With few of them it is not asked.
    fn backup_index(&self, cluster: &ClusterName, system_id: SystemId, ids: &BTreeSet<BackupId>) -> Result<Known, Error> {
        if ids.len() < BACKUPS_PER_INDEX {
            return Ok(Known::default());
        }
        let mut known = Known { parts: cover(self.index_parts(cluster, system_id)?, ids), ..Known::default() };
        let mut unread = Vec::new();
        for some in known.parts.chunks(CATALOG_READERS) {
            let read = at_once(some, CATALOG_READERS, |part| self.read_index_part(cluster, system_id, *part));
            for (part, read) in some.iter().zip(read) {
                match read {
                    Ok(summaries) => known.summaries.extend(summaries.into_iter().filter(|(id, _)| ids.contains(id))),
                    // The manifests say the same.
                    Err(error) if matches!(error.kind, Kind::Damaged | Kind::Denied) => {
                        tracing::warn!("{error}; the manifests are read instead");
                        unread.push(*part);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        known.parts.retain(|part| !unread.contains(part));
        Ok(known)
    }

    /// The backups in a part; none of one that was removed meanwhile.
    fn read_index_part(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        part: Part,
    ) -> Result<Vec<(BackupId, BackupSummary)>, Error> {
        let name = part.name(cluster, system_id);
        let mut bytes = Vec::new();
        if self.opener().get_at_most(&name, MAX_BACKUP_INDEX_BYTES as u64, &mut bytes)?.is_none() {
            return Ok(Vec::new());
        }
        let damaged = || Error::new(Kind::Damaged, format!("{name} in {} makes no sense", self.location()));
        let summaries: Vec<BackupSummary> = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
        let is_sane =
            |summary: &BackupSummary| part.covers(summary.id) && summary.system_id == system_id.to_string() && summary.is_sane();
        if summaries.len() > MAX_INDEXED_BACKUPS || !summaries.iter().all(is_sane) {
            return Err(damaged());
        }
        Ok(summaries.into_iter().map(|summary| (summary.id, summary)).collect())
    }
}

/// Why this is not the content of a part of the index, or says of one of these backups something else than its
/// manifest.
pub fn index_contradicts<'b>(content: &[u8], backups: impl Iterator<Item = &'b BackupSummary>) -> Option<String> {
    let Ok(said) = serde_json::from_slice::<Vec<BackupSummary>>(content) else {
        return Some("it is no part of the index of backups".to_owned());
    };
    let said: BTreeMap<BackupId, BackupSummary> = said.into_iter().map(|summary| (summary.id, summary)).collect();
    let differs = |backup: &&BackupSummary| said.get(&backup.id).is_some_and(|other| other != *backup);
    backups.into_iter().find(differs).map(|backup| format!("it does not say of backup {} what its manifest says", backup.id))
}

/// The parts that are to be read for these backups: the newest first, each before all that was covered already.
fn cover(mut parts: Vec<Part>, ids: &BTreeSet<BackupId>) -> Vec<Part> {
    parts.sort_unstable_by_key(|part| (std::cmp::Reverse(part.last), part.first));
    let mut cover: Vec<Part> = Vec::new();
    for part in parts {
        if cover.last().is_none_or(|newer| part.last < newer.first) && part.has_any_of(ids) {
            cover.push(part);
        }
    }
    cover
}

/// The content of a new part: what is new, and earlier parts as long as they are no larger, or reach into it. `None`
/// when too little is new.
fn merged(new: BTreeMap<BackupId, BackupSummary>, known: &Known) -> Option<BTreeMap<BackupId, BackupSummary>> {
    if new.len() < BACKUPS_PER_INDEX {
        return None;
    }
    let mut merged = new;
    for part in &known.parts {
        let earlier: Vec<_> = known.summaries.range(part.first..=part.last).collect();
        let reaches_in = merged.first_key_value().is_some_and(|(first, _)| *first <= part.last);
        if earlier.len() > merged.len() && !reaches_in {
            break;
        }
        merged.extend(earlier.into_iter().map(|(id, summary)| (*id, summary.clone())));
    }
    Some(merged)
}

/// A part as it is stored: the newest of these backups, as many as one may have.
fn encoded(backups: &BTreeMap<BackupId, BackupSummary>) -> Result<Option<(Part, Vec<u8>)>, Error> {
    let skipped = backups.len().saturating_sub(MAX_INDEXED_BACKUPS);
    let some: Vec<&BackupSummary> = backups.values().skip(skipped).collect();
    let (Some(first), Some(last)) = (some.first(), some.last()) else { return Ok(None) };
    let part = Part { first: first.id, last: last.id };
    let content = serde_json::to_vec(&some).map_err(|e| Error::new(Kind::Bug, format!("encode the index of backups: {e}")))?;
    Ok(Some((part, content)).filter(|(_, content)| content.len() <= MAX_BACKUP_INDEX_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::manifest::tests::made_up;

    fn id(number: u32) -> BackupId {
        BackupId::new(1_790_000_000 + i64::from(number), 0).unwrap()
    }

    fn part(first: u32, last: u32) -> Part {
        Part { first: id(first), last: id(last) }
    }

    fn ids(numbers: impl Iterator<Item = u32>) -> BTreeSet<BackupId> {
        numbers.map(id).collect()
    }

    #[test]
    fn parts_that_others_cover_or_that_have_no_backup_left_are_not_read() {
        let all = vec![part(1, 16), part(1, 32), part(33, 48), part(49, 64), part(33, 64), part(65, 80)];
        let everything = cover(all.clone(), &ids(1..=80));
        assert_eq!(everything, [part(65, 80), part(33, 64), part(1, 32)]);
        assert_eq!(cover(all.clone(), &ids(30..=33)), [part(33, 64), part(1, 32)]);
        // One that reaches into a newer one hides what is before it, and nothing more: those are read one by one.
        assert_eq!(cover(vec![part(1, 20), part(5, 30)], &ids(1..=30)), [part(5, 30)]);
        assert!(cover(all, &ids(90..=99)).is_empty());
    }

    /// Backups that come one by one, some of them late, some of which go: every one is known, and few times written.
    #[test]
    fn an_index_knows_all_but_the_newest_and_is_written_seldom() {
        let mut parts: Vec<Part> = Vec::new();
        let mut stored: Vec<BTreeMap<BackupId, BackupSummary>> = Vec::new();
        let (mut there, mut written) = (BTreeSet::new(), 0);
        for number in 0..1000_u32 {
            // Every seventh one takes longer than the one after it.
            let number = match number % 7 {
                3 => number + 1,
                4 => number - 1,
                _ => number,
            };
            there.insert(id(number));
            if number >= 700 {
                there.remove(&id(number - 700));
            }
            let cover = cover(parts.clone(), &there);
            let mut known = Known::default();
            for part in &cover {
                let summaries = &stored[parts.iter().rposition(|of| of == part).unwrap()];
                known.summaries.extend(summaries.iter().filter(|(id, _)| there.contains(*id)).map(|(id, s)| (*id, s.clone())));
            }
            known.parts = cover;
            let unknown: BTreeMap<_, _> =
                there.iter().filter(|id| !known.summaries.contains_key(id)).map(|id| (*id, made_up(*id))).collect();
            assert!(unknown.len() <= BACKUPS_PER_INDEX, "{number}: {}", unknown.len());
            assert!(known.parts.len() <= 8, "{number}: {:?}", known.parts);
            if let Some(merged) = merged(unknown, &known) {
                let (part, _) = encoded(&merged).unwrap().unwrap();
                written += merged.len();
                parts.push(part);
                stored.push(merged);
            }
        }
        assert!(written < 8 * 1000, "{written}");
    }

    #[test]
    fn a_part_has_no_more_backups_than_a_reader_takes() {
        let all: BTreeMap<_, _> = (0..MAX_INDEXED_BACKUPS as u32 + 10).map(|number| (id(number), made_up(id(number)))).collect();
        let (of, content) = encoded(&all).unwrap().unwrap();
        assert_eq!(of, part(10, MAX_INDEXED_BACKUPS as u32 + 9));
        assert!(content.len() <= MAX_BACKUP_INDEX_BYTES, "{}", content.len());
        assert!(encoded(&BTreeMap::new()).unwrap().is_none());
    }
}
