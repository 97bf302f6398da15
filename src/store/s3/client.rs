//! The SDK client behind a blocking face: a small runtime, made when first needed, and a time limit around everything.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
#[expect(deprecated, reason = "these aliases are the only way to the types without one more dependency")]
use aws_config::profile::profile_file::{ProfileFileKind, ProfileFiles};
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, IdentityCache, Region, RequestChecksumCalculation, ResponseChecksumValidation, SharedCredentialsProvider,
    SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::SdkError;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, ConnectorBuilder};

use super::credentials::{Origin, Remembering};
use super::errors::{Failure, Refusal};
use super::proxy::Proxy;
use super::settings::{Checksums, InvalidSettings, S3Settings, check_endpoint, is_loopback};
use super::tls;
use crate::deadline::Deadline;
use crate::fsio::Identity;
use crate::limits::{MAX_CONNECT_TIME, S3_RUNTIME_THREADS};
use crate::store::ErrorKind;

/// Where AWS is, as far as a proxy is concerned.
const AWS: &str = "https://s3.amazonaws.com";
/// What a region is called where regions mean nothing.
const ANY_REGION: &str = "us-east-1";

/// A lazily made runtime and client.
pub(super) struct Engine {
    settings: S3Settings,
    ca_pem: Option<Vec<u8>>,
    deadline: Deadline,
    /// `None` until the first request: a process that never asks the store never pays for threads, TLS and profile
    /// files.
    started: Mutex<Option<Started>>,
}

#[derive(Clone)]
struct Started {
    runtime: Arc<Runtime>,
    session: Session,
    /// How many sessions there were before, with other credentials.
    generation: u64,
}

/// A client with its credentials.
#[derive(Clone)]
struct Session {
    client: Client,
    credentials: Remembering,
    origin: Arc<Origin>,
    proxy: Option<Proxy>,
    /// Whether the store has accepted the credentials.
    has_worked: Arc<AtomicBool>,
}

/// A runtime that is left alone at the end: a name look-up that hangs must not hold up the process.
struct Runtime(Option<tokio::runtime::Runtime>);

impl Runtime {
    /// Waits for `work`; `None` when it takes longer than `limit`.
    fn block_on<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        // Always there: `drop` alone takes it.
        let runtime = self.0.as_ref()?;
        runtime.block_on(async { tokio::time::timeout(limit, work).await.ok() })
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Engine {
    pub(super) fn new(settings: S3Settings, deadline: Deadline) -> Result<Self, InvalidSettings> {
        settings.check()?;
        let ca_pem = settings.read_ca_file()?;
        // One that is malformed is reported at once.
        Proxy::of(settings.endpoint.as_deref().unwrap_or(AWS))?;
        Ok(Self { settings, ca_pem, deadline, started: Mutex::new(None) })
    }

    pub(super) fn settings(&self) -> &S3Settings {
        &self.settings
    }

    /// How long the next wait may take.
    fn limit(&self) -> Result<Duration, Failure> {
        let remaining = self.deadline.remaining();
        if remaining.is_zero() { Err(self.late()) } else { Ok(remaining.min(self.settings.request_timeout)) }
    }

    fn late(&self) -> Failure {
        Failure::new(ErrorKind::TimedOut, format!("the time limit of {:?} is over", rounded(self.deadline.limit()))).permanently()
    }

    /// Runs one request and waits for its answer, at most the time limit of one request and never beyond the deadline.
    pub(super) fn call<T, E, F>(&self, request: impl FnOnce(Client) -> F) -> Result<T, Failure>
    where
        E: std::error::Error + Send + Sync + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        self.wait(|client| async { request(client).await.map_err(Failure::from_sdk) })
    }

