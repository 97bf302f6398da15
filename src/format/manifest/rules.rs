//! What a stored manifest may say. It is a claim: it may have been written by anybody who can write to a repository
//! without encryption, or has its key.
//!
//! Everything is checked while it is read, and before anything is written: whatever passes leads nowhere but below the
//! data directory and the directories of its own version in the tablespaces that the facts name.

use std::collections::{HashMap, HashSet};

use super::{Attachment, BackupFacts, BackupSummary, Item, ManifestHead};
use crate::format::extent::{PackId, extents_in};
use crate::limits::{
    MAX_ANNOTATIONS, MAX_ATTACHMENT_BYTES, MAX_ATTACHMENTS, MAX_BACKUP_BYTES, MAX_DAMAGE_LISTED, MAX_DATABASES, MAX_LABEL_BYTES,
    MAX_LIST_BYTES, MAX_NAME_BYTES, MAX_OWNER_NAME_BYTES, MAX_PATH_BYTES, MAX_RECORD_BYTES, MAX_SERVER_VERSION,
    MAX_SUMMARY_WARNINGS, MAX_TABLESPACE_PATH_BYTES, MAX_TABLESPACES, MAX_WARNINGS, MIN_ITEM_BYTES, MIN_SERVER_VERSION,
};
use crate::pg::WalSegmentSize;
use crate::pg::data_directory::{BACKUP_LABEL, CONTROL, TABLESPACE_MAP, TABLESPACES, is_emptied, tablespace_version_directory};
use crate::raw_text::RawText;

/// The bits of a mode that a manifest may have at all.
pub(super) const MAX_MODE: u32 = 0o7777;
/// Reading a directory, for the group of a cluster that lets it (`initdb --allow-group-access`).
const GROUP_READS_DIRECTORY: u32 = 0o050;
/// Reading a file, for the same.
const GROUP_READS_FILE: u32 = 0o040;

/// The mode that a restored directory gets: 0700, or 0750. What else a manifest says (set-user-id bits, writing for
/// others) is for nobody.
pub fn directory_mode(mode: u32) -> u32 {
    if mode & GROUP_READS_DIRECTORY == GROUP_READS_DIRECTORY { 0o750 } else { 0o700 }
}

/// The mode that a restored file gets: 0600, or 0640. See [`directory_mode`].
pub fn file_mode(mode: u32) -> u32 {
    if mode & GROUP_READS_FILE == GROUP_READS_FILE { 0o640 } else { 0o600 }
}

/// Names at the top that are files wherever there is a cluster: the server, or a restore, would stumble over a
/// directory.
const FILES: [&[u8]; 11] = [
    b"PG_VERSION",
    BACKUP_LABEL,
    TABLESPACE_MAP,
    CONTROL,
    b"backup_manifest",
    b"postgresql.auto.conf",
    b"postmaster.pid",
    b"postmaster.opts",
    b"recovery.signal",
    b"standby.signal",
    b"walvis.restore",
];
/// What a file is called while a restore writes it.
const UNFINISHED: &[u8] = b".walvis-new";
/// Names at the top that are directories, besides those that a backup holds empty.
const DIRECTORIES: [&[u8]; 3] = [b"base", b"global", TABLESPACES];

/// What a manifest is held against while it is read.
pub(super) struct Rules {
    version_directory: Vec<u8>,
    max_items: u64,
    tablespaces: HashSet<Vec<u8>>,
    tree: Tree,
    bytes: u64,
}

impl Rules {
    pub(super) fn new(summary: &BackupSummary, max_items: u64) -> Self {
        let version = tablespace_version_directory(summary.postgres_version_num / 10_000, summary.catalog_version);
        Self { version_directory: version.into_bytes(), max_items, tablespaces: HashSet::new(), tree: Tree::default(), bytes: 0 }
    }

