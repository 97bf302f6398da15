//! Something wrong, before it is known what it costs.

use super::costs::Harm;
use super::findings::{Cost, Finding, Problem, Subject};
use crate::error::{Error, Kind};
use crate::repo::SystemId;

/// Something wrong with an object.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    /// What it is about.
    pub(super) subject: Subject,
    /// What is wrong.
    pub(super) problem: Problem,
    /// In words.
    pub(super) detail: String,
    /// What recovery cannot do because of it.
    pub(super) harm: Harm,
    /// Files of backups that are not whole because of it.
    pub(super) files: Vec<String>,
    /// Whether somebody needs the object.
    pub(super) matters: bool,
    /// Whether readers take a good copy instead.
    pub(super) is_repaired: bool,
}

impl Fault {
    /// A fault that harms nothing yet.
    pub(super) fn new(subject: Subject, problem: Problem, detail: impl Into<String>, matters: bool) -> Self {
        Self { subject, problem, detail: detail.into(), harm: Harm::default(), files: Vec::new(), matters, is_repaired: false }
    }

    /// As what is found, of which nobody has worked out what it costs.
    pub(super) fn into_finding(self, system_id: Option<SystemId>) -> Finding {
        let Self { subject, problem, detail, matters, is_repaired, .. } = self;
        Finding { subject, system_id, problem, detail, cost: Cost::default(), matters, is_repaired }
    }

    /// Says what it harms.
    #[must_use]
    pub(super) fn harming(mut self, harm: Harm) -> Self {
        self.harm = harm;
        self
    }
}

/// Whether an error says that an object is damaged. A key that nobody knows counts: its id is in the header, which may
/// be what is damaged.
pub(super) fn is_damage(error: &Error) -> bool {
    matches!(error.kind, Kind::Damaged | Kind::Denied)
}
