//! What `catalog rebuild` answers.

use serde::Serialize;

/// What became of the nodes of one timeline.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RebuildReport {
    /// URL.
    pub repository: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Number of the timeline.
    pub timeline: u32,
    /// Nodes deleted first.
    pub deleted_nodes: u64,
    /// Nodes written.
    pub written_nodes: u64,
    /// Nodes that were there.
    pub kept_nodes: u64,
    /// Nodes of changes deleted first.
    pub deleted_changes: u64,
    /// Nodes of changes written.
    pub written_changes: u64,
    /// Nodes of changes that were there.
    pub kept_changes: u64,
    /// Segments without a summary or change set that were fetched and scanned.
    pub scanned_segments: u64,
    /// Blocks of 16 segments that cannot have a node: at the ends of the timeline, or with a hole.
    pub incomplete_blocks: u64,
}
