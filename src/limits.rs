//! Every bound in one place, with the relations between them asserted at compile time.
//!
//! Exceeding a bound is an error, never a truncation.

use std::time::Duration;

/// One KiB.
pub const KIB: usize = 1024;
/// One MiB.
pub const MIB: usize = 1024 * KIB;

/// Longest object key, in bytes (S3 allows 1024; some file systems less per path).
pub const MAX_KEY_BYTES: usize = 512;
/// Longest cluster name, in bytes.
pub const MAX_CLUSTER_NAME_BYTES: usize = 63;
/// Longest key file, passphrase file or output of a key command.
pub const MAX_SECRET_BYTES: usize = 64 * KIB;

/// Plaintext of one sealed frame. Small enough to bound memory, large enough that the 16-byte tag and the call cost
/// vanish.
pub const FRAME_BYTES: usize = 64 * KIB;
/// Authentication tag of a frame.
pub const TAG_BYTES: usize = 16;
/// Longest encoded metadata block of an envelope, so that header and metadata come with one bounded ranged read.
pub const MAX_METADATA_BYTES: usize = MIB;
/// What a metadata read asks for first; most metadata fits, the rest costs a second read.
pub const METADATA_READ_BYTES: usize = 256 * KIB;
/// Longest WAL summary in the metadata: what the other sections leave.
pub const MAX_SUMMARY_BYTES: usize = MAX_METADATA_BYTES - 4 * KIB;
/// Largest zstd window accepted when reading and used when writing (2^23 = 8 MiB): it bounds the memory of a reader.
pub const MAX_WINDOW_LOG: u32 = 23;
/// Largest small object (descriptor, wrapped key, registration) that is read into memory whole.
pub const MAX_SMALL_OBJECT_BYTES: usize = MIB;

/// Longest descriptor or key object: they take less than 1 KiB, and are read before anything is authenticated.
pub const MAX_DESCRIPTOR_BYTES: usize = 4 * KIB;
/// Most key objects that are read: those of the given key or, where a passphrase is given, of any, that were stored
/// first.
pub const MAX_KEY_OBJECTS: usize = 64;
/// Most keys that are derived from a passphrase to open a repository: each costs an Argon2id run.
pub const MAX_DERIVED_KEYS: usize = 4;
/// Most ids of other keys that an error names.
pub const MAX_NAMED_KEYS: usize = 5;
/// Most memory that the Argon2id parameters of a key object may ask for, in KiB; passes, lanes; and memory times
/// passes, which is what a run takes: two or three times what `init` writes.
pub const MAX_ARGON2_MEMORY_KIB: u32 = 128 * KIB as u32;
/// See [`MAX_ARGON2_MEMORY_KIB`].
pub const MAX_ARGON2_PASSES: u32 = 8;
/// See [`MAX_ARGON2_MEMORY_KIB`].
pub const MAX_ARGON2_LANES: u32 = 8;
/// See [`MAX_ARGON2_MEMORY_KIB`].
pub const MAX_ARGON2_WORK_KIB: u32 = 512 * KIB as u32;
/// Most bindings of a cluster: one for each `pg_upgrade`.
pub const MAX_BINDINGS: usize = 1000;
/// Of these, how many are read before there is a key, each of at most [`MAX_EARLY_BINDING_BYTES`].
pub const MAX_EARLY_BINDINGS: usize = 16;
/// See [`MAX_EARLY_BINDINGS`]. They take less than 1 KiB.
pub const MAX_EARLY_BINDING_BYTES: usize = 16 * KIB;

/// Longest encoded node of the catalog: 16 entries of at most 200 bytes.
pub const MAX_NODE_BYTES: usize = 4 * KIB;

/// Objects of the catalog that are read at once.
pub const CATALOG_READERS: usize = 16;

/// Nodes of the catalog that a command remembers: about 2 MB.
pub const CACHED_NODES: usize = 512;
/// Names of nodes and segments that a command remembers, of 8 bytes each.
pub const CACHED_NAMES: usize = 1 << 16;
/// Summaries, without their lists of transactions, that a command remembers.
pub const CACHED_SUMMARIES: usize = 48;
/// Headers of packs that a reader remembers: about 300 bytes each.
pub const CACHED_PACK_KEYS: usize = 1024;

/// Size of an upload part; an object that fits in one part is stored with one request. S3 allows 10,000 parts of at
/// least 5 MiB.
pub const PART_BYTES: usize = 8 * MIB;
/// S3's limit on the number of parts.
pub const MAX_PARTS: usize = 10_000;

