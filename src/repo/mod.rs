//! What a repository is: its descriptor and keys, sealed objects under their names, clusters, WAL files,
//! base backups.
//!
//! Lives here: names of objects, commit order, comparison of what exists with what is pushed, proofs of absence. May not live here:
//! arguments, printing, the local data directory. Depends on `store`, `codec` and below.

pub mod backups;
mod bindings;
pub mod catalog;
mod cluster;
mod descriptor;
mod early_bindings;
mod init;
mod kernel_keyring;
mod keys;
mod known;
mod location;
mod names;
mod objects;
mod open;
mod probe;
mod raw_objects;
mod repository;
mod secret;
mod survey;
mod wal;

pub use catalog::Catalog;
pub use cluster::{Binding, ClusterName, Facts, SystemId};
pub use init::Initialised;
pub use known::names as repository_names;
pub use location::{StoreSettings, StoreUrl};
pub use names::{StoredName, WalObject};
pub use objects::{Content, Stored};
pub use probe::Probed;
pub use repository::Repository;
pub use secret::{KeySource, Secret};
pub use survey::Surveyed;
pub use wal::{Fetched, Kept};
