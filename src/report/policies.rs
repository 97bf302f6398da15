//! What `check --policies` answers.

use serde::Serialize;
use serde_json::{Map, Value};

/// Policies for one repository, each a document for its store.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PoliciesReport {
    /// URL.
    pub repository: String,
    /// For the credentials of a host that archives, backs up and restores.
    pub writing_host: Map<String, Value>,
    /// For the credentials of the host that expires.
    pub expiring_host: Map<String, Value>,
    /// For the same credentials, in addition, where `expire --purge-versions` is run.
    pub purging_host: Map<String, Value>,
    /// For the bucket.
    pub bucket: Map<String, Value>,
    /// What has to be known to use them.
    pub notes: Vec<String>,
}
