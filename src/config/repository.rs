//! One repository: from what somebody set to checked settings.
//!
//! Lives here: what the settings of a repository mean, and which go together. May not live here: opening it. Depends on
//! `definitions`, `given`, `invalid`, `values` and `s3`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::definitions::{
    COMPRESSION_LEVEL, CREATE_IF_ABSENT, DEFAULT_BACKUP_COMPRESSION_LEVEL, DEFAULT_COMPRESSION_LEVEL, ID, KEY_COMMAND, KEY_FILE,
    KEY_SOURCES, OPTIONAL, PASSPHRASE, PASSPHRASE_FILE, REQUEST_TIMEOUT, URL,
};
use super::given::{Given, Item};
use super::invalid::config_error;
use super::retention::{self, Retention};
use super::s3;
use super::setting::Table;
use super::values::{OfRepository, seconds};
use crate::crypto::KnownRepository;
use crate::error::Error;
use crate::format::descriptor::CreateIfAbsent;
use crate::repo::{KeySource, StoreSettings, StoreUrl};

/// One repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryConfig {
    /// Where it is.
    pub store: StoreSettings,
    /// Its key.
    pub key: KeySource,
    /// Whether a push may succeed without it.
    pub optional: bool,
    /// zstd level of WAL.
    pub compression_level: i32,
    /// zstd level of base backups.
    pub backup_compression_level: i32,
    /// What is kept.
    pub retention: Retention,
}

/// Whether the settings of a repository name a key.
pub(super) fn has_key(given: &Given) -> bool {
    KEY_SOURCES.into_iter().any(|setting| given.has(setting))
}

/// Gives a repository this key, in place of what it had.
pub(super) fn set_key(given: &mut Given, key: &Item) {
    KEY_SOURCES.into_iter().for_each(|setting| given.remove(setting));
    given.give(key.setting, key.value.clone(), key.origin);
}

/// Checks the settings of a repository. `timeout` is that of the whole command.
pub(super) fn check(given: &Given, timeout: Duration) -> Result<RepositoryConfig, Error> {
    let Some(url) = given.text(&URL) else {
        return Err(config_error("a [[repository]] has no url").hint("write url = \"file:///path\" or \"s3://bucket/prefix\""));
    };
    // Not repeated: what stands before the '@' may be a password.
    if url.split_once("://").is_some_and(|(_, rest)| rest.split('/').next().unwrap_or_default().contains('@')) {
        return Err(config_error("the URL of a repository holds an '@'")
            .hint("credentials do not belong into it: use the AWS environment variables, a shared credentials file or a role"));
    }
    let of_url = OfRepository { given, url };
    let compression_level = match of_url.whole(&COMPRESSION_LEVEL)? {
        Some(level) => Some(i32::try_from(level).map_err(|_| of_url.wrong(&COMPRESSION_LEVEL, level))?),
        None => None,
    };
    let create_if_absent = match of_url.choice(&CREATE_IF_ABSENT)? {
        Some("store") => Some(CreateIfAbsent::Store),
        Some("claims") => Some(CreateIfAbsent::Claims),
        _ => None,
    };
    let known = match given.text(&ID) {
        None => None,
        Some(text) => Some(KnownRepository::parse(text).ok_or_else(|| {
            config_error(format!("id of {url} is {text:?}"))
                .hint("give what 'walvis init' prints: 32 hexadecimal digits, and perhaps a colon and a number")
        })?),
    };
    let request_timeout = seconds(given, &REQUEST_TIMEOUT)?.min(timeout);
    Ok(RepositoryConfig {
        store: StoreSettings { url: store_url(&of_url, request_timeout)?, create_if_absent, known },
        key: key(given, url)?,
        optional: given.truth(&OPTIONAL).unwrap_or(false),
        compression_level: compression_level.unwrap_or(DEFAULT_COMPRESSION_LEVEL),
        backup_compression_level: compression_level.unwrap_or(DEFAULT_BACKUP_COMPRESSION_LEVEL),
        retention: retention::check(&of_url)?,
    })
}

fn key(given: &Given, url: &str) -> Result<KeySource, Error> {
    let path = |setting| given.path(setting).map(Path::to_owned);
    let sources = [
        path(&KEY_FILE).map(KeySource::File),
        given.text(&KEY_COMMAND).map(|command| KeySource::Command(command.to_owned())),
        path(&PASSPHRASE_FILE).map(KeySource::PassphraseFile),
        given.has(&PASSPHRASE).then_some(KeySource::PassphraseEnvironment),
    ];
    let mut sources: Vec<KeySource> = sources.into_iter().flatten().collect();
    if sources.len() > 1 {
        let keys: Vec<&str> =
            KEY_SOURCES.into_iter().filter(|setting| setting.is_in_file()).map(|setting| setting.name).collect();
        return Err(
            config_error(format!("repository {url} has more than one key")).hint(format!("keep one of {}", keys.join(", ")))
        );
    }
    Ok(sources.pop().unwrap_or(KeySource::None))
}

fn store_url(of_url: &OfRepository<'_>, request_timeout: Duration) -> Result<StoreUrl, Error> {
    let url = of_url.url;
    if let Some(path) = url.strip_prefix("file://") {
        if !path.starts_with('/') {
            return Err(config_error(format!("{url}: the path is not absolute")).hint("write file:///path, with three slashes"));
        }
        if let Some(setting) = of_url.given.first_of(Table::S3) {
            return Err(config_error(format!("{url} has the S3 setting {}", setting.name)).hint("remove it, or use an s3:// URL"));
        }
        return Ok(StoreUrl::File(PathBuf::from(path)));
    }
    if url.starts_with("s3://") {
        return s3::check(of_url, request_timeout);
    }
    Err(config_error(format!("{url:?} is not the URL of a repository")).hint("write file:///path or s3://bucket/prefix"))
}
