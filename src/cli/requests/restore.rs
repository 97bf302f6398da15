//! From the arguments of `pitr-restore` to a request, and how the server will call this program.

use super::target;
use crate::cli::args::{ActionArg, Archiving, RestoreArgs};
use crate::config::{Carried, Config, absolute};
use crate::error::{Error, Kind};
use crate::pg::settings::{Invocation, TargetAction};
use crate::process::PASSPHRASE_VARIABLE;
use crate::repo::KeySource;
use crate::restore::request::{RestoreRequest, TablespaceKey};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A variable of AWS's tools that `restore_command` carries, since the restored server may have none: no secret, but a
/// path.
const CA_BUNDLE: &str = "AWS_CA_BUNDLE";

pub(in crate::cli) fn request(args: &RestoreArgs, config: &Config) -> Result<RestoreRequest, Error> {
    Ok(RestoreRequest {
        pgdata: args.pgdata.clone(),
        target: target::target(&args.target, config)?,
        action: match args.target_action {
            ActionArg::Pause => TargetAction::Pause,
            ActionArg::Promote => TargetAction::Promote,
            ActionArg::Shutdown => TargetAction::Shutdown,
        },
        tablespace_map: args.tablespace_map.iter().map(|text| tablespace(text)).collect::<Result<_, _>>()?,
        tablespaces_at_original_places: args.tablespaces_at_original_places,
        delta: args.delta,
        server_is_stopped: args.server_is_stopped,
        discard_unarchived_wal: args.discard_unarchived_wal,
        overwrite_tablespaces_of_the_log: args.tablespaces_of_the_log_may_be_overwritten,
        waldir: args.waldir.clone(),
        config_to: args.config_to.clone(),
        plan: args.plan,
        start: args.start,
        archiving: args.archiving.map_or(args.standby, |archiving| archiving == Archiving::Keep),
        standby: args.standby,
        primary: args.primary.clone(),
        jobs: args.jobs.map(usize::from),
        bin_dir: args.bin_dir.clone(),
        invocation: invocation(config)?,
    })
}

/// `16399=/new/path` or `/old/path=/new/path`. Paths are bytes.
fn tablespace(text: &OsStr) -> Result<(TablespaceKey, PathBuf), Error> {
    let invalid = || {
        Error::new(Kind::Usage, format!("--tablespace-map {} makes no sense", text.display()))
            .hint("write 16399=/new/path or /old/path=/new/path, with absolute paths")
    };
    let bytes = text.as_bytes();
    let at = bytes.iter().position(|byte| *byte == b'=').ok_or_else(invalid)?;
    let (from, to) = (bytes.get(..at).unwrap_or_default(), bytes.get(at + 1..).unwrap_or_default());
    let key = match std::str::from_utf8(from).ok().and_then(|oid| oid.parse::<u32>().ok()) {
        Some(oid) => TablespaceKey::Oid(oid),
        None if from.starts_with(b"/") => TablespaceKey::Path(from.into()),
        None => return Err(invalid()),
    };
    if !to.starts_with(b"/") {
        return Err(invalid());
    }
    Ok((key, PathBuf::from(OsStr::from_bytes(to))))
}

/// How a server that knows nothing of this process's environment and directory calls this program with the same
/// settings.
fn invocation(config: &Config) -> Result<Invocation, Error> {
    let program = std::env::current_exe()
        .map_err(|e| Error::new(Kind::Config, format!("cannot find the path of this program: {e}")).hint("is /proc mounted?"))?;
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let Carried { mut environment, options } = config.handed_on.carried()?;
    if let Some(path) = env(CA_BUNDLE) {
        environment.push((CA_BUNDLE.to_owned(), absolute(Path::new(&path))?));
    }
    if config.repositories.iter().any(|repository| repository.key == KeySource::PassphraseEnvironment) {
        tracing::warn!(
            "the passphrase is only in {PASSPHRASE_VARIABLE}: the restored server needs it in its environment too, whenever it is started"
        );
    }
    let is_in_s3 = config.repositories.iter().any(|repository| repository.store.location().starts_with("s3:"));
    if is_in_s3 && ["AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE"].iter().any(|name| env(name).is_some()) {
        tracing::warn!(
            "AWS credentials are named in the environment: the restored server needs them there too, to fetch WAL, whenever it is started"
        );
    }
    Ok(Invocation { environment, program: absolute(&program)?, options })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tablespace_maps_are_read() {
        let tablespace = |text: &str| tablespace(OsStr::new(text));
        assert_eq!(tablespace("16399=/new").unwrap(), (TablespaceKey::Oid(16399), PathBuf::from("/new")));
        assert_eq!(tablespace("/old=/n=w").unwrap(), (TablespaceKey::Path("/old".into()), PathBuf::from("/n=w")));
        for bad in ["", "16399", "16399=", "16399=new", "old=/new", "=/new"] {
            assert_eq!(tablespace(bad).unwrap_err().kind, Kind::Usage, "{bad}");
        }
        let (key, to) = super::tablespace(OsStr::from_bytes(b"/caf\xE9=/\xFF")).unwrap();
        assert_eq!((key, to), (TablespaceKey::Path(b"/caf\xE9"[..].into()), PathBuf::from(OsStr::from_bytes(b"/\xFF"))));
    }
}
