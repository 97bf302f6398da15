//! What an object's seal is bound to: its repository, kind and name.

use super::object_name::ObjectName;
use crate::codec::Address;
use crate::error::{Error, Kind};
use crate::store::Key;

/// The address of a sealed object. `key` is that of `name`.
///
/// # Errors
/// [`Kind::Bug`]: objects of this name are not sealed.
pub(super) fn address<'a>(repository_id: &'a [u8; 16], name: &ObjectName, key: &'a Key) -> Result<Address<'a>, Error> {
    match name.sealed_kind() {
        Some(kind) => Ok(Address { repository_id, kind, name: key.as_str() }),
        None => Err(Error::new(Kind::Bug, format!("{name} is the name of an object that is not sealed"))),
    }
}
