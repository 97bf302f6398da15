//! `walvis push-wal`: what PostgreSQL's `archive_command` calls.
//!
//! It says success only when every required repository holds the whole file durably. The file is read through one open descriptor,
//! and as a rule once: to check, hash, scan and compress it. Each repository seals that under its own key. What is too long to wait
//! in memory, or changed a moment ago, is read again per repository, and held against the hash of the first pass.
//!
//! As root it is all done as the user whom the directory of the files belongs to: a link there leads to nothing that this user could
//! not read.
use crate::codec::{Compressed, Compressing, Digest, SharedCompressed};
use crate::config::{Config, RepositoryConfig};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::fsio::{self, Stat, as_owner_of_all, directory_of, file_error};
use crate::limits::{CATALOG_TIMEOUT, MAX_HISTORY_FILE_BYTES, MAX_SUMMARY_BYTES, OPTIONAL_TIMEOUT};
use crate::pg::scan::{End, Scanner, Segment};
use crate::pg::{BackupHistory, SegmentCheck, SegmentName, TimelineHistory, WalFileName, WalSegmentSize};
use crate::postgres::control_file;
use crate::repo::{ClusterName, Content, Facts, Kept, Repository, Stored, StoredName, SystemId};
use crate::report::push::{PushOutcome, PushReport};
use crate::repositories;
use crate::wal::fetch::one_of_all;
use crate::wal::push_ahead::Start;
use crate::wal::spool::{Pushed, Side, Spool};
use crate::wal::{histories, missed};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};

/// What is asked.
#[derive(Debug, Default)]
pub struct PushRequest {
    /// The files, as PostgreSQL's `%p` names them.
    pub paths: Vec<PathBuf>,
    /// The arguments with which this program is started to push ahead; `None`: nothing is pushed ahead.
    pub helper: Option<Vec<OsString>>,
}

/// Pushes the files, in the order given, to every repository at once. A repository ends at the first file that fails.
///
/// An optional repository may not hold up archiving: when all others are done it is waited for [`OPTIONAL_TIMEOUT`] at most, and what it
/// misses is remembered and sent later ([`push_missed`]). While it fails, it is left out.
///
/// # Errors
/// [`Kind::Config`]: it cannot be read; [`Kind::Damaged`]: it is not what its name says; [`Kind::Refused`]: of another cluster;
/// [`Kind::Conflict`]: other content under its name; as the stores'.
pub fn run(config: &Config, request: &PushRequest, deadline: Deadline) -> Result<Vec<PushReport>, Error> {
    let _as = as_owner_of_all(request.paths.iter().map(|path| directory_of(path)))?;
    let mut reports = Vec::new();
    let forgotten: Vec<Forgotten> = request.paths.iter().flat_map(|path| forgotten(config, path)).collect();
    let mut paths: Vec<&PathBuf> = forgotten.iter().map(|history| &history.path).collect();
    let mut helper = None;
    let mut spools = Vec::new();
    for path in &request.paths {
        let Some((spool, wal_directory, name)) = spool_of(config, path) else {
            paths.push(path);
            continue;
        };
        let (spool, look) = (Arc::new(spool), |spool: &Spool| spool.pushed(&name, path));
        match look(&spool).or_else(|| spool.wait(Side::Push, &name, deadline, || look(&spool))) {
            Some(pushed) => reports.extend(report_recorded(config, &name, &pushed)),
            None => {
                paths.push(path);
                if let (1, Some(arguments)) = (request.paths.len(), &request.helper) {
                    helper = Some(Arc::new(Start::new(Arc::clone(&spool), wal_directory.clone(), name, arguments.clone())));
                }
            }
        }
        spools.push((spool, wal_directory));
    }
    let memory = spools.first().map(|(spool, wal_directory)| Memory { spool, wal_directory });
    if !paths.is_empty() {
        reports.extend(push(config, &paths, helper.as_ref(), memory.as_ref(), deadline)?);
    }
    if let (Some(memory), Some(arguments)) = (&memory, &request.helper) {
        missed::start(config, memory.spool, arguments);
    }
    for Forgotten { path, record } in forgotten {
        tracing::debug!("{} is stored: the server never offered it", path.display());
        if let Some(record) = record {
            record.keep();
        }
    }
    Ok(reports)
}

