//! The directory to restore into: what lies there, whether it may be taken, and the marker that says whose it is
//! meanwhile.

use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
pub(crate) use crate::fsio::local_error as local;
use crate::fsio::{self, Dir, Found, Identity, ItemKind, Problem, Rooted};
use crate::limits::MAX_MARKER_BYTES;
use crate::postgres::{control_file, running};
use crate::raw_text::{RawText, shown};
use crate::repo::SystemId;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::path::Path;

/// The file in a directory whose restore is not finished. A server does not start there: `global/pg_control` comes
/// last.
pub const MARKER: &str = "walvis.restore";
/// What the root of a file system has, and only root may look into.
pub(crate) const LOST_AND_FOUND: &[u8] = b"lost+found";

/// Who restores what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreMarker {
    /// For the reader of the file.
    pub about: String,
    /// Id of the repository, hexadecimal.
    pub repository_id: String,
    /// The cluster in it.
    pub cluster: String,
    /// Its system identifier.
    pub system_id: String,
    /// The backup.
    pub backup: BackupId,
    /// Directories of tablespaces that this restore may write to.
    pub tablespaces: Vec<RawText>,
    /// Where it puts `pg_wal`, if that is not in the data directory.
    #[serde(default)]
    pub waldir: Option<RawText>,
}

impl RestoreMarker {
    fn is_of_the_same(&self, other: &Self) -> bool {
        (&self.repository_id, &self.cluster, &self.system_id, self.backup)
            == (&other.repository_id, &other.cluster, &other.system_id, other.backup)
    }
}

/// What lies where the data directory is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetState {
    /// Nothing: it will be made.
    Absent,
    /// An empty directory.
    Empty,
    /// A restore that was interrupted.
    Unfinished(RestoreMarker),
    /// The data directory of a server that does not run.
    Cluster,
}

impl TargetState {
    /// Whether what is there is looked at.
    pub fn is_reused(&self) -> bool {
        matches!(self, Self::Unfinished(_) | Self::Cluster)
    }
}

/// What the operator allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taking {
    /// To take over the data directory of a server that does not run.
    pub delta: bool,
    /// To believe that it does not run, where that is not proven.
    pub server_is_stopped: bool,
}

/// The directory as it was found.
#[derive(Debug)]
pub struct Taken {
    /// The directory, if it is there.
    pub dir: Option<Dir>,
    /// Whose it is; of one that is missing, whose the nearest one above it is, unless that is root's.
    pub whose: Option<Identity>,
}

/// Looks what lies there, and whether this restore may take it.
///
/// # Errors
/// [`Kind::Refused`] when not; [`Kind::Config`] when it is not known.
pub fn look(pgdata: &Path, taking: Taking, ours: &RestoreMarker, deadline: &Deadline) -> Result<(TargetState, Taken), Error> {
    match find(pgdata, "name another --pgdata")? {
        Found::Absent(whose) => Ok((TargetState::Absent, Taken { dir: None, whose })),
        Found::There(dir) => {
            let state = look_in(&dir, taking, ours, deadline)?;
            if state.is_reused() && dir.identity().owner().uid == 0 {
                return Err(Error::new(Kind::Refused, format!("{} belongs to root, and no server runs as root", shown(pgdata)))
                    .hint("give it to the server's user (chown -R), or name an empty or absent directory"));
            }
            Ok((state, Taken { whose: Some(dir.identity()), dir: Some(dir) }))
        }
    }
}

/// Looks whether a directory is there. What is no directory, and a link that leads nowhere, is refused.
fn find(path: &Path, hint: &str) -> Result<Found, Error> {
    Rooted::look(path).map_err(|e| match e.problem {
        Problem::Unsupported => Error::new(Kind::Refused, format!("{} is not a directory: {}", shown(path), e.detail)).hint(hint),
        // What is behind it may only not be mounted.
        Problem::Failed if e.action == "follow" => {
            Error::new(Kind::Refused, format!("{} is a link that leads nowhere", shown(path)))
                .hint("mount or make what it leads to")
        }
        _ => local(e),
    })
}