/// PostgreSQL's smallest WAL segment (`--wal-segsize=1`).
pub const MIN_WAL_SEGMENT_BYTES: u64 = MIB as u64;
/// PostgreSQL's largest WAL segment (`--wal-segsize=1024`).
pub const MAX_WAL_SEGMENT_BYTES: u64 = 1024 * MIB as u64;
/// Longest accepted timeline history or backup history file. The server's are a few hundred bytes; a line per
/// promotion.
pub const MAX_HISTORY_FILE_BYTES: u64 = MIB as u64;

/// Most contents that are kept of one name where recovery asks for none of them: every promotion off one segment leaves
/// another.
pub const MAX_COPIES: u32 = 100;

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

/// Longest WAL record: what the server can allocate to read one (`MaxAllocSize`).
pub const MAX_WAL_RECORD_BYTES: u32 = 0x3FFF_FFFF;
/// Bytes kept from the beginning of each part of a record that crosses WAL segments.
pub const PIECE_FIRST_BYTES: usize = 8 * KIB;
/// Bytes kept from the end of each part that is longer than that; 20 are needed.
pub const PIECE_LAST_BYTES: usize = 32;
/// Longest list of transactions in the summary of a segment: about 4 million, at 4 bytes each. pgbench fills 1 GiB with
/// 2 million.
pub const MAX_XACT_LIST_BYTES: usize = 16 * MIB;
/// Most restore points, checkpoints and the like in the summary of a segment.
pub const MAX_MARKS: usize = 4096;
/// Longest path of a tablespace (`MAXPGPATH`).
pub const MAX_TABLESPACE_PATH_BYTES: usize = 1024;
/// Most tablespaces that are listed of a database that is dropped.
pub const MAX_DROPPED_TABLESPACES: usize = 64;

/// The most days that S3 keeps an object locked.
pub const MAX_RETAIN_DAYS: u32 = 36_500;
/// Time limit of one store request unless configured.
pub const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Attempts of one store request, the first included: about a quarter of a minute with the delays below.
pub const RETRY_ATTEMPTS: u32 = 10;
/// Upper end of the random delay before the first retry; it doubles each time.
pub const RETRY_FIRST_DELAY: Duration = Duration::from_millis(100);
/// Upper end of any random delay before a retry.
pub const RETRY_MAX_DELAY: Duration = Duration::from_secs(10);
/// How long a store is tried that has not answered yet, where another one can be asked instead.
pub const ALTERNATIVE_PATIENCE: Duration = Duration::from_secs(20);
/// How long a store that was given up is not asked again by the same command.
pub const GIVEN_UP_TIME: Duration = Duration::from_secs(60);
/// How long a server that follows another one is kept waiting for a store that says nothing: it can neither stream nor
/// be promoted meanwhile.
pub const STANDBY_PATIENCE: Duration = Duration::from_secs(5);
/// How long a store that failed is not asked again for a standby, nor for what an optional repository missed.
pub const OUTAGE_PAUSE: Duration = Duration::from_secs(15);
/// What one of several repositories gets before the next one is asked; it doubles with each round.
pub const FETCH_TURN: Duration = Duration::from_secs(10);
/// Without a call that failed for so long, an outage is taken to be over.
pub const OUTAGE_TIME: Duration = Duration::from_secs(600);
/// Time limit of a whole command unless configured.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a push waits for an optional repository when all else is done: archiving must not fall behind because of
/// it.
pub const OPTIONAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Files that a helper sends to an optional repository that missed them; the next call starts another one.
pub const MISSED_FILES: usize = 256;
/// What a push spends at most on the catalog after a segment is stored.
pub const CATALOG_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a file that must exist is looked for again before it is called missing, and how long between: another
/// process may be pushing several files at once, in another order.
pub const MISSING_ATTEMPTS: u32 = 4;
/// See [`MISSING_ATTEMPTS`].
pub const MISSING_DELAY: Duration = Duration::from_millis(500);
/// A file that must exist because of a later one is waited for until that one was stored so long ago: when several
/// files are pushed at once, one may arrive late.
pub const LATE_ARRIVAL: Duration = Duration::from_secs(10);
/// So many of the files that wait to be archived are pushed ahead of the one that is asked for, this one counted.
pub const AHEAD_FILES: usize = 64;
/// Bytes of WAL that are pushed, or fetched, ahead at one moment; a longer segment is alone.
pub const AHEAD_BYTES_IN_FLIGHT: u64 = 128 * MIB as u64;
/// Threads that push or fetch ahead: twice the cores, at least this many.
pub const AHEAD_MIN_THREADS: usize = 2;
/// Most threads that push ahead: each may fill a part of [`PART_BYTES`], and all of it has to fit into 64 MiB.
pub const PUSH_AHEAD_MAX_THREADS: usize = 4;
/// Most threads that fetch ahead.
pub const FETCH_AHEAD_MAX_THREADS: usize = 8;
/// How long a helper begins new work. The next call starts another one.
pub const AHEAD_TIME: Duration = Duration::from_secs(60);
/// How long a push helper waits for an archiver that does not ask for what is stored already.
pub const AHEAD_IDLE: Duration = Duration::from_secs(5);
/// Segments that are fetched ahead of the one that recovery was given last, at most and at least, and their bytes
/// together.
pub const FETCHED_FILES: u64 = 16;
/// See [`FETCHED_FILES`].
pub const FETCHED_MIN_FILES: u64 = 2;
/// See [`FETCHED_FILES`].
pub const FETCHED_BYTES: u64 = 256 * MIB as u64;
/// This many times what is fetched ahead must be free where it is kept: a recovery needs the space more.
pub const FETCHED_FREE_TIMES: u64 = 4;
/// Segments that one listing looks ahead.
pub const FETCH_LISTED: u64 = 256;
/// How long a fetch helper waits for a recovery that asks for nothing: replaying one segment may take a while.
pub const FETCH_IDLE: Duration = Duration::from_secs(60);
/// How long what the spool says counts.
pub const SPOOL_TIME: Duration = Duration::from_secs(300);
/// How often a helper says that it is alive.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// A helper that has not said for this long that it is alive is not waited for.
pub const HEARTBEAT_LOST: Duration = Duration::from_secs(5);
/// Longest message of a repository that the spool keeps, in characters.
pub const MAX_SPOOL_MESSAGE_CHARS: usize = 500;
/// Longest record or plan of the spool: a plan of [`AHEAD_FILES`] names, a record with an error for each of many
/// repositories.
pub const MAX_SPOOL_RECORD_BYTES: usize = 64 * KIB;
/// Age after which an abandoned temp file, claim or multipart upload is taken to be dead. No writer lives that long:
/// the configured time limit may not reach it ([`MAX_TIMEOUT`]).
pub const ABANDONED_AFTER: Duration = Duration::from_secs(2 * 3600);
/// How long a command of the operator's that was told to end has for tidying up before it is killed.
pub const COMMAND_GRACE: Duration = Duration::from_millis(300);
/// How long the kernel's keyring keeps a key that was derived from a passphrase.
pub const KEY_CACHE_TIME: Duration = Duration::from_secs(3600);
/// Largest configurable time limit of a command that writes.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(3600);
/// Longest time without any success that a command without a time limit of its own may be given. Storing one object
/// takes at most three such requests, and [`ABANDONED_AFTER`] relies on [`MAX_TIMEOUT`].
pub const MAX_STALL: Duration = Duration::from_secs(900);

