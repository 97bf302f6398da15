//! Which segments the rules of a repository need besides what backups need themselves.

use std::collections::BTreeMap;

use super::heads::Heads;
use super::inventory::SystemInventory;
use super::request::Window;
use crate::error::{Error, Kind};
use crate::pg::{Lsn, Timeline};
use crate::recovery::choice_of_backup::Backups;
use crate::recovery::promised::{Asked, promised};
use crate::repo::{Catalog, ClusterName, ObjectSet, Repository, Runs};

/// The segments of each timeline; `None` is all that leads on from backups: there are no rules, or a damaged catalog
/// does not say what they need.
///
/// # Errors
/// As the store's.
pub(super) fn needed_by(
    (repository, cluster): (&Repository, &ClusterName),
    catalog: &Catalog<'_>,
    inventory: &SystemInventory,
    heads: &Heads,
    window: Window,
    always_newest: bool,
) -> Result<Option<BTreeMap<Timeline, Runs>>, Error> {
    let Window::Rules { since } = window else { return Ok(None) };
    let mut stored = ObjectSet::new(inventory.size);
    for (timeline, runs) in &inventory.segments {
        runs.iter().for_each(|(first, last)| stored.insert_segments(*timeline, first, last));
    }
    let good = Backups::known(heads.backups.clone());
    let asked = Asked {
        repository,
        cluster,
        catalog,
        good: &good,
        since,
        moves_to: None,
        stored: &stored,
        newest_stored_unix_s: &inventory.newest_unix_s,
        always_newest,
    };
    let found = match promised(&asked) {
        Ok(found) => found,
        Err(error) if matches!(error.kind, Kind::Damaged | Kind::Denied | Kind::Target) => {
            tracing::debug!("what the window needs is not known: {error}");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let bytes = inventory.size.bytes();
    let mut needed: BTreeMap<Timeline, Runs> = BTreeMap::new();
    for line in found {
        let from = line.from.map_or(0, |from| from.0 / bytes);
        for (at, leg) in line.legs.iter().enumerate() {
            let low = (leg.begin.0 / bytes).max(from);
            // Beyond what is stored nothing is missing yet.
            let last = inventory.segments.get(&leg.timeline).and_then(|runs| runs.iter().next_back()).map(|(_, last)| last);
            let own = line.legs.get(at + 1).filter(|child| child.stored.is_some()).map(|child| child.begin.0 / bytes);
            let high = match own {
                Some(next) => next.checked_sub(1),
                None if leg.end == Lsn(u64::MAX) => last,
                None => Some(leg.end.0.saturating_sub(1) / bytes),
            };
            if let Some(high) = high.filter(|high| low <= *high) {
                needed.entry(leg.timeline).or_default().insert_run(low, high);
            }
        }
    }
    Ok(Some(needed))
}