/// As [`look`], in the open directory.
///
/// # Errors
/// As [`look`].
pub fn look_in(pgdata: &Dir, taking: Taking, ours: &RestoreMarker, deadline: &Deadline) -> Result<TargetState, Error> {
    let delta = taking.delta;
    let refused = |what: String| Error::new(Kind::Refused, what);
    let path = pgdata.path();
    let names = pgdata.sorted_names().map_err(local)?;
    if names.iter().all(|name| is_nothing(name)) {
        return Ok(TargetState::Empty);
    }
    running::check(pgdata, taking.server_is_stopped)?;
    if names.iter().any(|name| name == MARKER) {
        return match read_marker(pgdata)? {
            Some(marker) if marker.is_of_the_same(ours) || delta => Ok(TargetState::Unfinished(marker)),
            Some(marker) => Err(refused(format!(
                "{} has an unfinished restore of another backup: {} of cluster {}",
                shown(path),
                marker.backup,
                marker.cluster
            ))
            .hint("finish that one with --backup, or replace it with --delta, or empty the directory")),
            None if delta => Ok(TargetState::Cluster),
            None => Err(refused(format!("{} has an unfinished restore whose {MARKER} cannot be read", shown(path)))
                .hint("replace it with --delta, or empty the directory")),
        };
    }
    if !delta {
        return Err(refused(format!("{} is not empty: refused, nothing was touched", shown(path)))
            .hint("name an empty or absent directory; --delta replaces the data directory of a stopped server"));
    }
    match control_file::of_open_directory(pgdata, deadline)? {
        Some(facts) if facts.system_id.to_string() == ours.system_id => Ok(TargetState::Cluster),
        Some(facts) => Err(foreign(path, facts.system_id, ours)),
        None => Err(refused(format!("{} is not a data directory: it has no global/pg_control", shown(path)))
            .hint("--delta removes what does not belong to the backup; name the data directory, or an empty one")),
    }
}

/// What an empty directory may have: the root of a file system has it, or a restore that was killed before its first
/// step left it.
pub(crate) fn is_nothing(name: &OsStr) -> bool {
    let is_unfinished = || name.as_encoded_bytes().starts_with(fsio::TEMP_PREFIX.as_bytes());
    name.as_encoded_bytes() == LOST_AND_FOUND || *name == fsio::unfinished_name(OsStr::new(MARKER)) || is_unfinished()
}

fn foreign(pgdata: &Path, found: SystemId, ours: &RestoreMarker) -> Error {
    Error::new(
        Kind::Refused,
        format!("{} is of another cluster: system identifier {found}, the backup has {}", shown(pgdata), ours.system_id),
    )
    .hint("name the data directory of this cluster, or an empty one")
}

fn read_marker(pgdata: &Dir) -> Result<Option<RestoreMarker>, Error> {
    // One that was torn by a power failure is as good as none.
    let bytes = pgdata.read_bounded(MARKER, MAX_MARKER_BYTES).map_err(local)?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Writes the marker, durably.
///
/// # Errors
/// [`Kind::Config`].
pub fn write_marker(pgdata: &Dir, marker: &RestoreMarker) -> Result<(), Error> {
    let mut bytes = serde_json::to_vec_pretty(marker).map_err(|e| Error::new(Kind::Bug, e.to_string()))?;
    bytes.push(b'\n');
    let now = jiff::Timestamp::now().as_microsecond();
    pgdata.put(Path::new(MARKER), &bytes, 0o600, pgdata.identity(), now).map_err(local)
}

/// The data directory for which places outside it are looked at.
pub struct Base<'a> {
    /// Its path.
    pub pgdata: &'a Path,
    /// What is there.
    pub state: &'a TargetState,
    /// The directory, if it is there.
    pub dir: Option<&'a Dir>,
    /// Whose it is or will be.
    pub owner: Identity,
}

