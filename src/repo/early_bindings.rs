//! The bindings of a cluster as they are stored. They can be read before there is a key, at the same time as the keys.
//!
//! Lives here: listing and reading them, sealed as they are. May not live here: what they say (that is `bindings`,
//! which opens them).

use std::ops::ControlFlow;

use super::cluster::ClusterName;
use super::object_name::ObjectName;
use super::prefix::Prefix;
use super::raw_objects::RawObjects;
use crate::error::Error;
use crate::limits::{MAX_BINDINGS, MAX_EARLY_BINDING_BYTES, MAX_EARLY_BINDINGS};

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
    pub(super) fn read(objects: &RawObjects, cluster: &ClusterName) -> Result<Self, Error> {
        let generations = generations(objects, cluster)?;
        let mut read = Vec::new();
        for generation in generations.iter().take(MAX_EARLY_BINDINGS) {
            let name = ObjectName::Binding { cluster: cluster.clone(), generation: *generation };
            let Some(object) = objects.read_at_most(&name, MAX_EARLY_BINDING_BYTES)? else { break };
            read.push(object);
        }
        Ok(Self { cluster: cluster.clone(), generations, objects: read })
    }
}

/// The numbers of a cluster's bindings, ascending.
pub(super) fn generations(objects: &RawObjects, cluster: &ClusterName) -> Result<Vec<u32>, Error> {
    let mut generations = Vec::new();
    objects.list(Prefix::Bindings(cluster), "", &mut |object| {
        if let ObjectName::Binding { generation, .. } = object.name {
            generations.push(generation);
        }
        // One too many: the reader of all of them says so.
        if generations.len() > MAX_BINDINGS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(generations)
}
