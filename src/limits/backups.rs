//! Bounds of base backups: extents, packs, manifests, how files and pages are read.

use std::time::Duration;

use super::objects::TAG_BYTES;
use super::units::{KIB, MIB};

/// An extent of a file in a base backup: 8 pages, compressed and sealed by itself.
pub const EXTENT_BYTES: usize = 64 * KIB;
/// Extents that one table describes: a piece of 64 MiB.
pub const EXTENTS_PER_TABLE: usize = 1024;
/// A file of at most this many extents has them in the manifest, without a table.
pub const MAX_INLINE_EXTENTS: usize = 4;
/// Longest sealed record of a pack: an extent that does not get shorter, its codec byte and tag.
pub const MAX_RECORD_BYTES: usize = EXTENT_BYTES + 1 + TAG_BYTES;
/// A pack is closed when it has this many bytes; fewer where many workers write at once.
pub const MAX_PACK_BYTES: usize = 32 * MIB;
/// Packs are not made smaller than this.
pub const MIN_PACK_BYTES: usize = 8 * MIB;
/// What all packs that are being filled or stored take together.
pub const PACKS_MEMORY_BYTES: usize = 160 * MIB;
/// Most records of a pack, so that its list of contents fits into its metadata.
pub const MAX_PACK_RECORDS: usize = 64 * KIB;
/// Longest path of a file in a backup (`PATH_MAX`).
pub const MAX_PATH_BYTES: usize = 4096;
/// Longest label of a backup; PostgreSQL allows 1024.
pub const MAX_LABEL_BYTES: usize = 500;
/// Longest name in a directory (`NAME_MAX`).
pub const MAX_NAME_BYTES: usize = 255;
/// Longest facts of a manifest: a database takes about 100 bytes there.
pub const MAX_FACTS_BYTES: usize = 32 * MIB;
/// Most users and groups that the files of a backup belong to, and the length of such a name.
pub const MAX_MANIFEST_NAMES: usize = 4096;
/// See [`MAX_MANIFEST_NAMES`].
pub const MAX_OWNER_NAME_BYTES: usize = 256;
/// Most packs that a backup refers to: 16 TiB of the smallest, compressed. A reader needs 80 MiB for this many.
pub const MAX_MANIFEST_PACKS: usize = 2 * MIB;
/// Items of a manifest that take more than this are stored in lists of their own, which later backups refer to.
pub const ITEMS_IN_LISTS_FROM_BYTES: u64 = 128 * KIB as u64;
/// Items of one list, on average: of a cluster that is idle some files differ each time, and with each of them its
/// list.
pub const ITEMS_PER_LIST: u32 = 128;
/// Longest list of items: a record of a pack.
pub const MAX_LIST_BYTES: usize = EXTENT_BYTES;
/// Most tables of a file whose item is in a list: it fits into one with every pack and the longest path.
pub const MAX_LISTED_TABLES: usize = 1024;
/// Most lists of a manifest: a hundred million files. A reader needs 24 MiB for this many.
pub const MAX_MANIFEST_LISTS: usize = MIB;
/// Packs in which lists of the parent may lie: where they are spread over more, all are stored anew, so that reading a
/// manifest takes no more requests than that.
pub const MAX_LIST_PACKS: usize = 128;
/// Lists that are read together, as they are stored: a manifest of more is read in several steps.
pub const LISTS_READ_BYTES: u64 = 4 * MIB as u64;
/// Longest range of a pack that is read at once for lists; [`CATALOG_READERS`](super::CATALOG_READERS) are read side by
/// side.
pub const MAX_LIST_RANGE_BYTES: u64 = MIB as u64;
/// Shortest encoded item but that of the data directory itself: kind, common beginning, rest and its length, mode,
/// owner, group.
pub const MIN_ITEM_BYTES: usize = 7;
/// Most bytes of a manifest for each byte of its object: real ones get 5 to 20 times shorter, and what comes out of
/// very few bytes would keep a reader busy for as long as its writer likes.
pub const MAX_MANIFEST_EXPANSION: u64 = 256;
/// Manifests up to this length may be of any object.
pub const SHORT_MANIFEST_BYTES: u64 = 8 * MIB as u64;
/// Most backups that a new one tries to be compared with; what is stored already of an earlier one is stored anew then.
pub const MAX_PARENTS_TRIED: usize = 16;
/// More bytes than any cluster, or backup, has: sums of a few of these do not overflow.
pub const MAX_BACKUP_BYTES: u64 = 1 << 56;
/// Most databases that a manifest names.
pub const MAX_DATABASES: usize = 256 * KIB;
/// Most tablespaces of a backup.
pub const MAX_TABLESPACES: usize = 16 * KIB;
/// Most annotations of a backup.
pub const MAX_ANNOTATIONS: usize = 1000;
/// Most damaged pages that are listed one by one; all are counted.
pub const MAX_DAMAGE_LISTED: usize = 1000;
/// Most warnings that are kept of a backup.
pub const MAX_WARNINGS: usize = 1000;
/// And of these in its summary.
pub const MAX_SUMMARY_WARNINGS: usize = 10;