/// A history that the server never offered, which goes with the segment of its timeline.
struct Forgotten {
    path: PathBuf,
    /// Where to note that it is stored, so that not every call asks for it anew.
    record: Option<ForgottenRecord>,
}

struct ForgottenRecord {
    spool: Spool,
    name: WalFileName,
    stat: Stat,
    descriptors: String,
}

impl ForgottenRecord {
    fn keep(&self) {
        if let Err(error) = self.spool.record_pushed(&self.name, &self.stat, &self.descriptors, &[], &[]) {
            tracing::debug!(%error, "cannot put on record that {} is stored", self.name);
        }
    }
}

/// The histories that recovery needs on the timeline of a segment and that the server never offered, but for those that a call of the
/// last minutes stored.
fn forgotten(config: &Config, path: &Path) -> Vec<Forgotten> {
    let looked = histories::forgotten(path).into_iter().filter_map(|path| {
        let Some((spool, _, name)) = spool_of(config, &path) else { return Some(Forgotten { path, record: None }) };
        if spool.pushed(&name, &path).is_some() {
            return None;
        }
        // Taken before it is stored: what is replaced meanwhile does not count.
        let record = match (fsio::stat(&path), spool.descriptors()) {
            (Ok(Some(stat)), Some(descriptors)) => Some(ForgottenRecord { spool, name, stat, descriptors }),
            _ => None,
        };
        Some(Forgotten { path, record })
    });
    looked.collect()
}

/// Where it is remembered what failed.
struct Memory<'a> {
    spool: &'a Spool,
    wal_directory: &'a Path,
}

impl Memory<'_> {
    /// The spool, made if need be.
    fn make(&self) -> Option<&Spool> {
        match self.spool.make(self.wal_directory) {
            Ok(()) => Some(self.spool),
            Err(error) => {
                tracing::debug!(%error, "no spool");
                None
            }
        }
    }

    fn ends(this: Option<&Self>, location: &str) {
        if let Some(memory) = this {
            memory.spool.end_outage(location);
        }
    }

    /// Notes that a repository does not answer, and says how long that has been going on.
    fn fails(this: Option<&Self>, location: &str, error: Error) -> Error {
        if error.kind != Kind::Unreachable {
            return error;
        }
        let since =
            this.and_then(Memory::make).map(|spool| spool.note_outage(location, &error.what, true).since()).unwrap_or_default();
        Error { what: format!("{}{since}", error.what), ..error }
    }
}

/// The spool that may know of a file.
fn spool_of(config: &Config, path: &Path) -> Option<(Spool, PathBuf, WalFileName)> {
    let name = WalFileName::parse(path.file_name()?.to_str()?)?;
    let wal_directory = match path.parent()? {
        parent if parent.as_os_str().is_empty() => Path::new("."),
        parent => parent,
    };
    Some((Spool::find(config, wal_directory)?, wal_directory.to_owned(), name))
}

/// What a helper did for this call.
fn report_recorded(config: &Config, name: &WalFileName, pushed: &Pushed) -> Vec<PushReport> {
    for failure in &pushed.failures {
        tracing::error!("{failure}");
    }
    for note in &pushed.notes {
        tracing::warn!("{note}");
    }
    let report = |repository: &RepositoryConfig| {
        let location = repository.store.location();
        let failed =
            repository.optional && pushed.failures.iter().any(|failure| failure.contains(&format!(" {location} did not get ")));
        let outcome = if failed { PushOutcome::Failed } else { PushOutcome::AlreadyStored };
        PushReport { file: name.to_string(), repository: location, outcome, bytes: pushed.bytes, stored_as: None }
    };
    config.repositories.iter().map(report).collect()
}

