//! What a repository is: its descriptor and keys, sealed objects under their names, clusters, WAL files,
//! base backups.
//!
//! Lives here: names of objects, commit order, comparison of what exists with what is pushed, proofs of absence. May not live here:
//! arguments, printing, the local data directory. Depends on `store`, `codec` and below.

pub mod backups;
pub mod catalog;
mod cluster;
mod kernel_keyring;
mod keys;
mod known;
mod names;
mod objects;
mod open;
mod probe;
mod secret;
mod survey;
mod wal;

pub use catalog::Catalog;
pub use cluster::{Binding, ClusterName, Facts};
pub use known::names as repository_names;
pub use names::{StoredName, SystemId, WalObject};
pub use objects::{Content, Stored};
pub use open::{Initialised, Repository, StoreSettings, StoreUrl};
pub use probe::Probed;
pub use secret::{KeySource, Secret};
pub use survey::Surveyed;
pub use wal::{Fetched, Kept};
