//! `walvis resolve`: where a recovery to a target stops, and whether everything it needs is there. Touches nothing.

use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::recovery::{ResolveRequest, choose};
use crate::report::resolve::ResolveReport;

/// Resolves a target.
///
/// # Errors
/// As [`choose()`].
pub fn run(config: &Config, request: &ResolveRequest, deadline: Deadline) -> Result<ResolveReport, Error> {
    choose(config, request, deadline).map(|answer| answer.report)
}