impl Base<'_> {
    /// Whether this is what a link of the directory that is taken over leads to.
    pub(crate) fn links_to(&self, name: &str, target: &Path) -> Result<bool, Error> {
        let Some(dir) = self.dir.filter(|_| self.state.is_reused()) else { return Ok(false) };
        match dir.link_beneath(Path::new(name)) {
            Ok(to) => Ok(to.is_some_and(|to| to == target)),
            // Where the directory of the links should be lies something else.
            Err(e) if e.problem == Problem::Unsupported => Ok(false),
            Err(e) => Err(local(e)),
        }
    }

    /// Checks that a tablespace can be put into a directory. What else is in it does not matter: the cluster has a
    /// directory of its own there, by the name of its version. That one must be absent or empty, or this restore's
    /// already.
    ///
    /// # Errors
    /// [`Kind::Refused`] when not.
    pub fn check_tablespace(&self, oid: u32, target: &Path, version_directory: &str) -> Result<Option<Dir>, Error> {
        let is_in = |marker: &RestoreMarker| marker.tablespaces.iter().any(|path| path.as_path() == target);
        let hint = format!("put it elsewhere: --tablespace-map {oid}=/another/directory");
        let outside = Outside { what: &format!("tablespace {oid}"), target, hint: &hint };
        let Some(location) = outside.find(self)? else { return Ok(None) };
        let name = Path::new(version_directory);
        match location.stat_beneath(name).map_err(local)?.map(|stat| stat.kind) {
            None => return Ok(None),
            Some(ItemKind::Directory) => {}
            Some(_) => return Err(outside.refused(&format!("has a {version_directory} that is no directory"))),
        }
        let link = format!("pg_tblspc/{oid}");
        let inner = match find(&target.join(name), &hint)? {
            Found::There(inner) => inner,
            Found::Absent(_) => return Ok(None),
        };
        outside.check_owner(self, &inner)?;
        let is_empty = || Ok::<_, Error>(inner.sorted_names().map_err(local)?.is_empty());
        if is_empty()? || !inner.identity().is_roots() && (self.is_marked(is_in) || self.links_to(&link, target)?) {
            return Ok(Some(inner));
        }
        Err(outside.refused(&format!("is not empty: it has a {version_directory}; refused, nothing was touched")))
    }

    /// Checks that a directory can be the one that `pg_wal` will be a link to: absent, empty, or this restore's
    /// already.
    ///
    /// # Errors
    /// [`Kind::Refused`] when not.
    pub fn check_waldir(&self, target: &Path) -> Result<Option<Dir>, Error> {
        let is_in = |marker: &RestoreMarker| marker.waldir.as_ref().is_some_and(|waldir| waldir.as_path() == target);
        let outside = Outside { what: "pg_wal", target, hint: "name an absent or empty directory with --waldir" };
        let Some(dir) = outside.find(self)? else { return Ok(None) };
        let is_empty = || Ok::<_, Error>(dir.sorted_names().map_err(local)?.iter().all(|name| is_nothing(name)));
        if is_empty()? || !dir.identity().is_roots() && (self.is_marked(is_in) || self.links_to("pg_wal", target)?) {
            return Ok(Some(dir));
        }
        Err(outside.refused("is not empty: refused, nothing was touched"))
    }

    fn is_marked(&self, is_in: impl Fn(&RestoreMarker) -> bool) -> bool {
        matches!(self.state, TargetState::Unfinished(marker) if is_in(marker))
    }
}

/// A directory outside the data directory that a restore wants to write to. The operator has named it.
struct Outside<'a> {
    what: &'a str,
    target: &'a Path,
    hint: &'a str,
}

