//! The files of a backup: a first look at all of them, and their restore.

use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::format::manifest::{BackupFacts, BackupSummary, Content, DirectoryEntry, FileEntry, Item};
use crate::fsio::{self, ItemKind, RestoreTree};
use crate::limits::{CATALOG_READERS, PROGRESS_EVERY};
use crate::pg::data_directory::tablespace_version_directory;
use crate::pg::{BackupManifest, Timeline, WalRange};
use crate::raw_text::shown;
use crate::repo::backups::{ExtentReader, ManifestPart, PackReader, ScratchManifest};
use crate::repo::{ClusterName, Repository, SystemId};
use crate::report::restore::Restored;
use crate::restore::extents::{Batches, FileRestore, RestoreCounters, RestoreWorker};
use crate::restore::extraneous::{BACKUP_MANIFEST, Extraneous};
use crate::restore::target_directory::{LOST_AND_FOUND, local};
use crate::restore::zeros;
use crate::threads::{Stop, with_workers};
use std::collections::HashMap;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Instant;

const PG_CONTROL: &[u8] = b"global/pg_control";
const GLOBAL: &[u8] = b"global";
const TABLESPACE_MAP: &[u8] = b"tablespace_map";
/// Without these a directory is no backup.
const NEEDED: [&[u8]; 3] = [b"PG_VERSION", b"backup_label", PG_CONTROL];
/// What says how the server that was backed up ran, or recovers: nothing of it is for the restored one.
const LEFT_OUT: [&[u8]; 6] = [
    b"recovery.signal",
    b"standby.signal",
    b"postmaster.pid",
    b"postmaster.opts",
    BACKUP_MANIFEST,
    crate::restore::target_directory::MARKER.as_bytes(),
];

/// A backup in a repository.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// The cluster.
    pub cluster: &'a ClusterName,
    /// Its system identifier.
    pub system_id: SystemId,
    /// The backup.
    pub summary: &'a BackupSummary,
}

impl Source<'_> {
    /// Copies the manifest, and shows `look` its items meanwhile.
    fn copy_manifest(&self, look: &mut dyn FnMut(&Item)) -> Result<(ScratchManifest, BackupFacts), Error> {
        let id = self.summary.id;
        let copied = ScratchManifest::copy_of(self.repository, self.cluster, self.system_id, id, &mut |part| {
            if let ManifestPart::Item(item) = part {
                look(item);
            }
        })?;
        let (manifest, _, head) = copied.ok_or_else(|| {
            Error::new(Kind::Target, format!("backup {id} is gone from {}", self.repository.location()))
                .hint("it was there a moment ago; try again to have another one chosen")
        })?;
        Ok((manifest, head.facts))
    }

    /// A reader of its extents, for this many threads.
    pub(crate) fn extents(&self, hash_key: [u8; 32], threads: usize) -> ExtentReader<'_> {
        ExtentReader::new(PackReader::new(self.repository, self.cluster, self.system_id), hash_key, threads)
    }

    /// The key of its hashes.
    pub(crate) fn hash_key(&self, facts: &BackupFacts) -> Result<[u8; 32], Error> {
        hex::decode(&facts.hash_key).ok().and_then(|key| key.try_into().ok()).ok_or_else(|| {
            Error::new(Kind::Damaged, format!("backup {}: the key of its hashes makes no sense", self.summary.id))
                .hint("restore another backup")
        })
    }

    /// The server's major version.
    pub fn postgres_major(&self) -> u32 {
        self.summary.postgres_version_num / 10_000
    }

    /// The directory that the cluster has in the location of a tablespace: `PG_15_202209061`. Nothing else in it is the
    /// cluster's.
    pub fn version_directory(&self) -> String {
        tablespace_version_directory(self.postgres_major(), self.summary.catalog_version)
    }
}

/// What a first look at a manifest gives.
pub struct Survey {
    manifest: ScratchManifest,
    /// What is known of the backup.
    pub facts: BackupFacts,
    /// Files.
    pub files: u64,
    /// Bytes in the data directory.
    pub bytes: u64,
    /// Bytes in each tablespace.
    pub tablespace_bytes: HashMap<u32, u64>,
    /// What of all these is zeros, as far as the manifest itself says it.
    pub(crate) zeros: zeros::Bytes,
    /// The data directory itself.
    pub root: Option<DirectoryEntry>,
    /// Whether the server's settings are in the data directory.
    pub has_settings: bool,
}

