//! Where a repository is, and how it is reached.
//!
//! Lives here: the place of a repository in the settings, and the store that stands there. May not live here: what is
//! stored there. Depends on `store` and `probe`.

use std::path::PathBuf;
use std::sync::Arc;

use super::probe::{self, Probed, Protection};
use super::raw_objects::RawObjects;
use crate::crypto::KnownRepository;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::descriptor::CreateIfAbsent;
use crate::fsio::{self, Identity, Problem, Rooted};
use crate::store::Store;
#[cfg(feature = "s3")]
use crate::store::claims::Claims;
use crate::store::features::DefaultLock;
use crate::store::file::FileStore;
use crate::store::health::Health;
use crate::store::policies::Policies;
use crate::store::retry::{Policy, Retry};
#[cfg(feature = "s3")]
use crate::store::s3::{LockMode, S3Settings, S3Store};

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
    pub(super) fn is_remote(&self) -> bool {
        match &self.url {
            StoreUrl::File(_) => false,
            #[cfg(feature = "s3")]
            StoreUrl::S3(_) => true,
        }
    }

    /// Finds out, by trying, whether the store refuses to overwrite, through a connection of [`CreateIfAbsent::Store`].
    pub(super) fn probe(&self, plain: &RawObjects) -> Result<Probed, Error> {
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
        self.probe(&RawObjects::new(self.connect(deadline, CreateIfAbsent::Store)?))
    }

    /// Finds out what keeps objects from being deleted or replaced, beside what the credentials may do.
    ///
    /// # Errors
    /// As the store's.
    pub fn protection(&self, deadline: Deadline) -> Result<Protection, Error> {
        probe::protection(&RawObjects::new(self.connect(deadline, CreateIfAbsent::Store)?))
    }

    /// How long new objects are held against deletion, as the settings say: in days, and whether nobody can lift it.
    pub fn lock(&self) -> Option<DefaultLock> {
        match &self.url {
            StoreUrl::File(_) => None,
            #[cfg(feature = "s3")]
            StoreUrl::S3(settings) => settings
                .object_lock
                .map(|lock| DefaultLock { is_compliance: lock.mode == LockMode::Compliance, days: lock.retain_days }),
        }
    }

    /// Policies for the credentials and the bucket; `None` where there is nothing that takes any.
    pub fn policies(&self) -> Option<Policies> {
        match &self.url {
            StoreUrl::File(_) => None,
            #[cfg(feature = "s3")]
            StoreUrl::S3(settings) => {
                let conditional = self.create_if_absent != Some(CreateIfAbsent::Claims);
                Some(S3Settings { conditional, ..(**settings).clone() }.policies())
            }
        }
    }

    /// As root, whose the directory of a `file://` repository is; `None` where there is none.
    ///
    /// # Errors
    /// [`Kind::Refused`] where it is not clear; [`Kind::Config`] where it is not known.
    pub fn owner(&self) -> Result<Option<Identity>, Error> {
        match &self.url {
            StoreUrl::File(path) => match Rooted::open(path) {
                Ok(rooted) => Ok(Some(rooted.identity())),
                Err(e) if e.problem == Problem::Absent => Ok(None),
                Err(e) => Err(fsio::file_error(Kind::Config, e)),
            },
            #[cfg(feature = "s3")]
            StoreUrl::S3(_) => Ok(None),
        }
    }

    /// Makes the directory of a `file://` repository; a bucket has to exist.
    pub(super) fn prepare(&self, owner: Identity) -> Result<(), Error> {
        match &self.url {
            StoreUrl::File(path) => Ok(FileStore::create_root_for(path, owner).map(drop)?),
            #[cfg(feature = "s3")]
            StoreUrl::S3(_) => Ok(()),
        }
    }
}
