//! The directory to restore into: what lies there, whether it may be taken, and the note that says whose it is meanwhile.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::fsio::{self, Durability, ItemKind, Problem};
use crate::ops::{cluster_facts, file_error};
use crate::repo::SystemId;

/// The note in a directory whose restore is not finished. A server does not start there: `global/pg_control` comes last.
pub const NOTE: &str = "walvis.restore";
const MAX_NOTE_BYTES: usize = 1024 * 1024;

/// Who restores what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// For whoever finds it.
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
    pub tablespaces: Vec<PathBuf>,
}

impl Note {
    fn is_of_the_same(&self, other: &Self) -> bool {
        (&self.repository_id, &self.cluster, &self.system_id, self.backup)
            == (&other.repository_id, &other.cluster, &other.system_id, other.backup)
    }
}

/// What lies where the data directory is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Nothing: it will be made.
    Absent,
    /// An empty directory.
    Empty,
    /// A restore that was interrupted.
    Unfinished(Note),
    /// The data directory of a server that does not run.
    Cluster,
}

impl Place {
    /// Whether what is there is looked at.
    pub fn is_reused(&self) -> bool {
        matches!(self, Self::Unfinished(_) | Self::Cluster)
    }
}

/// Looks what lies there, and whether this restore may take it.
///
/// # Errors
/// [`Kind::Refused`] when not; [`Kind::Config`] when it cannot be told.
pub fn look(pgdata: &Path, delta: bool, ours: &Note, deadline: &Deadline) -> Result<Place, Error> {
    let refused = |what: String| Error::new(Kind::Refused, what);
    match fsio::stat(pgdata).map_err(local)?.map(|stat| stat.kind) {
        None => {
            // A link that leads nowhere: what is behind it may only not be mounted.
            if fsio::stat_no_follow(pgdata).map_err(local)?.is_some() {
                return Err(
                    refused(format!("{} is a link that leads nowhere", pgdata.display())).hint("mount or make what it leads to")
                );
            }
            return Ok(Place::Absent);
        }
        Some(ItemKind::Directory) => {}
        Some(_) => return Err(refused(format!("{} is not a directory", pgdata.display())).hint("name another --pgdata")),
    }
    let names = fsio::list_dir(pgdata).map_err(local)?;
    if names.iter().all(|name| name == "lost+found") {
        return Ok(Place::Empty);
    }
    if let Some(process) = server_in(pgdata)? {
        return Err(refused(format!("{} is in use: process {process} runs there (postmaster.pid)", pgdata.display()))
            .hint("stop that server first, or restore into another directory"));
    }
    if names.iter().any(|name| name == NOTE) {
        let note = read_note(pgdata)?;
        return match note {
            Some(note) if note.is_of_the_same(ours) || delta => Ok(Place::Unfinished(note)),
            Some(note) => Err(refused(format!(
                "{} has an unfinished restore of another backup: {} of cluster {}",
                pgdata.display(),
                note.backup,
                note.cluster
            ))
            .hint("finish that one with --backup, or replace it with --delta, or empty the directory")),
            None if delta => Ok(Place::Cluster),
            None => Err(refused(format!("{} has an unfinished restore whose {NOTE} cannot be read", pgdata.display()))
                .hint("replace it with --delta, or empty the directory")),
        };
    }
    if !delta {
        return Err(refused(format!("{} is not empty: refused, nothing was touched", pgdata.display()))
            .hint("name an empty or absent directory; --delta replaces the data directory of a stopped server"));
    }
    match cluster_facts::of_data_directory(pgdata, deadline)? {
        Some(facts) if facts.system_id.to_string() == ours.system_id => Ok(Place::Cluster),
        Some(facts) => Err(foreign(pgdata, facts.system_id, ours)),
        None => Err(refused(format!("{} is not a data directory: it has no global/pg_control", pgdata.display()))
            .hint("--delta removes what does not belong to the backup; name the data directory, or an empty one")),
    }
}

fn foreign(pgdata: &Path, found: SystemId, ours: &Note) -> Error {
    Error::new(
        Kind::Refused,
        format!("{} is of another cluster: system identifier {found}, the backup has {}", pgdata.display(), ours.system_id),
    )
    .hint("name the data directory of this cluster, or an empty one")
}

fn read_note(pgdata: &Path) -> Result<Option<Note>, Error> {
    match fsio::read_bounded(&pgdata.join(NOTE), MAX_NOTE_BYTES) {
        // One that was torn by a power failure is as good as none.
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(e) if e.problem == Problem::Absent => Ok(None),
        Err(e) => Err(local(e)),
    }
}

