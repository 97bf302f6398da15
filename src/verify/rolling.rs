//! The share of a rolling verification: what it reads now, so that everything is read once per period, whatever runs
//! when.
//!
//! An object's age is the time since it was last read, or was stored if it never was. The oldest are read first, and as
//! many bytes as the time since the last run is of the period. So all that is stored now has had its turn when a period
//! is over: what comes meanwhile stands behind it. What a run was too short for is left to the next. Whatever was read
//! a period ago is read anyway: where much was deleted, the bytes that are left would be read too slowly. What was
//! damaged when it was last read is read every time, so that no run says that all is well.
//!
//! Lives here: the choice, from a listing and evidence. May not live here: reading. Memory: a count for each age, and
//! the names of what is chosen, as runs.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use crate::error::Error;
use crate::limits::{MAX_ROLLING_PERIODS, ROLLING_AGES, ROLLING_FIRST_SHARE, ROLLING_LEAST_SHARE};
use crate::repo::{ClusterName, Facts, ListedObject, Look, ObjectName, ObjectSet, Remembered, Repository, VerificationMode};
use crate::verify::listing::Listing;

/// What a rolling verification reads now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// WAL files, packs and manifests.
    pub objects: ObjectSet,
    /// Their stored bytes.
    pub bytes: u64,
    /// Stored bytes that were due.
    pub due_bytes: u64,
    /// Stored bytes of all WAL files, packs and manifests.
    pub total_bytes: u64,
    /// How many these are.
    pub total_objects: u64,
}

/// Lists, and chooses. `now_unix_s` is this host's time, in Unix seconds.
///
/// # Errors
/// As the store's.
pub fn share(
    repository: &Repository,
    cluster: &ClusterName,
    facts: Facts,
    remembered: &Remembered,
    period: Duration,
    now_unix_s: i64,
) -> Result<Share, Error> {
    let ages = Ages::new(remembered, facts, period, now_unix_s);
    let tallies = Listing::new(repository, cluster, facts)?.visit(&|tally: &mut Tally, object| ages.tally(tally, &object))?;
    ages.share(repository, cluster, tallies.into_iter().fold(Tally::default(), Tally::and))
}

/// How many bytes are to be read now.
fn due_bytes(remembered: &Remembered, period_s: u64, now_unix_s: i64, total_bytes: u64) -> u64 {
    let first_s = ROLLING_FIRST_SHARE.as_secs();
    let (since_s, owed) = match &remembered.last_read {
        None => (first_s, 0),
        Some(last) => {
            let owed = if last.verification.mode == VerificationMode::Rolling { last.verification.owed_bytes } else { 0 };
            // One that is in the future says nothing about how long ago it was.
            (u64::try_from(now_unix_s.saturating_sub(last.after_unix_s)).unwrap_or(first_s), owed)
        }
    };
    if owed == 0 && since_s.saturating_mul(ROLLING_LEAST_SHARE) < period_s {
        return 0;
    }
    let share = u128::from(total_bytes) * u128::from(since_s.min(period_s)) / u128::from(period_s);
    u64::try_from(share).unwrap_or(u64::MAX).saturating_add(owed).min(total_bytes)
}

/// Takes an object of this size if at least half of it is due.
fn take(left: &Mutex<u64>, bytes: u64) -> bool {
    let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
    let is_due = left.saturating_mul(2) >= bytes && *left > 0;
    if is_due {
        *left = left.saturating_sub(bytes);
    }
    is_due
}

/// When an object has its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// In every run.
    Damaged,
    /// Now: it was last read a period ago.
    Overdue,
    /// By its age, as a place in [`Tally::ages`].
    Age(usize),
}

/// What tells the ages of what is stored of a system identifier.
#[derive(Debug)]
pub(super) struct Ages<'a> {
    remembered: &'a Remembered,
    facts: Facts,
    period_s: u64,
    now_unix_s: i64,
}

impl<'a> Ages<'a> {
    /// `now_unix_s` is this host's time, in Unix seconds.
    pub(super) fn new(remembered: &'a Remembered, facts: Facts, period: Duration, now_unix_s: i64) -> Self {
        Self { remembered, facts, period_s: period.as_secs().max(1), now_unix_s }
    }

    /// Counts an object that was listed. Only of WAL files, packs and manifests is a share read.
    pub(super) fn tally(&self, tally: &mut Tally, object: &ListedObject) {
        if matches!(object.name, ObjectName::Wal { .. } | ObjectName::Pack { .. } | ObjectName::Manifest { .. }) {
            tally.add(self.due(object), object.size_bytes);
        }
    }

