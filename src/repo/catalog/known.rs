//! A summary as a catalog remembers it.

use std::sync::Arc;

use crate::limits::CACHED_XACT_LIST_BYTES;
use crate::pg::scan::{Summary, XactList};

/// A summary, in short where its list of transactions is long.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) summary: Arc<Summary>,
    /// Whether that list was left out.
    pub(super) is_lean: bool,
}

impl Known {
    /// What is remembered of a summary, and the list that is too long for that.
    pub(super) fn of(mut summary: Summary) -> (Self, Option<XactList>) {
        let list = summary.xacts.take_if(|list| list.size_bytes() > CACHED_XACT_LIST_BYTES);
        (Self { summary: Arc::new(summary), is_lean: list.is_some() }, list)
    }
}