impl Outside<'_> {
    fn refused(&self, problem: &str) -> Error {
        Error::new(Kind::Refused, format!("{}: {} {problem}", self.what, shown(self.target))).hint(self.hint)
    }

    /// The directory, if it is there.
    fn find(&self, base: &Base<'_>) -> Result<Option<Dir>, Error> {
        if !self.target.is_absolute() {
            return Err(self.refused("is not an absolute path"));
        }
        if self.target.starts_with(base.pgdata) {
            return Err(self.refused("is in the data directory"));
        }
        if base.pgdata.starts_with(self.target) {
            return Err(self.refused("is a directory that the data directory is in"));
        }
        match find(self.target, self.hint).map_err(|e| e.while_doing(self.what))? {
            Found::There(dir) => self.check_owner(base, &dir).map(|()| Some(dir)),
            Found::Absent(Some(whose)) if whose.owner().uid != base.owner.owner().uid => Err(self.is_of(whose, base)),
            Found::Absent(_) => Ok(None),
        }
    }

    /// Root's own is made or given to the owner; another user's is his.
    fn check_owner(&self, base: &Base<'_>, dir: &Dir) -> Result<(), Error> {
        let whose = dir.identity();
        if whose.is_own() || whose.owner().uid == base.owner.owner().uid { Ok(()) } else { Err(self.is_of(whose, base)) }
    }

    fn is_of(&self, whose: Identity, base: &Base<'_>) -> Error {
        self.refused(&format!(
            "is in the hands of user {}, and the data directory in those of {}",
            whose.name(),
            base.owner.name()
        ))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::time::Duration;

    use super::*;

    fn marker(random: u32) -> RestoreMarker {
        RestoreMarker {
            about: String::new(),
            repository_id: "00".to_owned(),
            cluster: "main".to_owned(),
            system_id: "7".to_owned(),
            backup: BackupId::new(1_790_000_000, random).unwrap(),
            tablespaces: vec!["/nowhere/at/all".into()],
            waldir: None,
        }
    }

    fn at(pgdata: &Path, delta: bool) -> Result<TargetState, Kind> {
        let taking = Taking { delta, server_is_stopped: false };
        let found = look(pgdata, taking, &marker(1), &Deadline::after(Duration::from_secs(5)));
        found.map(|(state, _)| state).map_err(|e| e.kind)
    }

    /// The user whose directories are, where the tests run as root: a server's are never root's.
    const USER: u32 = 65_534;

    fn give(path: &Path) {
        if fsio::own_user() == 0 {
            std::os::unix::fs::chown(path, Some(USER), Some(USER)).unwrap();
        }
    }

    fn leave_marker(path: &Path, marker: &RestoreMarker) {
        write_marker(&Rooted::open(path).unwrap().dir, marker).unwrap();
    }

    #[test]
    fn only_what_is_absent_empty_or_ours_is_taken() {
        let place = tempfile::tempdir().unwrap();
        give(place.path());
        let data = place.path().join("data");
        assert_eq!(at(&data, false), Ok(TargetState::Absent));
        std::os::unix::fs::symlink("nowhere", &data).unwrap();
        assert_eq!(at(&data, true), Err(Kind::Refused));
        std::fs::remove_file(&data).unwrap();
        std::fs::write(&data, b"").unwrap();
        assert_eq!(at(&data, true), Err(Kind::Refused));
        std::fs::remove_file(&data).unwrap();
        std::fs::create_dir(&data).unwrap();
        give(&data);
        std::fs::create_dir(data.join("lost+found")).unwrap();
        assert_eq!(at(&data, false), Ok(TargetState::Empty));
        std::fs::write(data.join("x"), b"").unwrap();
        assert_eq!(at(&data, false), Err(Kind::Refused));
        assert_eq!(at(&data, true), Err(Kind::Refused), "not a data directory");
        leave_marker(&data, &marker(1));
        assert_eq!(at(&data, false), Ok(TargetState::Unfinished(marker(1))));
        leave_marker(&data, &marker(2));
        assert_eq!(at(&data, false), Err(Kind::Refused));
        assert_eq!(at(&data, true), Ok(TargetState::Unfinished(marker(2))));
        std::fs::write(data.join(MARKER), b"{\"torn").unwrap();
        assert_eq!(at(&data, false), Err(Kind::Refused));
        assert_eq!(at(&data, true), Ok(TargetState::Cluster));
    }

    #[test]
    fn a_server_that_runs_there_is_respected() {
        let place = tempfile::tempdir().unwrap();
        give(place.path());
        leave_marker(place.path(), &marker(1));
        let pid = place.path().join("postmaster.pid");
        let mut child = std::process::Command::new("sleep");
        if fsio::own_user() == 0 {
            child.uid(USER).gid(USER);
        }
        let mut child = child.arg("600").current_dir(place.path()).spawn().unwrap();
        for sign in ["", "-"] {
            std::fs::write(&pid, format!("{sign}{}\n/x\n", child.id())).unwrap();
            assert_eq!(at(place.path(), true), Err(Kind::Refused));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // Where not every process can be seen, or the disk is another host's too, that proves nothing.
        let proven = fsio::sees_every_process() && Dir::open(place.path()).unwrap().is_local().unwrap();
        let expected = || if proven { Ok(TargetState::Unfinished(marker(1))) } else { Err(Kind::Refused) };
        assert_eq!(at(place.path(), false), expected());
        // A process that works elsewhere has the id now.
        let mut other = std::process::Command::new("sleep").arg("600").current_dir("/").spawn().unwrap();
        std::fs::write(&pid, format!("{}\n", other.id())).unwrap();
        assert_eq!(at(place.path(), false), expected());
        other.kill().unwrap();
        other.wait().unwrap();
        std::fs::write(&pid, "what\n").unwrap();
        assert_eq!(at(place.path(), true), Err(Kind::Refused));
        let knows = Taking { delta: false, server_is_stopped: true };
        assert!(look(place.path(), knows, &marker(1), &Deadline::after(Duration::from_secs(5))).is_ok());
    }

    #[test]
    fn what_others_have_in_a_tablespaces_location_does_not_matter_and_our_version_does() {
        let place = tempfile::tempdir().unwrap();
        let (data, space) = (place.path().join("data"), place.path().join("space"));
        std::fs::create_dir_all(data.join("pg_tblspc")).unwrap();
        give(&data);
        give(&data.join("pg_tblspc"));
        let dir = Rooted::open(&data).unwrap().dir;
        let check = |target: &Path, found: &TargetState| {
            let base = Base { pgdata: &data, state: found, dir: Some(&dir), owner: dir.identity() };
            base.check_tablespace(5, target, "PG_15_1").map(|found| found.is_some()).map_err(|e| e.kind)
        };
        assert_eq!(check(&space, &TargetState::Empty), Ok(false));
        std::fs::create_dir(&space).unwrap();
        assert_eq!(check(&space, &TargetState::Empty), Ok(false));
        std::fs::write(space.join("x"), b"").unwrap();
        std::fs::create_dir_all(space.join("PG_14_9/5")).unwrap();
        assert_eq!(check(&space, &TargetState::Empty), Ok(false));
        std::fs::create_dir(space.join("PG_15_1")).unwrap();
        assert_eq!(check(&space, &TargetState::Empty), Ok(true));
        give(&space.join("PG_15_1"));
        assert_eq!(check(&space, &TargetState::Empty), Ok(true));
        std::fs::create_dir(space.join("PG_15_1/5")).unwrap();
        assert_eq!(check(&space, &TargetState::Empty), Err(Kind::Refused));
        assert_eq!(check(&space, &TargetState::Cluster), Err(Kind::Refused));
        std::os::unix::fs::symlink(&space, data.join("pg_tblspc/5")).unwrap();
        assert_eq!(check(&space, &TargetState::Cluster), Ok(true));
        assert_eq!(check(&space, &TargetState::Empty), Err(Kind::Refused));
        std::fs::remove_file(data.join("pg_tblspc/5")).unwrap();
        let ours = RestoreMarker { tablespaces: vec![space.as_path().into()], ..marker(1) };
        assert_eq!(check(&space, &TargetState::Unfinished(ours)), Ok(true));
        assert_eq!(check(&space, &TargetState::Unfinished(marker(1))), Err(Kind::Refused));
        std::fs::remove_dir_all(space.join("PG_15_1")).unwrap();
        std::os::unix::fs::symlink(&data, space.join("PG_15_1")).unwrap();
        assert_eq!(check(&space, &TargetState::Empty), Err(Kind::Refused));
        for bad in [Path::new("relative"), data.join("in").as_path()] {
            assert_eq!(check(bad, &TargetState::Empty), Err(Kind::Refused));
        }
    }

    #[test]
    fn a_directory_for_the_log_is_empty_or_ours() {
        let place = tempfile::tempdir().unwrap();
        let (data, log) = (place.path().join("data"), place.path().join("log"));
        std::fs::create_dir(&data).unwrap();
        let dir = Dir::open(&data).unwrap();
        let check = |found: &TargetState| {
            let base = Base { pgdata: &data, state: found, dir: Some(&dir), owner: Identity::own() };
            base.check_waldir(&log).map(|found| found.is_some()).map_err(|e| e.kind)
        };
        assert_eq!(check(&TargetState::Empty), Ok(false));
        std::fs::create_dir(&log).unwrap();
        assert_eq!(check(&TargetState::Empty), Ok(true));
        std::fs::write(log.join("x"), b"").unwrap();
        assert_eq!(check(&TargetState::Empty), Err(Kind::Refused));
        std::os::unix::fs::symlink(&log, data.join("pg_wal")).unwrap();
        // Nobody's marker or link makes root take what is root's.
        let expected = if fsio::own_user() == 0 { Err(Kind::Refused) } else { Ok(true) };
        assert_eq!(check(&TargetState::Cluster), expected);
        let ours = RestoreMarker { waldir: Some(log.as_path().into()), ..marker(1) };
        assert_eq!(check(&TargetState::Unfinished(ours)), expected);
    }
}
