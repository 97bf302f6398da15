//! Certificates of TLS servers that are believed because a file of the operator's holds them, be it an authority's or
//! the server's own. Connections to PostgreSQL and to S3 share it.
//!
//! A certificate made by `openssl req -x509` calls itself an authority and is used by a server. The TLS library refuses
//! that by principle; curl, libpq and OpenSSL accept it where exactly this certificate is trusted. So do we, and
//! nothing else differs.
//!
//! Lives here: the certificates that are believed ([`Trusted`]), and the verifier ([`Verifier`]). May not live here:
//! where the files are, and what an error says about them.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, VerifierBuilderError};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// The library that computes.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Why a file of certificates cannot be used. The text follows the name of the file.
#[derive(Debug, thiserror::Error)]
pub enum BadFile {
    /// Not the text that it should be.
    #[error("is damaged PEM: {0}")]
    Pem(PemError),
    /// Nothing to believe.
    #[error("holds no certificate")]
    Empty,
    /// What the TLS library finds wrong with a certificate.
    #[error("holds a damaged certificate: {0}")]
    Certificate(rustls::Error),
}

/// The certificates in a PEM text; at least one.
///
/// # Errors
/// When it is damaged or there is none.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, BadFile> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(BadFile::Pem)?;
    if all.is_empty() { Err(BadFile::Empty) } else { Ok(all) }
}

/// What is believed.
#[derive(Debug)]
pub struct Trusted {
    roots: RootCertStore,
    /// The certificates of the operator's file; one of them may be the server's own.
    own: Vec<CertificateDer<'static>>,
}

impl Trusted {
    /// Nothing.
    pub fn nothing() -> Self {
        Self { roots: RootCertStore::empty(), own: Vec::new() }
    }

    /// The authorities that the system trusts. Those that the library cannot read are of no use to it.
    pub fn by_the_system() -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Self { roots, own: Vec::new() }
    }

    /// Whether no server at all can be believed.
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// Believes the certificates of the operator's file too, whose PEM text this is.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn add(&mut self, pem: &[u8]) -> Result<(), BadFile> {
        for certificate in certificates(pem)? {
            self.roots.add(certificate.clone()).map_err(BadFile::Certificate)?;
            self.own.push(certificate);
        }
        Ok(())
    }

    /// The rules that follow from it, less what these lists revoke.
    ///
    /// # Errors
    /// What the TLS library finds wrong: nothing is trusted, or a list is damaged.
    pub fn verifier(
        self,
        provider: &Arc<CryptoProvider>,
        revoked: Vec<CertificateRevocationListDer<'static>>,
    ) -> Result<Verifier, VerifierBuilderError> {
        let mut builder = WebPkiServerVerifier::builder_with_provider(Arc::new(self.roots), Arc::clone(provider));
        if !revoked.is_empty() {
            builder = builder.with_crls(revoked).allow_unknown_revocation_status();
        }
        Ok(Verifier { provider: Arc::clone(provider), chain: Some(builder.build()?), own: self.own, excuses_name: |_, _| false })
    }
}

/// The library's own verifier, but for servers that show a certificate which the operator's file holds.
#[derive(Debug)]
pub struct Verifier {
    provider: Arc<CryptoProvider>,
    /// `None` believes every certificate.
    chain: Option<Arc<WebPkiServerVerifier>>,
    own: Vec<CertificateDer<'static>>,
    excuses_name: fn(&[u8], &str) -> bool,
}

impl Verifier {
    /// Believes every certificate: a connection is safe from listeners only.
    pub fn of_anything(provider: &Arc<CryptoProvider>) -> Self {
        Self { provider: Arc::clone(provider), chain: None, own: Vec::new(), excuses_name: |_, _| true }
    }

    /// Believes a certificate that is right but for its names all the same where this says so, given the certificate
    /// as DER and the name of the server.
    #[must_use]
    pub fn excusing_name(self, excuses_name: fn(&[u8], &str) -> bool) -> Self {
        Self { excuses_name, ..self }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        let verified = match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // Its dates were found right before: an authority's certificate that is over is refused for that.
            Err(refused) if is_authority(&refused) && self.own.iter().any(|own| own.as_ref() == end_entity.as_ref()) => {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)
                    .map(|()| ServerCertVerified::assertion())
            }
            verified_or_refused => verified_or_refused,
        };
        match verified {
            // The library looks at the name last.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if (self.excuses_name)(end_entity, &server_name.to_str()) => Ok(ServerCertVerified::assertion()),
            verified_or_refused => verified_or_refused,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether a certificate was refused because it is an authority's (`webpki::Error::CaUsedAsEndEntity`).
fn is_authority(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(CertificateError::Other(other)) if format!("{other:?}").contains("CaUsedAsEndEntity"))
}