fn push(
    config: &Config,
    paths: &[&PathBuf],
    helper: Option<&Arc<Start>>,
    memory: Option<&Memory<'_>>,
    deadline: Deadline,
) -> Result<Vec<PushReport>, Error> {
    let files = paths.iter().map(|path| inspect(path, config, &deadline)).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<WalFileName> = files.iter().map(|file| file.name).collect();
    let files = Arc::new(files);
    let outage = |repository: &RepositoryConfig| memory.and_then(|memory| memory.spool.outage(&repository.store.location()));
    // An optional one that fails is not tried by every call: it gets later what it misses now.
    let outcomes: Vec<_> = config
        .repositories
        .iter()
        .map(|repository| {
            outage(repository)
                .filter(|_| repository.optional)
                .map_or_else(|| Ok(start(repository, &config.cluster, &files, helper, deadline)), |outage| Err(outage.said))
        })
        .collect();
    let mut reports = Vec::new();
    let mut failures = Vec::new();
    let (optional, required): (Vec<_>, Vec<_>) = config.repositories.iter().zip(outcomes).partition(|(r, _)| r.optional);
    for (repository, outcome) in required {
        let location = repository.store.location();
        let bug = || Error::new(Kind::Bug, "a thread panicked");
        match outcome.map_or_else(|_| Err(bug()), |receiver| receiver.recv().unwrap_or_else(|_| Err(bug()))) {
            Ok(kept) => {
                Memory::ends(memory, &location);
                reports.extend(report(repository, &files, &kept));
            }
            Err(error) => failures.push(Memory::fails(memory, &location, error)),
        }
    }
    let until = deadline.at_most(OPTIONAL_TIMEOUT);
    for (repository, outcome) in optional {
        let location = repository.store.location();
        let was_tried = outcome.is_ok();
        let said = |said| Error::new(Kind::Unreachable, said);
        let outcome = outcome.map_err(said).and_then(|receiver| match receiver.recv_timeout(until.remaining()) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => {
                let said = repository.store.health().failure().unwrap_or_else(|| "it takes too long".to_owned());
                Err(Error::new(Kind::Unreachable, said))
            }
            Err(RecvTimeoutError::Disconnected) => Err(Error::new(Kind::Bug, "a thread panicked")),
        });
        match outcome {
            Ok(kept) => {
                Memory::ends(memory, &location);
                reports.extend(report(repository, &files, &kept));
            }
            Err(error) => {
                // Not only when it cannot be reached: whatever it is, the next call would only meet it again.
                let spool = memory.and_then(Memory::make);
                let since = spool.map(|spool| spool.note_outage(&location, &error.what, was_tried).since()).unwrap_or_default();
                let why = format!("{error}{}{since}", hint_of(&error));
                tracing::error!("{}", missed::note(spool, &location, &names, &why));
                reports.extend(files.iter().map(|file| file.report(&location, PushOutcome::Failed, None)));
            }
        }
    }
    // One line for all: the server's log is read by people.
    if let Some(error) = one_of_all(failures) {
        let is_named = names.iter().any(|name| error.what.contains(&name.to_string()));
        return Err(match names.as_slice() {
            [name] if !is_named => error.while_doing(name),
            _ => error,
        });
    }
    Ok(reports)
}

/// Pushes to one repository on a thread of its own. A thread that hangs ends with the process; what it was writing is whole or absent.
fn start(
    repository: &RepositoryConfig,
    cluster: &ClusterName,
    files: &Arc<Vec<Inspected>>,
    helper: Option<&Arc<Start>>,
    deadline: Deadline,
) -> Receiver<Result<Vec<Kept>, Error>> {
    let (sender, receiver) = mpsc::channel();
    let (repository, cluster, files, helper) = (repository.clone(), cluster.clone(), Arc::clone(files), helper.cloned());
    let failed = sender.clone();
    let thread = std::thread::Builder::new().spawn(move || {
        // The receiver is gone only when nobody waits for this one any more.
        let _ = sender.send(push_to(&repository, &cluster, &files, helper.as_deref(), deadline));
    });
    if let Err(e) = thread {
        let error = Error::new(Kind::Unreachable, format!("cannot start a thread: {e}"))
            .hint("raise the limits on memory (ulimit -v) or on processes (ulimit -u, TasksMax=)");
        let _ = failed.send(Err(error));
    }
    receiver
}

