//! The directory to restore into: what lies there, whether it may be taken, and the note that says whose it is meanwhile.

use std::ffi::OsStr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::running;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::fsio::{self, Durability, ItemKind, Problem};
use crate::ops::{cluster_facts, file_error};
use crate::raw_text::{RawText, shown};
use crate::repo::SystemId;

/// The note in a directory whose restore is not finished. A server does not start there: `global/pg_control` comes last.
pub const NOTE: &str = "walvis.restore";
/// What the root of a file system has, and only root may look into.
pub(super) const LOST_AND_FOUND: &[u8] = b"lost+found";
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
    pub tablespaces: Vec<RawText>,
    /// Where it puts `pg_wal`, if that is not in the data directory.
    #[serde(default)]
    pub waldir: Option<RawText>,
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

/// What the operator allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taking {
    /// To take over the data directory of a server that does not run.
    pub delta: bool,
    /// To believe that it does not run, where that is not proven.
    pub server_is_stopped: bool,
}

/// Looks what lies there, and whether this restore may take it.
///
/// # Errors
/// [`Kind::Refused`] when not; [`Kind::Config`] when it cannot be told.
pub fn look(pgdata: &Path, taking: Taking, ours: &Note, deadline: &Deadline) -> Result<Place, Error> {
    let delta = taking.delta;
    let refused = |what: String| Error::new(Kind::Refused, what);
    match fsio::stat(pgdata).map_err(local)?.map(|stat| stat.kind) {
        None => {
            // A link that leads nowhere: what is behind it may only not be mounted.
            if fsio::stat_no_follow(pgdata).map_err(local)?.is_some() {
                return Err(
                    refused(format!("{} is a link that leads nowhere", shown(pgdata))).hint("mount or make what it leads to")
                );
            }
            return Ok(Place::Absent);
        }
        Some(ItemKind::Directory) => {}
        Some(_) => return Err(refused(format!("{} is not a directory", shown(pgdata))).hint("name another --pgdata")),
    }
    let names = fsio::list_dir(pgdata).map_err(local)?;
    if names.iter().all(|name| is_nothing(name)) {
        return Ok(Place::Empty);
    }
    running::check(pgdata, taking.server_is_stopped)?;
    if names.iter().any(|name| name == NOTE) {
        let note = read_note(pgdata)?;
        return match note {
            Some(note) if note.is_of_the_same(ours) || delta => Ok(Place::Unfinished(note)),
            Some(note) => Err(refused(format!(
                "{} has an unfinished restore of another backup: {} of cluster {}",
                shown(pgdata),
                note.backup,
                note.cluster
            ))
            .hint("finish that one with --backup, or replace it with --delta, or empty the directory")),
            None if delta => Ok(Place::Cluster),
            None => Err(refused(format!("{} has an unfinished restore whose {NOTE} cannot be read", shown(pgdata)))
                .hint("replace it with --delta, or empty the directory")),
        };
    }
    if !delta {
        return Err(refused(format!("{} is not empty: refused, nothing was touched", shown(pgdata)))
            .hint("name an empty or absent directory; --delta replaces the data directory of a stopped server"));
    }
    match cluster_facts::of_data_directory(pgdata, deadline)? {
        Some(facts) if facts.system_id.to_string() == ours.system_id => Ok(Place::Cluster),
        Some(facts) => Err(foreign(pgdata, facts.system_id, ours)),
        None => Err(refused(format!("{} is not a data directory: it has no global/pg_control", shown(pgdata)))
            .hint("--delta removes what does not belong to the backup; name the data directory, or an empty one")),
    }
}

/// What an empty directory may have: the root of a file system has it, or a restore that was killed before its first step left it.
pub(super) fn is_nothing(name: &OsStr) -> bool {
    name.as_encoded_bytes() == LOST_AND_FOUND || name.as_encoded_bytes().starts_with(fsio::TEMP_PREFIX.as_bytes())
}

