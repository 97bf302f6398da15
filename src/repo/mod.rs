//! What a repository is: its descriptor and keys, sealed objects under their names, clusters, WAL files,
//! base backups.
//!
//! Lives here: names of objects, commit order, comparison of what exists with what is pushed, proofs of absence. May
//! not live here: arguments, printing, the local data directory. Depends on `store`, `codec` and below.

mod address;
pub mod backups;
mod begun;
mod bindings;
pub mod catalog;
mod cluster;
mod content;
mod descriptor;
mod early_bindings;
mod evidence;
mod good_copies;
mod init;
mod kernel_keyring;
mod keys;
mod known;
mod last_checked;
mod location;
mod lost_manifests;
mod metered;
mod new_id;
mod object_name;
mod object_set;
mod objects;
mod open;
mod opener;
mod pins;
mod prefix;
mod probe;
mod raw_objects;
mod repairs;
mod repository;
mod sealer;
mod secret;
mod stored_name;
mod survey;
mod systems;
mod tombstone_name;
mod tombstones;
mod verbatim;
mod wal;

pub use begun::BegunBackup;
pub use catalog::Catalog;
pub use cluster::{Binding, ClusterName, Facts, SystemId};
pub use content::{Content, Stored};
pub use evidence::{
    CheckedBackup, EvidenceLink, EvidenceProblem, LastRun, Remembered, SavedFinding, Verification, VerificationMode,
};
pub use good_copies::{GoodBytes, GoodContent, NoCopy};
pub use init::Initialised;
pub use known::names as repository_names;
pub use last_checked::{LastChecked, Look, Verified};
pub use location::{StoreSettings, StoreUrl};
pub use lost_manifests::{LostManifest, ProofOfManifest, SeenAmong};
pub use new_id::new_id;
pub use object_name::{NameKind, ObjectName};
pub use object_set::{ObjectSet, Runs};
pub use opener::Opener;
pub use pins::Pin;
pub use prefix::Prefix;
pub use probe::{Probed, Protection};
pub use raw_objects::{ForeignObject, Leftovers, ListedObject, Purged, RawObjects};
pub use repository::Repository;
pub use sealer::Sealer;
pub use secret::{KeySource, Secret};
pub use stored_name::StoredName;
pub use survey::Surveyed;
pub use systems::of_system;
pub use tombstone_name::{EvidenceId, TombstoneId, TombstonePart};
pub use tombstones::{Deletion, ListedTombstone, Removal, Tombstoned};
pub use verbatim::{SeenRecord, Verbatim};
pub use wal::{Fetched, Kept};
