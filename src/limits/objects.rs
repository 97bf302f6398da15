//! Bounds of stored objects: names, envelopes, keys, manifests as they are read, the catalog.

use std::time::Duration;

use super::units::{KIB, MIB};

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

/// Most good copies of one damaged object: each was written because the one before is damaged too.
pub const MAX_REPAIRS: u32 = 100;
/// How often the quick look is taken again after a repair brought back what says what else is needed: a binding, then a
/// history, then a manifest, and one more.
pub const MAX_REPAIR_ROUNDS: usize = 4;
/// How long a good copy stays beside an object that was replaced: longer than any run that looked at it before.
pub const REPAIR_KEPT: Duration = Duration::from_hours(24);

/// Longest encoded node of the catalog: 16 entries of at most 200 bytes.
pub const MAX_NODE_BYTES: usize = 4 * KIB;

/// Objects of the catalog that are read at once.
pub const CATALOG_READERS: usize = 16;

/// Timelines that are looked at at once; each may read [`CATALOG_READERS`] objects.
pub const TIMELINES_AT_ONCE: usize = 8;
/// Nodes of the catalog that a command remembers: about 8 MB. A timeline has 16 of the highest level that it needs, and
/// a walk over its end reads one or two of each level.
pub const CACHED_NODES: usize = 2048;
/// Runs of consecutive names of nodes and segments that a command remembers, of 16 bytes and a place in a tree each.
pub const CACHED_NAME_RUNS: usize = 1 << 16;
/// Summaries that a command remembers, together: those of the ends of a hundred timelines.
pub const CACHED_SUMMARY_BYTES: usize = 32 * MIB;
/// Answers about ends of transactions that a command remembers, of each kind.
pub const CACHED_ENDS: usize = 1024;
/// A summary with longer lists of transactions is remembered without them.
pub const CACHED_XACT_LIST_BYTES: usize = 16 * KIB;
/// Headers of packs that a reader remembers: about 300 bytes each.
pub const CACHED_PACK_KEYS: usize = 1024;

/// Buffer through which a source is read while it is sealed: two frames.
pub const COPY_BUFFER_BYTES: usize = 128 * KIB;

/// Longest encoded item of a manifest: the tables of a file of 1 TiB.
pub const MAX_MANIFEST_ITEM_BYTES: usize = MIB;
/// Longest part of the head of a manifest that is read at once, except for the facts: a name, or a pack.
pub const MAX_MANIFEST_HEAD_PART_BYTES: usize = 512;
/// Oldest release that a manifest may name, as `server_version_num` has it: the oldest that Walvis backs up.
pub const MIN_SERVER_VERSION: u32 = 130_000;
/// Newest release that a manifest may name: any that may come, and no number that is none.
pub const MAX_SERVER_VERSION: u32 = 10_000_000;

/// Summaries that a push reads at once: it has less memory than a search.
pub const PUSH_CATALOG_READERS: usize = 4;
/// Names of the catalog that are listed at once: half of what S3 answers with.
pub const LISTED_NAMES: usize = 512;
/// Widest range of numbers that is listed at once on the way back over a gap: it is widened step by step up to this.
pub const MAX_LISTED_SPAN: u64 = 1 << 16;
