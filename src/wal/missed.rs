//! What optional repositories missed: remembered in the spool, sent later by a helper (`walvis push-wal --ahead --missed`), or found by
//! comparing and sent at once (`walvis push-wal --missed`).
//!
//! A file that is still in `pg_wal` is taken from there, any other from a repository that has it.
use crate::codec::Digest;
use crate::config::{Config, RepositoryConfig};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::fsio::{self, AtomicFile, Durability, FsError, as_owner_of};
use crate::limits::{AHEAD_TIME, MISSED_FILES, OUTAGE_PAUSE};
use crate::pg::WalFileName;
use crate::postgres::control_file;
use crate::repo::{ClusterName, Content, Facts, Fetched, Repository, SystemId};
use crate::report::push::MissedReport;
use crate::repositories;
use crate::wal::fetch::download;
use crate::wal::push::{inspect, store, write_nodes};
use crate::wal::spool::{Side, Spool, start_helper};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// The flag of a helper.
const AHEAD: &str = "--ahead";
const MISSED: &str = "--missed";

impl Spool {
    fn missed_directory(&self, location: &str) -> PathBuf {
        let name: String = blake3::hash(location.as_bytes()).to_hex().chars().take(16).collect();
        self.path("missed").join(name)
    }

    /// Remembers durably that an optional repository did not get a file. Unlike all else in the spool this is not rubbish after a
    /// restart: nothing else says so, but a comparison.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn note_missed(&self, location: &str, file: &WalFileName) -> Result<(), FsError> {
        let directory = self.missed_directory(location);
        fsio::make_own_dir(&self.path("missed"))?;
        fsio::make_own_dir(&directory)?;
        let mut record = AtomicFile::beside(&directory.join(file.to_string()), 0o600)?;
        record.append(format!("{location}\n").as_bytes())?;
        record.publish_over(Durability::Durable)
    }

    /// It has it now.
    pub(super) fn forget_missed(&self, location: &str, file: &WalFileName) {
        self.remove(&self.missed_directory(location).join(file.to_string()));
    }

    /// What an optional repository did not get, in the server's order.
    pub(super) fn missed(&self, location: &str) -> Vec<WalFileName> {
        let names = fsio::list_dir(&self.missed_directory(location)).unwrap_or_default();
        names.iter().filter_map(|name| WalFileName::parse(name.to_str()?)).collect()
    }
}

/// Notes what an optional repository missed, and says so in one line.
pub(super) fn note(spool: Option<&Spool>, location: &str, files: &[WalFileName], why: &str) -> String {
    let names = files.iter().map(WalFileName::to_string).collect::<Vec<_>>().join(" ");
    let failed = format!("optional repository {location} did not get {names}: {why}");
    let Some(spool) = spool else {
        return format!("{failed}; there is no spool to remember that in: 'walvis push-wal --missed' sends it");
    };
    match files.iter().try_for_each(|file| spool.note_missed(location, file)) {
        Ok(()) => format!("{failed}; it will be sent later, with {} in all", spool.missed(location).len()),
        Err(error) => format!("{failed}; and that cannot be remembered: {error}: 'walvis push-wal --missed' sends it"),
    }
}

/// Starts a helper that sends what was missed, unless there is one, or it failed a short while ago. `arguments` are those of a helper
/// that pushes ahead.
pub(super) fn start(config: &Config, spool: &Spool, arguments: &[OsString]) {
    let is_due = |repository: &&RepositoryConfig| {
        let location = repository.store.location();
        repository.optional
            && !spool.missed(&location).is_empty()
            && spool.outage(&location).is_none_or(|outage| outage.ago >= OUTAGE_PAUSE)
    };
    if spool.place().is_none() || !config.repositories.iter().any(|r| is_due(&r)) || spool.has_helper(Side::Missed) {
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
/// What ended it early; nobody is told.
pub fn run_helper(config: &Config, path: &Path, deadline: Deadline) -> Result<(), Error> {
    let Some(wal_directory) = path.parent() else { return Ok(()) };
    let Some(spool) = Spool::find(config, wal_directory) else { return Ok(()) };
    let Some(place) = spool.place() else { return Ok(()) };
    let Some(_held) = spool.lock(Side::Missed) else { return Ok(()) };
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
            if began.elapsed() > AHEAD_TIME || spool.place() != Some(place) {
                return Ok(());
            }
            match sender.send(file) {
                Ok(_) => {
                    spool.end_outage(&location);
                    spool.forget_missed(&location, file);
                }
                Err(error) => {
                    spool.note_outage(&location, &error.what, true);
                    break;
                }
            }
        }
    }
    Ok(())
}