    /// As [`call`](Self::call), but no longer than `bound`.
    pub(super) fn call_within<T, E, F>(&self, bound: Duration, request: impl FnOnce(Client) -> F) -> Result<T, Failure>
    where
        E: std::error::Error + Send + Sync + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        self.call(|client| async move {
            match tokio::time::timeout(bound, request(client)).await {
                Ok(answer) => answer,
                Err(elapsed) => Err(SdkError::timeout_error(elapsed)),
            }
        })
    }

    /// Runs `work` and waits for it, within the same limits.
    pub(super) fn wait<T, F>(&self, work: impl FnOnce(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        // Credentials are read meanwhile, and threads may start that others share: those are the process's own, no
        // matter whom the caller works as.
        let _as = Identity::own().enter().map_err(|e| Failure::new(ErrorKind::Denied, e.to_string()).permanently())?;
        let started = self.started()?;
        let limit = self.limit()?;
        match started.runtime.block_on(limit, work(started.session.client.clone())) {
            Some(Ok(answer)) => {
                started.session.has_worked.store(true, Ordering::Relaxed);
                Ok(answer)
            }
            Some(Err(failure)) => Err(self.explain(&started, failure)),
            None if self.deadline.is_over() => Err(self.late()),
            None => Err(Failure::new(ErrorKind::TimedOut, format!("no answer within {:?}", rounded(limit)))),
        }
    }

    /// Says more of a failure than the request itself knew, and gets other credentials where it is these that were
    /// refused.
    fn explain(&self, started: &Started, failure: Failure) -> Failure {
        let session = &started.session;
        if failure.lacks_credentials() {
            return session.origin.explain(failure);
        }
        if let Some(refusal) = failure.refusal() {
            return match self.renew(started, refusal) {
                Ok(true) => failure.may_pass("the credentials have changed since"),
                // Their renewal may be late.
                Ok(false) if refusal == Refusal::Expired && session.may_change() => failure.may_pass("no others are there yet"),
                Ok(false) => failure,
                // A file may be half-written.
                Err(why) if session.may_change() => failure.may_pass(&format!("others could not be had: {why}")),
                Err(why) => failure.about(&format!("other credentials could not be had: {why}")),
            };
        }
        match &session.proxy {
            Some(proxy) => proxy.explain(failure),
            None => failure,
        }
    }

    /// Reads the credentials again after the store refused those of `started`. Whether there are others now.
    fn renew(&self, started: &Started, refusal: Refusal) -> Result<bool, String> {
        let origin = &started.session.origin;
        // Asking for credentials may cost a program run or a request. Many a refusal has nothing to do with them, and
        // those that never worked were asked for just now.
        let is_doubtful = refusal != Refusal::Denied && started.session.may_change();
        if !is_doubtful && !origin.has_changed() {
            return Ok(self.slot().as_ref().is_some_and(|now| now.generation != started.generation));
        }
        let mut slot = self.slot();
        if slot.as_ref().is_some_and(|now| now.generation != started.generation) {
            return Ok(true);
        }
        let limit = self.limit().map_err(|late| late.detail().to_owned())?;
        let session = started.runtime.block_on(limit, async {
            let session = self.session().await?;
            session.credentials.fetch().await.map_err(|error| session.origin.explain(Failure::unanswered(&error)))?;
            Ok::<_, Failure>(session)
        });
        let session = match session {
            Some(session) => session.map_err(|failure| failure.detail().to_owned())?,
            None => return Err(format!("none within {limit:?}")),
        };
        let is_other = !session.credentials.gave_the_same(&started.session.credentials);
        if is_other {
            tracing::info!(location = %self.settings.url(), "the credentials have changed");
        } else {
            // The same credentials of a file that has changed have worked as long as they did.
            session.has_worked.store(started.session.has_worked.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        let generation = started.generation + u64::from(is_other);
        *slot = Some(Started { runtime: Arc::clone(&started.runtime), session, generation });
        Ok(is_other)
    }

    fn slot(&self) -> MutexGuard<'_, Option<Started>> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The runtime and the client; made for the first caller, while others wait. A failure is not remembered.
    fn started(&self) -> Result<Started, Failure> {
        let mut slot = self.slot();
        if let Some(started) = &*slot {
            return Ok(started.clone());
        }
        let no_threads = |e| {
            Failure::new(ErrorKind::Unreachable, format!("no threads for the S3 client: {e}"))
                .hint("raise the limits on memory (ulimit -v) or on processes (ulimit -u, TasksMax=)")
                .permanently()
        };
        threads_can_be_had(S3_RUNTIME_THREADS).map_err(no_threads)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(S3_RUNTIME_THREADS)
            .thread_name("walvis-s3")
            .enable_all()
            .build()
            .map_err(no_threads)?;
        let runtime = Arc::new(Runtime(Some(runtime)));
        let limit = self.limit()?;
        let session = runtime.block_on(limit, self.session()).unwrap_or_else(|| {
            Err(Failure::new(ErrorKind::TimedOut, format!("the AWS configuration was not complete within {limit:?}")))
        })?;
        let started = Started { runtime, session, generation: 0 };
        *slot = Some(started.clone());
        Ok(started)
    }

    #[expect(deprecated, reason = "see the imports")]
    async fn session(&self) -> Result<Session, Failure> {
        let s = &self.settings;
        let mut files = ProfileFiles::builder().include_default_config_file(true);
        files = match &s.credentials_file {
            Some(path) => files.with_file(ProfileFileKind::Credentials, path),
            None => files.include_default_credentials_file(true),
        };
        let files = files.build();
        let origin = Origin::find(s, &files).await?;
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            // Token services speak TLS even where the store does not.
            .http_client(self.http_client(None))
            .profile_files(files.clone())
            .retry_config(RetryConfig::disabled());
        if let Some(profile) = &s.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(endpoint) = &s.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if let Some(region) = &s.region {
            loader = loader.region(Region::new(region.clone()));
        } else if s.endpoint.is_some() {
            // Not the whole chain: its last link asks the metadata service of a cloud that this store is not part of.
            let mut profile = ProfileFileRegionProvider::builder().profile_files(files.clone());
            if let Some(name) = &s.profile {
                profile = profile.profile_name(name);
            }
            loader = loader.region(
                RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
                    .or_else(profile.build())
                    .or_else(Region::from_static(ANY_REGION)),
            );
        }
        if s.credentials_file.is_some() {
            let mut provider = ProfileFileCredentialsProvider::builder().profile_files(files);
            if let Some(name) = &s.profile {
                provider = provider.profile_name(name);
            }
            loader = loader.credentials_provider(provider.build());
        }
        let shared = loader.load().await;
        let endpoint = self.endpoint(shared.endpoint_url())?;
        let proxy = Proxy::of(endpoint.as_deref().unwrap_or(AWS)).map_err(unusable)?;
        let credentials = shared.credentials_provider().ok_or_else(|| {
            Failure::new(ErrorKind::Denied, "no credentials found in the environment, the shared files or a role")
        })?;
        let in_clear = endpoint.clone().filter(|endpoint| endpoint.starts_with("http://") && !is_loopback(endpoint));
        let credentials = Remembering::new(credentials, in_clear);

        let mut config = aws_sdk_s3::config::Builder::from(&shared)
            .http_client(self.store_client(endpoint.as_deref(), proxy.as_ref())?)
            .credentials_provider(SharedCredentialsProvider::new(credentials.clone()))
            .force_path_style(s.path_style)
            // Retrying is the business of the retry decorator alone.
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(s.request_timeout.min(MAX_CONNECT_TIME)).build())
            // Every wait has its own limit here.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .identity_cache(IdentityCache::lazy().load_timeout(s.request_timeout).build())
            // Uploads set the header themselves (see `upload`); what is read carries Walvis' own authentication.
            .request_checksum_calculation(match s.checksums {
                Checksums::WhenSupported => RequestChecksumCalculation::WhenSupported,
                Checksums::WhenRequired => RequestChecksumCalculation::WhenRequired,
            })
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        if shared.region().is_none() {
            if endpoint.is_none() {
                return Err(Failure::new(ErrorKind::NoSuchPlace, "no region is configured, so the bucket can't be found")
                    .hint("set `region` or AWS_REGION; for a store other than AWS set `endpoint`")
                    .permanently());
            }
            config = config.region(Region::from_static(ANY_REGION));
        }
        if let Some(endpoint) = endpoint {
            config = config.endpoint_url(endpoint);
        }
        let (client, origin, has_worked) = (Client::from_conf(config.build()), Arc::new(origin), Arc::default());
        Ok(Session { client, credentials, origin, proxy, has_worked })
    }

    /// Where the store is, if not at AWS: as configured, or as the AWS environment says.
    fn endpoint(&self, shared: Option<&str>) -> Result<Option<String>, Failure> {
        let own = std::env::var("AWS_ENDPOINT_URL_S3").ok().filter(|_| self.settings.endpoint.is_none());
        let Some(endpoint) = own.as_deref().or(shared) else { return Ok(None) };
        check_endpoint(endpoint).map_err(unusable)?;
        // Without the slash the SDK joins the bucket to the last part of a path.
        Ok(Some(if endpoint.ends_with('/') { endpoint.to_owned() } else { format!("{endpoint}/") }))
    }

    /// The HTTP client for the store itself. With a CA file it is one that trusts the very certificates in it.
    fn store_client(&self, endpoint: Option<&str>, proxy: Option<&Proxy>) -> Result<SharedHttpClient, Failure> {
        let plain = endpoint.is_some_and(|e| e.starts_with("http://"));
        match &self.ca_pem {
            Some(pem) if !plain => {
                let connect_timeout = self.settings.request_timeout.min(MAX_CONNECT_TIME);
                tls::client(pem, proxy.map(Proxy::intercept), connect_timeout)
                    .map_err(|error| Failure::new(ErrorKind::NoSuchPlace, format!("TLS cannot be used: {error}")))
            }
            _ => Ok(self.http_client(endpoint)),
        }
    }

    /// The HTTP client: TLS with the system's roots and those of `ca_file` (none of which are loaded for an `http://`
    /// endpoint); a proxy as the environment says (`HTTPS_PROXY`, `NO_PROXY`), but never for this very host.
    fn http_client(&self, endpoint: Option<&str>) -> SharedHttpClient {
        let proxied = !endpoint.is_some_and(is_loopback);
        let plain = endpoint.is_some_and(|e| e.starts_with("http://"));
        let mut roots = TrustStore::default();
        if let Some(pem) = &self.ca_pem {
            roots.add_pem_certificate(pem.clone());
        }
        let tls = TlsContext::builder().with_trust_store(roots).build().unwrap_or_default();
        Builder::new().build_with_connector_fn(move |settings, components| {
            let mut connector = ConnectorBuilder::default();
            connector.set_connector_settings(settings.cloned());
            if let Some(components) = components {
                connector.set_sleep_impl(components.sleep_impl());
            }
            connector.set_proxy_config(Some(if proxied { ProxyConfig::from_env() } else { ProxyConfig::disabled() }));
            if plain {
                connector.build_http()
            } else {
                connector.tls_provider(Provider::Rustls(CryptoMode::AwsLc)).tls_context(tls.clone()).build()
            }
        })
    }
}

/// Starts this many threads, all at once, and ends them. The runtime panics where it cannot have its threads, and then
/// waits for ever for those that it has.
fn threads_can_be_had(number: usize) -> std::io::Result<()> {
    let mut waiting = Vec::new();
    for _ in 0..number {
        let (keep, wait) = std::sync::mpsc::channel::<()>();
        waiting.push((keep, std::thread::Builder::new().spawn(move || wait.recv().is_ok())?));
    }
    for (keep, thread) in waiting {
        drop(keep);
        // It cannot panic, and its answer tells nothing.
        let _ = thread.join();
    }
    Ok(())
}

/// A setting of the environment that can't be used.
fn unusable(settings: InvalidSettings) -> Failure {
    let failure = Failure::new(ErrorKind::NoSuchPlace, settings.what);
    match settings.hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

impl Session {
    /// Whether other credentials may come to be: these were good, and are not those of the environment.
    fn may_change(&self) -> bool {
        !self.origin.is_fixed() && self.has_worked.load(Ordering::Relaxed)
    }
}

/// A share of what was left of a time, without the digits that nobody reads: `18s`, `300ms`.
fn rounded(limit: Duration) -> Duration {
    if limit < Duration::from_secs(1) {
        return Duration::from_millis(u64::try_from(limit.as_millis()).unwrap_or_default());
    }
    Duration::from_secs((limit + Duration::from_millis(500)).as_secs())
}