    /// Checks the head, and gives attachments the modes that they may have.
    pub(super) fn begin(&mut self, head: &mut ManifestHead) -> Result<(), &'static str> {
        let in_lists = (MAX_LIST_BYTES / MIN_ITEM_BYTES) as u64 * head.lists.len() as u64;
        if head.items > if head.lists.is_empty() { self.max_items } else { in_lists } {
            return Err("it cannot hold as many items as it says");
        }
        if !head.names.iter().all(|name| is_owner_name(name)) || !are_distinct(head.names.iter()) {
            return Err("a user or group in it is none");
        }
        if head.packs.iter().any(|used| used.total_bytes > u64::from(u32::MAX))
            || !are_distinct(head.packs.iter().map(|used| used.pack))
        {
            return Err("a pack in it is none");
        }
        head.facts.check()?;
        let mut totals: HashMap<PackId, u64> = HashMap::new();
        for stored in head.facts.attachments.iter().flat_map(|attachment| &attachment.extents).filter_map(|extent| extent.stored)
        {
            totals.insert(stored.place.pack, 0);
        }
        for used in &head.packs {
            if let Some(total) = totals.get_mut(&used.pack) {
                *total = used.total_bytes;
            }
        }
        for attachment in &mut head.facts.attachments {
            let stored = attachment.extents.iter().filter_map(|extent| extent.stored);
            if stored.map(|stored| stored.place).any(|place| totals.get(&place.pack).is_none_or(|total| place.end() > *total)) {
                return Err("a file from outside the data directory would lie beyond the end of a pack");
            }
            attachment.mode = file_mode(attachment.mode);
        }
        self.tablespaces = head.facts.tablespaces.iter().map(|tablespace| tablespace.oid.to_string().into_bytes()).collect();
        Ok(())
    }

    /// Checks the next item.
    pub(super) fn admit(&mut self, item: &Item) -> Result<(), &'static str> {
        let path = item.path();
        let is_directory = matches!(item, Item::Directory(_));
        if path.is_empty() && !is_directory {
            return Err("its data directory is a file");
        }
        if path.split(|byte| *byte == b'/').any(|part| part.len() > MAX_NAME_BYTES) {
            return Err("a name in it is longer than any system allows");
        }
        self.tree.admit(path, is_directory)?;
        self.tablespace(path, is_directory)?;
        let is_taken = if is_directory {
            FILES.contains(&path) || path.ends_with(UNFINISHED)
        } else {
            DIRECTORIES.contains(&path) || is_emptied(path)
        };
        if is_taken {
            return Err("it has a file where a directory belongs, or the other way round");
        }
        if let Item::File(file) = item {
            self.bytes = self.bytes.saturating_add(file.size_bytes);
            if self.bytes > MAX_BACKUP_BYTES {
                return Err("its files are longer than any cluster");
            }
        }
        Ok(())
    }

    /// In a tablespace nothing but the directory of this version is the cluster's. What has another name in `pg_tblspc`
    /// is in the data directory itself, and leads nowhere.
    fn tablespace(&self, path: &[u8], is_directory: bool) -> Result<(), &'static str> {
        let Some(rest) = path.strip_prefix(TABLESPACES).and_then(|rest| rest.strip_prefix(b"/")) else { return Ok(()) };
        let mut parts = rest.splitn(3, |byte| *byte == b'/');
        if !parts.next().is_some_and(|oid| self.tablespaces.contains(oid)) {
            return Ok(());
        }
        let is_own = match (parts.next(), parts.next()) {
            (None, _) => is_directory,
            (Some(version), below) => version == self.version_directory && (is_directory || below.is_some()),
        };
        if is_own { Ok(()) } else { Err("it has something in a tablespace that is not this cluster's") }
    }
}

/// The directories on the way: what is in none that was named before is no item.
#[derive(Default)]
struct Tree {
    /// The path before.
    path: Vec<u8>,
    /// Lengths of those beginnings of it that are directories, and in which something may still be.
    open: Vec<usize>,
}

impl Tree {
    fn admit(&mut self, path: &[u8], is_directory: bool) -> Result<(), &'static str> {
        let shared = path.iter().zip(&self.path).take_while(|(a, b)| a == b).count();
        // What sorts after all that is in a directory can be told by the byte after its name: `base.x` comes before
        // `base/5`.
        let is_open = |len: usize| len <= shared && path.get(len).is_some_and(|next| *next <= b'/');
        while self.open.pop_if(|len| !is_open(*len)).is_some() {}
        if let Some(parent) = path.iter().rposition(|byte| *byte == b'/')
            && self.open.binary_search(&parent).is_err()
        {
            return Err("it has an item in something that is no directory of it");
        }
        if is_directory && !path.is_empty() {
            self.open.push(path.len());
        }
        self.path.clear();
        self.path.extend_from_slice(path);
        Ok(())
    }
}

