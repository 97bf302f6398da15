//! `walvis fetch-wal`: what PostgreSQL's `restore_command` calls.
//!
//! PostgreSQL takes exit codes 1 to 125 for "there is no such file" and may promote, so [`Kind::Absent`] is answered only when every
//! repository proves it. Bytes go to a temp file beside the destination, which gets its name only after all of them were
//! authenticated and checked once more against the file's name and cluster.
use crate::codec::Digest;
use crate::config::{Config, RepositoryConfig};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::fsio::{
    self, AtomicFile, Durability, Entered, FsError, Identity, ItemKind, Problem, Stat, as_owner_of, directory_of, file_error,
};
use crate::limits::{FETCH_TURN, OUTAGE_PAUSE};
use crate::pg::{SegmentCheck, SegmentName, Timeline, WalFileName};
use crate::postgres::control_file;
use crate::repo::{Facts, Fetched, Repository, StoredName, SystemId};
use crate::report::fetch::FetchReport;
use crate::repositories;
use crate::wal::fetch_ahead;
use crate::wal::push::hint_of;
use crate::wal::spool::{FetchedFile, Side, Spool, start_helper};
use crate::wal::standby::{Caller, is_own};
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

const DESTINATION_HINT: &str =
    "name a file in an existing directory; restore_command = 'walvis fetch-wal %f %p' does, in the data directory";

/// What is asked.
#[derive(Debug)]
pub struct FetchRequest {
    /// PostgreSQL's `%f`.
    pub name: String,
    /// PostgreSQL's `%p`.
    pub destination: PathBuf,
    /// What to do when it cannot be told whether the file exists.
    pub on_error: OnError,
    /// The arguments with which this program is started to fetch ahead; `None`: nothing is fetched ahead.
    pub helper: Option<Vec<OsString>>,
}

/// What to do when it cannot be told whether a file exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// A standby goes on, unless something could be lost by that; every other recovery is stopped.
    Auto,
    /// The server is stopped.
    Stop,
    /// The server goes on, unless it is a standby and something could be lost by that.
    Unavailable,
}

/// Fetches a file from the first repository that has it.
///
/// # Errors
/// [`Kind::Absent`] only when every repository proved that the file is not there; [`Kind::Unavailable`] where the server may go on
/// although it cannot be told; anything else means "cannot tell".
pub fn run(config: &Config, request: &FetchRequest, deadline: Deadline) -> Result<FetchReport, Error> {
    let name = StoredName::parse(&request.name).ok_or_else(|| {
        Error::new(Kind::Usage, format!("{:?} is not the name of a file that PostgreSQL asks for", request.name))
            .hint("use restore_command = 'walvis fetch-wal %f %p'")
    })?;
    // PostgreSQL runs the command in the data directory; by hand it may be run anywhere.
    let here = match as_owner_of(Path::new(".")) {
        Ok(_as) => control_file::of_data_directory(Path::new("."), &deadline)?.map(|facts| facts.system_id),
        // Root, where anybody could have put a data directory, or its name for another one: that says nothing.
        Err(error) if error.kind == Kind::Refused => None,
        Err(error) => return Err(error),
    };
    let _as = as_owner_of_destination(&request.destination)?;
    let ahead = here.and_then(|here| Ahead::find(config, name.file, here, &request.destination));
    if name.file == WalFileName::History(Timeline(1)) {
        // The first timeline has no parent. A server that begins another from there asks for it all the same, and must not fail then.
        return Err(Error::new(Kind::Absent, format!("{name} does not exist: the first timeline has no history")));
    }
    let caller = Caller::find(config, request.on_error, name.file, here, &request.destination);
    if let Some(ahead) = &ahead
        // It waits for a helper half of the time that it has.
        && let Some(report) = ahead.serve(caller.patience().map_or(deadline, |patience| deadline.at_most(patience * 2)))
    {
        return Ok(report);
    }
    let wanted = Wanted { config, name, here, destination: &request.destination, deadline };
    match ask(&wanted, &caller) {
        Ok(Some(report)) => {
            if let (Some(ahead), Some(arguments)) = (ahead, &request.helper) {
                ahead.go_on(arguments);
            }
            Ok(report)
        }
        Ok(None) => Err(Error::new(Kind::Absent, format!("{name} is in none of the repositories"))),
        Err(error) => Err(caller.judge(error)),
    }
}

