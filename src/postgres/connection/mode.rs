//! `sslmode`: whether TLS is spoken, and what of the server's certificate is believed.

use super::conninfo::Conninfo;
use crate::error::{Error, Kind};

/// From nothing to everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

const MODES: [(&str, Mode); 6] = [
    ("disable", Mode::Disable),
    ("allow", Mode::Allow),
    ("prefer", Mode::Prefer),
    ("require", Mode::Require),
    ("verify-ca", Mode::VerifyCa),
    ("verify-full", Mode::VerifyFull),
];

impl Mode {
    /// # Errors
    /// [`Kind::Config`].
    pub(super) fn of(info: &Conninfo) -> Result<Self, Error> {
        let wrong = |what: String, hint: &str| Err(Error::new(Kind::Config, what).hint(hint));
        let is_system = info.get("sslrootcert") == Some("system");
        let Some(text) = info.get("sslmode") else { return Ok(if is_system { Self::VerifyFull } else { Self::Prefer }) };
        let Some((_, mode)) = MODES.iter().find(|(name, _)| *name == text) else {
            let names = MODES.map(|(name, _)| name).join(", ");
            return wrong("sslmode is none that libpq knows".to_owned(), &format!("it is one of {names}"));
        };
        if is_system && *mode != Self::VerifyFull {
            return wrong(
                format!("sslmode={text} with sslrootcert=system trusts everybody who has a certificate of any authority"),
                "say sslmode=verify-full",
            );
        }
        if let Some(version) = info.get("ssl_min_protocol_version").filter(|version| !version.starts_with("TLSv1")) {
            return wrong(format!("ssl_min_protocol_version={version}"), "it is TLSv1.2 or TLSv1.3");
        }
        Ok(*mode)
    }

    #[cfg(feature = "tls")]
    pub(super) fn as_str(self) -> &'static str {
        MODES.iter().find(|(_, mode)| *mode == self).map_or("", |(name, _)| name)
    }

    /// Whether a connection without TLS is out of the question.
    pub(super) fn insists(self) -> bool {
        self >= Self::Require
    }

    /// Whether there is no connection without certificates to believe.
    #[cfg(feature = "tls")]
    pub(super) fn verifies(self) -> bool {
        self >= Self::VerifyCa
    }

    /// What is tried, one after the other.
    pub(super) fn attempts(self) -> &'static [tokio_postgres::config::SslMode] {
        use tokio_postgres::config::SslMode;
        match self {
            Self::Disable => &[SslMode::Disable],
            Self::Allow => &[SslMode::Disable, SslMode::Require],
            Self::Prefer => &[SslMode::Prefer, SslMode::Disable],
            Self::Require | Self::VerifyCa | Self::VerifyFull => &[SslMode::Require],
        }
    }
}
