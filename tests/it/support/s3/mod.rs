//! S3 servers for tests: in-process (the protocol by `s3s`, faults at the HTTP level), and moto.

mod bucket;
mod front;
mod moto;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::S3ServiceBuilder;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use walvis::deadline::Deadline;
use walvis::store::s3::{S3Settings, S3Store};

use self::bucket::Buckets;
pub use self::bucket::LooksFirst;
use self::front::Front;
pub use self::front::{Action, Op, Seen};
pub use self::moto::Moto;

/// The one bucket of a server.
pub const BUCKET: &str = "walvis-test";
/// Who may use it.
pub const ACCESS_KEY: &str = "AKIAWALVISTEST000001";
/// And who else, with the same secret key.
pub const OTHER_ACCESS_KEY: &str = "AKIAWALVISTEST000002";
/// With this.
pub const SECRET_KEY: &str = "not-a-secret/0123456789abcdefghijklmnopqr";
/// In this region.
pub const REGION: &str = "eu-central-1";

/// An S3 server on a loopback port, gone when dropped.
pub struct S3Server {
    front: Arc<Front>,
    buckets: Buckets,
    address: SocketAddr,
    ca_file: Option<PathBuf>,
    dir: TempDir,
    runtime: Option<tokio::runtime::Runtime>,
}

impl S3Server {
    /// A server that speaks plain HTTP.
    pub fn start() -> Self {
        Self::launch(None)
    }

    /// A server that speaks TLS under a CA of its own (see [`ca_file`](Self::ca_file)).
    pub fn start_tls() -> Self {
        Self::launch(Some(acceptor()))
    }

    /// A server that speaks TLS with a certificate such as `openssl req -x509` makes: signed by itself, and an
    /// authority's. It is for 127.0.0.1 and for `walvis.test`.
    pub fn start_self_signed() -> Self {
        Self::launch(Some(self_signed()))
    }

