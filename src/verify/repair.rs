//! Repair: what is damaged or missing gets good copies of another repository.
//!
//! Lives here: which copy is taken, and how it takes the place of a damaged object so that one that reads meanwhile, or
//! a kill at any moment, meets nothing worse than the damage. May not live here: how damage is found, and
//! authentication (`repo`).
//!
//! A damaged object is replaced in this order: the good copy is stored beside it, the object is deleted, and created
//! anew. The copy stays for [`REPAIR_KEPT`]: another run may have looked at the object before it was good, and delete
//! it once more. Some objects are never deleted, because somebody who does not find them draws a conclusion from that;
//! their copies stand beside them for good.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use crate::codec::Digest;
use crate::error::{Error, Kind};
use crate::format::descriptor::RepositoryCipher;
use crate::format::envelope::ObjectKind;
use crate::limits::{MAX_REPAIRS, REPAIR_KEPT};
use crate::pg::WalFileName;
use crate::repo::{GoodBytes, GoodContent, NoCopy, ObjectName, Prefix, RawObjects, Repository};
use crate::store::Created;

/// Where good copies come from.
pub struct RepairSource<'a> {
    repository: &'a Repository,
    is_copy: bool,
}

/// What became of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repaired {
    /// It is good: somebody repaired it meanwhile, or the store handed out what it has not.
    Good,
    /// It was missing, and is there again.
    Created,
    /// It was damaged, and is good.
    Replaced,
    /// It is damaged. A good copy stands beside it, which readers take.
    Beside {
        /// The copy.
        copy: ObjectName,
        /// Why the object itself was not replaced.
        because: String,
    },
    /// There is no good copy of it.
    Lost {
        /// What there is instead.
        because: String,
    },
}

/// A good copy of an object.
enum Copy<'s> {
    /// The object itself, as it is sealed.
    Bytes(GoodBytes<'s>),
    /// Its content.
    Content(GoodContent),
}

impl<'a> RepairSource<'a> {
    /// Takes good copies from `source` for `target`, which is another repository: from one of its id any object byte
    /// for byte, from another one the content of WAL files.
    pub fn new(target: &Repository, source: &'a Repository) -> Self {
        let is_copy = target.descriptor().repository_id == source.descriptor().repository_id;
        Self { repository: source, is_copy }
    }

    /// Whether it has the id of the repository that is repaired, so that its objects are taken byte for byte.
    pub fn is_copy(&self) -> bool {
        self.is_copy
    }
}

/// Repairs one object. `is_unreadable` says that the store has it and does not hand it out, as a disk with a bad sector
/// does: that is damage then, and no outage.
///
/// # Errors
/// As the stores'. What was done by then is whole, and another run goes on from there.
pub fn repair(target: &Repository, source: &RepairSource<'_>, name: &ObjectName, is_unreadable: bool) -> Result<Repaired, Error> {
    let objects = target.objects();
    let is_there = match state(target, name, is_unreadable)? {
        State::Good => return Ok(Repaired::Good),
        State::Gone => false,
        State::Bad => true,
    };
    // Of a node several contents are right: it is as complete as the catalog was.
    let known = match target.own_content(name) {
        _ if is_node(name) => None,
        Err(error) if is_unreadable && error.kind == Kind::Unreachable => None,
        known => known?,
    };
    let copies = objects.repairs(name)?;
    let mut lost = Vec::new();
    for beside in &copies {
        match target.good_bytes(objects, beside)? {
            Ok(good) if fits(known, good.content()) => {
                let is_bad = is_there.then_some(is_unreadable);
                return put_in_place(target, name, &Copy::Bytes(good), is_bad, Some(beside.clone()));
            }
            Ok(_) => lost.push(format!("{beside} has other content")),
            Err(NoCopy::Gone) => {}
            Err(NoCopy::Damaged(why)) => lost.push(format!("{beside} is damaged: {why}")),
        }
    }
    match take(target, source, name, known)? {
        Ok(good) => {
            if !is_there {
                return put_in_place(target, name, &good, None, None);
            }
            let beside = put_beside(target, name, &good, copies.len())?;
            put_in_place(target, name, &good, Some(is_unreadable), Some(beside))
        }
        Err(why) => {
            lost.push(why);
            Ok(Repaired::Lost { because: lost.join("; ") })
        }
    }
}

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    Bad,
    Gone,
}

