//! The descriptor of a repository: reading `walvis.json`, and what is wrong with it.

use super::object_name::ObjectName;
use super::raw_objects::RawObjects;
use crate::error::{Error, Kind};
use crate::format::descriptor::{Descriptor, DescriptorError};
use crate::limits::MAX_DESCRIPTOR_BYTES;

/// The descriptor.
///
/// # Errors
/// [`Kind::Config`] where there is no repository; [`Kind::Damaged`]; as the store's.
pub(super) fn read_descriptor(objects: &RawObjects) -> Result<Descriptor, Error> {
    let Some(bytes) = objects.read_at_most(&ObjectName::Descriptor, MAX_DESCRIPTOR_BYTES)? else {
        return Err(Error::new(Kind::Config, format!("there is no repository at {}", objects.location()))
            .hint("check the URL (is the disk mounted?); to make a new repository there run 'walvis init'"));
    };
    Descriptor::parse(&bytes).map_err(|e| descriptor_error(objects, &ObjectName::Descriptor, &e))
}

/// Says which descriptor or key object cannot be read, and what to do.
pub(super) fn descriptor_error(objects: &RawObjects, name: &ObjectName, error: &DescriptorError) -> Error {
    Error::new(Kind::Damaged, format!("{name} in {}: {error}", objects.location())).hint(match error {
        DescriptorError::Newer(_) => "use a newer version of Walvis",
        DescriptorError::Damaged(_) => "restore this object from a copy of the repository",
    })
}
