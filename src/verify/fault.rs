//! Something wrong, before it is known what it costs.

use super::costs::Harm;
use super::findings::{Problem, Subject};

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
}

impl Fault {
    /// A fault that harms nothing yet.
    pub(super) fn new(subject: Subject, problem: Problem, detail: impl Into<String>, matters: bool) -> Self {
        Self { subject, problem, detail: detail.into(), harm: Harm::default(), files: Vec::new(), matters }
    }

    /// Says what it harms.
    #[must_use]
    pub(super) fn harming(mut self, harm: Harm) -> Self {
        self.harm = harm;
        self
    }
}
