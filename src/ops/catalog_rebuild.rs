//! `walvis catalog rebuild`: writes the nodes of the catalog that are missing, or all of them anew.
//!
//! Nodes are derived data: what is stored of the log is not touched, whatever happens here.

use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::pg::Timeline;
use crate::report::catalog_rebuild::RebuildReport;
use crate::repositories;

/// What is asked.
#[derive(Debug, Default)]
pub struct RebuildRequest {
    /// Only this timeline.
    pub timeline: Option<u32>,
    /// Delete the nodes that are there first.
    pub force: bool,
}

/// Rebuilds the catalog of the cluster in every repository.
///
/// # Errors
/// [`Kind::Config`]: nothing is stored of the cluster; [`Kind::Target`]: nothing is stored of the timeline; as
/// [`rebuild`](crate::repo::Catalog::rebuild).
pub fn run(config: &Config, request: &RebuildRequest, deadline: Deadline) -> Result<Vec<RebuildReport>, Error> {
    let mut reports = Vec::new();
    repositories::every(config, deadline, &mut |opened| {
        let nothing = |what: String| {
            Error::new(Kind::Target, format!("nothing is stored of {what} in {}", opened.location()))
                .hint("'walvis list' shows what is stored")
        };
        let cluster = &config.cluster;
        let catalog = opened.catalog(cluster, opened.facts(cluster)?)?;
        let wanted: Vec<Timeline> = catalog
            .timelines()
            .iter()
            .map(|info| info.timeline)
            .filter(|timeline| request.timeline.is_none_or(|wanted| wanted == timeline.0))
            .collect();
        if let (Some(timeline), true) = (request.timeline, wanted.is_empty()) {
            return Err(nothing(format!("timeline {timeline} of cluster {cluster}")));
        }
        for timeline in wanted {
            let done = catalog.rebuild(timeline, request.force)?;
            reports.push(RebuildReport {
                repository: opened.location().to_owned(),
                cluster: cluster.to_string(),
                timeline: timeline.0,
                deleted_nodes: done.deleted,
                written_nodes: done.written,
                kept_nodes: done.kept,
                deleted_changes: done.deleted_changes,
                written_changes: done.written_changes,
                kept_changes: done.kept_changes,
                scanned_segments: done.scanned,
                incomplete_blocks: done.incomplete,
            });
        }
        Ok(())
    })?;
    Ok(reports)
}
