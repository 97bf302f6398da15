//! What tells clusters apart: the name that the operator chose, the system identifier from `initdb`, and what goes with
//! it.
//!
//! Lives here: plain values. May not live here: how they are stored (that is `bindings`). Depends on `pg`, `limits` and
//! `error`.

use std::fmt;

use crate::error::{Error, Kind};
use crate::limits::MAX_CLUSTER_NAME_BYTES;
use crate::pg::WalSegmentSize;

/// A cluster's system identifier, from `initdb`. Decimal in names, as `pg_controldata` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemId(pub u64);

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The name of a cluster in a repository, chosen by the operator.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterName(String);

impl ClusterName {
    /// Checks a name: letters, digits, `.`, `_`, `-`; begins with a letter or digit; at most 63 bytes.
    ///
    /// # Errors
    /// [`Kind::Config`].
    pub fn new(text: &str) -> Result<Self, Error> {
        let valid = text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.len() <= MAX_CLUSTER_NAME_BYTES
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::new(Kind::Config, format!("{text:?} cannot be a cluster name"))
                .hint("use 1 to 63 letters, digits, dots, underscores or hyphens, beginning with a letter or digit"))
        }
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is known of a cluster from a segment header or `pg_control`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// System identifier.
    pub system_id: SystemId,
    /// Segment size.
    pub wal_segment_size: WalSegmentSize,
    /// PostgreSQL major version, where the source tells it.
    pub postgres_major: Option<u16>,
}

/// A cluster name's binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// 1, 2, …
    pub generation: u32,
    /// What it is bound to.
    pub facts: Facts,
    /// When, Unix seconds.
    pub bound_unix_s: i64,
}
