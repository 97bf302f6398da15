//! Outages that outlive a call: since when a repository fails, as far as the spool remembers it
//! (`outage.<repository>`).
//!
//! Only patience and messages depend on it: without a spool every call begins anew.

use super::directory::Spool;
use super::record::{Record, name_of};
use crate::limits::{MAX_SPOOL_MESSAGE_CHARS, OUTAGE_TIME};
use std::path::PathBuf;
use std::time::Duration;

/// What is remembered of a repository that fails.
#[derive(Debug, Clone)]
pub struct Outage {
    /// How long it has been failing.
    pub lasts: Duration,
    /// How long ago it was last tried in vain.
    pub ago: Duration,
    /// How many calls failed.
    pub calls: u64,
    /// What the last one said.
    pub said: String,
}

impl Outage {
    /// For the end of a message: how long it has been going on; empty on the first failure.
    pub fn since(&self) -> String {
        if self.calls < 2 {
            return String::new();
        }
        let seconds = self.lasts.as_secs();
        let lasts = match seconds {
            0..60 => format!("{seconds} s"),
            60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
            _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        };
        format!("; it has been failing for {lasts} ({} calls)", self.calls)
    }
}

impl Spool {
    fn outage_path(&self, location: &str) -> PathBuf {
        self.path(&format!("outage.{}", name_of(location)))
    }

    /// What is known of a repository that failed calls before this one.
    pub fn outage(&self, location: &str) -> Option<Outage> {
        self.id()?;
        let record = self.read(&self.outage_path(location), OUTAGE_TIME)?;
        let now = self.now()?;
        let age = |field: &str| now.checked_sub(Duration::from_millis(record.get(field)?.parse().ok()?));
        let said = record.get("said").unwrap_or_default().to_owned();
        Some(Outage { lasts: age("since")?, ago: age("tried")?, calls: record.get("calls")?.parse().ok()?, said })
    }

    /// Notes that a repository failed this call, or that it was not tried because it failed others before.
    pub fn note_outage(&self, location: &str, said: &str, was_tried: bool) -> Outage {
        let before = self.outage(location);
        let ago = before.as_ref().filter(|_| !was_tried).map_or(Duration::ZERO, |before| before.ago);
        let (lasts, calls) = before.map_or((Duration::ZERO, 1), |before| (before.lasts, before.calls.saturating_add(1)));
        let outage = Outage { lasts, ago, calls, said: said.chars().take(MAX_SPOOL_MESSAGE_CHARS).collect() };
        let before = |age| self.now().and_then(|now| now.checked_sub(age)).unwrap_or_default().as_millis();
        let mut record = Record::default();
        record.add("location", location);
        record.add("since", before(lasts));
        record.add("tried", before(ago));
        record.add("calls", calls);
        record.add("said", &outage.said);
        if let Err(error) = self.write(&self.outage_path(location), record) {
            tracing::debug!(%error, "the outage is not remembered");
        }
        outage
    }

    /// Forgets it: the repository answers.
    pub fn end_outage(&self, location: &str) {
        self.remove(&self.outage_path(location));
    }
}

/// Notes in the spool, if there is one, that a repository failed this call, or that it was not tried because it failed
/// others before. Returns the end of a message: how long that has been going on.
pub fn note_failure(spool: Option<&Spool>, location: &str, said: &str, was_tried: bool) -> String {
    spool.map(|spool| spool.note_outage(location, said, was_tried).since()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_how_long_an_outage_lasts_from_the_second_failure_on() {
        let since = |seconds, calls| {
            let lasts = Duration::from_secs(seconds);
            Outage { lasts, ago: Duration::ZERO, calls, said: String::new() }.since()
        };
        assert_eq!(since(3, 1), "");
        assert_eq!(since(59, 2), "; it has been failing for 59 s (2 calls)");
        assert_eq!(since(3599, 9), "; it has been failing for 59 min 59 s (9 calls)");
        assert_eq!(since(3660, 10), "; it has been failing for 1 h 1 min (10 calls)");
        assert_eq!(note_failure(None, "file:///x", "it said so", true), "", "without a spool nothing is known of earlier calls");
    }
}
