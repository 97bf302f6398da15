//! Taking a base backup: the list of what a data directory holds, reading and verifying it, comparing it with the
//! backup before, packs and the manifest. `docs/BACKUP.md` has the design.
//!
//! Lives here: what makes a backup out of a running server. May not live here: the order of the steps
//! ([`base_backup`](crate::ops::base_backup)), how packs and manifests are stored ([`backups`](crate::repo::backups)).

pub mod attachments;
pub mod copy;
pub mod file_list;
pub mod manifest_builder;
pub mod pages;
pub mod parent;
pub mod progress;
pub mod source;
pub mod spoiled;
pub mod throttle;
pub mod wal;
pub mod worker;
