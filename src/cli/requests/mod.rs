//! From raw arguments and settings to requests: what a command is asked for, checked as far as it can be without asking
//! the server, the store or the disk.
//!
//! Lives here: one file for each command whose request is more than its arguments, and the target that several share.

pub(super) mod base_backup;
pub(super) mod catalog;
pub(super) mod expire;
pub(super) mod pin;
pub(super) mod restore;
pub(super) mod target;
pub(super) mod verify;
