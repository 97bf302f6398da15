//! The settings file: finding it, and reading TOML by the table of settings.
//!
//! Lives here: which keys may stand where, of which type, and where in the file a mistake is. May not live here: what a
//! value means. Depends on `definitions`, `given`, `invalid` and `trusted`. No error repeats a value: a connection
//! string may hold a password.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::definitions::{self, CONFIG, DEFAULT_FILE};
use super::given::{Given, Origin, Value};
use super::invalid::{closest, config_error};
use super::setting::{Kind, Table};
use super::trusted;
use crate::error::Error;
use crate::fsio;
use crate::limits::MAX_SETTINGS_FILE_BYTES;

/// What a settings file says.
#[derive(Debug, Default)]
pub(super) struct SettingsFile {
    /// Its path, unless there is none.
    pub(super) path: Option<PathBuf>,
    /// The top of it.
    pub(super) top: Given,
    /// Its repositories, each with what its table `s3` says.
    pub(super) repositories: Vec<Given>,
}

/// Reads the file that is named, or else the one in the usual place, if it is there.
pub(super) fn read(named: Option<&Path>) -> Result<SettingsFile, Error> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    let elsewhere = |what: &str| format!("name {what} with {}", CONFIG.ways_to_set());
    trusted::check("the settings in", path, &elsewhere("another file"))?;
    let bytes = match fsio::read_bounded(path, MAX_SETTINGS_FILE_BYTES) {
        Ok(bytes) => bytes,
        Err(e) if e.problem == fsio::Problem::Absent && named.is_none() => return Ok(SettingsFile::default()),
        Err(e) => {
            return Err(config_error(format!("settings: {e}")).hint(e.hint.unwrap_or_else(|| elsewhere("a readable file"))));
        }
    };
    let text = String::from_utf8(bytes).map_err(|_| config_error(format!("{} is not UTF-8 text", path.display())))?;
    parse(&text, path)
}

/// Reads the text of a settings file. The path is for messages.
pub(super) fn parse(text: &str, path: &Path) -> Result<SettingsFile, Error> {
    let reader = Reader { text, path };
    let document = DeTable::parse(text).map_err(|e| reader.not_toml(&e))?;
    let mut file = SettingsFile { path: Some(path.to_owned()), ..SettingsFile::default() };
    for (key, value) in in_order(document.get_ref()) {
        if Some(key.get_ref().as_ref()) != Table::Repository.key() {
            reader.setting(Table::Top, key, value, &mut file.top)?;
            continue;
        }
        let DeValue::Array(repositories) = value.get_ref() else {
            return Err(reader.wrong_type(key, value, &format!("one or more tables {}", Table::Repository.header())));
        };
        for repository in repositories {
            file.repositories.push(reader.repository(key, repository)?);
        }
    }
    Ok(file)
}

/// A key and its value.
type Entry<'a, 'i> = (&'a Spanned<std::borrow::Cow<'i, str>>, &'a Spanned<DeValue<'i>>);

/// The entries of a table as they stand in the file, so that the first mistake is the one that is reported.
fn in_order<'a, 'i>(table: &'a DeTable<'i>) -> Vec<Entry<'a, 'i>> {
    let mut entries: Vec<Entry<'a, 'i>> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

struct Reader<'a> {
    text: &'a str,
    path: &'a Path,
}

impl Reader<'_> {
    fn repository(&self, key: &Spanned<std::borrow::Cow<'_, str>>, value: &Spanned<DeValue<'_>>) -> Result<Given, Error> {
        let DeValue::Table(table) = value.get_ref() else {
            return Err(self.wrong_type(key, value, &format!("a table {}", Table::Repository.header())));
        };
        let mut repository = Given::default();
        self.table(Table::Repository, table, &mut repository)?;
        Ok(repository)
    }

    /// Reads a table, and those that stand in it.
    fn table(&self, table: Table, content: &DeTable<'_>, given: &mut Given) -> Result<(), Error> {
        for (key, value) in in_order(content) {
            let Some(inner) = table.inner().iter().find(|inner| inner.key() == Some(key.get_ref().as_ref())) else {
                self.setting(table, key, value, given)?;
                continue;
            };
            let DeValue::Table(content) = value.get_ref() else {
                return Err(self.wrong_type(key, value, &format!("a table {}", inner.header())));
            };
            self.table(*inner, content, given)?;
        }
        Ok(())
    }

    fn setting(
        &self,
        table: Table,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
        given: &mut Given,
    ) -> Result<(), Error> {
        let name = key.get_ref();
        let Some(setting) = definitions::of_key(table, name) else {
            let hint = closest(name, definitions::keys()).map_or_else(
                || format!("known keys: {}", definitions::keys().join(", ")),
                |near| format!("did you mean {near}?"),
            );
            let line = self.line(key.span().start);
            return Err(
                config_error(format!("{}: line {line}: unknown key {}", self.path.display(), table.path_of(name))).hint(hint)
            );
        };
        let read = match (setting.kind, value.get_ref()) {
            (Kind::Text | Kind::Conninfo | Kind::ShellCommand | Kind::Choice(_) | Kind::Period, DeValue::String(text)) => {
                Some(Value::Text(text.clone().into_owned()))
            }
            (Kind::Path, DeValue::String(text)) => Some(Value::Path(PathBuf::from(text.as_ref()))),
            (Kind::Seconds(_) | Kind::Whole(..), DeValue::Integer(number)) => {
                i64::from_str_radix(number.as_str(), number.radix()).ok().map(Value::Number)
            }
            (Kind::Truth, DeValue::Boolean(truth)) => Some(Value::Truth(*truth)),
            _ => None,
        };
        let Some(read) = read else { return Err(self.wrong_type(key, value, &written(setting.kind))) };
        given.give(setting, read, Origin::File);
        Ok(())
    }

    fn wrong_type(&self, key: &Spanned<std::borrow::Cow<'_, str>>, value: &Spanned<DeValue<'_>>, wanted: &str) -> Error {
        let (line, key, found) = (self.line(key.span().start), key.get_ref(), value.get_ref().type_str());
        self.error(&format!("line {line}: {key}: the value has the type {found}; it has to be {wanted}"))
    }

    fn not_toml(&self, error: &toml::de::Error) -> Error {
        self.error(&format!("{}{}", self.place_of(error), error.message()))
    }

    fn error(&self, what: &str) -> Error {
        config_error(format!("{}: {what}", self.path.display()))
            .hint("see the example in docs/OPERATING.md; values are TOML: text in quotes, numbers and true/false without")
    }

    /// The line of an error and the key in it. Not the line itself: a connection string may hold a password.
    fn place_of(&self, error: &toml::de::Error) -> String {
        let Some(at) = error.span().map(|span| span.start) else { return String::new() };
        let line = self.line(at);
        let key = self.text.lines().nth(line - 1).and_then(|line| line.split_once('=')).map(|(key, _)| key.trim());
        let is_name = |key: &str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'));
        format!("line {line}: {}", key.filter(|key| is_name(key)).map_or_else(String::new, |key| format!("{key}: ")))
    }

    /// The number of the line that a byte is in.
    fn line(&self, at: usize) -> usize {
        self.text.get(..at).unwrap_or_default().matches('\n').count() + 1
    }
}

/// How a value of a kind is written in TOML.
fn written(kind: Kind) -> String {
    match kind {
        Kind::Seconds(_) | Kind::Whole(..) => "a whole number, without quotes".to_owned(),
        Kind::Truth => "true or false, without quotes".to_owned(),
        _ => "text in quotes".to_owned(),
    }
}
