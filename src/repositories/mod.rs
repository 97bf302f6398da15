//! The configured repositories: opening them, and choosing among them.
//!
//! Lives here: the one policy by which commands open repositories ([`mod@choose`]), and what protects what is in them
//! ([`protection`]). May not live here: what is asked of
//! them, and which answer counts. Depends on the settings and on what a repository is.

pub mod choose;
mod open;
pub mod protection;

pub use choose::{Hear, Opened, ask_in_order, every, first_to_answer, for_backups, none_configured};
pub use open::{UNENCRYPTED, open, open_for, refuse_writable_by_everybody};
