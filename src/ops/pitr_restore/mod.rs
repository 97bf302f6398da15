//! `walvis pitr-restore`: a base backup put in place, and the server told to recover it to a target. `docs/BACKUP.md` has the steps.
//!
//! Here is what happens in which order. [`place`] says whether a directory may be taken, [`files`] restores with [`extents`] and
//! [`sweep`], [`mod@start`] starts the server and waits.

pub mod extents;
pub mod files;
pub mod locks;
pub mod place;
pub mod start;
mod sweep;

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::repositories;
use super::resolve::report::{ResolveReport, Setting};
use super::resolve::{self, ResolveRequest};
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::format::manifest::{BackupFacts, BackupSummary};
use crate::fsio::{self, Access, Problem, Rebuild};
use crate::pg::data_directory::directories_in_wal;
use crate::pg::settings::{Invocation, TargetAction, recovery_settings};
use crate::pg::target::Target;
use crate::raw_text::RawText;
use crate::repo::{Facts, Repository};
use files::{How, Owners, Restored, Source, Survey};
use place::{NOTE, Note, Place, local};
use start::{Goal, Started};

/// Threads where nobody says how many.
const MAX_DEFAULT_JOBS: usize = 32;
/// Longest `postgresql.auto.conf`.
const MAX_SETTINGS_BYTES: usize = 16 * 1024 * 1024;
const SETTINGS: &str = "postgresql.auto.conf";
/// Room that is left for the first WAL segments of recovery.
const SPARE_SEGMENTS: u64 = 2;

/// Which tablespace is to be put elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TablespaceKey {
    /// By its object id.
    Oid(u32),
    /// By the directory it was in.
    Path(RawText),
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The directory to make.
    pub pgdata: PathBuf,
    /// The target, and from which backup.
    pub target: ResolveRequest,
    /// What the server does at the target.
    pub action: TargetAction,
    /// Tablespaces that are put elsewhere.
    pub tablespace_map: Vec<(TablespaceKey, PathBuf)>,
    /// Whether the data directory of a stopped server may be taken over.
    pub delta: bool,
    /// Whether only the plan is wanted.
    pub plan: bool,
    /// Whether the server is started.
    pub start: bool,
    /// Whether it archives as the original does.
    pub archiving: bool,
    /// Threads; `None`: one per core.
    pub jobs: Option<usize>,
    /// Where the server's programs are.
    pub bin_dir: Option<PathBuf>,
    /// How the server calls this program.
    pub invocation: Invocation,
}

/// What will be done, and what came of the target.
#[derive(Debug, Serialize)]
pub struct PlanReport {
    /// Where recovery stops, and from which backup.
    pub resolve: ResolveReport,
    /// The rest; nothing where the target is not reached.
    pub restore: Option<RestorePlan>,
}

/// What will be done.
#[derive(Debug, Serialize)]
pub struct RestorePlan {
    /// The data directory.
    pub pgdata: PathBuf,
    /// `absent`, `empty`, `unfinished` or `cluster`: what is there now.
    pub place: &'static str,
    /// PostgreSQL's major version.
    pub postgres_major: u32,
    /// Files.
    pub files: u64,
    /// Their length.
    pub bytes: u64,
    /// Bytes that are free there, for an ordinary user.
    pub available_bytes: u64,
    /// Tablespaces, and where they go.
    pub tablespaces: Vec<TablespacePlan>,
    /// The user that files will belong to.
    pub owner: Option<String>,
    /// Settings that are added.
    pub settings: Vec<Setting>,
    /// Whether the restored server archives as the original does.
    pub archiving: bool,
    /// Threads.
    pub jobs: usize,
    /// The programs that start the server, if they do.
    pub programs: Option<PathBuf>,
    /// What else to know.
    pub notes: Vec<String>,
}

/// Where a tablespace goes.
#[derive(Debug, Serialize)]
pub struct TablespacePlan {
    /// Object id.
    pub oid: u32,
    /// Where it was.
    pub from: RawText,
    /// Where it will be.
    pub to: PathBuf,
    /// Length of its files.
    pub bytes: u64,
}

