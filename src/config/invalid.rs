//! What is said of settings that are wrong.
//!
//! Lives here: the errors that several files of this module share, and suggestions for misspelt names. Depends on
//! `setting`.

use super::setting::Kind as ValueKind;
use crate::error::{Error, Kind};

pub(super) fn config_error(what: impl Into<String>) -> Error {
    Error::new(Kind::Config, what)
}

/// A value that a setting does not take. `name` is the name by which it was set, with the repository where there may be
/// several.
pub(super) fn wrong_value(name: &str, value: impl std::fmt::Debug, kind: ValueKind) -> Error {
    let verb = if matches!(kind, ValueKind::Choice(_) | ValueKind::Truth) { "use" } else { "give" };
    config_error(format!("{name} is {value:?}")).hint(format!("{verb} {}", kind.wanted()))
}

/// The known name that somebody may have meant.
pub(super) fn closest(name: &str, known: impl IntoIterator<Item = &'static str>) -> Option<&'static str> {
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