fn push_to(
    repository: &RepositoryConfig,
    cluster: &ClusterName,
    files: &[Inspected],
    helper: Option<&Start>,
    deadline: Deadline,
) -> Result<Vec<Kept>, Error> {
    let opened = Arc::new(repositories::open_for(repository, cluster, deadline)?);
    let mut stored = Vec::new();
    for file in files {
        opened.bind(cluster, file.facts)?;
        // Not earlier: a helper would meet what keeps us from it.
        if let Some(helper) = helper {
            helper.once();
        }
        let kept = store(&opened, cluster, file)?;
        if let Some(note) = note_on(&kept, opened.location()) {
            tracing::warn!("{note}");
        }
        stored.push(kept);
        if let WalFileName::Segment(segment) = file.name {
            write_nodes(&opened, cluster, file.facts, segment, deadline);
        }
    }
    Ok(stored)
}

/// Stores a file in an opened repository whose binding was checked.
pub(super) fn store(opened: &Repository, cluster: &ClusterName, file: &Inspected) -> Result<Kept, Error> {
    let content = Content::known(file.digest, || Box::new(fsio::reader(&file.file)))
        .with_summary(file.wal_summary.clone())
        .with_compressed(&file.compressed);
    opened.put_wal(cluster, file.facts.system_id, &file.name, &content)
}

/// What to say of a file that did not get the name it has here.
pub(super) fn note_on(kept: &Kept, location: &str) -> Option<String> {
    let StoredName { file, copy } = kept.name;
    (copy > 1 && kept.stored == Stored::New).then(|| {
        let name = kept.name;
        format!("{file} in {location} has other content, or is damaged; this one is kept beside it as {name}: recovery asks for neither")
    })
}

/// Writes the nodes of the catalog that a stored segment completes. Whatever goes wrong there is no reason to say that the segment was
/// not archived: it is logged, and left for the next writer. A thread that hangs ends with the process.
pub(super) fn write_nodes(
    opened: &Arc<Repository>,
    cluster: &ClusterName,
    facts: Facts,
    segment: SegmentName,
    deadline: Deadline,
) {
    let (sender, receiver) = mpsc::channel();
    let (writer, name) = (Arc::clone(opened), cluster.clone());
    let thread = std::thread::Builder::new().spawn(move || {
        // Nobody waits any more if it took too long.
        let _ = sender.send(writer.write_nodes_after(&name, facts, segment));
    });
    if let Err(e) = thread {
        tracing::warn!("the catalog is left for the next push: cannot start a thread: {e}");
        return;
    }
    let error = match receiver.recv_timeout(CATALOG_TIMEOUT.min(deadline.remaining() / 2)) {
        Ok(Ok(_)) => return,
        Ok(Err(e)) => e,
        Err(RecvTimeoutError::Timeout) => Error::new(Kind::Unreachable, "it takes too long"),
        Err(RecvTimeoutError::Disconnected) => Error::new(Kind::Bug, "a thread panicked"),
    };
    let location = opened.location();
    tracing::warn!(
        "{segment} is stored in {location}, but the catalog could not be brought up to date: {error}{}",
        hint_of(&error)
    );
}

fn report(repository: &RepositoryConfig, files: &[Inspected], kept: &[Kept]) -> Vec<PushReport> {
    let location = repository.store.location();
    let report = |(file, kept): (&Inspected, &Kept)| {
        let outcome = match kept.stored {
            Stored::New => PushOutcome::Stored,
            Stored::Same => PushOutcome::AlreadyStored,
        };
        file.report(&location, outcome, (kept.name.copy > 1).then(|| kept.name.to_string()))
    };
    files.iter().zip(kept).map(report).collect()
}

pub(super) fn hint_of(error: &Error) -> String {
    error.hint.as_ref().map_or_else(String::new, |hint| format!(" ({hint})"))
}

/// A file that is what its name says.
pub(super) struct Inspected {
    name: WalFileName,
    file: File,
    /// Its state when it was opened.
    pub(super) stat: Stat,
    digest: Digest,
    /// What the scan found; `None` for files without WAL.
    wal_summary: Option<Vec<u8>>,
    /// The content, where one pass was enough.
    compressed: SharedCompressed,
    pub(super) facts: Facts,
}

