//! Making and opening a repository.

use std::io::Read;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

use bytes::Bytes;

use super::cluster::{Binding, ClusterName, EarlyBindings};
use super::keys::{Found, find_keys, open_keys};
use super::names::{CLUSTERS_PREFIX, DESCRIPTOR, KEYS_PREFIX, key};
use super::probe::{self, Probed};
use super::secret::Secret;
use crate::crypto::{Argon2id, DataKey, DataKeys, KnownRepository, RepositoryId, WrappingKey, random_bytes};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::descriptor::{CreateIfAbsent, Descriptor, DescriptorError, KeyObject, RepositoryCipher};
use crate::fsio::{Identity, Problem, Rooted};
use crate::limits::{MAX_DESCRIPTOR_BYTES, MAX_SMALL_OBJECT_BYTES};
#[cfg(feature = "s3")]
use crate::store::claims::Claims;
use crate::store::file::FileStore;
use crate::store::health::Health;
use crate::store::retry::{Policy, Retry};
#[cfg(feature = "s3")]
use crate::store::s3::{S3Settings, S3Store};
use crate::store::{ContentId, Created, ErrorKind, Key, ReadRange, Store, StoreError};

/// Where a repository is, checked but not yet looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A directory.
    File(PathBuf),
    /// A bucket and prefix.
    #[cfg(feature = "s3")]
    S3(Box<S3Settings>),
}

/// Where a repository is, and what is known better than its descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// The place.
    pub url: StoreUrl,
    /// Overrides what `init` found out about the store.
    pub create_if_absent: Option<CreateIfAbsent>,
    /// Which repository has to be there, and no other.
    pub known: Option<KnownRepository>,
}

impl StoreSettings {
    /// The URL, for messages.
    pub fn location(&self) -> String {
        match &self.url {
            StoreUrl::File(path) => format!("file://{}", path.display()),
            #[cfg(feature = "s3")]
            StoreUrl::S3(settings) => settings.url(),
        }
    }

    /// Whether it is a directory of this host.
    pub fn is_local(&self) -> bool {
        matches!(self.url, StoreUrl::File(_))
    }

    /// What this process knows of whether it answers.
    pub fn health(&self) -> Arc<Health> {
        Health::of(&format!("{:?}", self.url))
    }

    /// The store, with retries, and with claims where it does not refuse to overwrite. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Kind::Config`]: no such directory, an unusable setting.
    #[cfg_attr(not(feature = "s3"), expect(unused_variables, reason = "a file system refuses by itself"))]
    pub fn connect(&self, deadline: Deadline, create: CreateIfAbsent) -> Result<Arc<dyn Store>, Error> {
        let health = self.health();
        let retry =
            |store| Arc::new(Retry::new(store, Policy::default(), deadline).watched_by(Arc::clone(&health))) as Arc<dyn Store>;
        match &self.url {
            // A file system refuses by itself.
            StoreUrl::File(path) => Ok(retry(Arc::new(FileStore::open(path)?))),
            #[cfg(feature = "s3")]
            StoreUrl::S3(settings) => {
                let settings = S3Settings { conditional: create == CreateIfAbsent::Store, ..(**settings).clone() };
                let store =
                    S3Store::open(settings, deadline).map_err(|e| Error { hint: e.hint, ..Error::new(Kind::Config, e.what) })?;
                let store = retry(Arc::new(store));
                Ok(match create {
                    CreateIfAbsent::Store => store,
                    CreateIfAbsent::Claims => Arc::new(Claims::new(store, Policy::default(), deadline)),
                })
            }
        }
    }

    /// Whether a request takes so long that independent ones are better sent at once.
    fn is_remote(&self) -> bool {
        match &self.url {
            StoreUrl::File(_) => false,
            #[cfg(feature = "s3")]
            StoreUrl::S3(_) => true,
        }
    }

    /// Finds out, by trying, whether the store refuses to overwrite, through a connection of [`CreateIfAbsent::Store`].
    fn probe(&self, plain: &dyn Store) -> Result<Probed, Error> {
        let probed = probe::probe(plain, self.is_remote())?;
        if let Some(doubt) = &probed.doubt {
            tracing::warn!(location = plain.location(), "the store does not refuse to overwrite: {doubt}");
        }
        Ok(probed)
    }

