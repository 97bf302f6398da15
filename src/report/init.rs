//! What `init` answers.

use serde::Serialize;

/// A repository that was made or found.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct InitReport {
    /// URL.
    pub repository: String,
    /// Its id and the generation of its newest data key, as `id` in the settings takes them.
    pub repository_id: String,
    /// Whether it was made now, rather than found.
    pub created: bool,
    /// Name of the owner of a new one in a directory.
    pub owner: Option<String>,
    /// Whether its objects are encrypted.
    pub encrypted: bool,
    /// Whether the store itself refuses to overwrite; if not, writers announce themselves first.
    pub store_refuses_overwrite: bool,
    /// The cluster that was bound to its system identifier, if that was asked for.
    pub bound: Option<BoundCluster>,
    /// How its key, or the settings, recognize it; null for an unencrypted one.
    pub known: Option<Known>,
}

/// A cluster and its system identifier.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BoundCluster {
    /// Name of the cluster.
    pub cluster: String,
    /// System identifier, decimal.
    pub system_id: String,
}

/// How the operator's side recognizes a repository, so that no other one passes for it.
#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Known {
    /// It did before.
    Already,
    /// The line was added.
    Added {
        /// Where: the key file.
        location: String,
    },
    /// A line is to be added by hand.
    ToBeAdded {
        /// The line.
        line: String,
        /// Where.
        location: String,
        /// Why it was not done.
        reason: Option<String>,
    },
}
