//! What commands answer with: one model for text and JSON, and one spelling for each field over all commands.
//!
//! Lives here: plain types that serialize, one file for each command or group of commands, and what they share. May not
//! live here: how a report is come by, and how it is printed. `docs/JSON.md` has the vocabulary.

pub mod backup;
pub mod catalog;
pub mod catalog_rebuild;
pub mod check;
pub mod end_recovery;
pub mod expire;
pub mod failure;
pub mod fetch;
pub mod init;
pub mod key;
pub mod list;
pub mod pin;
pub mod policies;
pub mod push;
pub mod resolve;
pub mod restore;
pub mod segments;
pub mod setting;
pub mod time;
pub mod transaction;
pub mod verified;
pub mod verify;
