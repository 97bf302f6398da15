//! What a command needs before it can begin: its settings, and the time that it has.

use super::flags::Global;
use super::role::{AHEAD, Role};
use super::{exit_guard, secrets};
use crate::config::definitions::{SERVER, URL};
use crate::config::{Config, RepositoryConfig};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::limits::AHEAD_TIME;

/// Settings and the deadline, and the watchdog that enforces it.
pub(super) fn call(global: &Global, server: Option<String>, role: Role) -> Result<(Config, Deadline), Error> {
    let config = load(global, server)?;
    let deadline = Deadline::after(config.timeout);
    exit_guard::against_hanging(deadline, role.code(Kind::Unreachable));
    Ok((config, deadline))
}

/// As [`call`], but nothing enforces the deadline until [`watch`] is called: for what waits for nobody.
pub(super) fn unwatched_call(global: &Global) -> Result<(Config, Deadline), Error> {
    let config = load(global, None)?;
    let deadline = Deadline::after(config.timeout);
    Ok((config, deadline))
}

/// Has the watchdog enforce a deadline. It is a thread, and to start one takes a tenth of the time of a call that finds
/// its work done.
pub(super) fn watch(deadline: Deadline, role: Role) {
    exit_guard::against_hanging(deadline, role.code(Kind::Unreachable));
}

/// As [`call`], for commands whose time depends on the size of a database: the limit is that of every single
/// request.
pub(super) fn long(global: &Global, server: Option<String>, role: Role) -> Result<(Config, Deadline), Error> {
    let config = load(global, server)?;
    let deadline = Deadline::each(config.timeout);
    exit_guard::against_hanging(deadline, role.code(Kind::Unreachable));
    Ok((config, deadline))
}

/// The same for a helper: what it begins at the end of its time may take as long as a call.
pub(super) fn helper(global: &Global, role: Role) -> Result<(Config, Deadline), Error> {
    if role != Role::Helper {
        return Err(
            Error::new(Kind::Usage, format!("{AHEAD} is only for helpers that Walvis itself starts")).hint("leave it out")
        );
    }
    let config = load(global, None)?;
    let deadline = Deadline::after(AHEAD_TIME + config.timeout);
    exit_guard::against_hanging(deadline, role.code(Kind::Unreachable));
    Ok((config, deadline))
}

/// The settings of another repository than those of the command: the one of the settings file with this URL, or a new
/// one with the same flags.
///
/// # Errors
/// As those of the command.
pub(super) fn other_repository(global: &Global, url: &str) -> Result<Option<RepositoryConfig>, Error> {
    let other = Global(global.0.clone().with(&URL, url));
    Ok(load(&other, None)?.repositories.pop())
}

fn load(global: &Global, server: Option<String>) -> Result<Config, Error> {
    let flags = match server {
        Some(server) => global.0.clone().with(&SERVER, server.as_str()),
        None => global.0.clone(),
    };
    // A variable whose name is not UTF-8 cannot be one of ours.
    let names: Vec<String> = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
    let is_ours = |name: &&String| name.starts_with("WALVIS_") && std::env::var_os(name).is_some_and(|v| v.to_str().is_none());
    if let Some(name) = names.iter().find(is_ours) {
        return Err(Error::new(Kind::Config, format!("{name} is not UTF-8 text")).hint("give it a value that is, or unset it"));
    }
    // An empty one counts as unset.
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let config = Config::load(&flags, &env, &names)?;
    secrets::warn_of_those_in_the_settings_file(&config);
    if config.repositories.len() > 1 {
        config.repositories.iter().for_each(|repository| repository.store.health().has_alternative());
    }
    Ok(config)
}
