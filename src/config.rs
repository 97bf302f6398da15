//! Settings: file < environment < flags → one validated [`Config`].
//!
//! Lives here: the TOML file, the environment variables, defaults, checks, suggestions for misspelt keys. May not live here: flags
//! (`cli` hands them over as [`Overrides`]), anything that opens a repository. Raw and validated settings are different types.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::crypto::KnownRepository;
use crate::error::{Error, Kind};
use crate::format::descriptor::CreateIfAbsent;
use crate::fsio;
use crate::limits::{DEFAULT_REQUEST_TIMEOUT, DEFAULT_TIMEOUT, MAX_TIMEOUT};
use crate::pg::target::Zone;
use crate::repo::{ClusterName, KeySource, StoreSettings, StoreUrl};
#[cfg(feature = "s3")]
use crate::store::s3::{Checksums, LockMode, ObjectLock, S3Settings, Sse};

mod trusted;

/// Where the settings file is looked for when none is named.
pub const DEFAULT_FILE: &str = "/etc/walvis/walvis.toml";
/// The cluster name when none is given.
pub const DEFAULT_CLUSTER: &str = "main";
/// zstd level when none is given: the fastest of the standard ones; WAL is written faster than it is read.
pub const DEFAULT_COMPRESSION_LEVEL: i32 = 1;
/// zstd level of base backups when none is given: they are kept longer than WAL and nobody waits for them.
pub const DEFAULT_BACKUP_COMPRESSION_LEVEL: i32 = 3;
const MAX_FILE_BYTES: usize = 1024 * 1024;

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--repository`.
    pub repository: Option<String>,
    /// `--cluster`.
    pub cluster: Option<String>,
    /// `--key-file`.
    pub key_file: Option<PathBuf>,
    /// `--timeout`.
    pub timeout_s: Option<u64>,
    /// `--server`.
    pub server: Option<String>,
}

/// Everything, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which cluster.
    pub cluster: ClusterName,
    /// At least one.
    pub repositories: Vec<RepositoryConfig>,
    /// Time limit of a command.
    pub timeout: Duration,
    /// How `check` connects to the server; a libpq connection string.
    pub server: Option<String>,
    /// Where calls leave to later calls what was done ahead.
    pub spool: SpoolPlace,
    /// The zone of times that are given without one; without it they are refused.
    pub zone: Option<Zone>,
}

/// Where the spool is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SpoolPlace {
    /// In `walvis` beside the WAL files.
    #[default]
    BesideWal,
    /// Below this directory.
    At(PathBuf),
    /// Nowhere: nothing is done ahead.
    Off,
}

/// One repository.
#[derive(Debug, Clone)]
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
}

#[derive(Debug, Default, Deserialize)]
struct RawFile {
    cluster: Option<String>,
    timeout_s: Option<u64>,
    server: Option<String>,
    spool: Option<String>,
    zone: Option<String>,
    #[serde(default)]
    repository: Vec<RawRepository>,
}

#[derive(Debug, Default, Deserialize)]
struct RawRepository {
    url: Option<String>,
    id: Option<String>,
    key_file: Option<PathBuf>,
    key_command: Option<String>,
    passphrase_file: Option<PathBuf>,
    optional: Option<bool>,
    compression_level: Option<i32>,
    request_timeout_s: Option<u64>,
    create_if_absent: Option<String>,
    #[serde(default)]
    s3: RawS3,
    /// The key comes from `WALVIS_PASSPHRASE`.
    #[serde(skip)]
    passphrase_environment: bool,
}

#[derive(Debug, Default, Deserialize)]
struct RawS3 {
    endpoint: Option<String>,
    region: Option<String>,
    profile: Option<String>,
    credentials_file: Option<PathBuf>,
    path_style: Option<bool>,
    ca_file: Option<PathBuf>,
    checksums: Option<String>,
    sse: Option<String>,
    sse_kms_key_id: Option<String>,
    storage_class: Option<String>,
    object_lock_mode: Option<String>,
    object_lock_days: Option<u32>,
}

/// Every key of the file, for suggestions.
const KNOWN_KEYS: [&str; 28] = [
    "cluster",
    "timeout_s",
    "server",
    "spool",
    "zone",
    "repository",
    "url",
    "id",
    "key_file",
    "key_command",
    "passphrase_file",
    "optional",
    "compression_level",
    "request_timeout_s",
    "create_if_absent",
    "s3",
    "endpoint",
    "region",
    "profile",
    "credentials_file",
    "path_style",
    "ca_file",
    "checksums",
    "sse",
    "sse_kms_key_id",
    "storage_class",
    "object_lock_mode",
    "object_lock_days",
];

/// The environment, as a function so that tests need not change the process's.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Set for the helpers that a call leaves behind, and for them only.
pub const HELPER_VARIABLE: &str = "WALVIS_HELPER";

/// Every environment variable that is read.
pub const KNOWN_VARIABLES: [&str; 18] = [
    "WALVIS_CONFIG",
    "WALVIS_REPOSITORY",
    "WALVIS_REPOSITORY_ID",
    "WALVIS_CLUSTER",
    "WALVIS_KEY_FILE",
    "WALVIS_KEY_COMMAND",
    "WALVIS_PASSPHRASE_FILE",
    "WALVIS_PASSPHRASE",
    "WALVIS_TIMEOUT_S",
    "WALVIS_REQUEST_TIMEOUT_S",
    "WALVIS_SERVER",
    "WALVIS_SPOOL",
    "WALVIS_ZONE",
    "WALVIS_LOG",
    "WALVIS_S3_ENDPOINT",
    "WALVIS_S3_REGION",
    "WALVIS_S3_PATH_STYLE",
    "WALVIS_S3_CA_FILE",
];

fn config_error(what: impl Into<String>) -> Error {
    Error::new(Kind::Config, what)
}

impl Config {
    /// Reads and checks all settings. `names` are the variables that are set, for the warning about misspelt ones.
    ///
    /// # Errors
    /// [`Kind::Config`], naming file, key and what would be right.
    pub fn load(overrides: &Overrides, env: Environment<'_>, names: &[String]) -> Result<Self, Error> {
        warn_about_unknown_variables(names);
        let mut file = read_file(overrides, env)?;
        let url = overrides.repository.clone().or_else(|| env("WALVIS_REPOSITORY"));
        if let Some(url) = url {
            select_repository(&mut file, &url);
        }
        apply_environment(&mut file, env)?;
        apply_key(&mut file, overrides, env)?;
        let cluster = overrides.cluster.clone().or_else(|| env("WALVIS_CLUSTER")).or(file.cluster);
        let timeout_s = match overrides.timeout_s {
            Some(seconds) => Some(seconds),
            None => number(env, "WALVIS_TIMEOUT_S")?.or(file.timeout_s),
        };
        let timeout = seconds("timeout_s", timeout_s, DEFAULT_TIMEOUT)?;
        if file.repository.is_empty() {
            return Err(config_error("no repository is configured").hint(format!(
                "set WALVIS_REPOSITORY=file:///path or s3://bucket/prefix, or write [[repository]] url = \"…\" into {DEFAULT_FILE}"
            )));
        }
        let repositories =
            file.repository.into_iter().map(|raw| raw.check(timeout)).collect::<Result<Vec<RepositoryConfig>, Error>>()?;
        let mut urls = BTreeSet::new();
        for repository in &repositories {
            #[cfg(feature = "s3")]
            if let StoreUrl::S3(settings) = &repository.store.url {
                trusted::check_aws_files(settings.credentials_file.as_deref(), env)?;
            }
            if !urls.insert(repository.store.location()) {
                return Err(config_error(format!("repository {} is configured twice", repository.store.location())));
            }
        }
        Ok(Self {
            cluster: ClusterName::new(cluster.as_deref().unwrap_or(DEFAULT_CLUSTER))?,
            repositories,
            timeout,
            server: overrides.server.clone().or_else(|| env("WALVIS_SERVER")).or(file.server),
            spool: spool(env("WALVIS_SPOOL").or(file.spool))?,
            zone: env("WALVIS_ZONE").or(file.zone).map(|text| zone(&text)).transpose()?,
        })
    }
}

fn spool(text: Option<String>) -> Result<SpoolPlace, Error> {
    match text.as_deref() {
        None => Ok(SpoolPlace::default()),
        Some("off") => Ok(SpoolPlace::Off),
        Some(path) if path.starts_with('/') => Ok(SpoolPlace::At(path.into())),
        Some(other) => Err(config_error(format!("spool is {other:?}")).hint("give the absolute path of a directory, or off")),
    }
}

fn zone(text: &str) -> Result<Zone, Error> {
    Zone::parse(text).map_err(|e| config_error(format!("zone: {}", e.what)).hint(e.hint))
}

fn warn_about_unknown_variables(names: &[String]) {
    for name in names {
        let known = KNOWN_VARIABLES.contains(&name.as_str());
        if name.starts_with("WALVIS_")
            && !name.starts_with("WALVIS_TEST_")
            && !["WALVIS_BIN", HELPER_VARIABLE].contains(&name.as_str())
            && !known
        {
            let closest = closest(name, &KNOWN_VARIABLES).map_or_else(String::new, |near| format!("; did you mean {near}?"));
            tracing::warn!("environment variable {name} is not known and has no effect{closest}");
        }
    }
}

fn read_file(overrides: &Overrides, env: Environment<'_>) -> Result<RawFile, Error> {
    let named = overrides.config.clone().or_else(|| env("WALVIS_CONFIG").map(PathBuf::from));
    let path = named.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    trusted::check("the settings in", &path, "name another file with --config or WALVIS_CONFIG")?;
    let bytes = match fsio::read_bounded(&path, MAX_FILE_BYTES) {
        Ok(bytes) => bytes,
        Err(e) if e.problem == fsio::Problem::Absent && named.is_none() => return Ok(RawFile::default()),
        Err(e) => {
            return Err(config_error(format!("settings: {e}"))
                .hint(e.hint.unwrap_or_else(|| "name a readable file with --config or WALVIS_CONFIG".to_owned())));
        }
    };
    let text = String::from_utf8(bytes).map_err(|_| config_error(format!("{} is not UTF-8 text", path.display())))?;
    parse_file(&text, &path)
}

fn parse_file(text: &str, path: &Path) -> Result<RawFile, Error> {
    let syntax = |e: toml::de::Error| {
        config_error(format!("{}: {}{}", path.display(), place_in(text, &e), e.message()))
            .hint("see the example in docs/SETTINGS.md; values are TOML: text in quotes, numbers and true/false without")
    };
    let mut unknown = Vec::new();
    let deserializer = toml::Deserializer::parse(text).map_err(syntax)?;
    let file = serde_ignored::deserialize(deserializer, |key| unknown.push(key.to_string())).map_err(syntax)?;
    if let Some(path_of_key) = unknown.first() {
        let name = path_of_key.rsplit('.').next().unwrap_or_default();
        let hint = closest(name, &KNOWN_KEYS)
            .map_or_else(|| format!("known keys: {}", KNOWN_KEYS.join(", ")), |near| format!("did you mean {near}?"));
        return Err(config_error(format!("{}: unknown key {path_of_key}", path.display())).hint(hint));
    }
    Ok(file)
}

/// The line of an error and the key in it. Not the line itself: a connection string may hold a password.
fn place_in(text: &str, error: &toml::de::Error) -> String {
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else { return String::new() };
    let number = before.matches('\n').count();
    let key = text.lines().nth(number).and_then(|line| line.split_once('=')).map(|(key, _)| key.trim());
    let key = key.filter(|key| !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.')));
    format!("line {}: {}", number + 1, key.map_or_else(String::new, |key| format!("{key}: ")))
}

fn closest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), *candidate))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// A URL from flag or environment: the configured repository of that URL with its settings, or a new one. Only this one is left.
fn select_repository(file: &mut RawFile, url: &str) {
    let wanted = url.trim_end_matches('/');
    let position = file.repository.iter().position(|r| r.url.as_deref().is_some_and(|u| u.trim_end_matches('/') == wanted));
    let repository = match position {
        Some(position) => file.repository.swap_remove(position),
        None => RawRepository { url: Some(url.to_owned()), ..RawRepository::default() },
    };
    file.repository = vec![repository];
}

/// Settings of the one repository from the environment. With several repositories they would be ambiguous, and are an error.
fn apply_environment(file: &mut RawFile, env: Environment<'_>) -> Result<(), Error> {
    let several = file.repository.len() > 1;
    let mut set = |name: &'static str, apply: &mut dyn FnMut(&mut RawRepository, String) -> Result<(), Error>| match env(name) {
        None => Ok(()),
        Some(_) if several => Err(config_error(format!("{name} is set, and there are several repositories"))
            .hint("set it per repository in the settings file, or choose one repository with --repository")),
        Some(value) => file.repository.first_mut().map_or(Ok(()), |repository| apply(repository, value)),
    };
    set("WALVIS_REPOSITORY_ID", &mut |r, v| {
        r.id = Some(v);
        Ok(())
    })?;
    set("WALVIS_S3_ENDPOINT", &mut |r, v| {
        r.s3.endpoint = Some(v);
        Ok(())
    })?;
    set("WALVIS_S3_REGION", &mut |r, v| {
        r.s3.region = Some(v);
        Ok(())
    })?;
    set("WALVIS_S3_CA_FILE", &mut |r, v| {
        r.s3.ca_file = Some(PathBuf::from(v));
        Ok(())
    })?;
    set("WALVIS_S3_PATH_STYLE", &mut |r, v| {
        r.s3.path_style = Some(match v.as_str() {
            "true" | "1" | "yes" => true,
            "false" | "0" | "no" => false,
            other => return Err(config_error(format!("WALVIS_S3_PATH_STYLE is {other:?}")).hint("use true or false")),
        });
        Ok(())
    })?;
    if let Some(seconds) = number(env, "WALVIS_REQUEST_TIMEOUT_S")? {
        for repository in &mut file.repository {
            repository.request_timeout_s = Some(seconds);
        }
    }
    Ok(())
}

/// The key: a flag beats the environment, which beats the file; within one of these there may be only one.
fn apply_key(file: &mut RawFile, overrides: &Overrides, env: Environment<'_>) -> Result<(), Error> {
    let mut keys = Vec::new();
    if let Some(path) = &overrides.key_file {
        keys.push(KeySource::File(path.clone()));
    } else {
        keys.extend(env("WALVIS_KEY_FILE").map(|path| KeySource::File(path.into())));
        keys.extend(env("WALVIS_KEY_COMMAND").map(KeySource::Command));
        keys.extend(env("WALVIS_PASSPHRASE_FILE").map(|path| KeySource::PassphraseFile(path.into())));
        keys.extend(env("WALVIS_PASSPHRASE").map(|_| KeySource::PassphraseEnvironment));
    }
    if keys.len() > 1 {
        return Err(config_error("more than one key is set in the environment")
            .hint("set one of WALVIS_KEY_FILE, WALVIS_KEY_COMMAND, WALVIS_PASSPHRASE_FILE, WALVIS_PASSPHRASE"));
    }
    let Some(key) = keys.pop() else { return Ok(()) };
    // One key can serve all repositories that the file gives none.
    let single = file.repository.len() == 1;
    for repository in file.repository.iter_mut().filter(|r| single || !r.has_key()) {
        repository.set_key(&key);
    }
    Ok(())
}

fn number(env: Environment<'_>, name: &str) -> Result<Option<u64>, Error> {
    env(name)
        .map(|text| text.parse().map_err(|_| config_error(format!("{name} is {text:?}")).hint("give a whole number of seconds")))
        .transpose()
}

fn seconds(name: &str, value: Option<u64>, default: Duration) -> Result<Duration, Error> {
    match value {
        None => Ok(default),
        Some(seconds) if (1..=MAX_TIMEOUT.as_secs()).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        Some(seconds) => {
            Err(config_error(format!("{name} is {seconds}")).hint(format!("give 1 to {} seconds", MAX_TIMEOUT.as_secs())))
        }
    }
}

impl RawRepository {
    fn has_key(&self) -> bool {
        self.key_file.is_some() || self.key_command.is_some() || self.passphrase_file.is_some() || self.passphrase_environment
    }

    fn set_key(&mut self, key: &KeySource) {
        (self.key_file, self.key_command, self.passphrase_file, self.passphrase_environment) = match key {
            KeySource::File(path) => (Some(path.clone()), None, None, false),
            KeySource::Command(command) => (None, Some(command.clone()), None, false),
            KeySource::PassphraseFile(path) => (None, None, Some(path.clone()), false),
            KeySource::PassphraseEnvironment => (None, None, None, true),
            KeySource::None => (None, None, None, false),
        };
    }

    fn check(self, timeout: Duration) -> Result<RepositoryConfig, Error> {
        let Some(url) = self.url.clone() else {
            return Err(
                config_error("a [[repository]] has no url").hint("write url = \"file:///path\" or \"s3://bucket/prefix\"")
            );
        };
        // Not repeated: what stands before the '@' may be a password.
        if url.split_once("://").is_some_and(|(_, rest)| rest.split('/').next().unwrap_or_default().contains('@')) {
            return Err(config_error("the URL of a repository holds an '@'").hint(
                "credentials do not belong into it: use the AWS environment variables, a shared credentials file or a role",
            ));
        }
        let keys = [
            self.key_file.clone().map(KeySource::File),
            self.key_command.clone().map(KeySource::Command),
            self.passphrase_file.clone().map(KeySource::PassphraseFile),
            self.passphrase_environment.then_some(KeySource::PassphraseEnvironment),
        ];
        let mut keys: Vec<KeySource> = keys.into_iter().flatten().collect();
        if keys.len() > 1 {
            return Err(config_error(format!("repository {url} has more than one key"))
                .hint("keep one of key_file, key_command, passphrase_file"));
        }
        let compression_level = self.compression_level.unwrap_or(DEFAULT_COMPRESSION_LEVEL);
        if !(1..=19).contains(&compression_level) {
            return Err(config_error(format!("compression_level of {url} is {compression_level}")).hint("give 1 to 19"));
        }
        let create_if_absent = match self.create_if_absent.as_deref() {
            None | Some("auto") => None,
            Some("store") => Some(CreateIfAbsent::Store),
            Some("claims") => Some(CreateIfAbsent::Claims),
            Some(other) => {
                return Err(config_error(format!("create_if_absent of {url} is {other:?}")).hint("use auto, store or claims"));
            }
        };
        let known = match self.id.as_deref() {
            None => None,
            Some(text) => Some(KnownRepository::parse(text).ok_or_else(|| {
                config_error(format!("id of {url} is {text:?}"))
                    .hint("give what 'walvis init' prints: 32 hexadecimal digits, and perhaps a colon and a number")
            })?),
        };
        let request_timeout = seconds("request_timeout_s", self.request_timeout_s, DEFAULT_REQUEST_TIMEOUT)?.min(timeout);
        Ok(RepositoryConfig {
            store: StoreSettings { url: self.store_url(&url, request_timeout)?, create_if_absent, known },
            key: keys.pop().unwrap_or(KeySource::None),
            optional: self.optional.unwrap_or(false),
            compression_level,
            backup_compression_level: self.compression_level.unwrap_or(DEFAULT_BACKUP_COMPRESSION_LEVEL),
        })
    }

    fn store_url(&self, url: &str, request_timeout: Duration) -> Result<StoreUrl, Error> {
        if let Some(path) = url.strip_prefix("file://") {
            if !path.starts_with('/') {
                return Err(
                    config_error(format!("{url}: the path is not absolute")).hint("write file:///path, with three slashes")
                );
            }
            if let Some(key) = self.s3.any() {
                return Err(config_error(format!("{url} has the S3 setting {key}")).hint("remove it, or use an s3:// URL"));
            }
            return Ok(StoreUrl::File(PathBuf::from(path)));
        }
        if url.starts_with("s3://") {
            return self.s3.check(url, request_timeout);
        }
        Err(config_error(format!("{url:?} is not the URL of a repository")).hint("write file:///path or s3://bucket/prefix"))
    }
}

impl RawS3 {
    /// The first of its keys that is set.
    fn any(&self) -> Option<&'static str> {
        [
            ("endpoint", self.endpoint.is_some()),
            ("region", self.region.is_some()),
            ("profile", self.profile.is_some()),
            ("credentials_file", self.credentials_file.is_some()),
            ("path_style", self.path_style.is_some()),
            ("ca_file", self.ca_file.is_some()),
            ("checksums", self.checksums.is_some()),
            ("sse", self.sse.is_some()),
            ("sse_kms_key_id", self.sse_kms_key_id.is_some()),
            ("storage_class", self.storage_class.is_some()),
            ("object_lock_mode", self.object_lock_mode.is_some()),
            ("object_lock_days", self.object_lock_days.is_some()),
        ]
        .into_iter()
        .find_map(|(key, is_set)| is_set.then_some(key))
    }

    #[cfg(not(feature = "s3"))]
    fn check(&self, url: &str, _request_timeout: Duration) -> Result<StoreUrl, Error> {
        Err(config_error(format!("{url}: this program was built without S3")).hint("build it with the feature s3"))
    }

    #[cfg(feature = "s3")]
    fn check(&self, url: &str, request_timeout: Duration) -> Result<StoreUrl, Error> {
        let bad = |key: &str, value: &str, hint: &str| config_error(format!("{key} of {url} is {value:?}")).hint(hint.to_owned());
        let checksums = match self.checksums.as_deref() {
            None | Some("when-supported") => Checksums::WhenSupported,
            Some("when-required") => Checksums::WhenRequired,
            Some(other) => return Err(bad("checksums", other, "use when-supported or when-required")),
        };
        let sse = match (self.sse.as_deref(), &self.sse_kms_key_id) {
            (None, None) => None,
            (Some("AES256"), None) => Some(Sse::Aes256),
            (Some("aws:kms") | None, key_id) => Some(Sse::Kms { key_id: key_id.clone() }),
            (Some("AES256"), Some(_)) => return Err(bad("sse", "AES256", "sse_kms_key_id goes with aws:kms")),
            (Some(other), _) => return Err(bad("sse", other, "use AES256 or aws:kms")),
        };
        let object_lock = match (self.object_lock_mode.as_deref(), self.object_lock_days) {
            (None, None) => None,
            (Some("governance" | "GOVERNANCE"), Some(retain_days)) => {
                Some(ObjectLock { mode: LockMode::Governance, retain_days })
            }
            (Some("compliance" | "COMPLIANCE"), Some(retain_days)) => {
                Some(ObjectLock { mode: LockMode::Compliance, retain_days })
            }
            (mode, _) => {
                return Err(bad(
                    "object_lock_mode",
                    mode.unwrap_or_default(),
                    "set object_lock_mode to governance or compliance, and object_lock_days",
                ));
            }
        };
        let invalid = |e: crate::store::s3::InvalidSettings| Error { hint: e.hint, ..config_error(e.what) };
        let settings = S3Settings {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            profile: self.profile.clone(),
            credentials_file: self.credentials_file.clone(),
            path_style: self.path_style.unwrap_or(false),
            ca_file: self.ca_file.clone(),
            checksums,
            sse,
            storage_class: self.storage_class.clone(),
            object_lock,
            request_timeout,
            ..S3Settings::parse_url(url).map_err(invalid)?
        };
        settings.check().map_err(invalid)?;
        Ok(StoreUrl::S3(Box::new(settings)))
    }
}

#[cfg(test)]
mod tests;
