//! What lies in a directory already, in the order of a manifest, so that both can be walked side by side: what the
//! manifest does not have is removed. Memory: the names of the directories on the way, never those of all.

use crate::error::Error;
use crate::fsio::{self, ItemKind, RestoreTree, Stat};
use crate::raw_text::shown;
use crate::restore::target_directory::{LOST_AND_FOUND, MARKER, local};
use std::os::unix::ffi::OsStrExt;
use std::vec::IntoIter;

/// PostgreSQL's list of files, which `pg_verifybackup` reads. A restore writes it itself.
pub(crate) const BACKUP_MANIFEST: &[u8] = b"backup_manifest";

/// A walk through what is there, by path, byte by byte.
pub(crate) struct Extraneous<'a> {
    tree: &'a RestoreTree,
    open: Vec<IntoIter<Event>>,
    next: Option<Event>,
    /// Files, links and directories that were removed.
    pub(crate) removed: u64,
}

/// A name; or, after those names that sort between (`5`, `5.x`, `5/1`), what is in the directory of that name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    /// For the content of a directory with a slash at the end.
    path: Vec<u8>,
}

impl Event {
    fn is_content(&self) -> bool {
        self.path.last() == Some(&b'/')
    }
}

impl<'a> Extraneous<'a> {
    /// Begins at the data directory.
    ///
    /// # Errors
    /// As of reading a directory.
    pub(crate) fn new(tree: &'a RestoreTree) -> Result<Self, Error> {
        let mut extraneous = Self { tree, open: Vec::new(), next: None, removed: 0 };
        extraneous.enter(b"")?;
        Ok(extraneous)
    }

    /// Goes on to a path that the manifest has, and removes what comes before it, and what has its name and cannot be
    /// gone on with: it is of another kind, or a file that has a second name, is somebody else's or read-only.
    ///
    /// # Errors
    /// As of reading directories and removing.
    pub(crate) fn advance(&mut self, until: &[u8], kind: ItemKind) -> Result<(), Error> {
        while let Some(event) = self.peek()? {
            if event.path.as_slice() > until {
                break;
            }
            let event = self.next.take().unwrap_or(event);
            if event.is_content() {
                self.descend(&event)?;
            } else if event.path == until {
                if self.tree.stat(until).map_err(local)?.is_some_and(|stat| !self.is_usable(&stat, kind)) {
                    self.remove(until)?;
                }
            } else {
                self.remove(&event.path)?;
            }
        }
        Ok(())
    }

