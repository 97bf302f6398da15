//! The stretches of a path: where no segment is missing or damaged, so that a recovery can run through.
//!
//! Lives here: finding them, and what the path to a timeline has of those of the path to its parent. May not live here:
//! what is in them ([`path_log`](super::path_log)).

use std::ops::ControlFlow;

use crate::error::{Error, Kind};
use crate::format::node::{Edge, Entry};
use crate::pg::{Lsn, SegmentName};
use crate::recovery::log::Window;
use crate::repo::Catalog;
use crate::repo::catalog::{Path, Step};

/// The stretches of a path in which no segment is missing or damaged.
#[derive(Debug, Clone, Default)]
pub(super) struct Stretches {
    pub(super) windows: Vec<Window>,
    /// Whether in any of them `wal_level` may be `minimal`.
    pub(super) may_be_minimal: bool,
    /// From where on is still to be looked; the last stretch goes on there.
    goes_on_at: Option<Lsn>,
}

impl Stretches {
    /// What a path has of these, of the path to its parent; `None` where that is another one, or not the same up to the
    /// fork. The segment before the fork is left out: what follows it is the child's.
    pub(super) fn up_to(&self, path: &Path, parent: &Path) -> Option<Self> {
        let (own, above) = path.legs().split_last()?;
        let (of_parent, ancestors) = parent.legs().split_last()?;
        let (left, before) = above.split_last()?;
        let is_parent = before == ancestors && (left.timeline, left.begin) == (of_parent.timeline, of_parent.begin);
        // Where the parent has no segment of its own, what stands for one depends on where it is left.
        if !is_parent || left.stored.is_none() {
            return None;
        }
        let size = path.segment_size().bytes();
        let at = Lsn(path.number(own.begin).checked_sub(1)?.checked_mul(size)?);
        let mut windows: Vec<Window> = self.windows.iter().filter(|window| window.from < at).cloned().collect();
        // One that ends just there may end because of what is there.
        let last = windows.last_mut().filter(|last| last.until > at)?;
        last.until = at;
        Some(Self { windows, may_be_minimal: self.may_be_minimal, goes_on_at: Some(at) })
    }

    /// Finds them; of those that have `begun` only the rest.
    pub(super) fn find(catalog: &Catalog<'_>, path: &Path, begun: Self) -> Result<Self, Error> {
        let Self { mut windows, mut may_be_minimal, goes_on_at } = begun;
        let size = catalog.facts().wal_segment_size;
        let Some((first, _)) = path.stored() else { return Ok(Self::default()) };
        let from = goes_on_at.or(first.start(size)).unwrap_or(Lsn(0));
        let mut open = goes_on_at.and_then(|_| windows.pop());
        catalog.walk(path, from, Lsn(u64::MAX), &|aggregate| aggregate.stops > 0, &mut |step| {
            let (first, last, stops_at) = match step {
                Step::Missing { .. } => {
                    windows.extend(open.take());
                    return Ok(ControlFlow::Continue(()));
                }
                Step::Skipped { first, last, aggregate } => {
                    may_be_minimal |= aggregate.marks.may_be_minimal();
                    (first, last, None)
                }
                Step::Segment(entry) => {
                    may_be_minimal |= entry.aggregate.marks.may_be_minimal();
                    (entry.segment, entry.segment, stops_at(&entry))
                }
                Step::Unscanned(name) => {
                    let entry = scanned(catalog, path, name)?;
                    may_be_minimal |= entry.aggregate.marks.may_be_minimal();
                    (name, name, stops_at(&entry))
                }
            };
            let bounds = first.start(size).zip(last.start(size));
            let (from, until) = bounds.ok_or_else(|| Error::new(Kind::Damaged, format!("{first} is impossible")))?;
            let until = Lsn(until.0.saturating_add(size.bytes()));
            // A parent's segment stands for a child's that is not there: only up to the fork.
            let forked =
                path.legs().iter().find(|leg| leg.timeline == last.timeline).map(|leg| leg.end).filter(|end| *end < until);
            let stops_at = stops_at.into_iter().chain(forked).min();
            let window = open.get_or_insert(Window { from, until });
            window.until = stops_at.unwrap_or(until);
            if stops_at.is_some() {
                windows.extend(open.take().filter(|window| window.from < window.until));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        windows.extend(open);
        Ok(Self { windows, may_be_minimal, goes_on_at: None })
    }
}

/// Where recovery ends in a segment, if it does.
fn stops_at(entry: &Entry) -> Option<Lsn> {
    matches!(entry.edge, Edge::Stops | Edge::Broken).then_some(entry.good_until)
}

/// The entry of a segment that was stored without one.
///
/// # Errors
/// As the catalog's.
pub fn scanned(catalog: &Catalog<'_>, path: &Path, name: SegmentName) -> Result<Entry, Error> {
    let start = name.start(catalog.facts().wal_segment_size).unwrap_or(Lsn(0));
    catalog.entry_at(path, start)?.ok_or_else(|| gone(start))
}

pub(super) fn gone(lsn: Lsn) -> Error {
    Error::new(Kind::Unreachable, format!("the segment that holds {lsn} was there a moment ago and is gone"))
        .hint("is somebody deleting from the repository? try again")
}
