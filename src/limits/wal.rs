//! Bounds of WAL: segments, summaries, pushing and fetching, the spool and its helpers.

use std::time::Duration;

use super::units::{KIB, MIB};

/// PostgreSQL's smallest WAL segment (`--wal-segsize=1`).
pub const MIN_WAL_SEGMENT_BYTES: u64 = MIB as u64;
/// PostgreSQL's largest WAL segment (`--wal-segsize=1024`).
pub const MAX_WAL_SEGMENT_BYTES: u64 = 1024 * MIB as u64;
/// Longest accepted timeline history or backup history file. The server's are a few hundred bytes; a line per
/// promotion.
pub const MAX_HISTORY_FILE_BYTES: u64 = MIB as u64;
/// Most files of one call whose content waits in memory, compressed, until it is sent: a segment, and the history that
/// goes with it. Each takes an upload part at most.
pub const MAX_CONTENTS_IN_MEMORY: usize = 2;

/// Most contents that are kept of one name where recovery asks for none of them: every promotion off one segment leaves
/// another.
pub const MAX_COPIES: u32 = 100;

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
/// How long a server that follows another one is kept waiting for a store that says nothing: it can neither stream nor
/// be promoted meanwhile.
pub const STANDBY_PATIENCE: Duration = Duration::from_secs(5);
/// What one of several repositories gets before the next one is asked; it doubles with each round.
pub const FETCH_TURN: Duration = Duration::from_secs(10);
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
/// Bytes of WAL that are pushed ahead at one moment; a longer segment is alone. Of what is fetched, as much is in
/// flight as may be kept ([`FETCHED_FILES`]).
pub const AHEAD_BYTES_IN_FLIGHT: u64 = 128 * MIB as u64;
/// Threads that push or fetch ahead: twice the cores, at least this many.
pub const AHEAD_MIN_THREADS: usize = 2;
/// Most threads that push ahead: each may fill a part of [`PART_BYTES`](crate::limits::PART_BYTES),
/// and all of it has to fit into 64 MiB.
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
/// A helper says at once that it works on a file if a call for it may come so soon, in files; else with its next
/// heartbeat.
pub const NEAR_FILES: usize = 8;
/// Longest message of a repository that the spool keeps, in characters.
pub const MAX_SPOOL_MESSAGE_CHARS: usize = 500;
/// Longest record or plan of the spool: a plan of [`AHEAD_FILES`] names, a record with an error for each of many
/// repositories.
pub const MAX_SPOOL_RECORD_BYTES: usize = 64 * KIB;

/// How often `check` asks the repositories for the segment that it had archived.
pub const CHECK_LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long after the archiver is done with a segment a store may take to show it.
pub const CHECK_STORE_GRACE: Duration = Duration::from_secs(5);
/// Kept back from the time limit of `check`, for reading the segment back and for the report.
pub const CHECK_TIME_RESERVE: Duration = Duration::from_secs(2);
/// Between two rounds in which all repositories are asked for a file.
pub const FETCH_ROUND_PAUSE: Duration = Duration::from_secs(1);
/// Shortest wait for an answer, so that asking whether there is one keeps no processor busy.
pub const MIN_ANSWER_WAIT: Duration = Duration::from_millis(10);
/// How often a helper looks for itself what has changed, where nobody tells it.
pub const HELPER_LOOKS_EVERY: Duration = Duration::from_millis(50);
/// How often it does where it is told: for what the kernel tells nobody, such as room on a disk.
pub const WATCHING_HELPER_LOOKS_EVERY: Duration = Duration::from_secs(5);
/// So many changes that a helper found and had not been told of are proof that it is not told.
pub const UNTOLD_CHANGES: u32 = 2;
/// How often a call looks for a file that a helper is about to have: recovery waits meanwhile.
pub const PLANNED_FILE_LOOK_EVERY: Duration = Duration::from_millis(2);
/// Looks for the file between two looks at the plan of the helper, which cost more.
pub const LOOKS_PER_PLAN: u32 = 10;

/// The change set of a segment takes at most one byte of this many of the segment's, so less than one percent of it.
pub const CHANGES_SHARE: u64 = 128;
/// And at most this many: it stands in the metadata, beside the summary.
pub const MAX_SEGMENT_CHANGES_BYTES: usize = 256 * KIB;
/// Longest change set of many segments: the extents of about 100 GB, where every second one changed.
pub const MAX_CHANGES_BYTES: usize = 2 * MIB;
/// Nodes of changes that a backup reads at once: each may be as long as that.
pub const CHANGES_READERS: usize = 8;
/// Highest level of nodes of changes: 4096 segments, 64 GiB of log.
pub const MAX_CHANGES_LEVEL: u32 = 3;
/// What the changes of a whole range of the log take in memory, about.
pub const MAX_CHANGES_MEMORY_BYTES: usize = 32 * MIB;
/// Most extents, and half of what is kept in memory, while the changes of a segment are collected: 8 bytes each.
pub const MAX_COLLECTED_EXTENTS: usize = 1 << 17;
/// Most relations of a segment, of which each takes about 50 bytes.
pub const MAX_COLLECTED_RELATIONS: usize = 1 << 16;
/// Most databases of a segment that count as changed as a whole.
pub const MAX_COLLECTED_DATABASES: usize = 1 << 12;
/// Segments without a change set that are fetched and scanned to know what changed: as many as may be at both ends of a
/// log and in no node.
pub const MAX_SCANNED_FOR_CHANGES: usize = 32;
/// Relations that were seen last while changes are collected, by a few bits of their numbers.
pub const CACHED_RELATIONS: usize = 64;
/// And parts of relations, by a few bits of a product: binary logarithm of how many.
pub const CACHED_UNITS_LOG: u32 = 12;