    /// Finds out, by trying, whether the store refuses to overwrite, and whether the credentials can delete.
    ///
    /// # Errors
    /// As the store's.
    pub fn measure(&self, deadline: Deadline) -> Result<Probed, Error> {
        self.probe(&*self.connect(deadline, CreateIfAbsent::Store)?)
    }

    /// As root, whose the directory of a `file://` repository is; `None` where there is none.
    ///
    /// # Errors
    /// [`Kind::Refused`] where it is not clear; [`Kind::Config`] where it cannot be told.
    pub fn owner(&self) -> Result<Option<Identity>, Error> {
        let path = match &self.url {
            StoreUrl::File(path) => path,
            #[cfg(feature = "s3")]
            StoreUrl::S3(_) => return Ok(None),
        };
        match Rooted::open(path) {
            Ok(rooted) => Ok(Some(rooted.identity())),
            Err(e) if e.problem == Problem::Absent => Ok(None),
            Err(e) => {
                let kind = if e.problem == Problem::Unsafe { Kind::Refused } else { Kind::Config };
                let what = e.to_string();
                Err(Error { hint: e.hint, ..Error::new(kind, what) })
            }
        }
    }

    /// Makes the directory of a `file://` repository; a bucket has to exist.
    fn prepare(&self, owner: Identity) -> Result<(), Error> {
        match &self.url {
            StoreUrl::File(path) => Ok(FileStore::create_root_for(path, owner).map(drop)?),
            #[cfg(feature = "s3")]
            StoreUrl::S3(_) => Ok(()),
        }
    }
}

/// An opened repository: its store, identity and keys.
pub struct Repository {
    store: Arc<dyn Store>,
    descriptor: Descriptor,
    keys: DataKeys,
    /// Of the newest data key.
    generation: u64,
    level: i32,
    /// Whether settings or key name it.
    pub(super) named: bool,
    pub(super) early: Mutex<Option<EarlyBindings>>,
    pub(super) bound: Mutex<Option<(ClusterName, Binding)>>,
}

/// What `init` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initialised {
    /// Made it.
    New,
    /// It was there already, with these settings.
    Already,
}

impl Repository {
    /// Opens a repository: reads its descriptor and the data keys that `secret` opens.
    ///
    /// # Errors
    /// [`Kind::Config`]: there is no repository, or a key for an unencrypted one, or none for an encrypted one; [`Kind::Denied`]: the
    /// wrong key; [`Kind::Refused`]: it is another one than settings or key name; [`Kind::Damaged`]; as the store's.
    pub fn open(settings: &StoreSettings, secret: &Secret, level: i32, deadline: Deadline) -> Result<Self, Error> {
        Self::open_for(settings, secret, level, deadline, None)
    }

    /// As [`open`](Self::open), for work on one cluster: where requests take their time, its bindings are read at the same time as
    /// descriptor and keys.
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
    fn open_any(
        settings: &StoreSettings,
        secret: &Secret,
        level: i32,
        deadline: Deadline,
        cluster: Option<&ClusterName>,
    ) -> Result<Self, Error> {
        let store = settings.connect(deadline, settings.create_if_absent.unwrap_or(CreateIfAbsent::Store))?;
        let (descriptor, found, bindings) = if settings.is_remote() {
            std::thread::scope(|scope| {
                let keys = beside(scope, || find_keys(&*store, secret));
                let bindings = cluster.map(|cluster| beside(scope, || EarlyBindings::read(&*store, cluster)));
                let descriptor = read_descriptor(&*store);
                (descriptor, keys.and_then(joined), bindings.flatten().and_then(joined))
            })
        } else {
            (read_descriptor(&*store), None, None)
        };
        let descriptor = descriptor?;
        if settings.create_if_absent.is_none() && descriptor.create_if_absent == CreateIfAbsent::Claims {
            let store = settings.connect(deadline, CreateIfAbsent::Claims)?;
            return Self::with_descriptor(store, descriptor, secret, level, None);
        }
        let repository = Self::with_descriptor(store, descriptor, secret, level, found)?;
        // What could not be read will be read, and its error told, when it is needed.
        *repository.early.lock().unwrap_or_else(PoisonError::into_inner) = bindings.and_then(Result::ok);
        Ok(repository)
    }