/// Writes the note, durably.
///
/// # Errors
/// [`Kind::Config`].
pub fn write_note(pgdata: &Path, note: &Note) -> Result<(), Error> {
    let mut bytes = serde_json::to_vec_pretty(note).map_err(|e| Error::new(Kind::Bug, e.to_string()))?;
    bytes.push(b'\n');
    let mut draft = fsio::Draft::beside(&pgdata.join(NOTE), 0o600).map_err(local)?;
    draft.append(&bytes).map_err(local)?;
    draft.publish_over(Durability::Durable).map_err(local)
}

/// The process that `postmaster.pid` names, if it runs. As the server does (`CreateLockFile`), except that a process that works
/// somewhere else is not taken for it: ids are used again after a restart of the machine.
fn server_in(pgdata: &Path) -> Result<Option<i32>, Error> {
    let text = match fsio::read_bounded(&pgdata.join("postmaster.pid"), MAX_NOTE_BYTES) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(e) if e.problem == Problem::Absent => return Ok(None),
        Err(e) => return Err(local(e)),
    };
    let first = text.lines().next().unwrap_or_default().trim();
    // A server for one user writes its id negative.
    let Some(process) = first.parse::<i32>().ok().and_then(i32::checked_abs).filter(|id| *id > 0) else {
        return Err(Error::new(Kind::Refused, format!("{}: postmaster.pid makes no sense", pgdata.display()))
            .hint("make sure that no server runs there, then remove that file"));
    };
    let id = nix::unistd::Pid::from_raw(process);
    if process == std::process::id().cast_signed() || nix::sys::signal::kill(id, None) == Err(nix::errno::Errno::ESRCH) {
        return Ok(None);
    }
    let here = fsio::stat(pgdata).map_err(local)?;
    match fsio::stat(Path::new(&format!("/proc/{process}/cwd"))) {
        Ok(Some(there)) if here.is_some_and(|here| (here.dev, here.ino) != (there.dev, there.ino)) => Ok(None),
        // It works there, or nobody says where.
        _ => Ok(Some(process)),
    }
}

/// Checks that a tablespace can be put into a directory: absent, empty, or this restore's already.
///
/// # Errors
/// [`Kind::Refused`] when not.
pub fn check_tablespace(oid: u32, target: &Path, pgdata: &Path, place: &Place) -> Result<(), Error> {
    let refused = |what: String| {
        Error::new(Kind::Refused, what).hint(format!("put it elsewhere: --tablespace-map {oid}=/another/empty/directory"))
    };
    if !target.is_absolute() {
        return Err(refused(format!("tablespace {oid}: {} is not an absolute path", target.display())));
    }
    if target.starts_with(pgdata) {
        return Err(refused(format!("tablespace {oid}: {} is in the data directory", target.display())));
    }
    match fsio::stat(target).map_err(local)?.map(|stat| stat.kind) {
        None => {
            return match fsio::stat_no_follow(target).map_err(local)? {
                None => Ok(()),
                Some(_) => Err(refused(format!("tablespace {oid}: {} is a link that leads nowhere", target.display()))),
            };
        }
        Some(ItemKind::Directory) => {}
        Some(_) => return Err(refused(format!("tablespace {oid}: {} is not a directory", target.display()))),
    }
    if fsio::list_dir(target).map_err(local)?.iter().all(|name| name == "lost+found") {
        return Ok(());
    }
    let is_ours = match place {
        Place::Unfinished(note) => note.tablespaces.iter().any(|path| path == target),
        Place::Absent | Place::Empty | Place::Cluster => false,
    };
    let is_linked = || -> Result<bool, Error> {
        let link = pgdata.join(format!("pg_tblspc/{oid}"));
        Ok(place.is_reused() && fsio::read_link(&link).map_err(local)?.is_some_and(|linked| Path::new(&linked) == target))
    };
    if is_ours || is_linked()? {
        return Ok(());
    }
    Err(refused(format!("tablespace {oid}: {} is not empty: refused, nothing was touched", target.display())))
}

