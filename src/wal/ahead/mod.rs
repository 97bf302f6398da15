//! Working ahead: pushing what the server will offer next, fetching what recovery will ask for next. docs/SPOOL.md is
//! the design.
//!
//! Lives here: the two helper processes ([`push_helper`], [`fetch_helper`]) and the side of the calls, which take what
//! a helper left and start the next one ([`pushed`], [`prefetched`]). May not live here: what is in the spool
//! ([`spool`](crate::wal::spool)), and how a file is delivered or downloaded.

pub mod fetch_helper;
mod looks;
pub mod prefetched;
pub mod push_helper;
pub mod pushed;
mod workers;
