//! `walvis init`: makes the configured repositories, and binds the cluster's name to its system identifier.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{cluster_facts, file_error};
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::format::descriptor::{CreateIfAbsent, RepositoryCipher};
use crate::fsio;
use crate::repo::{Facts, Initialised, KeySource, Repository};

/// What is asked.
#[derive(Debug, Default)]
pub struct InitRequest {
    /// The operator asks for an unencrypted repository, in so many words.
    pub unencrypted: bool,
    /// Bind the cluster name to this data directory.
    pub pgdata: Option<PathBuf>,
    /// Bind it anew although it belongs to another system identifier.
    pub after_pg_upgrade: bool,
}

/// What was done, per repository.
#[derive(Debug, Serialize)]
pub struct InitReport {
    /// URL.
    pub repository: String,
    /// Made now, or found.
    pub created: bool,
    /// The user whose it is, of a new one in a directory.
    pub owner: Option<String>,
    /// Whether its objects are encrypted.
    pub encrypted: bool,
    /// Whether the store itself refuses to overwrite; if not, writers announce themselves first.
    pub store_refuses_overwrite: bool,
    /// The cluster's name and system identifier, if asked for.
    pub bound: Option<(String, String)>,
}

/// Does it. All repositories have to succeed; those made before one failed stay, and a second call finds them.
///
/// # Errors
/// As [`Repository::init`] and [`Repository::bind`].
pub fn run(config: &Config, request: &InitRequest, deadline: Deadline) -> Result<Vec<InitReport>, Error> {
    let facts = match &request.pgdata {
        None => None,
        Some(path) => Some(cluster_facts::of_data_directory(path, &deadline)?.ok_or_else(|| {
            Error::new(Kind::Config, format!("{} is not a data directory: it has no global/pg_control", path.display()))
                .hint("give the directory that 'SHOW data_directory' prints")
        })?),
    };
    if let Some(path) = &request.pgdata {
        refuse_another_user(config, path)?;
    }
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
    config.repositories.iter().map(|repository| init_one(config, repository, request, facts, deadline)).collect()
}

/// What root makes in a directory belongs to root, and the server's user could not write there.
fn refuse_another_user(config: &Config, pgdata: &Path) -> Result<(), Error> {
    let is_local = config.repositories.iter().any(|repository| repository.store.is_local());
    let owner = fsio::owner(pgdata).map_err(|e| file_error(Kind::Config, e))?;
    if !is_local || owner == 0 || !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let user = fsio::user_name(owner);
    Err(Error::new(
        Kind::Refused,
        format!("{} belongs to {user}, and what root makes in a repository that is a directory, {user} cannot write to", pgdata.display()),
    )
    .hint(format!(
        "run it as {user}: 'sudo -u {user} walvis init …'; a directory that {user} cannot make is made first with 'install -d -m 0750 -o {user} \
         DIRECTORY'"
    )))
}

fn init_one(
    config: &Config,
    repository: &crate::config::RepositoryConfig,
    request: &InitRequest,
    facts: Option<Facts>,
    deadline: Deadline,
) -> Result<InitReport, Error> {
    let secret = repository.key.read(&deadline)?;
    let (opened, outcome) = Repository::init(&repository.store, &secret, repository.compression_level, deadline)?;
    if let Some(facts) = facts {
        if request.after_pg_upgrade {
            opened.rebind(&config.cluster, facts)?;
        } else {
            opened.bind(&config.cluster, facts)?;
        }
    }
    Ok(InitReport {
        repository: opened.location().to_owned(),
        created: outcome == Initialised::New,
        owner: (outcome == Initialised::New && repository.store.is_local())
            .then(|| fsio::user_name(nix::unistd::geteuid().as_raw())),
        encrypted: opened.descriptor().cipher == RepositoryCipher::ChaCha20Poly1305,
        store_refuses_overwrite: opened.descriptor().create_if_absent == CreateIfAbsent::Store,
        bound: facts.map(|f| (config.cluster.to_string(), f.system_id.to_string())),
    })
}
