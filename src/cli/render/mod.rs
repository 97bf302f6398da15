//! Reports as text: a file for each file of `report`, by the same name, and what several of them write alike (`units`,
//! `moments`, `verified`).
//!
//! May not live here: how a report is come by, and where its text goes (`print`). Depends on `report` and on the lines
//! of `cli`.

pub(super) mod backup;
pub(super) mod catalog;
pub(super) mod catalog_rebuild;
pub(super) mod check;
pub(super) mod end_recovery;
pub(super) mod expire;
pub(super) mod failure;
pub(super) mod init;
pub(super) mod key;
pub(super) mod list;
mod moments;
pub(super) mod pin;
pub(super) mod policies;
pub(super) mod push;
pub(super) mod resolve;
pub(super) mod restore;
pub(super) mod units;
mod verified;
pub(super) mod verify;
