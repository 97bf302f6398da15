//! Bounds of evidence: what a verification leaves behind, how much of it is read, and the shares of a rolling one.

use std::time::Duration;

use super::units::MIB;

/// Longest evidence, as JSON: what [`MAX_EVIDENCE_RUNS`] and the lists beside them take, with room to spare.
pub const MAX_EVIDENCE_BYTES: usize = 16 * MIB;
/// Runs of objects in one piece of evidence, of about 100 bytes each; of more there are several pieces.
pub const MAX_EVIDENCE_RUNS: usize = 1 << 16;
/// Findings that evidence names, the first ones; it counts all.
pub const MAX_EVIDENCE_FINDINGS: usize = 500;
/// Longest text of one of them, in bytes: the name of an object, and a sentence about it.
pub const MAX_EVIDENCE_TEXT_BYTES: usize = 1024;
/// Backups of which evidence says since when all their objects are verified: the newest ones.
pub const MAX_EVIDENCE_BACKUPS: usize = 20_000;
/// Earlier evidence that new evidence names: as many as can have been written at the same time.
pub const MAX_EVIDENCE_LINKS: usize = 64;
/// Evidence that is read at once: a few hundred objects, each of which may be long.
pub const EVIDENCE_READERS: usize = 8;
/// Newest evidence that is read by what only shows when something was last verified: a year of daily runs.
pub const MAX_EVIDENCE_SHOWN: usize = 400;

/// Listings that run at once.
pub const LISTERS: usize = 16;
/// Segments of a timeline that one of them lists: 16 pages of S3.
pub const LISTED_PART_SEGMENTS: u64 = 1 << 14;
/// Backups of which one of them lists the packs, at least.
pub const LISTED_PART_BACKUPS: usize = 8;
/// Parts into which the segments of a timeline, or the packs of a cluster, are cut at most, however far apart the first
/// and the last one are.
pub const MAX_LISTED_PARTS: usize = 1024;

/// What the first rolling verification takes as the time since the last one: the pace of a daily timer.
pub const ROLLING_FIRST_SHARE: Duration = Duration::from_secs(24 * 60 * 60);
/// A rolling verification that comes sooner after the last one than this part of the period has no share yet.
pub const ROLLING_LEAST_SHARE: u64 = 2000;
/// Ages that are told apart within a period, to take the oldest first.
pub const ROLLING_AGES: usize = 1024;
/// Periods after which all ages are the same.
pub const MAX_ROLLING_PERIODS: usize = 4;
