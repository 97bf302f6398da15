//! Keys, sealed frames, hashes: everything that touches secret bytes.
//!
//! Lives here: key types (never `Debug`, never `Copy`, wiped when dropped), key files, wrapping, and the cipher of one frame. May
//! not live here: I/O, and the layout of objects (`format`). Depends on `limits` only. `docs/FORMAT.md` describes the bytes.

mod frame;
mod key_file;
mod keys;

pub use frame::{Domain, Forged, FrameCipher};
pub use key_file::{KeyFile, KeyFileError, KnownRepository, RepositoryId};
pub use keys::{Argon2id, CACHED_KEY_BYTES, DataKey, KeyId, Keyring, WrappedKey, WrappingKey, WrongKey, random_bytes};
