//! `walvis pitr-restore`: a base backup put in place, and the server told to recover it to a target. `docs/BACKUP.md` has the steps.
//!
//! Here is what happens in which order. [`place`] says whether a directory may be taken, [`owner`] whose it is, [`running`] whether a server uses it, [`files`] restores with [`extents`] and
//! [`sweep`], [`unarchived`] says what WAL would be lost with what is taken over, [`settle`] has the settings, [`mod@start`] starts the server and waits.

pub mod attachments;
pub mod environment;
pub mod extents;
pub mod files;
pub mod locks;
mod owner;
pub mod place;
mod room;
mod running;
pub mod settle;
pub mod start;
mod sweep;
mod tablespaces;
pub mod unarchived;

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::repositories::{self, UNENCRYPTED};
use super::resolve::report::{ResolveReport, Setting};
use super::resolve::{self, Answer, ResolveRequest};
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::descriptor::RepositoryCipher;
use crate::format::extent::BackupId;
use crate::format::manifest::{BackupFacts, BackupSummary};
use crate::fsio::{self, Dir, Identity, Missing, Problem, Rebuild, Rooted};
use crate::pg::Timeline;
use crate::pg::data_directory::{TABLESPACES, directories_in_wal};
use crate::pg::settings::{Invocation, TargetAction};
use crate::pg::target::Target;
use crate::raw_text::{RawText, shown};
use crate::repo::Facts;
use crate::waiting;
use attachments::{Arrangement, AttachmentPlan};
use environment::Needs;
use files::{How, Restored, Source, Survey};
use place::{Base, NOTE, Note, Place, Taken, Taking, is_nothing, local};
use start::{Goal, Started};
use tablespaces::{Created, ForReplay};
use unarchived::UnarchivedFile;

/// Threads where nobody says how many.
const MAX_DEFAULT_JOBS: usize = 32;
/// Longest `postgresql.auto.conf`.
const MAX_SETTINGS_BYTES: usize = 16 * 1024 * 1024;
const SETTINGS: &str = "postgresql.auto.conf";
/// Permissions of a directory that the backup does not have.
const PRIVATE: u32 = 0o700;

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
    /// Whether the operator knows that no server runs there.
    pub server_is_stopped: bool,
    /// Whether WAL that was never archived may go with the directory that is taken over.
    pub discard_unarchived_wal: bool,
    /// Whether tablespaces that are not mapped go where they were, and what replay needs there is made.
    pub tablespaces_at_original_places: bool,
    /// Whether replay may remove what is where it makes tablespaces.
    pub overwrite_tablespaces_of_the_log: bool,
    /// Where `pg_wal` is to be, behind a link; `None`: in the data directory.
    pub waldir: Option<PathBuf>,
    /// Where files from outside the data directory are put.
    pub config_to: Option<PathBuf>,
    /// Whether only the plan is wanted.
    pub plan: bool,
    /// Whether the server is started.
    pub start: bool,
    /// Whether it archives as the original does.
    pub archiving: bool,
    /// Whether it is to be a standby, that follows and never ends recovery by itself.
    pub standby: bool,
    /// `primary_conninfo` of a standby.
    pub primary: Option<String>,
    /// Threads; `None`: one per core.
    pub jobs: Option<usize>,
    /// Where the server's programs are.
    pub bin_dir: Option<PathBuf>,
    /// How the server calls this program.
    pub invocation: Invocation,
}

impl RestoreRequest {
    fn taking(&self) -> Taking {
        Taking { delta: self.delta, server_is_stopped: self.server_is_stopped }
    }

