//! Settings from the environment and the command line.
//!
//! Lives here: which variables are ours, what their values are as text, that flags beat variables, and the warning
//! about variables that nobody knows. May not live here: the variables' names ([`super::definitions`]).
//! Depends on `definitions`, `given` and `invalid`.

use std::path::PathBuf;

use zeroize::Zeroizing;

use super::definitions::{self, ALL, FOREIGN_PREFIXES, HELPER_VARIABLE, KEY_SOURCES};
use super::given::{Flags, Given, Item, Origin, Value};
use super::invalid::{closest, config_error, wrong_value};
use super::setting::{Kind, Setting};
use crate::error::Error;

/// The environment, as a function so that tests need not change the process's.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Warns about variables that begin like ours and that nobody reads.
pub(super) fn warn_about_unknown(names: &[String]) {
    for name in names {
        let is_foreign = name == HELPER_VARIABLE || FOREIGN_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if name.starts_with("WALVIS_") && !is_foreign && !is_known_variable(name) {
            let closest =
                closest(name, definitions::variables()).map_or_else(String::new, |near| format!("; did you mean {near}?"));
            tracing::warn!("environment variable {name} is not known and has no effect{closest}");
        }
    }
}

/// Whether a setting has this variable.
pub fn is_known_variable(name: &str) -> bool {
    definitions::variables().any(|known| known == name)
}

/// What flags and variables say, flags first. Of the settings that name a key at most one is left: a flag beats all
/// variables.
///
/// # Errors
/// [`Kind::Config`](crate::error::Kind::Config): a value that is none; several variables that name a key.
pub(super) fn collect(flags: &Flags, env: Environment<'_>) -> Result<Given, Error> {
    let mut said = Given::default();
    let key_flag = KEY_SOURCES.into_iter().find(|setting| flags.has(setting));
    for setting in ALL {
        if let Some(Item { value, .. }) = flags.item(setting) {
            said.give(setting, value.clone(), Origin::Flag);
            continue;
        }
        let is_beaten = key_flag.is_some() && KEY_SOURCES.contains(&setting);
        let Some(variable) = setting.variable.filter(|_| !is_beaten) else { continue };
        if let Some(text) = env(variable) {
            said.give(setting, value_of(setting, variable, text)?, Origin::Environment);
        }
    }
    if KEY_SOURCES.into_iter().filter(|setting| said.has(setting)).count() > 1 {
        let variables: Vec<&str> = KEY_SOURCES.into_iter().filter_map(|setting| setting.variable).collect();
        return Err(
            config_error("more than one key is set in the environment").hint(format!("set one of {}", variables.join(", ")))
        );
    }
    Ok(said)
}

/// The value that a variable's text stands for.
fn value_of(setting: &Setting, variable: &str, text: String) -> Result<Value, Error> {
    match setting.kind {
        Kind::Text | Kind::Conninfo | Kind::ShellCommand | Kind::Choice(_) | Kind::Period => Ok(Value::Text(text)),
        Kind::Path => Ok(Value::Path(PathBuf::from(text))),
        Kind::Seconds(_) | Kind::Whole(..) | Kind::Count => match text.parse() {
            Ok(number) => Ok(Value::Number(number)),
            Err(_) => Err(wrong_value(variable, text, setting.kind)),
        },
        Kind::Truth | Kind::Switch => match text.as_str() {
            "true" | "1" | "yes" => Ok(Value::Truth(true)),
            "false" | "0" | "no" => Ok(Value::Truth(false)),
            _ => Err(wrong_value(variable, text, Kind::Truth)),
        },
        Kind::Secret => {
            drop(Zeroizing::new(text));
            Ok(Value::Hidden)
        }
    }
}
