//! The list of what a backup consists of, sorted by path.
//!
//! Memory: 24 bytes and the name for each file, so less than 50 bytes where names are relation numbers; a path per
//! directory; about 50 bytes more for each file of the one directory that is being looked at.

use crate::error::{Error, Kind};
use crate::format::manifest::{DirectoryEntry, is_tablespace_path};
use crate::fsio::{self, Attributes, FsError, LiveDir, LiveKind, OwnerNames, file_error};
use crate::limits::MAX_BACKUP_FILE_LINKS;
use crate::pg::data_directory::{
    self as rules, DatabaseDirectory, Fork, RelationFileName, TABLESPACES, is_emptied, is_left_out, is_of_unlogged_relation,
    is_temporary_relation,
};
use crate::raw_text::RawText;
use std::cmp::Ordering;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// What is known of the cluster before its files are looked at.
pub(crate) struct Layout<'a> {
    /// The data directory.
    pub data_directory: &'a Path,
    /// Major version.
    pub postgres_major: u32,
    /// Name of the directory in each tablespace that is this cluster's.
    pub version_directory: &'a str,
    /// A directory for temporary statistics below the data directory, relative to it (13 and 14).
    pub statistics: Option<&'a Path>,
    /// Files below the data directory that the server's settings name, relative to it: where a link leads to them, it
    /// is followed.
    pub named: &'a [Vec<u8>],
}

/// A file or directory of the list.
#[derive(Clone, Copy)]
struct Entry {
    /// Where its name begins in the list's names.
    name_at: u32,
    /// Its length.
    name_bytes: u16,
    is_directory: bool,
    /// The directory it is in; for a directory, itself.
    directory: u32,
    /// Size when the list was made.
    size_bytes: u64,
}

/// A directory of the list.
struct Directory {
    path: Vec<u8>,
    mode: u32,
    owner: String,
    group: String,
}

/// What a backup consists of.
#[derive(Default)]
pub(crate) struct FileList {
    directories: Vec<Directory>,
    names: Vec<u8>,
    entries: Vec<Entry>,
    /// What was left out although nobody expects that.
    pub warnings: Vec<String>,
    /// Number of files.
    pub files: u64,
    /// Their length.
    pub bytes: u64,
}

/// One line of the list.
pub(crate) enum Listed {
    /// A directory.
    Directory(DirectoryEntry),
    /// A file, with its path and its size when the list was made.
    File(Vec<u8>, u64),
}

impl FileList {
    /// Walks the data directory.
    ///
    /// # Errors
    /// [`Kind::Config`] when a directory cannot be read.
    pub(crate) fn read(layout: &Layout<'_>, go_on: &dyn Fn() -> Result<(), Error>) -> Result<Self, Error> {
        let mut walk =
            Walk { layout, list: Self::default(), owners: OwnerNames::default(), inside: locations_inside(layout)?, go_on };
        walk.directory(Vec::new())?;
        for path in rules::directories_in_wal(layout.postgres_major) {
            walk.empty_directory(path.to_vec())?;
        }
        let mut list = walk.list;
        list.sort();
        Ok(list)
    }

    fn sort(&mut self) {
        let mut entries = std::mem::take(&mut self.entries);
        entries.sort_unstable_by(|a, b| self.compare(a, b));
        self.entries = entries;
    }

    /// By path, byte by byte.
    fn compare(&self, a: &Entry, b: &Entry) -> Ordering {
        if a.directory == b.directory && !a.is_directory && !b.is_directory {
            return self.name(a).cmp(self.name(b));
        }
        let chain = |entry: &Entry| {
            let (directory, name) = (self.directory_path(entry), self.name(entry));
            let slash: &[u8] = if directory.is_empty() || name.is_empty() { b"" } else { b"/" };
            [directory, slash, name]
        };
        let (a, b) = (chain(a), chain(b));
        a.iter().copied().flatten().cmp(b.iter().copied().flatten())
    }

    fn name(&self, entry: &Entry) -> &[u8] {
        self.names.get(entry.name_at as usize..entry.name_at as usize + usize::from(entry.name_bytes)).unwrap_or_default()
    }

    fn directory_path(&self, entry: &Entry) -> &[u8] {
        self.directories.get(entry.directory as usize).map_or(&[], |directory| &directory.path)
    }

