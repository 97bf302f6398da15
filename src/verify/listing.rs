//! All WAL files, packs and manifests of a system identifier, as their names are listed: several listings at once, so
//! that a million objects take seconds where each page of a listing is a request.
//!
//! Lives here: where the listings are cut. May not live here: what is made of the names.

use std::ops::ControlFlow;

use crate::error::{Error, Kind};
use crate::format::extent::PackId;
use crate::limits::{LISTED_PART_BACKUPS, LISTED_PART_SEGMENTS, LISTERS, MAX_LISTED_PARTS};
use crate::pg::{SegmentName, WalFileName};
use crate::repo::{ClusterName, Facts, ForeignObject, ListedObject, ObjectName, Prefix, Repository};
use crate::threads::at_once;

/// What is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Wal,
    Packs,
    Manifests,
}

/// A part of the names: after one of them, up to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    of: Of,
    after: String,
    until: Option<String>,
}

/// What is done with a name in a listing.
pub(super) type VisitListed<'v, T> = dyn Fn(&mut T, Result<ListedObject, ForeignObject>) + Sync + 'v;

/// The names of a system identifier, cut into parts that are listed at once.
pub struct Listing<'a> {
    repository: &'a Repository,
    cluster: &'a ClusterName,
    facts: Facts,
    parts: Vec<Part>,
}

impl<'a> Listing<'a> {
    /// Decides where to cut. What is stored afterwards is in one of the parts, too.
    ///
    /// # Errors
    /// As the store's.
    pub fn new(repository: &'a Repository, cluster: &'a ClusterName, facts: Facts) -> Result<Self, Error> {
        let wal = match repository.catalog(cluster, facts) {
            Ok(catalog) => {
                let timelines = catalog.timelines().iter().filter_map(|info| info.segments);
                timelines.flat_map(|ends| cuts(ends, facts)).map(|name| wal_name(cluster, facts, name)).collect()
            }
            // One listing does as well.
            Err(error) if matches!(error.kind, Kind::Damaged | Kind::Denied | Kind::Target) => {
                tracing::debug!(%error, "the catalog does not say where to cut the listing");
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        let backups = repository.backup_ids(cluster, facts.system_id)?;
        let step = backups.len().div_ceil(MAX_LISTED_PARTS).max(LISTED_PART_BACKUPS);
        let packs = backups.iter().skip(step).step_by(step).map(|backup| {
            let pack = PackId { backup: *backup, number: 0 };
            ObjectName::Pack { cluster: cluster.clone(), system_id: facts.system_id, pack }.to_string()
        });
        let mut parts = parts(Of::Wal, wal);
        parts.extend(self::parts(Of::Packs, packs.collect()));
        parts.extend(self::parts(Of::Manifests, Vec::new()));
        Ok(Self { repository, cluster, facts, parts })
    }

    /// Visits all names. Each part has a value of its own that the visitor changes; these are the answer.
    ///
    /// # Errors
    /// As the store's.
    pub fn visit<T: Default + Send>(&self, visit: &(dyn Fn(&mut T, ListedObject) + Sync)) -> Result<Vec<T>, Error> {
        let known = |value: &mut T, listed: Result<ListedObject, ForeignObject>| {
            if let Ok(object) = listed {
                visit(value, object);
            }
        };
        self.visit_parts(&self.parts, &known)
    }

    /// Visits the names of WAL files and packs, and all that is beside them and no object.
    ///
    /// # Errors
    /// As the store's.
    pub(super) fn visit_content<T: Default + Send>(&self, visit: &VisitListed<'_, T>) -> Result<Vec<T>, Error> {
        let parts: Vec<Part> = self.parts.iter().filter(|part| part.of != Of::Manifests).cloned().collect();
        self.visit_parts(&parts, visit)
    }

    fn visit_parts<T: Default + Send>(&self, parts: &[Part], visit: &VisitListed<'_, T>) -> Result<Vec<T>, Error> {
        let listed = at_once(parts, LISTERS, |part| {
            let prefix = match part.of {
                Of::Wal => Prefix::Wal(self.cluster, self.facts.system_id),
                Of::Packs => Prefix::Packs(self.cluster, self.facts.system_id),
                Of::Manifests => Prefix::Manifests(self.cluster, self.facts.system_id),
            };
            let mut value = T::default();
            self.repository.objects().list_all(Some(prefix), &part.after, &mut |listed| {
                let is_beyond = |until: &String| match &listed {
                    Ok(object) => object.name.to_string() > *until,
                    Err(foreign) => foreign.name > *until,
                };
                if part.until.as_ref().is_some_and(is_beyond) {
                    return ControlFlow::Break(());
                }
                visit(&mut value, listed);
                ControlFlow::Continue(())
            })?;
            Ok(value)
        });
        listed.into_iter().collect()
    }
}

fn wal_name(cluster: &ClusterName, facts: Facts, segment: SegmentName) -> String {
    ObjectName::wal(cluster, facts.system_id, WalFileName::Segment(segment)).to_string()
}

/// Where the listing of a timeline is cut, by its first and last segment.
fn cuts((first, last): (SegmentName, SegmentName), facts: Facts) -> Vec<SegmentName> {
    let size = facts.wal_segment_size;
    let (Some(from), Some(to)) = (first.number(size), last.number(size)) else { return Vec::new() };
    let step = (to.saturating_sub(from) / MAX_LISTED_PARTS as u64).max(LISTED_PART_SEGMENTS);
    let numbers = (1..).map_while(|part| from.checked_add(step.checked_mul(part)?).filter(|number| *number < to));
    numbers.filter_map(|number| SegmentName::from_number(first.timeline, number, size)).collect()
}

/// The parts between cuts, and before and after them.
fn parts(of: Of, mut cuts: Vec<String>) -> Vec<Part> {
    cuts.sort_unstable();
    cuts.dedup();
    let mut after = String::new();
    let mut parts = Vec::with_capacity(cuts.len() + 1);
    for cut in cuts {
        parts.push(Part { of, after: after.clone(), until: Some(cut.clone()) });
        after = cut;
    }
    parts.push(Part { of, after, until: None });
    parts
}
