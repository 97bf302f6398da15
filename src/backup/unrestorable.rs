//! Databases that a backup cannot bring back, because of what happened to them while it was taken.
//!
//! `CREATE DATABASE` by copying files (the only way before 15, later `STRATEGY file_copy`) and
//! `ALTER DATABASE … SET TABLESPACE` are one record in the log: "copy this directory". Replay copies what the
//! *restored* directory has there at that moment. That is what the original was then only if the backup has the source
//! as it was or as the log can make it so. It has not when files of the source were removed afterwards, while the
//! backup ran (moving a database removes them at once; so does dropping the template): the new database lacks what was
//! not read in time, and no connection gets in. Nor when the source was changed afterwards: what was read may be later
//! than the copy, and no page image mends the new one. Tried on 13, 15 and 18.
//!
//! All else does no harm: a source that stays as it is, a copy that is dropped again, databases made block by block in
//! the log, dropped databases, tablespaces made and dropped. What was made from the log alone is right, whatever the
//! backup has of it.

use crate::error::{Error, Kind};
use crate::pg::scan::{BlockRef, DatabaseFiles, Mark, RelFile, StorageChange, Visitor};
use crate::pg::{Lsn, Timeline};
use crate::repo::catalog::Step;
use crate::repo::{ClusterName, Facts, Repository};
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

/// A database that the backup cannot bring back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unrestorable {
    /// OID of the database.
    pub database: u32,
    /// What happened.
    pub how: How,
}

/// What happened to a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// It was moved to another tablespace.
    Moved,
    /// It was copied from this one, whose files were then removed.
    SourceRemoved(u32),
    /// It was copied from this one, which was then changed.
    SourceChanged(u32),
}

/// What replay will have in the directory of a database in a tablespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Exactly what it should, for the log alone makes it.
    Exact,
    /// What the backup has of this source, which has to be as it was at that position.
    Copied { source: DatabaseFiles, at: Lsn },
}

/// The directories that were made, and those of the backup that were removed.
#[derive(Debug, Default)]
struct Directories {
    made: HashMap<DatabaseFiles, State>,
    removed: HashMap<DatabaseFiles, Lsn>,
}

impl Directories {
    fn replay(&mut self, at: Lsn, mark: &Mark) {
        match mark {
            Mark::DatabaseCreate { database, tablespace, copied_from } => {
                let state = match copied_from {
                    None => State::Exact,
                    Some(source) => self.made.get(source).copied().unwrap_or(State::Copied { source: *source, at }),
                };
                self.made.insert(DatabaseFiles { tablespace: *tablespace, database: *database }, state);
            }
            Mark::DatabaseDrop { database, tablespaces } => {
                let is_dropped = |files: &DatabaseFiles| {
                    files.database == *database && tablespaces.as_ref().is_none_or(|list| list.contains(&files.tablespace))
                };
                let sources: Vec<DatabaseFiles> = self.sources().map(|(source, _)| source).filter(is_dropped).collect();
                self.removed.extend(sources.into_iter().map(|source| (source, at)));
                // A copy that is gone does no harm.
                self.made.retain(|files, _| !is_dropped(files));
            }
            _ => {}
        }
    }

    /// Directories of the backup that were copied, with the first position at which each was.
    fn sources(&self) -> impl Iterator<Item = (DatabaseFiles, Lsn)> {
        self.made.values().filter_map(|state| match state {
            State::Copied { source, at } => Some((*source, *at)),
            State::Exact => None,
        })
    }

    /// Those whose source is not in the backup as it was. `changed` has the last change of each source.
    fn unrestorable(&self, changed: &HashMap<DatabaseFiles, Lsn>) -> Vec<Unrestorable> {
        let mut found = BTreeMap::new();
        for (files, state) in &self.made {
            let State::Copied { source, at } = state else { continue };
            let after = |of: &HashMap<DatabaseFiles, Lsn>| of.get(source).is_some_and(|lsn| lsn > at);
            let how = if source.database == files.database {
                How::Moved
            } else if after(&self.removed) {
                How::SourceRemoved(source.database)
            } else {
                How::SourceChanged(source.database)
            };
            if after(&self.removed) || after(changed) {
                found.insert(files.database, Unrestorable { database: files.database, how });
            }
        }
        found.into_values().collect()
    }
}

