//! File < environment < flags → one validated [`Config`].
//!
//! Lives here: the order of things, and the settings of the whole process. Depends on everything else in this module
//! but `reference`.

use std::collections::BTreeSet;
use std::iter;
use std::time::Duration;

use super::child::HandedOn;
use super::definitions::{CLUSTER, CONFIG, DEFAULT_CLUSTER, DEFAULT_FILE, SERVER, SPOOL, TIMEOUT, URL, ZONE};
use super::environment::{self, Environment};
use super::file::{self, SettingsFile};
use super::given::{Flags, Given, Item};
use super::invalid::config_error;
use super::repository::{self, RepositoryConfig};
use super::setting::Reach;
use super::spool::{self, SpoolPlace};
use super::trusted::FileTexts;
use super::values::seconds;
use crate::error::Error;
use crate::pg::target::Zone;
use crate::repo::ClusterName;
#[cfg(feature = "s3")]
use crate::repo::StoreUrl;

/// Everything, checked.
#[derive(Debug, Clone, PartialEq)]
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
    /// What of the settings file, if there is one, may hold a secret.
    pub file_texts: Option<FileTexts>,
    /// What of it a program that runs later does not find in the settings file.
    pub handed_on: HandedOn,
}

impl Config {
    /// Reads and checks all settings. `names` are the variables that are set, for the warning about misspelt ones.
    ///
    /// # Errors
    /// [`Kind::Config`](crate::error::Kind::Config), naming file, key and what would be right.
    pub fn load(flags: &Flags, env: Environment<'_>, names: &[String]) -> Result<Self, Error> {
        environment::warn_about_unknown(names);
        let said = environment::collect(flags, env)?;
        let SettingsFile { path, mut top, mut repositories } = file::read(said.path(&CONFIG))?;
        let file_texts = path.map(|path| FileTexts::of(path, iter::once(&top).chain(&repositories)));
        if let Some(url) = said.text(&URL) {
            select_repository(&mut repositories, url, &said);
        }
        for item in said.items() {
            apply(item, &mut top, &mut repositories)?;
        }
        if repositories.is_empty() {
            return Err(config_error("no repository is configured").hint(format!(
                "set {}=file:///path or s3://bucket/prefix, or write {} url = \"…\" into {DEFAULT_FILE}",
                URL.variable.unwrap_or_default(),
                URL.table.header()
            )));
        }
        let timeout = seconds(&top, &TIMEOUT)?;
        let repositories = repositories
            .iter()
            .map(|given| repository::check(given, timeout))
            .collect::<Result<Vec<RepositoryConfig>, Error>>()?;
        let mut urls = BTreeSet::new();
        for repository in &repositories {
            #[cfg(feature = "s3")]
            if let StoreUrl::S3(settings) = &repository.store.url {
                super::trusted::check_aws_files(settings.credentials_file.as_deref(), env)?;
            }
            if !urls.insert(repository.store.location()) {
                return Err(config_error(format!("repository {} is configured twice", repository.store.location())));
            }
        }
        Ok(Self {
            cluster: ClusterName::new(top.text(&CLUSTER).unwrap_or(DEFAULT_CLUSTER))?,
            repositories,
            timeout,
            server: top.text(&SERVER).map(str::to_owned),
            spool: spool::place(top.text(&SPOOL))?,
            zone: top.text(&ZONE).map(zone).transpose()?,
            file_texts,
            handed_on: HandedOn::choose(&said, &top),
        })
    }
}

fn zone(text: &str) -> Result<Zone, Error> {
    Zone::parse(text).map_err(|e| config_error(format!("zone: {}", e.what)).hint(e.hint))
}

/// A URL from flag or environment: the configured repository of that URL with its settings, or a new one. Only this one
/// is left.
fn select_repository(repositories: &mut Vec<Given>, url: &str, said: &Given) {
    let wanted = url.trim_end_matches('/');
    let position = repositories.iter().position(|given| given.text(&URL).is_some_and(|u| u.trim_end_matches('/') == wanted));
    let chosen = match position {
        Some(position) => repositories.swap_remove(position),
        None => {
            let mut new = Given::default();
            if let Some(Item { setting, value, origin }) = said.get(&URL) {
                new.give(setting, value.clone(), *origin);
            }
            new
        }
    };
    *repositories = vec![chosen];
}

/// Applies what a flag or variable said to that which it is about.
fn apply(item: &Item, top: &mut Given, repositories: &mut [Given]) -> Result<(), Error> {
    let give = |given: &mut Given| given.give(item.setting, item.value.clone(), item.origin);
    let is_single = repositories.len() == 1;
    match item.setting.reach {
        Reach::Process => give(top),
        Reach::ChoosesRepository => {}
        Reach::OneRepository if repositories.len() > 1 => {
            return Err(config_error(format!("{} is set, and there are several repositories", item.name()))
                .hint("set it per repository in the settings file, or choose one repository with --repository"));
        }
        Reach::OneRepository | Reach::EveryRepository => repositories.iter_mut().for_each(give),
        Reach::RepositoriesWithoutKey => repositories
            .iter_mut()
            .filter(|given| is_single || !repository::has_key(given))
            .for_each(|given| repository::set_key(given, item)),
    }
    Ok(())
}