    fn launch(tls: Option<(TlsAcceptor, String)>) -> Self {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("credentials"), credentials(ACCESS_KEY, SECRET_KEY)).unwrap();
        let objects = dir.path().join("objects");
        std::fs::create_dir(&objects).unwrap();
        let buckets = Buckets::new(objects, BUCKET);
        let mut builder = S3ServiceBuilder::new(buckets.clone());
        let mut auth = SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY);
        auth.register(OTHER_ACCESS_KEY.to_owned(), SECRET_KEY.into());
        builder.set_auth(auth);
        // Its clock may be set, and those of its clients.
        let mut config = S3Config::default();
        config.presigned_url_max_skew_time_secs = u32::MAX;
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
        let front = Arc::new(Front::new(builder.build()));
        let (acceptor, ca_file) = if let Some((acceptor, pem)) = tls {
            let path = dir.path().join("ca.pem");
            std::fs::write(&path, pem).unwrap();
            (Some(acceptor), Some(path))
        } else {
            (None, None)
        };

        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(accept(listener, acceptor, Arc::clone(&front)));
        Self { front, buckets, address, ca_file, dir, runtime: Some(runtime) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:port`, or https.
    pub fn endpoint(&self) -> String {
        format!("{}://{}", if self.ca_file.is_some() { "https" } else { "http" }, self.address)
    }

    /// The repository URL of a prefix.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    /// The certificate of the server's CA, of a TLS server.
    pub fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    /// Settings for a store below `prefix`, with nothing left to the environment.
    pub fn settings(&self, prefix: &str) -> S3Settings {
        S3Settings {
            endpoint: Some(self.endpoint()),
            region: Some(REGION.to_owned()),
            profile: Some("default".to_owned()),
            credentials_file: Some(self.dir.path().join("credentials")),
            path_style: true,
            ca_file: self.ca_file.clone(),
            request_timeout: Duration::from_secs(20),
            ..S3Settings::parse_url(&self.url(prefix)).unwrap()
        }
    }

    /// A store below `prefix`.
    pub fn store(&self, prefix: &str) -> S3Store {
        open(self.settings(prefix))
    }

    /// What a `walvis` process needs in its environment to use this server, and nothing else of the host's AWS
    /// configuration.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        let mut env = client_env(&self.endpoint(), ACCESS_KEY, SECRET_KEY);
        if let Some(path) = &self.ca_file {
            env.push(("WALVIS_S3_CA_FILE", path.to_str().unwrap().to_owned()));
        }
        env
    }

    /// Lets `hook` decide what becomes of every request from now on.
    pub fn hook(&self, hook: impl Fn(&Seen) -> Action + Send + Sync + 'static) {
        self.front.set_hook(Some(Arc::new(hook)));
    }

    /// Serves every request again.
    pub fn unhook(&self) {
        self.front.set_hook(None);
    }

    /// Delays every request.
    pub fn set_latency(&self, latency: Duration) {
        self.front.set_latency(latency);
    }

    /// Whether it is a store that does not know conditional writes.
    pub fn set_ignores_conditions(&self, ignores: bool) {
        self.front.set_ignores_conditions(ignores);
    }

    /// Whether it is a store that looks whether an object exists, and writes a moment later without looking again.
    pub fn set_looks_first(&self, looks_first: LooksFirst) {
        *self.buckets.looks_first.lock().unwrap() = looks_first;
    }

    /// Lets its clock be so many seconds ahead of this host's: what is stored from now on, was stored then.
    pub fn set_clock(&self, ahead_s: i64) {
        self.buckets.ahead_s.store(ahead_s, Ordering::SeqCst);
    }

    /// How many objects it puts into one page of a listing, at most.
    pub fn set_page_len(&self, len: usize) {
        self.buckets.page_len.store(len, Ordering::SeqCst);
    }

    /// The requests so far, oldest first.
    pub fn log(&self) -> Vec<Seen> {
        self.front.log()
    }

    /// The requests of one kind.
    pub fn seen(&self, op: Op) -> Vec<Seen> {
        self.log().into_iter().filter(|seen| seen.op == op).collect()
    }

    /// Forgets the requests so far.
    pub fn clear_log(&self) {
        self.front.clear();
    }

    /// Requests that are being served.
    pub fn in_flight(&self) -> usize {
        self.front.in_flight()
    }

    /// Most requests that were being served at the same time.
    pub fn peak_in_flight(&self) -> usize {
        self.front.peak_in_flight()
    }

    /// The objects whose full name begins with `prefix`, past the protocol.
    pub fn objects(&self, prefix: &str) -> BTreeMap<String, Vec<u8>> {
        self.buckets.objects(BUCKET, prefix)
    }

    /// Puts an object there under its full name, past the protocol and over what was there.
    pub fn insert(&self, name: &str, body: &[u8]) {
        self.buckets.insert(BUCKET, name, body);
    }

    /// Puts a file there as an object that was stored when the file was last changed, past the protocol: its content
    /// stays where it is. For `benches/retention.rs`.
    #[allow(dead_code)]
    pub fn insert_file(&self, name: &str, file: &Path) {
        self.buckets.insert_file(BUCKET, name, file);
    }

    /// Takes an object away, past the protocol; whether it was there.
    pub fn remove(&self, name: &str) -> bool {
        self.buckets.remove(BUCKET, name)
    }

    /// The full names that have unfinished uploads.
    pub fn uploads(&self) -> Vec<String> {
        self.buckets.uploads()
    }

    /// Makes all unfinished uploads older.
    pub fn age_uploads(&self, by: Duration) {
        self.buckets.age_uploads(by);
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Opens a store with a generous deadline.
pub fn open(settings: S3Settings) -> S3Store {
    S3Store::open(settings, Deadline::after(Duration::from_secs(300))).unwrap()
}

/// An AWS shared credentials file.
pub fn credentials(access_key: &str, secret_key: &str) -> String {
    format!("[default]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n")
}

fn client_env(endpoint: &str, access_key: &str, secret_key: &str) -> Vec<(&'static str, String)> {
    [
        ("AWS_ACCESS_KEY_ID", access_key),
        ("AWS_SECRET_ACCESS_KEY", secret_key),
        ("AWS_REGION", REGION),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_CONFIG_FILE", "/nonexistent"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
        ("WALVIS_S3_ENDPOINT", endpoint),
        ("WALVIS_S3_PATH_STYLE", "true"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .to_vec()
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, front: Arc<Front>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, for as long as other tests have them all.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        // It fails where the client is gone already, which must not end the server.
        let _ = stream.set_nodelay(true);
        tokio::spawn(connection(stream, acceptor.clone(), Arc::clone(&front)));
    }
}

/// One connection; its errors are the client's business.
async fn connection(stream: TcpStream, acceptor: Option<TlsAcceptor>, front: Arc<Front>) {
    let service = service_fn(move |request| Arc::clone(&front).serve(request));
    let http = hyper::server::conn::http1::Builder::new();
    let _ = match acceptor {
        None => http.serve_connection(TokioIo::new(stream), service).await,
        Some(acceptor) => match acceptor.accept(stream).await {
            Ok(stream) => http.serve_connection(TokioIo::new(stream), service).await,
            Err(_) => Ok(()),
        },
    };
}

/// TLS for 127.0.0.1 under a CA of its own, and the CA's certificate.
fn acceptor() -> (TlsAcceptor, String) {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "Walvis test CA");
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    (accept_with(&leaf, &key), ca_pem)
}

/// TLS with a certificate that is its own authority's.
fn self_signed() -> (TlsAcceptor, String) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "walvis.test".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    (accept_with(&certificate, &key), certificate.pem())
}

fn accept_with(certificate: &rcgen::Certificate, key: &rcgen::KeyPair) -> TlsAcceptor {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}
