//! The backup that a new one is compared with: its manifest is read as a stream, in step with the list of files, both by path.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use crate::error::{Error, Kind};
use crate::format::extent::{BackupId, PackId};
use crate::format::manifest::{Content, FileEntry, Item, ManifestHead};
use crate::repo::{ClusterName, Repository, SystemId};

/// Files that the reader of the manifest may be ahead.
const AHEAD: usize = 512;

/// What is known of the parent before its files.
pub(super) struct ParentHead {
    /// Which backup it is.
    pub id: BackupId,
    /// Key of the hashes of its extents, 64 hexadecimal digits.
    pub hash_key: String,
    /// Bytes of the records of every pack that it refers to.
    pub total_bytes: HashMap<PackId, u64>,
    /// Packs that are hardly used any more: what is in them is stored anew.
    pub mostly_dead: HashSet<PackId>,
}

impl ParentHead {
    fn of(id: BackupId, head: &ManifestHead) -> Self {
        Self {
            id,
            hash_key: head.facts.hash_key.clone(),
            total_bytes: head.packs.iter().map(|used| (used.pack, used.total_bytes)).collect(),
            mostly_dead: head.packs.iter().filter(|used| used.is_mostly_dead()).map(|used| used.pack).collect(),
        }
    }
}

enum Message {
    Head(Box<ParentHead>),
    File(Box<FileEntry>),
    /// The rest cannot be read, or nothing at all.
    Failed(Error),
}

/// The files of the parent, as they are read.
pub(super) struct ParentFiles {
    messages: Receiver<Message>,
    next: Option<Box<FileEntry>>,
    ended: bool,
}

/// Begins to read the newest backup whose manifest can be read; `None` when there is none. The thread ends when the files are dropped.
///
/// # Errors
/// As the store's. Backups that are damaged are passed over with a warning.
pub(super) fn read_newest<'scope>(
    scope: &'scope Scope<'scope, '_>,
    repository: &'scope Repository,
    cluster: &'scope ClusterName,
    system_id: SystemId,
    warnings: &mut Vec<String>,
) -> Result<Option<(ParentHead, ParentFiles)>, Error> {
    for id in repository.backup_ids(cluster, system_id)?.into_iter().rev() {
        let (sender, messages) = sync_channel(AHEAD);
        scope.spawn(move || read(repository, cluster, system_id, id, &sender));
        match messages.recv() {
            Ok(Message::Head(head)) => return Ok(Some((*head, ParentFiles { messages, next: None, ended: false }))),
            Ok(Message::Failed(error)) if matches!(error.kind, Kind::Damaged | Kind::Denied) => {
                tracing::warn!("backup {id} cannot be compared with: {}", error.what);
                warnings.push(format!("backup {id} could not be compared with: {}", error.what));
            }
            Ok(Message::Failed(error)) => return Err(error.while_doing(format!("read the manifest of backup {id}"))),
            // It expired meanwhile.
            Ok(Message::File(_)) | Err(_) => {}
        }
    }
    Ok(None)
}

fn read(repository: &Repository, cluster: &ClusterName, system_id: SystemId, id: BackupId, sender: &SyncSender<Message>) {
    let mut is_known = false;
    let result = repository.read_manifest(cluster, system_id, id, &mut |head, item| {
        if !is_known {
            is_known = true;
            if sender.send(Message::Head(Box::new(ParentHead::of(id, head)))).is_err() {
                return Ok(ControlFlow::Break(()));
            }
        }
        let Item::File(entry) = item else { return Ok(ControlFlow::Continue(())) };
        // Nobody listens any more when the backup failed.
        let sent = sender.send(Message::File(Box::new(entry)));
        Ok(if sent.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    });
    if let Err(error) = result {
        let _ = sender.send(Message::Failed(error));
    }
}

impl ParentFiles {
    /// What the parent says of this file's content. Paths have to be asked for in ascending order.
    ///
    /// When the manifest turns out to be damaged, the rest is not there and a warning is added: the parent is a help only.
    pub(super) fn find(&mut self, path: &[u8], warnings: &mut Vec<String>) -> Option<Content> {
        loop {
            if self.next.is_none() && !self.ended {
                match self.messages.recv() {
                    Ok(Message::File(entry)) => self.next = Some(entry),
                    Ok(Message::Head(_)) => {}
                    Ok(Message::Failed(error)) => {
                        tracing::warn!("the rest of the backup before this one cannot be compared with: {}", error.what);
                        warnings.push(format!("a part of the backup before this one could not be compared with: {}", error.what));
                        self.ended = true;
                    }
                    Err(_) => self.ended = true,
                }
            }
            let next = self.next.take()?;
            match next.path.as_slice().cmp(path) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Some(next.content),
                std::cmp::Ordering::Greater => {
                    self.next = Some(next);
                    return None;
                }
            }
        }
    }
}