/// What was done.
#[derive(Debug, Serialize)]
pub struct RestoreReport {
    /// The plan.
    pub plan: PlanReport,
    /// The files; nothing if only the plan was asked for.
    pub restored: Option<Restored>,
    /// The server, if it was started.
    pub server: Option<Started>,
}

/// Is shown the plan before anything is done.
pub type OnPlan<'a> = &'a mut dyn FnMut(&PlanReport) -> Result<(), Error>;

/// Restores.
///
/// # Errors
/// [`Kind::Target`] when the target is out of reach; [`Kind::Refused`] when the directory may not be taken; [`Kind::Damaged`] when
/// what is stored is; [`Kind::Server`] when the server does not reach the target; others. What is begun and not finished cannot be
/// started, and the same command goes on with it.
pub fn run(config: &Config, request: &RestoreRequest, deadline: Deadline, on_plan: OnPlan<'_>) -> Result<RestoreReport, Error> {
    let (repository, resolved) = resolve_in_any(config, request, deadline)?;
    let chosen = resolved.backup.as_ref().and_then(|backup| backup.id.as_deref()).and_then(BackupId::parse);
    let Some(id) = chosen.filter(|_| resolved.reachable) else {
        let error = out_of_reach(&resolved);
        on_plan(&PlanReport { resolve: resolved, restore: None })?;
        return Err(error);
    };
    let facts = repositories::facts(&repository, &config.cluster)?;
    let summary = repository
        .backup_summary(&config.cluster, facts.system_id, id)?
        .ok_or_else(|| Error::new(Kind::Target, format!("backup {id} is gone")).hint("try again to have another one chosen"))?;
    let source = Source { repository: &repository, cluster: &config.cluster, system_id: facts.system_id, summary: &summary };
    let job = Job::prepare(source, facts, request, &resolved, deadline)?;
    let plan = PlanReport { restore: Some(job.plan(&resolved)?), resolve: resolved };
    on_plan(&plan)?;
    if request.plan {
        return Ok(RestoreReport { plan, restored: None, server: None });
    }
    let settings = plan.restore.as_ref().map(|restore| restore.settings.as_slice()).unwrap_or_default();
    let restored = job.restore(settings)?;
    let server = match &job.programs {
        Some(programs) => {
            let goal = goal(&plan.resolve, request, &summary);
            Some(start::start(&job.pgdata, programs, job.owners_of_root(), &goal, &deadline)?)
        }
        None => None,
    };
    Ok(RestoreReport { plan, restored: Some(restored), server })
}

/// The first repository from which the target is reached; if there is none, what the first one says.
fn resolve_in_any(config: &Config, request: &RestoreRequest, deadline: Deadline) -> Result<(Repository, ResolveReport), Error> {
    let mut first: Option<Result<(Repository, ResolveReport), Error>> = None;
    for settings in &config.repositories {
        let answer = repositories::open(settings, deadline).and_then(|repository| {
            let facts = repositories::facts(&repository, &config.cluster)?;
            let report = resolve::answer(&repository, &config.cluster, facts, &request.target)?;
            Ok((repository, report))
        });
        match answer {
            Ok((repository, report)) if report.reachable && report.backup.as_ref().is_some_and(|b| b.id.is_some()) => {
                return Ok((repository, report));
            }
            other => {
                if let (Err(e), true) = (&other, config.repositories.len() > 1) {
                    tracing::warn!("{}: {e}", settings.store.location());
                }
                first.get_or_insert(other);
            }
        }
    }
    first.unwrap_or_else(|| Err(Error::new(Kind::Config, "no repository is configured")))
}

