//! Pins: backups that an operator wants to be kept, whatever the rules say.
//!
//! A pin is a chain of immutable objects under the id of its backup, `00000001`, `00000002`, …; the highest counts, and
//! says that the backup is to be kept, or need not be any more. `docs/RETENTION.md` says why a pin holds.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::cluster::{ClusterName, SystemId};
use super::content::Content;
use super::object_name::ObjectName;
use super::prefix::Prefix;
use super::repository::Repository;
use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::limits::{MAX_PIN_REASON_BYTES, MAX_PINS, PIN_SETTLES};
use crate::store::Created;

/// A pin that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The backup that is kept.
    pub backup: BackupId,
    /// Why.
    pub reason: String,
    /// Until when, in Unix seconds; `None`: until it is taken away.
    pub until_unix_s: Option<i64>,
    /// When it was made, in Unix seconds, by the clock of the host that made it.
    pub pinned_unix_s: i64,
}

impl Pin {
    /// Whether it keeps the backup at this moment, in Unix seconds.
    pub fn keeps_at(&self, now_unix_s: i64) -> bool {
        self.until_unix_s.is_none_or(|until| now_unix_s < until)
    }

    /// Whether it was made long enough ago that `pin` would have taken it back by now had there been no such backup.
    pub fn has_settled(&self, now_unix_s: i64) -> bool {
        let settles_s = i64::try_from(PIN_SETTLES.as_secs()).unwrap_or(i64::MAX);
        self.pinned_unix_s.saturating_add(settles_s) < now_unix_s
    }
}

/// The form of the object.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    backup_id: BackupId,
    keep: bool,
    reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until_unix_s: Option<i64>,
    written_unix_s: i64,
}

impl Repository {
    /// The pins of a cluster that count, by backup; those whose time is over are among them. One that cannot be read
    /// counts without an end: nobody knows what it says.
    ///
    /// # Errors
    /// As the store's.
    pub fn pins(&self, cluster: &ClusterName, system_id: SystemId) -> Result<Vec<Pin>, Error> {
        let mut pins = Vec::new();
        for (backup, number) in self.newest_pins(Prefix::Pins(cluster, system_id))? {
            pins.extend(self.read_pin(cluster, system_id, backup, number)?);
        }
        Ok(pins)
    }

    /// Keeps a backup: a pin of its own, whatever others there were. Fails, and leaves no pin, where the backup is
    /// being deleted, or is not there.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a reason that cannot be kept; [`Kind::Refused`] when the backup is being deleted;
    /// [`Kind::Target`] when there is no such backup; as the store's.
    pub fn pin(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        backup: BackupId,
        reason: &str,
        until_unix_s: Option<i64>,
    ) -> Result<Pin, Error> {
        let now = jiff::Timestamp::now().as_second();
        if reason.trim().is_empty() || reason.len() > MAX_PIN_REASON_BYTES || reason.chars().any(char::is_control) {
            return Err(Error::new(Kind::Usage, format!("a reason of {} bytes with this content cannot be kept", reason.len()))
                .hint(format!("say why in 1 to {MAX_PIN_REASON_BYTES} bytes without line breaks")));
        }
        if until_unix_s.is_some_and(|until| until <= now) {
            return Err(Error::new(Kind::Usage, "the time until which the backup is to be kept has passed")
                .hint("--until names a moment to come; to let a backup go, run 'walvis unpin'"));
        }
        let written = Written { backup_id: backup, keep: true, reason: reason.to_owned(), until_unix_s, written_unix_s: now };
        self.append_pin(cluster, system_id, &written)?;
        // In this order: where the tombstone is gone by now, so is the backup.
        let refusal = match self.deletion_of_backup_has_begun(cluster, system_id, backup)? {
            Some(tombstone) => Some(
                Error::new(
                    Kind::Refused,
                    format!("backup {backup} in {} is being deleted (tombstone {tombstone}): it cannot be kept", self.location()),
                )
                .hint("keep another one: 'walvis list' shows them; another repository may hold a copy"),
            ),
            None if self.has_backup(cluster, system_id, backup)? => None,
            None => Some(
                Error::new(Kind::Target, format!("there is no backup {backup} of cluster {cluster} in {}", self.location()))
                    .hint("'walvis list' shows the backups"),
            ),
        };
        match refusal {
            None => Ok(Pin { backup, reason: written.reason, until_unix_s, pinned_unix_s: now }),
            Some(refusal) => {
                let back = Written { keep: false, reason: refusal.what.clone(), until_unix_s: None, ..written };
                self.append_pin(cluster, system_id, &back).map_err(|e| e.while_doing("take the pin back"))?;
                Err(refusal)
            }
        }
    }