    /// What is read now of all that was counted. It is listed once more where anything is.
    ///
    /// # Errors
    /// As the store's.
    pub(super) fn share(&self, repository: &Repository, cluster: &ClusterName, all: Tally) -> Result<Share, Error> {
        let due_bytes = due_bytes(self.remembered, self.period_s, self.now_unix_s, all.total_bytes);
        let mut share = Share {
            objects: ObjectSet::new(self.facts.wal_segment_size),
            bytes: 0,
            due_bytes,
            total_bytes: all.total_bytes,
            total_objects: all.objects,
        };
        if due_bytes == 0 && all.always == 0 {
            return Ok(share);
        }
        let wanted = due_bytes.saturating_sub(all.overdue_bytes);
        let (oldest, left) = all.reach(wanted);
        let left = Mutex::new(left);
        let takes = |object: &ListedObject| match self.due(object) {
            Due::Damaged | Due::Overdue => true,
            Due::Age(age) if age > oldest => wanted > 0,
            Due::Age(age) if age == oldest => take(&left, object.size_bytes),
            Due::Age(_) => false,
        };
        let listing = Listing::new(repository, cluster, self.facts)?;
        let chosen = listing.visit(&|chosen: &mut Chosen, object| {
            if takes(&object) {
                chosen.add(object, self.facts);
            }
        })?;
        for some in chosen {
            share.bytes = share.bytes.saturating_add(some.bytes);
            some.objects.iter().for_each(|objects| share.objects.extend(objects));
        }
        Ok(share)
    }

    fn due(&self, object: &ListedObject) -> Due {
        let look = self.look(&object.name).filter(|look| look.counts_for(object.modified_unix_s));
        if look.is_some_and(|look| look.is_damaged) {
            return Due::Damaged;
        }
        // Of what nobody knows the age of, it is the highest.
        let since = look.map(|look| look.after_unix_s).or(object.modified_unix_s);
        let age_s = since.map_or(u64::MAX, |since| u64::try_from(self.now_unix_s.saturating_sub(since)).unwrap_or(0));
        if look.is_some() && age_s >= self.period_s {
            return Due::Overdue;
        }
        let age = u128::from(age_s) * ROLLING_AGES as u128 / u128::from(self.period_s);
        Due::Age(usize::try_from(age).unwrap_or(usize::MAX).min(ROLLING_AGES * MAX_ROLLING_PERIODS))
    }

    fn look(&self, name: &ObjectName) -> Option<Look> {
        match name {
            ObjectName::Wal { file, .. } => self.remembered.checked.wal(file, self.facts.wal_segment_size),
            ObjectName::Pack { pack, .. } => self.remembered.checked.pack(*pack),
            ObjectName::Manifest { backup, .. } => self.remembered.checked.manifest(*backup),
            _ => None,
        }
    }
}

/// What was listed.
#[derive(Debug)]
pub(super) struct Tally {
    objects: u64,
    total_bytes: u64,
    /// Objects that are read whatever the share is.
    always: u64,
    /// Bytes of those that were last read a period ago.
    overdue_bytes: u64,
    /// Bytes by age.
    ages: Vec<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        Self { objects: 0, total_bytes: 0, always: 0, overdue_bytes: 0, ages: vec![0; ROLLING_AGES * MAX_ROLLING_PERIODS + 1] }
    }
}

impl Tally {
    fn add(&mut self, due: Due, bytes: u64) {
        self.objects += 1;
        self.total_bytes = self.total_bytes.saturating_add(bytes);
        match due {
            Due::Damaged => self.always += 1,
            Due::Overdue => {
                self.always += 1;
                self.overdue_bytes = self.overdue_bytes.saturating_add(bytes);
            }
            Due::Age(age) => {
                if let Some(of_age) = self.ages.get_mut(age) {
                    *of_age = of_age.saturating_add(bytes);
                }
            }
        }
    }

    /// Both together.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.objects += other.objects;
        self.total_bytes = self.total_bytes.saturating_add(other.total_bytes);
        self.always += other.always;
        self.overdue_bytes = self.overdue_bytes.saturating_add(other.overdue_bytes);
        self.ages.iter_mut().zip(other.ages).for_each(|(own, bytes)| *own = own.saturating_add(bytes));
        self
    }

    /// The age down to which so many bytes reach, and how many of these are left for that age.
    fn reach(&self, bytes: u64) -> (usize, u64) {
        let mut left = bytes;
        for (age, of_age) in self.ages.iter().enumerate().rev() {
            match left.checked_sub(*of_age) {
                Some(rest) if rest > 0 => left = rest,
                _ => return (age, left),
            }
        }
        (0, left)
    }
}

/// What is to be read.
#[derive(Default)]
struct Chosen {
    objects: Option<ObjectSet>,
    bytes: u64,
}

impl Chosen {
    fn add(&mut self, object: ListedObject, facts: Facts) {
        let objects = self.objects.get_or_insert_with(|| ObjectSet::new(facts.wal_segment_size));
        match object.name {
            ObjectName::Wal { file, .. } => objects.insert_wal(&file),
            ObjectName::Pack { pack, .. } => objects.insert_pack(pack),
            ObjectName::Manifest { backup, .. } => objects.insert_manifest(backup),
            _ => return,
        }
        self.bytes = self.bytes.saturating_add(object.size_bytes);
    }
}
