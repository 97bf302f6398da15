//! Outages that outlive a call: since when a repository fails, as far as the spool remembers it.
//!
//! Nothing depends on it but patience and messages: without a spool every call begins anew.
use crate::limits::OUTAGE_TIME;
use crate::wal::spool::{Record, Spool};
use std::time::Duration;

/// What is remembered of a repository that fails.
#[derive(Debug, Clone)]
pub(super) struct Outage {
    /// How long it has been failing.
    pub(super) lasts: Duration,
    /// How long ago it was tried last, in vain.
    pub(super) ago: Duration,
    /// How many calls failed.
    pub(super) calls: u64,
    /// What the last one said.
    pub(super) said: String,
}

impl Outage {
    /// For a message: how long it has been going on.
    pub(super) fn since(&self) -> String {
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

fn name(location: &str) -> String {
    format!("outage.{}", blake3::hash(location.as_bytes()).to_hex().chars().take(16).collect::<String>())
}

impl Spool {
    /// What is known of a repository that failed calls before this one.
    pub(super) fn outage(&self, location: &str) -> Option<Outage> {
        self.place()?;
        let record = self.read(&self.path(&name(location)), OUTAGE_TIME)?;
        let now = self.now()?;
        let age = |field: &str| now.checked_sub(Duration::from_millis(record.get(field)?.parse().ok()?));
        let said = record.get("said").unwrap_or_default().to_owned();
        Some(Outage { lasts: age("since")?, ago: age("tried")?, calls: record.get("calls")?.parse().ok()?, said })
    }

    /// Notes that a repository failed this call, or that it was not tried because it failed others before.
    pub(super) fn note_outage(&self, location: &str, said: &str, was_tried: bool) -> Outage {
        let before = self.outage(location);
        let ago = before.as_ref().filter(|_| !was_tried).map_or(Duration::ZERO, |before| before.ago);
        let (lasts, calls) = before.map_or((Duration::ZERO, 1), |before| (before.lasts, before.calls.saturating_add(1)));
        let outage = Outage { lasts, ago, calls, said: said.chars().take(500).collect() };
        let before = |age| self.now().and_then(|now| now.checked_sub(age)).unwrap_or_default().as_millis();
        let mut record = Record::default();
        record.add("location", location);
        record.add("since", before(lasts));
        record.add("tried", before(ago));
        record.add("calls", calls);
        record.add("said", &outage.said);
        if let Err(error) = self.write(&self.path(&name(location)), record) {
            tracing::debug!(%error, "the outage is not remembered");
        }
        outage
    }

    /// Forgets it: the repository answers.
    pub(super) fn end_outage(&self, location: &str) {
        self.remove(&self.path(&name(location)));
    }
}