fn state(target: &Repository, name: &ObjectName, is_unreadable: bool) -> Result<State, Error> {
    match target.good_bytes(target.objects(), name) {
        Ok(Ok(_)) => Ok(State::Good),
        Ok(Err(NoCopy::Damaged(_))) => Ok(State::Bad),
        Ok(Err(NoCopy::Gone)) => Ok(State::Gone),
        Err(error) if is_unreadable && error.kind == Kind::Unreachable => Ok(State::Bad),
        Err(error) => Err(error),
    }
}

/// The good copy that the source has, or why it has none.
fn take<'s>(
    target: &Repository,
    source: &RepairSource<'s>,
    name: &ObjectName,
    known: Option<Digest>,
) -> Result<Result<Copy<'s>, String>, Error> {
    let location = source.repository.location();
    if source.is_copy {
        let objects = source.repository.objects();
        let mut whys = Vec::new();
        let mut from = vec![name.clone()];
        from.extend(objects.repairs(name)?);
        for from in from {
            match target.good_bytes(objects, &from)? {
                Ok(good) if fits(known, good.content()) => return Ok(Ok(Copy::Bytes(good))),
                Ok(_) => whys.push(format!("{from} in {location} has other content")),
                Err(NoCopy::Gone) => whys.push(format!("{from} is not in {location}")),
                Err(NoCopy::Damaged(why)) => whys.push(format!("{from} in {location} is no good copy: {why}")),
            }
        }
        return Ok(Err(whys.join("; ")));
    }
    if !matches!(name, ObjectName::Wal { .. }) {
        return Ok(Err(format!("{location} is not a copy of this repository, and can give it WAL files only")));
    }
    // What is not encrypted may be anybody's. It may not become genuine by being sealed here, unless what is damaged
    // says itself that this is its content.
    let is_open = |repository: &Repository| repository.descriptor().cipher == RepositoryCipher::None;
    if known.is_none() && is_open(source.repository) && !is_open(target) {
        return Ok(Err(format!("{location} is not encrypted: that its {name} is genuine is not proven")));
    }
    match source.repository.good_content(name)? {
        Ok(good) if fits(known, good.content()) => Ok(Ok(Copy::Content(good))),
        Ok(_) => Ok(Err(format!("{name} in {location} has other content"))),
        Err(NoCopy::Gone) => Ok(Err(format!("{name} is not in {location}"))),
        Err(NoCopy::Damaged(why)) => Ok(Err(format!("{name} in {location} is no good copy: {why}"))),
    }
}

fn fits(known: Option<Digest>, content: Digest) -> bool {
    known.is_none_or(|known| known == content)
}

fn put(target: &Repository, to: &ObjectName, copy: &Copy<'_>) -> Result<Created, Error> {
    match copy {
        Copy::Bytes(good) => target.put_bytes(to, good),
        Copy::Content(good) => target.put_content(to, good),
    }
}

/// Stores a copy beside a damaged object, as the newest of its copies.
fn put_beside(target: &Repository, name: &ObjectName, copy: &Copy<'_>, there: usize) -> Result<ObjectName, Error> {
    let first = u32::try_from(there).unwrap_or(MAX_REPAIRS).saturating_add(1);
    for number in first..=MAX_REPAIRS {
        let beside = ObjectName::Repair { number, of: Box::new(name.clone()) };
        if put(target, &beside, copy)? == Created::New {
            return Ok(beside);
        }
        // Another run was faster: what it stored is as good, or damaged and followed by ours.
        if target.good_bytes(target.objects(), &beside)?.is_ok() {
            target.objects().make_durable(&beside)?;
            return Ok(beside);
        }
    }
    Err(Error::new(Kind::Damaged, format!("{name} in {} has {MAX_REPAIRS} copies, and none is good", target.location()))
        .hint("find out what damages them; then remove those below repairs/ that belong to this object"))
}

