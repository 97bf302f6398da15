//! What all steps of a base backup share: the request, the server, the repository, and the caller's hooks.
//!
//! May not live here: the steps ([`preflight`](super::preflight), [`copy_cluster`](super::copy_cluster),
//! [`finish`](super::finish)) and their order ([`base_backup`](crate::ops::base_backup)).

use crate::backup::progress::Progress;
use crate::backup::source::Source;
use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::limits::{MAX_BACKUP_JOBS, MAX_LABEL_BYTES};
use crate::pg::ControlFile;
use crate::repo::{ClusterName, Repository};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// What the caller asks for.
#[derive(Debug, Default)]
pub struct BackupRequest {
    /// The data directory, if it is not where the server says.
    pub pgdata: Option<PathBuf>,
    /// What to call the backup.
    pub label: Option<String>,
    /// Whether the server shall make its checkpoint at once rather than spread over time.
    pub fast: bool,
    /// How many read at once; the number of processors if not given.
    pub jobs: Option<usize>,
    /// How fast to read, at most.
    pub max_rate_mib_per_s: Option<u64>,
    /// Whether to read all files, whatever the log says.
    pub read_all: bool,
    /// Within which time every page is verified once, changed or not.
    pub verify_pages: Option<Duration>,
    /// What the operator wants to be kept with it.
    pub annotations: BTreeMap<String, String>,
    /// How to connect to the primary of the standby that is read.
    pub primary: Option<String>,
}

/// What the caller is asked and told.
pub struct Hooks<'a> {
    /// Asked several times a second: an error ends the backup.
    pub go_on: &'a dyn Fn() -> Result<(), Error>,
    /// How far it is, several times a second.
    pub progress: &'a dyn Fn(Progress),
}

impl BackupRequest {
    /// Refuses what cannot be used.
    ///
    /// # Errors
    /// [`Kind::Usage`].
    pub(crate) fn check(&self) -> Result<(), Error> {
        let usage = |what: String, hint: &str| Err(Error::new(Kind::Usage, what).hint(hint));
        if let Some(label) = &self.label
            && (label.len() > MAX_LABEL_BYTES || label.chars().any(char::is_control))
        {
            return usage(
                format!("a label of {} bytes with this content cannot be used", label.len()),
                "use at most 500 bytes and no line breaks",
            );
        }
        if self.jobs == Some(0) || self.max_rate_mib_per_s == Some(0) {
            return usage("--jobs and --max-rate are at least 1".to_owned(), "leave the option out for the default");
        }
        Ok(())
    }

    /// How many workers read.
    pub(crate) fn workers(&self) -> usize {
        self.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, Into::into)).clamp(1, MAX_BACKUP_JOBS)
    }
}

/// A backup under way.
pub(crate) struct BackupContext<'a> {
    /// Where it goes.
    pub repository: &'a Repository,
    /// zstd level of its packs.
    pub compression_level: i32,
    /// Whether every push has to store in this repository.
    pub is_required: bool,
    /// The cluster.
    pub cluster: &'a ClusterName,
    /// The server.
    pub source: &'a Source<'a>,
    /// `pg_control` before the backup.
    pub control: ControlFile,
    /// The request.
    pub request: &'a BackupRequest,
    /// What the caller is asked and told meanwhile.
    pub hooks: &'a Hooks<'a>,
    /// Its id.
    pub id: BackupId,
    /// How many workers read.
    pub workers: usize,
    /// When the server was last asked before the backup began.
    pub asked: Instant,
}