fn foreign(pgdata: &Path, found: SystemId, ours: &Note) -> Error {
    Error::new(
        Kind::Refused,
        format!("{} is of another cluster: system identifier {found}, the backup has {}", shown(pgdata), ours.system_id),
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

/// Checks that a tablespace can be put into a directory: absent, empty, or this restore's already.
///
/// # Errors
/// [`Kind::Refused`] when not.
pub fn check_tablespace(oid: u32, target: &Path, pgdata: &Path, place: &Place) -> Result<(), Error> {
    let is_noted = matches!(place, Place::Unfinished(note) if note.tablespaces.iter().any(|path| path.as_path() == target));
    let outside = Outside {
        what: &format!("tablespace {oid}"),
        target,
        link: &pgdata.join(format!("pg_tblspc/{oid}")),
        is_noted,
        hint: &format!("put it elsewhere: --tablespace-map {oid}=/another/empty/directory"),
    };
    outside.check(pgdata, place)
}

/// As [`check_tablespace`], for the directory that `pg_wal` will be a link to.
///
/// # Errors
/// [`Kind::Refused`] when not.
pub fn check_waldir(target: &Path, pgdata: &Path, place: &Place) -> Result<(), Error> {
    let is_noted =
        matches!(place, Place::Unfinished(note) if note.waldir.as_ref().is_some_and(|waldir| waldir.as_path() == target));
    let hint = "name an absent or empty directory with --waldir";
    Outside { what: "pg_wal", target, link: &pgdata.join("pg_wal"), is_noted, hint }.check(pgdata, place)
}

/// A directory outside the data directory that a restore wants to write to.
struct Outside<'a> {
    what: &'a str,
    target: &'a Path,
    /// What leads there from the data directory.
    link: &'a Path,
    /// Whether the note of an unfinished restore says that it is its own.
    is_noted: bool,
    hint: &'a str,
}

impl Outside<'_> {
    fn check(&self, pgdata: &Path, place: &Place) -> Result<(), Error> {
        let Self { what, target, .. } = self;
        let refused =
            |problem: &str| Err(Error::new(Kind::Refused, format!("{what}: {} {problem}", shown(target))).hint(self.hint));
        if !target.is_absolute() {
            return refused("is not an absolute path");
        }
        if target.starts_with(pgdata) {
            return refused("is in the data directory");
        }
        if pgdata.starts_with(target) {
            return refused("is a directory that the data directory is in");
        }
        match fsio::stat(target).map_err(local)?.map(|stat| stat.kind) {
            None if fsio::stat_no_follow(target).map_err(local)?.is_none() => return Ok(()),
            None => return refused("is a link that leads nowhere"),
            Some(ItemKind::Directory) => {}
            Some(_) => return refused("is not a directory"),
        }
        if self.is_noted || fsio::list_dir(target).map_err(local)?.iter().all(|name| is_nothing(name)) {
            return Ok(());
        }
        let is_linked = || -> Result<bool, Error> {
            Ok(fsio::read_link(self.link).map_err(local)?.is_some_and(|to| Path::new(&to) == *target))
        };
        if place.is_reused() && is_linked()? {
            return Ok(());
        }
        refused("is not empty: refused, nothing was touched")
    }
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
            tablespaces: vec!["/nowhere/at/all".into()],
            waldir: None,
        }
    }

    fn at(pgdata: &Path, delta: bool) -> Result<Place, Kind> {
        let taking = Taking { delta, server_is_stopped: false };
        look(pgdata, taking, &note(1), &Deadline::after(Duration::from_secs(5))).map_err(|e| e.kind)
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
        // Where not every process can be seen, or the disk is another host's too, that proves nothing.
        let proven = fsio::sees_every_process() && fsio::is_local(place.path()).unwrap();
        let expected = || if proven { Ok(Place::Unfinished(note(1))) } else { Err(Kind::Refused) };
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
        assert!(look(place.path(), knows, &note(1), &Deadline::after(Duration::from_secs(5))).is_ok());
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
        let ours = Note { tablespaces: vec![space.as_path().into()], ..note(1) };
        assert_eq!(check(&space, &Place::Unfinished(ours)), Ok(()));
        assert_eq!(check(&space, &Place::Unfinished(note(1))), Err(Kind::Refused));
        for bad in [Path::new("relative"), data.join("in").as_path()] {
            assert_eq!(check(bad, &Place::Empty), Err(Kind::Refused));
        }
    }
}
