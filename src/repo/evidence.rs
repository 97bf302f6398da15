//! Evidence: what verifications looked at and found, remembered in the repository. `docs/VERIFICATION.md` says why.
//!
//! Lives here: the content of evidence, storing and reading it, and the chain by which a piece that is gone or was
//! changed is found out. May not live here: what is verified, and what damage costs. Memory: a few pieces of evidence
//! at a time, and what [`LastChecked`] takes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::cluster::{ClusterName, SystemId};
use super::content::{Content, Stored};
use super::last_checked::{LastChecked, Look};
use super::object_name::ObjectName;
use super::object_set::ObjectSet;
use super::prefix::Prefix;
use super::repository::Repository;
use super::tombstone_name::EvidenceId;
use crate::error::{Error, Kind};
use crate::format::extent::BackupId;
use crate::limits::{
    EVIDENCE_READERS, MAX_EVIDENCE_BACKUPS, MAX_EVIDENCE_BYTES, MAX_EVIDENCE_FINDINGS, MAX_EVIDENCE_LINKS, MAX_EVIDENCE_RUNS,
    MAX_EVIDENCE_SHOWN, MAX_EVIDENCE_TEXT_BYTES,
};
use crate::threads::at_once;

mod manifests;

/// How a verification looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerificationMode {
    /// At listings.
    Quick,
    /// At every byte.
    Full,
    /// At its share of the bytes.
    Rolling,
}

impl VerificationMode {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Full => "full",
            Self::Rolling => "rolling",
        }
    }
}

impl fmt::Display for VerificationMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One verification of one system identifier of a cluster, or what was done of it so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// How it looked.
    pub mode: VerificationMode,
    /// Of a rolling one: the time in which everything is read once, in seconds.
    pub period_s: Option<u64>,
    /// The host that did it.
    pub host: String,
    /// When it began, in microseconds since 1970 UTC by that host's clock.
    pub began_unix_us: i64,
    /// How long it took until it was written down, in microseconds, whatever that clock did.
    pub duration_us: u64,
    /// Whether it was stopped before its end, or this is not the last piece of what it left.
    pub interrupted: bool,
    /// Which piece this is of what it left, from 1; there are several where it read very many separate objects.
    pub piece: u64,
    /// Stored bytes that it read.
    pub read_bytes: u64,
    /// Of a rolling one: stored bytes of its share that it did not read.
    pub owed_bytes: u64,
    /// What it read, and found whole.
    pub whole: ObjectSet,
    /// What it read, and found damaged.
    pub damaged: ObjectSet,
    /// Backups all of whose objects were read at one time or another, with what earlier evidence tells.
    pub backups: Vec<CheckedBackup>,
    /// What it found: the first of it.
    pub findings: Vec<SavedFinding>,
    /// How much it found.
    pub findings_total: u64,
    /// How much of that matters.
    pub findings_that_matter: u64,
}

/// A backup that was verified, object by object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedBackup {
    /// The backup.
    pub backup_id: BackupId,
    /// Manifest, packs and WAL were all read after this moment, in Unix seconds.
    pub after_unix_s: i64,
    /// How many of them were damaged.
    pub damaged: u64,
}

/// Something that a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedFinding {
    /// The object.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
    /// Whether something that is kept needs it.
    pub matters: bool,
}

/// Earlier evidence, as later evidence names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EvidenceLink {
    /// The evidence.
    pub id: EvidenceId,
    /// BLAKE3 of its plaintext.
    #[serde(with = "hash_text")]
    pub blake3: [u8; 32],
}

/// What an object of evidence holds.
#[derive(Serialize, Deserialize)]
struct Written {
    /// Evidence that no other named that its writer knew.
    newest: Vec<EvidenceLink>,
    /// Absent: it is of something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    verification: Option<Verification>,
}

/// Why evidence cannot be relied on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvidenceProblem {
    /// It cannot be read.
    Unreadable {
        /// The evidence.
        id: EvidenceId,
        /// Why not.
        why: String,
    },
    /// Later evidence names it, earlier evidence is there, and it is not.
    Missing {
        /// What is missing.
        id: EvidenceId,
        /// What names it.
        named_by: EvidenceId,
    },
    /// It is not what it was when later evidence was written.
    Changed {
        /// What was changed.
        id: EvidenceId,
        /// What tells.
        named_by: EvidenceId,
    },
}

impl EvidenceProblem {
    /// The evidence that it is about.
    pub fn id(&self) -> EvidenceId {
        match self {
            Self::Unreadable { id, .. } | Self::Missing { id, .. } | Self::Changed { id, .. } => *id,
        }
    }
}

