//! Manifests in a repository: which backups there are, what is known of each, reading and storing them.
//!
//! May not live here: what a data directory is, which extents are stored anew ([`backup`](crate::backup)).

use std::io::{self, Read, Write};
use std::ops::ControlFlow;

use crate::codec::Digest;
use crate::error::{Error, Kind};
use crate::format::envelope::Metadata;
use crate::format::extent::{BackupId, PackId, RecordLocation, TableError};
use crate::format::manifest::{BackupSummary, Item, ManifestHead, ManifestReader};
use crate::limits::{CATALOG_READERS, MAX_MANIFEST_EXPANSION, MAX_VOID_OBJECT_BYTES, SHORT_MANIFEST_BYTES};
use crate::repo::backups::item_lists;
use crate::repo::backups::pack_reader::PackReader;
use crate::repo::cluster::{ClusterName, SystemId};
use crate::repo::content::Content;
use crate::repo::object_name::ObjectName;
use crate::repo::prefix::Prefix;
use crate::repo::repository::Repository;
use crate::store::Created;
use crate::threads::at_once;

/// What to do about a damaged manifest.
const HINT: &str =
    "this backup cannot be restored from here: take another one, or this object from another copy of the repository";

/// A backup that is there, and what is known of it, unless its manifest cannot be read.
pub type Listed = (BackupId, Result<BackupSummary, Error>);

/// Called for every directory and file of a manifest, in the order of their paths; the head is known by then.
pub type OnItem<'a> = &'a mut dyn FnMut(&ManifestHead, Item) -> Result<ControlFlow<()>, Error>;

/// Something that a manifest consists of, besides its head.
pub enum ManifestPart<'p> {
    /// A directory or file.
    Item(Item),
    /// A list of items, which follow: where it is stored, and its content.
    List(RecordLocation, &'p [u8]),
}

