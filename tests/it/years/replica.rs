//! A repository that lives through a history: its writers store what the history has, and something deletes.

use std::collections::BTreeSet;
use std::sync::Arc;

use walvis::format::extent::BackupId;
use walvis::pg::{SegmentName, Timeline};
use walvis::repo::{ObjectName, Repository};
use walvis::store::{Key, Store};

use super::history::{History, cluster, facts_of, open, size};
use super::oracle::{Object, stored};
use super::store::TimedStore;

pub struct Replica<'a> {
    history: &'a History,
    pub store: Arc<TimedStore>,
    pub repository: Repository,
    /// What ought to be there.
    pub present: BTreeSet<Object>,
    last: i64,
}

impl<'a> Replica<'a> {
    pub fn new(history: &'a History) -> Self {
        let store = TimedStore::empty_at(history.begin);
        store.take_from(&history.store, i64::MIN, history.begin, &|_| true);
        let repository = open(&store);
        Self { history, store, repository, present: BTreeSet::new(), last: history.begin }
    }

    /// Lets time pass: what was stored since then is there. The catalog's nodes are this repository's own.
    pub fn advance(&mut self, now: i64) {
        let is_no_node = |key: &Key| !key.as_str().contains("/index/");
        self.store.take_from(&self.history.store, self.last, now, &is_no_node);
        let before = stored(&self.history.truth, self.last);
        for object in stored(&self.history.truth, now).difference(&before) {
            if let Object::Segment(system, timeline, number) = object {
                let name = SegmentName::from_number(Timeline(*timeline), *number, size()).unwrap();
                self.repository.write_nodes_after(&cluster(), facts_of(*system), name).unwrap();
            }
            self.present.insert(object.clone());
        }
        self.last = now;
    }

    /// Deletes an object and the nodes over it, as `expire` does: that a backup has begun goes before its manifest.
    pub fn delete(&mut self, object: &Object) {
        self.present.remove(object);
        let begun = matches!(object, Object::Manifest(..)).then(|| object.key().replace("/backups/", "/begun/"));
        for key in object.nodes().into_iter().chain(begun).chain([object.key()]) {
            self.store.delete(&Key::new(key).unwrap()).unwrap();
        }
    }

    /// The newest backup, and its system identifier.
    pub fn newest_backup(&self) -> Option<(u64, BackupId)> {
        let id = |object: &Object| if let Object::Manifest(system, id) = object { Some((*system, *id)) } else { None };
        self.present.iter().filter_map(id).max_by_key(|(_, id)| *id)
    }

    /// What is there of what can go; a void is no manifest.
    pub fn found(&self) -> BTreeSet<Object> {
        let mut found = BTreeSet::new();
        for key in self.store.keys() {
            let object = match ObjectName::parse(&key) {
                Some(ObjectName::Wal { system_id, file, .. }) => Object::wal(system_id.0, &file),
                Some(ObjectName::Pack { system_id, pack, .. }) => Some(Object::Pack(system_id.0, pack)),
                _ => None,
            };
            found.extend(object);
        }
        for system in &self.history.truth.systems {
            let ids = self.repository.backup_ids(&cluster(), facts_of(system.id).system_id).unwrap();
            found.extend(ids.into_iter().map(|id| Object::Manifest(system.id, id)));
        }
        found
    }
}
