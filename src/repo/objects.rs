//! Sealed objects of a repository: put once, compared when the name is taken, read back.

use std::io::Write;

use super::content::{Content, Stored};
use super::object_name::ObjectName;
use super::repository::Repository;
use crate::error::Error;
use crate::format::envelope::Metadata;
use crate::store::Created;

impl Repository {
    /// Stores a plaintext under a name, once. On success the repository holds the whole object, durably.
    ///
    /// # Errors
    /// [`Kind::Conflict`](crate::error::Kind::Conflict) when other content has the name;
    /// [`Kind::Damaged`](crate::error::Kind::Damaged) when what has the name cannot be authenticated; as the store's
    /// otherwise. Nothing is changed then, except that the object may have been stored and the answer lost: call again.
    pub fn put(&self, name: &ObjectName, content: &Content<'_>) -> Result<Stored, Error> {
        match self.sealer().create(name, content)? {
            Created::New => Ok(Stored::New),
            Created::Exists => self.opener().compare(name, content.digest),
        }
    }

    /// Writes an object's plaintext to `sink`; `None` when the store says that it does not exist. What the sink got is
    /// genuine only if the answer is `Ok(Some(…))`.
    ///
    /// # Errors
    /// Damaged, denied, unreachable; [`Kind::Config`](crate::error::Kind::Config) when the sink fails.
    pub fn get(&self, name: &ObjectName, sink: &mut dyn Write) -> Result<Option<Metadata>, Error> {
        self.opener().get(name, sink)
    }
}