/// Compares every optional repository with the first one that is required, and sends what it lacks. Run in a data directory.
///
/// # Errors
/// The first that is met; what was sent before stays.
pub fn run(config: &Config, deadline: Deadline) -> Result<Vec<MissedReport>, Error> {
    // As root: as the user whose data directory it is.
    let _as = as_owner_of(Path::new("."))?;
    let wal_directory = Path::new("pg_wal");
    let Some(here) = control_file::of_data_directory(Path::new("."), &deadline)? else {
        return Err(
            Error::new(Kind::Config, "this is not a data directory").hint("cd DATA_DIRECTORY && walvis push-wal --missed")
        );
    };
    let spool = Spool::find(config, wal_directory).filter(|spool| spool.make(wal_directory).is_ok());
    let place = spool.as_ref().map_or_else(|| wal_directory.join("walvis.sent"), |spool| spool.path("sent"));
    let mut reports = Vec::new();
    for repository in config.repositories.iter().filter(|repository| repository.optional) {
        let location = repository.store.location();
        let mut sender = Sender::open(config, repository, wal_directory, place.clone(), deadline)?;
        let required = sender.required()?;
        let files = missing(&required, &sender.optional, &config.cluster, here.system_id)?;
        let mut sent = Vec::new();
        for file in &files {
            if sender.send(file)? {
                sent.push(file.to_string());
            }
            if let Some(spool) = &spool {
                spool.forget_missed(&location, file);
            }
        }
        if let Some(spool) = &spool {
            spool.end_outage(&location);
        }
        reports.push(MissedReport { repository: location, sent_files: sent });
    }
    Ok(reports)
}

/// What one repository has and the other lacks, from the first file on that the other has. (What was archived before it was added is not
/// missing in it.)
///
/// # Errors
/// As the stores'.
pub(crate) fn missing(
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

/// Sends files to an optional repository.
struct Sender<'a> {
    config: &'a Config,
    wal_directory: &'a Path,
    /// Where files from a repository lie meanwhile.
    place: PathBuf,
    optional: Arc<Repository>,
    required: Option<Arc<Repository>>,
    deadline: Deadline,
}

impl<'a> Sender<'a> {
    fn open(
        config: &'a Config,
        repository: &RepositoryConfig,
        wal_directory: &'a Path,
        place: PathBuf,
        deadline: Deadline,
    ) -> Result<Self, Error> {
        let optional = Arc::new(repositories::open_for(repository, &config.cluster, deadline)?);
        Ok(Self { config, wal_directory, place, optional, required: None, deadline })
    }

    /// The first repository that has to have everything.
    fn required(&mut self) -> Result<Arc<Repository>, Error> {
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

    /// Sends a file; whether there was one to send.
    fn send(&mut self, file: &WalFileName) -> Result<bool, Error> {
        let (cluster, path) = (&self.config.cluster, self.wal_directory.join(file.to_string()));
        if let Ok(inspected) = inspect(&path, self.config, &self.deadline) {
            self.optional.bind(cluster, inspected.facts)?;
            store(&self.optional, cluster, &inspected)?;
            self.complete(file, inspected.facts);
            return Ok(true);
        }
        let here = control_file::of_data_directory(&self.wal_directory.join(".."), &self.deadline)?;
        let required = self.required()?;
        let facts = crate::wal::fetch::cluster(&required, self.config, here.map(|facts| facts.system_id))?;
        fsio::make_own_dir(&self.place).map_err(|e| Error::new(Kind::Config, e.to_string()))?;
        let copy = self.place.join(OsStr::new(&format!("walvis-missed-{file}")));
        let fetched = download(&required, self.config, facts, *file, &copy)?;
        let Fetched::Served(metadata) = fetched else { return Ok(false) };
        let outcome = self.store_copy(file, facts, &copy, metadata.wal_summary);
        if let Err(error) = fsio::remove_file(&copy) {
            tracing::debug!(%error, "it stays");
        }
        outcome?;
        self.complete(file, facts);
        Ok(true)
    }

    fn store_copy(&self, file: &WalFileName, facts: Facts, copy: &Path, wal_summary: Option<Vec<u8>>) -> Result<(), Error> {
        let unreadable = |e: &dyn std::fmt::Display| Error::new(Kind::Config, format!("cannot read {}: {e}", copy.display()));
        let (opened, _) = fsio::open_regular(copy).map_err(|e| unreadable(&e))?;
        let digest = Digest::of(&mut fsio::reader(&opened)).map_err(|e| unreadable(&e))?;
        let content = Content::known(digest, || Box::new(fsio::reader(&opened))).with_summary(wal_summary);
        self.optional.bind(&self.config.cluster, facts)?;
        self.optional.put_wal(&self.config.cluster, facts.system_id, file, &content).map(drop)
    }

    fn complete(&self, file: &WalFileName, facts: Facts) {
        if let WalFileName::Segment(segment) = file {
            write_nodes(&self.optional, &self.config.cluster, facts, *segment, self.deadline);
        }
    }
}