    /// The lines, in the order of their paths.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Listed> + '_ {
        self.entries.iter().filter_map(|entry| {
            if entry.is_directory {
                let Directory { path, mode, owner, group } = self.directories.get(entry.directory as usize)?;
                return Some(Listed::Directory(DirectoryEntry {
                    path: path.clone(),
                    mode: *mode,
                    owner: owner.clone(),
                    group: group.clone(),
                }));
            }
            Some(Listed::File(join(self.directory_path(entry), self.name(entry)), entry.size_bytes))
        })
    }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

/// The real path of something below the data directory. Tablespaces are reached through their links.
pub(crate) fn real(data_directory: &Path, relative: &[u8]) -> PathBuf {
    if relative.is_empty() { data_directory.to_owned() } else { data_directory.join(std::ffi::OsStr::from_bytes(relative)) }
}

/// Opens a file of the list; through a link where it is one, as the server does. `None` when it is gone.
pub(crate) fn open(data_directory: &Path, relative: &[u8]) -> Result<Option<(File, Attributes)>, FsError> {
    let path = real(data_directory, relative);
    if let Some(opened) = fsio::open_live(&path)? {
        return Ok(Some(opened));
    }
    match (fsio::link_target(&path)?, fsio::real_path(&path)?) {
        (None, _) => Ok(None),
        (Some(_), Some(at)) => fsio::open_live(&at),
        (Some(_), None) => Err(FsError::because(fsio::Problem::Absent, "follow", path, "the link leads nowhere any more")),
    }
}

/// What a file has besides its content, without opening it; `None` when it is gone. Of a link, where it leads.
pub(crate) fn attributes(data_directory: &Path, relative: &[u8]) -> Result<Option<Attributes>, FsError> {
    fsio::attributes(&real(data_directory, relative))
}

/// Tablespaces that lie below the data directory itself: walked through their links, and not a second time where they
/// are.
fn locations_inside(layout: &Layout<'_>) -> Result<HashSet<Vec<u8>>, Error> {
    let config = |e| file_error(Kind::Config, e);
    let mut inside = HashSet::new();
    let Some(root) = fsio::real_path(layout.data_directory).map_err(config)? else { return Ok(inside) };
    let links = real(layout.data_directory, TABLESPACES);
    let Some(found) = fsio::scan_live(&links).map_err(config)? else { return Ok(inside) };
    for name in found.links().map_err(config)? {
        if let Some(target) = fsio::real_path(&links.join(name)).map_err(config)?
            && let Ok(relative) = target.strip_prefix(&root)
        {
            inside.insert(relative.as_os_str().as_bytes().to_vec());
        }
    }
    Ok(inside)
}

struct Walk<'a> {
    layout: &'a Layout<'a>,
    list: FileList,
    owners: OwnerNames,
    inside: HashSet<Vec<u8>>,
    go_on: &'a dyn Fn() -> Result<(), Error>,
}

