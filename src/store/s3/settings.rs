//! What the operator says about an S3 store, checked without touching the network.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::crypto::server_certificate::Trusted;
use crate::fsio;
use crate::limits;
use crate::limits::MAX_S3_PREFIX_BYTES;
use crate::store::Key;

/// Where an S3 store is and how to talk to it. It holds no secret: credentials come from the standard AWS chain
/// (environment, shared files, web identity, container and instance metadata) or from
/// [`credentials_file`](Self::credentials_file).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Settings {
    /// The bucket.
    pub bucket: String,
    /// What all object names begin with, without a slash at either end; empty for none.
    pub prefix: String,
    /// `http://…` or `https://…` of a store other than AWS; `None` for what the AWS environment says
    /// (`AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, profile), and AWS itself otherwise.
    pub endpoint: Option<String>,
    /// The region; `None` for what the AWS environment says, and `us-east-1` where there is an endpoint and nothing
    /// else is said.
    pub region: Option<String>,
    /// The profile in the AWS shared files; `None` for `AWS_PROFILE`, and `default` otherwise.
    pub profile: Option<String>,
    /// An AWS shared credentials file (`[default]`, `aws_access_key_id = …`) to use instead of the whole standard
    /// chain.
    pub credentials_file: Option<PathBuf>,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`: most stores other than AWS want it.
    pub path_style: bool,
    /// A PEM file with certificates to trust in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether uploads carry S3's additional checksum.
    pub checksums: Checksums,
    /// Encryption by the store, on top of Walvis' own.
    pub sse: Option<Sse>,
    /// The storage class of new objects, for example `STANDARD_IA`.
    pub storage_class: Option<String>,
    /// How long new objects can't be deleted. The bucket must have been made with object lock.
    pub object_lock: Option<ObjectLock>,
    /// Whether the store honours `If-None-Match: *`. Without it [`create`](crate::store::Store::create) replaces what
    /// is there and must be wrapped by [`claims`](crate::store::claims).
    pub conditional: bool,
    /// Time limit of one request, and of every wait for more of a body.
    pub request_timeout: Duration,
}

/// When uploads carry S3's additional checksum (`x-amz-checksum-crc32c`). The signature covers the content in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checksums {
    /// Always.
    #[default]
    WhenSupported,
    /// Only where S3 insists (object lock): for stores that refuse the header.
    WhenRequired,
}

/// Encryption by the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sse {
    /// `AES256`: under the store's own keys.
    Aes256,
    /// `aws:kms`: under a key of the key management service; `None` for the account's default key.
    Kms {
        /// Key id, ARN or alias.
        key_id: Option<String>,
    },
}

/// Object-lock retention of new objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectLock {
    /// Who may lift it.
    pub mode: LockMode,
    /// Days from the moment of the upload.
    pub retain_days: u32,
}

/// Who may lift a retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Those with `s3:BypassGovernanceRetention`.
    Governance,
    /// Nobody.
    Compliance,
}

/// A setting that can't be used: what is wrong with it, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct InvalidSettings {
    /// One line, without a trailing period.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl InvalidSettings {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl S3Settings {
    /// Settings for `s3://bucket/prefix`, everything else as it is for AWS itself.
    ///
    /// # Errors
    /// What is wrong with the URL. The message repeats no part of a URL that seems to hold a secret.
    pub fn parse_url(url: &str) -> Result<Self, InvalidSettings> {
        const FORM: &str = "the form is s3://bucket/prefix";
        let Some(rest) = url.strip_prefix("s3://") else {
            return Err(InvalidSettings::new("the URL of an S3 repository begins with s3://")
                .hint(format!("{FORM}; the address of a store other than AWS goes into the setting `endpoint`")));
        };
        if rest.contains('@') {
            return Err(InvalidSettings::new("the URL of an S3 repository holds an `@`").hint(
                "credentials do not belong into the URL: use the AWS environment variables, a shared credentials file or a role",
            ));
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(InvalidSettings::new(format!("{url} names no bucket")).hint(FORM));
        }
        let settings = Self {
            bucket: bucket.to_owned(),
            prefix: prefix.strip_suffix('/').unwrap_or(prefix).to_owned(),
            endpoint: None,
            region: None,
            profile: None,
            credentials_file: None,
            path_style: false,
            ca_file: None,
            checksums: Checksums::default(),
            sse: None,
            storage_class: None,
            object_lock: None,
            conditional: true,
            request_timeout: limits::DEFAULT_REQUEST_TIMEOUT,
        };
        settings.check()?;
        Ok(settings)
    }

    /// The repository URL.
    pub fn url(&self) -> String {
        if self.prefix.is_empty() { format!("s3://{}", self.bucket) } else { format!("s3://{}/{}", self.bucket, self.prefix) }
    }

    /// The full object name of a key, or of the beginning of one.
    pub(super) fn full(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.prefix) }
    }

    /// The part of a full object name below the prefix.
    pub(super) fn relative<'k>(&self, full: &'k str) -> Option<&'k str> {
        if self.prefix.is_empty() { Some(full) } else { full.strip_prefix(self.prefix.as_str())?.strip_prefix('/') }
    }

    /// Whether uploads carry the additional checksum.
    pub(super) fn sends_checksum(&self) -> bool {
        self.checksums == Checksums::WhenSupported || self.object_lock.is_some()
    }

    /// Checks everything that can be checked without reading a file or asking the store.
    ///
    /// # Errors
    /// The first setting that can't be used.
    pub fn check(&self) -> Result<(), InvalidSettings> {
        let bucket_ok = (3..=255).contains(&self.bucket.len())
            && self.bucket.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
            && self.bucket.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if !bucket_ok {
            return Err(InvalidSettings::new(format!("{:?} is not a bucket name", self.bucket))
                .hint("a bucket name has 3 to 63 lower-case letters, digits, dots and hyphens"));
        }
        if !self.prefix.is_empty() && (Key::new(self.prefix.as_str()).is_err() || self.prefix.len() > MAX_S3_PREFIX_BYTES) {
            return Err(InvalidSettings::new(format!("{:?} is not a prefix for objects", self.prefix)).hint(format!(
                "parts of letters, digits, `.`, `_` and `-`, none empty or beginning with a dot, between single slashes; at most \
                 {MAX_S3_PREFIX_BYTES} bytes"
            )));
        }
        if let Some(endpoint) = &self.endpoint {
            check_endpoint(endpoint)?;
        }
        if let Some(lock) = self.object_lock
            && !(1..=limits::MAX_RETAIN_DAYS).contains(&lock.retain_days)
        {
            return Err(InvalidSettings::new(format!("an object lock of {} days is not possible", lock.retain_days))
                .hint(format!("choose 1 to {} days", limits::MAX_RETAIN_DAYS)));
        }
        for (name, value) in [("region", &self.region), ("profile", &self.profile), ("storage class", &self.storage_class)] {
            if value.as_deref().is_some_and(|v| v.is_empty() || v.chars().any(|c| c.is_control() || c.is_whitespace())) {
                return Err(InvalidSettings::new(format!("the {name} is empty or holds a space")));
            }
        }
        if self.request_timeout.is_zero() {
            return Err(InvalidSettings::new("the request timeout is zero"));
        }
        Ok(())
    }

    /// The PEM text of the CA file, proven to be parsable by the TLS library (which would panic on it otherwise). Where
    /// none is configured it is the one that `AWS_CA_BUNDLE` names.
    pub(super) fn read_ca_file(&self) -> Result<Option<Vec<u8>>, InvalidSettings> {
        let of_the_environment = || std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()).map(PathBuf::from);
        let Some(path) = &self.ca_file.clone().or_else(of_the_environment) else { return Ok(None) };
        let bad = |what: fmt::Arguments<'_>| {
            InvalidSettings::new(format!("cannot use the CA file {}: {what}", path.display())).hint(
                "`ca_file`, or AWS_CA_BUNDLE where it is not set, must name a readable PEM file with the certificate of the authority (-----BEGIN CERTIFICATE-----)",
            )
        };
        let pem = fsio::read_bounded(path, limits::MAX_SMALL_OBJECT_BYTES).map_err(|e| bad(format_args!("{e}")))?;
        Trusted::nothing().add(&pem).map_err(|e| bad(format_args!("it {e}")))?;
        Ok(Some(pem))
    }
}