/// Reads a manifest whole: afterwards it is known to be undamaged, and how much room its files take.
///
/// # Errors
/// Damaged, denied, unreachable.
pub fn survey(source: &Source<'_>) -> Result<Survey, Error> {
    let mut needed: Vec<&[u8]> = NEEDED.to_vec();
    let (mut files, mut bytes, mut root, mut has_settings) = (0, 0_u64, None, false);
    let (mut tablespace_bytes, mut zeros): (HashMap<u32, u64>, zeros::Bytes) = Default::default();
    let (manifest, facts) = source.copy_manifest(&mut |item| match item {
        Item::File(file) => {
            needed.retain(|path| *path != file.path);
            has_settings |= file.path == b"postgresql.conf";
            files += 1;
            let of = tablespace_of(&file.path);
            let known = zeros.entry(of).or_default();
            *known = known.saturating_add(zeros::in_manifest(file));
            match of {
                Some(oid) => {
                    let sum = tablespace_bytes.entry(oid).or_default();
                    *sum = sum.saturating_add(file.size_bytes);
                }
                None => bytes = bytes.saturating_add(file.size_bytes),
            }
        }
        Item::Directory(directory) if directory.path.is_empty() => root = Some(directory.clone()),
        Item::Directory(_) => {}
    })?;
    if let Some(path) = needed.first() {
        let (id, path) = (source.summary.id, String::from_utf8_lossy(path));
        return Err(Error::new(Kind::Damaged, format!("backup {id} has no {path}: it cannot be started"))
            .hint("restore another backup: see 'walvis list'"));
    }
    Ok(Survey { manifest, facts, files, bytes, tablespace_bytes, zeros, root, has_settings })
}

impl Survey {
    /// What of the files is zeros, all of it: this asks the repository.
    ///
    /// # Errors
    /// Damaged, denied, unreachable.
    pub(crate) fn all_zeros(&self, source: &Source<'_>) -> Result<zeros::Bytes, Error> {
        let reader = source.extents(source.hash_key(&self.facts)?, CATALOG_READERS);
        let mut all = zeros::in_tables(self.manifest.items(), &reader, tablespace_of)?;
        for (of, bytes) in &self.zeros {
            let sum = all.entry(*of).or_default();
            *sum = sum.saturating_add(*bytes);
        }
        Ok(all)
    }
}

fn tablespace_of(path: &[u8]) -> Option<u32> {
    let rest = path.strip_prefix(b"pg_tblspc/")?;
    let oid = rest.split(|byte| *byte == b'/').next()?;
    std::str::from_utf8(oid).ok()?.parse().ok()
}

/// What is written after all others, and last.
pub struct Last {
    /// Content of `global/pg_control`.
    pub control: Vec<u8>,
    /// Its permissions, and when it was changed.
    pub control_attributes: (u32, i64),
    /// Permissions of what the restore itself adds.
    pub mode: u32,
}

/// How files are restored.
pub struct How<'a> {
    /// Where.
    pub tree: &'a RestoreTree,
    /// Whether what is there is looked at.
    pub reuse: bool,
    /// Threads.
    pub jobs: usize,
    /// `tablespace_map`, where it is not the backup's own.
    pub tablespace_map: Option<Vec<u8>>,
    /// The manifest.
    pub survey: &'a Survey,
}

/// Restores all directories and files but `pg_control`, and writes `backup_manifest`. Nothing is durable yet.
///
/// # Errors
/// Damaged, denied, unreachable; [`Kind::Config`] for local files.
pub fn restore(source: &Source<'_>, how: How<'_>) -> Result<(Restored, Last), Error> {
    let started = Instant::now();
    let hash_key = source.hash_key(&how.survey.facts)?;
    let files = FileRestore {
        tree: how.tree,
        reader: source.extents(hash_key, how.jobs),
        reuse: how.reuse,
        counters: RestoreCounters::default(),
        stop: Stop::default(),
    };
    let workers = (0..how.jobs).map(|_| RestoreWorker::new(&files)).collect();
    let (mut restored, control, mode) =
        with_workers(workers, how.jobs, &files.stop, |jobs| dispatch(source, &how, &files, Batches::new(jobs)))?;
    let control_attributes = (control.mode, control.modified_unix_us);
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    restored.kept_bytes = count(&files.counters.kept);
    restored.zero_bytes = count(&files.counters.zeros);
    restored.read_bytes = files.reader.read_bytes();
    restored.requests = files.reader.requests();
    restored.duration_s = started.elapsed().as_secs_f64();
    Ok((restored, Last { control: small_content(&files, &control)?, control_attributes, mode }))
}

/// The content of a file that is written by other means: at the end, or elsewhere.
fn small_content(files: &FileRestore<'_>, file: &FileEntry) -> Result<Vec<u8>, Error> {
    let path = shown(files.tree.path_of(&file.path)).to_string();
    match &file.content {
        Content::Extents(extents) => {
            files.reader.content(file.size_bytes, extents).map_err(|e| e.while_doing(format!("restore {path}")))
        }
        Content::Tables(_) => Err(Error::new(Kind::Damaged, format!("{path} is much too long")).hint("restore another backup")),
    }
}

