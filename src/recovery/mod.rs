//! Where a recovery to a target stops, from which backup it starts, along which timelines and from which repository;
//! and whether everything it needs is there. Touches nothing.
//!
//! May not live here: what becomes of the answer (a report, a restore, a drill). Depends on repositories, the catalog
//! and plain formats.
//!
//! | question | file |
//! |---|---|
//! | Which repository, which system identifier? | [`mod@choose`] |
//! | Which timeline, by which path? | `choice_of_timeline` |
//! | Where does the server stop: the stop LSN of a target? | [`stop`] |
//! | From which base backup? | [`choice_of_backup`] |
//! | Is there an equal stop with fewer locks? | [`mod@fewest_locks`] |
//! | What does replay do on its way, and what does it need? | [`replay`] |
//! | What can be restored at all, and what is nearest? | [`reach`] |
//! | Which WAL files does it need, and are they stored? | `needed_wal` |
//! | What has to stay so that every moment of a window can be restored? | [`mod@promised`] |
//! | What is said of a target that is out of reach? | `out_of_reach` |
//! | Where does the stored WAL end? | [`ends`] |
//! | Through which stretches can recovery run? | [`stretches`] |
//! | When was what it needs last verified? | [`verified`] |
//!
//! [`answer()`] puts them together for one repository. What they look at is a [`mod@log`]: for real ones a
//! [`path_log`].

mod answer;
pub mod choice_of_backup;
mod choice_of_timeline;
pub mod choose;
pub mod ends;
pub mod fewest_locks;
pub mod log;
mod log_part;
mod needed_wal;
mod out_of_reach;
pub mod path_log;
pub mod promised;
pub mod reach;
pub mod replay;
mod request;
mod resolver;
pub mod stop;
pub mod stretches;
pub mod verified;

#[cfg(test)]
mod tests;

pub use answer::answer;
pub use choose::{Answer, choose};
pub use request::ResolveRequest;
