//! One restore: everything is checked first, then done in the order that makes an interruption at any moment harmless.
//!
//! Lives here: [`Job`], its checks and its steps. May not live here: what is asked ([`request`](super::request)), what
//! is said of it before it is done ([`plan`](super::plan)), the server afterwards ([`start`](super::start)).

use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::manifest::BackupFacts;
use crate::fsio::{self, Dir, Identity, Missing, Problem, RestoreTree, Rooted};
use crate::limits::{MAX_DEFAULT_RESTORE_JOBS, RESTORE_JOBS_PER_CORE, SPARE_SEGMENTS};
use crate::pg::data_directory::{TABLESPACES, directories_in_wal};
use crate::postgres::programs;
use crate::raw_text::{RawText, shown};
use crate::repo::Facts;
use crate::report::resolve::ResolveReport;
use crate::report::restore::{Restored, UnarchivedFile};
use crate::restore::attachments::{self, Arrangement};
use crate::restore::files::{self, How, Source, Survey};
use crate::restore::owner;
use crate::restore::recovery_settings::{self, AddedSettings};
use crate::restore::request::RestoreRequest;
use crate::restore::room;
use crate::restore::tablespaces::{self, Created, ForReplay};
use crate::restore::target_directory::{self, Base, MARKER, RestoreMarker, Taken, TargetState, is_nothing, local};
use crate::restore::unarchived;
use crate::restore::zeros;
use crate::waiting;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Permissions of a directory that the backup does not have.
const PRIVATE: u32 = 0o700;

/// A restore that is about to be done.
pub struct Job<'a> {
    pub(super) source: Source<'a>,
    pub(super) request: &'a RestoreRequest,
    pub(super) pgdata: PathBuf,
    pub(super) target_state: TargetState,
    pub(super) taken: Taken,
    /// Whose everything in it will be.
    pub(super) owner: Identity,
    pub(super) marker: RestoreMarker,
    pub(super) survey: Survey,
    pub(super) tablespaces: Vec<(u32, RawText, PathBuf)>,
    /// What is there already of what lies outside: by its path, the directory.
    pub(super) outside: Vec<(PathBuf, Dir)>,
    /// What nobody said may be written to, for the plan.
    pub(super) unnamed: Option<String>,
    pub(super) unarchived: Vec<UnarchivedFile>,
    pub(crate) arrangement: Option<Arrangement>,
    pub(super) for_replay: ForReplay,
    /// What is added to the server's settings.
    pub(super) settings: AddedSettings,
    pub(super) jobs: usize,
    pub(crate) programs: Option<PathBuf>,
    pub(super) deadline: Deadline,
}

impl<'a> Job<'a> {
    /// Checks everything that can be checked without writing.
    ///
    /// # Errors
    /// [`Kind::Refused`] when the directory, or one outside it, may not be written to; [`Kind::Config`] when there is
    /// no room, or no program to start; [`Kind::Usage`]; as the repository's.
    pub fn prepare(
        source: Source<'a>,
        facts: Facts,
        request: &'a RestoreRequest,
        resolved: &ResolveReport,
        deadline: Deadline,
    ) -> Result<Self, Error> {
        let pgdata = std::path::absolute(&request.pgdata)
            .map_err(|e| Error::new(Kind::Usage, format!("--pgdata {}: {e}", shown(&request.pgdata))))?;
        let mut marker = RestoreMarker {
            about: "walvis pitr-restore writes here and is not finished: a server cannot start in this directory. Run it again to go on."
                .to_owned(),
            repository_id: hex::encode(source.repository.descriptor().repository_id),
            cluster: resolved.cluster.clone(),
            system_id: facts.system_id.to_string(),
            backup: source.summary.id,
            tablespaces: Vec::new(),
            waldir: request.waldir.clone().map(RawText::from),
        };
        let (target_state, taken) = target_directory::look(&pgdata, request.taking(), &marker, &deadline)?;
        let unarchived = match &taken.dir {
            Some(dir) if target_state.is_reused() => unarchived::find(dir, &source, facts)?,
            _ => Vec::new(),
        };
        if !unarchived.is_empty() && !request.discard_unarchived_wal {
            return Err(unarchived::refusal(&pgdata, source.repository.location(), &unarchived));
        }
        let survey = files::survey(&source)?;
        let owner = owner::decide(&pgdata, &taken, survey.root.as_ref())?;
        let server_programs = match request.start {
            true => Some(programs::find_programs(request.bin_dir.as_deref(), source.postgres_major(), owner.owner())?),
            false => None,
        };
        let base = Base { pgdata: &pgdata, state: &target_state, dir: taken.dir.as_ref(), owner };
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
            marker.tablespaces.push(to.as_path().into());
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
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let jobs = request.jobs.unwrap_or((RESTORE_JOBS_PER_CORE * cores).min(MAX_DEFAULT_RESTORE_JOBS)).max(1);
        let job = Self {
            source,
            request,
            pgdata,
            target_state,
            taken,
            owner,
            marker,
            survey,
            tablespaces,
            outside,
            unnamed,
            unarchived,
            arrangement,
            for_replay,
            settings: AddedSettings::of(request, resolved),
            jobs,
            programs: server_programs,
            deadline,
        };
        job.check_room()?;
        Ok(job)
    }