impl fmt::Display for EvidenceProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { id, why } => write!(f, "evidence {id} cannot be read: {why}"),
            Self::Missing { id, named_by } => write!(f, "evidence {id} is missing: evidence {named_by} names it"),
            Self::Changed { id, named_by } => write!(f, "evidence {id} was changed after evidence {named_by} was written"),
        }
    }
}

/// A verification that was, without the objects that it read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastRun {
    /// Its evidence.
    pub id: EvidenceId,
    /// It began after this moment, in Unix seconds, as [`Look::after_unix_s`] has it.
    pub after_unix_s: i64,
    /// What it says; its sets of objects are empty.
    pub verification: Verification,
}

impl LastRun {
    /// What was written later is greater, by whole seconds of the clock that says the earlier time: one that was ahead
    /// does not make it newer than all that comes after it. Of the same second, what ended later by its writer's clock.
    fn order(&self) -> (i64, i64, u64, EvidenceId) {
        let Verification { began_unix_us, duration_us, piece, .. } = self.verification;
        let written_unix_s = self.after_unix_s.saturating_add(self.verification.took_s());
        let ended_unix_us = began_unix_us.saturating_add(i64::try_from(duration_us).unwrap_or(i64::MAX));
        (written_unix_s, ended_unix_us, piece, self.id)
    }
}

/// What evidence tells.
#[derive(Debug, Default)]
pub struct Remembered {
    /// When objects were last read.
    pub checked: LastChecked,
    /// The newest run of each mode.
    pub last: BTreeMap<VerificationMode, LastRun>,
    /// The newest run that read objects.
    pub last_read: Option<LastRun>,
    /// Evidence that no other names: what new evidence has to name.
    pub newest: Vec<EvidenceLink>,
    /// What is wrong with evidence.
    pub problems: Vec<EvidenceProblem>,
    /// Evidence that was not looked at, because it is older than what was asked for.
    pub older: usize,
}

impl Remembered {
    /// The newest run of each mode, the newest first.
    pub fn last_runs(&self) -> Vec<&LastRun> {
        let mut runs: Vec<&LastRun> = self.last.values().collect();
        runs.sort_by_key(|run| std::cmp::Reverse(run.order()));
        runs
    }

    /// Whether a full verification is among them that was not stopped: what is older says nothing more of what is still
    /// stored.
    pub fn has_all(&self) -> bool {
        let full = self.last.get(&VerificationMode::Full).map(|run| &run.verification);
        full.is_some_and(|full| !full.interrupted && full.piece == 1)
    }

    /// Whether there is no evidence of a verification at all.
    pub fn is_empty(&self) -> bool {
        self.last.is_empty()
    }

    /// What the newest run that read objects says of a backup.
    pub fn backup(&self, backup: BackupId) -> Option<CheckedBackup> {
        let backups = self.last_read.as_ref().map(|run| run.verification.backups.as_slice()).unwrap_or_default();
        backups.iter().find(|checked| checked.backup_id == backup).copied()
    }

    /// When objects were last read, with what a verification has read that is about to be written down: now, in Unix
    /// seconds.
    pub fn with(&mut self, now_unix_s: i64, verification: &Verification) -> &LastChecked {
        let after_unix_s = verification.begins_after(now_unix_s);
        self.checked.insert(&verification.whole, Look { after_unix_s, is_damaged: false });
        self.checked.insert(&verification.damaged, Look { after_unix_s, is_damaged: true });
        &self.checked
    }

    /// Notes what [`put_evidence`](Repository::put_evidence) wrote, which names what was the newest until now.
    pub fn has_written(&mut self, links: &[EvidenceLink]) {
        let unnamed = self.newest.len().saturating_sub(MAX_EVIDENCE_LINKS);
        self.newest.truncate(unnamed);
        self.newest.extend(links.last());
    }

    /// Adds a verification that was written down at this moment, in Unix seconds.
    fn add(&mut self, id: EvidenceId, written_unix_s: i64, mut verification: Verification) {
        let after_unix_s = verification.begins_after(written_unix_s);
        let has_read = !verification.whole.is_empty() || !verification.damaged.is_empty();
        self.with(written_unix_s, &verification);
        verification.whole = verification.whole.none_of_it();
        verification.damaged = verification.damaged.none_of_it();
        let run = LastRun { id, after_unix_s, verification };
        let is_newer = |known: Option<&LastRun>| known.is_none_or(|known| known.order() < run.order());
        if has_read && is_newer(self.last_read.as_ref()) {
            self.last_read = Some(run.clone());
        }
        if is_newer(self.last.get(&run.verification.mode)) {
            self.last.insert(run.verification.mode, run);
        }
    }
}

