//! Bounds of retention: periods and numbers that rules may have, clocks, what a plan reads at once.

use std::time::Duration;

/// Longest period of a rule: 100 years. Longer ones would not fit into the times that PostgreSQL and calendars have.
pub const MAX_PERIOD: Duration = Duration::from_secs(36_525 * 24 * 3600);
/// Most backups, days, weeks, months or years that a rule counts: more than anybody keeps.
pub const MAX_KEPT: i64 = 100_000;
/// How long a tombstone waits before anything that it names is deleted, if the settings do not say it: longer than
/// nearly every backup takes.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(24 * 3600);
/// How far the clock of this host and the store's times may be apart before nothing is deleted: what clocks without
/// synchronization drift in weeks, and far less than any rule is about.
pub const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(5 * 60);
/// How often a plan is made where what was listed cannot be read: another run may be deleting it, and most are done
/// before a second plan is.
pub const PLAN_ATTEMPTS: u32 = 5;
/// Segments whose stored sizes a plan sums up in one number of 8 bytes: 32 kB for a million segments. Where only a part
/// of so many goes, that part is listed once more.
pub const SUMMED_SEGMENTS: u64 = 256;
/// Objects of a listing after which a plan looks whether it has to end, and says how far it is: a page of S3.
pub const LOOK_EVERY_OBJECTS: u64 = 1000;
