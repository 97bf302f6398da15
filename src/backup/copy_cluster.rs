//! From the start of a backup on the server to its end there: the list of files, their copying, and what is stored
//! last. May not live here: what becomes of it ([`finish`](super::finish)).

use crate::backup::attachments::Named;
use crate::backup::context::BackupContext;
use crate::backup::copy_files::copy_files;
use crate::backup::file_copier::{CopyContext, FileCopier};
use crate::backup::file_list::{FileList, Layout};
use crate::backup::kept_paths::KeptPaths;
use crate::backup::last_files::{store_attachments, store_control_file, store_label_files};
use crate::backup::manifest_builder::{Manifest, ManifestBuilder};
use crate::backup::pages::Horizon;
use crate::backup::parent::{Parent, ParentFiles, ParentHead};
use crate::backup::progress::Progress;
use crate::backup::reading::Reading;
use crate::backup::session_watch::SessionWatch;
use crate::backup::source::Stopped;
use crate::backup::untouched::Untouched;
use crate::crypto::random_bytes;
use crate::error::{Error, Kind};
use crate::format::manifest::{Attachment, Tablespace};
use crate::limits::MIB;
use crate::pg::data_directory::tablespace_version_directory;
use crate::pg::{Lsn, Timeline};
use crate::repo::backups::{PackReader, PackTarget, Packed, ScratchManifest, Writers, with_packs};
use crate::threads::{Stop, Worker};
use crate::throttle::Throttle;
use std::collections::HashSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// A cluster whose files are stored, and whose backup has ended on the server. The manifest lacks its head.
pub(crate) struct CopiedCluster {
    /// What the server said at the end.
    pub stopped: Stopped,
    /// The timeline of the stop.
    pub stop_timeline: Timeline,
    /// All directories and files.
    pub manifest: Manifest,
    /// Files outside the data directory.
    pub attachments: Vec<Attachment>,
    /// Tablespaces outside the data directory.
    pub tablespaces: Vec<Tablespace>,
    /// Key of the extents' hashes.
    pub hash_key: [u8; 32],
    /// The packs that were stored.
    pub packed: Packed,
    /// The backup that this one was compared with.
    pub parent: Option<ParentHead>,
    /// What was read of the files.
    pub reading: Reading,
}

/// What came of copying all files once.
enum Pass {
    /// They are copied, and so many bytes were read.
    Done(Box<Copied>, u64),
    /// Something was changed that the log does not know of, found after so many bytes: nothing may be taken over.
    InDoubt(String, u64),
}

/// Files that were copied, of a backup that has ended on the server.
struct Copied {
    manifest: Manifest,
    stopped: Stopped,
    attachments: Vec<Attachment>,
    tablespaces: Vec<Tablespace>,
}

/// Copies the files of a cluster whose backup began at `start` on the server, and ends it there.
///
/// # Errors
/// [`Kind::Server`]; [`Kind::Config`] when a file cannot be read; as the store's.
pub(crate) fn copy_cluster<'a>(
    backup: &'a BackupContext<'a>,
    start: Lsn,
    parent: Option<Parent>,
    mut named: Named,
    warnings: Vec<String>,
) -> Result<CopiedCluster, Error> {
    let source = backup.source;
    // Where hashes of one key are compared, the backups have to have the same one.
    let (hash_key, parent) = match parent.and_then(|parent| Some((parent.head.decoded_hash_key()?, parent))) {
        Some((key, parent)) => (key, Some(parent)),
        // A parent whose key makes no sense is of no use.
        None => (random_bytes().map_err(|e| Error::new(Kind::Bug, e))?, None),
    };
    let (parent, parent_manifest) = parent.map(|parent| (parent.head, parent.manifest)).unzip();
    let mut reading = Reading::decide(backup, parent.as_ref(), start)?;
    let version_directory = tablespace_version_directory(source.major(), backup.control.catalog_version);
    let layout = Layout {
        data_directory: &source.data_directory,
        postgres_major: source.major(),
        version_directory: &version_directory,
        statistics: source.statistics.as_deref(),
        named: &named.below,
    };
    let mut list = FileList::read(&layout, backup.hooks.go_on)?;
    let warnings = [warnings, std::mem::take(&mut list.warnings), std::mem::take(&mut named.warnings)].concat();
    let target = PackTarget::for_jobs(
        backup.repository,
        backup.cluster,
        source.system_id,
        backup.id,
        backup.compression_level,
        backup.workers,
    );
    let passes = Passes {
        backup,
        start,
        hash_key,
        list: &list,
        named: &named,
        parent: parent.as_ref(),
        parent_manifest: parent_manifest.as_ref(),
    };
    let (copied, packed) = with_packs(&target, |writers| {
        let warnings = match passes.copy(writers, reading.untouched.as_ref(), &warnings)? {
            Pass::Done(copied, read_bytes) => {
                reading.read_bytes = read_bytes;
                return Ok(copied);
            }
            Pass::InDoubt(doubt, read_bytes) => {
                let warning = format!(
                    "{doubt}; everything is read now. The log does not say so, so something else wrote there, the disk lost a write, \
                     or Walvis has a defect: please report it"
                );
                (reading.untouched, reading.because, reading.read_bytes) = (None, Some(doubt), read_bytes);
                [warnings.clone(), vec![warning]].concat()
            }
        };
        match passes.copy(writers, None, &warnings)? {
            Pass::Done(copied, read_bytes) => {
                reading.read_bytes += read_bytes;
                Ok(copied)
            }
            // Nothing is taken over.
            Pass::InDoubt(doubt, _) => Err(Error::new(Kind::Bug, doubt)),
        }
    })?;
    let Copied { manifest, stopped, attachments, tablespaces } = *copied;
    let stop_timeline = Timeline(source.stop_timeline(stopped.label.timeline.0)?);
    Ok(CopiedCluster { stopped, stop_timeline, manifest, attachments, tablespaces, hash_key, packed, parent, reading })
}