fn are_distinct<T: Ord>(values: impl Iterator<Item = T>) -> bool {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values.windows(2).all(|pair| pair.first() != pair.last())
}

fn is_owner_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_OWNER_NAME_BYTES && !name.chars().any(char::is_control)
}

/// From the root on, without detours.
fn is_absolute(path: &[u8]) -> bool {
    path.strip_prefix(b"/").is_some_and(|rest| !rest.is_empty() && is_safe(rest)) && path.len() <= MAX_PATH_BYTES
}

impl Attachment {
    fn is_sane(&self) -> bool {
        is_absolute(self.path.as_bytes())
            && is_owner_name(&self.owner)
            && is_owner_name(&self.group)
            && is_owner_name(&self.setting)
            && self.mode <= MAX_MODE
            && self.size_bytes <= MAX_ATTACHMENT_BYTES as u64
            && self.extents.len() as u64 == extents_in(self.size_bytes)
            && self
                .extents
                .iter()
                .filter_map(|extent| extent.stored)
                .all(|stored| (1..=MAX_RECORD_BYTES).contains(&(stored.place.sealed_bytes as usize)))
    }
}

/// Whether this can be the path of a tablespace: absolute, without detours, and as long as the server allows.
pub fn is_tablespace_path(path: &[u8]) -> bool {
    // The server writes it without a slash at the end, but who makes a link by hand may not.
    let path = path.strip_suffix(b"/").unwrap_or(path);
    is_absolute(path) && path.len() < MAX_TABLESPACE_PATH_BYTES
}

impl BackupFacts {
    /// Whether there are no more of anything than a reader takes.
    pub(super) fn fits(&self) -> bool {
        self.databases.len() <= MAX_DATABASES
            && self.tablespaces.len() <= MAX_TABLESPACES
            && self.annotations.len() <= MAX_ANNOTATIONS
            && self.damage.len() <= MAX_DAMAGE_LISTED
            && self.warnings.len() <= MAX_WARNINGS
            && self.attachments.len() <= MAX_ATTACHMENTS
    }

    /// Checks what no manifest may say. How many there may be of each has been checked when it was read.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.hash_key.len() != 64 || !self.hash_key.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return Err("the key of its hashes makes no sense");
        }
        let is_sane = |path: &RawText| is_tablespace_path(path.as_bytes());
        if !self.tablespaces.iter().all(|tablespace| tablespace.oid > 0 && is_sane(&tablespace.path))
            || !are_distinct(self.tablespaces.iter().map(|tablespace| tablespace.oid))
        {
            return Err("a tablespace in it has an impossible path or number");
        }
        if !self.attachments.iter().all(Attachment::is_sane)
            || !are_distinct(self.attachments.iter().map(|attachment| &attachment.path))
        {
            return Err("a file from outside the data directory has impossible attributes");
        }
        Ok(())
    }
}

impl BackupSummary {
    /// Whether these can be the numbers of a backup.
    pub fn is_sane(&self) -> bool {
        let is_time = |unix_us: i64| (0..=MAX_TIME_US).contains(&unix_us);
        let is_number = |bytes: u64| bytes <= MAX_BACKUP_BYTES;
        self.label.len() <= MAX_LABEL_BYTES
            && is_time(self.started_unix_us)
            && is_time(self.stopped_unix_us)
            && self.start_lsn <= self.checkpoint_lsn
            && self.start_lsn <= self.stop_lsn
            && self.timeline > 0
            && (MIN_SERVER_VERSION..MAX_SERVER_VERSION).contains(&self.postgres_version_num)
            && WalSegmentSize::new(self.wal_segment_bytes).is_some()
            && [self.files, self.bytes, self.new_bytes, self.reused_bytes, self.stored_bytes].into_iter().all(is_number)
            && [self.pages.verified, self.pages.damaged, self.warnings_total].into_iter().all(is_number)
            && self.data_directory.as_bytes().len() <= MAX_PATH_BYTES
            && self.warnings.len() <= MAX_SUMMARY_WARNINGS
    }
}

/// The last second of the year 9999, as in the ids of backups.
const MAX_TIME_US: i64 = 253_402_300_799_999_999;

/// Whether a path stays below the directory it is relative to.
pub(super) fn is_safe(path: &[u8]) -> bool {
    path.is_empty()
        || (!path.contains(&0) && path.split(|byte| *byte == b'/').all(|part| !part.is_empty() && part != b"." && part != b".."))
}
