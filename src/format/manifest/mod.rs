//! The manifest of a base backup: what it is, and of every file its attributes and where its content is.
//!
//! Written last, it is the backup's commit point. It is written and read as a stream: header, then directories and
//! files in the order of their paths. `docs/FORMAT.md` has the layout.

mod bounded;
mod items;
mod lists;
mod read;
mod rules;
mod write;

use std::collections::BTreeMap;

pub use lists::ItemLists;
pub use read::ManifestReader;
pub use rules::{directory_mode, file_mode, is_tablespace_path};
use serde::{Deserialize, Serialize};
pub use write::{ManifestItems, ManifestWriter};

use super::extent::{BackupId, Extent, PackId, RecordLocation};
use crate::limits::{
    EXTENTS_PER_ATTACHMENT, MAX_ANNOTATIONS, MAX_ATTACHMENTS, MAX_DAMAGE_LISTED, MAX_DATABASES, MAX_SUMMARY_WARNINGS,
    MAX_TABLESPACES, MAX_WARNINGS,
};
use crate::pg::scan::Parameters;
use crate::raw_text::RawText;

/// The version with all items in the manifest itself.
const VERSION: u8 = 1;
/// The version with items in lists that are stored in packs.
const VERSION_WITH_LISTS: u8 = 2;
/// The first byte of a list of items. Tables of extents, which are records of the same kind, begin with another one.
const LIST_VERSION: u8 = 2;
const DIRECTORY: u8 = 1;
const FILE_WITH_EXTENTS: u8 = 2;
const FILE_WITH_TABLES: u8 = 3;

/// What `list` and the choice of a backup need: JSON in the metadata of the manifest's envelope, read with one small
/// request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupSummary {
    /// The backup.
    pub id: BackupId,
    /// What the operator called it.
    pub label: String,
    /// When it began, microseconds since 1970 UTC, by the clock of the database host.
    pub started_unix_us: i64,
    /// When its last file was read.
    pub stopped_unix_us: i64,
    /// Where recovery begins: the redo position of its checkpoint.
    #[serde(with = "lsn_text")]
    pub start_lsn: crate::pg::Lsn,
    /// The record of that checkpoint.
    #[serde(with = "lsn_text")]
    pub checkpoint_lsn: crate::pg::Lsn,
    /// Where a restored cluster is consistent: the first position after its backup-end record (standby: minimum
    /// recovery point).
    #[serde(with = "lsn_text")]
    pub stop_lsn: crate::pg::Lsn,
    /// The timeline that it was taken on.
    pub timeline: u32,
    /// The cluster's system identifier, decimal.
    pub system_id: String,
    /// `server_version_num`.
    pub postgres_version_num: u32,
    /// Catalog version, part of the name of tablespace directories.
    pub catalog_version: u32,
    /// Size of a WAL segment.
    pub wal_segment_bytes: u64,
    /// Whether a standby was read.
    pub from_standby: bool,
    /// Number of files.
    pub files: u64,
    /// Their length.
    pub bytes: u64,
    /// What was stored for it, compressed, without the manifest.
    pub new_bytes: u64,
    /// Of the files' length, what was referred to in earlier packs.
    pub reused_bytes: u64,
    /// What a restore has to read, compressed.
    pub stored_bytes: u64,
    /// What became of the page checksums.
    pub pages: PageChecksums,
    /// The backup it was compared with.
    pub parent: Option<BackupId>,
    /// The data directory that was read.
    pub data_directory: RawText,
    /// How many read at once.
    pub jobs: u32,
    /// What was skipped or odd: the first few; all are in [`BackupFacts::warnings`].
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "bounded::list::<_, _, MAX_SUMMARY_WARNINGS>")]
    pub warnings: Vec<String>,
    /// How many there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub warnings_total: u64,
    /// The server's settings that a hot standby has to match, by its `pg_control`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Parameters>,
}

/// Page checksums in a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PageChecksums {
    /// Whether the cluster has them.
    pub enabled: bool,
    /// Pages whose checksum fits.
    pub verified: u64,
    /// Pages that are damaged; the first ones are in [`BackupFacts::damage`].
    pub damaged: u64,
}

/// The rest of what is known of a backup, at the head of its manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupFacts {
    /// Key of the extents' hashes, 64 hexadecimal digits.
    pub hash_key: String,
    /// Databases, if they could be asked for.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_DATABASES>")]
    pub databases: Vec<Database>,
    /// Tablespaces outside the data directory.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_TABLESPACES>")]
    pub tablespaces: Vec<Tablespace>,
    /// What the operator noted.
    #[serde(deserialize_with = "bounded::map::<_, MAX_ANNOTATIONS>")]
    pub annotations: BTreeMap<String, String>,
    /// The first damaged pages.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_DAMAGE_LISTED>")]
    pub damage: Vec<DamagedPage>,
    /// What was skipped or odd.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_WARNINGS>")]
    pub warnings: Vec<String>,
    /// Files outside the data directory that the server reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "bounded::list::<_, _, MAX_ATTACHMENTS>")]
    pub attachments: Vec<Attachment>,
    /// Up to where on the circle of all extents the pages that nothing touched were verified: the next backup with
    /// `--verify-pages` goes on from there.
    #[serde(default, skip_serializing_if = "is_beginning")]
    pub verified_up_to: u32,
}

