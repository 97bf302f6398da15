//! The bindings of a cluster as they are stored. They can be read before there is a key, at the same time as the keys.
//!
//! Lives here: listing and reading them, sealed as they are. May not live here: what they say (that is `bindings`, which opens them).

use std::ops::ControlFlow;

use super::cluster::ClusterName;
use super::names;
use super::raw_objects::read_at_most;
use crate::error::Error;
use crate::limits::{MAX_BINDINGS, MAX_EARLY_BINDING_BYTES, MAX_EARLY_BINDINGS};
use crate::store::Store;

/// The bindings of a cluster as they are stored, read before there was a key.
pub(super) struct EarlyBindings {
    pub(super) cluster: ClusterName,
    /// Their numbers, ascending.
    pub(super) generations: Vec<u32>,
    /// Those of the first generations, as far as they could be read.
    pub(super) objects: Vec<Vec<u8>>,
}

impl EarlyBindings {
    /// Lists them, and reads the first of them.
    ///
    /// # Errors
    /// As the store's.
    pub(super) fn read(store: &dyn Store, cluster: &ClusterName) -> Result<Self, Error> {
        let generations = generations(store, cluster)?;
        let mut objects = Vec::new();
        for generation in generations.iter().take(MAX_EARLY_BINDINGS) {
            let name = names::binding(cluster, *generation)?;
            let Some(object) = read_at_most(store, &name, MAX_EARLY_BINDING_BYTES)? else { break };
            objects.push(object);
        }
        Ok(Self { cluster: cluster.clone(), generations, objects })
    }
}

/// The number of a binding, from what its object is called below `bindings/`.
pub(super) fn generation(name: &str) -> Option<u32> {
    if name.len() == 8 { name.parse().ok() } else { None }
}

/// The numbers of a cluster's bindings, ascending.
pub(super) fn generations(store: &dyn Store, cluster: &ClusterName) -> Result<Vec<u32>, Error> {
    let prefix = names::bindings_prefix(cluster);
    let mut generations = Vec::new();
    store.list(&prefix, "", &mut |entry| {
        generations.extend(entry.key.as_str().strip_prefix(&prefix).and_then(generation));
        // One too many: whoever reads them all says so.
        if generations.len() > MAX_BINDINGS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(generations)
}
