//! Keys, sealed frames, hashes: everything that touches secret bytes.
//!
//! Lives here: key types (never `Debug`, never `Copy`, wiped when dropped), key files, wrapping, the cipher of one
//! frame, and which certificates of servers are believed. May not live here: I/O, and the layout of objects (`format`).
//! Depends on `limits` only. `docs/FORMAT.md` describes the bytes.

mod frame;
mod ids;
mod key_file;
mod keys;
#[cfg(any(feature = "s3", feature = "tls"))]
pub mod server_certificate;

pub use frame::{Domain, Forged, FrameCipher};
pub use ids::{KeyId, RepositoryId};
pub use key_file::{KeyFile, KeyFileError, KnownRepository};
pub use keys::{Argon2id, CACHED_KEY_BYTES, DataKey, DataKeys, WrappedKey, WrappingKey, WrongKey, random_bytes};
