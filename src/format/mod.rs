//! The layout of stored objects: bytes ↔ values, no I/O. `docs/FORMAT.md` describes them.
//!
//! Lives here: envelope header, metadata, JSON objects, nodes of the catalog, change sets,
//! extents and manifests of base backups. May not live here: ciphers (`crypto`), streaming
//! (`codec`), object names (`repo`). Depends on `crypto` (for key ids), `pg` (for what nodes say of WAL) and `limits`.

mod aggregate;
pub mod changes;
pub mod descriptor;
pub mod envelope;
pub mod extent;
pub mod manifest;
pub mod node;