/// A file outside the data directory that the server reads: its settings, who may connect, certificates. It is no part
/// of the cluster; the restore says where to put it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Where it was, from the root on, by the name that the server has for it.
    pub path: RawText,
    /// The setting that names it (`config_file`, `hba_file`, `ident_file`, `ssl_cert_file`, …); of a file that another
    /// one includes, the setting that names that one.
    pub setting: String,
    /// Permissions.
    pub mode: u32,
    /// Name of its owner.
    pub owner: String,
    /// Name of its group.
    pub group: String,
    /// When it was last changed, microseconds since 1970 UTC.
    pub modified_unix_us: i64,
    /// Its length, at most [`MAX_ATTACHMENT_BYTES`](crate::limits::MAX_ATTACHMENT_BYTES).
    pub size_bytes: u64,
    /// CRC-32C of its content.
    pub crc32c: u32,
    /// Where its content is.
    #[serde(deserialize_with = "bounded::list::<_, _, EXTENTS_PER_ATTACHMENT>")]
    pub extents: Vec<Extent>,
}

fn is_beginning(place: &u32) -> bool {
    *place == 0
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A database of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Database {
    /// Object id.
    pub oid: u32,
    /// Name when the backup began.
    pub name: RawText,
    /// `pg_database_size`, where it could be asked.
    pub bytes: Option<u64>,
}

/// A tablespace of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Tablespace {
    /// Object id: the link's name in `pg_tblspc`.
    pub oid: u32,
    /// Where it was.
    pub path: RawText,
}

/// A damaged page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DamagedPage {
    /// The file, relative to the data directory.
    pub file: RawText,
    /// Number of the page in the relation, across its segment files.
    pub block: u64,
    /// The relation, if its name could be found.
    pub relation: Option<RawText>,
    /// What is wrong with it.
    pub detail: String,
}

/// A directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Relative to the data directory, as in PostgreSQL's `backup_manifest`; empty for the data directory itself.
    pub path: Vec<u8>,
    /// Permissions.
    pub mode: u32,
    /// Name of its owner.
    pub owner: String,
    /// Name of its group.
    pub group: String,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Relative to the data directory, as in PostgreSQL's `backup_manifest`: `base/5/1259`.
    pub path: Vec<u8>,
    /// Its length.
    pub size_bytes: u64,
    /// Permissions.
    pub mode: u32,
    /// Name of its owner.
    pub owner: String,
    /// Name of its group.
    pub group: String,
    /// When it was last changed, microseconds since 1970 UTC.
    pub modified_unix_us: i64,
    /// CRC-32C of its content.
    pub crc32c: u32,
    /// Where its content is.
    pub content: Content,
}

/// Where the content of a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// At most [`MAX_INLINE_EXTENTS`](crate::limits::MAX_INLINE_EXTENTS) extents.
    Extents(Vec<Extent>),
    /// A table for each piece of 64 MiB.
    Tables(Vec<TableRef>),
}

/// A table in a pack, and what is known of its piece without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableRef {
    /// Where it is.
    pub place: RecordLocation,
    /// CRC-32C of the piece.
    pub crc32c: u32,
}

/// One line of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A directory.
    Directory(DirectoryEntry),
    /// A file.
    File(FileEntry),
}

impl Item {
    /// Its path.
    pub fn path(&self) -> &[u8] {
        match self {
            Self::Directory(entry) => &entry.path,
            Self::File(entry) => &entry.path,
        }
    }
}

/// What a backup uses of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackUse {
    /// The pack.
    pub pack: PackId,
    /// Bytes of the records that the backup refers to.
    pub live_bytes: u64,
    /// Bytes of all its records.
    pub total_bytes: u64,
}

impl PackUse {
    /// Whether so little of it is used that the rest costs more than storing that anew.
    pub fn is_mostly_dead(&self) -> bool {
        self.live_bytes.saturating_mul(2) < self.total_bytes
    }
}

/// Head of a manifest: everything but directories and files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestHead {
    /// What is known of the backup.
    pub facts: BackupFacts,
    /// Every pack that it refers to.
    pub packs: Vec<PackUse>,
    /// Number of directories and files.
    pub items: u64,
    /// Where the lists of items are, in the order of these; none where the items follow the head.
    pub lists: Vec<RecordLocation>,
    /// Owners and groups, by the numbers that items have for them.
    names: Vec<String>,
}

mod lsn_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::pg::Lsn;

    pub(super) fn serialize<S: Serializer>(lsn: &Lsn, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(lsn)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Lsn, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
pub(crate) mod tests;
