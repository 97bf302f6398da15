//! A run of WAL segments.

use serde::Serialize;

/// A run of segments of one timeline, both ends included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SegmentRange {
    /// Name of the first one.
    pub first_segment: String,
    /// Name of the last one.
    pub last_segment: String,
}
