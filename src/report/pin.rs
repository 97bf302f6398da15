//! What `pin` and `unpin` answer.

use crate::repo::Pin;
use crate::report::time::Time;
use serde::Serialize;

/// A pin that counts.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PinnedUntil {
    /// Why.
    pub reason: String,
    /// When it was made, by the clock of the host that made it.
    pub pinned_at: Option<Time>,
    /// When it ends; null: with `unpin`.
    pub pin_ends_at: Option<Time>,
}

impl PinnedUntil {
    /// Of a pin.
    pub fn of(pin: &Pin) -> Self {
        let time = |unix_s: i64| Time::from_unix_us(unix_s.saturating_mul(1_000_000));
        Self { reason: pin.reason.clone(), pinned_at: time(pin.pinned_unix_s), pin_ends_at: pin.until_unix_s.and_then(time) }
    }
}

/// A backup that is kept now, in one repository.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PinReport {
    /// URL.
    pub repository: String,
    /// Name of the cluster.
    pub cluster: String,
    /// System identifier, decimal.
    pub system_id: String,
    /// Id of the backup.
    pub backup_id: String,
    /// The pin.
    pub pin: PinnedUntil,
}

/// A backup that the rules alone decide about now, in one repository.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UnpinReport {
    /// URL.
    pub repository: String,
    /// Name of the cluster.
    pub cluster: String,
    /// System identifier, decimal.
    pub system_id: String,
    /// Id of the backup.
    pub backup_id: String,
    /// Whether a pin kept it until now.
    pub was_pinned: bool,
}
