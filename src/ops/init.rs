//! `walvis init`: makes the configured repositories, and binds the cluster's name to its system identifier.
//!
//! As root a repository in a directory that is not there is made for the owner of the data directory, and one that is
//! there is worked in as its owner.

use crate::config::{Config, RepositoryConfig};
use crate::crypto::{KeyFile, KnownRepository, RepositoryId};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::descriptor::{CreateIfAbsent, RepositoryCipher};
use crate::fsio::{self, Identity, Rooted, as_owner_of, file_error};
use crate::limits::MAX_SECRET_BYTES;
use crate::postgres::control_file;
use crate::raw_text::shown;
use crate::repo::{Facts, Initialised, KeySource, Repository, Secret, repository_names};
use crate::report::init::{BoundCluster, InitReport, Known};
use crate::repositories;
use std::path::{Path, PathBuf};

const SHARE: &str = "say 'walvis init --share-key' to have one key open both";

/// What is asked.
#[derive(Debug, Default)]
pub struct InitRequest {
    /// The operator asks for an unencrypted repository explicitly.
    pub unencrypted: bool,
    /// Bind the cluster name to this data directory.
    pub pgdata: Option<PathBuf>,
    /// Bind it anew although it belongs to another system identifier.
    pub after_pg_upgrade: bool,
    /// The key may serve repositories that are not in these settings.
    pub share_key: bool,
}

/// Does it. All repositories have to succeed; those made before one failed stay, and a second call finds them.
///
/// # Errors
/// As [`Repository::init`] and [`Repository::bind`]; [`Kind::Refused`] when a key belongs to another repository.
pub fn run(config: &Config, request: &InitRequest, deadline: Deadline) -> Result<Vec<InitReport>, Error> {
    let (facts, owner) = match &request.pgdata {
        None => (None, Identity::own()),
        Some(path) => {
            let not_one = || {
                Error::new(Kind::Config, format!("{} is not a data directory: it has no global/pg_control", path.display()))
                    .hint("give the directory that 'SHOW data_directory' prints")
            };
            let facts = match as_owner_of(path) {
                Ok(_as) => control_file::of_data_directory(path, &deadline)?.ok_or_else(not_one)?,
                Err(_) if matches!(fsio::exists(path), Ok(false)) => return Err(not_one()),
                Err(error) => return Err(error),
            };
            (Some(facts), owner_of(config, path)?)
        }
    };
    for repository in &config.repositories {
        match (&repository.key, request.unencrypted) {
            (KeySource::None, false) => {
                return Err(Error::new(Kind::Config, format!("no key is configured for {}", repository.store.location())).hint(
                    "make one with 'walvis key generate PATH' and name it with --key-file or WALVIS_KEY_FILE; for a repository that \
                     everybody with access to the store can read, say 'walvis init --unencrypted'",
                ));
            }
            (key, true) if *key != KeySource::None => {
                return Err(Error::new(
                    Kind::Usage,
                    format!("--unencrypted, but {} has {}", repository.store.location(), key.describe()),
                )
                .hint("leave out one of the two"));
            }
            _ => {}
        }
    }
    let mut reports = Vec::new();
    for repository in &config.repositories {
        reports.push(init_one(config, repository, request, facts, owner, deadline)?);
    }
    Ok(reports)
}

/// A key that opens another repository would let that one pass for this one, for anybody who can write to both. Those
/// of the same settings may share one.
fn refuse_shared(config: &Config, repository: &RepositoryConfig, secret: &Secret, deadline: Deadline) -> Result<(), Error> {
    if secret.repositories().is_empty() {
        return Ok(());
    }
    // What cannot be read is reported when it is that repository's turn.
    let id_of = |other: &RepositoryConfig| Repository::id_at(&other.store, deadline).ok().flatten();
    let ours: Vec<RepositoryId> = config.repositories.iter().filter_map(id_of).collect();
    let foreign = secret.repositories().iter().filter(|known| !ours.contains(&known.id));
    let foreign: Vec<KnownRepository> = foreign.copied().collect();
    if foreign.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        Kind::Refused,
        format!(
            "{} belongs to repository {}, which is none of these settings: refused, nothing was made at {}",
            repository.key.describe(),
            repository_names(&foreign),
            repository.store.location()
        ),
    )
    .hint(format!("make a key of its own with 'walvis key generate PATH', or {SHARE}")))
}

