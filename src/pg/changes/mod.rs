//! Which parts of which relations the log changes: what a backup has to read again.
//!
//! Lives here: [`Extents`], [`ChangeSet`], and [`Collector`], which makes one of what a scan finds. May not live here:
//! the bytes of a change set (`format::changes`), where it is stored (`repo::catalog`). `docs/CHANGES.md` has the
//! design, and says for each kind of record why nothing is missed.
//!
//! Everything here errs to one side: what is not known counts as changed. A set may say too much, never too little.

mod collect;
mod extents;
mod joined;
mod set;

pub use collect::Collector;
pub use extents::Extents;
pub use joined::{Incomplete, Joined};
pub use set::{ChangeSet, Everything, Why};