    /// Whether there is room for all files, on each file system. What is there already counts as room.
    /// Zeros need none; which files have them is asked of the repository only where it decides.
    fn check_room(&self) -> Result<(), Error> {
        room::check(&self.needs(&self.survey.zeros)).or_else(|_| room::check(&self.needs(&self.survey.all_zeros(&self.source)?)))
    }

    fn needs(&self, zeros: &zeros::Bytes) -> Vec<room::Needed<'_>> {
        let needed = |path, bytes: u64, of: Option<Option<u32>>| {
            let reused = self.found(path).filter(|_| self.target_state.is_reused());
            let zeros = of.and_then(|of| zeros.get(&of)).map_or(0, |zeros| bytes.min(*zeros));
            room::Needed { path, bytes: bytes - zeros, zeros, reused }
        };
        let mut needs = vec![needed(self.pgdata.as_path(), self.survey.bytes, Some(None))];
        let segments = SPARE_SEGMENTS * self.source.summary.wal_segment_bytes;
        needs.push(needed(self.request.waldir.as_deref().unwrap_or(&self.pgdata), segments, None));
        for (oid, _, to) in &self.tablespaces {
            let bytes = self.survey.tablespace_bytes.get(oid).copied().unwrap_or_default();
            needs.push(needed(to.as_path(), bytes, Some(Some(*oid))));
        }
        needs
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
    ///
    /// # Errors
    /// [`Kind::Refused`] when another restore writes there; [`Kind::Config`] where files cannot be written;
    /// [`Kind::Damaged`] when what is stored is.
    pub fn restore(&self) -> Result<(Restored, Dir), Error> {
        let directory = self.take(&self.pgdata, Missing::Last)?;
        let in_use = || {
            Error::new(Kind::Refused, format!("{} is in use: another restore writes there", shown(&self.pgdata)))
                .hint("wait for it, or end it")
        };
        let lock = directory.lock().map_err(local)?.ok_or_else(in_use)?;
        // Somebody may have been faster.
        let target_state = target_directory::look_in(&directory, self.request.taking(), &self.marker, &self.deadline)?;
        if target_state.is_reused() && !self.target_state.is_reused() {
            return Err(in_use());
        }
        target_directory::write_marker(&directory, &self.marker)?;
        let mut tree = RestoreTree::new(directory.clone());
        files::remove_control(&tree)?;
        self.link(&mut tree)?;
        let links: Vec<(u32, PathBuf)> = self.tablespaces.iter().map(|(oid, _, to)| (*oid, to.clone())).collect();
        let how = How {
            tree: &tree,
            reuse: target_state.is_reused(),
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
        recovery_settings::write(&tree, &self.settings, self.request, self.source.summary.id, last.mode)?;
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
        restored.duration_s = began.elapsed().as_secs_f64();
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