/// Whether `endpoint` is `http[s]://host[:port]` with nothing behind but a path.
pub(super) fn check_endpoint(endpoint: &str) -> Result<(), InvalidSettings> {
    const HINT: &str = "the form is https://host[:port], without bucket or credentials";
    let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
    let Some(rest) = rest else {
        return Err(InvalidSettings::new("the S3 endpoint begins with neither https:// nor http://").hint(HINT));
    };
    if rest.contains('@') {
        return Err(InvalidSettings::new("the S3 endpoint holds an `@`").hint(HINT));
    }
    let host = rest.split('/').next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    if host.is_empty() || !host.chars().all(plain) || rest.contains(['?', '#', ' ']) {
        return Err(InvalidSettings::new(format!("{endpoint:?} is not the address of an S3 store")).hint(HINT));
    }
    Ok(())
}

/// Whether an endpoint is on this host.
pub(super) fn is_loopback(endpoint: &str) -> bool {
    let authority = endpoint.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback() {
        for local in ["http://127.0.0.1:9000", "https://localhost", "http://[::1]:1/x"] {
            assert!(is_loopback(local), "{local}");
        }
        for remote in ["https://s3.example.org/127.0.0.1", "http://10.0.0.1", "https://localhost.example.org", "x"] {
            assert!(!is_loopback(remote), "{remote}");
        }
    }

    fn wrong(url: &str) -> String {
        let error = S3Settings::parse_url(url).unwrap_err();
        format!("{} ({})", error.what, error.hint.unwrap_or_default())
    }

    #[test]
    fn urls() {
        for (url, bucket, prefix) in [
            ("s3://backups", "backups", ""),
            ("s3://backups/", "backups", ""),
            ("s3://my.backups/pg/main", "my.backups", "pg/main"),
            ("s3://backups/pg/", "backups", "pg"),
        ] {
            let settings = S3Settings::parse_url(url).unwrap();
            assert_eq!((settings.bucket.as_str(), settings.prefix.as_str()), (bucket, prefix), "{url}");
            assert_eq!(S3Settings::parse_url(&settings.url()).unwrap(), settings);
        }
        for (url, expected) in [
            ("https://b.s3.amazonaws.com", "begins with s3://"),
            ("s3:///pg", "names no bucket"),
            ("s3://", "names no bucket"),
            ("s3://ab", "not a bucket name"),
            ("s3://bücket/x", "not a bucket name"),
            ("s3://-bucket/x", "not a bucket name"),
            ("s3://bucket//x", "not a prefix"),
            ("s3://bucket/a//b", "not a prefix"),
            ("s3://bucket/../b", "not a prefix"),
            ("s3://bucket/a b", "not a prefix"),
            ("s3://bucket/a?region=x", "not a prefix"),
        ] {
            assert!(wrong(url).contains(expected), "{url}: {}", wrong(url));
        }
        assert!(!wrong("s3://AKIA:secret@bucket/x").contains("secret"));
        assert!(S3Settings::parse_url(&format!("s3://bucket/{}", "x".repeat(MAX_S3_PREFIX_BYTES))).is_ok());
        assert!(S3Settings::parse_url(&format!("s3://bucket/{}", "x".repeat(MAX_S3_PREFIX_BYTES + 1))).is_err());
    }

    #[test]
    fn endpoints() {
        for good in ["http://127.0.0.1:9000", "https://s3.example.org", "https://[::1]:9000/", "https://gw.example.org/s3"] {
            assert_eq!(check_endpoint(good), Ok(()), "{good}");
        }
        for bad in ["s3.example.org", "ftp://x", "http://", "https://u:hidden@x", "https://x?y", "https://a b", "https:///x"] {
            let error = check_endpoint(bad).unwrap_err();
            assert!(!error.what.contains("hidden"), "{bad}");
        }
    }

    #[test]
    fn names_below_the_prefix() {
        let plain = S3Settings::parse_url("s3://bucket").unwrap();
        assert_eq!(plain.full("a/b"), "a/b");
        assert_eq!(plain.relative("a/b"), Some("a/b"));
        let below = S3Settings::parse_url("s3://bucket/pg/main").unwrap();
        assert_eq!(below.full("a/b"), "pg/main/a/b");
        assert_eq!(below.relative("pg/main/a/b"), Some("a/b"));
        assert_eq!(below.relative("pg/mainframe/a"), None);
        assert_eq!(below.relative("other"), None);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test's own file")]
    fn ca_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let settings = S3Settings { ca_file: Some(path.clone()), ..S3Settings::parse_url("s3://bucket").unwrap() };
        let reason = |content: Option<&str>| {
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            settings.read_ca_file().unwrap_err().what
        };
        assert!(reason(None).contains("No such file"));
        assert!(reason(Some("not a certificate")).contains("holds no certificate"));
        let block = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        assert!(reason(Some(&block("%%%%"))).contains("damaged PEM"));
        assert!(reason(Some(&block("AAAA"))).contains("damaged certificate"));
    }
}