fn out_of_reach(resolved: &ResolveReport) -> Error {
    if resolved.reachable {
        let what = format!("no base backup in {} leads to {}", resolved.repository, resolved.target);
        // With none left the damage is what matters.
        if let Some(why) = resolved.damaged_backups.first() {
            return Error::new(Kind::Damaged, format!("{what} that can be read: {why}"))
                .hint("'walvis list' shows the backups; take a new one, and look at what damages the store");
        }
        return Error::new(Kind::Target, what).hint(
            "'walvis list' shows the backups; look for an older one in another repository: a new one leads only to later moments",
        );
    }
    let reason = resolved.reason.clone().unwrap_or_default();
    let error = Error::new(Kind::Target, format!("{} cannot be reached: {reason}", resolved.target));
    Error { hint: resolved.hint.clone(), ..error }
}

fn goal(resolved: &ResolveReport, request: &RestoreRequest, summary: &BackupSummary) -> Goal {
    let is_immediate = request.target.target == Target::Immediate;
    let stop = resolved.stop.as_ref().and_then(|stop| Some((stop.lsn.parse().ok()?, stop.replayed)));
    Goal { stop, consistent_at: is_immediate.then_some(summary.stop_lsn), action: request.action }
}

/// A restore that is about to be done.
struct Job<'a> {
    source: Source<'a>,
    request: &'a RestoreRequest,
    pgdata: PathBuf,
    place: Place,
    note: Note,
    survey: Survey,
    tablespaces: Vec<(u32, RawText, PathBuf)>,
    jobs: usize,
    programs: Option<PathBuf>,
    deadline: Deadline,
}

impl<'a> Job<'a> {
    /// Checks everything that can be checked without writing.
    fn prepare(
        source: Source<'a>,
        facts: Facts,
        request: &'a RestoreRequest,
        resolved: &ResolveReport,
        deadline: Deadline,
    ) -> Result<Self, Error> {
        let pgdata = std::path::absolute(&request.pgdata)
            .map_err(|e| Error::new(Kind::Usage, format!("--pgdata {}: {e}", request.pgdata.display())))?;
        let mut note = Note {
            about: "walvis pitr-restore writes here and is not finished: a server cannot start in this directory. Run it again to go on."
                .to_owned(),
            repository_id: hex::encode(source.repository.descriptor().repository_id),
            cluster: resolved.cluster.clone(),
            system_id: facts.system_id.to_string(),
            backup: source.summary.id,
            tablespaces: Vec::new(),
        };
        let place = place::look(&pgdata, request.delta, &note, &deadline)?;
        let programs = match request.start {
            true => Some(start::find_programs(request.bin_dir.as_deref(), source.postgres_major())?),
            false => None,
        };
        let survey = files::survey(&source)?;
        let tablespaces = map_tablespaces(&survey.facts, &request.tablespace_map)?;
        for (oid, _, to) in &tablespaces {
            place::check_tablespace(*oid, to, &pgdata, &place)?;
            note.tablespaces.push(to.clone());
        }
        // Each waits for the repository and for the disk, too.
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let jobs = request.jobs.unwrap_or((2 * cores).min(MAX_DEFAULT_JOBS)).max(1);
        let job = Self { source, request, pgdata, place, note, survey, tablespaces, jobs, programs, deadline };
        job.check_room()?;
        Ok(job)
    }

    fn owners(&self) -> Owners {
        Owners::new(&self.pgdata, self.survey.root.as_ref())
    }

    fn owners_of_root(&self) -> Option<fsio::Owner> {
        self.owners().of_root()
    }