    /// Opens the repository in a store that is connected already, decorated as the caller likes.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn over(store: Arc<dyn Store>, secret: &Secret, level: i32) -> Result<Self, Error> {
        let descriptor = read_descriptor(&*store)?;
        let mut repository = Self::with_descriptor(store, descriptor, secret, level, None)?;
        repository.expect_key(secret)?;
        Ok(repository)
    }

    /// The id of what is there, by its own account; `None` when nothing is.
    ///
    /// # Errors
    /// As the store's; [`Kind::Damaged`].
    pub fn id_at(settings: &StoreSettings, deadline: Deadline) -> Result<Option<RepositoryId>, Error> {
        let store = settings.connect(deadline, CreateIfAbsent::Store)?;
        let Some(bytes) = read_whole(&*store, &key(DESCRIPTOR.to_owned())?)? else { return Ok(None) };
        let descriptor = Descriptor::parse(&bytes).map_err(|e| descriptor_error(&*store, DESCRIPTOR, &e))?;
        Ok(Some(RepositoryId(descriptor.repository_id)))
    }

    fn with_descriptor(
        store: Arc<dyn Store>,
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
                    format!("{} is not encrypted, but a key is configured: refused", store.location()),
                )
                .hint("if it is meant to be unencrypted, remove the key from its settings; if not, somebody put another repository there"));
            }
            (RepositoryCipher::ChaCha20Poly1305, Secret::None) => {
                return Err(Error::new(Kind::Config, format!("{} is encrypted, and no key is configured", store.location()))
                    .hint(
                        "name its key: --key-file, WALVIS_KEY_FILE, or key_file, key_command or passphrase_file in the settings",
                    ));
            }
            (RepositoryCipher::ChaCha20Poly1305, secret) => {
                let found = found.unwrap_or_else(|| find_keys(&*store, secret))?;
                open_keys(&*store, &descriptor, secret, found)?
            }
        };
        Ok(Self { store, descriptor, keys, generation, level, named: false, early: Mutex::default(), bound: Mutex::default() })
    }

    /// Makes a repository, or finds that it is there already with these settings. Killed halfway, it leaves nothing that counts. Which
    /// repositories the key names is the caller's business.
    ///
    /// # Errors
    /// [`Kind::Refused`] when a repository with other settings is there.
    pub fn init(settings: &StoreSettings, secret: &Secret, level: i32, deadline: Deadline) -> Result<(Self, Initialised), Error> {
        Self::init_if(settings, secret, level, deadline, Identity::own(), || Ok(()))
    }

    /// As [`init`](Self::init); `may_make` is asked before a new one is made. As root a directory that is missing is made for `owner`.
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
        let plain = settings.connect(deadline, CreateIfAbsent::Store)?;
        let name = key(DESCRIPTOR.to_owned())?;
        if read_whole(&*plain, &name)?.is_some() {
            return Self::reopen(settings, secret, level, deadline);
        }
        if let Some(known) = settings.known {
            return Err(Error::new(
                Kind::Refused,
                format!("there is no repository at {}, and its settings say id = \"{}\"", settings.location(), known.id),
            )
            .hint("a new one gets an id of its own: take id out of the settings to make one; else check the URL"));
        }
        refuse_orphaned_data(&*plain)?;
        may_make()?;
        let create_if_absent = match settings.create_if_absent {
            Some(known) => known,
            None => settings.probe(&*plain)?.create_if_absent(),
        };
        let store = settings.connect(deadline, create_if_absent)?;
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
            write_first_key(&*store, wrapping, argon2id, &descriptor)?;
        }
        let bytes = descriptor.encode();
        match store.create(&name, Bytes::from(bytes.clone()), &content_id(&bytes))? {
            Created::New => Ok((Self::open_any(settings, secret, level, deadline, None)?, Initialised::New)),
            // Another init was faster, or our own answer was lost.
            Created::Exists => Self::reopen(settings, secret, level, deadline),
        }
    }

    fn reopen(settings: &StoreSettings, secret: &Secret, level: i32, deadline: Deadline) -> Result<(Self, Initialised), Error> {
        let opened = Self::open_any(settings, secret, level, deadline, None);
        match opened.and_then(|mut opened| opened.expect_settings(settings.known).map(|()| opened)) {
            Ok(repository) => {
                repository.store.make_durable(&key(DESCRIPTOR.to_owned())?)?;
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

    /// The store.
    pub(crate) fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// The repository URL.
    pub fn location(&self) -> &str {
        self.store.location()
    }

    /// The descriptor.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    pub(super) fn id(&self) -> &[u8; 16] {
        &self.descriptor.repository_id
    }

    /// Its id, and the generation of its newest data key.
    pub fn known_as(&self) -> KnownRepository {
        KnownRepository { id: RepositoryId(self.descriptor.repository_id), generation: self.generation }
    }

    pub(super) fn keys(&self) -> &DataKeys {
        &self.keys
    }

    pub(super) fn level(&self) -> i32 {
        self.level
    }
}

/// Data without a descriptor: it was deleted, or the data was copied without it. A new one, with a new repository id, would lock the
/// data away for good, because everything is bound to the old id.
fn refuse_orphaned_data(store: &dyn Store) -> Result<(), Error> {
    let mut orphan = None;
    store.list(CLUSTERS_PREFIX, "", &mut |entry| {
        orphan = Some(entry.key);
        ControlFlow::Break(())
    })?;
    let Some(orphan) = orphan else { return Ok(()) };
    Err(Error::new(
        Kind::Refused,
        format!("{} holds data ({orphan}), but its {DESCRIPTOR} is gone: refused, nothing was changed", store.location()),
    )
    .hint(format!("restore {DESCRIPTOR} from a copy of the repository, or choose another URL; without it the data below clusters/ cannot be read")))
}

pub(super) fn content_id(bytes: &[u8]) -> ContentId {
    ContentId(blake3::hash(bytes).as_bytes().first_chunk().copied().unwrap_or_default())
}

fn write_first_key(
    store: &dyn Store,
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
    let name = key(format!("{KEYS_PREFIX}{key_id}/{}.json", wrapping.id()))?;
    match store.create(&name, Bytes::from(bytes.clone()), &content_id(&bytes))? {
        Created::New => Ok(()),
        // A random name: only our own create with a lost answer can have made it. Retry has no other way to say so.
        Created::Exists => Ok(store.make_durable(&name)?),
    }
}

fn read_descriptor(store: &dyn Store) -> Result<Descriptor, Error> {
    let Some(bytes) = read_at_most(store, &key(DESCRIPTOR.to_owned())?, MAX_DESCRIPTOR_BYTES)? else {
        return Err(Error::new(Kind::Config, format!("there is no repository at {}", store.location()))
            .hint("check the URL (is the disk mounted?); to make a new repository there run 'walvis init'"));
    };
    Descriptor::parse(&bytes).map_err(|e| descriptor_error(store, DESCRIPTOR, &e))
}

/// Does something in a thread of its own; `None` when there can be none.
fn beside<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Option<ScopedJoinHandle<'scope, T>> {
    std::thread::Builder::new().spawn_scoped(scope, work).ok()
}

