//! Policies that a store can be given, as documents that are handed to it. Depends on nothing.

use serde_json::{Map, Value};

/// A policy, as JSON.
pub type Document = Map<String, Value>;

/// Policies for a repository.
#[derive(Debug, Clone, PartialEq)]
pub struct Policies {
    /// Of the credentials of a host that archives, backs up and restores: it deletes nothing.
    pub writing_host: Document,
    /// Of the credentials of the host that expires.
    pub expiring_host: Document,
    /// Of the same, in addition, where it removes hidden versions.
    pub purging_host: Document,
    /// Of the bucket: what it refuses to whomever.
    pub bucket: Document,
    /// What has to be known to use them.
    pub notes: Vec<String>,
}