/// The last change of files of the sources.
struct Changes {
    last: HashMap<DatabaseFiles, Lsn>,
    until: Lsn,
}

impl Changes {
    fn touch(&mut self, lsn: Lsn, files: DatabaseFiles) {
        if lsn < self.until
            && let Some(last) = self.last.get_mut(&files)
        {
            *last = (*last).max(lsn);
        }
    }

    fn relation(&mut self, lsn: Lsn, rel: RelFile) {
        self.touch(lsn, DatabaseFiles { tablespace: rel.tablespace, database: rel.database });
    }
}

impl Visitor for Changes {
    const BLOCKS: bool = true;

    fn block(&mut self, lsn: Lsn, block: BlockRef) {
        self.relation(lsn, block.rel);
    }

    fn storage(&mut self, lsn: Lsn, change: StorageChange) {
        match change {
            StorageChange::Create { rel, .. } | StorageChange::Truncate { rel, .. } | StorageChange::Drop(rel) => {
                self.relation(lsn, rel);
            }
            // These are marks.
            StorageChange::CreateDatabase { .. } | StorageChange::DropDatabase { .. } => {}
        }
    }

    fn unreadable(&mut self, lsn: Lsn) {
        let all: Vec<DatabaseFiles> = self.last.keys().copied().collect();
        all.into_iter().for_each(|files| self.touch(lsn, files));
    }
}

