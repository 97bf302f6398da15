//! WAL files between a server and a repository.
//!
//! Lives here: what commands on WAL files are made of; [`ops`](crate::ops) has the order of their steps. May not live
//! here: how a file is stored ([`repo`](crate::repo)), what is in it ([`scan`](crate::pg::scan)). docs/SPOOL.md and
//! docs/STANDBY.md have the designs.
//!
//! | what | where |
//! |---|---|
//! | a file on this host, checked and read before it is sent | [`inspect`](mod@inspect) |
//! | an inspected file into one repository | [`deliver`](mod@deliver) |
//! | inspected files into all repositories | [`deliver_to_all`](mod@deliver_to_all) |
//! | a file from one repository to this host, and from the first that has it | [`download`](mod@download), [`ask`] |
//! | the server that asks, and how long it may be kept waiting | [`restore_call`] |
//! | what one call leaves to the calls after it | [`spool`] |
//! | helper processes that work ahead of the calls | [`ahead`] |
//! | what optional repositories missed | [`missed`] |
//! | histories that no archiver sends | [`histories`] |
//! | whether stored WAL is the server's | [`compare`](mod@compare) |

pub mod ahead;
pub mod archive_status;
pub mod ask;
pub mod compare;
pub mod deliver;
pub mod deliver_to_all;
pub mod destination;
pub mod download;
pub mod histories;
pub mod inspect;
pub mod missed;
pub mod restore_call;
pub mod spool;
