//! Secrets have no place among arguments, where every user of the host sees them, nor in a settings file that others
//! can read.

use crate::config::Config;
use crate::config::setting::Kind as ValueKind;
use crate::crypto::KeyFile;
use crate::error::{Error, Kind};
use crate::postgres::Conninfo;

/// Warns of each secret that stands in plain text in a settings file that every user of the host can read.
pub(super) fn warn_of_those_in_the_settings_file(config: &Config) {
    let secret_in = |kind: ValueKind, text: &str| match kind {
        ValueKind::Conninfo => Conninfo::read(text).ok()?.secret(),
        ValueKind::ShellCommand => KeyFile::is_in(text).then_some("key"),
        _ => None,
    };
    for warning in config.file_texts.iter().flat_map(|texts| texts.exposed_secrets(secret_in)) {
        tracing::warn!("{warning}");
    }
}

/// Refuses a connection string of ours that holds a password.
pub(super) fn keep_off_the_command_line(flag: &str, conninfo: Option<&str>) -> Result<(), Error> {
    // What makes no sense is reported when it is used.
    let conninfo = conninfo.filter(|conninfo| Conninfo::read(conninfo).is_ok());
    refuse(
        flag,
        conninfo,
        "put it into ~/.pgpass, a file that PGPASSFILE names, a service file (service=NAME, PGSERVICEFILE) or PGPASSWORD, and change it: it \
         was visible",
    )
}

/// The same of `primary_conninfo`, which would also stand in `postgresql.auto.conf` and in the plan.
pub(super) fn keep_off_the_command_line_of_a_standby(conninfo: Option<&str>) -> Result<(), Error> {
    refuse(
        "--primary",
        conninfo,
        "put it into ~/.pgpass of the user that the server runs as, or write passfile=/path instead, and change it: it was visible",
    )
}

fn refuse(flag: &str, conninfo: Option<&str>, hint: &str) -> Result<(), Error> {
    let Some(conninfo) = conninfo else { return Ok(()) };
    let info = Conninfo::read(conninfo).map_err(|e| Error { kind: Kind::Usage, what: format!("{flag}: {}", e.what), ..e })?;
    match info.secret() {
        Some(name) => Err(Error::new(
            Kind::Usage,
            format!("{flag} holds a {name}, and every user of this host can see the arguments of programs"),
        )
        .hint(hint)),
        None => Ok(()),
    }
}
