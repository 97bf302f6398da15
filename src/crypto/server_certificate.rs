//! Certificates of TLS servers that are believed because a file of the operator's holds them, be it an authority's or
//! the server's own.
//!
//! A certificate made by `openssl req -x509` calls itself an authority and is used by a server. The TLS library refuses
//! that by principle; curl, libpq and OpenSSL accept it where exactly this certificate is trusted. So do we, and
//! nothing else differs.

use rustls::CertificateError;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;

/// A certificate as a server shows it, with what the library verifies it by.
pub struct Shown<'a> {
    /// The server's.
    pub end_entity: &'a CertificateDer<'a>,
    /// Those that lead to an authority.
    pub intermediates: &'a [CertificateDer<'a>],
    /// Whom we wanted to speak to.
    pub server_name: &'a ServerName<'a>,
    /// Whether it was revoked, as the server tells it.
    pub ocsp_response: &'a [u8],
    /// The time.
    pub now: UnixTime,
}

impl Shown<'_> {
    /// Verifies it: by the library's rules, or because it is one of these, which the operator's file holds.
    ///
    /// # Errors
    /// Why it is refused. The name is looked at last.
    pub fn verify(&self, rules: &WebPkiServerVerifier, own: &[CertificateDer<'_>]) -> Result<ServerCertVerified, rustls::Error> {
        let by_rules =
            rules.verify_server_cert(self.end_entity, self.intermediates, self.server_name, self.ocsp_response, self.now);
        match by_rules {
            // Its dates were found right before: an authority's certificate that is over is refused for that.
            Err(refused) if is_authority(&refused) && own.iter().any(|own| own.as_ref() == self.end_entity.as_ref()) => {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(self.end_entity)?, self.server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified_or_refused => verified_or_refused,
        }
    }
}

/// Whether a certificate was refused because it is an authority's (`webpki::Error::CaUsedAsEndEntity`).
fn is_authority(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(CertificateError::Other(other)) if format!("{other:?}").contains("CaUsedAsEndEntity"))
}
