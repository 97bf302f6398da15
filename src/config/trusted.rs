//! Whose settings root follows: only its own. And secrets in a settings file that others can read.
//!
//! Settings name commands that are run, and directories that are written to. A user who can change a file of settings
//! could have root do both. So as root a file of settings, Walvis's own and those of AWS's tools alike, is refused
//! where a user other than root can change it, or put another one in its place. Flags and the environment are root's
//! own. Other users follow what they are told, as ever: they can do no more than they may.

use std::fmt;
use std::path::{Path, PathBuf};

#[cfg(feature = "s3")]
use super::environment::Environment;
use super::given::{Given, Value};
use super::invalid::config_error;
use super::setting::{Kind, Setting};
use crate::error::Error;
use crate::fsio::{self, ChangeableBy, Exposure, Problem};
use crate::raw_text::shown;

/// The texts of a settings file in which a secret may stand: connection strings, and commands.
#[derive(Clone, PartialEq, Eq)]
pub struct FileTexts {
    path: PathBuf,
    texts: Vec<(&'static Setting, String)>,
}

/// Without the texts, for what may stand in them.
impl fmt::Debug for FileTexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileTexts").field("path", &self.path).finish_non_exhaustive()
    }
}

impl FileTexts {
    /// Those of the tables of a file.
    pub(super) fn of<'a>(path: PathBuf, tables: impl Iterator<Item = &'a Given>) -> Self {
        let items = tables.flat_map(Given::items);
        let texts = items.filter_map(|item| match (&item.value, item.setting.kind) {
            (Value::Text(text), Kind::Conninfo | Kind::ShellCommand) => Some((item.setting, text.clone())),
            _ => None,
        });
        Self { texts: texts.collect(), path }
    }

    /// What to warn about: secrets that stand in the file in plain text while every user of the host can read it.
    /// `secret_in` says what secret a text of a kind holds.
    pub fn exposed_secrets(&self, secret_in: impl Fn(Kind, &str) -> Option<&'static str>) -> Vec<String> {
        let found = self.texts.iter().filter_map(|(setting, text)| Some((setting.name, secret_in(setting.kind, text)?)));
        let found: Vec<(&str, &str)> = found.collect();
        if found.is_empty() || !fsio::others_can_read(&self.path) {
            return Vec::new();
        }
        let path = shown(&self.path);
        let warning = |(setting, secret): (&str, &str)| {
            format!(
                "{path} can be read by every user of this host, and {setting} in it holds a {secret}: make it private (chmod o-rwx {path}), \
                 or keep the {secret} in a file of its own; and change it: it was visible"
            )
        };
        found.into_iter().map(warning).collect()
    }
}

/// Makes sure that a file of settings, if it is there, is root's alone, where root is who would follow it. `what` it
/// is, and `elsewhere` how to name another one.
///
/// # Errors
/// [`Kind::Config`](crate::error::Kind::Config), naming who can change it, and the way out.
pub(super) fn check(what: &str, path: &Path, elsewhere: &str) -> Result<(), Error> {
    if fsio::own_user() != 0 {
        return Ok(());
    }
    match fsio::changeable_by_others(path) {
        Ok(None) => Ok(()),
        Ok(Some(exposure)) => Err(refusal(what, path, &exposure, elsewhere)),
        // Nobody but root could put it there.
        Err(e) if e.problem == Problem::Absent => Ok(()),
        Err(e) => Err(config_error(format!("{what} {}: {e}", shown(path))).hint(e.hint.unwrap_or_else(|| elsewhere.to_owned()))),
    }
}

fn refusal(what: &str, path: &Path, exposure: &Exposure, elsewhere: &str) -> Error {
    let instead = match exposure.by {
        ChangeableBy::Owner(uid) => format!(", or run this as {}", fsio::user_name(uid)),
        ChangeableBy::Group(_) | ChangeableBy::Everybody => String::new(),
    };
    config_error(format!("root does not follow {what} {}: {exposure}, and could have root run anything", shown(path)))
        .hint(format!("{}{instead}, or {elsewhere}", exposure.way_out()))
}

/// The same for the files that S3 credentials come from: a profile names a program that gives them
/// (`credential_process`), or a file that is sent away for them.
///
/// # Errors
/// As [`check`].
#[cfg(feature = "s3")]
pub(super) fn check_aws_files(credentials_file: Option<&Path>, env: Environment<'_>) -> Result<(), Error> {
    let home = env("HOME").map(PathBuf::from);
    let named = |name: &str| {
        let path = PathBuf::from(env(name)?);
        match (path.strip_prefix("~"), &home) {
            (Ok(below), Some(home)) => Some(home.join(below)),
            _ => Some(path),
        }
    };
    let in_home = |name: &str| home.as_ref().map(|home| home.join(".aws").join(name));
    let home_hint = "set HOME to root's own directory (sudo -H)";
    let files = [
        match (credentials_file, named("AWS_SHARED_CREDENTIALS_FILE")) {
            (Some(path), _) => Some((path.to_owned(), "name another one with credentials_file")),
            (None, Some(path)) => Some((path, "name another one with AWS_SHARED_CREDENTIALS_FILE")),
            (None, None) => in_home("credentials").map(|path| (path, home_hint)),
        },
        match named("AWS_CONFIG_FILE") {
            Some(path) => Some((path, "name another one with AWS_CONFIG_FILE")),
            None => in_home("config").map(|path| (path, home_hint)),
        },
    ];
    files.into_iter().flatten().try_for_each(|(path, elsewhere)| check("the AWS file", &path, elsewhere))
}
