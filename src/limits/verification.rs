//! Bounds of verification: how much is remembered, how many read at once, how often somebody is told.

use std::time::Duration;

/// Most findings that matter which a verification keeps, each of about 1 KiB; all are counted. Whoever has more than
/// these has lost a disk, and needs another copy rather than a longer list.
pub const MAX_FINDINGS_KEPT: usize = 10_000;
/// Most findings that do not matter which a verification keeps; all are counted.
pub const MAX_LESSER_FINDINGS_KEPT: usize = 1_000;
/// Most intervals of lost moments of which it is looked up when they were: that takes reads of the log.
pub const MAX_TIMED_LOSSES: usize = 200;
/// Most files that a finding names of the backups that it harms.
pub const MAX_HARMED_FILES_NAMED: usize = 5;

/// References from backups to records of packs that are remembered at once, of 44 bytes each: a backup of 64 GiB, and
/// less than 100 MB. Beyond that the packs are verified in several rounds, each of which reads the manifests again.
pub const MAX_REFERENCES_KEPT: usize = 1 << 21;
/// Jobs that may be under way or done ahead of the first one that is not: it bounds the summaries that wait.
pub const VERIFY_JOBS_AHEAD: u64 = 64;
/// How often the caller of a verification is asked whether to go on, and told how far it is.
pub const VERIFY_LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often what was read so far is written down while objects are read: what a process that is killed has read in
/// vain at most. Each time leaves an object.
pub const VERIFY_KEEPS_EVERY: Duration = Duration::from_secs(600);
/// So long after it was made a pin without a backup is told of: `pin` takes one back that finds no backup.
pub const PIN_SETTLES: Duration = Duration::from_secs(3600);
/// Most threads of a verification.
pub const MAX_VERIFY_JOBS: usize = 64;
/// Most threads of a verification where the operator does not say how many.
pub const MAX_DEFAULT_VERIFY_JOBS: usize = 32;
/// Objects in a row that the store has and cannot hand out: after so many it is the store that fails, not its disk.
pub const MAX_UNREADABLE_IN_A_ROW: u64 = 8;
/// What is read at once of an object that is verified.
pub const VERIFY_READ_BYTES: usize = 256 * super::units::KIB;
/// Runs of missing segments that are looked for once more before they are said to be missing: a listing may have
/// begun before they were stored. Each costs a request.
pub const MAX_RUNS_ASKED_AGAIN: usize = 1_000;
