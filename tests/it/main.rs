//! The one integration-test binary: it links the whole crate once. Each module tests one subject; `support` holds the harness.

mod support;

mod conformance;
mod recovery;
mod scan;
mod store_faults;
mod store_file;
mod store_s3;
