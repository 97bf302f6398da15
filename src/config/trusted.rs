//! Whose settings root follows: only its own.
//!
//! Settings name commands that are run, and directories that are written to. Whoever can change a file of settings could have root do
//! both. So as root a file of settings, Walvis's own and those of AWS's tools alike, is refused where a user other than root can change
//! it, or put another one in its place. Flags and the environment are root's own. Other users follow what they are told, as ever: they
//! can do no more than they may.

use std::path::Path;
#[cfg(feature = "s3")]
use std::path::PathBuf;

#[cfg(feature = "s3")]
use super::Environment;
use super::config_error;
use crate::error::Error;
use crate::fsio::{self, ChangeableBy, Exposure, Problem};
use crate::raw_text::shown;

/// Makes sure that a file of settings, if it is there, is root's alone, where root is who would follow it. `what` it is, and `elsewhere`
/// how to name another one.
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

/// The same for the files that S3 credentials come from: a profile names a program that gives them (`credential_process`), or a file that
/// is sent away for them.
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