impl Inspected {
    fn report(&self, location: &str, outcome: PushOutcome, stored_as: Option<String>) -> PushReport {
        let (file, repository) = (self.name.to_string(), location.to_owned());
        PushReport { file, repository, outcome, bytes: self.digest.bytes, stored_as }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::new(Kind::Config, format!("cannot read {}: {error}", path.display()))
}

/// Opens a file and checks it before anything is sent.
pub(super) fn inspect(path: &Path, config: &Config, deadline: &Deadline) -> Result<Inspected, Error> {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(WalFileName::parse).ok_or_else(|| {
        Error::new(Kind::Usage, format!("{} is not the name of a file that PostgreSQL archives", path.display()))
            .hint("use archive_command = 'walvis push-wal %p'")
    })?;
    let (file, stat) = fsio::open_regular(path).map_err(|e| file_error(Kind::Config, e))?;
    let control = match data_directory(path) {
        Some(directory) => control_file::of_data_directory(&directory, deadline)?,
        None => None,
    };
    let as_named = match name {
        WalFileName::Segment(segment) | WalFileName::Partial(segment) => {
            let mut head = Vec::new();
            fsio::reader(&file).take(64).read_to_end(&mut head).map_err(|e| unreadable(path, &e))?;
            match SegmentCheck::run(segment, &head, stat.size_bytes) {
                Ok(page) => Ok(Some(Facts {
                    system_id: SystemId(page.system_id),
                    wal_segment_size: page.segment_size,
                    postgres_major: Some(page.major),
                })),
                Err(e) => Err(not_as_named(path, &e.to_string())),
            }
        }
        WalFileName::Backup(..) | WalFileName::History(_) => check_text(&name, path, &file).map(|()| None),
    };
    let facts = match (as_named, name) {
        (Ok(Some(facts)), _) => facts,
        (Ok(None), _) => control.ok_or_else(|| unknown_cluster(path))?,
        // Recovery never asks for these: damaged on this disk, they must not keep what it needs from being archived.
        (Err(error), WalFileName::Partial(_) | WalFileName::Backup(..)) if error.kind == Kind::Damaged => {
            let facts = control.ok_or_else(|| unknown_cluster(path))?;
            tracing::warn!("{}: it is archived all the same, as it is: recovery never asks for it", error.what);
            facts
        }
        (Err(error), _) => return Err(error),
    };
    if let Some(expected) = control.map(|c| c.system_id).filter(|expected| *expected != facts.system_id) {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "{} is of system identifier {}, its data directory is {expected}: a foreign file, not archived",
                path.display(),
                facts.system_id
            ),
        )
        .hint("find out how a file of another cluster came into pg_wal"));
    }
    let level = config.repositories.first().map_or(1, |repository| repository.compression_level);
    let takers = config.repositories.iter().filter(|repository| repository.compression_level == level).count();
    // Content of one pass counts only if nobody wrote meanwhile, which the time of change tells unless it is of this very moment.
    let once = fsio::is_settled(&stat).then_some((level, stat.size_bytes));
    let Pass { digest, wal_summary, compressed } =
        read_once(&name, &file, facts.wal_segment_size, once).map_err(|e| unreadable(path, &e))?;
    if fsio::stat_open(&file, path).map_err(|e| file_error(Kind::Config, e))?.changed != stat.changed {
        return Err(Error::new(
            Kind::Damaged,
            format!("{}: the file changed while it was read; nothing was stored", path.display()),
        )
        .hint("PostgreSQL never changes a file that is ready to be archived: find out who writes into pg_wal"));
    }
    Ok(Inspected { name, file, stat, digest, wal_summary, compressed: SharedCompressed::for_takers(takers, compressed), facts })
}

/// What one pass over a file gives.
struct Pass {
    digest: Digest,
    wal_summary: Option<Vec<u8>>,
    compressed: Option<Compressed>,
}

