//! The layout of stored objects: bytes ↔ values, no I/O. `docs/FORMAT.md` describes them.
//!
//! Lives here: envelope header, metadata, JSON objects. May not live here: ciphers (`crypto`), streaming (`codec`), object names (`repo`).
//! Depends on `crypto` (for key ids) and `limits`.

pub mod descriptor;
pub mod envelope;
