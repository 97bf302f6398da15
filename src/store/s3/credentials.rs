//! Where credentials come from: to name it when they can't be had, and to see that they changed.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

#[expect(deprecated, reason = "these aliases are the only way to the types without one more dependency")]
use aws_config::profile::profile_file::ProfileFiles;
use aws_credential_types::provider;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};
use aws_types::os_shim_internal::{Env, Fs};

use super::errors::{Failure, quote};
use super::settings::S3Settings;
use crate::fsio;
use crate::limits::MAX_SMALL_OBJECT_BYTES;
use crate::store::ErrorKind;

/// The files that credentials may come from, and the profile in them.
#[derive(Debug)]
pub(super) struct Origin {
    profile: String,
    /// The shared files that are there.
    files: Vec<PathBuf>,
    /// With a token to exchange for credentials.
    token_file: Option<PathBuf>,
    /// What all these files held.
    content: [u8; 32],
    /// The access key is in the environment, where it stays as it is.
    is_fixed: bool,
}

impl Origin {
    /// Looks where credentials will come from.
    ///
    /// # Errors
    /// A profile or file that was named is not there: the rest of the chain would be searched in vain.
    #[expect(deprecated, reason = "see the imports")]
    pub(super) async fn find(settings: &S3Settings, files: &ProfileFiles) -> Result<Self, Failure> {
        let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let is_fixed = settings.credentials_file.is_none() && env("AWS_ACCESS_KEY_ID").is_some();
        let home = |name: &str| env("HOME").map(|home| Path::new(&home).join(".aws").join(name));
        let credentials_file = settings
            .credentials_file
            .clone()
            .or_else(|| env("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from))
            .or_else(|| home("credentials"));
        let config_file = env("AWS_CONFIG_FILE").map(PathBuf::from).or_else(|| home("config"));
        let named = settings.profile.clone().or_else(|| env("AWS_PROFILE"));
        let mut origin = Self {
            profile: named.clone().unwrap_or_else(|| "default".to_owned()),
            files: [credentials_file, config_file].into_iter().flatten().collect(),
            token_file: env("AWS_WEB_IDENTITY_TOKEN_FILE").map(PathBuf::from),
            content: [0; 32],
            is_fixed,
        };
        if is_fixed {
            return Ok(origin);
        }
        if let Some(path) = &settings.credentials_file
            && let Err(error) = fsio::read_bounded(path, MAX_SMALL_OBJECT_BYTES)
        {
            return Err(Failure::new(ErrorKind::Denied, format!("cannot read the credentials file {}: {error}", path.display()))
                .hint("`credentials_file` names an AWS shared credentials file that the user who runs this can read"));
        }
        let set = aws_config::profile::load(&Fs::real(), &Env::real(), files, settings.profile.clone().map(Cow::Owned)).await;
        let set = set.map_err(|error| {
            Failure::new(
                ErrorKind::Denied,
                format!("{} cannot be used: {}", origin.places(), quote(&super::errors::chain(&error))),
            )
            .hint("repair the file; its form is that of the AWS command line")
        })?;
        match set.get_profile(&origin.profile) {
            Some(profile) => {
                origin.token_file = profile.get("web_identity_token_file").map(PathBuf::from).or(origin.token_file);
            }
            None if named.is_some() => {
                let known: Vec<&str> = set.profiles().collect();
                let known = if known.is_empty() { "none".to_owned() } else { quote(&known.join(", ")) };
                return Err(Failure::new(
                    ErrorKind::Denied,
                    format!("there is no profile {:?} in {}; there is: {known}", origin.profile, origin.places()),
                )
                .hint("`profile` or AWS_PROFILE says which one is used, AWS_SHARED_CREDENTIALS_FILE and AWS_CONFIG_FILE where they are"));
            }
            None => {}
        }
        origin.content = origin.read();
        Ok(origin)
    }

    /// What the files hold now.
    fn read(&self) -> [u8; 32] {
        let mut all = blake3::Hasher::new();
        for path in self.files.iter().chain(&self.token_file) {
            let content = fsio::read_bounded(path, MAX_SMALL_OBJECT_BYTES).unwrap_or_default();
            all.update(&(content.len() as u64).to_le_bytes()).update(&content);
        }
        *all.finalize().as_bytes()
    }

    /// Whether the files hold something else now.
    pub(super) fn has_changed(&self) -> bool {
        !self.is_fixed && self.read() != self.content
    }

    /// Whether the access key is in the environment, which doesn't change while a program runs.
    pub(super) fn is_fixed(&self) -> bool {
        self.is_fixed
    }

    fn places(&self) -> String {
        let files: Vec<String> = self.files.iter().map(|path| path.display().to_string()).collect();
        files.join(" and ")
    }

    /// Names the file, program or profile of a failure to get credentials.
    pub(super) fn explain(&self, failure: Failure) -> Failure {
        if let Some(path) = &self.token_file
            && let Err(error) = fsio::read_bounded(path, MAX_SMALL_OBJECT_BYTES)
        {
            return Failure::new(ErrorKind::Denied, format!("cannot read the token file {}: {error}", path.display()))
                .hint("AWS_WEB_IDENTITY_TOKEN_FILE or `web_identity_token_file` of the profile names it");
        }
        failure.about(&self.to_string())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.token_file {
            Some(path) => write!(f, "token file {}, profile {} in {}", path.display(), self.profile, self.places()),
            None => write!(f, "profile {} in {}", self.profile, self.places()),
        }
    }
}

/// A source of credentials that remembers which it gave last, but not their secrets.
#[derive(Debug, Clone)]
pub(super) struct Remembering {
    inner: SharedCredentialsProvider,
    given: Arc<Mutex<Given>>,
    /// The store, where everybody on the way to it can listen.
    in_clear: Option<String>,
}

/// Whether it was said already that a token is sent in clear.
static TOLD: AtomicBool = AtomicBool::new(false);

#[derive(Debug, Default)]
struct Given {
    fingerprint: Option<[u8; 32]>,
    /// Got already and not used yet.
    next: Option<Credentials>,
}

impl Remembering {
    /// `in_clear` is the address of a store that is spoken to without TLS over a network.
    pub(super) fn new(inner: SharedCredentialsProvider, in_clear: Option<String>) -> Self {
        Self { inner, given: Arc::default(), in_clear }
    }

    /// A secret key signs requests and never leaves this host; a session token goes with each of them. With it alone
    /// nobody can sign, but it is a secret all the same.
    fn warn_of_listeners(&self, credentials: &Credentials) {
        if let Some(store) = self.in_clear.as_ref().filter(|_| credentials.session_token().is_some())
            && !TOLD.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "the session token of the credentials is sent in clear to {store}, with names and sizes of all objects: anybody who listens on the \
                 way has it. Use an https:// endpoint (ca_file names an authority of your own)"
            );
        }
    }