/// What a thread found; `None` when it panicked.
fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> Option<T> {
    thread.join().ok()
}

pub(super) fn descriptor_error(store: &dyn Store, name: &str, error: &DescriptorError) -> Error {
    Error::new(Kind::Damaged, format!("{name} in {}: {error}", store.location())).hint(match error {
        DescriptorError::Newer(_) => "use a newer version of Walvis",
        DescriptorError::Damaged(_) => "restore this object from a copy of the repository",
    })
}

/// A small object as it is stored; `None` when it is proven absent.
pub(super) fn read_whole(store: &dyn Store, name: &Key) -> Result<Option<Vec<u8>>, Error> {
    read_at_most(store, name, MAX_SMALL_OBJECT_BYTES)
}

/// As [`read_whole`]; more bytes than that are damage.
pub(super) fn read_at_most(store: &dyn Store, name: &Key, limit: usize) -> Result<Option<Vec<u8>>, Error> {
    let object = match store.read(name, ReadRange::All) {
        Err(e) if e.kind == ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = Vec::new();
    object.body.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(|e| match StoreError::from_io(e) {
        Ok(error) => Error::from(error),
        Err(error) => Error::new(Kind::Unreachable, format!("read {name} in {}: {error}", store.location())),
    })?;
    if bytes.len() > limit {
        return Err(Error::new(Kind::Damaged, format!("{name} in {} is larger than it can be", store.location())));
    }
    Ok(Some(bytes))
}
