//! What an object's seal is bound to: its repository, kind and name. A repair is bound to the kind and name of the
//! object that it is a good copy of, so it can stand in for that one and for no other.

use super::object_name::ObjectName;
use crate::codec::Address;
use crate::error::{Error, Kind};
use crate::format::envelope::ObjectKind;
use crate::store::Key;

/// Kind and name that a seal is bound to.
pub(super) struct Bound {
    kind: ObjectKind,
    key: Key,
}

impl Bound {
    /// What the seal of the object of this name is bound to.
    ///
    /// # Errors
    /// [`Kind::Bug`]: objects of this name are not sealed.
    pub(super) fn of(name: &ObjectName) -> Result<Self, Error> {
        let object = name.repaired().unwrap_or(name);
        match object.sealed_kind() {
            Some(kind) => Ok(Self { kind, key: object.key()? }),
            None => Err(Error::new(Kind::Bug, format!("{name} is the name of an object that is not sealed"))),
        }
    }

    /// The address in a repository.
    pub(super) fn address<'a>(&'a self, repository_id: &'a [u8; 16]) -> Address<'a> {
        Address { repository_id, kind: self.kind, name: self.key.as_str() }
    }
}