/// Looks for them in the WAL between the start and the stop of a backup, which the repository holds. `timelines` are
/// those of the two.
///
/// # Errors
/// As the catalog's; [`Kind::Unreachable`] when a segment is gone.
pub(crate) fn databases(
    repository: &Repository,
    cluster: &ClusterName,
    facts: Facts,
    timelines: (Timeline, Timeline),
    (start, stop): (Lsn, Lsn),
) -> Result<Vec<Unrestorable>, Error> {
    let catalog = repository.catalog(cluster, facts)?;
    // On one timeline its history is not needed, nor those of its ancestors.
    let path = if timelines.0 == timelines.1 { catalog.path_alone(timelines.1) } else { catalog.path(timelines.1)? };
    let mut directories = Directories::default();
    let last = Lsn(stop.0.saturating_sub(1));
    catalog.walk(&path, start, last, &|aggregate| aggregate.marks.may_have_files(), &mut |step| {
        let entry = match step {
            Step::Skipped { .. } => None,
            Step::Segment(entry) => Some(entry),
            Step::Unscanned(name) => {
                let begin = name.start(facts.wal_segment_size).unwrap_or(start);
                Some(catalog.entry_at(&path, begin)?.ok_or_else(|| gone(&name.to_string()))?)
            }
            Step::Missing { first, .. } => return Err(gone(&first.to_string())),
        };
        if let Some(entry) = entry.filter(|entry| entry.aggregate.marks.may_have_files()) {
            let marks = catalog.marks(&path, &entry, true)?;
            let within = marks.iter().filter(|mark| start <= mark.start && mark.start < stop);
            within.for_each(|mark| directories.replay(mark.start, &mark.what));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let Some(first) = directories.sources().map(|(_, at)| at).min() else { return Ok(Vec::new()) };
    let last = directories.sources().map(|(source, _)| (source, Lsn(0))).collect();
    let changes = catalog.scan_range(&path, first, stop, Changes { last, until: stop })?;
    Ok(directories.unrestorable(&changes.last))
}

fn gone(segment: &str) -> Error {
    Error::new(Kind::Unreachable, format!("WAL segment {segment} was there a moment ago and is gone"))
        .hint("is somebody deleting from the repository? take another backup")
}

/// The error that a backup ends with. `name` says what a database is called.
pub(crate) fn error(unrestorable: &[Unrestorable], name: &dyn Fn(u32) -> String) -> Option<Error> {
    let (first, more) = unrestorable.split_first()?;
    let database = name(first.database);
    let how = match first.how {
        How::Moved => format!("database {database} was moved to another tablespace while it ran"),
        How::SourceRemoved(source) => {
            format!("database {database} was copied from {} while it ran, which was then removed", name(source))
        }
        How::SourceChanged(source) => {
            format!("database {database} was copied from {} while it ran, which was then changed", name(source))
        }
    };
    let more = if more.is_empty() { String::new() } else { format!(", and so with {} more", more.len()) };
    Some(
        Error::new(Kind::Problems, format!("the backup does not count and is not stored: {how}, so it could not be restored{more}"))
            .hint("take another backup, when no database is moved to another tablespace, or copied file by file and its template changed"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(database: u32) -> DatabaseFiles {
        DatabaseFiles { tablespace: 1663, database }
    }

    fn copy(to: (u32, u32), source: (u32, u32)) -> Mark {
        let copied_from = Some(DatabaseFiles { tablespace: source.0, database: source.1 });
        Mark::DatabaseCreate { database: to.1, tablespace: to.0, copied_from }
    }

    fn drop(tablespaces: &[u32], database: u32) -> Mark {
        Mark::DatabaseDrop { database, tablespaces: Some(tablespaces.to_vec()) }
    }

    /// Marks one after the other, and changes of databases in the default tablespace.
    fn unrestorable(marks: &[Mark], changed: &[(u32, u64)]) -> Vec<(u32, How)> {
        let mut directories = Directories::default();
        for (i, mark) in marks.iter().enumerate() {
            directories.replay(Lsn(100 * (i as u64 + 1)), mark);
        }
        let changed = changed.iter().map(|(database, lsn)| (files(*database), Lsn(*lsn))).collect();
        directories.unrestorable(&changed).into_iter().map(|unrestorable| (unrestorable.database, unrestorable.how)).collect()
    }

    #[test]
    fn only_what_replay_cannot_make_is_unrestorable() {
        let (default, side) = (1663, 9);
        let by_log = Mark::DatabaseCreate { database: 50, tablespace: default, copied_from: None };
        let moved = [copy((side, 7), (default, 7)), drop(&[default], 7)];
        assert_eq!(unrestorable(&moved, &[]), [(7, How::Moved)]);
        // Dropped in the end.
        assert_eq!(unrestorable(&[moved[0].clone(), moved[1].clone(), drop(&[side], 7)], &[]), []);
        // There and back again.
        let back = [copy((default, 7), (side, 7)), drop(&[side], 7)];
        assert_eq!(unrestorable(&[&moved[..], &back].concat(), &[]), [(7, How::Moved)]);
        // A copy of a template that stays as it is, was changed before, or is changed, or dropped.
        let copied = copy((default, 50), (default, 1));
        let alone = std::slice::from_ref(&copied);
        assert_eq!(unrestorable(alone, &[]), []);
        assert_eq!(unrestorable(alone, &[(1, 99), (2, 500), (50, 500)]), []);
        assert_eq!(unrestorable(alone, &[(1, 101)]), [(50, How::SourceChanged(1))]);
        assert_eq!(unrestorable(&[copied.clone(), drop(&[default], 1)], &[]), [(50, How::SourceRemoved(1))]);
        let many = Mark::DatabaseDrop { database: 1, tablespaces: None };
        assert_eq!(unrestorable(&[copied.clone(), many], &[]), [(50, How::SourceRemoved(1))]);
        assert_eq!(unrestorable(&[drop(&[default], 1), copied.clone()], &[]), [], "dropped before");
        // Made from the log alone, also from one that was.
        assert_eq!(unrestorable(std::slice::from_ref(&by_log), &[(50, 500)]), []);
        assert_eq!(unrestorable(&[by_log, copy((side, 50), (default, 50)), drop(&[default], 50)], &[(50, 500)]), []);
        // A database that was copied, moved: what counts is where it was copied from.
        let chain = [copy((default, 50), (default, 1)), copy((side, 50), (default, 50)), drop(&[default], 50)];
        assert_eq!(unrestorable(&chain, &[(50, 150)]), []);
        assert_eq!(unrestorable(&chain, &[(1, 150)]).len(), 1);
    }
}
