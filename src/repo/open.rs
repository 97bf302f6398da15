//! Opening a repository: descriptor, data keys, and whether it is the one that is meant.

use std::sync::{Arc, PoisonError};

use super::cluster::ClusterName;
use super::descriptor::{descriptor_error, read_descriptor};
use super::early_bindings::EarlyBindings;
use super::keys::{Found, find_keys, open_keys};
use super::location::StoreSettings;
use super::object_name::ObjectName;
use super::raw_objects::RawObjects;
use super::repository::Repository;
use super::secret::Secret;
use crate::crypto::{DataKeys, RepositoryId};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::descriptor::{CreateIfAbsent, Descriptor, RepositoryCipher};
use crate::limits::MAX_SMALL_OBJECT_BYTES;
use crate::store::Store;
use crate::threads::beside;

impl Repository {
    /// Opens a repository: reads its descriptor and the data keys that `secret` opens.
    ///
    /// # Errors
    /// [`Kind::Config`]: there is no repository, or a key for an unencrypted one, or none for an encrypted one;
    /// [`Kind::Denied`]: the wrong key; [`Kind::Refused`]: it is another one than settings or key name;
    /// [`Kind::Damaged`]; as the store's.
    pub fn open(settings: &StoreSettings, secret: &Secret, level: i32, deadline: Deadline) -> Result<Self, Error> {
        Self::open_for(settings, secret, level, deadline, None)
    }

    /// As [`open`](Self::open), for work on one cluster: where requests take their time, its bindings are read at the
    /// same time as descriptor and keys.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_for(
        settings: &StoreSettings,
        secret: &Secret,
        level: i32,
        deadline: Deadline,
        cluster: Option<&ClusterName>,
    ) -> Result<Self, Error> {
        let mut repository = Self::open_any(settings, secret, level, deadline, cluster)?;
        repository.expect_settings(settings.known)?;
        repository.expect_key(secret)?;
        Ok(repository)
    }

    /// Opens whatever the secret opens.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for another repository than the one that is meant.
    pub(super) fn open_any(
        settings: &StoreSettings,
        secret: &Secret,
        level: i32,
        deadline: Deadline,
        cluster: Option<&ClusterName>,
    ) -> Result<Self, Error> {
        let objects = RawObjects::new(settings.connect(deadline, settings.create_if_absent.unwrap_or(CreateIfAbsent::Store))?);
        let (descriptor, found, bindings) = if settings.is_remote() {
            let read = || read_descriptor(&objects);
            let (found, (bindings, descriptor)) = beside(
                || find_keys(&objects, secret),
                || match cluster {
                    Some(cluster) => {
                        let (bindings, descriptor) = beside(|| EarlyBindings::read(&objects, cluster), read);
                        (bindings.ok(), descriptor)
                    }
                    None => (None, read()),
                },
            );
            // What no thread could be had for is read later.
            (descriptor, found.ok(), bindings)
        } else {
            (read_descriptor(&objects), None, None)
        };
        let descriptor = descriptor?;
        if settings.create_if_absent.is_none() && descriptor.create_if_absent == CreateIfAbsent::Claims {
            let objects = RawObjects::new(settings.connect(deadline, CreateIfAbsent::Claims)?);
            return Self::with_descriptor(objects, descriptor, secret, level, None);
        }
        let repository = Self::with_descriptor(objects, descriptor, secret, level, found)?;
        // What could not be read will be read, and its error told, when it is needed.
        *repository.early.lock().unwrap_or_else(PoisonError::into_inner) = bindings.and_then(Result::ok);
        Ok(repository)
    }

    /// Opens the repository in a store that is connected already, decorated as the caller likes.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn over(store: Arc<dyn Store>, secret: &Secret, level: i32) -> Result<Self, Error> {
        let objects = RawObjects::new(store);
        let descriptor = read_descriptor(&objects)?;
        let mut repository = Self::with_descriptor(objects, descriptor, secret, level, None)?;
        repository.expect_key(secret)?;
        Ok(repository)
    }

    /// The id of what is there, by its own account; `None` when nothing is.
    ///
    /// # Errors
    /// As the store's; [`Kind::Damaged`].
    pub fn id_at(settings: &StoreSettings, deadline: Deadline) -> Result<Option<RepositoryId>, Error> {
        let objects = RawObjects::new(settings.connect(deadline, CreateIfAbsent::Store)?);
        let Some(bytes) = objects.read_at_most(&ObjectName::Descriptor, MAX_SMALL_OBJECT_BYTES)? else { return Ok(None) };
        let descriptor = Descriptor::parse(&bytes).map_err(|e| descriptor_error(&objects, &ObjectName::Descriptor, &e))?;
        Ok(Some(RepositoryId(descriptor.repository_id)))
    }

    fn with_descriptor(
        objects: RawObjects,
        descriptor: Descriptor,
        secret: &Secret,
        level: i32,
        found: Option<Result<Found, Error>>,
    ) -> Result<Self, Error> {
        let (keys, generation) = match (descriptor.cipher, secret) {
            (RepositoryCipher::None, Secret::None) => (DataKeys::Unencrypted, 1),
            (RepositoryCipher::None, _) => {
                return Err(Error::new(
                    Kind::Refused,
                    format!("{} is not encrypted, but a key is configured: refused", objects.location()),
                )
                .hint("if it is meant to be unencrypted, remove the key from its settings; if not, somebody put another repository there"));
            }
            (RepositoryCipher::ChaCha20Poly1305, Secret::None) => {
                return Err(Error::new(Kind::Config, format!("{} is encrypted, and no key is configured", objects.location()))
                    .hint(
                        "name its key: --key-file, WALVIS_KEY_FILE, or key_file, key_command or passphrase_file in the settings",
                    ));
            }
            (RepositoryCipher::ChaCha20Poly1305, secret) => {
                let found = found.unwrap_or_else(|| find_keys(&objects, secret))?;
                open_keys(&objects, &descriptor, secret, found)?
            }
        };
        Ok(Self::new(objects, descriptor, keys, generation, level))
    }
}