/// What a manifest cannot have: it says what is in the data directory, and not where that leads.
struct Layout {
    backup: BackupId,
    tablespaces: Vec<u32>,
    version_directory: String,
}

impl Layout {
    fn of(source: &Source<'_>, how: &How<'_>) -> Self {
        Self {
            backup: source.summary.id,
            tablespaces: how.survey.facts.tablespaces.iter().map(|tablespace| tablespace.oid).collect(),
            version_directory: source.version_directory(),
        }
    }

    /// Where links are, there are only the directories that they lead to; and of a tablespace only what is this
    /// cluster's.
    fn check(&self, path: &[u8], kind: ItemKind) -> Result<(), Error> {
        let parts: Vec<&[u8]> = path.splitn(4, |byte| *byte == b'/').collect();
        let is_ours =
            |oid: &&[u8]| tablespace_of(&[b"pg_tblspc/", *oid].concat()).is_some_and(|oid| self.tablespaces.contains(&oid));
        let fits = match parts.as_slice() {
            [b"pg_tblspc" | b"pg_wal"] => kind == ItemKind::Directory,
            [b"pg_tblspc", oid] if is_ours(oid) => kind == ItemKind::Directory,
            [b"pg_tblspc", oid, name] if is_ours(oid) => {
                *name == self.version_directory.as_bytes() && kind == ItemKind::Directory
            }
            [b"pg_tblspc", oid, name, _] if is_ours(oid) => *name == self.version_directory.as_bytes(),
            _ => true,
        };
        if fits {
            return Ok(());
        }
        Err(Error::new(
            Kind::Damaged,
            format!("backup {}: {} is no place for what it has there", self.backup, String::from_utf8_lossy(path).escape_debug()),
        )
        .hint("restore another backup: see 'walvis list'"))
    }
}

/// Reads the manifest, makes directories, hands files to the workers, and removes what does not belong.
fn dispatch(
    source: &Source<'_>,
    how: &How<'_>,
    files: &FileRestore<'_>,
    mut batches: Batches<'_>,
) -> Result<(Restored, FileEntry, u32), Error> {
    let summary = source.summary;
    let tree = how.tree;
    let layout = Layout::of(source, how);
    let mut extraneous = how.reuse.then(|| Extraneous::new(tree)).transpose()?;
    // Never written to as it lies there.
    tree.remove(BACKUP_MANIFEST).map_err(local)?;
    let listing = tree.open_file(BACKUP_MANIFEST).map_err(local)?;
    let list_error = |e: std::io::Error| local(fsio::FsError::new("write", tree.path_of(BACKUP_MANIFEST), e));
    let mut list =
        BackupManifest::new(BufWriter::new(&listing), source.postgres_major(), source.system_id.0).map_err(list_error)?;
    let mut restored = Restored::default();
    let mut control = None;
    let mut own_mode = 0o600;
    let mut logged = Instant::now();
    for item in how.survey.manifest.items() {
        let item = item?;
        if files.stop.is_set() {
            break;
        }
        if logged.elapsed() > PROGRESS_EVERY {
            logged = Instant::now();
            let (done, total) = (files.counters.done(), summary.bytes);
            tracing::info!(done_bytes = done, total_bytes = total, "restored {} of {} MiB", done >> 20, total >> 20);
        }
        match item {
            // The root of another file system had it. Here it may be there too, and be only root's.
            item if item.path().split(|byte| *byte == b'/').any(|part| part == LOST_AND_FOUND) => {}
            Item::Directory(directory) => {
                layout.check(&directory.path, ItemKind::Directory)?;
                if let Some(extraneous) = extraneous.as_mut().filter(|_| !directory.path.is_empty()) {
                    extraneous.advance(&directory.path, ItemKind::Directory)?;
                }
                if directory.path.is_empty() && directory.mode & 0o040 != 0 {
                    own_mode = 0o640;
                }
                tree.make_directory(&directory.path, directory.mode).map_err(local)?;
            }
            Item::File(file) if LEFT_OUT.contains(&file.path.as_slice()) => {}
            Item::File(file) => {
                layout.check(&file.path, ItemKind::File)?;
                restored.files += 1;
                restored.bytes = restored.bytes.saturating_add(file.size_bytes);
                let map = how.tablespace_map.as_ref().filter(|_| file.path == TABLESPACE_MAP);
                let (size, crc32c) = map.map_or((file.size_bytes, file.crc32c), |map| (map.len() as u64, crc32c::crc32c(map)));
                if !file.path.starts_with(b"pg_wal/") {
                    list.add_file(&file.path, size, file.modified_unix_us, crc32c).map_err(list_error)?;
                }
                if file.path == PG_CONTROL {
                    control = Some(file);
                    continue;
                }
                if let Some(extraneous) = extraneous.as_mut() {
                    extraneous.advance(&file.path, ItemKind::File)?;
                }
                match map {
                    Some(map) => tree.put_file(TABLESPACE_MAP, map, file.mode, file.modified_unix_us).map_err(local)?,
                    None => batches.add(file)?,
                }
            }
        }
    }
    batches.finish()?;
    if let Some(extraneous) = extraneous.as_mut().filter(|_| !files.stop.is_set()) {
        extraneous.finish()?;
        restored.removed_items = extraneous.removed;
    }
    let range = WalRange { timeline: Timeline(summary.timeline), start: summary.start_lsn, end: summary.stop_lsn };
    list.finish(&[range]).and_then(|mut buffer| buffer.flush()).map_err(list_error)?;
    tree.finish_file(&listing, BACKUP_MANIFEST, own_mode, jiff::Timestamp::now().as_microsecond()).map_err(local)?;
    let control = control.ok_or_else(|| Error::new(Kind::Damaged, format!("backup {} has no pg_control", summary.id)))?;
    Ok((restored, control, own_mode))
}

