//! Making a repository.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::location::StoreSettings;
use super::object_name::ObjectName;
use super::prefix::Prefix;
use super::raw_objects::{RawObjects, content_id};
use super::repository::Repository;
use super::secret::Secret;
use crate::crypto::{Argon2id, DataKey, WrappingKey, random_bytes};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::descriptor::{CreateIfAbsent, Descriptor, KeyObject, RepositoryCipher};
use crate::fsio::Identity;
use crate::limits::MAX_SMALL_OBJECT_BYTES;
use crate::store::Created;

/// What `init` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initialised {
    /// Made it.
    New,
    /// It was there already, with these settings.
    Already,
}

impl Repository {
    /// Makes a repository, or finds that it is there already with these settings. Killed halfway, it leaves nothing
    /// that counts. Which repositories the key names is the caller's business.
    ///
    /// # Errors
    /// [`Kind::Refused`] when a repository with other settings is there.
    pub fn init(settings: &StoreSettings, secret: &Secret, level: i32, deadline: Deadline) -> Result<(Self, Initialised), Error> {
        Self::init_if(settings, secret, level, deadline, Identity::own(), || Ok(()))
    }

    /// As [`init`](Self::init); `may_make` is asked before a new one is made. As root a directory that is missing is
    /// made for `owner`.
    ///
    /// # Errors
    /// As [`init`](Self::init), and that of `may_make`.
    pub fn init_if(
        settings: &StoreSettings,
        secret: &Secret,
        level: i32,
        deadline: Deadline,
        owner: Identity,
        may_make: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(Self, Initialised), Error> {
        settings.prepare(owner)?;
        let plain = RawObjects::new(settings.connect(deadline, CreateIfAbsent::Store)?);
        if plain.read_at_most(&ObjectName::Descriptor, MAX_SMALL_OBJECT_BYTES)?.is_some() {
            return Self::reopen(settings, secret, level, deadline);
        }
        if let Some(known) = settings.known {
            return Err(Error::new(
                Kind::Refused,
                format!("there is no repository at {}, and its settings say id = \"{}\"", settings.location(), known.id),
            )
            .hint("a new one gets an id of its own: take id out of the settings to make one; else check the URL"));
        }
        refuse_orphaned_data(&plain)?;
        may_make()?;
        let create_if_absent = match settings.create_if_absent {
            Some(known) => known,
            None => settings.probe(&plain)?.create_if_absent(),
        };
        let objects = RawObjects::new(settings.connect(deadline, create_if_absent)?);
        let bug = |e: String| Error::new(Kind::Bug, e);
        let repository_id = random_bytes().map_err(bug)?;
        let created_unix_s = jiff::Timestamp::now().as_second();
        let (wrapping, argon2id) = match secret {
            Secret::None => (None, None),
            Secret::Key(file) => (Some(&file.key), None),
            Secret::Passphrase(_) => (None, Some(Argon2id::generate().map_err(bug)?)),
        };
        let derived = match (secret, &argon2id) {
            (Secret::Passphrase(text), Some(argon2id)) => Some(argon2id.derive(text).map_err(bug)?),
            _ => None,
        };
        let wrapping = wrapping.or(derived.as_ref());
        let cipher = if wrapping.is_some() { RepositoryCipher::ChaCha20Poly1305 } else { RepositoryCipher::None };
        let descriptor = Descriptor { repository_id, cipher, create_if_absent, created_unix_s };
        if let Some(wrapping) = wrapping {
            write_first_key(&objects, wrapping, argon2id, &descriptor)?;
        }
        let bytes = descriptor.encode();
        match objects.create(&ObjectName::Descriptor, Bytes::from(bytes.clone()), &content_id(&bytes))? {
            Created::New => Ok((Self::open_any(settings, secret, level, deadline, None)?, Initialised::New)),
            // Another init was faster, or our own answer was lost.
            Created::Exists => Self::reopen(settings, secret, level, deadline),
        }
    }

    fn reopen(settings: &StoreSettings, secret: &Secret, level: i32, deadline: Deadline) -> Result<(Self, Initialised), Error> {
        let opened = Self::open_any(settings, secret, level, deadline, None);
        match opened.and_then(|mut opened| opened.expect_settings(settings.known).map(|()| opened)) {
            Ok(repository) => {
                repository.objects().make_durable(&ObjectName::Descriptor)?;
                Ok((repository, Initialised::Already))
            }
            Err(e) if matches!(e.kind, Kind::Config | Kind::Refused | Kind::Denied) => Err(Error::new(
                Kind::Refused,
                format!("there is a repository at {} already, with other settings: {}", settings.location(), e.what),
            )
            .hint("nothing was changed; use the settings that it was made with, or another URL")),
            Err(e) => Err(e),
        }
    }
}

/// Data without a descriptor: it was deleted, or the data was copied without it. A new one, with a new repository id,
/// would lock the data away for good, because everything is bound to the old id.
fn refuse_orphaned_data(objects: &RawObjects) -> Result<(), Error> {
    let mut orphan = None;
    objects.store().list(&Prefix::Clusters.to_string(), "", &mut |entry| {
        orphan = Some(entry.key);
        ControlFlow::Break(())
    })?;
    let Some(orphan) = orphan else { return Ok(()) };
    let descriptor = ObjectName::Descriptor;
    Err(Error::new(
        Kind::Refused,
        format!("{} holds data ({orphan}), but its {descriptor} is gone: refused, nothing was changed", objects.location()),
    )
    .hint(format!("restore {descriptor} from a copy of the repository, or choose another URL; without it the data below clusters/ cannot be read")))
}

fn write_first_key(
    objects: &RawObjects,
    wrapping: &WrappingKey,
    argon2id: Option<Argon2id>,
    descriptor: &Descriptor,
) -> Result<(), Error> {
    let bug = |e: String| Error::new(Kind::Bug, e);
    let data_key = DataKey::generate().map_err(bug)?;
    let (key_id, generation) = (data_key.id(), 1);
    let object = KeyObject {
        repository_id: descriptor.repository_id,
        key_id,
        generation,
        wrapping_key_id: wrapping.id(),
        argon2id,
        wrapped: wrapping.wrap(&data_key, &KeyObject::associated(descriptor, key_id, generation)).map_err(bug)?,
        created_unix_s: descriptor.created_unix_s,
    };
    let bytes = object.encode();
    let name = ObjectName::DataKey { key_id, wrapping_key_id: wrapping.id() };
    match objects.create(&name, Bytes::from(bytes.clone()), &content_id(&bytes))? {
        Created::New => Ok(()),
        // A random name: only our own create with a lost answer can have made it. Retry has no other way to say so.
        Created::Exists => objects.make_durable(&name),
    }
}
