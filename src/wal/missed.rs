//! What optional repositories missed: remembered in the spool, sent later by a helper
//! (`walvis push-wal --ahead --missed`), or found by comparing and sent at once (`walvis push-wal --missed`).
//!
//! A file that is still in `pg_wal` is taken from there, any other from a repository that has it.

use crate::codec::Digest;
use crate::config::{Config, RepositoryConfig};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::envelope::Metadata;
use crate::fsio;
use crate::limits::{AHEAD_TIME, MISSED_FILES, OUTAGE_PAUSE};
use crate::pg::WalFileName;
use crate::postgres::control_file;
use crate::repo::{ClusterName, Content, Facts, Fetched, Repository, SystemId};
use crate::repositories;
use crate::wal::deliver::{store, update_catalog};
use crate::wal::download::download;
use crate::wal::inspect::inspect;
use crate::wal::spool::{HelperKind, Spool, start_helper};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// The flag of a helper.
const AHEAD: &str = "--ahead";
const MISSED: &str = "--missed";

/// Starts a helper that sends what was missed, unless there is one, or it failed a short while ago. `arguments` are
/// those of a helper that pushes ahead.
pub fn start_helper_if_due(config: &Config, spool: &Spool, arguments: &[OsString]) {
    let is_due = |repository: &&RepositoryConfig| {
        let location = repository.store.location();
        repository.optional
            && !spool.missed(&location).is_empty()
            && spool.outage(&location).is_none_or(|outage| outage.ago >= OUTAGE_PAUSE)
            && !spool.is_missed_paused(&location)
    };
    if spool.id().is_none() || !config.repositories.iter().any(|r| is_due(&r)) || spool.has_helper(HelperKind::Missed) {
        return;
    }
    let Some(at) = arguments.iter().position(|argument| argument == AHEAD) else { return };
    let (before, after) = arguments.split_at(at + 1);
    let all: Vec<OsString> = before.iter().cloned().chain([MISSED.into()]).chain(after.iter().cloned()).collect();
    start_helper(&all);
}

/// Sends what the spool says was missed, for as long as a helper may work. `path` is a file of the server's `pg_wal`.
///
/// # Errors
/// What ended it early; it is not reported.
pub fn run_helper(config: &Config, path: &Path, deadline: Deadline) -> Result<(), Error> {
    let Some(wal_directory) = path.parent() else { return Ok(()) };
    let Some(spool) = Spool::find(config, wal_directory) else { return Ok(()) };
    let Some(held) = spool.lock(HelperKind::Missed) else { return Ok(()) };
    let began = Instant::now();
    for repository in config.repositories.iter().filter(|repository| repository.optional) {
        let location = repository.store.location();
        let files = spool.missed(&location);
        if files.is_empty() {
            continue;
        }
        let mut sender = match Sender::open(config, repository, wal_directory, spool.path("sent"), deadline.at_most(AHEAD_TIME)) {
            Ok(sender) => sender,
            Err(error) => {
                spool.note_outage(&location, &error.what, true);
                continue;
            }
        };
        for file in files.iter().take(MISSED_FILES) {
            if began.elapsed() > AHEAD_TIME || !spool.is_held(&held) {
                return Ok(());
            }
            match sender.send(file) {
                Ok(true) => {
                    spool.end_outage(&location);
                    spool.forget_missed(&location, file);
                }
                Ok(false) => spool.forget_missed(&location, file),
                Err(Hindered::Repository(error)) => {
                    spool.note_outage(&location, &error.what, true);
                    break;
                }
                // Those after it can still be sent.
                Err(Hindered::File(error)) => {
                    tracing::debug!(%error, "{file} is not sent");
                    spool.pause_missed(&location);
                }
            }
        }
    }
    Ok(())
}

/// What the required repository has and the optional one lacks, from the first file on that the optional one has. (What
/// was archived before it was added is not missing in it.)
///
/// # Errors
/// As the stores'.
pub fn missing(
    required: &Repository,
    optional: &Repository,
    cluster: &ClusterName,
    system_id: SystemId,
) -> Result<Vec<WalFileName>, Error> {
    let files = |repository: &Repository| {
        let mut files = BTreeSet::new();
        repository.survey(Some(cluster), &mut |_, _, _, _| {}, &mut |surveyed| {
            files.extend(surveyed.wal.iter().filter(|(system, ..)| *system == system_id).map(|(_, file, _)| *file));
            Ok(())
        })?;
        Ok::<_, Error>(files)
    };
    let has = files(optional)?;
    // Histories have no place in the log: of them it has to have those of its timelines.
    let first = has.iter().find(|file| !matches!(file, WalFileName::History(_))).copied();
    let Some(first) = first else { return Ok(Vec::new()) };
    let is_later = |file: &WalFileName| match file {
        WalFileName::History(timeline) => *timeline > first.timeline(),
        file => *file > first,
    };
    Ok(files(required)?.into_iter().filter(|file| !has.contains(file) && is_later(file)).collect())
}

/// Why a file was not sent.
#[derive(Debug)]
pub enum Hindered {
    /// The optional repository does not take anything now.
    Repository(Error),
    /// This file cannot be had, or the repository does not take this one.
    File(Error),
}