    fn plan(&self, resolved: &ResolveReport) -> Result<RestorePlan, Error> {
        let owners = self.owners();
        let mut settings = vec![Setting::new("restore_command", self.request.invocation.restore_command())];
        settings.extend(resolved.settings.iter().map(|setting| Setting::new(setting.name, setting.value.clone())));
        let mut notes = Vec::new();
        if resolved.stop.is_some() || self.request.target.target == Target::Immediate {
            settings.push(Setting::new("recovery_target_action", self.request.action.as_str().to_owned()));
        } else {
            notes.push(
                "recovery goes on to the end of the archive, and the server then takes writes on a new timeline".to_owned(),
            );
        }
        if self.request.archiving {
            notes.push(
                "the restored server archives as the original does: give it another cluster name, unless the original is gone"
                    .to_owned(),
            );
        }
        if nix::unistd::geteuid().is_root() && owners.of_root().is_none() {
            notes.push("no user is known that could own the files: they will be root's, and no server starts as root".to_owned());
        }
        if self.source.summary.pages.damaged > 0 {
            notes.push(format!("{} pages were damaged when the backup was taken", self.source.summary.pages.damaged));
        }
        let tablespace = |(oid, from, to): &(u32, RawText, PathBuf)| TablespacePlan {
            oid: *oid,
            from: from.clone(),
            to: to.clone(),
            bytes: self.survey.tablespace_bytes.get(oid).copied().unwrap_or_default(),
        };
        Ok(RestorePlan {
            pgdata: self.pgdata.clone(),
            place: match self.place {
                Place::Absent => "absent",
                Place::Empty => "empty",
                Place::Unfinished(_) => "unfinished",
                Place::Cluster => "cluster",
            },
            postgres_major: self.source.postgres_major(),
            files: self.survey.files,
            bytes: self.source.summary.bytes,
            available_bytes: fsio::available_bytes(existing(&self.pgdata)?).map_err(local)?,
            tablespaces: self.tablespaces.iter().map(tablespace).collect(),
            owner: owners.describe(),
            settings,
            archiving: self.request.archiving,
            jobs: self.jobs,
            programs: self.programs.clone(),
            notes,
        })
    }

    /// Whether there is room for all files, on each file system. What is there already counts as room.
    fn check_room(&self) -> Result<(), Error> {
        let segments = SPARE_SEGMENTS * self.source.summary.wal_segment_bytes;
        let mut needs = vec![(self.pgdata.as_path(), self.survey.bytes.saturating_add(segments))];
        for (oid, _, to) in &self.tablespaces {
            needs.push((to.as_path(), self.survey.tablespace_bytes.get(oid).copied().unwrap_or_default()));
        }
        let mut devices: Vec<(u64, &Path, u64, u64)> = Vec::new();
        for (path, bytes) in needs {
            let there = existing(path)?;
            let device = fsio::stat(there).map_err(local)?.map_or(0, |stat| stat.dev);
            let reused = if self.place.is_reused() { used_bytes(path)? } else { 0 };
            match devices.iter_mut().find(|(known, ..)| *known == device) {
                Some((_, _, needed, freed)) => (*needed, *freed) = (needed.saturating_add(bytes), *freed + reused),
                None => devices.push((device, there, bytes, reused)),
            }
        }
        for (_, path, needed, freed) in devices {
            let available = fsio::available_bytes(path).map_err(local)?.saturating_add(freed);
            if available < needed {
                let missing = (needed - available).div_ceil(1 << 20);
                return Err(Error::new(
                    Kind::Config,
                    format!(
                        "the file system of {} has room for {} MiB, and the restore needs {} MiB: {missing} MiB are missing",
                        path.display(),
                        available >> 20,
                        needed.div_ceil(1 << 20)
                    ),
                )
                .hint("free space, or restore to another file system; nothing was touched"));
            }
        }
        Ok(())
    }