/// The last step: everything is durable, so the directory may become one that a server starts in.
///
/// # Errors
/// [`Kind::Config`].
pub fn put_control(tree: &RestoreTree, last: &Last) -> Result<(), Error> {
    let (mode, modified) = last.control_attributes;
    tree.put_file(PG_CONTROL, &last.control, mode, modified).map_err(local)
}

/// Takes `pg_control` away, durably: from then on no server starts there.
///
/// # Errors
/// [`Kind::Config`].
pub fn remove_control(tree: &RestoreTree) -> Result<(), Error> {
    // What lies behind a link is not ours to touch: without the link it is no server's either.
    if tree.stat(GLOBAL).map_err(local)?.is_some_and(|stat| stat.kind == ItemKind::Unknown) {
        tree.remove(GLOBAL).map_err(local)?;
        return tree.sync_parent(GLOBAL).map_err(local);
    }
    if tree.remove(PG_CONTROL).map_err(local)? {
        tree.sync_parent(PG_CONTROL).map_err(local)?;
    }
    Ok(())
}

/// `tablespace_map` for other directories: the server makes the links anew from it. It escapes line ends and
/// backslashes (`do_pg_backup_start`).
pub fn tablespace_map(links: &[(u32, PathBuf)]) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let mut out = Vec::new();
    for (oid, target) in links {
        out.extend_from_slice(format!("{oid} ").as_bytes());
        for byte in target.as_os_str().as_bytes() {
            if matches!(byte, b'\n' | b'\r' | b'\\') {
                out.push(b'\\');
            }
            out.push(*byte);
        }
        out.push(b'\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_written_as_the_server_reads_them() {
        let links = [(16399, PathBuf::from("/a b")), (7, PathBuf::from("/c\\d\ne"))];
        assert_eq!(tablespace_map(&links), b"16399 /a b\n7 /c\\\\d\\\ne\n");
    }

    #[test]
    fn a_manifest_puts_nothing_where_links_are() {
        let layout = Layout {
            backup: BackupId::new(1_790_000_000, 1).unwrap(),
            tablespaces: vec![16399],
            version_directory: "PG_15_1".to_owned(),
        };
        let check = |path: &str, kind| layout.check(path.as_bytes(), kind).map_err(|e| e.kind);
        for (path, directory, file) in [
            ("pg_tblspc", true, false),
            ("pg_wal", true, false),
            ("pg_tblspc/16399", true, false),
            ("pg_tblspc/16399/PG_15_1", true, false),
            ("pg_tblspc/16399/PG_15_1/5", true, true),
            ("pg_tblspc/16399/PG_15_1/5/1", true, true),
            ("pg_tblspc/16399/PG_14_1", false, false),
            ("pg_tblspc/16399/PG_14_1/5/1", false, false),
            ("pg_tblspc/16399/.ssh/authorized_keys", false, false),
            ("pg_tblspc/016399/.ssh/authorized_keys", false, false),
            // One that is a directory in the data directory.
            ("pg_tblspc/16400/PG_15_1", true, true),
            ("base/5", true, true),
        ] {
            let expected = |fits| if fits { Ok(()) } else { Err(Kind::Damaged) };
            assert_eq!(check(path, ItemKind::Directory), expected(directory), "{path}");
            assert_eq!(check(path, ItemKind::File), expected(file), "{path}");
        }
    }

    #[test]
    fn tablespaces_are_told_from_their_paths() {
        assert_eq!(tablespace_of(b"pg_tblspc/16399/PG_15_1/5/1"), Some(16399));
        assert_eq!(tablespace_of(b"base/5/1"), None);
        assert_eq!(tablespace_of(b"pg_tblspc/x/1"), None);
    }
}
