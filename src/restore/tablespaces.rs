//! Tablespaces outside the data directory: where those of the backup go, and those that replay makes by itself.
//!
//! Replay of the record that made a tablespace links `pg_tblspc/<oid>` to the path of the original, whatever the
//! restored directory says, and removes what is there. On the host of a living server that is its data. So such a
//! directory must be empty, or this cluster's own.

use crate::error::{Error, Kind};
use crate::format::manifest::{BackupFacts, Tablespace};
use crate::fsio::{Found, ItemKind, Problem, Rooted};
use crate::raw_text::{RawText, shown};
use crate::restore::request::TablespaceKey;
use crate::restore::target_directory::{Base, TargetState, local};
use std::path::{Path, PathBuf};

/// A tablespace that replay makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Created {
    /// Object id.
    pub(crate) oid: u32,
    /// Where.
    pub(crate) path: PathBuf,
    /// Where its record begins.
    pub(crate) lsn: String,
}

/// What is to be done about the tablespaces that replay makes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ForReplay {
    /// Directories that are missing: replay stops where they are.
    pub(crate) missing: Vec<PathBuf>,
    /// Directories whose content replay will remove.
    pub(crate) emptied: Vec<PathBuf>,
}

/// Looks at the directories of tablespaces that replay makes. `restored` are those that the backup has, and where they
/// go. Replay touches only what has the name of its version there.
///
/// # Errors
/// [`Kind::Refused`] when that is not empty, unless it is this cluster's own that is taken over, or `may_overwrite`.
pub(crate) fn for_replay(
    created: &[Created],
    restored: &[(u32, RawText, PathBuf)],
    base: &Base<'_>,
    version_directory: &str,
    may_overwrite: bool,
) -> Result<ForReplay, Error> {
    let mut found = ForReplay::default();
    for Created { oid, path, lsn } in created {
        let refused = |problem: &str| {
            Error::new(
                Kind::Refused,
                format!("tablespace {oid} was made at {lsn}, after the backup, in {}, which {problem}", shown(path)),
            )
            .hint(
                "replay would remove what is there, and a server may use it: restore on another host, move that directory away, or, if what \
                 is in it may be destroyed, say --tablespaces-of-the-log-may-be-overwritten",
            )
        };
        let location = match Rooted::look(path) {
            Ok(Found::Absent(_)) => {
                found.missing.push(path.clone());
                continue;
            }
            Ok(Found::There(location)) => location,
            Err(e) if e.problem == Problem::Unsupported => return Err(refused("is not a directory")),
            Err(e) if e.action == "follow" => return Err(refused("is a link that leads nowhere")),
            Err(e) => return Err(local(e)),
        };
        let version = Path::new(version_directory);
        match location.stat_beneath(version).map_err(local)?.map(|stat| stat.kind) {
            None => continue,
            Some(ItemKind::Directory) => {}
            Some(_) => return Err(refused(&format!("has a {version_directory} that is no directory"))),
        }
        if location
            .dir_beneath(version)
            .map_err(local)?
            .map_or(Ok(true), |dir| dir.items().map(|items| items.is_empty()))
            .map_err(local)?
        {
            continue;
        }
        let is_restored = restored.iter().any(|(_, _, to)| to == path);
        let is_marked = matches!(base.state, TargetState::Unfinished(marker) if marker.tablespaces.iter().any(|marked| marked.as_path() == path));
        let is_own = is_restored || is_marked || base.links_to(&format!("pg_tblspc/{oid}"), path)?;
        if !is_own && !may_overwrite {
            return Err(refused("is not empty"));
        }
        if !is_restored {
            found.emptied.push(path.clone());
        }
    }
    Ok(found)
}

/// What keeps a restore from writing outside the data directory, if anything does: the backup, or the log, names a
/// place, and the operator has not. A backup is a claim of its writer.
pub(crate) fn unnamed(
    facts: &BackupFacts,
    map: &[(TablespaceKey, PathBuf)],
    missing: &[PathBuf],
    at_original_places: bool,
) -> Option<String> {
    if at_original_places {
        return None;
    }
    let is_named = |tablespace: &&Tablespace| map.iter().any(|(key, _)| fits(key, tablespace));
    let unmapped = facts.tablespaces.iter().filter(|tablespace| !is_named(tablespace));
    let mut places: Vec<String> =
        unmapped.map(|tablespace| format!("tablespace {} was in {}", tablespace.oid, tablespace.path)).collect();
    places.extend(missing.iter().map(|path| format!("replay needs the directory {}, which is not there", shown(path))));
    (!places.is_empty()).then(|| places.join("; "))
}