    /// Whether it gave the same as another one did last.
    pub(super) fn gave_the_same(&self, other: &Self) -> bool {
        let of = |one: &Self| one.given.lock().unwrap_or_else(PoisonError::into_inner).fingerprint;
        of(self).is_some() && of(self) == of(other)
    }

    /// Gets credentials now, for the next caller.
    pub(super) async fn fetch(&self) -> Result<(), CredentialsError> {
        let credentials = self.provide_credentials().await?;
        self.given.lock().unwrap_or_else(PoisonError::into_inner).next = Some(credentials);
        Ok(())
    }
}

impl ProvideCredentials for Remembering {
    fn provide_credentials<'a>(&'a self) -> provider::future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        provider::future::ProvideCredentials::new(async {
            if let Some(credentials) = self.given.lock().unwrap_or_else(PoisonError::into_inner).next.take() {
                return Ok(credentials);
            }
            let credentials = self.inner.provide_credentials().await?;
            self.warn_of_listeners(&credentials);
            let mut hasher = blake3::Hasher::new();
            for part in
                [credentials.access_key_id(), credentials.secret_access_key(), credentials.session_token().unwrap_or_default()]
            {
                hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
            }
            self.given.lock().unwrap_or_else(PoisonError::into_inner).fingerprint = Some(*hasher.finalize().as_bytes());
            Ok(credentials)
        })
    }
}