/// Evidence in a listing.
#[derive(Debug, Clone, Copy)]
struct ListedEvidence {
    id: EvidenceId,
    /// When it was written, in Unix seconds: by its writer's clock or by the store's, whichever says that it was
    /// earlier.
    written_unix_s: i64,
    /// The same by whichever says that it was later.
    latest_unix_s: i64,
}

/// Evidence that was read.
struct ReadEvidence {
    blake3: [u8; 32],
    newest: Vec<EvidenceLink>,
    verification: Option<Verification>,
}

impl Repository {
    /// Writes down what a verification looked at and found. `newest` is what [`remembered`](Self::remembered) says is
    /// the newest. Answers with what was written; it is several where it looked at very many separate objects.
    ///
    /// # Errors
    /// [`Kind::Denied`] when the credentials cannot write; as the store's.
    pub fn put_evidence(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        verification: &Verification,
        newest: &[EvidenceLink],
    ) -> Result<Vec<EvidenceLink>, Error> {
        let mut newest: Vec<EvidenceLink> = newest.iter().rev().take(MAX_EVIDENCE_LINKS).rev().copied().collect();
        let mut links: Vec<EvidenceLink> = Vec::new();
        for part in parts(verification) {
            let written = Written { newest, verification: Some(part) };
            let json = serde_json::to_vec(&written).map_err(|e| Error::new(Kind::Bug, format!("encode evidence: {e}")))?;
            let id = self.put_new_evidence(cluster, system_id, &json, links.last().map(|link| link.id))?;
            links.push(EvidenceLink { id, blake3: *blake3::hash(&json).as_bytes() });
            newest = links.last().into_iter().copied().collect();
        }
        Ok(links)
    }

