//! The backup that a new one is compared with. Its manifest is needed in step with the list of files, so it is copied
//! first.

use crate::error::{Error, Kind};
use crate::format::extent::{BackupId, PackId};
use crate::format::manifest::{Attachment, BackupFacts, BackupSummary, Content, FileEntry, Item, ManifestHead};
use crate::limits::MAX_PARENTS_TRIED;
use crate::repo::backups::{BackupReferences, ListPlaces, ManifestPart, PackUsers, ScratchItems, ScratchManifest};
use crate::repo::{ClusterName, Repository, SystemId, Tombstoned};
use std::collections::HashSet;

/// What is known of the parent besides its files.
pub(crate) struct ParentHead {
    /// What is known of it without its manifest.
    pub summary: BackupSummary,
    /// Key of the hashes of its extents, 64 hexadecimal digits.
    hash_key: String,
    /// The packs that it refers to.
    pub packs: PackUsers,
    /// Packs that are hardly used any more, or gone, or that a tombstone names: what is in them is stored anew.
    pub packs_not_reused: HashSet<PackId>,
    /// Its lists of items.
    pub lists: ListPlaces,
    /// Its attachments.
    pub attachments: Vec<Attachment>,
    /// Up to where on the circle the pages that nothing touched were verified: [`Due`](super::untouched::Due).
    pub verified_up_to: u32,
}

impl ParentHead {
    fn of(summary: BackupSummary, head: ManifestHead, lists: ListPlaces) -> Self {
        let references = BackupReferences::of(&summary, &head);
        let mut packs = PackUsers::default();
        packs.add(&references);
        let packs_not_reused = references.mostly_dead().collect();
        let BackupFacts { hash_key, attachments, verified_up_to, .. } = head.facts;
        Self { summary, hash_key, packs, packs_not_reused, lists, attachments, verified_up_to }
    }

    /// Key of the hashes of its extents; `None` where it makes no sense.
    pub(crate) fn decoded_hash_key(&self) -> Option<[u8; 32]> {
        hex::decode(&self.hash_key).ok()?.try_into().ok()
    }
}

/// The backup that a new one is compared with.
pub(crate) struct Parent {
    /// What is known of it besides its files.
    pub head: ParentHead,
    /// A copy of its manifest, which has its files.
    pub manifest: ScratchManifest,
}

/// The files of the parent, in the order of their paths.
pub(crate) struct ParentFiles {
    items: ScratchItems,
    /// Read already, and after what was asked for.
    next: Option<FileEntry>,
}

/// Reads the newest backup whose manifest can be read; `None` when there is none, or the newest [`MAX_PARENTS_TRIED`]
/// are damaged, or nobody knows what a tombstone names. Of packs that one names nothing is referred to.
///
/// # Errors
/// As the store's; [`Kind::Config`] when the temporary file cannot be written. Backups that are damaged are passed over
/// with a warning.
pub(crate) fn read_newest(
    repository: &Repository,
    cluster: &ClusterName,
    system_id: SystemId,
    tombstoned: &Tombstoned,
    warnings: &mut Vec<String>,
) -> Result<Option<Parent>, Error> {
    if let Some((id, error)) = tombstoned.unreadable.first() {
        let why = format!("tombstone {id} cannot be read, and nobody knows what it names: {}", error.what);
        warnings
            .push(format!("nothing of earlier backups is referred to, all is stored anew: {why}{}", error.hint_in_brackets()));
        return Ok(None);
    }
    // Anybody with access to the store can add objects that are no manifests: after this many there is no parent.
    for id in repository.backup_ids(cluster, system_id)?.into_iter().rev().take(MAX_PARENTS_TRIED) {
        match read(repository, cluster, system_id, id) {
            Ok(Some(mut parent)) => {
                exclude_missing(repository, cluster, system_id, &mut parent.head, warnings)?;
                let named = parent.head.packs.packs().map(|(pack, _)| pack).filter(|pack| tombstoned.names.has_pack(*pack));
                parent.head.packs_not_reused.extend(named);
                return Ok(Some(parent));
            }
            // It expired meanwhile.
            Ok(None) => {}
            Err(error) if matches!(error.kind, Kind::Damaged | Kind::Denied) => {
                warnings.push(format!("backup {id} could not be compared with: {}", error.what));
            }
            Err(error) => return Err(error.while_doing(format!("read the manifest of backup {id}"))),
        }
    }
    Ok(None)
}

/// A pack that is not there, or too short, must not be relied on once more.
fn exclude_missing(
    repository: &Repository,
    cluster: &ClusterName,
    system_id: SystemId,
    head: &mut ParentHead,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    let missing = repository.compare_packs(cluster, system_id, &head.packs, &mut |_, _| {})?;
    if let Some(first) = missing.first() {
        let count = missing.len();
        warnings.push(format!(
            "{count} packs of backup {} are gone or truncated (first: {first}): it cannot be restored; what they held is stored anew",
            head.summary.id
        ));
    }
    head.packs_not_reused.extend(missing);
    Ok(())
}

fn read(repository: &Repository, cluster: &ClusterName, system_id: SystemId, id: BackupId) -> Result<Option<Parent>, Error> {
    let mut lists = ListPlaces::default();
    let copied = ScratchManifest::copy_of(repository, cluster, system_id, id, &mut |part| {
        if let ManifestPart::List(place, content) = part {
            lists.add(*place, content);
        }
    })?;
    Ok(copied.map(|(copy, summary, head)| Parent { head: ParentHead::of(summary, head, lists), manifest: copy }))
}

/// A file of the parent.
pub(crate) struct ParentFile {
    /// Its length.
    pub size_bytes: u64,
    /// Its content.
    pub content: Content,
}

impl ParentFiles {
    /// From the first one on.
    pub(crate) fn of(manifest: &ScratchManifest) -> Self {
        Self { items: manifest.items(), next: None }
    }

    /// What the parent has of this file. Paths have to be asked for in ascending order.
    ///
    /// # Errors
    /// When the temporary file cannot be read.
    pub(crate) fn find(&mut self, path: &[u8]) -> Result<Option<ParentFile>, Error> {
        loop {
            let Some(next) = self.advance()? else { return Ok(None) };
            match next.path.as_slice().cmp(path) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => {
                    return Ok(Some(ParentFile { size_bytes: next.size_bytes, content: next.content }));
                }
                std::cmp::Ordering::Greater => {
                    self.next = Some(next);
                    return Ok(None);
                }
            }
        }
    }

    fn advance(&mut self) -> Result<Option<FileEntry>, Error> {
        if let Some(next) = self.next.take() {
            return Ok(Some(next));
        }
        for item in self.items.by_ref() {
            if let Item::File(entry) = item? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}