/// What to say then.
pub(crate) const NAME_THEM: &str = "say --tablespaces-at-original-places if that is where they are to be again, or --tablespace-map \
    OID=/new/path for each of the backup's";

fn fits(key: &TablespaceKey, tablespace: &Tablespace) -> bool {
    match key {
        TablespaceKey::Oid(oid) => *oid == tablespace.oid,
        TablespaceKey::Path(path) => path.as_path() == tablespace.path.as_path(),
    }
}

/// Where each tablespace goes.
pub(crate) fn map(facts: &BackupFacts, map: &[(TablespaceKey, PathBuf)]) -> Result<Vec<(u32, RawText, PathBuf)>, Error> {
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
            return Err(usage(format!("tablespaces {other} and {} would share {}", tablespace.oid, shown(&to))));
        }
        mapped.push((tablespace.oid, tablespace.path.clone(), to));
    }
    Ok(mapped)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;
    use crate::fsio::{Dir, Identity};

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
            verified_up_to: 0,
        };
        let map = |pairs: &[(TablespaceKey, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(key, to)| (key.clone(), PathBuf::from(to))).collect();
            map(&facts, &pairs).map(|mapped| mapped.into_iter().map(|(oid, _, to)| (oid, to)).collect::<Vec<_>>())
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

    #[test]
    fn nothing_outside_is_written_that_nobody_named() {
        let facts = BackupFacts {
            hash_key: String::new(),
            databases: Vec::new(),
            tablespaces: vec![Tablespace { oid: 1, path: "/fast".into() }, Tablespace { oid: 2, path: "/slow".into() }],
            annotations: std::collections::BTreeMap::new(),
            damage: Vec::new(),
            warnings: Vec::new(),
            attachments: Vec::new(),
            verified_up_to: 0,
        };
        let one = (TablespaceKey::Oid(1), PathBuf::from("/a"));
        let two = (TablespaceKey::Path("/slow".into()), PathBuf::from("/slow"));
        let late = [PathBuf::from("/late")];
        let said = |map: &[(TablespaceKey, PathBuf)], missing: &[PathBuf]| unnamed(&facts, map, missing, false);
        assert_eq!(said(std::slice::from_ref(&one), &[]).unwrap(), "tablespace 2 was in /slow");
        assert_eq!(said(&[one.clone(), two.clone()], &[]), None);
        assert_eq!(said(&[one, two], &late).unwrap(), "replay needs the directory /late, which is not there");
        assert_eq!(unnamed(&facts, &[], &late, true), None);
    }

    #[test]
    fn replay_gets_no_directory_that_others_may_use() {
        let place = tempfile::tempdir().unwrap();
        let (data, space) = (place.path().join("data"), place.path().join("space"));
        std::fs::create_dir_all(data.join("pg_tblspc")).unwrap();
        let dir = Dir::open(&data).unwrap();
        let created = [Created { oid: 7, path: space.clone(), lsn: "0/1".to_owned() }];
        let look = |found: &TargetState, restored: &[(u32, RawText, PathBuf)], may: bool| {
            let base = Base { pgdata: &data, state: found, dir: Some(&dir), owner: Identity::own() };
            for_replay(&created, restored, &base, "PG_15_1", may).map_err(|e| e.kind)
        };
        let here = || vec![space.clone()];
        assert_eq!(look(&TargetState::Empty, &[], false), Ok(ForReplay { missing: here(), emptied: vec![] }));
        // What others have there does not matter: replay does not touch it.
        std::fs::create_dir_all(space.join("PG_15_1")).unwrap();
        std::fs::create_dir_all(space.join("PG_14_9/5")).unwrap();
        std::fs::write(space.join("other"), "").unwrap();
        assert_eq!(look(&TargetState::Empty, &[], false), Ok(ForReplay::default()));
        std::fs::create_dir(space.join("PG_15_1/5")).unwrap();
        let emptied = || Ok(ForReplay { missing: vec![], emptied: here() });
        for found in [TargetState::Empty, TargetState::Cluster] {
            assert_eq!(look(&found, &[], false), Err(Kind::Refused));
            assert_eq!(look(&found, &[], true), emptied());
        }
        // What this restore puts there itself, or a mapped one.
        assert_eq!(look(&TargetState::Empty, &[(7, "/x".into(), space.clone())], false), Ok(ForReplay::default()));
        assert_eq!(look(&TargetState::Empty, &[(7, "/x".into(), place.path().join("y"))], false), Err(Kind::Refused));
        // The cluster's own that is taken over.
        std::os::unix::fs::symlink(&space, data.join("pg_tblspc/7")).unwrap();
        assert_eq!(look(&TargetState::Cluster, &[], false), emptied());
        assert_eq!(look(&TargetState::Empty, &[], false), Err(Kind::Refused));
    }
}