/// Called for every part of a manifest, in order; the head is known by then.
pub type OnPart<'a> = &'a mut dyn FnMut(&ManifestHead, ManifestPart<'_>) -> Result<ControlFlow<()>, Error>;

impl Repository {
    /// The ids of all backups of a cluster, oldest first: a request per thousand of them, and one for each object that
    /// is so small that it may be a void.
    ///
    /// # Errors
    /// As the store's.
    pub fn backup_ids(&self, cluster: &ClusterName, system_id: SystemId) -> Result<Vec<BackupId>, Error> {
        let (mut ids, mut small) = (Vec::new(), Vec::new());
        self.visit_manifest_names(cluster, system_id, &mut |id, bytes| {
            if bytes <= MAX_VOID_OBJECT_BYTES { small.push(id) } else { ids.push(id) }
        })?;
        for some in small.chunks(CATALOG_READERS) {
            let read = at_once(some, CATALOG_READERS, |id| self.opener().metadata(&manifest(cluster, system_id, *id)));
            for (id, metadata) in some.iter().zip(read) {
                match metadata {
                    Ok(None) => {} // Expired since it was listed.
                    Ok(Some(metadata)) if metadata.void.is_some() => {}
                    // That it cannot be read is found by whoever reads it.
                    Ok(Some(_)) => ids.push(*id),
                    Err(error) if matches!(error.kind, Kind::Damaged | Kind::Denied) => ids.push(*id),
                    Err(error) => return Err(error),
                }
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Visits the backups under whose name a manifest **or a void** is stored, in their order, with the size of that
    /// object in bytes: those whose fate is decided.
    ///
    /// # Errors
    /// As the store's.
    pub(in crate::repo) fn visit_manifest_names(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        visit: &mut dyn FnMut(BackupId, u64),
    ) -> Result<(), Error> {
        self.objects().list(Prefix::Manifests(cluster, system_id), "", &mut |object| {
            if let ObjectName::Manifest { backup, .. } = object.name {
                visit(backup, object.size_bytes);
            }
            ControlFlow::Continue(())
        })
    }

    /// Visits all packs of a cluster in the order of their names, with the sizes of their objects: a request per
    /// thousand of them.
    ///
    /// # Errors
    /// As the store's.
    pub fn visit_packs(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        visit: &mut dyn FnMut(PackId, u64),
    ) -> Result<(), Error> {
        self.objects().list(Prefix::Packs(cluster, system_id), "", &mut |object| {
            if let ObjectName::Pack { pack, .. } = object.name {
                visit(pack, object.size_bytes);
            }
            ControlFlow::Continue(())
        })
    }

    /// What is known of all backups of a cluster, oldest first, each with one small read. A manifest that cannot be
    /// read is an error in its place: the others count all the same.
    ///
    /// # Errors
    /// As the store's, when the backups cannot be listed.
    pub fn backups(&self, cluster: &ClusterName, system_id: SystemId) -> Result<Vec<Listed>, Error> {
        let ids = self.backup_ids(cluster, system_id)?;
        let mut found = Vec::with_capacity(ids.len());
        for some in ids.chunks(CATALOG_READERS) {
            let read = at_once(some, CATALOG_READERS, |id| self.backup_summary(cluster, system_id, *id));
            for (id, summary) in some.iter().zip(read) {
                match summary {
                    Ok(None) => {} // Expired since it was listed.
                    Ok(Some(summary)) => found.push((*id, Ok(summary))),
                    Err(error) => found.push((*id, Err(error))),
                }
            }
        }
        Ok(found)
    }

    /// What is known of one backup; `None` when there is no such backup, or it was given up.
    ///
    /// # Errors
    /// Damaged, denied, unreachable.
    pub fn backup_summary(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        id: BackupId,
    ) -> Result<Option<BackupSummary>, Error> {
        match self.opener().metadata(&manifest(cluster, system_id, id))?.filter(|metadata| metadata.void.is_none()) {
            Some(metadata) => self.summary_of(cluster, system_id, id, &metadata).map(Some),
            None => Ok(None),
        }
    }

    fn summary_of(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        id: BackupId,
        metadata: &Metadata,
    ) -> Result<BackupSummary, Error> {
        let summary: Option<BackupSummary> =
            metadata.backup_summary.as_deref().and_then(|json| serde_json::from_slice(json).ok());
        let fits = |summary: &BackupSummary| summary.id == id && summary.system_id == system_id.to_string() && summary.is_sane();
        match summary.filter(fits) {
            Some(summary) => Ok(summary),
            None => Err(self.damaged_manifest(cluster, system_id, id, "its summary is not what belongs there")),
        }
    }

    fn damaged_manifest(&self, cluster: &ClusterName, system_id: SystemId, id: BackupId, why: &str) -> Error {
        let name = manifest(cluster, system_id, id);
        Error::new(Kind::Damaged, format!("{name} in {} is damaged: {why}", self.location())).hint(HINT)
    }

    /// Reads a manifest as a stream, with bounded memory. What the visitor sees before the end is authenticated and
    /// keeps the rules of a backup, but only `Some(…)` says that it saw all; when it breaks, the rest is not read.
    ///
    /// # Errors
    /// As the visitor's; damaged, denied, unreachable. `None` when there is no such backup, or it was given up.
    pub fn read_manifest(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        id: BackupId,
        visit: OnItem<'_>,
    ) -> Result<Option<(BackupSummary, ManifestHead)>, Error> {
        self.read_manifest_parts(cluster, system_id, id, &|_| {}, &mut |head, part| match part {
            ManifestPart::Item(item) => visit(head, item),
            ManifestPart::List(..) => Ok(ControlFlow::Continue(())),
        })
    }

    /// Reads what is known of a backup without its files: the head of its manifest, with one small request.
    ///
    /// # Errors
    /// Damaged, as far as it was read; denied, unreachable. `None` when there is no such backup, or it was given up.
    pub fn read_manifest_head(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        id: BackupId,
    ) -> Result<Option<(BackupSummary, ManifestHead)>, Error> {
        let Some(read) = self.read_stored_manifest(cluster, system_id, id, &|_| {}, None)? else { return Ok(None) };
        let head = read.reader.head().cloned().ok_or_else(|| self.damaged_manifest(cluster, system_id, id, "it has no head"))?;
        Ok(Some((read.summary, head)))
    }

    /// As [`read_manifest`](Self::read_manifest), and shows the lists of items as well; `read` is told of stored bytes
    /// as they come from the store.
    ///
    /// # Errors
    /// As [`read_manifest`](Self::read_manifest).
    pub fn read_manifest_parts(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        id: BackupId,
        read: &(dyn Fn(usize) + Sync),
        visit: OnPart<'_>,
    ) -> Result<Option<(BackupSummary, ManifestHead)>, Error> {
        let damaged = |why: String| self.damaged_manifest(cluster, system_id, id, &why);
        let mut of_items = |head: &ManifestHead, item: Item| visit(head, ManifestPart::Item(item));
        let Some(stored) = self.read_stored_manifest(cluster, system_id, id, read, Some(&mut of_items))? else {
            return Ok(None);
        };
        let StoredManifest { summary, mut reader, is_whole } = stored;
        let Some(head) = reader.head().cloned() else { return Err(damaged("it has no head".to_owned())) };
        if !is_whole {
            return Ok(Some((summary, head)));
        }
        let packs = PackReader::new(self, cluster, system_id);
        for places in item_lists::windows(&head.lists) {
            let contents = item_lists::read(&packs, places, read)?;
            for (place, content) in places.iter().zip(contents) {
                let mut flow = visit(&head, ManifestPart::List(*place, &content))?;
                let mut items = reader.list(&content).map_err(|e| damaged(e.to_string()))?.into_iter();
                while let (ControlFlow::Continue(()), Some(item)) = (flow, items.next()) {
                    flow = visit(&head, ManifestPart::Item(item))?;
                }
                if flow.is_break() {
                    return Ok(Some((summary, head.clone())));
                }
            }
        }
        reader.finish().map_err(|e| damaged(e.to_string())).map(|head| Some((summary, head)))
    }

    /// Reads the object of a manifest: to its end, or as far as `visit` wants; without one, its head.
    fn read_stored_manifest(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        id: BackupId,
        read: &(dyn Fn(usize) + Sync),
        visit: Option<OnItem<'_>>,
    ) -> Result<Option<StoredManifest>, Error> {
        let damaged = |why: String| self.damaged_manifest(cluster, system_id, id, &why);
        let name = manifest(cluster, system_id, id);
        let hinted = |error: Error| if error.kind == Kind::Damaged { error.hint(HINT) } else { error };
        let Some(begun) = self.opener().begin(&name, read).map_err(hinted)? else { return Ok(None) };
        let metadata = begun.metadata();
        if metadata.void.is_some() {
            return Ok(None);
        }
        let summary = self.summary_of(cluster, system_id, id, metadata)?;
        let plaintext_bytes = metadata.plaintext_bytes;
        if plaintext_bytes > SHORT_MANIFEST_BYTES.max(begun.stored_bytes.saturating_mul(MAX_MANIFEST_EXPANSION)) {
            return Err(damaged(format!("it says that its {} bytes hold {plaintext_bytes}", begun.stored_bytes)));
        }
        let reader = ManifestReader::of_backup(&summary, plaintext_bytes);
        let mut sink = Items { reader, visit, damaged: &damaged, ended: None };
        let result = begun.copy_to(&mut sink).map_err(hinted);
        let (is_whole, reader) = match (sink.ended, result) {
            (Some(Ended::Failed(error)), _) | (None, Err(error)) => return Err(error),
            (Some(Ended::Enough), _) => (false, sink.reader),
            (None, Ok(_)) => (true, sink.reader),
        };
        Ok(Some(StoredManifest { summary, reader, is_whole }))
    }

    /// Stores a manifest: from then on the backup counts. `open` reads the same bytes each time: head and items.
    ///
    /// # Errors
    /// [`Kind::Refused`] when the backup was given up meanwhile; as [`put`](Self::put).
    pub fn put_manifest<'m>(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        summary: &BackupSummary,
        open: impl Fn() -> Box<dyn Read + 'm> + Sync + 'm,
    ) -> Result<(), Error> {
        let json = serde_json::to_vec(summary).map_err(|e| Error::new(Kind::Bug, format!("encode a backup's summary: {e}")))?;
        let digest = Digest::of(&mut open())
            .map_err(|e| Error::new(Kind::Config, format!("cannot read the manifest back from a temporary file: {e}")))?;
        let content = Content::known(digest, open).described_by(json);
        let name = manifest(cluster, system_id, summary.id);
        if self.sealer().create(&name, &content)? == Created::New {
            return Ok(());
        }
        if self.opener().metadata(&name)?.is_some_and(|metadata| metadata.void.is_some()) {
            return Err(given_up(summary.id, self.location()));
        }
        self.opener().compare(&name, digest).map(drop)
    }
}

/// What the writer of a backup that was given up is told.
pub(in crate::repo) fn given_up(id: BackupId, location: &str) -> Error {
    let what = format!(
        "backup {id} in {location} was given up while it was taken, and does not count: 'walvis expire' waited for it no longer"
    );
    Error::new(Kind::Refused, what)
        .hint("take it again; 'grace' in [repository.retention] has to be longer than any backup may take")
}

pub(in crate::repo) fn manifest(cluster: &ClusterName, system_id: SystemId, backup: BackupId) -> ObjectName {
    ObjectName::Manifest { cluster: cluster.clone(), system_id, backup }
}

/// The object of a manifest that was read.
struct StoredManifest {
    summary: BackupSummary,
    reader: ManifestReader,
    /// To its end.
    is_whole: bool,
}

/// Why the reading of a manifest ended before its end.
enum Ended {
    Enough,
    Failed(Error),
}

/// Hands items on as bytes come.
struct Items<'a, 'v> {
    reader: ManifestReader,
    /// `None`: only the head is wanted.
    visit: Option<OnItem<'v>>,
    damaged: &'a dyn Fn(String) -> Error,
    ended: Option<Ended>,
}

impl Items<'_, '_> {
    fn take(&mut self) -> Result<ControlFlow<()>, Error> {
        let damaged = |e: TableError| (self.damaged)(e.to_string());
        let Some(visit) = &mut self.visit else {
            return Ok(if self.reader.begin().map_err(damaged)? { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
        };
        while let Some(item) = self.reader.next_item().map_err(damaged)? {
            if let Some(head) = self.reader.head()
                && visit(head, item)?.is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl Write for Items<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.reader.feed(bytes);
        self.ended = match self.take() {
            Ok(ControlFlow::Continue(())) => return Ok(bytes.len()),
            Ok(ControlFlow::Break(())) => Some(Ended::Enough),
            Err(error) => Some(Ended::Failed(error)),
        };
        Err(io::Error::other("enough"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