/// Copying all files once, and maybe once more.
struct Passes<'a, 'p> {
    backup: &'a BackupContext<'a>,
    start: Lsn,
    hash_key: [u8; 32],
    list: &'p FileList,
    named: &'p Named,
    parent: Option<&'p ParentHead>,
    parent_manifest: Option<&'p ScratchManifest>,
}

impl<'a> Passes<'a, '_> {
    /// Copies all files, and ends the backup on the server, unless there is doubt about what is taken over.
    fn copy(&self, writers: &Writers<'_>, untouched: Option<&Untouched>, warnings: &[String]) -> Result<Pass, Error> {
        let Self { backup, start, list, .. } = *self;
        let source = backup.source;
        let nothing = HashSet::new();
        let context = CopyContext {
            data_directory: &source.data_directory,
            hash_key: self.hash_key,
            packs_not_reused: self.parent.map_or(&nothing, |parent| &parent.packs_not_reused),
            reader: PackReader::new(backup.repository, backup.cluster, source.system_id),
            untouched,
            doubt: OnceLock::new(),
            start,
            page_checksums: backup.control.page_checksums,
            horizon: Horizon::of(&source.server, source.in_recovery, start),
            throttle: Throttle::new(backup.request.max_rate_mib_per_s.map(|mib| mib.saturating_mul(MIB as u64))),
            stop: Stop::default(),
            done_bytes: AtomicU64::new(0),
            read_bytes: AtomicU64::new(0),
        };
        let mut manifest = ManifestBuilder::new(&source.data_directory, warnings.to_vec())?;
        let packs = (0..backup.workers).map(|_| writers.writer()).collect::<Result<Vec<_>, _>>()?;
        let watch = SessionWatch::new(backup, start)?;
        let parent_files = self.parent_manifest.map(ParentFiles::of);
        let copied = copy_files(&context, list, parent_files, packs, &mut manifest, &|| {
            watch.look()?;
            let done_bytes = context.done_bytes.load(Ordering::Relaxed);
            (backup.hooks.progress)(Progress::Reading { done_bytes, total_bytes: list.bytes, files: list.files });
            Ok(())
        });
        if let Some(doubt) = context.doubt.get() {
            return Ok(Pass::InDoubt(doubt.clone(), context.read_bytes.load(Ordering::Relaxed)));
        }
        copied?;
        let mut last = FileCopier::new(&context, writers.writer()?);
        // On a standby pg_control says how far recovery has to come, so it is read when all else was, and before the
        // end.
        let mut last_files = vec![store_control_file(source, &mut last)?];
        let stopped = source.stop(backup.hooks.go_on)?;
        let attachments = store_attachments(backup, &mut last, self.named, self.parent, &mut manifest)?;
        last_files.extend(store_label_files(source, &mut last, &stopped)?);
        let kept = KeptPaths::of(source, &stopped)?;
        let mut manifest = manifest.merge(last_files, &|path| kept.has(path))?;
        let known = |list: &[u8]| self.parent?.lists.find(list).filter(|place| !context.packs_not_reused.contains(&place.pack));
        manifest.store_lists(&known, &mut |list| last.store_list(list))?;
        last.finish()?;
        let read_bytes = context.read_bytes.load(Ordering::Relaxed);
        Ok(Pass::Done(Box::new(Copied { manifest, stopped, attachments, tablespaces: kept.tablespaces() }), read_bytes))
    }
}