/// What is to be fetched.
struct Wanted<'a> {
    config: &'a Config,
    name: StoredName,
    here: Option<SystemId>,
    destination: &'a Path,
    deadline: Deadline,
}

/// Asks every repository until one has the file or all have answered, or the patience of who asks is over. One that does not answer
/// must not keep those after it from being asked: they take turns.
fn ask(wanted: &Wanted<'_>, caller: &Caller) -> Result<Option<FetchReport>, Error> {
    let fails = |repository: &&RepositoryConfig| caller.outage(&repository.store.location()).is_some();
    let (failing, mut asked): (Vec<_>, Vec<_>) = wanted.config.repositories.iter().partition(fails);
    asked.extend(failing);
    let mut failures = Vec::new();
    let mut turn = FETCH_TURN;
    loop {
        let patience = caller.patience();
        let alone = asked.len() == 1;
        let mut silent = Vec::new();
        for repository in asked {
            let location = repository.store.location();
            if patience.is_some()
                && let Some(outage) = caller.outage(&location).filter(|outage| outage.ago < OUTAGE_PAUSE)
            {
                silent.push((repository, silent_error(outage.said), false));
                continue;
            }
            match ask_one(repository, wanted, patience.or((!alone).then_some(turn))) {
                Ok(answer) => {
                    if let Some(spool) = caller.spool() {
                        spool.end_outage(&location);
                    }
                    if answer.is_some() {
                        // The next call had better not wait for them first.
                        failures.extend(silent.into_iter().map(|(silent, error, tried)| remember(silent, error, tried, caller)));
                        if let Some(error) = one_of_all(failures) {
                            tracing::error!("{} came from {location}; {error}{}", wanted.name, hint_of(&error));
                        }
                        return Ok(answer);
                    }
                }
                Err(error) if error.kind == Kind::Unreachable => silent.push((repository, error, true)),
                Err(error) => failures.push(error),
            }
        }
        let is_over = match patience {
            // Promotion was requested meanwhile, and nothing may be lost by it.
            Some(_) => caller.patience().is_some(),
            None => alone || wanted.deadline.is_over(),
        };
        if silent.is_empty() || is_over {
            failures.extend(silent.into_iter().map(|(repository, error, tried)| remember(repository, error, tried, caller)));
            break;
        }
        asked = silent.into_iter().map(|(repository, ..)| repository).collect();
        turn *= 2;
        std::thread::sleep(Duration::from_secs(1).min(wanted.deadline.remaining()));
    }
    match one_of_all(failures) {
        None => Ok(None),
        Some(error) if error.what.contains(&wanted.name.to_string()) => Err(error),
        Some(error) => Err(error.while_doing(wanted.name)),
    }
}

/// Notes an outage, and says how long it has been going on.
fn remember(repository: &RepositoryConfig, error: Error, was_tried: bool, caller: &Caller) -> Error {
    let location = repository.store.location();
    let since = caller.make_spool().map(|spool| spool.note_outage(&location, &error.what, was_tried).since()).unwrap_or_default();
    Error { what: format!("{}{since}", error.what), ..error }
}

/// What several repositories said, as one error: damage and gaps say more than an outage.
pub(super) fn one_of_all(mut failures: Vec<Error>) -> Option<Error> {
    let first = failures.iter().position(|failure| failure.kind == Kind::Damaged).unwrap_or(0);
    if failures.is_empty() {
        return None;
    }
    let mut error = failures.remove(first);
    for other in failures {
        error.what.push_str(&format!("; and {other}"));
    }
    Some(error)
}

fn silent_error(what: String) -> Error {
    Error::new(Kind::Unreachable, what).hint("check network and store; a standby goes on with what it can stream, and asks again")
}

