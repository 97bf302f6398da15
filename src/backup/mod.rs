//! Taking a base backup: the list of what a data directory holds, reading and verifying it, comparing it with the
//! backup before, packs and the manifest. `docs/BACKUP.md` has the design.
//!
//! The way of a backup: [`preflight`], [`parent`], [`reading`] ([`proof`]), [`copy_cluster`] ([`file_list`],
//! [`copy_files`], [`file_copier`], [`untouched`], [`second_look`], [`manifest_builder`], [`last_files`], watched by
//! [`session_watch`]), [`wal`], [`finish`].
//!
//! Lives here: what makes a backup out of a running server. May not live here: the order of the steps
//! ([`base_backup`](crate::ops::base_backup)), how packs and manifests are stored ([`backups`](crate::repo::backups)).

pub mod attachments;
pub mod context;
pub mod copy_cluster;
pub mod copy_files;
pub mod copy_jobs;
pub mod file_copier;
pub mod file_list;
pub mod finish;
pub mod kept_paths;
pub mod last_files;
pub mod manifest_builder;
pub mod pages;
pub mod parent;
pub mod preflight;
pub mod progress;
pub mod proof;
pub mod reading;
pub mod second_look;
pub mod session_watch;
pub mod source;
pub mod unrestorable;
pub mod untouched;
pub mod wal;