/// Hashes a file, scans what has WAL in it, and compresses it at the level given for its length, in one pass. What the scan finds wrong
/// is for the summary to say, and never keeps a file from being archived: it may be all that is left.
fn read_once(name: &WalFileName, file: &File, size: WalSegmentSize, once: Option<(i32, u64)>) -> io::Result<Pass> {
    let which = match name {
        WalFileName::Segment(segment) | WalFileName::Partial(segment) => Segment::new(*segment, size),
        WalFileName::Backup(..) | WalFileName::History(_) => None,
    };
    let plain = || Ok(Pass { digest: Digest::of(&mut fsio::reader(file))?, wal_summary: None, compressed: None });
    let Some(which) = which else { return plain() };
    // A defect of the scan must not keep a segment from being archived either.
    let scanned = catch_unwind(|| {
        let compressing = once.map(|(level, bytes)| Compressing::new(level, bytes)).transpose()?;
        let mut passes = Passes { scan: Scanner::new(which, ()), compressing };
        let digest = Digest::of_copied(&mut fsio::reader(file), &mut passes)?;
        // Of another length than it had: two passes will tell.
        let compressed = passes.compressing.and_then(|compressing| compressing.finish().ok().flatten());
        Ok::<_, io::Error>((digest, passes.scan.finish().summary, compressed))
    });
    let (digest, summary, compressed) = match scanned {
        Ok(scanned) => scanned?,
        Err(_) => {
            tracing::error!("{name}: the scan failed by a defect of Walvis; it is archived unscanned");
            return plain();
        }
    };
    // A .partial ends in the middle of the log: what follows is whatever the file held before.
    if matches!(name, WalFileName::Segment(_)) {
        match &summary.end {
            End::Damaged(damage) => {
                tracing::warn!("{name}: recovery will stop in it, at {}: {damage}; it is archived all the same", damage.at);
            }
            End::EndOfData { at } => {
                tracing::warn!("{name}: recovery will stop in it, at {at}: there is no more data; it is archived all the same");
            }
            End::Full | End::Continues(_) | End::Continuation | End::Switch { .. } => {}
        }
    }
    Ok(Pass { digest, wal_summary: summary.encode_within(MAX_SUMMARY_BYTES), compressed })
}

/// Lets scan and compression read along.
struct Passes {
    scan: Scanner<()>,
    compressing: Option<Compressing>,
}

impl Write for Passes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.scan.push(bytes);
        if let Some(compressing) = &mut self.compressing
            && compressing.write_all(bytes).is_err()
        {
            // It became longer than it was: two passes will tell.
            self.compressing = None;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn unknown_cluster(path: &Path) -> Error {
    Error::new(
        Kind::Config,
        format!("cannot tell which cluster {} belongs to: it does not lie in a data directory", path.display()),
    )
    .hint("run it in the data directory, as PostgreSQL does: cd DATA_DIRECTORY && walvis push-wal pg_wal/NAME")
}

/// `<data directory>/pg_wal/<file>`; a relative path is relative to the data directory, where PostgreSQL runs the command.
fn data_directory(path: &Path) -> Option<PathBuf> {
    let parent = path.parent()?;
    let directory = parent.parent()?;
    Some(if directory.as_os_str().is_empty() { PathBuf::from(".") } else { directory.to_owned() })
}

fn check_text(name: &WalFileName, path: &Path, file: &File) -> Result<(), Error> {
    let mut bytes = Vec::new();
    fsio::reader(file).take(MAX_HISTORY_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|e| unreadable(path, &e))?;
    if bytes.len() as u64 > MAX_HISTORY_FILE_BYTES {
        return Err(not_as_named(path, &format!("it has more than {MAX_HISTORY_FILE_BYTES} bytes")));
    }
    let checked = match name {
        WalFileName::History(timeline) => TimelineHistory::parse(*timeline, &bytes).map(drop),
        WalFileName::Backup(segment, _) => BackupHistory::parse(*segment, &bytes).map(drop),
        WalFileName::Segment(_) | WalFileName::Partial(_) => Ok(()),
    };
    checked.map_err(|e| not_as_named(path, &e.to_string()))
}

fn not_as_named(path: &Path, why: &str) -> Error {
    Error::new(Kind::Damaged, format!("{} is not what its name says: {why}", path.display())).hint(
        "it was not archived; PostgreSQL will offer it again; if it stays so, the file is damaged on disk: look for a good copy on a standby, take a new base \
         backup, and check the disk",
    )
}
