//! What programs that run later on this one's behalf get of its settings.
//!
//! A restored server calls `walvis fetch-wal` years after the restore, from another directory, with an environment of
//! its own. What the operator said by a flag or variable is nowhere by then, unless the call carries it. (A helper of
//! `push-wal` or `fetch-wal` needs nothing of this: it has the arguments, the environment and the directory of its
//! call.)
//!
//! Lives here: the choice, by the table of settings, and how it is written. Secrets are never among it. Depends on
//! `definitions` and `given`.

use std::path::Path;

use super::definitions::ALL;
use super::given::{Given, Origin, Value};
use super::invalid::config_error;
use super::setting::{Child, Setting};
use crate::error::Error;

/// The settings that a child does not find in the settings file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandedOn(Vec<(&'static Setting, Value)>);

/// Settings as a call carries them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Carried {
    /// Variables that are set for the call, and their values.
    pub environment: Vec<(String, String)>,
    /// Arguments before the command.
    pub options: Vec<String>,
}

impl HandedOn {
    /// Of what flags and variables `said`, what a child gets, and what it always gets of the `top` of the file.
    pub(super) fn choose(said: &Given, top: &Given) -> Self {
        let chosen = |setting: &'static Setting| {
            let item = top.get(setting).or_else(|| said.get(setting));
            let is_from_file = item.is_none_or(|item| item.origin == Origin::File);
            match setting.child {
                Child::DoesWithout | Child::NeedsInItsEnvironment => None,
                Child::Gets => item.filter(|_| !is_from_file).map(|item| (setting, item.value.clone())),
                Child::AlwaysGets => {
                    let fallback = || setting.fallback.value().map(Value::Text);
                    Some((setting, item.map(|item| item.value.clone()).or_else(fallback)?))
                }
            }
        };
        Self(ALL.into_iter().filter_map(chosen).collect())
    }

    /// How a call carries them: by a flag where there is one, else by a variable. Paths are absolute. No secret is in
    /// it.
    ///
    /// # Errors
    /// [`Kind::Config`](crate::error::Kind::Config): a path is not UTF-8.
    pub fn carried(&self) -> Result<Carried, Error> {
        let mut carried = Carried::default();
        for (setting, value) in &self.0 {
            let text = match value {
                Value::Text(text) => text.clone(),
                Value::Path(path) => absolute(path)?,
                Value::Number(number) => number.to_string(),
                Value::Truth(truth) => truth.to_string(),
                Value::Hidden => continue,
            };
            if setting.is_global_flag() {
                carried.options.extend([format!("--{}", setting.long()), text]);
            } else if let Some(variable) = setting.variable {
                carried.environment.push((variable.to_owned(), text));
            }
        }
        Ok(carried)
    }
}

/// A path as it stands in a call, whatever directory that is made from.
///
/// # Errors
/// [`Kind::Config`](crate::error::Kind::Config): it is not UTF-8.
pub fn absolute(path: &Path) -> Result<String, Error> {
    let absolute = std::path::absolute(path).map_err(|e| config_error(format!("{}: {e}", path.display())))?;
    absolute.to_str().map(str::to_owned).ok_or_else(|| {
        config_error(format!("{} is not UTF-8, so it cannot stand in restore_command", path.display())).hint("use another path")
    })
}
