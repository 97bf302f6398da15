//! What somebody set, before it means anything: values by setting, and who set them.
//!
//! Lives here: [`Flags`], which the command line fills, and the same for a table of the settings file. May not live
//! here: names of settings ([`definitions`](super::definitions)), and what a value means. Depends on `setting`.

use std::path::{Path, PathBuf};

use super::setting::{Kind, Setting, Table};

/// The value of a setting, of the type that its [`Kind`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text, a word, a command, a connection string.
    Text(String),
    /// A path; it need not be UTF-8.
    Path(PathBuf),
    /// A number, a time in seconds, how often a flag is there.
    Number(i64),
    /// True or false, or that a flag is there.
    Truth(bool),
    /// A secret is there.
    Hidden,
}

impl Value {
    /// Whether a setting of this kind has such values.
    pub fn fits(&self, kind: Kind) -> bool {
        match self {
            Self::Text(_) => matches!(kind, Kind::Text | Kind::Conninfo | Kind::ShellCommand | Kind::Choice(_) | Kind::Period),
            Self::Path(_) => kind == Kind::Path,
            Self::Number(_) => matches!(kind, Kind::Seconds(_) | Kind::Whole(..) | Kind::Count),
            Self::Truth(_) => matches!(kind, Kind::Truth | Kind::Switch),
            Self::Hidden => kind == Kind::Secret,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<PathBuf> for Value {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// Who set something; a later one beats an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// The settings file.
    File,
    /// The environment.
    Environment,
    /// The command line.
    Flag,
}

/// A setting that somebody set.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) setting: &'static Setting,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

impl Item {
    /// The name by which it was set.
    pub(super) fn name(&self) -> String {
        match (self.origin, &self.setting.flag, self.setting.variable) {
            (Origin::Flag, Some(flag), _) => format!("--{}", flag.long),
            (Origin::Environment, _, Some(variable)) => variable.to_owned(),
            _ => self.setting.name.to_owned(),
        }
    }
}

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub struct Flags(Given);

impl Flags {
    /// The same, and this setting.
    #[must_use]
    pub fn with(mut self, setting: &'static Setting, value: impl Into<Value>) -> Self {
        self.set(setting, value.into());
        self
    }

    /// Sets a setting.
    pub fn set(&mut self, setting: &'static Setting, value: Value) {
        self.0.give(setting, value, Origin::Flag);
    }

    /// Whether it is set.
    pub fn has(&self, setting: &Setting) -> bool {
        self.0.has(setting)
    }

    /// A text.
    pub fn text(&self, setting: &Setting) -> Option<&str> {
        self.0.text(setting)
    }

    /// How often a flag is there.
    pub fn count(&self, setting: &Setting) -> i64 {
        self.0.number(setting).unwrap_or_default()
    }

    pub(super) fn item(&self, setting: &Setting) -> Option<&Item> {
        self.0.get(setting)
    }
}

/// Values of settings, each at most once.
#[derive(Debug, Clone, Default)]
pub(super) struct Given(Vec<Item>);

impl Given {
    /// Sets a setting. What was there is replaced.
    pub(super) fn give(&mut self, setting: &'static Setting, value: Value, origin: Origin) {
        debug_assert!(value.fits(setting.kind), "{} is no {:?}", setting.name, setting.kind);
        self.remove(setting);
        self.0.push(Item { setting, value, origin });
    }

    pub(super) fn remove(&mut self, setting: &Setting) {
        self.0.retain(|item| item.setting != setting);
    }

    pub(super) fn items(&self) -> &[Item] {
        &self.0
    }

    pub(super) fn get(&self, setting: &Setting) -> Option<&Item> {
        self.0.iter().find(|item| item.setting == setting)
    }

    pub(super) fn has(&self, setting: &Setting) -> bool {
        self.get(setting).is_some()
    }

    /// The first that is set of a table of the settings file.
    pub(super) fn first_of(&self, table: Table) -> Option<&'static Setting> {
        self.0.iter().map(|item| item.setting).find(|setting| setting.table == table)
    }

    pub(super) fn text(&self, setting: &Setting) -> Option<&str> {
        match &self.get(setting)?.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn path(&self, setting: &Setting) -> Option<&Path> {
        match &self.get(setting)?.value {
            Value::Path(path) => Some(path),
            _ => None,
        }
    }

    pub(super) fn number(&self, setting: &Setting) -> Option<i64> {
        match self.get(setting)?.value {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }

    pub(super) fn truth(&self, setting: &Setting) -> Option<bool> {
        match self.get(setting)?.value {
            Value::Truth(truth) => Some(truth),
            _ => None,
        }
    }
}