/// As root, whose the repositories that are directories are to be: the user's whom the data directory belongs to, who
/// has to write there. One that is there and is another user's is refused.
fn owner_of(config: &Config, pgdata: &Path) -> Result<Identity, Error> {
    if fsio::own_user() != 0 {
        return Ok(Identity::own());
    }
    let server = Rooted::open(pgdata).map_err(|e| file_error(Kind::Config, e))?.identity();
    for repository in &config.repositories {
        let Some(other) = repository.store.owner()?.filter(|owner| owner.owner().uid != server.owner().uid) else { continue };
        let (user, location) = (server.name(), repository.store.location());
        return Err(Error::new(
            Kind::Refused,
            format!("{location} belongs to {}, and {user}, the owner of {}, could not write there", other.name(), shown(pgdata)),
        )
        .hint(format!(
            "give it to {user} (chown -R {user} DIRECTORY), or name a directory that is not there yet, which is made for {user}"
        )));
    }
    Ok(server)
}

fn init_one(
    config: &Config,
    repository: &RepositoryConfig,
    request: &InitRequest,
    facts: Option<Facts>,
    owner: Identity,
    deadline: Deadline,
) -> Result<InitReport, Error> {
    let secret = repository.key.read(&deadline)?;
    let may_make = || if request.share_key { Ok(()) } else { refuse_shared(config, repository, &secret, deadline) };
    let (opened, outcome) =
        Repository::init_if(&repository.store, &secret, repository.compression_level, deadline, owner, may_make)?;
    if outcome == Initialised::Already && !request.share_key {
        opened.named_by(&secret).map_err(|e| match &e.hint {
            Some(hint) if e.kind == Kind::Refused => {
                let hint = format!("{hint}, or {SHARE}");
                e.hint(hint)
            }
            _ => e,
        })?;
    }
    if let Some(facts) = facts {
        if request.after_pg_upgrade {
            opened.rebind(&config.cluster, facts)?;
        } else {
            opened.bind(&config.cluster, facts)?;
        }
    }
    let this = opened.known_as();
    let is_encrypted = opened.descriptor().cipher == RepositoryCipher::ChaCha20Poly1305;
    if !is_encrypted {
        tracing::warn!("{} is {}", opened.location(), repositories::UNENCRYPTED);
    }
    Ok(InitReport {
        repository: opened.location().to_owned(),
        repository_id: this.to_string(),
        created: outcome == Initialised::New,
        owner: if outcome == Initialised::New { repository.store.owner()?.map(Identity::name) } else { None },
        encrypted: is_encrypted,
        store_refuses_overwrite: opened.descriptor().create_if_absent == CreateIfAbsent::Store,
        bound: facts.map(|f| BoundCluster { cluster: config.cluster.to_string(), system_id: f.system_id.to_string() }),
        known: is_encrypted.then(|| remember(repository, &secret, this)),
    })
}

/// Sees to it that the operator's side knows the repository. What cannot be written is said, with the line.
fn remember(repository: &RepositoryConfig, secret: &Secret, this: KnownRepository) -> Known {
    if repository.store.known.is_some() || secret.repositories().iter().any(|known| known.id == this.id) {
        return Known::Already;
    }
    let by_hand = |location: String, reason| Known::ToBeAdded { line: this.line(), location, reason };
    match (&repository.key, secret) {
        (KeySource::File(path), Secret::Key(file)) => {
            let is_it = |text: &[u8]| {
                std::str::from_utf8(text)
                    .ok()
                    .and_then(|text| KeyFile::parse(text).ok())
                    .is_some_and(|now| now.key.id() == file.key.id())
            };
            match fsio::append_line(path, MAX_SECRET_BYTES, &is_it, &this.line()) {
                Ok(()) => Known::Added { location: repository.key.describe() },
                Err(e) => by_hand(repository.key.describe(), Some(e.detail)),
            }
        }
        (KeySource::Command(_), _) => by_hand(format!("what {} prints", repository.key.describe()), None),
        _ => Known::ToBeAdded {
            line: format!("id = \"{this}\""),
            location: "the settings of this repository (or set WALVIS_REPOSITORY_ID)".to_owned(),
            reason: None,
        },
    }
}