    /// What the server does where recovery stops. Of `latest` that is always to take writes, also where it needs a stop to end at a
    /// fork.
    fn action_at(&self, resolved: &ResolveReport) -> TargetAction {
        let is_end = self.target.target == Target::Latest && resolved.stop.as_ref().is_none_or(|stop| stop.is_fork);
        if is_end { TargetAction::Promote } else { self.action }
    }
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
    pub pgdata: RawText,
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
    /// Where `pg_wal` will be, if it is not in the data directory.
    pub waldir: Option<RawText>,
    /// Files of the backup from outside the data directory.
    pub attachments: Vec<AttachmentPlan>,
    /// WAL that is nowhere else, and will be gone.
    pub unarchived_wal: Vec<UnarchivedFile>,
    /// The user that files will belong to.
    pub owner: Option<String>,
    /// Settings that are added for the recovery. When it is over they are taken out again, but for those of a standby.
    pub settings: Vec<Setting>,
    /// Settings that are added and stay.
    pub lasting_settings: Vec<Setting>,
    /// Whether the restored server is a standby.
    pub standby: bool,
    /// Whether the restored server archives as the original does.
    pub archiving: bool,
    /// Threads.
    pub jobs: usize,
    /// The programs that start the server, if they do.
    pub programs: Option<RawText>,
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
    pub to: RawText,
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
    let Answer { repository, facts, report: resolved } = resolve::choose(config, &request.target, deadline)?;
    repositories::refuse_writable_by_everybody(&repository)?;
    if let Some(error) = resolved.refusal() {
        on_plan(&PlanReport { resolve: resolved, restore: None })?;
        return Err(error);
    }
    let chosen = resolved.backup.as_ref().and_then(|backup| backup.id.as_deref()).and_then(BackupId::parse);
    let id = chosen.ok_or_else(|| Error::new(Kind::Bug, "a target is reached from no backup"))?;
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
    let (restored, directory) = job.restore(plan.restore.as_ref())?;
    let server = match &job.programs {
        Some(programs) => {
            let goal = goal(&plan.resolve, request, &summary);
            let settings = job.arrangement.as_ref().and_then(|arrangement| arrangement.main.as_deref());
            let needs = Needs::of(config, request.primary.is_some());
            Some(start::start(&directory, programs, settings, needs, &goal, &deadline)?)
        }
        None => None,
    };
    Ok(RestoreReport { plan, restored: Some(restored), server })
}

fn goal(resolved: &ResolveReport, request: &RestoreRequest, summary: &BackupSummary) -> Goal {
    let is_immediate = request.target.target == Target::Immediate;
    let stop = resolved.stop.as_ref().and_then(|stop| Some((stop.lsn.parse().ok()?, stop.replayed)));
    let whole = Goal {
        stop,
        consistent_at: is_immediate.then_some(summary.stop_lsn),
        end: resolved.end.as_ref().and_then(|end| end.parse().ok()),
        timeline: Timeline(resolved.timeline),
        action: request.action_at(resolved),
        standby: false,
    };
    if request.standby {
        return Goal { stop: None, consistent_at: Some(summary.stop_lsn), standby: true, ..whole };
    }
    whole
}