impl Hindered {
    /// What the optional repository answered to one file.
    fn answered(error: Error) -> Self {
        match error.kind {
            Kind::Conflict | Kind::Damaged => Self::File(error),
            _ => Self::Repository(error),
        }
    }
}

/// Sends files to an optional repository.
pub struct Sender<'a> {
    config: &'a Config,
    wal_directory: &'a Path,
    /// Where copies of files from another repository lie meanwhile.
    copies: PathBuf,
    optional: Arc<Repository>,
    required: Option<Arc<Repository>>,
    deadline: Deadline,
}

impl<'a> Sender<'a> {
    /// Opens the optional repository. A file that is not in `wal_directory` is copied through the directory `copies`.
    ///
    /// # Errors
    /// As [`repositories::open_for`].
    pub fn open(
        config: &'a Config,
        repository: &RepositoryConfig,
        wal_directory: &'a Path,
        copies: PathBuf,
        deadline: Deadline,
    ) -> Result<Self, Error> {
        let optional = Arc::new(repositories::open_for(repository, &config.cluster, deadline)?);
        Ok(Self { config, wal_directory, copies, optional, required: None, deadline })
    }

    /// The repository that files are sent to.
    pub fn optional(&self) -> &Repository {
        &self.optional
    }

    /// The first required repository: it has everything.
    ///
    /// # Errors
    /// [`Kind::Config`] when every repository is optional; as [`repositories::open_for`].
    pub fn required(&mut self) -> Result<Arc<Repository>, Error> {
        if let Some(required) = &self.required {
            return Ok(Arc::clone(required));
        }
        let first = self.config.repositories.iter().find(|repository| !repository.optional);
        let Some(first) = first else {
            return Err(Error::new(Kind::Config, "every repository is optional: none is known to have everything")
                .hint("make one of them required"));
        };
        let opened = Arc::new(repositories::open_for(first, &self.config.cluster, self.deadline)?);
        self.required = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Sends a file; `false` where there is none to send.
    ///
    /// # Errors
    /// As the stores'; [`Kind::Config`] when the copy cannot be written or read.
    pub fn send(&mut self, file: &WalFileName) -> Result<bool, Hindered> {
        let (cluster, path) = (&self.config.cluster, self.wal_directory.join(file.to_string()));
        if let Ok(inspected) = inspect(&path, self.config, &self.deadline) {
            self.optional.bind(cluster, inspected.facts).map_err(Hindered::Repository)?;
            store(&self.optional, cluster, &inspected).map_err(Hindered::answered)?;
            self.complete(file, inspected.facts);
            return Ok(true);
        }
        let copy = self.copies.join(OsStr::new(&format!("walvis-missed-{file}")));
        let Some((facts, metadata)) = self.copy(file, &copy).map_err(Hindered::File)? else { return Ok(false) };
        let outcome = self.store_copy(file, facts, &copy, metadata);
        if let Err(error) = fsio::remove_file(&copy) {
            tracing::debug!(%error, "it stays");
        }
        outcome?;
        self.complete(file, facts);
        Ok(true)
    }

    /// Copies a file from the required repository: of which cluster it is, and what is known of it there; `None`
    /// where it is not there.
    fn copy(&mut self, file: &WalFileName, copy: &Path) -> Result<Option<(Facts, Metadata)>, Error> {
        let here = control_file::of_data_directory(&self.wal_directory.join(".."), &self.deadline)?;
        let required = self.required()?;
        let facts = required.facts_of(&self.config.cluster, here.map(|facts| facts.system_id))?;
        fsio::make_own_dir(&self.copies).map_err(|e| Error::new(Kind::Config, e.to_string()))?;
        match download(&required, &self.config.cluster, facts, *file, copy)? {
            Fetched::Served(metadata) => Ok(Some((facts, metadata))),
            Fetched::Absent | Fetched::Missing { .. } => Ok(None),
        }
    }

    fn store_copy(&self, file: &WalFileName, facts: Facts, copy: &Path, metadata: Metadata) -> Result<(), Hindered> {
        let unreadable =
            |e: &dyn std::fmt::Display| Hindered::File(Error::new(Kind::Config, format!("cannot read {}: {e}", copy.display())));
        let (opened, _) = fsio::open_regular(copy).map_err(|e| unreadable(&e))?;
        let digest = Digest::of(&mut fsio::reader(&opened)).map_err(|e| unreadable(&e))?;
        let content = Content::known(digest, || Box::new(fsio::reader(&opened)))
            .with_summary(metadata.wal_summary)
            .with_changes(metadata.wal_changes);
        self.optional.bind(&self.config.cluster, facts).map_err(Hindered::Repository)?;
        let put = self.optional.put_wal(&self.config.cluster, facts.system_id, file, &content);
        put.map(drop).map_err(Hindered::answered)
    }

    fn complete(&self, file: &WalFileName, facts: Facts) {
        if let WalFileName::Segment(segment) = file {
            update_catalog(&self.optional, &self.config.cluster, facts, *segment, self.deadline);
        }
    }
}