    /// Removes all that is left.
    ///
    /// # Errors
    /// As [`advance`](Self::advance).
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        while let Some(event) = self.peek()? {
            let event = self.next.take().unwrap_or(event);
            if event.is_content() {
                self.descend(&event)?;
            } else {
                self.remove(&event.path)?;
            }
        }
        Ok(())
    }

    fn is_usable(&self, stat: &Stat, kind: ItemKind) -> bool {
        // Where a file system maps users, only root can rely on whose it says it is.
        let is_ours = fsio::own_user() != 0 || stat.uid == self.tree.root().identity().owner().uid;
        stat.kind == kind && (kind != ItemKind::File || stat.links == 1 && is_ours && stat.mode & 0o600 == 0o600)
    }

    fn peek(&mut self) -> Result<Option<Event>, Error> {
        while self.next.is_none() {
            let Some(level) = self.open.last_mut() else { return Ok(None) };
            self.next = level.next();
            if self.next.is_none() {
                self.open.pop();
            }
        }
        Ok(self.next.clone())
    }

    fn descend(&mut self, event: &Event) -> Result<(), Error> {
        let path = event.path.strip_suffix(b"/").unwrap_or(&event.path);
        // Removed since, or replaced by a file.
        if self.tree.stat(path).map_err(local)?.is_some_and(|stat| stat.kind == ItemKind::Directory) {
            self.enter(path)?;
        }
        Ok(())
    }

    fn enter(&mut self, directory: &[u8]) -> Result<(), Error> {
        let mut events = Vec::new();
        for item in self.tree.items(directory).map_err(local)? {
            let name = item.name.as_bytes();
            let path = if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() };
            if Self::is_kept(&path) {
                continue;
            }
            let kind = match item.kind {
                ItemKind::Unknown => self.tree.stat(&path).map_err(local)?.map(|stat| stat.kind),
                kind => Some(kind),
            };
            if kind == Some(ItemKind::Directory) {
                events.push(Event { path: [path.as_slice(), b"/"].concat() });
            }
            events.push(Event { path });
        }
        events.sort_unstable();
        self.open.push(events.into_iter());
        Ok(())
    }

    /// What is not the manifest's business: our own marker, what is written meanwhile, and what every root of a file
    /// system has (any of these directories may be one).
    fn is_kept(path: &[u8]) -> bool {
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        match parts.as_slice() {
            [.., name] if *name == LOST_AND_FOUND => true,
            [name] => [MARKER.as_bytes(), BACKUP_MANIFEST].contains(name),
            _ => false,
        }
    }

    fn remove(&mut self, path: &[u8]) -> Result<(), Error> {
        tracing::debug!("remove {}", shown(self.tree.path_of(path)));
        self.removed += u64::from(self.tree.remove(path).map_err(local)?);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::fsio::Dir;

    fn put(root: &Path, path: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"x").unwrap();
    }

    fn files(root: &Path, below: &str, found: &mut Vec<String>) {
        for entry in fs::read_dir(root.join(below)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = if below.is_empty() { name } else { format!("{below}/{name}") };
            if root.join(&path).symlink_metadata().unwrap().is_dir() {
                files(root, &path, found);
                found.push(format!("{path}/"));
            } else {
                found.push(path);
            }
        }
        found.sort();
    }

    #[test]
    fn what_the_manifest_does_not_have_goes_and_the_rest_stays() {
        let place = tempfile::tempdir().unwrap();
        let (root, space, outside) = (place.path().join("data"), place.path().join("space"), place.path().join("outside"));
        for path in
            ["base/5", "base/5.x/y", "base/5/1", "base/5/2", "base/6/1", "base/7", "pg_wal/stale", "walvis.restore", "was_dir/x"]
        {
            if path == "base/5" {
                fs::create_dir_all(root.join(path)).unwrap();
            } else {
                put(&root, path);
            }
        }
        put(&outside, "precious");
        std::os::unix::fs::symlink(&outside, root.join("pg_link")).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("linked_directory")).unwrap();
        for path in ["PG_15_1/5/1", "PG_15_1/5/2", "PG_14_9/5/1", "stray"] {
            put(&space, path);
        }
        fs::create_dir(root.join("pg_tblspc")).unwrap();
        // Files that must not be written to: the backup's come in their place.
        for path in ["read_only", "second"] {
            put(&root, path);
        }
        fs::set_permissions(root.join("read_only"), std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
        fs::hard_link(root.join("second"), outside.join("second")).unwrap();
        let mut tree = RestoreTree::new(Dir::open(&root).unwrap());
        tree.link_tablespace(77, &space, "PG_15_1", Dir::open(&space.join("PG_15_1")).unwrap()).unwrap();
        let mut extraneous = Extraneous::new(&tree).unwrap();
        for (path, kind) in [
            ("base", ItemKind::Directory),
            ("base/5", ItemKind::Directory),
            ("base/5/1", ItemKind::File),
            ("base/7", ItemKind::Directory),
            ("linked_directory", ItemKind::Directory),
            ("pg_tblspc", ItemKind::Directory),
            ("pg_tblspc/77", ItemKind::Directory),
            ("pg_tblspc/77/PG_15_1", ItemKind::Directory),
            ("pg_tblspc/77/PG_15_1/5", ItemKind::Directory),
            ("pg_tblspc/77/PG_15_1/5/2", ItemKind::File),
            ("pg_wal", ItemKind::Directory),
            ("read_only", ItemKind::File),
            ("second", ItemKind::File),
            ("was_dir", ItemKind::File),
        ] {
            extraneous.advance(path.as_bytes(), kind).unwrap();
            if kind == ItemKind::Directory {
                tree.make_directory(path.as_bytes(), 0o700).unwrap();
            } else {
                tree.open_file(path.as_bytes()).unwrap();
            }
        }
        extraneous.finish().unwrap();
        let mut found = Vec::new();
        files(&root, "", &mut found);
        let expected = [
            "base/",
            "base/5/",
            "base/5/1",
            "base/7/",
            "linked_directory/",
            "pg_tblspc/",
            "pg_tblspc/77",
            "pg_wal/",
            "read_only",
            "second",
            "walvis.restore",
            "was_dir",
        ];
        assert_eq!(found, expected);
        let mut found = Vec::new();
        files(&space, "", &mut found);
        assert_eq!(found, ["PG_14_9/", "PG_14_9/5/", "PG_14_9/5/1", "PG_15_1/", "PG_15_1/5/", "PG_15_1/5/2", "stray"]);
        assert_eq!(fs::read(outside.join("second")).unwrap(), b"x");
        assert!(outside.join("precious").exists());
    }
}