/// One repository's answer; an error where it says nothing for longer than `wait`.
fn ask_one(repository: &RepositoryConfig, wanted: &Wanted<'_>, wait: Option<Duration>) -> Result<Option<FetchReport>, Error> {
    let Wanted { config, name, here, destination, deadline } = *wanted;
    let Some(wait) = wait else { return fetch_from(repository, config, name, here, destination, deadline) };
    let location = repository.store.location();
    let health = repository.store.health();
    health.try_again();
    let (sender, receiver) = mpsc::channel();
    let began = Instant::now();
    let (owned, settings, path) = (repository.clone(), config.clone(), destination.to_owned());
    std::thread::Builder::new()
        .spawn(move || {
            // Nobody waits any more if it took too long.
            let _ = sender.send(fetch_from(&owned, &settings, name, here, &path, deadline));
        })
        .map_err(|e| Error::new(Kind::Unreachable, format!("cannot start a thread: {e}")))?;
    loop {
        let quiet = health.answered().map_or(began, |answered| answered.max(began)).elapsed();
        match receiver.recv_timeout(wait.saturating_sub(quiet).max(Duration::from_millis(10))) {
            Ok(answer) => return answer,
            Err(RecvTimeoutError::Disconnected) => return Err(Error::new(Kind::Bug, "a thread panicked")),
            Err(RecvTimeoutError::Timeout) if quiet >= wait || deadline.is_over() => {
                let said = health.failure().map_or_else(String::new, |said| format!(": {said}"));
                return Err(silent_error(format!("{location} gave no answer within {} s{said}", wait.as_secs())));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// One repository's answer: served, proven absent, or an error.
fn fetch_from(
    repository: &RepositoryConfig,
    config: &Config,
    name: StoredName,
    here: Option<SystemId>,
    destination: &Path,
    deadline: Deadline,
) -> Result<Option<FetchReport>, Error> {
    let opened = repositories::open_for(repository, &config.cluster, deadline)?;
    let facts = cluster(&opened, config, here)?;
    match download(&opened, config, facts, name, destination)? {
        Fetched::Served(metadata) => {
            let repository = opened.location().to_owned();
            Ok(Some(FetchReport { file: name.to_string(), repository, bytes: metadata.plaintext_bytes }))
        }
        Fetched::Absent => Ok(None),
        Fetched::Missing { .. } if decides_nothing(name.file, deadline) => Ok(None),
        Fetched::Missing { because } => Err(Error::new(
            Kind::Damaged,
            format!("{name} is missing in {}: {because}. PostgreSQL must not take this for the end of the log", opened.location()),
        )
        .hint(
            "archive the file if the primary or a standby still has it (walvis push-wal); or recover to a target before it; a standby \
             can stream it instead",
        )),
    }
}

/// Whether a history is asked for that recovery can do without: it has chosen its timeline already and only copies what leads there,
/// or it is that of the timeline that the backup is of, whose ancestors it does not use. It never looks for the newest timeline by
/// these. Not so for a standby, which goes on looking.
fn decides_nothing(name: WalFileName, deadline: Deadline) -> bool {
    let WalFileName::History(timeline) = name else { return false };
    if !fsio::exists(Path::new("recovery.signal")).unwrap_or(false) || fsio::exists(Path::new("standby.signal")).unwrap_or(true) {
        return false;
    }
    let control = control_file::control_of(Path::new("."), &deadline).ok().flatten();
    if control.is_some_and(|(control, _)| control.timeline == timeline) {
        return true;
    }
    // The server keeps the history of the timeline that it has chosen. One that was put there before it started proves nothing: it may
    // still be looking for the newest timeline, by one number after the other.
    let Ok(Some(started)) = fsio::stat(Path::new("postmaster.opts")) else { return false };
    let wal = Path::new("pg_wal");
    let was_kept =
        |name: &OsString| fsio::stat(&wal.join(name)).ok().flatten().is_some_and(|kept| kept.changed > started.modified);
    let is_later = |name: &OsString| {
        let kept = name.to_str().and_then(WalFileName::parse);
        matches!(kept, Some(WalFileName::History(later)) if later > timeline)
    };
    fsio::list_dir(wal).unwrap_or_default().iter().any(|name| is_later(name) && was_kept(name))
}

/// Fetches a file. It is at its destination only if it was served, whole and authenticated.
pub(super) fn download(
    opened: &Repository,
    config: &Config,
    facts: Facts,
    name: impl Into<StoredName>,
    destination: &Path,
) -> Result<Fetched, Error> {
    let name = name.into();
    let mut sink = Sink { output: begin(destination)?, head: Vec::new(), failure: None };
    let fetched = opened.get_stored(&config.cluster, facts, name, &mut sink);
    if let Some(error) = sink.failure {
        return Err(destination_error(error));
    }
    let fetched = fetched?;
    if let Fetched::Served(metadata) = &fetched {
        check(&name.file, facts, &sink.head, metadata.plaintext_bytes, opened)?;
        // It can be fetched again: whole or absent is enough, surviving a power failure is not needed.
        sink.output.publish_over(Durability::Volatile).map_err(destination_error)?;
    }
    Ok(fetched)
}

/// What a helper may have fetched ahead for a call that recovery makes.
struct Ahead<'a> {
    spool: Spool,
    wal_directory: &'a Path,
    segment: SegmentName,
    here: SystemId,
    destination: &'a Path,
}

impl<'a> Ahead<'a> {
    /// Only for segments, in a data directory, into its `pg_wal`: as recovery calls it, and nobody else.
    fn find(config: &Config, name: WalFileName, here: SystemId, destination: &'a Path) -> Option<Self> {
        let WalFileName::Segment(segment) = name else { return None };
        let wal_directory = destination.parent()?;
        let spool = Spool::find(config, wal_directory).filter(|_| is_own(wal_directory))?;
        Some(Self { spool, wal_directory, segment, here, destination })
    }

    fn name(&self) -> WalFileName {
        WalFileName::Segment(self.segment)
    }

    /// Serves it from the spool, if it is there or about to be.
    fn serve(&self, deadline: Deadline) -> Option<FetchReport> {
        let look = || self.spool.fetched(&self.name(), self.here);
        let fetched = look().or_else(|| self.spool.wait(Side::Fetch, &self.name(), deadline, look))?;
        match self.hand_over(&fetched) {
            Ok(()) => {
                self.spool.forget_fetched(&self.name());
                let (repository, bytes) = (fetched.repository, fetched.stat.size_bytes);
                Some(FetchReport { file: self.name().to_string(), repository, bytes })
            }
            Err(why) => {
                tracing::debug!("{} in the spool is not used: {why}", self.name());
                None
            }
        }
    }

    fn hand_over(&self, fetched: &FetchedFile) -> Result<(), String> {
        let path = self.spool.fetched_path(&self.name());
        let (file, stat) = fsio::open_regular(&path).map_err(|e| e.to_string())?;
        if stat != fetched.stat {
            return Err("it changed".to_owned());
        }
        let mut head = Vec::new();
        fsio::reader(&file).take(64).read_to_end(&mut head).map_err(|e| e.to_string())?;
        let page = SegmentCheck::run(self.segment, &head, stat.size_bytes).map_err(|e| e.to_string())?;
        if page.system_id != self.here.0 {
            return Err(format!("it is of system identifier {}", page.system_id));
        }
        let mut output = begin(self.destination).map_err(|e| e.to_string())?;
        match fsio::rename_over(&path, self.destination) {
            Ok(()) => {
                // What was checked, and not what took its name meanwhile.
                let there = fsio::stat_no_follow(self.destination).ok().flatten();
                let is_it = there.is_some_and(|there| (there.dev, there.ino) == (stat.dev, stat.ino));
                return if is_it { Ok(()) } else { Err("another file took its place".to_owned()) };
            }
            Err(e) if e.problem == Problem::Unsupported => {}
            Err(e) => return Err(e.to_string()),
        }
        // On another file system. The copy is proven by its hash.
        let digest = Digest::of_copied(&mut fsio::reader(&file), &mut output).map_err(|e| e.to_string())?;
        if digest.blake3 != fetched.blake3 {
            return Err("it is damaged".to_owned());
        }
        output.publish_over(Durability::Volatile).map_err(|e| e.to_string())
    }

    /// Notes how far recovery is, and starts a helper where recovery goes on and there is none.
    fn go_on(&self, arguments: &[OsString]) {
        if !fetch_ahead::is_in_recovery(Path::new(".")) {
            return;
        }
        match self.spool.make(self.wal_directory) {
            Ok(()) => {
                self.spool.note_asked(&self.name());
                if !self.spool.has_helper(Side::Fetch) {
                    start_helper(arguments);
                }
            }
            Err(error) => tracing::debug!(%error, "no spool, so nothing is fetched ahead"),
        }
    }
}

/// Which system identifier to fetch from: that of the data directory we are in, or the cluster's current one.
pub(super) fn cluster(opened: &Repository, config: &Config, here: Option<SystemId>) -> Result<Facts, Error> {
    if let Some(here) = here
        && let Some(binding) = opened.binding_to(&config.cluster, here)?
    {
        return Ok(binding.facts);
    }
    let bindings = opened.bindings(&config.cluster)?;
    let found = if here.is_none() { bindings.last() } else { None };
    match (found, bindings.last(), here) {
        (Some(binding), _, _) => Ok(binding.facts),
        (None, Some(last), Some(here)) => Err(Error::new(
            Kind::Refused,
            format!(
                "cluster {} in {} is of system identifier {}, this data directory is of {here}",
                config.cluster,
                opened.location(),
                last.facts.system_id
            ),
        )
        .hint("name the right cluster: --cluster, WALVIS_CLUSTER, or cluster in the settings")),
        _ => Err(Error::new(Kind::Config, format!("cluster {} is not known in {}", config.cluster, opened.location())).hint(
            "check --cluster or WALVIS_CLUSTER ('walvis list' shows the names); a new one is made known by its first push or by \
             'walvis init --pgdata DIR'",
        )),
    }
}

/// As root, acts as the user whom the directory of the destination belongs to. Where that is root's own, `/tmp` is good enough, too: nothing
/// that lies there is opened.
fn as_owner_of_destination(destination: &Path) -> Result<Entered, Error> {
    let directory = directory_of(destination);
    let is_roots = fsio::own_user() == 0 && matches!(fsio::changeable_by_others(directory), Ok(None));
    if is_roots {
        return Identity::own().enter().map_err(destination_error);
    }
    as_owner_of(directory).map_err(|e| if e.hint.is_some() { e } else { e.hint(DESTINATION_HINT) })
}

fn begin(destination: &Path) -> Result<AtomicFile, Error> {
    // Renaming would replace a device, a pipe, or a link: `fetch-wal NAME /dev/null` by root must not cost the host its /dev/null.
    match fsio::stat_no_follow(destination).map_err(destination_error)? {
        None | Some(Stat { kind: ItemKind::File, .. }) => {}
        Some(_) => {
            return Err(Error::new(
                Kind::Config,
                format!("cannot write {}: there is something of that name that is not a regular file", destination.display()),
            )
            .hint(DESTINATION_HINT));
        }
    }
    AtomicFile::beside(destination, 0o600).map_err(destination_error)
}

fn destination_error(error: FsError) -> Error {
    let error = file_error(Kind::Config, error);
    if error.hint.is_some() { error } else { error.hint(DESTINATION_HINT) }
}

/// The content is authentic; this catches a file that was stored wrongly by whatever means.
fn check(name: &WalFileName, facts: Facts, head: &[u8], bytes: u64, opened: &Repository) -> Result<(), Error> {
    let WalFileName::Segment(segment) = name else { return Ok(()) };
    let wrong = |why: String| {
        Err(Error::new(Kind::Damaged, format!("{name} in {} is not what its name says: {why}", opened.location()))
            .hint("take this file from another repository or copy"))
    };
    match SegmentCheck::run(*segment, head, bytes) {
        Err(e) => wrong(e.to_string()),
        Ok(page) if page.system_id != facts.system_id.0 => wrong(format!("it is of system identifier {}", page.system_id)),
        Ok(page) if page.segment_size != facts.wal_segment_size => wrong(format!("it has {bytes} bytes")),
        Ok(_) => Ok(()),
    }
}

/// Writes the temp file, keeps the first bytes, and remembers a local failure apart from the store's.
struct Sink {
    output: AtomicFile,
    head: Vec<u8>,
    failure: Option<FsError>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let wanted = 64usize.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(bytes.get(..wanted).unwrap_or_default());
        match self.output.append(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.failure = Some(error);
                Err(io::Error::other("the destination cannot be written"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
