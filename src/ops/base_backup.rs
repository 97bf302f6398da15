//! `walvis base-backup`: copies a running cluster into a repository. `docs/BACKUP.md` has the design.
//!
//! The backup counts from the moment its manifest is stored, which is the last thing that happens: whatever goes wrong
//! before leaves packs that nothing refers to, and a session whose end ends the backup on the server, too.
use crate::backup::attachments::{self, Named};
use crate::backup::file_list::{self, FileList, Layout};
use crate::backup::manifest_builder::{Manifest, ManifestBuilder};
use crate::backup::pages::Horizon;
use crate::backup::parent::{self, ParentFiles, ParentHead};
use crate::backup::progress::Progress;
use crate::backup::source::{Source, Stopped};
use crate::backup::throttle::Throttle;
use crate::backup::worker::{Shared, Uses, Worker};
use crate::backup::{copy, spoiled, wal};
use crate::config::Config;
use crate::crypto::random_bytes;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::format::manifest::{Attachment, BackupFacts, BackupSummary, DamagedPage, FileEntry, PageChecksums, Tablespace};
use crate::fsio::{self, Attributes, Entered, Identity, as_owner_of, file_error};
use crate::limits::{MAX_LABEL_BYTES, MAX_SUMMARY_WARNINGS, MAX_WARNINGS, MIB};
use crate::pg::data_directory::{BACKUP_LABEL, CONTROL, TABLESPACE_MAP, TABLESPACES, tablespace_version_directory};
use crate::pg::{ControlFile, Lsn, SegmentName, TablespaceMap, Timeline, WalFileName};
use crate::postgres::{archiver, control_file};
use crate::raw_text::{RawText, shown};
use crate::repo::backups::{PackReader, PackTarget, Packed, with_packs};
use crate::repo::{ClusterName, Repository};
use crate::report::backup::BackupReport;
use crate::repositories;
use crate::wal::compare::{self, Held};
use crate::wal::histories;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often a sign of life is sent over the idle session; an answer is the proof that it still is there.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);
/// Most workers. Each fills a pack of at least 8 MiB: more would not fit into the memory that is promised.
const MAX_JOBS: usize = 16;

/// What is asked.
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
    /// What to note.
    pub annotations: BTreeMap<String, String>,
    /// How to connect to the primary of the standby that is read.
    pub primary: Option<String>,
}

/// What the caller wants to be asked and told.
pub struct Hooks<'a> {
    /// Asked several times a second: an error ends the backup.
    pub go_on: &'a dyn Fn() -> Result<(), Error>,
    /// Told several times a second.
    pub progress: &'a dyn Fn(Progress),
}

/// As root, acts as the owner of the data directory, so that nothing comes into the backup that this user could not
/// read: neither by a link there, nor by what the server says of itself. Threads that are started meanwhile do the
/// same.
fn as_server(data_directory: &Path) -> Result<Entered, Error> {
    let entered = as_owner_of(data_directory)?;
    if Identity::current().owner().uid == 0 {
        return Err(Error::new(
            Kind::Refused,
            format!("{} belongs to root, and no PostgreSQL server runs as root", shown(data_directory)),
        )
        .hint("name the data directory of the server with --pgdata"));
    }
    Ok(entered)
}