    /// Restores, in the order that makes an interruption at any moment harmless.
    fn restore(&self, settings: &[Setting]) -> Result<Restored, Error> {
        let mut owners = self.owners();
        let owner = owners.of_root();
        fsio::make_private_dir(&self.pgdata, owner).map_err(|e| {
            let missing = e.problem == Problem::Absent;
            let error = local(e);
            if missing { error.hint("make the directory above it first") } else { error }
        })?;
        let in_use = || {
            Error::new(Kind::Refused, format!("{} is in use: another restore writes there", self.pgdata.display()))
                .hint("wait for it, or end it")
        };
        let lock = fsio::lock_directory(&self.pgdata).map_err(local)?.ok_or_else(in_use)?;
        // Somebody may have been faster.
        let place = place::look(&self.pgdata, self.request.delta, &self.note, &self.deadline)?;
        if place.is_reused() && !self.place.is_reused() {
            return Err(in_use());
        }
        place::write_note(&self.pgdata, &self.note)?;
        let mut tree = Rebuild::open(&self.pgdata).map_err(local)?;
        files::remove_control(&tree)?;
        let private = Access { mode: 0o700, owner };
        if !self.tablespaces.is_empty() {
            tree.make_directory(b"pg_tblspc", private).map_err(local)?;
        }
        for (oid, _, to) in &self.tablespaces {
            fsio::make_private_dir(to, owner).map_err(local)?;
            tree.link_tablespace(*oid, to).map_err(local)?;
            tree.own_link(format!("pg_tblspc/{oid}").as_bytes(), owner).map_err(local)?;
        }
        let is_mapped = self.tablespaces.iter().any(|(_, from, to)| from.as_path() != to);
        let links: Vec<(u32, PathBuf)> = self.tablespaces.iter().map(|(oid, _, to)| (*oid, to.clone())).collect();
        let how = How {
            tree: &tree,
            reuse: place.is_reused(),
            jobs: self.jobs,
            tablespace_map: is_mapped.then(|| files::tablespace_map(&links)),
            survey: &self.survey,
        };
        let began = Instant::now();
        let (mut restored, last) = files::restore(&self.source, how, &mut owners)?;
        // A server needs these; a backup has them, but nothing depends on it.
        for path in [b"pg_wal".as_slice()].into_iter().chain(directories_in_wal(self.source.postgres_major()).iter().copied()) {
            if tree.stat(path).map_err(local)?.is_none() {
                tree.make_directory(path, private).map_err(local)?;
            }
        }
        self.write_settings(&tree, settings, last.access)?;
        tree.sync().map_err(local)?;
        files::put_control(&tree, &last)?;
        tree.remove(NOTE.as_bytes()).map_err(local)?;
        tree.sync_parent(NOTE.as_bytes()).map_err(local)?;
        drop(lock);
        restored.seconds = began.elapsed().as_secs_f64();
        Ok(restored)
    }

    /// Adds the settings of the recovery to those that the server had, and asks for a recovery.
    fn write_settings(&self, tree: &Rebuild, settings: &[Setting], access: Access) -> Result<(), Error> {
        let mut text = match fsio::read_bounded(&self.pgdata.join(SETTINGS), MAX_SETTINGS_BYTES) {
            Ok(bytes) => bytes,
            Err(e) if e.problem == Problem::Absent => Vec::new(),
            Err(e) => return Err(local(e)),
        };
        let now = jiff::Timestamp::now();
        let comment = format!("Added by walvis pitr-restore at {now:.0}, from backup {}", self.source.summary.id);
        let restore_command = self.request.invocation.restore_command();
        let wanted: Vec<(&str, &str)> = settings
            .iter()
            .filter(|setting| setting.name != "restore_command")
            .map(|setting| (setting.name, setting.value.as_str()))
            .collect();
        text.extend_from_slice(recovery_settings(&comment, &restore_command, &wanted, self.request.archiving).as_bytes());
        let modified = now.as_microsecond();
        tree.put_file(SETTINGS.as_bytes(), &text, access, modified).map_err(local)?;
        tree.put_file(b"recovery.signal", b"", access, modified).map_err(local)
    }
}

