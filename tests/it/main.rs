//! The one integration-test binary: it links the whole crate once. Each module tests one subject; `support` holds the
//! harness.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    unreachable_pub,
    missing_docs
)]

mod support;
/// What the WAL writer of the unit tests calls `crate::pg`.
use walvis::pg;

mod ahead_crash;
mod ahead_failures;
mod ahead_fetch;
mod ahead_postgres;
mod ahead_push;
mod ahead_sleep;
mod backup;
mod backup_index;
mod backup_store;
mod catalog_store;
mod changed_pages;
mod changes_memory;
mod check;
mod conformance;
mod crash;
mod damage;
mod damages;
mod deleting;
mod documents;
mod exit_guard;
mod fetch;
mod golden;
mod golden_backup;
mod golden_evidence;
mod golden_lists;
mod golden_repository;
mod golden_retention;
mod hands;
mod hostile;
mod json;
mod memory;
mod object_names;
mod outage;
mod patience;
mod pins;
mod pitr;
mod promotions;
mod push;
mod recovery;
mod repairs;
mod replay;
mod resolve;
mod resolve_choice;
mod resolve_clock;
mod resolve_long;
mod resolve_random;
mod resolve_reach;
mod resolve_stores;
mod resolve_systems;
mod restore;
mod rolling;
mod root;
mod scan;
mod secrets;
mod server_tls;
mod settings_reference;
mod setup;
mod store_faults;
mod store_file;
mod store_s3;
mod terminals;
mod threats;
mod tidy;
mod verify;
mod years;
