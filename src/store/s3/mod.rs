//! The S3 store: objects in a bucket of AWS or of anything that speaks its protocol.
//!
//! Lives here: [`S3Store`], its [settings](S3Settings), the mapping of S3's answers to store errors. May not live here:
//! retries (the [`retry`](super::retry) decorator) and stores without create-if-absent (the [`claims`](super::claims)
//! decorator). Depends on the store contract and `limits`.
//!
//! # What S3 does not say by itself
//! - A 404 proves absence only when it carries S3's own error document with `NoSuchKey`; a proxy's page does not.
//!   `HEAD` has no body and so proves nothing: it is not used.
//! - A listing counts only when it is a whole S3 document that names its bucket and says whether it is complete, with
//!   as many objects as it announces, in order and below the prefix.
//! - A success counts only with an `ETag`: every S3 store sends one, a captive portal does not.
//! - S3 answers 403 for an absent object where the credentials lack `s3:ListBucket`.
//! - In a bucket with versions a delete only hides the object, also one that is locked; a lifecycle rule removes old
//!   versions, or `purge` does.

mod body;
mod bucket;
mod client;
mod codes;
mod credentials;
mod delete;
mod error_documents;
mod errors;
mod features;
mod leftovers;
mod policies;
mod proxy;
mod settings;
mod store;
mod tls;
mod upload;
mod versions;

pub use settings::{Checksums, InvalidSettings, LockMode, ObjectLock, S3Settings, Sse};
pub use store::S3Store;
