//! TLS to a server, as libpq's `sslmode` means it.
//!
//! Lives here: which certificates are believed, and the connector that `tokio-postgres` asks for one. Nothing is read
//! or made before a server has agreed to speak TLS, but for the modes that insist on it.
//!
//! <https://www.postgresql.org/docs/current/libpq-ssl.html>

use super::certificate;
use super::conninfo::Conninfo;
use super::mode::Mode;
use crate::crypto::server_certificate::{Trusted, Verifier, certificates, provider};
use crate::fsio::{self, Problem};
use crate::limits::MAX_CONNECTION_FILE_BYTES;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::{CertificateError, ClientConfig};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

/// What the settings say about TLS.
#[derive(Debug)]
struct Wishes {
    mode: Mode,
    /// `system` for what the system trusts.
    roots: Option<PathBuf>,
    revoked: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    /// Whether these two were named, and so have to be there.
    is_certificate_named: bool,
    sends_name: bool,
    only_tls13: bool,
    made: OnceLock<Result<Arc<ClientConfig>, String>>,
}

/// Makes the TLS half of connections.
#[derive(Debug, Clone)]
pub(super) struct Connector(Arc<Wishes>);

impl Connector {
    pub(super) fn new(info: &Conninfo, mode: Mode, home: Option<&Path>) -> Self {
        let usual = |name: &str| home.map(|home| home.join(".postgresql").join(name));
        let named = |option: &str| info.get(option).map(PathBuf::from);
        Self(Arc::new(Wishes {
            mode,
            roots: named("sslrootcert").or_else(|| usual("root.crt")),
            revoked: named("sslcrl").or_else(|| usual("root.crl")),
            certificate: named("sslcert").or_else(|| usual("postgresql.crt")),
            key: named("sslkey").or_else(|| usual("postgresql.key")),
            is_certificate_named: info.get("sslcert").is_some(),
            sends_name: info.get("sslsni") != Some("0"),
            only_tls13: info.get("ssl_min_protocol_version") == Some("TLSv1.3"),
            made: OnceLock::new(),
        }))
    }

    /// Finds out whether TLS can be spoken as it is wished for.
    ///
    /// # Errors
    /// What is wrong, naming the file.
    pub(super) fn prepare(&self) -> Result<(), String> {
        self.0.config().map(drop)
    }
}

impl Wishes {
    fn config(&self) -> Result<Arc<ClientConfig>, String> {
        self.made.get_or_init(|| self.make().map(Arc::new)).clone()
    }