/// Takes a backup into the first repository.
///
/// `deadline` bounds single requests, not the backup; it is also how long the archiver may make no progress at the end.
///
/// # Errors
/// [`Kind::Server`]: the server, its archiver, or the session; [`Kind::Config`]: a file cannot be read;
/// [`Kind::Refused`]: another server's directory, or another cluster's name; as the store's. Damaged pages are no error
/// here: they are in the report.
pub fn run(config: &Config, request: &BackupRequest, deadline: Deadline, hooks: &Hooks<'_>) -> Result<BackupReport, Error> {
    let since = Instant::now();
    check_request(request)?;
    fsio::try_scratch().map_err(|e| file_error(Kind::Config, e))?;
    let (settings, repository) = repositories::for_backups(config, deadline)?;
    let source = Source::connect(config.server.as_deref(), request.pgdata.as_deref(), deadline)?;
    let _as = as_server(&source.data_directory)?;
    let control = read_control(&source.data_directory, &deadline)?;
    source.check_directory(&control)?;
    if let Some(primary) = &request.primary {
        if !source.in_recovery {
            return Err(Error::new(Kind::Usage, "--primary is for backups of a standby, and the server is the primary itself"));
        }
        // Before hours of copying rather than after: a switch too many costs nothing.
        wal::switch_on_primary(primary, source.facts(), deadline)?;
    }
    source.check_archiving(
        &|| wal::arrives(&repository, &config.cluster, source.facts(), control.timeline, control.checkpoint),
        hooks.go_on,
    )?;
    repository.bind(&config.cluster, source.facts())?;
    compare::refuse_set_back(&repository, &config.cluster, source.facts(), &source.server)?;
    let wal_directory = source.data_directory.join("pg_wal");
    // Now rather than after hours of copying; a standby may be on another timeline then.
    let timeline = Timeline(source.timeline(control.timeline)?);
    histories::ensure(&repository, &config.cluster, source.system_id, timeline, &wal_directory)?;
    let jobs = request.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, Into::into)).clamp(1, MAX_JOBS);
    let started = jiff::Timestamp::now();
    let random = random_bytes().map_err(|e| Error::new(Kind::Bug, e))?;
    let id = BackupId::begun_at(started.as_microsecond(), u32::from_le_bytes(random))
        .ok_or_else(|| Error::new(Kind::Config, format!("the clock says {started}")))?;
    let label = request.label.clone().unwrap_or_else(|| format!("walvis {id}"));
    let backup = Backup {
        repository: &repository,
        cluster: &config.cluster,
        source: &source,
        control,
        request,
        deadline,
        hooks,
        id,
        jobs,
        level: settings.backup_compression_level,
        is_required: !settings.optional,
        signed: std::cell::Cell::new(Instant::now()),
    };
    let mut warnings = Vec::new();
    let parent = parent::read_newest(&repository, &config.cluster, source.system_id, &mut warnings)?;
    let copied = backup.copy(&label, parent, warnings)?;
    let stopped_at = jiff::Timestamp::now();
    let waiting = Instant::now();
    backup.wait_for_wal(&copied)?;
    histories::ensure(&repository, &config.cluster, source.system_id, copied.stop_timeline, &wal_directory)?;
    let waited = waiting.elapsed();
    backup.check_databases(&copied)?;
    let Copied { stopped, manifest, facts, pages, reused_bytes, packed, parent, .. } = copied;
    let summary = BackupSummary {
        id,
        label,
        started_unix_us: started.as_microsecond(),
        stopped_unix_us: stopped_at.as_microsecond(),
        start_lsn: stopped.label.start,
        checkpoint_lsn: stopped.label.checkpoint,
        stop_lsn: stopped.stop,
        timeline: stopped.label.timeline.0,
        system_id: source.system_id.to_string(),
        postgres_version_num: source.version_num,
        catalog_version: backup.control.catalog_version,
        wal_segment_bytes: source.wal_segment_size.bytes(),
        from_standby: stopped.label.from_standby,
        files: manifest.files,
        bytes: manifest.bytes,
        new_bytes: packed.stored_bytes,
        reused_bytes,
        stored_bytes: manifest.stored_bytes,
        pages,
        parent: parent.as_ref().map(|parent| parent.id),
        data_directory: source.data_directory.as_path().into(),
        jobs: u32::try_from(jobs).unwrap_or(u32::MAX),
        warnings: facts.warnings.iter().take(MAX_SUMMARY_WARNINGS).cloned().collect(),
        warnings_total: facts.warnings.len() as u64,
        parameters: Some(backup.control.parameters),
    };
    let manifest = manifest.finish(&facts, |pack| {
        let known = parent.as_ref().and_then(|parent| parent.total_bytes.get(&pack));
        packed.packs.get(&pack).or(known).copied()
    })?;
    (hooks.go_on)()?;
    repository.put_manifest(&config.cluster, source.system_id, &summary, || Box::new(manifest.bytes()))?;
    let times = (since.elapsed(), waited);
    Ok(BackupReport::new(repository.location(), &config.cluster.to_string(), summary, facts, times))
}