impl Walk<'_> {
    /// Adds a directory and what is in it.
    fn directory(&mut self, path: Vec<u8>) -> Result<(), Error> {
        let mut open = vec![(path, 0)];
        while let Some((path, links)) = open.pop() {
            (self.go_on)()?;
            let real = real(self.layout.data_directory, &path);
            let Some(live) = fsio::scan_live(&real).map_err(unreadable)? else { continue };
            let index = self.add_directory(path.clone(), &live.own)?;
            if self.inside.contains(&path) {
                continue;
            }
            open.extend(self.items(&path, index, live, links)?);
        }
        Ok(())
    }

    /// Adds a directory without content; it may be a link to one.
    fn empty_directory(&mut self, path: Vec<u8>) -> Result<(), Error> {
        match fsio::attributes(&real(self.layout.data_directory, &path)).map_err(unreadable)? {
            Some(own) if own.kind == LiveKind::Directory => self.add_directory(path, &own).map(drop),
            _ => Ok(()),
        }
    }

    fn add_directory(&mut self, path: Vec<u8>, own: &Attributes) -> Result<u32, Error> {
        let index = u32::try_from(self.list.directories.len()).map_err(|_| too_many())?;
        let (owner, group) = (self.owners.user(own.uid), self.owners.group(own.gid));
        self.list.directories.push(Directory { path, mode: own.mode, owner, group });
        self.list.entries.push(Entry { name_at: 0, name_bytes: 0, is_directory: true, directory: index, size_bytes: 0 });
        Ok(index)
    }

    /// Adds the files of a directory that is reached through `links` links; returns the directories below it, each with
    /// its number of links.
    fn items(&mut self, path: &[u8], index: u32, mut live: LiveDir, links: u32) -> Result<Vec<(Vec<u8>, u32)>, Error> {
        let database = DatabaseDirectory::parse(path).filter(DatabaseDirectory::is_of_a_database);
        let names = std::mem::take(&mut live.names);
        let relation = |name: &OsString| RelationFileName::parse(name.as_bytes());
        let unlogged: HashSet<u32> = match database {
            Some(_) => names.iter().filter_map(relation).filter(|name| name.fork == Fork::Init).map(|name| name.number).collect(),
            None => HashSet::new(),
        };
        let mut below = Vec::new();
        for name in names {
            if is_left_out(name.as_bytes()) {
                continue;
            }
            let Some(mut attributes) = live.attributes(&name).map_err(unreadable)? else { continue };
            let name = name.into_vec();
            let full = join(path, &name);
            let mut links = links;
            let is_tablespace = path == TABLESPACES && attributes.kind == LiveKind::Link;
            if attributes.kind == LiveKind::Link && !is_tablespace && !is_emptied(&full) && self.is_followed(&full) {
                links += 1;
                match self.follow(path, &full, links)? {
                    Some(target) => attributes = target,
                    None => continue,
                }
            }
            match attributes.kind {
                LiveKind::File => {
                    let rebuilt = database.is_some()
                        && (is_temporary_relation(&name)
                            || RelationFileName::parse(&name)
                                .is_some_and(|name| is_of_unlogged_relation(&name, |number| unlogged.contains(&number))));
                    if !rebuilt && full != rules::CONTROL {
                        self.add_file(index, &name, attributes.size_bytes)?;
                    }
                }
                LiveKind::Directory | LiveKind::Link if is_emptied(&full) || self.is_statistics(&full) => {
                    if attributes.kind == LiveKind::Link {
                        self.warn(&full, "is a symbolic link; the backup holds an empty directory instead");
                    }
                    self.empty_directory(full)?;
                }
                LiveKind::Directory => below.push((full, links)),
                LiveKind::Link if is_tablespace => below.extend(self.tablespace(full)?.map(|version| (version, links))),
                LiveKind::Link => self.warn(&full, "is a symbolic link that is not the server's; what it leads to is left out"),
                LiveKind::Other => self.warn(&full, "is neither a file nor a directory and is left out"),
            }
        }
        Ok(below)
    }

    /// Of a tablespace only the directory of this cluster counts.
    fn tablespace(&mut self, link: Vec<u8>) -> Result<Option<Vec<u8>>, Error> {
        match fsio::attributes(&real(self.layout.data_directory, &link)).map_err(unreadable)? {
            Some(own) if own.kind == LiveKind::Directory => {
                if let Some(target) = fsio::link_target(&real(self.layout.data_directory, &link)).map_err(unreadable)?
                    && !is_tablespace_path(target.as_os_str().as_bytes())
                {
                    let (name, target) = (RawText::from(&*link), RawText::from(target));
                    let what = format!("{name} is a symbolic link to {target}, which is no absolute path without detours");
                    return Err(Error::new(Kind::Config, what).hint(
                        "no restore would follow it: stop the server and make the link anew, with the directory's real path",
                    ));
                }
                let version = join(&link, self.layout.version_directory.as_bytes());
                self.add_directory(link, &own)?;
                Ok(Some(version))
            }
            _ => match fsio::link_target(&real(self.layout.data_directory, &link)).map_err(unreadable)? {
                Some(target) => Err(leads_nowhere(&link, &target)
                    .hint("mount or make what it leads to; if the tablespace is lost, DROP TABLESPACE, or remove the link")),
                // Dropped meanwhile, which is in the log.
                None => Ok(None),
            },
        }
    }

    /// Whether the server itself goes through a link here: where its data are, and on the way to files that its
    /// settings name.
    fn is_followed(&self, path: &[u8]) -> bool {
        let leads_to = |named: &Vec<u8>| named == path || named.strip_prefix(path).is_some_and(|rest| rest.starts_with(b"/"));
        rules::is_servers_own(path) || self.layout.named.iter().any(leads_to)
    }

    /// What a link of the server's leads to, which belongs to the backup as if it were there itself; `None` when the
    /// link is gone.
    fn follow(&mut self, directory: &[u8], link: &[u8], links: u32) -> Result<Option<Attributes>, Error> {
        let data_directory = self.layout.data_directory;
        let path = real(data_directory, link);
        let Some(target) = fsio::link_target(&path).map_err(unreadable)? else { return Ok(None) };
        let (found, at) = (fsio::attributes(&path).map_err(unreadable)?, fsio::real_path(&path).map_err(unreadable)?);
        let (Some(found), Some(at)) = (found, at) else {
            // It was replaced at this moment, or it is broken, and then the server is, too.
            return match fsio::link_target(&path).map_err(unreadable)? {
                Some(_) => Err(leads_nowhere(link, &target).hint("mount or make what it leads to: the server needs it")),
                None => Ok(None),
            };
        };
        let name = RawText::from(link);
        if fsio::real_path(&real(data_directory, directory)).map_err(unreadable)?.is_some_and(|here| here.starts_with(&at))
            || links > MAX_BACKUP_FILE_LINKS
        {
            return Err(Error::new(
                Kind::Config,
                format!("{name} is a symbolic link to {}, which leads in a circle", at.display()),
            )
            .hint("no server can need that: remove the link"));
        }
        // Root may read more than the server; what the server cannot read is not its data.
        let own = fsio::attributes(data_directory).map_err(unreadable)?;
        let is_open = |found: &Attributes| found.mode & 0o004 != 0 || own.is_some_and(|own| own.uid == found.uid);
        if nix::unistd::geteuid().is_root() && !is_open(&found) {
            return Err(Error::new(
                Kind::Refused,
                format!("{name} is a symbolic link to {}, which belongs to another user than the data directory", at.display()),
            )
            .hint("run the backup as the user that the server runs as; nothing is read then that the server could not read"));
        }
        let becomes = if found.kind == LiveKind::Directory { "directory" } else { "file" };
        self.warn(link, &format!("is a symbolic link to {}; a restore makes a {becomes} of it", RawText::from(target)));
        if !matches!(found.kind, LiveKind::File | LiveKind::Directory) {
            return Err(Error::new(Kind::Config, format!("{name} leads to what is neither a file nor a directory")));
        }
        Ok(Some(found))
    }

    fn is_statistics(&self, path: &[u8]) -> bool {
        self.layout.statistics.is_some_and(|statistics| statistics.as_os_str().as_bytes() == path)
    }

    fn add_file(&mut self, directory: u32, name: &[u8], size_bytes: u64) -> Result<(), Error> {
        let name_at = u32::try_from(self.list.names.len()).map_err(|_| too_many())?;
        let name_bytes = u16::try_from(name.len()).map_err(|_| too_many())?;
        self.list.names.extend_from_slice(name);
        self.list.entries.push(Entry { name_at, name_bytes, is_directory: false, directory, size_bytes });
        self.list.files += 1;
        self.list.bytes += size_bytes;
        Ok(())
    }

    fn warn(&mut self, path: &[u8], what: &str) {
        self.list.warnings.push(format!("{} {what}", RawText::from(path)));
    }
}