    fn make(&self) -> Result<ClientConfig, String> {
        let provider = provider();
        let verifier = self.verifier(&provider)?;
        let versions: &[_] =
            if self.only_tls13 { &[&rustls::version::TLS13] } else { &[&rustls::version::TLS13, &rustls::version::TLS12] };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|e| e.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match self.identity()? {
            Some((chain, key)) => {
                builder.with_client_auth_cert(chain, key).map_err(|e| format!("the client's certificate and key: {e}"))?
            }
            None => builder.with_no_client_auth(),
        };
        config.enable_sni = self.sends_name;
        Ok(config)
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Verifier, String> {
        let mut trusted = Trusted::nothing();
        match &self.roots {
            Some(path) if path.as_os_str() == "system" => {
                trusted = Trusted::by_the_system();
                if trusted.is_empty() {
                    return Err("sslrootcert=system, and this system trusts no authority".to_owned());
                }
            }
            path => {
                let file = match path {
                    Some(path) => read(path)?.map(|pem| (path, pem)),
                    None => None,
                };
                // As in libpq: what is there is believed whatever the mode is, and only some modes insist on it.
                let Some((path, pem)) = file else {
                    if self.mode.verifies() {
                        let place =
                            path.as_ref().map_or_else(|| "~/.postgresql/root.crt".to_owned(), |path| path.display().to_string());
                        return Err(format!(
                            "sslmode={} needs the certificates of the authorities to believe, and there is no {place}; name the file with \
                             sslrootcert, or say sslrootcert=system",
                            self.mode.as_str()
                        ));
                    }
                    return Ok(Verifier::of_anything(provider));
                };
                trusted.add(&pem).map_err(|e| format!("{} {e}", path.display()))?;
            }
        }
        let mut revoked = Vec::new();
        if let Some(path) = &self.revoked
            && let Some(pem) = read(path)?
        {
            let lists = CertificateRevocationListDer::pem_slice_iter(&pem).collect::<Result<_, _>>();
            revoked = lists.map_err(|e: PemError| format!("{} is damaged PEM: {e}", path.display()))?;
        }
        let verifier = trusted.verifier(provider, revoked).map_err(|e| e.to_string())?;
        Ok(verifier.excusing_name(if self.mode == Mode::VerifyFull { certificate::is_for_common_name } else { |_, _| true }))
    }

    /// The client's certificate and key, where there are any.
    fn identity(&self) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, String> {
        let Some(path) = &self.certificate else { return Ok(None) };
        let Some(pem) = read(path)? else {
            return if self.is_certificate_named { Err(format!("there is no certificate {}", path.display())) } else { Ok(None) };
        };
        let chain = certificates(&pem).map_err(|e| format!("{} {e}", path.display()))?;
        let Some(key_path) = &self.key else { return Err(format!("no key is named for the certificate {}", path.display())) };
        let attributes = fsio::attributes(key_path).map_err(|e| e.to_string())?;
        let attributes =
            attributes.ok_or_else(|| format!("there is no key {} for the certificate {}", key_path.display(), path.display()))?;
        let allowed = if attributes.uid == 0 && fsio::own_user() != 0 { 0o640 } else { 0o600 };
        if attributes.mode & 0o777 & !allowed != 0 {
            return Err(format!("key file {} can be read by others: make it private (chmod 600)", key_path.display()));
        }
        let pem = zeroize::Zeroizing::new(read(key_path)?.unwrap_or_default());
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
            format!("{} is not a private key that can be used: it must be PEM, without a passphrase", key_path.display())
        })?;
        Ok(Some((chain, key)))
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    match fsio::read_bounded(path, MAX_CONNECTION_FILE_BYTES) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.problem == Problem::Absent => Ok(None),
        Err(e) => Err(e.to_string()),
    }
}

/// What keeps TLS from being spoken: words for the operator.
pub(super) fn explain(error: &(dyn std::error::Error + 'static), host: &str) -> Option<(String, &'static str)> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let inner =
            error.downcast_ref::<io::Error>().and_then(io::Error::get_ref).and_then(|e| e.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::InvalidCertificate(refused)) = error.downcast_ref::<rustls::Error>().or(inner) {
            return Some(match refused {
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
                    format!("the server's certificate is not for {host}"),
                    "connect by the name that the certificate has (hostaddr=… says where that is), or say sslmode=verify-ca",
                ),
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    ("the server's certificate has expired".to_owned(), "give the server a new one, and reload it")
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    ("the server's certificate is not valid yet".to_owned(), "is the clock of this host right?")
                }
                CertificateError::Revoked => {
                    ("the server's certificate was revoked".to_owned(), "give the server a new one, and reload it")
                }
                CertificateError::UnknownIssuer => (
                    "the server's certificate is of no authority that is believed".to_owned(),
                    "name the file with the certificate of its authority with sslrootcert=…; without sslmode it is ~/.postgresql/root.crt if that is there",
                ),
                other => (
                    format!("the server's certificate is refused: {other}"),
                    "give the server a certificate that today's TLS libraries take, and reload it",
                ),
            });
        }
        cause = error.source();
    }
    None
}

impl MakeTlsConnect<Socket> for Connector {
    type Stream = Stream;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, io::Error> {
        Ok(Handshake { wishes: Arc::clone(&self.0), host: host.to_owned() })
    }
}

/// TLS that is about to begin.
pub(super) struct Handshake {
    wishes: Arc<Wishes>,
    host: String,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, io::Error>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let config = self.wishes.config().map_err(io::Error::other)?;
            let name = ServerName::try_from(self.host).map_err(io::Error::other)?;
            Ok(Stream(Box::new(tokio_rustls::TlsConnector::from(config).connect(name, socket).await?)))
        })
    }
}

/// A connection in TLS.
pub(super) struct Stream(Box<tokio_rustls::client::TlsStream<Socket>>);

impl TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        let certificate = self.0.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        match certificate.and_then(|certificate| certificate::end_point(certificate)) {
            Some(hash) => ChannelBinding::tls_server_end_point(hash),
            None => ChannelBinding::none(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
