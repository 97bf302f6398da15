//! Every bound in one place, by topic, with the relations between them asserted at compile time.
//!
//! A bound is a number that somebody chose: the most or the least of something, a size of a buffer, a time limit, a
//! pause, a number of attempts, an interval. Each has its unit in its name or type, and a line with what it bounds and
//! why. Exceeding a bound is an error, never a truncation that nobody sees.
//!
//! What a file format or PostgreSQL lays down is a fact and no bound: a magic number, the size of a header, the place
//! of a field, the size of a page. Facts stay with the code that reads what they describe, as do numbers that follow
//! from them. A test (`tests/it/tidy/bounds.rs`) finds bounds that are defined elsewhere.
//!
//! This module depends on nothing but the standard library.

mod backups;
mod evidence;
mod host;
mod objects;
mod output;
mod relations;
mod restores;
mod retention;
mod servers;
mod stores;
mod tombstones;
mod units;
mod verification;
mod wal;

pub use backups::*;
pub use evidence::*;
pub use host::*;
pub use objects::*;
pub use output::*;
pub use restores::*;
pub use retention::*;
pub use servers::*;
pub use stores::*;
pub use tombstones::*;
pub use units::*;
pub use verification::*;
pub use wal::*;
