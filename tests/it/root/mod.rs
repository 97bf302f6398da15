//! Commands as root, against another user of the host who has prepared something for them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

mod backup;
mod commands;
mod races;
mod restore;
mod settings;
