//! What is asked of a verification, and how far it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::findings::{Checked, Findings};
use crate::error::Error;
use crate::format::extent::BackupId;
use crate::limits::{MAX_DEFAULT_VERIFY_JOBS, MAX_VERIFY_JOBS};
use crate::pg::scan::PgTime;
use crate::repo::{ObjectSet, SystemId};

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode<'a> {
    /// Listings, heads of manifests, nodes of the catalog.
    Quick,
    /// Every byte.
    Full,
    /// What quick looks at, and every byte of these objects of each system identifier.
    Selected(&'a BTreeMap<SystemId, ObjectSet>),
}

/// What is needed of the log besides what backups need themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// All that leads on from them: there are no rules.
    Everything,
    /// What the rules of the repository keep.
    Rules {
        /// The first moment of the window; without one it is what leads to the present.
        since: Option<PgTime>,
    },
}

/// Manifests that earlier verifications read, of each system identifier.
pub type SeenManifests = BTreeMap<SystemId, BTreeSet<BackupId>>;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct VerifyRequest<'a> {
    /// What is looked at.
    pub mode: Mode<'a>,
    /// How many threads read.
    pub jobs: usize,
    /// Stored bytes that may be read in a second.
    pub max_bytes_per_s: Option<u64>,
    /// What is needed of the log besides what backups need themselves.
    pub window: Window,
    /// Manifests that earlier verifications read.
    pub seen: Option<&'a SeenManifests>,
}

impl VerifyRequest<'_> {
    /// How many threads read where nothing is said: two for each core, since each waits for the store, too.
    pub fn default_jobs() -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        (2 * cores).min(MAX_DEFAULT_VERIFY_JOBS)
    }

    /// The number of threads, within what is allowed.
    pub fn threads(&self) -> usize {
        self.jobs.clamp(1, MAX_VERIFY_JOBS)
    }
}

/// How far a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Listing.
    Listing {
        /// Objects so far.
        objects: u64,
    },
    /// Reading objects.
    Reading {
        /// Stored bytes so far.
        done_bytes: u64,
        /// Of these many, if all are read.
        total_bytes: Option<u64>,
        /// Objects so far.
        objects: u64,
    },
}

/// What was read of one system identifier so far is handed out now and then, for whoever may be killed.
#[derive(Clone, Copy)]
pub(super) struct Keep<'a> {
    /// How often.
    pub(super) every: Duration,
    /// Takes what was read, and what was found of it; what that costs is not worked out yet. An error ends the
    /// verification with it.
    pub(super) keep: &'a dyn Fn(&Checked, &Findings) -> Result<(), Error>,
}

/// What a caller is asked and told meanwhile.
#[derive(Clone, Copy)]
pub struct Hooks<'a> {
    /// An error ends the verification with it.
    pub go_on: &'a dyn Fn() -> Result<(), Error>,
    /// How far it is.
    pub progress: &'a dyn Fn(Progress),
}
