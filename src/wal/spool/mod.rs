//! The spool: what one call leaves to the calls after it. docs/SPOOL.md is its design.
//!
//! Lives here: where the spool is, its records and plans and the checks that they pass before they are believed,
//! outages, the marks of what optional repositories missed, and the start of helper processes. May not live here: what
//! helpers do ([`ahead`](crate::wal::ahead), [`missed`](crate::wal::missed)). Depends on nothing else in
//! [`wal`](crate::wal).
//!
//! Nothing in the spool is needed: what is missing, damaged, of another boot, of other settings or too old counts as
//! not there, and errors of the spool are never errors of a call. Root has no spool, unless everything on the way to it
//! is root's own: what root does by hand in a server's directory, it does at once.

mod directory;
mod fetched;
mod helper;
mod missed;
mod outages;
mod plan;
mod pushed;
mod record;

pub use directory::Spool;
pub use fetched::FetchedFile;
pub use helper::{HELPER_ENVIRONMENT, start_helper};
pub use missed::note_missed;
pub use outages::{Outage, note_failure};
pub use plan::{Held, HelperKind, PlanWriter};
pub use pushed::Pushed;
