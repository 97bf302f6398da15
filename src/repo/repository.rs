//! A repository that is open: its objects, its identity, and what seals and opens its objects.
//!
//! Lives here: the value that everything in this room works on. May not live here: how it is opened (`open`, `init`),
//! what is done with it (`objects`, `bindings`, `wal`, `catalog`, `backups`).

use std::sync::Mutex;

use super::cluster::{Binding, ClusterName};
use super::early_bindings::EarlyBindings;
use super::opener::Opener;
use super::raw_objects::RawObjects;
use super::sealer::Sealer;
use crate::crypto::{DataKeys, KnownRepository, RepositoryId};
use crate::format::descriptor::Descriptor;

/// An opened repository.
pub struct Repository {
    objects: RawObjects,
    descriptor: Descriptor,
    sealer: Sealer,
    opener: Opener,
    /// Of the newest data key.
    generation: u64,
    /// Whether settings or key name it.
    pub(super) named: bool,
    pub(super) early: Mutex<Option<EarlyBindings>>,
    pub(super) bound: Mutex<Option<(ClusterName, Binding)>>,
}

impl Repository {
    /// A repository whose descriptor and keys are known.
    pub(super) fn new(objects: RawObjects, descriptor: Descriptor, keys: DataKeys, generation: u64, level: i32) -> Self {
        let id = descriptor.repository_id;
        Self {
            sealer: Sealer::new(objects.clone(), id, keys.shared_current(), level),
            opener: Opener::new(objects.clone(), id, keys),
            objects,
            descriptor,
            generation,
            named: false,
            early: Mutex::default(),
            bound: Mutex::default(),
        }
    }

    /// Its objects as they are stored.
    pub fn objects(&self) -> &RawObjects {
        &self.objects
    }

    /// What seals new objects.
    pub fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// What opens objects.
    pub fn opener(&self) -> &Opener {
        &self.opener
    }

    /// The repository URL.
    pub fn location(&self) -> &str {
        self.objects.location()
    }

    /// The descriptor.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Its id, and the generation of its newest data key.
    pub fn known_as(&self) -> KnownRepository {
        KnownRepository { id: RepositoryId(self.descriptor.repository_id), generation: self.generation }
    }
}
