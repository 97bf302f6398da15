//! Putting a base backup in place, and having a server recover from it.
//!
//! Lives here: what may be taken over, whose it will be, the files, the settings, the start of the server. May not live here: the order of
//! the steps ([`pitr_restore`](crate::ops::pitr_restore)), where recovery stops ([`recovery`](crate::recovery)).

pub mod attachments;
pub mod environment;
pub mod extents;
pub mod files;
pub mod job;
pub mod locks;
pub mod owner;
pub mod place;
pub mod plan;
pub mod room;
pub mod running;
pub mod settle;
pub mod start;
pub mod sweep;
pub mod tablespaces;
pub mod unarchived;