const _: () = {
    assert!(HEARTBEAT.as_millis() * 3 < HEARTBEAT_LOST.as_millis());
    assert!(STANDBY_PATIENCE.as_secs() < OUTAGE_PAUSE.as_secs());
    assert!(MAX_STALL.as_secs() * 4 <= MAX_TIMEOUT.as_secs());
    assert!(MAX_PARTS as u64 * PART_BYTES as u64 >= 8 * MAX_WAL_SEGMENT_BYTES);
    assert!(PART_BYTES >= 5 * MIB);
    assert!(PUSH_AHEAD_MAX_THREADS * PART_BYTES <= 32 * MIB);
    assert!(METADATA_READ_BYTES <= MAX_METADATA_BYTES);
    // Of a record that crosses segments all that a mark says is kept.
    assert!(PIECE_FIRST_BYTES >= MAX_TABLESPACE_PATH_BYTES + 64 && PIECE_FIRST_BYTES >= 4 * MAX_DROPPED_TABLESPACES + 64);
    // encode_within always succeeds then.
    assert!(MAX_SUMMARY_BYTES >= 4 * (PIECE_FIRST_BYTES + PIECE_LAST_BYTES));
    assert!(MAX_WINDOW_LOG <= 23);
    // 300 bytes of JSON for each extent, 1 KiB more and the path for each attachment.
    assert!(MAX_ATTACHMENTS * (MAX_ATTACHMENT_BYTES / EXTENT_BYTES * 300 + KIB + 2 * MAX_PATH_BYTES) <= MAX_FACTS_BYTES / 2);
    // A table of extents that all lie in different packs: 16 bytes more each.
    assert!(EXTENTS_PER_TABLE * (16 + 4 + 3 + 5 + 3 + 17) + 32 <= EXTENT_BYTES);
    assert!(MAX_PACK_RECORDS * 6 + 4 * KIB <= MAX_METADATA_BYTES);
    assert!(PACKS_MEMORY_BYTES >= 2 * MAX_PACK_BYTES);
    assert!(MAX_TIMEOUT.as_secs() * 2 <= ABANDONED_AFTER.as_secs());
    assert!(RETRY_FIRST_DELAY.as_millis() <= RETRY_MAX_DELAY.as_millis());
};