/// Longest file outside the data directory that a backup takes along: settings and certificates.
pub const MAX_ATTACHMENT_BYTES: usize = MIB;
/// Most of them.
pub const MAX_ATTACHMENTS: usize = 1000;
/// Most extents of one.
pub const EXTENTS_PER_ATTACHMENT: usize = MAX_ATTACHMENT_BYTES / EXTENT_BYTES;

/// Backups that no part of the index knows when a new part is written: a listing reads no more of them one by one.
pub const BACKUPS_PER_INDEX: usize = 16;
/// Most backups of a part of the index: of more, the oldest are read one by one.
pub const MAX_INDEXED_BACKUPS: usize = 8192;
/// Longest part of the index: about 700 bytes for each backup, more with warnings.
pub const MAX_BACKUP_INDEX_BYTES: usize = 16 * MIB;

/// A piece of a file, which one worker copies: what one table describes.
pub const FILE_PIECE_BYTES: u64 = (EXTENT_BYTES * EXTENTS_PER_TABLE) as u64;
/// What a worker reads of a file at once.
pub const FILE_READ_BYTES: usize = MIB;
/// Of the extents that a backup takes over from its parent without reading them, one in so many is looked at.
pub const SAMPLED_ONE_IN: u64 = 100;
/// Of these one in so many is read whole, and of the others the beginning of one page.
pub const SAMPLED_WHOLE_ONE_IN: u64 = 32;
/// How much of a page is read to see when it was last changed: what disks write at once.
pub const PAGE_LOOK_BYTES: usize = 512;
/// How much WAL that is not archived yet a backup scans in `pg_wal` to know what changed.
pub const MAX_LOCAL_WAL_BYTES: u64 = 4096 * MIB as u64;
/// Jobs that may be under way or done ahead of the first one that is not: it bounds the results that wait for their
/// turn.
pub const COPY_JOBS_AHEAD: u64 = 256;
/// A batch of small files is full with this many bytes, so that thousands of them are few jobs.
pub const COPY_BATCH_BYTES: u64 = 4 * MIB as u64;
/// Or with this many directories and files.
pub const COPY_BATCH_ITEMS: usize = 64;
/// How often the caller of a copy is asked whether to go on.
pub const COPY_LOOK_EVERY: Duration = Duration::from_millis(200);
/// Most workers of a backup. Each fills a pack of at least [`MIN_PACK_BYTES`]: more would not fit into the memory that
/// is promised.
pub const MAX_BACKUP_JOBS: usize = 16;
/// Most links that are followed on the way to one file of a backup: no set-up needs more than two or three.
pub const MAX_BACKUP_FILE_LINKS: u32 = 8;
/// How deep settings files may include others, as in the server.
pub const MAX_INCLUDE_DEPTH: u32 = 10;

/// How much may be read at once after a pause, as the time in which it may be read.
pub const THROTTLE_BURST: Duration = Duration::from_millis(200);
/// How often a worker that the throttle holds back looks whether it may go on.
pub const THROTTLE_LOOK_EVERY: Duration = Duration::from_millis(100);

/// Pauses before each reading again of a damaged page: damaged is what reads the same after all of them. The server
/// writes a page with one call, which rarely takes a millisecond.
pub const PAGE_PAUSES: [Duration; 4] =
    [Duration::from_millis(2), Duration::from_millis(20), Duration::from_millis(100), Duration::from_millis(400)];
/// Between readings after that, of a page that reads otherwise each time.
pub const PAGE_LAST_PAUSE: Duration = Duration::from_millis(100);
/// Most readings of one page: after them it is damaged, since no page is written all the time.
pub const MAX_PAGE_READINGS: usize = 60;
/// Damaged pages of a piece that are read again with all pauses; for more of them, waiting would take too long.
pub const PATIENTLY_READ_PAGES: usize = 16;

/// The last segments of a backup, which are compared with the server's byte by byte: these may still be there.
pub const COMPARED_SEGMENTS: u64 = 16;
/// Between two looks into the repository for the WAL of a backup, at first; it doubles each time.
pub const NEEDED_WAL_FIRST_PAUSE: Duration = Duration::from_millis(200);
/// And at most: each look is a listing.
pub const NEEDED_WAL_MAX_PAUSE: Duration = Duration::from_secs(2);
/// After this time without progress a backup says what it waits for.
pub const WAIT_REPORTED_AFTER: Duration = Duration::from_secs(10);

/// Unused bytes between two extents that are read all the same rather than with another request.
pub const MAX_GAP_BYTES: u64 = 128 * KIB as u64;
/// Longest range of a pack that is read at once.
pub const MAX_RANGE_BYTES: u64 = 8 * MIB as u64;
/// Shortest limit of a range, however many threads there are: a few extents.
pub const MIN_RANGE_BYTES: u64 = 256 * KIB as u64;
/// What the ranges of all threads take together.
pub const RANGES_MEMORY_BYTES: u64 = 96 * MIB as u64;
/// What is written at once to the scratch copy of a manifest.
pub const SCRATCH_WRITE_BYTES: usize = 256 * KIB;
/// What is read of it at once.
pub const SCRATCH_READ_BYTES: usize = 128 * KIB;