fn check_request(request: &BackupRequest) -> Result<(), Error> {
    let usage = |what: String, hint: &str| Err(Error::new(Kind::Usage, what).hint(hint));
    if let Some(label) = &request.label
        && (label.len() > MAX_LABEL_BYTES || label.chars().any(char::is_control))
    {
        return usage(
            format!("a label of {} bytes with this content cannot be used", label.len()),
            "use at most 500 bytes and no line breaks",
        );
    }
    if request.jobs == Some(0) || request.max_rate_mib_per_s == Some(0) {
        return usage("--jobs and --max-rate are at least 1".to_owned(), "leave the option out for the default");
    }
    Ok(())
}

/// What `pg_control` says now.
fn read_control(data_directory: &Path, deadline: &Deadline) -> Result<ControlFile, Error> {
    let found = control_file::control_of(data_directory, deadline)?;
    let (control, _) = found.ok_or_else(|| {
        Error::new(Kind::Config, format!("{} is no data directory that can be seen from here", data_directory.display()))
            .hint("run the backup on the database host, or name the directory with --pgdata")
    })?;
    Ok(control)
}

/// What the manifest keeps of it.
fn tablespaces(map: &TablespaceMap) -> Vec<Tablespace> {
    let entry = |(oid, path): &(Vec<u8>, Vec<u8>)| {
        Some(Tablespace { oid: std::str::from_utf8(oid).ok()?.parse().ok()?, path: path.clone().into() })
    };
    map.entries.iter().filter_map(entry).collect()
}

/// A backup under way.
struct Backup<'a> {
    repository: &'a Repository,
    cluster: &'a ClusterName,
    source: &'a Source<'a>,
    control: ControlFile,
    request: &'a BackupRequest,
    deadline: Deadline,
    hooks: &'a Hooks<'a>,
    id: BackupId,
    jobs: usize,
    level: i32,
    /// Whether every push has to store in this repository.
    is_required: bool,
    /// When the session last answered.
    signed: std::cell::Cell<Instant>,
}

/// What is there when all files are stored.
struct Copied {
    stopped: Stopped,
    stop_timeline: Timeline,
    manifest: Manifest,
    facts: BackupFacts,
    pages: PageChecksums,
    reused_bytes: u64,
    packed: Packed,
    parent: Option<ParentHead>,
}