/// Where each tablespace goes.
fn map_tablespaces(facts: &BackupFacts, map: &[(TablespaceKey, PathBuf)]) -> Result<Vec<(u32, RawText, PathBuf)>, Error> {
    let fits = |key: &TablespaceKey, tablespace: &crate::format::manifest::Tablespace| match key {
        TablespaceKey::Oid(oid) => *oid == tablespace.oid,
        TablespaceKey::Path(path) => path.as_path() == tablespace.path.as_path(),
    };
    let usage = |what: String| Error::new(Kind::Usage, what).hint("'walvis pitr-restore --plan' shows the tablespaces");
    if let Some((key, _)) = map.iter().find(|(key, _)| !facts.tablespaces.iter().any(|tablespace| fits(key, tablespace))) {
        return Err(usage(match key {
            TablespaceKey::Oid(oid) => format!("the backup has no tablespace {oid}"),
            TablespaceKey::Path(path) => format!("the backup has no tablespace in {path}"),
        }));
    }
    let mut mapped: Vec<(u32, RawText, PathBuf)> = Vec::new();
    for tablespace in &facts.tablespaces {
        let mut targets = map.iter().filter(|(key, _)| fits(key, tablespace)).map(|(_, to)| to);
        let to = targets.next().cloned().unwrap_or_else(|| tablespace.path.as_path().to_owned());
        if targets.next().is_some() {
            return Err(usage(format!("tablespace {} is mapped twice", tablespace.oid)));
        }
        if let Some((other, ..)) = mapped.iter().find(|(_, _, taken)| taken.starts_with(&to) || to.starts_with(taken)) {
            return Err(usage(format!("tablespaces {other} and {} would share {}", tablespace.oid, to.display())));
        }
        mapped.push((tablespace.oid, tablespace.path.clone(), to));
    }
    Ok(mapped)
}

/// The path itself, or the nearest one above it that exists.
fn existing(path: &Path) -> Result<&Path, Error> {
    for above in path.ancestors() {
        if fsio::exists(above).map_err(local)? {
            return Ok(above);
        }
    }
    Err(Error::new(Kind::Config, format!("nothing exists above {}", path.display())))
}

/// Bytes of the files below a path; links are not followed.
fn used_bytes(path: &Path) -> Result<u64, Error> {
    let mut bytes = 0_u64;
    let mut open = vec![path.to_owned()];
    while let Some(directory) = open.pop() {
        let names = match fsio::list_dir(&directory) {
            Ok(names) => names,
            Err(e) if e.problem == Problem::Absent => continue,
            Err(e) => return Err(local(e)),
        };
        for name in names {
            let below = directory.join(name);
            match fsio::stat_no_follow(&below).map_err(local)? {
                Some(stat) if stat.kind == fsio::ItemKind::Directory => open.push(below),
                Some(stat) => bytes = bytes.saturating_add(stat.size_bytes),
                None => {}
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::manifest::Tablespace;

    #[test]
    fn tablespaces_are_mapped_by_id_or_path_and_never_together() {
        let tablespace = |oid, path: &str| Tablespace { oid, path: path.into() };
        let facts = BackupFacts {
            hash_key: String::new(),
            databases: Vec::new(),
            tablespaces: vec![tablespace(1, "/fast"), tablespace(2, "/slow")],
            annotations: std::collections::BTreeMap::new(),
            damage: Vec::new(),
            warnings: Vec::new(),
            attachments: Vec::new(),
        };
        let map = |pairs: &[(TablespaceKey, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(key, to)| (key.clone(), PathBuf::from(to))).collect();
            map_tablespaces(&facts, &pairs).map(|mapped| mapped.into_iter().map(|(oid, _, to)| (oid, to)).collect::<Vec<_>>())
        };
        let (one, slow) = (TablespaceKey::Oid(1), TablespaceKey::Path("/slow/".into()));
        let both = map(&[(slow.clone(), "/b"), (one.clone(), "/a")]).unwrap();
        assert_eq!(both, [(1, PathBuf::from("/a")), (2, PathBuf::from("/b"))]);
        assert_eq!(map(&[]).unwrap()[1].1, PathBuf::from("/slow"));
        for bad in [
            vec![(TablespaceKey::Oid(3), "/a")],
            vec![(TablespaceKey::Path("/slo".into()), "/a")],
            vec![(one.clone(), "/a"), (one.clone(), "/b")],
            vec![(one.clone(), "/slow")],
            vec![(one.clone(), "/slow/below")],
            vec![(one, "/a"), (slow, "/a")],
        ] {
            assert_eq!(map(&bad).unwrap_err().kind, Kind::Usage, "{bad:?}");
        }
    }
}
