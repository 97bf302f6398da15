//! Bounds of stores: sizes and time limits of requests, retries, outages, claims.

use std::time::Duration;

use super::objects::MAX_KEY_BYTES;
use super::units::MIB;

/// Size of an upload part; an object that fits in one part is stored with one request. S3 allows 10,000 parts of at
/// least 5 MiB.
pub const PART_BYTES: usize = 8 * MIB;
/// S3's limit on the number of parts.
pub const MAX_PARTS: usize = 10_000;

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
/// How long a store that failed is not asked again for a standby, nor for what an optional repository missed.
pub const OUTAGE_PAUSE: Duration = Duration::from_secs(15);
/// Without a call that failed for so long, an outage is taken to be over.
pub const OUTAGE_TIME: Duration = Duration::from_secs(600);
/// Time limit of a whole command unless configured.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);
/// Age after which an abandoned temp file, claim or multipart upload is taken to be dead. No writer lives that long:
/// the configured time limit may not reach it ([`MAX_TIMEOUT`]).
pub const ABANDONED_AFTER: Duration = Duration::from_secs(2 * 3600);
/// Largest configurable time limit of a command that writes.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(3600);
/// Longest time without any success that a command without a time limit of its own may be given. Storing one object
/// takes at most three such requests, and [`ABANDONED_AFTER`] relies on [`MAX_TIMEOUT`].
pub const MAX_STALL: Duration = Duration::from_secs(900);

/// Most claims on one object. Each stands for a writer at work or for one that died within [`ABANDONED_AFTER`].
pub const MAX_CLAIMS: usize = 10_000;
/// Age at which a writer puts its own claim again, long before others take it to be dead.
pub const CLAIM_RENEWED_AFTER: Duration = Duration::from_secs(ABANDONED_AFTER.as_secs() / 4);
/// Objects that are deleted by one request: S3's limit.
pub const DELETED_AT_ONCE: usize = 1000;
/// Deleted objects whose versions are removed in one go: most have one version and one mark, of 100 bytes each.
pub const PURGED_AT_ONCE: usize = 500;
/// Requests about single objects that are sent at once where S3 has none about many: deletions, and what holds them.
pub const DELETING_THREADS: usize = 16;
/// Most leftovers of killed writers that are looked at in one go, of at most 1 KiB each; the next one gets the rest.
pub const MAX_LEFTOVERS: usize = 10_000;
/// Most versions of one deleted object that are shown at once, of about 100 bytes each.
pub const MAX_HIDDEN_VERSIONS: usize = 10_000;
/// Objects that the store in memory lists at once, as S3 does; the visitor runs unlocked between two listings.
pub const MEMORY_LISTED_OBJECTS: usize = 1000;

/// Longest part of a text from a store that goes into a message, in characters.
pub const MAX_QUOTE_CHARS: usize = 240;
/// How long removing the rest of a failed upload may take: a courtesy, since the store expires what is left where the
/// operator told it to.
pub const UPLOAD_TIDY_TIME: Duration = Duration::from_secs(5);
/// A connection to a store that takes longer than this will not come.
pub const MAX_CONNECT_TIME: Duration = Duration::from_secs(10);
/// Threads of the runtime that the S3 client works with: the work is waiting for the network.
pub const S3_RUNTIME_THREADS: usize = 2;
/// Largest offset of a ranged read: servers take larger ones for nonsense, not for the end of an object.
pub const MAX_S3_OFFSET: u64 = i64::MAX as u64;
/// S3's limit on the length of an object name, in bytes.
pub const MAX_S3_KEY_BYTES: usize = 1024;
/// Longest prefix in a bucket, in bytes: what S3 leaves beside the longest key and a slash.
pub const MAX_S3_PREFIX_BYTES: usize = MAX_S3_KEY_BYTES - MAX_KEY_BYTES - 1;