impl Backup<'_> {
    /// Starts the backup on the server, copies everything, and ends it.
    fn copy(&self, label: &str, parent: Option<(ParentHead, ParentFiles)>, warnings: Vec<String>) -> Result<Copied, Error> {
        let source = self.source;
        (self.hooks.progress)(Progress::Starting);
        let mut named = attachments::find(&source.server, &source.data_directory);
        let start = source.start(label, self.request.fast, self.hooks.go_on)?;
        self.check_checkpoint()?;
        tracing::info!("backup {} begins at {start}", self.id);
        let (parent, files) = parent.unzip();
        // A parent whose key makes no sense is of no use.
        let inherited = parent.as_ref().and_then(|parent| hex::decode(&parent.hash_key).ok()?.try_into().ok());
        let (parent, files) = if inherited.is_some() { (parent, files) } else { (None, None) };
        let hash_key = match inherited {
            Some(key) => key,
            None => random_bytes().map_err(|e| Error::new(Kind::Bug, e))?,
        };
        let version_directory = tablespace_version_directory(source.major(), self.control.catalog_version);
        let layout = Layout {
            data_directory: &source.data_directory,
            postgres_major: source.major(),
            version_directory: &version_directory,
            statistics: source.statistics.as_deref(),
            named: &named.below,
        };
        let mut list = FileList::gather(&layout, self.hooks.go_on)?;
        let nothing = HashSet::new();
        let shared = Shared {
            data_directory: &source.data_directory,
            hash_key,
            packs_not_reused: parent.as_ref().map_or(&nothing, |parent| &parent.packs_not_reused),
            reader: PackReader::new(self.repository, self.cluster, source.system_id),
            start,
            page_checksums: self.control.page_checksums,
            horizon: Horizon::of(&source.server, source.in_recovery, start),
            throttle: Throttle::new(self.request.max_rate_mib_per_s.map(|mib| mib.saturating_mul(MIB as u64))),
            stop: AtomicBool::new(false),
            read_bytes: AtomicU64::new(0),
        };
        let warnings = [warnings, std::mem::take(&mut list.warnings), std::mem::take(&mut named.warnings)].concat();
        let target = PackTarget::for_jobs(self.repository, self.cluster, source.system_id, self.id, self.level, self.jobs);
        let ((gather, late, stopped, attached), packed) = with_packs(&target, |writers| {
            let mut gather = ManifestBuilder::new(&source.data_directory, warnings)?;
            let packs = (0..self.jobs).map(|_| writers.writer()).collect::<Result<Vec<_>, _>>()?;
            // A standby's archiver, if it has one, is not the one that counts.
            let watch = match source.in_recovery {
                true => None,
                false => Some(archiver::Watch::new(&source.server, Some(&source.data_directory), true)?),
            };
            let watch = std::cell::RefCell::new(watch);
            copy::copy(&shared, &list, files, packs, &mut gather, &|| self.tick(&shared, &list, &watch))?;
            let mut last = Worker::new(&shared, writers.writer()?);
            let (control, stopped) = (self.control_file(&mut last)?, source.stop(self.hooks.go_on)?);
            let attached = self.attach(&mut last, &named, parent.as_ref(), &mut gather)?;
            let mut late = vec![control];
            late.extend(self.said_files(&mut last, &stopped)?);
            last.finish()?;
            Ok((gather, late, stopped, attached))
        })?;
        let stop_timeline = Timeline(source.stop_timeline(stopped.label.timeline.0)?);
        let pages = PageChecksums { enabled: self.control.page_checksums, verified: gather.verified, damaged: gather.damaged };
        let reused_bytes = gather.reused_bytes;
        let (manifest, facts) = self.finish_manifest(gather, late, &stopped, hash_key, attached)?;
        drop(shared);
        Ok(Copied { stopped, stop_timeline, manifest, facts, pages, reused_bytes, packed, parent })
    }

    /// The checkpoint that the server knows is the one in the directory: another proof that the two belong together,
    /// since a standby of the same cluster has the same system identifier.
    fn check_checkpoint(&self) -> Result<(), Error> {
        let mut seen = (String::new(), String::new());
        for _ in 0..10 {
            let server = self.source.server.value("SELECT checkpoint_lsn FROM pg_catalog.pg_control_checkpoint()")?;
            let directory = read_control(&self.source.data_directory, &self.deadline)?.checkpoint.to_string();
            if server == directory {
                return Ok(());
            }
            seen = (server, directory);
            // Another checkpoint came in between.
            thread::sleep(Duration::from_millis(100));
        }
        let path = self.source.data_directory.display();
        let (server, directory) = seen;
        Err(Error::new(
            Kind::Refused,
            format!("{path} is not the data directory of the server that was asked: its checkpoint is {directory}, the server's {server}"),
        )
        .hint("name the directory with --pgdata and the server with --server"))
    }

    /// Whether to go on: asked several times a second.
    fn tick(
        &self,
        shared: &Shared<'_>,
        list: &FileList,
        watch: &std::cell::RefCell<Option<archiver::Watch<'_>>>,
    ) -> Result<(), Error> {
        (self.hooks.go_on)()?;
        let done_bytes = shared.read_bytes.load(Ordering::Relaxed);
        (self.hooks.progress)(Progress::Reading { done_bytes, total_bytes: list.bytes, files: list.files });
        let lost = "the session on the server ended, and with it the backup";
        let hint = "did the server restart? The backup does not count; take another one";
        let say_if_lost = |e: Error| if self.source.server.is_closed() { Error::new(Kind::Server, lost).hint(hint) } else { e };
        if self.source.server.is_closed() {
            return Err(Error::new(Kind::Server, lost).hint(hint));
        }
        if self.signed.get().elapsed() < SIGN_OF_LIFE {
            return Ok(());
        }
        let statement = "SELECT last_archived_wal FROM pg_catalog.pg_stat_archiver";
        let row = self.source.server.row(statement).map_err(|e| say_if_lost(e.while_doing(lost).hint(hint)))?;
        self.signed.set(Instant::now());
        // Now rather than after hours: what fails now would keep the backup from counting.
        if let Some(watch) = watch.borrow_mut().as_mut() {
            watch.look(None, self.hooks.go_on).map_err(say_if_lost)?;
        }
        let archived = row.and_then(|row| row.into_iter().next()).flatten();
        self.check_archived(shared.start, archived.as_deref())
    }

    /// What the server says it archived since the backup began has to be in the repository: better to find out now that
    /// it goes elsewhere than after hours of copying.
    fn check_archived(&self, start: Lsn, archived: Option<&str>) -> Result<(), Error> {
        let size = self.source.wal_segment_size;
        let Some(name) = archived.and_then(SegmentName::parse).filter(|_| self.is_required && !self.source.in_recovery) else {
            return Ok(());
        };
        if name.start(size).is_none_or(|first| first < start) {
            return Ok(());
        }
        let (file, wal) = (WalFileName::Segment(name), self.source.data_directory.join("pg_wal"));
        let local = wal.join(file.to_string());
        match compare::compare(self.repository, self.cluster, self.source.facts(), &file, &local)? {
            Held::Same | Held::Unknown => return Ok(()),
            Held::Other => return Err(compare::other_content(&file, self.repository)),
            Held::Absent => {}
        }
        Err(Error::new(
            Kind::Server,
            format!("the server says that it archived {name}, but {} does not hold it", self.repository.location()),
        )
        .hint("is archive_command 'walvis push-wal %p', with this repository and cluster name? 'walvis check' tells"))
    }

    /// `pg_control`, read until its checksum fits, after everything else: on a standby it says how far recovery has to
    /// come.
    fn control_file(&self, worker: &mut Worker<'_, '_>) -> Result<(FileEntry, Uses), Error> {
        let found = control_file::control_of(&self.source.data_directory, &self.deadline)?;
        let path = file_list::real(&self.source.data_directory, CONTROL);
        let attributes = fsio::attributes(&path).map_err(|e| file_error(Kind::Config, e))?;
        let (Some((_, bytes)), Some(attributes)) = (found, attributes) else {
            return Err(Error::new(Kind::Config, format!("{} is gone", path.display())));
        };
        worker.content(CONTROL, &attributes, &bytes)
    }

    /// What the server says at the end, as the files that recovery wants.
    fn said_files(&self, worker: &mut Worker<'_, '_>, stopped: &Stopped) -> Result<Vec<(FileEntry, Uses)>, Error> {
        let directory = fsio::attributes(&self.source.data_directory).map_err(|e| file_error(Kind::Config, e))?;
        let Some(directory) = directory else {
            return Err(Error::new(Kind::Config, format!("{} is gone", self.source.data_directory.display())));
        };
        // As the server would: its group may read if it may read the directory.
        let mode = if directory.mode & 0o040 == 0 { 0o600 } else { 0o640 };
        let modified_unix_us = jiff::Timestamp::now().as_microsecond();
        let attributes = Attributes { mode, modified_unix_us, ..directory };
        let mut files = vec![worker.content(BACKUP_LABEL, &attributes, &stopped.label_file)?];
        if !stopped.map_file.is_empty() {
            files.push(worker.content(TABLESPACE_MAP, &attributes, &stopped.map_file)?);
        }
        Ok(files)
    }

    /// Stores the files outside the data directory that the server's settings name. One that cannot be read is a
    /// warning: the cluster is whole without it.
    fn attach(
        &self,
        worker: &mut Worker<'_, '_>,
        named: &Named,
        parent: Option<&ParentHead>,
        gather: &mut ManifestBuilder<'_>,
    ) -> Result<Vec<Attachment>, Error> {
        let owner = attachments::owner_of(&self.source.data_directory)?;
        let mut attached = Vec::new();
        for file in &named.outside {
            (self.hooks.go_on)()?;
            match attachments::read(file, owner) {
                Ok(read) => {
                    let path = RawText::from(file.path.as_path());
                    let known = parent.and_then(|parent| parent.attachments.iter().find(|known| known.path == path));
                    let known = known.map_or(&[][..], |known| &known.extents);
                    let (attachment, uses) = worker.attach(path, file.setting, &read.attributes, &read.content, known)?;
                    gather.use_also(&uses);
                    attached.push(attachment);
                }
                Err(warning) => gather.warn(warning),
            }
        }
        Ok(attached)
    }

    /// Puts the manifest together. A tablespace that was made after the backup began is in the log, and must not be in
    /// the backup.
    fn finish_manifest(
        &self,
        mut gather: ManifestBuilder<'_>,
        late: Vec<(FileEntry, Uses)>,
        stopped: &Stopped,
        hash_key: [u8; 32],
        attachments: Vec<Attachment>,
    ) -> Result<(Manifest, BackupFacts), Error> {
        let map = TablespaceMap::parse(&stopped.map_file)
            .ok_or_else(|| Error::new(Kind::Server, "the server's tablespace_map makes no sense"))?;
        let links = self.linked_tablespaces()?;
        let known: HashSet<&[u8]> = map.entries.iter().map(|(oid, _)| oid.as_slice()).collect();
        let keep = |path: &[u8]| match path.strip_prefix(TABLESPACES).and_then(|rest| rest.strip_prefix(b"/")) {
            Some(rest) => {
                let oid = rest.split(|byte| *byte == b'/').next().unwrap_or_default();
                known.contains(oid) || !links.contains(oid)
            }
            None => true,
        };
        let mut damage: Vec<DamagedPage> = std::mem::take(&mut gather.damage)
            .into_iter()
            .map(|damage| DamagedPage { file: damage.path.into(), block: damage.block, relation: None, detail: damage.detail })
            .collect();
        self.source.name_relations(&mut damage);
        let mut warnings = std::mem::take(&mut gather.warnings);
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        warnings.truncate(MAX_WARNINGS);
        let facts = BackupFacts {
            hash_key: hex::encode(hash_key),
            databases: self.source.databases.clone(),
            tablespaces: tablespaces(&map),
            annotations: self.request.annotations.clone(),
            damage,
            warnings,
            attachments,
        };
        Ok((gather.merge(late, &keep)?, facts))
    }

    /// Names of the links to tablespaces as they are now; what is no link is a tablespace in place.
    fn linked_tablespaces(&self) -> Result<HashSet<Vec<u8>>, Error> {
        use std::os::unix::ffi::OsStringExt;
        let path = file_list::real(&self.source.data_directory, TABLESPACES);
        let config = |e| file_error(Kind::Config, e);
        let Some(found) = fsio::scan_live(&path).map_err(config)? else { return Ok(HashSet::new()) };
        Ok(found.links().map_err(config)?.into_iter().map(OsStringExt::into_vec).collect())
    }

    /// What the WAL says that was done to databases meanwhile must not have made the backup useless.
    fn check_databases(&self, copied: &Copied) -> Result<(), Error> {
        let timelines = (copied.stopped.label.timeline, copied.stop_timeline);
        let range = (copied.stopped.label.start, copied.stopped.stop);
        let spoiled = spoiled::databases(self.repository, self.cluster, self.source.facts(), timelines, range)?;
        let name = |oid: u32| {
            let known = copied.facts.databases.iter().find(|database| database.oid == oid).map(|database| database.name.clone());
            let asked = || {
                let expression = format!("(SELECT datname FROM pg_catalog.pg_database WHERE oid = {oid})");
                self.source.server.text(&expression).ok().flatten()
            };
            known.or_else(asked).map_or_else(|| format!("with oid {oid}"), |name| format!("{name} (oid {oid})"))
        };
        match spoiled::error(&spoiled, &name) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn wait_for_wal(&self, copied: &Copied) -> Result<(), Error> {
        (self.hooks.progress)(Progress::WaitingForWal);
        if let Some(primary) = &self.request.primary {
            wal::switch_on_primary(primary, self.source.facts(), self.deadline)?;
        }
        let needed = wal::NeededWal {
            repository: self.repository,
            cluster: self.cluster,
            facts: self.source.facts(),
            start: copied.stopped.label.start,
            stop: copied.stopped.stop,
            timelines: (copied.stopped.label.timeline, copied.stop_timeline),
        };
        needed.wait(self.source, self.deadline.limit(), self.hooks.go_on)
    }
}
