//! Putting a base backup in place, and having a server recover from it.
//!
//! Lives here: what may be taken over, whose it will be, the files, the settings, the start of the server; and the
//! order in which a directory is filled, which makes an interruption harmless ([`Job::restore`](job::Job::restore)).
//! May not live here: what comes before and after that ([`pitr_restore`](crate::ops::pitr_restore)), where recovery
//! stops ([`recovery`](crate::recovery)).

pub mod attachments;
pub mod environment;
pub mod extents;
pub mod extraneous;
pub mod files;
pub mod job;
pub mod owner;
pub mod plan;
pub mod recovery_settings;
pub mod request;
pub mod room;
pub mod start;
pub mod tablespaces;
pub mod target_directory;
pub mod unarchived;
mod zeros;
