//! One restore: everything is checked first, then done in the order that makes an interruption at any moment harmless.

use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::manifest::BackupFacts;
use crate::fsio::{self, Dir, Identity, Missing, Problem, RestoreTree, Rooted};
use crate::pg::data_directory::{TABLESPACES, directories_in_wal};
use crate::pg::settings::{Invocation, TargetAction};
use crate::pg::target::Target;
use crate::raw_text::{RawText, shown};
use crate::recovery::ResolveRequest;
use crate::repo::Facts;
use crate::report::resolve::ResolveReport;
use crate::restore::attachments::{self, Arrangement};
use crate::restore::files::{self, How, Restored, Source, Survey};
use crate::restore::plan::RestorePlan;
use crate::restore::start;
use crate::restore::tablespaces::{self, Created, ForReplay};
use crate::restore::target_directory::{self, Base, MARKER, RestoreMarker, Taken, Taking, TargetState, is_nothing, local};
use crate::restore::unarchived::{self, UnarchivedFile};
use crate::restore::{owner, recovery_settings};
use crate::waiting;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Threads where nobody says how many.
const MAX_DEFAULT_JOBS: usize = 32;
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
    pub fn action_at(&self, resolved: &ResolveReport) -> TargetAction {
        let is_end = self.target.target == Target::Latest && resolved.stop.as_ref().is_none_or(|stop| stop.is_fork);
        if is_end { TargetAction::Promote } else { self.action }
    }
}

/// A restore that is about to be done.
pub struct Job<'a> {
    pub(super) source: Source<'a>,
    pub(super) request: &'a RestoreRequest,
    pub(super) pgdata: PathBuf,
    pub(super) place: TargetState,
    pub(super) taken: Taken,
    /// Whose everything in it will be.
    pub(super) owner: Identity,
    pub(super) note: RestoreMarker,
    pub(super) survey: Survey,
    pub(super) tablespaces: Vec<(u32, RawText, PathBuf)>,
    /// What is there already of what lies outside: by its path, the directory.
    pub(super) outside: Vec<(PathBuf, Dir)>,
    /// What nobody said may be written to, for the plan.
    pub(super) unnamed: Option<String>,
    pub(super) unarchived: Vec<UnarchivedFile>,
    pub(crate) arrangement: Option<Arrangement>,
    pub(super) for_replay: ForReplay,
    pub(super) jobs: usize,
    pub(crate) programs: Option<PathBuf>,
    pub(super) deadline: Deadline,
}

impl<'a> Job<'a> {
    /// Checks everything that can be checked without writing.
    pub fn prepare(
        source: Source<'a>,
        facts: Facts,
        request: &'a RestoreRequest,
        resolved: &ResolveReport,
        deadline: Deadline,
    ) -> Result<Self, Error> {
        let pgdata = std::path::absolute(&request.pgdata)
            .map_err(|e| Error::new(Kind::Usage, format!("--pgdata {}: {e}", shown(&request.pgdata))))?;
        let mut note = RestoreMarker {
            about: "walvis pitr-restore writes here and is not finished: a server cannot start in this directory. Run it again to go on."
                .to_owned(),
            repository_id: hex::encode(source.repository.descriptor().repository_id),
            cluster: resolved.cluster.clone(),
            system_id: facts.system_id.to_string(),
            backup: source.summary.id,
            tablespaces: Vec::new(),
            waldir: request.waldir.clone().map(RawText::from),
        };
        let (place, taken) = target_directory::look(&pgdata, request.taking(), &note, &deadline)?;
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

    /// What is there already of a directory that is written to.
    pub fn found(&self, path: &Path) -> Option<&Dir> {
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
    pub fn restore(&self, plan: Option<&RestorePlan>) -> Result<(Restored, Dir), Error> {
        let directory = self.take(&self.pgdata, Missing::Last)?;
        let in_use = || {
            Error::new(Kind::Refused, format!("{} is in use: another restore writes there", shown(&self.pgdata)))
                .hint("wait for it, or end it")
        };
        let lock = directory.lock().map_err(local)?.ok_or_else(in_use)?;
        // Somebody may have been faster.
        let place = target_directory::look_in(&directory, self.request.taking(), &self.note, &self.deadline)?;
        if place.is_reused() && !self.place.is_reused() {
            return Err(in_use());
        }
        target_directory::write_marker(&directory, &self.note)?;
        let mut tree = RestoreTree::new(directory.clone());
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
            recovery_settings::write(&tree, plan, &self.request.invocation, self.source.summary.id, last.mode)?;
        }
        if let Some(arrangement) = &self.arrangement {
            arrangement.put(self.owner)?;
        }
        let waiting = waiting::on("the disk, which makes everything durable");
        tree.sync().map_err(local)?;
        drop(waiting);
        files::put_control(&tree, &last)?;
        tree.remove(MARKER.as_bytes()).map_err(local)?;
        tree.sync_parent(MARKER.as_bytes()).map_err(local)?;
        drop(lock);
        restored.seconds = began.elapsed().as_secs_f64();
        Ok((restored, directory))
    }

    /// Opens the directories outside the data directory, and makes the links to them.
    fn link(&self, tree: &mut RestoreTree) -> Result<(), Error> {
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
