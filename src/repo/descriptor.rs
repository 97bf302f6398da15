//! The descriptor of a repository: reading `walvis.json`, and what is wrong with it.

use super::names::{DESCRIPTOR, key};
use super::raw_objects::read_at_most;
use crate::error::{Error, Kind};
use crate::format::descriptor::{Descriptor, DescriptorError};
use crate::limits::MAX_DESCRIPTOR_BYTES;
use crate::store::Store;

/// The descriptor.
///
/// # Errors
/// [`Kind::Config`] where there is no repository; [`Kind::Damaged`]; as the store's.
pub(super) fn read_descriptor(store: &dyn Store) -> Result<Descriptor, Error> {
    let Some(bytes) = read_at_most(store, &key(DESCRIPTOR.to_owned())?, MAX_DESCRIPTOR_BYTES)? else {
        return Err(Error::new(Kind::Config, format!("there is no repository at {}", store.location()))
            .hint("check the URL (is the disk mounted?); to make a new repository there run 'walvis init'"));
    };
    Descriptor::parse(&bytes).map_err(|e| descriptor_error(store, DESCRIPTOR, &e))
}

/// Says which descriptor or key object cannot be read, and what to do.
pub(super) fn descriptor_error(store: &dyn Store, name: &str, error: &DescriptorError) -> Error {
    Error::new(Kind::Damaged, format!("{name} in {}: {error}", store.location())).hint(match error {
        DescriptorError::Newer(_) => "use a newer version of Walvis",
        DescriptorError::Damaged(_) => "restore this object from a copy of the repository",
    })
}
