//! Bounds of evidence: what a verification leaves behind, and how much of it is read.

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