/// A restore that is about to be done.
struct Job<'a> {
    source: Source<'a>,
    request: &'a RestoreRequest,
    pgdata: PathBuf,
    place: Place,
    taken: Taken,
    /// Whose everything in it will be.
    owner: Identity,
    note: Note,
    survey: Survey,
    tablespaces: Vec<(u32, RawText, PathBuf)>,
    /// What is there already of what lies outside: by its path, the directory.
    outside: Vec<(PathBuf, Dir)>,
    /// What nobody said may be written to, for the plan.
    unnamed: Option<String>,
    unarchived: Vec<UnarchivedFile>,
    arrangement: Option<Arrangement>,
    for_replay: ForReplay,
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
            .map_err(|e| Error::new(Kind::Usage, format!("--pgdata {}: {e}", shown(&request.pgdata))))?;
        let mut note = Note {
            about: "walvis pitr-restore writes here and is not finished: a server cannot start in this directory. Run it again to go on."
                .to_owned(),
            repository_id: hex::encode(source.repository.descriptor().repository_id),
            cluster: resolved.cluster.clone(),
            system_id: facts.system_id.to_string(),
            backup: source.summary.id,
            tablespaces: Vec::new(),
            waldir: request.waldir.clone().map(RawText::from),
        };
        let (place, taken) = place::look(&pgdata, request.taking(), &note, &deadline)?;
        let unarchived = match &taken.dir {
            Some(dir) if place.is_reused() => unarchived::find(dir, &source, facts)?,
            _ => Vec::new(),
        };
        if !unarchived.is_empty() && !request.discard_unarchived_wal {
            return Err(unarchived::refusal(&pgdata, source.repository.location(), &unarchived));
        }
        let survey = files::survey(&source)?;
        let owner = owner::decide(&pgdata, &taken, survey.root.as_ref())?;
        let programs = match request.start {
            true => Some(start::find_programs(request.bin_dir.as_deref(), source.postgres_major(), owner.owner())?),
            false => None,
        };
        let base = Base { pgdata: &pgdata, place: &place, dir: taken.dir.as_ref(), owner };
        let version_directory = source.version_directory();
        let mut outside = Vec::new();
        if let Some(waldir) = &request.waldir {
            outside.extend(base.check_waldir(waldir)?.map(|dir| (waldir.clone(), dir)));
        }
        let tablespaces = tablespaces::map(&survey.facts, &request.tablespace_map)?;
        // A plan tells of the places that nobody named; a restore does not even look there.
        let unnamed = |missing: &[PathBuf]| {
            let (map, original) = (&request.tablespace_map, request.tablespaces_at_original_places);
            match tablespaces::unnamed(&survey.facts, map, missing, original) {
                Some(places) if !request.plan => {
                    let what = format!("{places}: nothing outside {} is written to that nobody named", shown(&pgdata));
                    Err(Error::new(Kind::Refused, what).hint(tablespaces::NAME_THEM))
                }
                places => Ok(places),
            }
        };
        unnamed(&[])?;
        for (oid, _, to) in &tablespaces {
            outside.extend(base.check_tablespace(*oid, to, &version_directory)?.map(|dir| (to.clone(), dir)));
            if let Some(waldir) = request.waldir.as_ref().filter(|waldir| waldir.starts_with(to) || to.starts_with(waldir)) {
                return Err(Error::new(Kind::Usage, format!("tablespace {oid} and pg_wal would share {}", shown(waldir)))
                    .hint("name another --waldir, or put the tablespace elsewhere with --tablespace-map"));
            }
            note.tablespaces.push(to.as_path().into());
        }
        let for_replay = tablespaces::for_replay(
            &created_in(resolved),
            &tablespaces,
            &base,
            &version_directory,
            request.overwrite_tablespaces_of_the_log,
        )?;
        let unnamed = unnamed(&for_replay.missing)?;
        let arrangement = match &request.config_to {
            Some(to) => Some(Arrangement::prepare(&source, &survey.facts, to, &pgdata, request.delta, owner)?),
            None => None,
        };
        if request.start && !survey.has_settings && arrangement.as_ref().is_none_or(|arrangement| arrangement.main.is_none()) {
            return Err(cannot_start(&survey.facts));
        }
        // Each waits for the repository and for the disk, too.
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let jobs = request.jobs.unwrap_or((2 * cores).min(MAX_DEFAULT_JOBS)).max(1);
        let job = Self {
            source,
            request,
            pgdata,
            place,
            taken,
            owner,
            note,
            survey,
            tablespaces,
            outside,
            unnamed,
            unarchived,
            arrangement,
            for_replay,
            jobs,
            programs,
            deadline,
        };
        job.check_room()?;
        Ok(job)
    }

    fn plan(&self, resolved: &ResolveReport) -> Result<RestorePlan, Error> {
        let mut settings = vec![Setting::new("restore_command", self.request.invocation.restore_command())];
        let mut notes = Vec::new();
        if self.source.repository.descriptor().cipher == RepositoryCipher::None {
            notes.push(format!("the repository is {UNENCRYPTED}"));
        }
        if self.request.standby {
            settings.extend(self.request.primary.clone().map(|primary| Setting::new("primary_conninfo", primary)));
            // Whatever timeline the primary is on, after a failover too.
            settings.push(Setting::new("recovery_target_timeline", "latest".to_owned()));
        } else {
            settings.extend(resolved.settings.iter().map(|setting| Setting::new(setting.name, setting.value.clone())));
            let action = self.request.action_at(resolved);
            if resolved.stop.is_some() || self.request.target.target == Target::Immediate {
                settings.push(Setting::new("recovery_target_action", action.as_str().to_owned()));
                if action == TargetAction::Pause {
                    // Without it the server would not pause but stop.
                    settings.push(Setting::new("hot_standby", "on".to_owned()));
                }
            }
            if self.request.target.target == Target::Latest {
                notes.push(
                    "recovery goes on to the end of the archive, and the server then takes writes on a new timeline".to_owned(),
                );
            }
        }
        // The server would pause, or stop, where they were raised.
        let raised = resolved.required_settings.iter().filter(|setting| setting.lsn.is_some());
        let mut lasting_settings: Vec<Setting> =
            raised.map(|setting| Setting::new(setting.name, setting.value.to_string())).collect();
        if !self.request.archiving {
            lasting_settings.push(Setting::new("archive_mode", "off".to_owned()));
            notes.push(settle::ARCHIVE_AGAIN.to_owned());
        }
        if self.request.archiving && !self.request.standby {
            notes.push(
                "the restored server archives as the original does: give it another cluster name, unless the original is gone"
                    .to_owned(),
            );
        }
        if let Some(places) = &self.unnamed {
            notes.push(format!("{places}: {}", tablespaces::NAME_THEM));
        }
        for path in &self.for_replay.emptied {
            notes.push(format!("replay will REMOVE what is in {}: a tablespace was made there after the backup", shown(path)));
        }
        notes.extend(self.note_on_pg_wal()?);
        if !self.survey.has_settings && self.arrangement.is_none() {
            notes.push(self.note_on_settings());
        }
        if self.source.summary.pages.damaged > 0 {
            notes.push(format!("{} pages were damaged when the backup was taken", self.source.summary.pages.damaged));
        }
        notes.extend(self.survey.facts.warnings.iter().map(|warning| format!("when the backup was taken: {warning}")));
        let tablespace = |(oid, from, to): &(u32, RawText, PathBuf)| TablespacePlan {
            oid: *oid,
            from: from.clone(),
            to: to.as_path().into(),
            bytes: self.survey.tablespace_bytes.get(oid).copied().unwrap_or_default(),
        };
        Ok(RestorePlan {
            pgdata: self.pgdata.as_path().into(),
            place: match self.place {
                Place::Absent => "absent",
                Place::Empty => "empty",
                Place::Unfinished(_) => "unfinished",
                Place::Cluster => "cluster",
            },
            postgres_major: self.source.postgres_major(),
            files: self.survey.files,
            bytes: self.source.summary.bytes,
            available_bytes: fsio::available_bytes(room::existing(&self.pgdata)?).map_err(local)?,
            tablespaces: self.tablespaces.iter().map(tablespace).collect(),
            waldir: self.request.waldir.clone().map(RawText::from),
            attachments: match &self.arrangement {
                Some(arrangement) => arrangement.plan.clone(),
                None => attachments::left_there(&self.survey.facts),
            },
            unarchived_wal: self.unarchived.clone(),
            owner: (fsio::own_user() == 0).then(|| self.owner.name()),
            settings,
            lasting_settings,
            standby: self.request.standby,
            archiving: self.request.archiving,
            jobs: self.jobs,
            programs: self.programs.clone().map(RawText::from),
            notes,
        })
    }

    /// The settings are not in the data directory, and nobody said where to put them.
    fn note_on_settings(&self) -> String {
        match attachments::main_of(&self.survey.facts) {
            Some(main) => format!("the server's settings were in {}: --config-to DIR puts them back", main.path),
            None => "the server's settings were outside the data directory and are not in the backup: put them back yourself"
                .to_owned(),
        }
    }

    /// A `pg_wal` that is a link now and will not be one any more: the log would then fill the disk of the data.
    fn note_on_pg_wal(&self) -> Result<Option<String>, Error> {
        let Some(dir) = self.taken.dir.as_ref().filter(|_| self.place.is_reused() && self.request.waldir.is_none()) else {
            return Ok(None);
        };
        let linked = dir.link_beneath(Path::new("pg_wal")).map_err(local)?;
        Ok(linked.map(|to| {
            let to = self.pgdata.join(to);
            let to = shown(to);
            format!("pg_wal is a link to {to} and will be a directory in the data directory: --waldir {to} keeps it there")
        }))
    }

    /// What is there already of a directory that is written to.
    fn found(&self, path: &Path) -> Option<&Dir> {
        if path == self.pgdata {
            return self.taken.dir.as_ref();
        }
        self.outside.iter().find(|(known, _)| known == path).map(|(_, dir)| dir)
    }

    /// Opens a directory that is written to, and makes it if it is not there. It is the owner's afterwards.
    fn take(&self, path: &Path, missing: Missing) -> Result<Dir, Error> {
        let taken = Rooted::open_or_make(path, self.owner, missing).and_then(|rooted| rooted.give_to(self.owner, is_nothing));
        let dir = taken.map(|rooted| rooted.dir).map_err(|e| {
            let missing = e.problem == Problem::Absent;
            let error = local(e);
            if missing { error.hint("make the directory above it first") } else { error }
        })?;
        if dir.identity().owner().uid == self.owner.owner().uid {
            return Ok(dir);
        }
        let whose = dir.identity().name();
        Err(Error::new(Kind::Refused, format!("{} came into the hands of user {whose} meanwhile", shown(path)))
            .hint("find out what else is at work there, and try again"))
    }

    /// Restores, in the order that makes an interruption at any moment harmless.
    fn restore(&self, plan: Option<&RestorePlan>) -> Result<(Restored, Dir), Error> {
        let directory = self.take(&self.pgdata, Missing::Last)?;
        let in_use = || {
            Error::new(Kind::Refused, format!("{} is in use: another restore writes there", shown(&self.pgdata)))
                .hint("wait for it, or end it")
        };
        let lock = directory.lock().map_err(local)?.ok_or_else(in_use)?;
        // Somebody may have been faster.
        let place = place::look_in(&directory, self.request.taking(), &self.note, &self.deadline)?;
        if place.is_reused() && !self.place.is_reused() {
            return Err(in_use());
        }
        place::write_note(&directory, &self.note)?;
        let mut tree = Rebuild::new(directory.clone());
        files::remove_control(&tree)?;
        self.link(&mut tree)?;
        let links: Vec<(u32, PathBuf)> = self.tablespaces.iter().map(|(oid, _, to)| (*oid, to.clone())).collect();
        let how = How {
            tree: &tree,
            reuse: place.is_reused(),
            jobs: self.jobs,
            // Never the backup's own: what it says must be where the files are.
            tablespace_map: (!links.is_empty()).then(|| files::tablespace_map(&links)),
            survey: &self.survey,
        };
        let began = Instant::now();
        let waiting =
            waiting::on(format!("{} files, {} MiB, to be restored", self.survey.files, self.source.summary.bytes >> 20));
        let (mut restored, last) = files::restore(&self.source, how)?;
        drop(waiting);
        // A server needs these; a backup has them, but nothing depends on it.
        for path in [b"pg_wal".as_slice()].into_iter().chain(directories_in_wal(self.source.postgres_major()).iter().copied()) {
            if tree.stat(path).map_err(local)?.is_none() {
                tree.make_directory(path, PRIVATE).map_err(local)?;
            }
        }
        if let Some(plan) = plan {
            settle::write(&tree, plan, &self.request.invocation, self.source.summary.id, last.mode)?;
        }
        if let Some(arrangement) = &self.arrangement {
            arrangement.put(self.owner)?;
        }
        let waiting = waiting::on("the disk, which makes everything durable");
        tree.sync().map_err(local)?;
        drop(waiting);
        files::put_control(&tree, &last)?;
        tree.remove(NOTE.as_bytes()).map_err(local)?;
        tree.sync_parent(NOTE.as_bytes()).map_err(local)?;
        drop(lock);
        restored.seconds = began.elapsed().as_secs_f64();
        Ok((restored, directory))
    }

    /// Opens the directories outside the data directory, and makes the links to them.
    fn link(&self, tree: &mut Rebuild) -> Result<(), Error> {
        if !self.tablespaces.is_empty() {
            // A link there would lead elsewhere, and nobody follows it.
            if tree.stat(TABLESPACES).map_err(local)?.is_some_and(|stat| stat.kind != fsio::ItemKind::Directory) {
                tree.remove(TABLESPACES).map_err(local)?;
            }
            tree.make_directory(TABLESPACES, PRIVATE).map_err(local)?;
        }
        let version_directory = self.source.version_directory();
        for (oid, _, to) in &self.tablespaces {
            // One for the location, which need not become ours, and what is ours in it.
            Rooted::open_or_make(to, self.owner, Missing::Last).map_err(local)?;
            let dir = self.take(&to.join(&version_directory), Missing::Last)?;
            tree.link_tablespace(*oid, to, &version_directory, dir).map_err(local)?;
        }
        // Replay does not make them.
        for path in &self.for_replay.missing {
            self.take(path, Missing::Last)?;
        }
        if let Some(waldir) = &self.request.waldir {
            let dir = self.take(waldir, Missing::Last)?;
            tree.link_wal(waldir, dir).map_err(local)?;
        }
        Ok(())
    }
}

/// The tablespaces that replay makes at the paths of the original.
fn created_in(resolved: &ResolveReport) -> Vec<Created> {
    // One without a path is in the data directory.
    let created = resolved.tablespaces_created.iter().filter_map(|made| Some((made, made.path.as_ref()?)));
    created.map(|(made, path)| Created { oid: made.oid, path: path.as_path().to_owned(), lsn: made.lsn.clone() }).collect()
}

/// Without settings no server starts.
fn cannot_start(facts: &BackupFacts) -> Error {
    let (where_, hint) = match attachments::main_of(facts) {
        Some(main) => (
            format!("they were in {}", main.path),
            format!(
                "the backup has them: --config-to {} puts them back, or another directory",
                shown(main.path.as_path().parent().unwrap_or(Path::new("/")))
            ),
        ),
        None => (
            "they were elsewhere, as Debian's are, and are not in the backup".to_owned(),
            "restore without --start, put /etc/postgresql back and start the server with pg_ctlcluster".to_owned(),
        ),
    };
    Error::new(Kind::Config, format!("--start cannot start the server: its settings are not in the data directory, {where_}"))
        .hint(hint)
}
