//! A server that this program starts in a data directory: start, wait, ask, stop, and read its log.
//!
//! Lives here: what holds for any such server. May not live here: what it is started for, and when it has come far
//! enough; its caller decides that ([`Seen`]). It knows nothing of restores.

mod environment;
mod locks;
mod log;
mod process;
mod state;
mod user;

pub use environment::{Environment, Passing, is_read_by_a_server};
pub use locks::LockedRelation;
pub use process::{Judge, Seen, ServerProcess, StartRequest};
pub use state::{RecoveryState, recovery_end};