/// Creates the object if it is missing; replaces it where that is possible if it `is_bad`, which says whether it is
/// unreadable. `beside` is a copy that stands beside it.
fn put_in_place(
    target: &Repository,
    name: &ObjectName,
    copy: &Copy<'_>,
    is_bad: Option<bool>,
    beside: Option<ObjectName>,
) -> Result<Repaired, Error> {
    let objects = target.objects();
    if let Some(is_unreadable) = is_bad {
        let Some(beside) = beside.clone() else {
            return Err(Error::new(Kind::Bug, format!("{name} would be deleted without a copy beside it")));
        };
        if let Some(because) = why_never_replaced(objects, name)? {
            return Ok(Repaired::Beside { copy: beside, because });
        }
        // Whoever replaced it meanwhile did it well.
        if state(target, name, is_unreadable)? == State::Good {
            return Ok(Repaired::Good);
        }
        match objects.delete(name) {
            Ok(()) => {}
            Err(error) if error.kind == Kind::Denied => {
                return Ok(Repaired::Beside { copy: beside, because: format!("it cannot be deleted: {}", error.what) });
            }
            Err(error) => return Err(error),
        }
    }
    let created = put(target, name, copy)?;
    match target.good_bytes(objects, name)? {
        Ok(_) if created == Created::Exists => {
            objects.make_durable(name)?;
            Ok(Repaired::Good)
        }
        Ok(_) if is_bad.is_some() => Ok(Repaired::Replaced),
        Ok(_) => Ok(Repaired::Created),
        Err(NoCopy::Gone) => Err(Error::new(
            Kind::Unreachable,
            format!("{name} in {} is not there although it was stored at this moment", target.location()),
        )
        .hint("something deletes there: find out what, and run this again")),
        // A store that keeps what it was told to delete, or a disk that fails.
        Err(NoCopy::Damaged(why)) => match beside {
            Some(copy) => Ok(Repaired::Beside { copy, because: format!("it was replaced, and is damaged: {why}") }),
            None => Ok(Repaired::Lost { because: format!("it was stored at this moment, and is damaged: {why}") }),
        },
    }
}

/// Why the object must not be missing for a moment; `None` when whoever does not find it reads the copy beside it, or
/// needs it not.
fn why_never_replaced(objects: &RawObjects, name: &ObjectName) -> Result<Option<String>, Error> {
    Ok(match (name.sealed_kind(), name) {
        (Some(ObjectKind::Pack | ObjectKind::Node | ObjectKind::Changes | ObjectKind::Partial | ObjectKind::Backup), _) => None,
        (Some(ObjectKind::Segment), ObjectName::Wal { cluster, system_id, file }) => {
            let prefix = Prefix::Timeline(cluster, *system_id, file.file.timeline());
            let mut is_last = true;
            objects.list(prefix, &name.to_string(), &mut |object| {
                is_last = !matches!(object.name.wal_file(), Some(WalFileName::Segment(_)));
                if is_last { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            is_last.then(|| "it is the last segment of its timeline, and a recovery that does not find it would end".to_owned())
        }
        _ => Some("it is never deleted, because something else could take its place".to_owned()),
    })
}

fn is_node(name: &ObjectName) -> bool {
    matches!(name.sealed_kind(), Some(ObjectKind::Node | ObjectKind::Changes))
}

/// Removes copies beside objects that are good again, once they have stood there for [`REPAIR_KEPT`] by the store's
/// clock. Returns how many.
///
/// # Errors
/// As the store's. Where nothing can be deleted, nothing is, and that is no error.
pub fn remove_needless_copies(target: &Repository, go_on: &dyn Fn() -> Result<(), Error>) -> Result<u64, Error> {
    let objects = target.objects();
    let mut old = Vec::new();
    let mut young = BTreeSet::new();
    let long_ago = jiff::Timestamp::now().as_second().saturating_sub(REPAIR_KEPT.as_secs().cast_signed());
    objects.visit_repairs(&mut |of, object| {
        if object.modified_unix_s.is_some_and(|modified| modified < long_ago) {
            old.push((of.clone(), object.name));
        } else {
            young.insert(of.to_string());
        }
        ControlFlow::Continue(())
    })?;
    old.retain(|(of, _)| !young.contains(&of.to_string()));
    // The highest number of an object first: readers look for them from 1 on.
    old.sort_by_key(|(of, copy)| (of.to_string(), std::cmp::Reverse(number(copy))));
    let (mut removed, mut last) = (0, None);
    for (of, copy) in old {
        go_on()?;
        let is_good = match &last {
            Some((name, is_good)) if *name == of => *is_good,
            _ => target.good_bytes(objects, &of)?.is_ok(),
        };
        last = Some((of, is_good));
        if !is_good {
            continue;
        }
        match objects.delete(&copy) {
            Ok(()) => removed += 1,
            Err(error) if error.kind == Kind::Denied => break,
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

fn number(copy: &ObjectName) -> u32 {
    match copy {
        ObjectName::Repair { number, .. } => *number,
        _ => 0,
    }
}
