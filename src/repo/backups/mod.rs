//! Base backups in a repository: packs of extents, and manifests. `docs/BACKUP.md` has the design.
//!
//! Lives here: storing and reading packs and manifests, the list of backups. May not live here: what a data directory
//! is, which extents are stored anew ([`backup`](crate::backup)). May depend on the rest of `repo` and on what is below
//! it.

mod extent_reader;
mod index;
mod item_lists;
mod manifests;
mod pack_reader;
mod pack_writer;
mod references;
mod scratch;
mod voids;

pub use extent_reader::{ExtentRange, ExtentReader, ReadBuffers, TakeExtents, WantedExtent};
pub use index::{KnownBackup, index_contradicts};
pub use manifests::{Listed, ManifestPart, OnItem, OnPart};
pub use pack_reader::PackReader;
pub use pack_writer::{PackTarget, PackWriter, Packed, Writers, with_packs};
pub use references::{BackupReferences, BackupWal, PackUsers};
pub use scratch::{FinishedManifest, ListPlaces, ScratchItems, ScratchManifest, ScratchWriter, WrittenManifest};
pub use voids::Given;