fn leads_nowhere(link: &[u8], target: &Path) -> Error {
    let (link, target) = (RawText::from(link), RawText::from(target));
    Error::new(Kind::Config, format!("{link} is a symbolic link to {target}, which leads nowhere: the backup would not be whole"))
}

fn unreadable(error: FsError) -> Error {
    let mut error = file_error(Kind::Config, error);
    error.hint.get_or_insert_with(|| "run the backup as the user that the server runs as".to_owned());
    error
}

fn too_many() -> Error {
    Error::new(Kind::Config, "the data directory has more files than a backup can hold (4 GiB of names)")
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    fn make(root: &Path, files: &[&str]) {
        for file in files {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            match file.strip_suffix('/') {
                Some(_) => std::fs::create_dir_all(path).unwrap(),
                None => std::fs::write(path, file.as_bytes()).unwrap(),
            }
        }
    }

    fn lines_of(root: &Path, major: u32) -> (Vec<String>, Vec<String>) {
        let layout = Layout {
            data_directory: root,
            postgres_major: major,
            version_directory: "PG_15_202209061",
            statistics: Some(Path::new("stats")),
            named: &[b"conf.d/x.conf".to_vec()],
        };
        let list = FileList::read(&layout, &|| Ok(()));
        let list = match list {
            Ok(list) => list,
            Err(error) => return (vec![error.what], vec![error.hint.unwrap_or_default()]),
        };
        let lines: Vec<String> = list
            .iter()
            .map(|line| match line {
                Listed::Directory(entry) => format!("{}/", String::from_utf8(entry.path).unwrap()),
                Listed::File(path, _) => String::from_utf8(path).unwrap(),
            })
            .collect();
        let mut sorted: Vec<String> = lines.iter().map(|line| line.strip_suffix('/').unwrap_or(line).to_owned()).collect();
        sorted.sort();
        assert_eq!(sorted, lines.iter().map(|line| line.strip_suffix('/').unwrap_or(line).to_owned()).collect::<Vec<_>>());
        (lines, list.warnings)
    }

    #[test]
    fn what_belongs_to_a_backup_is_listed_by_path() {
        let place = tempfile::tempdir().unwrap();
        let (root, elsewhere) = (place.path().join("data"), place.path().join("space"));
        make(
            &root,
            &[
                "PG_VERSION",
                "postmaster.pid",
                "postmaster.opts",
                "backup_label",
                "postgresql.auto.conf",
                "postgresql.auto.conf.tmp",
                "global/pg_control",
                "global/1262",
                "global/pg_internal.init",
                "global/pg_filenode.map",
                "base/5/1259",
                "base/5/1259_fsm",
                "base/5/16384",
                "base/5/16384.1",
                "base/5/16384_init",
                "base/5/16384_vm",
                "base/5/t3_20000",
                "base/5/pg_internal.init.77",
                "base/5.x",
                "base/50/1",
                "base/pgsql_tmp/pgsql_tmp1.0",
                "pg_wal/000000010000000000000001",
                "pg_wal/archive_status/x.ready",
                "pg_wal/summaries/s",
                "pg_replslot/slot/state",
                "pg_notify/0000",
                "pg_stat_tmp/global.stat",
                "stats/db.stat",
                "pg_xact/0000",
                "pg_tblspc/",
                "inside/PG_15_202209061/5/30001",
                "pg_tblspc/16500/PG_15_202209061/5/30002",
            ],
        );
        make(&elsewhere, &["PG_15_202209061/5/30000", "PG_14_202107181/5/30000", "lost+found/x"]);
        for (name, target) in [("16399", &elsewhere), ("16400", &root.join("inside"))] {
            std::os::unix::fs::symlink(target, root.join("pg_tblspc").join(name)).unwrap();
        }
        std::os::unix::fs::symlink(&elsewhere, root.join("log")).unwrap();
        nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (lines, warnings) = lines_of(&root, 17);
        assert_eq!(
            lines,
            [
                "/",
                "PG_VERSION",
                "base/",
                "base/5/",
                "base/5.x",
                "base/5/1259",
                "base/5/1259_fsm",
                "base/5/16384_init",
                "base/50/",
                "base/50/1",
                "global/",
                "global/1262",
                "global/pg_filenode.map",
                "inside/",
                "pg_notify/",
                "pg_replslot/",
                "pg_stat_tmp/",
                "pg_tblspc/",
                "pg_tblspc/16399/",
                "pg_tblspc/16399/PG_15_202209061/",
                "pg_tblspc/16399/PG_15_202209061/5/",
                "pg_tblspc/16399/PG_15_202209061/5/30000",
                "pg_tblspc/16400/",
                "pg_tblspc/16400/PG_15_202209061/",
                "pg_tblspc/16400/PG_15_202209061/5/",
                "pg_tblspc/16400/PG_15_202209061/5/30001",
                "pg_tblspc/16500/",
                "pg_tblspc/16500/PG_15_202209061/",
                "pg_tblspc/16500/PG_15_202209061/5/",
                "pg_tblspc/16500/PG_15_202209061/5/30002",
                "pg_wal/",
                "pg_wal/archive_status/",
                "pg_wal/summaries/",
                "pg_xact/",
                "pg_xact/0000",
                "postgresql.auto.conf",
                "stats/",
            ]
        );
        let mut warnings = warnings;
        warnings.sort();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].starts_with("log is a symbolic link"), "{warnings:?}");
        assert!(warnings[1].starts_with("pipe is neither"), "{warnings:?}");
        assert!(!lines_of(&root, 16).0.contains(&"pg_wal/summaries/".to_owned()));
        std::os::unix::fs::symlink(place.path().join("gone"), root.join("pg_tblspc/16401")).unwrap();
        let (failed, hint) = lines_of(&root, 17);
        assert!(
            failed[0].starts_with("pg_tblspc/16401 is a symbolic link to ") && failed[0].contains("leads nowhere"),
            "{failed:?}"
        );
        assert!(hint[0].contains("DROP TABLESPACE"), "{hint:?}");
    }

    #[test]
    fn links_to_what_the_server_needs_are_followed() {
        let place = tempfile::tempdir().unwrap();
        let (root, disk) = (place.path().join("data"), place.path().join("disk"));
        make(&root, &["PG_VERSION", "base/5/1", "conf.d/"]);
        make(&disk, &["xact/0000", "6/1", "6/2", "7.1", "main.conf", "conf/x.conf", "conf/y.conf", "space/PG_15_202209061/5/9"]);
        std::fs::remove_dir(root.join("conf.d")).unwrap();
        let link = |to: &str, at: &str| std::os::unix::fs::symlink(disk.join(to), root.join(at)).unwrap();
        for (to, at) in [
            ("xact", "pg_xact"),
            ("6", "base/6"),
            ("7.1", "base/5/7.1"),
            ("main.conf", "postgresql.conf"),
            ("conf", "conf.d"),
            ("6", "other"),
            ("nowhere", "another"),
        ] {
            link(to, at);
        }
        let (lines, warnings) = lines_of(&root, 15);
        for line in
            ["pg_xact/", "pg_xact/0000", "base/6/", "base/6/2", "base/5/7.1", "postgresql.conf", "conf.d/", "conf.d/x.conf"]
        {
            assert!(lines.contains(&line.to_owned()), "{line}: {lines:?}");
        }
        assert!(!lines.iter().any(|line| line.starts_with("other") || line.starts_with("another")), "{lines:?}");
        assert_eq!(warnings.len(), 7, "{warnings:?}");
        assert!(warnings.iter().any(|w| w.contains("a restore makes a directory of it")), "{warnings:?}");
        let (file, attributes) = open(&root, b"base/5/7.1").unwrap().unwrap();
        assert_eq!((attributes.kind, fsio::present_size(&file, &root).unwrap()), (LiveKind::File, 3));
        assert!(open(&root, b"base/5/8").unwrap().is_none());

        // A circle is no data, and what leads nowhere is missing.
        link("..", "base/8");
        assert!(lines_of(&root, 15).0[0].contains("circle"));
        std::fs::remove_file(root.join("base/8")).unwrap();
        std::os::unix::fs::symlink(&disk, disk.join("6/again")).unwrap();
        assert!(lines_of(&root, 15).0[0].contains("circle"));
        std::fs::remove_file(disk.join("6/again")).unwrap();
        link("nowhere", "base/9");
        let (failed, hint) = lines_of(&root, 15);
        assert!(failed[0].starts_with("base/9 is a symbolic link to") && !hint[0].is_empty(), "{failed:?}");
    }

    #[test]
    fn a_linked_pg_wal_becomes_a_directory() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("data");
        make(&root, &["PG_VERSION"]);
        make(place.path(), &["wal/archive_status/x", "wal/000000010000000000000001"]);
        std::os::unix::fs::symlink(place.path().join("wal"), root.join("pg_wal")).unwrap();
        let (lines, warnings) = lines_of(&root, 15);
        assert_eq!(lines, ["/", "PG_VERSION", "pg_wal/", "pg_wal/archive_status/"]);
        assert_eq!(warnings.len(), 1);
    }
}
