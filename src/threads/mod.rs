//! Threads: the only ways in which this program does several things at once.
//!
//! | what is needed | function |
//! |---|---|
//! | something that may hang is given up after a while | [`within`], [`Detached`] |
//! | something goes on for as long as the process does | [`background()`] |
//! | one thing is done beside another | [`beside()`] |
//! | the same is done for each of a few things | [`at_once()`] |
//! | several threads act at the same moment | [`at_the_same_moment`] |
//! | jobs are handed to workers, in any order | [`with_workers`] |
//! | jobs are handed to workers, and their results are taken in order | [`in_order()`] |
//! | threads follow a state that this one steers | [`steered()`] |
//!
//! What they have in common: a thread that panics is an error ([`Kind::Bug`](crate::error::Kind::Bug)), never a hang.
//! With [`with_workers`] and [`in_order()`] the first error stops the others; each of the others says what an error
//! does. Where no thread can be started that is an error, or the work is done on the calling thread;
//! [`at_the_same_moment`] alone goes on with fewer.
//!
//! May not live here: anything that knows what the threads do. Depends on `error` alone.

mod at_once;
mod background;
mod beside;
mod detached;
mod in_order;
mod jobs;
mod same_moment;
mod start;
mod steered;
mod stop;

pub use self::at_once::at_once;
pub use self::background::background;
pub use self::beside::beside;
pub use self::detached::{Detached, within};
pub use self::in_order::{Feed, Order, in_order};
pub use self::jobs::{Jobs, Stopped, Worker, with_workers};
pub use self::same_moment::at_the_same_moment;
pub use self::start::no_thread;
pub use self::steered::steered;
pub use self::stop::Stop;
