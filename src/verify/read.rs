//! The reading of single objects: every byte authenticated, and what is in it held against what else is known.
//!
//! Lives here: what threads do by themselves. May not live here: what the results of several objects say together.

use std::sync::Arc;

use super::known::Known;
use super::meter::Meter;
use super::references::{ExtentContent, Reference};
use crate::codec::pack::RecordKind;
use crate::error::Error;
use crate::format::changes;
use crate::format::envelope::Metadata;
use crate::format::extent::PackId;
use crate::format::node::Node;
use crate::limits::{MAX_BACKUP_INDEX_BYTES, MAX_CHANGES_BYTES, MAX_SMALL_OBJECT_BYTES, MAX_SUMMARY_BYTES};
use crate::pg::changes::{ChangeSet, Collector};
use crate::pg::scan::{Scanner, Segment, Summary};
use crate::pg::{SegmentName, TimelineHistory, WalFileName};
use crate::repo::backups::index_contradicts;
use crate::repo::{ListedObject, ObjectName, StoredName, Verbatim};
use crate::threads::{Stop, Worker};

/// What a thread reads.
pub(super) enum Job {
    /// An object other than a pack.
    Object(ListedObject),
    /// A pack, and what backups say of its records.
    Pack(PackId, Vec<Reference>),
}

/// What became of an object.
pub(super) enum Outcome {
    /// It is right.
    Good,
    /// The store says that it does not exist any more.
    Gone,
    /// It is not what was stored, or does not say what belongs there.
    Wrong(String),
    /// It is genuine, and not what something else says of it.
    Contradicts(String),
    /// The store has it, and cannot hand it out.
    Unreadable(Error),
}

/// Records of a pack that no backup can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BadRecords {
    /// All of them.
    All,
    /// Those that begin there, ascending.
    At(Vec<u32>),
}

/// What came of a job.
pub(super) struct Done {
    /// What was read.
    pub(super) name: ObjectName,
    /// What became of it.
    pub(super) outcome: Outcome,
    /// Whether readers have a good copy of it.
    pub(super) is_repaired: bool,
    /// Of a segment that is whole, what is in it, without the list of transactions.
    pub(super) summary: Option<Arc<Summary>>,
    /// Of a pack, which records are bad.
    pub(super) bad: Option<BadRecords>,
}

/// Reads objects.
pub(super) struct ReadWorker<'w> {
    pub(super) known: &'w Known<'w>,
    pub(super) meter: &'w Meter,
    pub(super) stop: &'w Stop,
    pub(super) keys: &'w [[u8; 32]],
}

impl Worker for ReadWorker<'_> {
    type Job = Job;
    type Output = Done;

    fn run(&mut self, job: Job) -> Result<Done, Error> {
        let mut done = match job {
            Job::Pack(pack, references) => self.pack(pack, &references)?,
            Job::Object(object) => self.object(object)?,
        };
        if matches!(done.outcome, Outcome::Wrong(_) | Outcome::Unreadable(_)) {
            done.is_repaired = self.is_repaired(&done.name)?;
        }
        Ok(done)
    }
}