    /// Lets a backup go: from now on the rules alone decide. Says whether a pin kept it until now.
    ///
    /// # Errors
    /// As the store's.
    pub fn unpin(&self, cluster: &ClusterName, system_id: SystemId, backup: BackupId) -> Result<bool, Error> {
        let Some(number) = self.newest_pin(cluster, system_id, backup)? else { return Ok(false) };
        if self.read_pin(cluster, system_id, backup, number)?.is_none() {
            return Ok(false);
        }
        let written_unix_s = jiff::Timestamp::now().as_second();
        let written = Written { backup_id: backup, keep: false, reason: String::new(), until_unix_s: None, written_unix_s };
        self.append_pin(cluster, system_id, &written)?;
        Ok(true)
    }

    /// Whether a manifest has the name, readable or not.
    ///
    /// # Errors
    /// As the store's.
    pub fn has_backup(&self, cluster: &ClusterName, system_id: SystemId, backup: BackupId) -> Result<bool, Error> {
        match self.backup_summary(cluster, system_id, backup) {
            Ok(summary) => Ok(summary.is_some()),
            Err(error) if matches!(error.kind, Kind::Damaged) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Adds a pin after all others of its backup.
    fn append_pin(&self, cluster: &ClusterName, system_id: SystemId, written: &Written) -> Result<(), Error> {
        let json = serde_json::to_vec(written).map_err(|e| Error::new(Kind::Bug, format!("encode a pin: {e}")))?;
        let mut number = self.newest_pin(cluster, system_id, written.backup_id)?.unwrap_or_default();
        while number < MAX_PINS {
            number += 1;
            let name = name(cluster, system_id, written.backup_id, number);
            if self.sealer().create(&name, &Content::of_bytes(&json))? == Created::New {
                return Ok(());
            }
        }
        Err(Error::new(Kind::Refused, format!("backup {} has {MAX_PINS} pins, which is the most", written.backup_id))
            .hint("somebody else wrote the last one: look who writes to the repository"))
    }

    fn newest_pin(&self, cluster: &ClusterName, system_id: SystemId, backup: BackupId) -> Result<Option<u32>, Error> {
        Ok(self.newest_pins(Prefix::PinsOf(cluster, system_id, backup))?.remove(&backup))
    }

    /// The highest number of each backup.
    fn newest_pins(&self, prefix: Prefix<'_>) -> Result<BTreeMap<BackupId, u32>, Error> {
        let mut newest: BTreeMap<BackupId, u32> = BTreeMap::new();
        self.objects().list(prefix, "", &mut |object| {
            if let ObjectName::Pin { backup, number, .. } = object.name {
                let highest = newest.entry(backup).or_default();
                *highest = number.max(*highest);
            }
            ControlFlow::Continue(())
        })?;
        Ok(newest)
    }

    /// A pin; `None` when it says that the backup need not be kept.
    fn read_pin(&self, cluster: &ClusterName, system_id: SystemId, backup: BackupId, number: u32) -> Result<Option<Pin>, Error> {
        let name = name(cluster, system_id, backup, number);
        let read = self.opener().read_small(&name).and_then(|bytes| {
            let gone = || Error::new(Kind::Damaged, format!("{name} in {} is gone", self.location()));
            let damaged = || Error::new(Kind::Damaged, format!("{name} in {} makes no sense", self.location()));
            let written: Written = serde_json::from_slice(&bytes.ok_or_else(gone)?).map_err(|_| damaged())?;
            if written.backup_id == backup { Ok(written) } else { Err(damaged()) }
        });
        match read {
            Ok(written) => Ok(written.keep.then_some(Pin {
                backup,
                reason: written.reason,
                until_unix_s: written.until_unix_s,
                pinned_unix_s: written.written_unix_s,
            })),
            Err(error) if matches!(error.kind, Kind::Damaged | Kind::Denied) => {
                tracing::warn!("{error}; the backup is kept until 'walvis unpin' says otherwise");
                let reason = format!("a pin that cannot be read: {}", error.what);
                Ok(Some(Pin { backup, reason, until_unix_s: None, pinned_unix_s: backup.started_unix_s }))
            }
            Err(error) => Err(error),
        }
    }
}

fn name(cluster: &ClusterName, system_id: SystemId, backup: BackupId, number: u32) -> ObjectName {
    ObjectName::Pin { cluster: cluster.clone(), system_id, backup, number }
}
