//! A repository that is open: its objects, its identity and its keys.
//!
//! Lives here: the value that everything in this room works on. May not live here: how it is opened (`open`, `init`), what is done with
//! it (`objects`, `bindings`, `wal`, `catalog`, `backups`).

use std::sync::{Arc, Mutex};

use super::cluster::{Binding, ClusterName};
use super::early_bindings::EarlyBindings;
use crate::crypto::{DataKeys, KnownRepository, RepositoryId};
use crate::format::descriptor::Descriptor;
use crate::store::Store;

/// An opened repository: its store, identity and keys.
pub struct Repository {
    store: Arc<dyn Store>,
    descriptor: Descriptor,
    keys: DataKeys,
    /// Of the newest data key.
    generation: u64,
    level: i32,
    /// Whether settings or key name it.
    pub(super) named: bool,
    pub(super) early: Mutex<Option<EarlyBindings>>,
    pub(super) bound: Mutex<Option<(ClusterName, Binding)>>,
}

impl Repository {
    /// A repository of which descriptor and keys are known.
    pub(super) fn new(store: Arc<dyn Store>, descriptor: Descriptor, keys: DataKeys, generation: u64, level: i32) -> Self {
        Self { store, descriptor, keys, generation, level, named: false, early: Mutex::default(), bound: Mutex::default() }
    }

    /// The store.
    pub(crate) fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// The repository URL.
    pub fn location(&self) -> &str {
        self.store.location()
    }

    /// The descriptor.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    pub(super) fn id(&self) -> &[u8; 16] {
        &self.descriptor.repository_id
    }

    /// Its id, and the generation of its newest data key.
    pub fn known_as(&self) -> KnownRepository {
        KnownRepository { id: RepositoryId(self.descriptor.repository_id), generation: self.generation }
    }

    pub(super) fn keys(&self) -> &DataKeys {
        &self.keys
    }

    pub(super) fn level(&self) -> i32 {
        self.level
    }
}