impl ReadWorker<'_> {
    fn read(&self, bytes: usize) {
        self.meter.take(bytes, self.stop);
    }

    fn object(&self, object: ListedObject) -> Result<Done, Error> {
        let name = object.name;
        if let ObjectName::Wal { file: StoredName { file: WalFileName::Segment(segment), .. }, .. } = &name {
            return self.segment(*segment, name.clone());
        }
        let mut content = Bounded { bytes: Vec::new(), is_kept: is_understood(&name) };
        let read = self.known.repository.read_verbatim(&name, &|bytes| self.read(bytes), &mut content)?;
        let outcome = self.outcome(read, |_| self.says_what_it_must(&name, &content.bytes));
        Ok(Done { name, outcome, is_repaired: false, summary: None, bad: None })
    }

    fn outcome<T>(&self, read: Verbatim<T>, good: impl FnOnce(T) -> Outcome) -> Outcome {
        match read {
            Verbatim::Good(read) => good(read),
            Verbatim::Damaged(why) => Outcome::Wrong(why),
            Verbatim::Gone => Outcome::Gone,
            Verbatim::Unreadable(error) => Outcome::Unreadable(error),
        }
    }

    /// Of what the object says.
    fn says_what_it_must(&self, name: &ObjectName, content: &[u8]) -> Outcome {
        let why = match name {
            ObjectName::Wal { file: StoredName { file: WalFileName::History(timeline), .. }, .. } => {
                TimelineHistory::parse(*timeline, content).err().map(|e| format!("it is no timeline history: {e}"))
            }
            ObjectName::Node { timeline, level, first_segment, .. } => match Node::decode(content) {
                Err(e) => Some(e.to_string()),
                Ok(node) => {
                    let id = (node.id.timeline, node.id.level, node.id.first(), node.id.size);
                    let own = (*timeline, *level, *first_segment, self.known.facts.wal_segment_size);
                    (id != own).then(|| "it is another node".to_owned())
                }
            },
            ObjectName::Changes { timeline, level, first_segment, .. } => match changes::decode(content) {
                Err(e) => Some(e.to_string()),
                Ok((span, _)) => {
                    let of = (span.timeline, span.level, span.first(), span.size);
                    let own = (*timeline, *level, *first_segment, self.known.facts.wal_segment_size);
                    (of != own).then(|| "it is of other segments".to_owned())
                }
            },
            ObjectName::BackupIndex { .. } => index_contradicts(content, self.known.heads.backups.iter()),
            _ => None,
        };
        why.map_or(Outcome::Good, Outcome::Wrong)
    }

    fn segment(&self, segment: SegmentName, name: ObjectName) -> Result<Done, Error> {
        let done = |outcome, summary| Done { name: name.clone(), outcome, is_repaired: false, summary, bad: None };
        let Some(which) = Segment::new(segment, self.known.facts.wal_segment_size) else {
            return Ok(done(Outcome::Good, None));
        };
        let mut scanner = Scanner::new(which, Collector::new(which.size_bytes()));
        let read = self.known.repository.read_verbatim(&name, &|bytes| self.read(bytes), &mut scanner)?;
        let mut summary = None;
        let outcome = self.outcome(read, |metadata| {
            let scanned = scanner.finish();
            let changed = scanned.visitor.finish();
            let outcome = match self.fits(&metadata, &scanned.summary) {
                Outcome::Good => changes_fit(&metadata, which, &changed),
                other => other,
            };
            // The list of transactions is for the comparison alone.
            summary = Some(Arc::new(Summary { xacts: None, ..scanned.summary }));
            outcome
        });
        Ok(done(outcome, summary))
    }

    /// Whether a segment is what its name and its metadata say.
    fn fits(&self, metadata: &Metadata, own: &Summary) -> Outcome {
        let facts = self.known.facts;
        let size = facts.wal_segment_size.bytes();
        if metadata.plaintext_bytes != size {
            return Outcome::Wrong(format!("it holds {} bytes, and segments have {size}", metadata.plaintext_bytes));
        }
        if let Some(origin) = own.origin.filter(|origin| origin.system_id != facts.system_id.0) {
            return Outcome::Wrong(format!("it holds WAL of system identifier {}", origin.system_id));
        }
        let Some(bytes) = &metadata.wal_summary else { return Outcome::Good };
        // What this version wrote has the same bytes: nothing has to be taken apart.
        if own.encode_within(MAX_SUMMARY_BYTES).as_ref() == Some(bytes) {
            return Outcome::Good;
        }
        match Summary::decode(bytes) {
            Err(e) => Outcome::Contradicts(format!("its summary cannot be read: {e}")),
            Ok(stored) if is_same(&stored, own) => Outcome::Good,
            Ok(_) => Outcome::Contradicts("its summary is not what a scan of its content finds".to_owned()),
        }
    }

    /// Whether a good copy stands beside an object.
    fn is_repaired(&self, name: &ObjectName) -> Result<bool, Error> {
        for repair in self.known.repository.objects().repairs(name)? {
            let is_good = match name {
                ObjectName::Pack { .. } => {
                    let read = self.known.repository.read_pack_verbatim(&repair, &|bytes| self.read(bytes), &mut |_, _| {})?;
                    matches!(read, Verbatim::Good(()))
                }
                _ => {
                    let read = self.known.repository.read_verbatim(&repair, &|bytes| self.read(bytes), &mut std::io::sink())?;
                    matches!(read, Verbatim::Good(_))
                }
            };
            if is_good {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn pack(&self, pack: PackId, references: &[Reference]) -> Result<Done, Error> {
        let name = super::quick::pack_name(self.known, pack);
        let mut held = Held { references, keys: self.keys, bad: Vec::new(), contradiction: None };
        let read = self.known.repository.read_pack_verbatim(&name, &|bytes| self.read(bytes), &mut |record, content| {
            held.record(record.kind, record.offset, record.sealed_bytes, content.ok());
        })?;
        // What is left is beyond the last record.
        held.skip_to(u32::MAX);
        let Held { mut bad, contradiction, .. } = held;
        bad.sort_unstable();
        bad.dedup();
        let is_all = matches!(read, Verbatim::Gone | Verbatim::Unreadable(_));
        let outcome = self.outcome(read, |()| contradiction.map_or(Outcome::Good, Outcome::Contradicts));
        let bad = match (&outcome, is_all) {
            (Outcome::Good, _) => None,
            (_, true) => Some(BadRecords::All),
            (_, false) => Some(BadRecords::At(bad)),
        };
        Ok(Done { name, outcome, is_repaired: false, summary: None, bad })
    }
}

/// Whether a stored change set has all that a scan finds. It may say more: where it would have been too long, or where
/// another version of Walvis was less exact.
fn changes_fit(metadata: &Metadata, segment: Segment, own: &ChangeSet) -> Outcome {
    let Some(stored) = &metadata.wal_changes else { return Outcome::Good };
    match changes::decode(stored) {
        Err(e) => Outcome::Contradicts(format!("its change set cannot be read: {e}")),
        Ok((span, _)) if Some(span) != changes::span_of(segment) => {
            Outcome::Contradicts("its change set is of another segment".to_owned())
        }
        Ok((_, stored)) if stored.has_all(own) => Outcome::Good,
        Ok(_) => Outcome::Contradicts("its change set lacks what a scan of its content finds".to_owned()),
    }
}

/// Whether a stored summary is what a scan finds, as far as it says anything.
fn is_same(stored: &Summary, own: &Summary) -> bool {
    let xacts = stored.xacts.as_ref().and(own.xacts.clone());
    let marks = match (&stored.marks, stored.knows_files) {
        (None, _) => None,
        // An earlier version looked for fewer marks.
        (Some(marks), false) => Some(marks.clone()),
        (Some(_), true) => own.marks.clone(),
    };
    *stored == Summary { xacts, marks, knows_files: stored.knows_files, ..own.clone() }
}

/// Whether the content of an object is looked at, besides that it is genuine.
fn is_understood(name: &ObjectName) -> bool {
    matches!(
        name,
        ObjectName::Node { .. }
            | ObjectName::Changes { .. }
            | ObjectName::BackupIndex { .. }
            | ObjectName::Wal { file: StoredName { file: WalFileName::History(_), .. }, .. }
    )
}

/// Keeps what is small.
struct Bounded {
    bytes: Vec<u8>,
    is_kept: bool,
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.is_kept
            && self.bytes.len().saturating_add(bytes.len())
                <= MAX_BACKUP_INDEX_BYTES.max(MAX_SMALL_OBJECT_BYTES).max(MAX_CHANGES_BYTES)
        {
            self.bytes.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The records of a pack, held against references in the order of their places.
struct Held<'h> {
    references: &'h [Reference],
    keys: &'h [[u8; 32]],
    bad: Vec<u32>,
    contradiction: Option<String>,
}

impl Held<'_> {
    fn record(&mut self, kind: RecordKind, offset: u32, sealed_bytes: u32, content: Option<&[u8]>) {
        self.skip_to(offset);
        while let Some((reference, rest)) = self.references.split_first().filter(|(reference, _)| reference.offset == offset) {
            self.references = rest;
            let is_right = match (content, &reference.content) {
                (None, _) => {
                    self.bad.push(offset);
                    continue;
                }
                (Some(_), None) => kind == RecordKind::Table,
                (Some(content), Some(expected)) => kind == RecordKind::Extent && self.is_content(content, expected),
            };
            if !is_right || reference.sealed_bytes != sealed_bytes {
                self.contradict(offset, "is not what a backup says it is");
            }
        }
    }

    /// Passes over references before a place: they are to no record.
    fn skip_to(&mut self, offset: u32) {
        while let Some((reference, rest)) = self.references.split_first().filter(|(reference, _)| reference.offset < offset) {
            self.references = rest;
            self.contradict(reference.offset, "is none, and a backup refers to it");
        }
    }

    fn contradict(&mut self, offset: u32, what: &str) {
        self.bad.push(offset);
        self.contradiction.get_or_insert_with(|| format!("the record at {offset} {what}"));
    }

    fn is_content(&self, content: &[u8], expected: &ExtentContent) -> bool {
        let hash = self.keys.get(usize::from(expected.key)).map(|key| blake3::keyed_hash(key, content));
        content.len() == expected.bytes as usize
            && crc32c::crc32c(content) == expected.crc32c
            && hash.is_some_and(|hash| hash.as_bytes().first_chunk() == Some(&expected.hash))
    }
}
