//! Tablespaces outside the data directory: where those of the backup go, and those that replay makes by itself.
//!
//! Replay of the record that made a tablespace links `pg_tblspc/<oid>` to the path of the original, whatever the restored directory says,
//! and removes what is there. On the host of a living server that is its data. So such a directory must be empty, or this cluster's own.

use std::path::{Path, PathBuf};

use super::TablespaceKey;
use super::place::{Place, is_nothing, local};
use crate::error::{Error, Kind};
use crate::format::manifest::BackupFacts;
use crate::fsio::{self, ItemKind};
use crate::raw_text::{RawText, shown};

/// A tablespace that replay makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Created {
    /// Object id.
    pub(super) oid: u32,
    /// Where.
    pub(super) path: PathBuf,
    /// Where its record begins.
    pub(super) lsn: String,
}

/// What is to be done about the tablespaces that replay makes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ForReplay {
    /// Directories that are missing: replay stops where they are.
    pub(super) missing: Vec<PathBuf>,
    /// Directories whose content replay will remove.
    pub(super) emptied: Vec<PathBuf>,
}

/// Looks at the directories of tablespaces that replay makes. `restored` are those that the backup has, and where they go.
///
/// # Errors
/// [`Kind::Refused`] when one is not empty, unless it is this cluster's own that is taken over, or `may_overwrite`.
pub(super) fn for_replay(
    created: &[Created],
    restored: &[(u32, RawText, PathBuf)],
    pgdata: &Path,
    place: &Place,
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
        match fsio::stat(path).map_err(local)?.map(|stat| stat.kind) {
            None if fsio::stat_no_follow(path).map_err(local)?.is_some() => return Err(refused("is a link that leads nowhere")),
            None => {
                found.missing.push(path.clone());
                continue;
            }
            Some(ItemKind::Directory) => {}
            Some(_) => return Err(refused("is not a directory")),
        }
        if fsio::list_dir(path).map_err(local)?.iter().all(|name| is_nothing(name)) {
            continue;
        }
        let is_restored = restored.iter().any(|(_, _, to)| to == path);
        let is_noted = matches!(place, Place::Unfinished(note) if note.tablespaces.iter().any(|noted| noted.as_path() == path));
        let link = pgdata.join(format!("pg_tblspc/{oid}"));
        let is_own = is_restored
            || is_noted
            || place.is_reused() && fsio::read_link(&link).map_err(local)?.is_some_and(|to| Path::new(&to) == path);
        if !is_own && !may_overwrite {
            return Err(refused("is not empty"));
        }
        if !is_restored {
            found.emptied.push(path.clone());
        }
    }
    Ok(found)
}

/// Where each tablespace goes.
pub(super) fn map(facts: &BackupFacts, map: &[(TablespaceKey, PathBuf)]) -> Result<Vec<(u32, RawText, PathBuf)>, Error> {
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
    fn replay_gets_no_directory_that_others_may_use() {
        let place = tempfile::tempdir().unwrap();
        let (data, space) = (place.path().join("data"), place.path().join("space"));
        std::fs::create_dir_all(data.join("pg_tblspc")).unwrap();
        let created = [Created { oid: 7, path: space.clone(), lsn: "0/1".to_owned() }];
        let look = |found: &Place, restored: &[(u32, RawText, PathBuf)], may: bool| {
            for_replay(&created, restored, &data, found, may).map_err(|e| e.kind)
        };
        let here = || vec![space.clone()];
        assert_eq!(look(&Place::Empty, &[], false), Ok(ForReplay { missing: here(), emptied: vec![] }));
        std::fs::create_dir(&space).unwrap();
        assert_eq!(look(&Place::Empty, &[], false), Ok(ForReplay::default()));
        std::fs::create_dir(space.join("PG_15_1")).unwrap();
        let emptied = || Ok(ForReplay { missing: vec![], emptied: here() });
        for found in [Place::Empty, Place::Cluster] {
            assert_eq!(look(&found, &[], false), Err(Kind::Refused));
            assert_eq!(look(&found, &[], true), emptied());
        }
        // What this restore puts there itself, or a mapped one.
        assert_eq!(look(&Place::Empty, &[(7, "/x".into(), space.clone())], false), Ok(ForReplay::default()));
        assert_eq!(look(&Place::Empty, &[(7, "/x".into(), place.path().join("y"))], false), Err(Kind::Refused));
        // The cluster's own that is taken over.
        std::os::unix::fs::symlink(&space, data.join("pg_tblspc/7")).unwrap();
        assert_eq!(look(&Place::Cluster, &[], false), emptied());
        assert_eq!(look(&Place::Empty, &[], false), Err(Kind::Refused));
    }
}
