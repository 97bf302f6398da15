//! One module per command: request in, report out.
//!
//! Lives here: what a command does, readable top to bottom. May not live here: arguments, printing, exit codes (`cli`).
//! No command uses another: what two of them share lives one layer below.

pub mod base_backup;
pub mod catalog;
pub mod catalog_rebuild;
pub mod check;
pub mod check_policies;
pub mod expire;
pub mod fetch_wal;
pub mod init;
pub mod key_generate;
pub mod list;
pub mod pin;
pub mod pitr_restore;
pub mod push_wal;
pub mod resolve;
pub mod unpin;
pub mod verify;