    /// Stores evidence under an id that is free, and later than another one.
    fn put_new_evidence(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        json: &[u8],
        after: Option<EvidenceId>,
    ) -> Result<EvidenceId, Error> {
        loop {
            let now = jiff::Timestamp::now().as_microsecond();
            let id = EvidenceId::begun_at(now, fastrand::u32(..))
                .ok_or_else(|| Error::new(Kind::Config, "the clock of this host is outside the years 1970 to 9999"))?;
            if after.is_some_and(|after| id <= after) {
                continue;
            }
            let name = ObjectName::Evidence { cluster: cluster.clone(), system_id, id };
            match self.put(&name, &Content::of_bytes(json)) {
                Ok(Stored::New | Stored::Same) => return Ok(id),
                Err(error) if error.kind == Kind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// All that evidence tells, and what is wrong with it.
    ///
    /// # Errors
    /// Unreachable, denied. Evidence that is damaged is a problem in the answer.
    pub fn remembered(&self, cluster: &ClusterName, system_id: SystemId) -> Result<Remembered, Error> {
        let listed = self.list_evidence(cluster, system_id)?;
        self.read_evidence(cluster, system_id, listed, &mut |_| false)
    }

    /// What the newest evidence tells, until `enough` says that it is: for what is only shown. Some of it may be older
    /// than what is read at all. Whether any is missing is not known then.
    ///
    /// # Errors
    /// As [`remembered`](Self::remembered).
    pub fn lately_remembered(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        enough: &mut dyn FnMut(&Remembered) -> bool,
    ) -> Result<Remembered, Error> {
        let mut listed = self.list_evidence(cluster, system_id)?;
        let older = listed.len().saturating_sub(MAX_EVIDENCE_SHOWN);
        listed.truncate(MAX_EVIDENCE_SHOWN);
        let mut remembered = self.read_evidence(cluster, system_id, listed, enough)?;
        remembered.older += older;
        Ok(remembered)
    }

    /// Evidence that was written before a moment, in Unix seconds, oldest first; never the newest of what is stored.
    /// Whoever deletes it does so in this order, and stops where one stays: then nothing is missing in the middle.
    ///
    /// # Errors
    /// As the store's.
    pub fn evidence_before(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        before_unix_s: i64,
    ) -> Result<Vec<EvidenceId>, Error> {
        let listed = self.list_evidence(cluster, system_id)?.into_iter();
        let mut by_id: BTreeMap<EvidenceId, i64> = listed.map(|evidence| (evidence.id, evidence.written_unix_s)).collect();
        by_id.pop_last();
        // Up to the first that is to stay, by either clock.
        let is_old = |(id, written): &(EvidenceId, i64)| id.started_unix_s < before_unix_s && *written < before_unix_s;
        let old = by_id.into_iter().take_while(is_old).map(|(id, _)| id).collect();
        Ok(old)
    }

    /// What is stored, newest first.
    fn list_evidence(&self, cluster: &ClusterName, system_id: SystemId) -> Result<Vec<ListedEvidence>, Error> {
        let mut listed = Vec::new();
        self.objects().list(Prefix::Evidence(cluster, system_id), "", &mut |object| {
            if let ObjectName::Evidence { id, .. } = object.name {
                let stored = object.modified_unix_s.unwrap_or(id.started_unix_s);
                let (written_unix_s, latest_unix_s) = (stored.min(id.started_unix_s), stored.max(id.started_unix_s));
                listed.push(ListedEvidence { id, written_unix_s, latest_unix_s });
            }
            ControlFlow::Continue(())
        })?;
        listed.sort_unstable_by_key(|evidence| (evidence.written_unix_s, evidence.id));
        listed.reverse();
        Ok(listed)
    }

    /// Reads evidence, the newest first, until it is enough.
    fn read_evidence(
        &self,
        cluster: &ClusterName,
        system_id: SystemId,
        listed: Vec<ListedEvidence>,
        enough: &mut dyn FnMut(&Remembered) -> bool,
    ) -> Result<Remembered, Error> {
        let mut remembered = Remembered::default();
        let mut chain = Chain::default();
        let mut left = listed.len();
        for some in listed.chunks(EVIDENCE_READERS) {
            let read = at_once(some, EVIDENCE_READERS, |evidence| self.read_one(cluster, system_id, evidence.id));
            left -= some.len();
            for (evidence, read) in some.iter().zip(read) {
                match read {
                    Ok(None) => {} // Expired since it was listed.
                    Ok(Some(read)) => {
                        chain.add(evidence.id, &read);
                        if let Some(verification) = read.verification {
                            remembered.add(evidence.id, evidence.written_unix_s, verification);
                        }
                    }
                    Err(error) if matches!(error.kind, Kind::Damaged | Kind::Denied) => {
                        chain.unreadable.insert(evidence.id);
                        remembered.problems.push(EvidenceProblem::Unreadable { id: evidence.id, why: error.what });
                    }
                    Err(error) => return Err(error),
                }
            }
            if left > 0 && enough(&remembered) {
                break;
            }
        }
        remembered.older = left;
        remembered.newest = chain.newest();
        remembered.problems.extend(chain.problems(left == 0));
        remembered.problems.sort_by_key(EvidenceProblem::id);
        Ok(remembered)
    }

    fn read_one(&self, cluster: &ClusterName, system_id: SystemId, id: EvidenceId) -> Result<Option<ReadEvidence>, Error> {
        let name = ObjectName::Evidence { cluster: cluster.clone(), system_id, id };
        let mut json = Vec::new();
        let Some(metadata) = self.opener().get_at_most(&name, MAX_EVIDENCE_BYTES as u64, &mut json)? else { return Ok(None) };
        let written: Written = serde_json::from_slice(&json)
            .map_err(|e| Error::new(Kind::Damaged, format!("{name} in {} is no evidence: {e}", self.location())))?;
        Ok(Some(ReadEvidence { blake3: metadata.plaintext_blake3, newest: written.newest, verification: written.verification }))
    }
}

/// Evidence and what it names.
#[derive(Default)]
struct Chain {
    read: BTreeMap<EvidenceId, [u8; 32]>,
    unreadable: BTreeSet<EvidenceId>,
    /// What is named, by what.
    named: BTreeMap<EvidenceLink, EvidenceId>,
}

impl Chain {
    fn add(&mut self, id: EvidenceId, read: &ReadEvidence) {
        self.read.insert(id, read.blake3);
        self.named.extend(read.newest.iter().map(|link| (*link, id)));
    }

    /// Evidence that no other names, oldest first.
    fn newest(&self) -> Vec<EvidenceLink> {
        let named: BTreeSet<EvidenceId> = self.named.keys().map(|link| link.id).collect();
        let newest = self.read.iter().filter(|(id, _)| !named.contains(id));
        newest.map(|(id, blake3)| EvidenceLink { id: *id, blake3: *blake3 }).collect()
    }

    /// What is missing or was changed. What is older than all that is stored has expired. Where not all was read,
    /// nobody knows what is missing.
    fn problems(&self, is_whole: bool) -> Vec<EvidenceProblem> {
        let oldest = self.read.keys().chain(&self.unreadable).min().copied();
        let problem = |(link, named_by): (&EvidenceLink, &EvidenceId)| {
            let (id, named_by) = (link.id, *named_by);
            match self.read.get(&id) {
                Some(blake3) if *blake3 == link.blake3 => None,
                Some(_) => Some(EvidenceProblem::Changed { id, named_by }),
                None if !is_whole || self.unreadable.contains(&id) || oldest.is_none_or(|oldest| id < oldest) => None,
                None => Some(EvidenceProblem::Missing { id, named_by }),
            }
        };
        self.named.iter().filter_map(problem).collect()
    }
}

/// What is written of a verification, in as many pieces as it needs; what it found is in the last one.
fn parts(verification: &Verification) -> Vec<Verification> {
    let none = verification.whole.none_of_it();
    let sets = verification.whole.split(MAX_EVIDENCE_RUNS).into_iter().map(|whole| (whole, none.clone()));
    let mut sets: Vec<(ObjectSet, ObjectSet)> = sets.collect();
    match sets.last_mut() {
        Some((whole, damaged)) if whole.runs() + verification.damaged.runs() <= MAX_EVIDENCE_RUNS => {
            *damaged = verification.damaged.clone();
        }
        _ => sets.extend(verification.damaged.split(MAX_EVIDENCE_RUNS).into_iter().map(|damaged| (none.clone(), damaged))),
    }
    let last = sets.len().saturating_sub(1);
    let part = |(number, (whole, damaged)): (usize, (ObjectSet, ObjectSet))| {
        let is_last = number == last;
        let findings = verification.findings.iter().take(if is_last { MAX_EVIDENCE_FINDINGS } else { 0 });
        let backups = verification.backups.iter().rev().take(if is_last { MAX_EVIDENCE_BACKUPS } else { 0 });
        Verification {
            whole,
            damaged,
            backups: backups.copied().collect(),
            findings: findings.map(shortened).collect(),
            piece: number as u64 + 1,
            ..verification.clone_without_lists(is_last)
        }
    };
    sets.into_iter().enumerate().map(part).collect()
}

impl Verification {
    /// A moment before which it had not begun if it was written down at this one; both in Unix seconds.
    fn begins_after(&self, written_unix_s: i64) -> i64 {
        written_unix_s.saturating_sub(self.took_s())
    }

    /// How long it took, in seconds, rounded up.
    fn took_s(&self) -> i64 {
        i64::try_from(self.duration_us.div_ceil(1_000_000)).unwrap_or(i64::MAX)
    }

    /// What it says without its lists, which are long; of a piece that is not the last, without what was found.
    fn clone_without_lists(&self, is_last: bool) -> Self {
        Self {
            mode: self.mode,
            period_s: self.period_s,
            host: self.host.clone(),
            began_unix_us: self.began_unix_us,
            duration_us: self.duration_us,
            interrupted: self.interrupted || !is_last,
            piece: self.piece,
            read_bytes: if is_last { self.read_bytes } else { 0 },
            owed_bytes: self.owed_bytes,
            whole: self.whole.none_of_it(),
            damaged: self.whole.none_of_it(),
            backups: Vec::new(),
            findings: Vec::new(),
            findings_total: if is_last { self.findings_total } else { 0 },
            findings_that_matter: if is_last { self.findings_that_matter } else { 0 },
        }
    }
}

/// A finding whose texts fit; what is left out of a text is marked.
fn shortened(finding: &SavedFinding) -> SavedFinding {
    let short = |text: &str| match text.len() <= MAX_EVIDENCE_TEXT_BYTES {
        true => text.to_owned(),
        false => {
            let end = text.floor_char_boundary(MAX_EVIDENCE_TEXT_BYTES.saturating_sub('…'.len_utf8()));
            format!("{}…", text.get(..end).unwrap_or_default())
        }
    };
    SavedFinding { object: short(&finding.object), what: short(&finding.what), matters: finding.matters }
}

/// A hash as 64 hexadecimal digits.
mod hash_text {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(hash: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(hash))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut hash = [0; 32];
        hex::decode_to_slice(&text, &mut hash).map_err(|_| D::Error::custom(format!("{text:?} is no hash")))?;
        Ok(hash)
    }
}

#[cfg(test)]
mod tests;
