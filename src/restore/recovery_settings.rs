//! The settings of a recovery in `postgresql.auto.conf`: written before it, taken out when it is over. A standby that
//! is cloned later would not start with them, or not follow.
//!
//! The server itself calls for it, as `recovery_end_command`, however the recovery ends, and when a pause is over.

use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::fsio::{RestoreTree, Rooted};
use crate::limits::MAX_AUTO_CONF_BYTES;
use crate::pg::settings::{RecoverySettings, TargetAction, value_in, without_recovery};
use crate::pg::target::Target;
use crate::raw_text::shown;
use crate::report::end_recovery::EndReport;
use crate::report::resolve::ResolveReport;
use crate::report::setting::Setting;
use crate::restore::request::RestoreRequest;
use crate::restore::target_directory::local;
use std::path::Path;

const SETTINGS: &str = "postgresql.auto.conf";

/// What to do about archiving that was switched off.
pub const ARCHIVE_AGAIN: &str =
    "the server does not archive. If it takes the place of the original: ALTER SYSTEM RESET archive_mode, and restart it";

/// What is added to the settings that the server had, beside `restore_command`.
#[derive(Debug, Default)]
pub(crate) struct AddedSettings {
    /// For the recovery: taken out again when it is over, but for those of a standby.
    pub(crate) recovery: Vec<Setting>,
    /// Those that stay.
    pub(crate) lasting: Vec<Setting>,
}

impl AddedSettings {
    /// Those of a restore to a target that was resolved.
    pub(crate) fn of(request: &RestoreRequest, resolved: &ResolveReport) -> Self {
        let mut recovery = Vec::new();
        if request.standby {
            recovery.extend(request.primary.clone().map(|primary| Setting::new("primary_conninfo", primary)));
            // Whatever timeline the primary is on, after a failover too.
            recovery.push(Setting::new("recovery_target_timeline", "latest".to_owned()));
        } else {
            recovery.extend(resolved.settings.iter().map(|setting| Setting::new(setting.name, setting.value.clone())));
            let action = request.action_at(resolved);
            if resolved.stop.is_some() || request.target.target == Target::Immediate {
                recovery.push(Setting::new("recovery_target_action", action.as_str().to_owned()));
                if action == TargetAction::Pause {
                    // Without it the server would not pause but stop.
                    recovery.push(Setting::new("hot_standby", "on".to_owned()));
                }
            }
        }
        // The server would pause, or stop, where they were raised.
        let raised = resolved.required_settings.iter().filter(|setting| setting.lsn.is_some());
        let mut lasting: Vec<Setting> = raised.map(|setting| Setting::new(setting.name, setting.minimum.to_string())).collect();
        if !request.archiving {
            lasting.push(Setting::new("archive_mode", "off".to_owned()));
        }
        Self { recovery, lasting }
    }
}

/// Adds the settings of the recovery to those that the server had, and asks for a recovery.
///
/// # Errors
/// [`Kind::Config`].
pub(crate) fn write(
    tree: &RestoreTree,
    added: &AddedSettings,
    request: &RestoreRequest,
    backup: BackupId,
    mode: u32,
) -> Result<(), Error> {
    let before = tree.root().read_bounded(SETTINGS, MAX_AUTO_CONF_BYTES).map_err(local)?.unwrap_or_default();
    // What an earlier recovery left.
    let (mut text, _) = without_recovery(&before);
    let now = jiff::Timestamp::now();
    fn pairs(settings: &[Setting]) -> Vec<(&str, &str)> {
        settings.iter().map(|setting| (setting.name, setting.value.as_str())).collect()
    }
    let end_command = request.invocation.end_command();
    let added = RecoverySettings {
        comment: &match request.standby {
            true => format!("added at {now:.0} by pitr-restore --standby, from backup {backup}"),
            false => format!("added at {now:.0} by pitr-restore, from backup {backup}; taken out when recovery is over"),
        },
        restore_command: &request.invocation.restore_command(),
        end_command: (!request.standby).then_some(end_command.as_str()),
        wanted: &pairs(&added.recovery),
        lasting: &pairs(&added.lasting),
    };
    text.extend_from_slice(added.lines().as_bytes());
    let modified = now.as_microsecond();
    tree.put_file(SETTINGS.as_bytes(), &text, mode, modified).map_err(local)?;
    let signal: &[u8] = if request.standby { b"standby.signal" } else { b"recovery.signal" };
    tree.put_file(signal, b"", mode, modified).map_err(local)
}

/// Takes the settings of a recovery that is over out of a data directory.
///
/// # Errors
/// [`Kind::Refused`] when it is no data directory; [`Kind::Config`] when the file cannot be read or written.
pub fn run(pgdata: &Path) -> Result<EndReport, Error> {
    let directory = Rooted::open(pgdata).map_err(local)?.dir;
    if directory.stat("PG_VERSION").map_err(local)?.is_none() {
        return Err(Error::new(Kind::Refused, format!("{} is not a data directory", shown(pgdata)))
            .hint("name the data directory whose recovery has ended"));
    }
    let signals = ["recovery.signal", "standby.signal"];
    for signal in signals {
        if directory.stat(signal).map_err(local)?.is_some() {
            return Err(Error::new(Kind::Refused, format!("{} is still to recover: {signal} is there", shown(pgdata)))
                .hint("the server needs its settings for that; they are taken out when it is over"));
        }
    }
    let content = directory.read_bounded(SETTINGS, MAX_AUTO_CONF_BYTES).map_err(local)?.unwrap_or_default();
    let archiving_is_off = value_in(&content, "archive_mode").as_deref() == Some("off");
    let (kept, removed) = without_recovery(&content);
    if !removed.is_empty() {
        let mode = directory.stat(SETTINGS).map_err(local)?.map_or(0o600, |stat| stat.mode);
        let now = jiff::Timestamp::now().as_microsecond();
        directory.put(Path::new(SETTINGS), &kept, mode, directory.identity(), now).map_err(local)?;
    }
    Ok(EndReport { removed_settings: removed, archiving_is_off })
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    #[test]
    fn only_where_a_recovery_is_over() {
        let place = tempfile::tempdir().unwrap();
        let kind = || run(place.path()).map_err(|e| e.kind).map(|report| (report.removed_settings, report.archiving_is_off));
        assert_eq!(kind(), Err(Kind::Refused));
        std::fs::write(place.path().join("PG_VERSION"), "15\n").unwrap();
        assert_eq!(kind(), Ok((vec![], false)));
        let conf = place.path().join(SETTINGS);
        std::fs::write(&conf, "a = '1'\nrecovery_target_lsn = '0/1'\narchive_mode = 'off'\n").unwrap();
        std::fs::write(place.path().join("recovery.signal"), "").unwrap();
        assert_eq!(kind(), Err(Kind::Refused));
        std::fs::remove_file(place.path().join("recovery.signal")).unwrap();
        assert_eq!(kind(), Ok((vec!["recovery_target_lsn".to_owned()], true)));
        assert_eq!(std::fs::read_to_string(conf).unwrap(), "a = '1'\narchive_mode = 'off'\n");
    }
}