/// An error of a local file.
pub(super) fn local(error: fsio::FsError) -> Error {
    let full = error.problem == Problem::NoSpace;
    let error = file_error(Kind::Config, error);
    if full { error.hint("free space and run the same command again: what is there already is kept") } else { error }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn note(random: u32) -> Note {
        Note {
            about: String::new(),
            repository_id: "00".to_owned(),
            cluster: "main".to_owned(),
            system_id: "7".to_owned(),
            backup: BackupId::new(1_790_000_000, random).unwrap(),
            tablespaces: vec![PathBuf::from("/nowhere/at/all")],
        }
    }

    fn at(pgdata: &Path, delta: bool) -> Result<Place, Kind> {
        look(pgdata, delta, &note(1), &Deadline::after(Duration::from_secs(5))).map_err(|e| e.kind)
    }

    #[test]
    fn only_what_is_absent_empty_or_ours_is_taken() {
        let place = tempfile::tempdir().unwrap();
        let data = place.path().join("data");
        assert_eq!(at(&data, false), Ok(Place::Absent));
        std::os::unix::fs::symlink("nowhere", &data).unwrap();
        assert_eq!(at(&data, true), Err(Kind::Refused));
        std::fs::remove_file(&data).unwrap();
        std::fs::write(&data, b"").unwrap();
        assert_eq!(at(&data, true), Err(Kind::Refused));
        std::fs::remove_file(&data).unwrap();
        std::fs::create_dir(&data).unwrap();
        std::fs::create_dir(data.join("lost+found")).unwrap();
        assert_eq!(at(&data, false), Ok(Place::Empty));
        std::fs::write(data.join("x"), b"").unwrap();
        assert_eq!(at(&data, false), Err(Kind::Refused));
        assert_eq!(at(&data, true), Err(Kind::Refused), "not a data directory");
        write_note(&data, &note(1)).unwrap();
        assert_eq!(at(&data, false), Ok(Place::Unfinished(note(1))));
        write_note(&data, &note(2)).unwrap();
        assert_eq!(at(&data, false), Err(Kind::Refused));
        assert_eq!(at(&data, true), Ok(Place::Unfinished(note(2))));
        std::fs::write(data.join(NOTE), b"{\"torn").unwrap();
        assert_eq!(at(&data, false), Err(Kind::Refused));
        assert_eq!(at(&data, true), Ok(Place::Cluster));
    }

    #[test]
    fn a_server_that_runs_there_is_respected() {
        let place = tempfile::tempdir().unwrap();
        write_note(place.path(), &note(1)).unwrap();
        let pid = place.path().join("postmaster.pid");
        let mut child = std::process::Command::new("sleep").arg("600").current_dir(place.path()).spawn().unwrap();
        for sign in ["", "-"] {
            std::fs::write(&pid, format!("{sign}{}\n/x\n", child.id())).unwrap();
            assert_eq!(at(place.path(), true), Err(Kind::Refused));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(at(place.path(), false), Ok(Place::Unfinished(note(1))));
        // A process that works elsewhere has the id now.
        let mut other = std::process::Command::new("sleep").arg("600").current_dir("/").spawn().unwrap();
        std::fs::write(&pid, format!("{}\n", other.id())).unwrap();
        assert_eq!(at(place.path(), false), Ok(Place::Unfinished(note(1))));
        other.kill().unwrap();
        other.wait().unwrap();
        std::fs::write(&pid, "what\n").unwrap();
        assert_eq!(at(place.path(), true), Err(Kind::Refused));
    }

    #[test]
    fn tablespaces_are_not_overwritten() {
        let place = tempfile::tempdir().unwrap();
        let (data, space) = (place.path().join("data"), place.path().join("space"));
        std::fs::create_dir_all(data.join("pg_tblspc")).unwrap();
        let check = |target: &Path, found: &Place| check_tablespace(5, target, &data, found).map_err(|e| e.kind);
        assert_eq!(check(&space, &Place::Empty), Ok(()));
        std::fs::create_dir(&space).unwrap();
        assert_eq!(check(&space, &Place::Empty), Ok(()));
        std::fs::write(space.join("x"), b"").unwrap();
        assert_eq!(check(&space, &Place::Empty), Err(Kind::Refused));
        assert_eq!(check(&space, &Place::Cluster), Err(Kind::Refused));
        std::os::unix::fs::symlink(&space, data.join("pg_tblspc/5")).unwrap();
        assert_eq!(check(&space, &Place::Cluster), Ok(()));
        assert_eq!(check(&space, &Place::Empty), Err(Kind::Refused));
        std::fs::remove_file(data.join("pg_tblspc/5")).unwrap();
        let ours = Note { tablespaces: vec![space.clone()], ..note(1) };
        assert_eq!(check(&space, &Place::Unfinished(ours)), Ok(()));
        assert_eq!(check(&space, &Place::Unfinished(note(1))), Err(Kind::Refused));
        for bad in [Path::new("relative"), data.join("in").as_path()] {
            assert_eq!(check(bad, &Place::Empty), Err(Kind::Refused));
        }
    }
}
