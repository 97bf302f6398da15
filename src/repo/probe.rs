//! Finding out, by trying, whether a store creates objects only if they are absent.
//!
//! # What it proves
//! A store that overwrites, or answers two writers of one object that each of them created it, is found out for
//! certain: it was seen. The opposite can't be proven from outside. A store that looks first and writes then has a
//! moment in between; many creations of one object at the same time, in rounds of each way to create (a put, the
//! completion of an upload, both at once), fall into it with a probability that leaves little over, but not nothing. So
//! any doubt counts against the store, and nothing but the store's own promise is behind a probe that found none.
//!
//! Every probe has names of its own below `probe/`, so that two at the same time don't meet. What a probe leaves where
//! it was killed or can't delete is a few bytes each, which mean nothing to anybody and may be deleted at any time.
//! Where it can't delete it leaves [`KEPT`] too, and the next one tries that object and makes no more of them.

use std::ops::ControlFlow;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::object_name::ObjectName;
use super::prefix::Prefix;
use super::raw_objects::{RawObjects, content_id};
use crate::crypto::random_bytes;
use crate::error::{Error, Kind};
use crate::format::descriptor::CreateIfAbsent;
use crate::limits::{ABANDONED_AFTER, KIB, MAX_SMALL_OBJECT_BYTES};
use crate::store::features::Features;
use crate::store::{Created, ErrorKind, Key, Upload};
use crate::threads::at_the_same_moment;

/// How the writers of each round create, one after the other round. Uploads come first: what they need before their
/// last request opens the connections that all later rounds use.
const ROUNDS: [Round; 7] = [Round::Uploads, Round::Uploads, Round::Uploads, Round::Both, Round::Puts, Round::Puts, Round::Puts];

#[derive(Debug, Clone, Copy)]
enum Round {
    Puts,
    Uploads,
    Both,
}

impl Round {
    /// How many create one object at the same moment, and its size in bytes. The moment between looking and writing is
    /// the longer the more there is to write: few writers of much meet in it more often than many of little.
    fn writers(self) -> (usize, usize) {
        match self {
            Self::Puts => (8, 64 * KIB),
            Self::Uploads | Self::Both => (4, MAX_SMALL_OBJECT_BYTES),
        }
    }

    /// Whether this writer uploads in parts.
    fn uploads(self, writer: usize) -> bool {
        match self {
            Self::Puts => false,
            Self::Uploads => true,
            Self::Both => writer.is_multiple_of(2),
        }
    }
}

/// Left by a probe that found nothing wrong and can't delete. Its content.
const KEPT: (&str, &[u8]) = ("kept", b"a store that was probed\n");

/// The name of an object that a probe makes.
fn name_below(name: String) -> Result<ObjectName, Error> {
    Key::new(name).map(ObjectName::Probe).map_err(|e| Error::new(Kind::Bug, e.to_string()))
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// What in its behaviour speaks against trusting the store, if anything does.
    pub doubt: Option<String>,
    /// Whether the credentials can delete.
    pub can_delete: bool,
    /// In how many rounds the store was asked by many at once.
    pub races: usize,
}

impl Probed {
    /// How to create objects in this store.
    pub fn create_if_absent(&self) -> CreateIfAbsent {
        if self.doubt.is_none() { CreateIfAbsent::Store } else { CreateIfAbsent::Claims }
    }
}

/// Probes a store through a connection that relies on the store itself. `races`: many creations at once too, not only
/// one after the other. For a file system the latter is enough: the kernel gives a name once.
///
/// # Errors
/// As the store's.
pub(super) fn probe(objects: &RawObjects, races: bool) -> Result<Probed, Error> {
    if let Some(found) = again(objects)? {
        return Ok(found);
    }
    let id: [u8; 8] = random_bytes().map_err(|e| Error::new(Kind::Bug, e))?;
    let name = |round: usize| name_below(format!("{}/{round}", hex::encode(id)));
    let mut found = Probed { doubt: None, can_delete: true, races: 0 };
    let first = name(0)?;
    found.doubt = one_after_the_other(objects, &first)?;
    found.can_delete = remove(objects, &first)?;
    if races {
        found.can_delete &= list_in_order(objects, &format!("{}/order/", hex::encode(id)))?;
        for (n, round) in (1..).zip(ROUNDS) {
            if found.doubt.is_some() {
                break;
            }
            let name = name(n)?;
            found.doubt = race(objects, &name, round)?;
            found.races += 1;
            if found.can_delete {
                found.can_delete = remove(objects, &name)?;
            }
        }
    }
    if found.can_delete {
        sweep(objects);
    } else if found.doubt.is_none() {
        let (name, content) = KEPT;
        // Another may have been faster.
        let _ = objects.create(&name_below(name.to_owned())?, Bytes::from_static(content), &content_id(content))?;
    }
    Ok(found)
}

/// An object that a probe made.
fn read(objects: &RawObjects, name: &ObjectName) -> Result<Option<Vec<u8>>, Error> {
    objects.read_at_most(name, MAX_SMALL_OBJECT_BYTES)
}

/// What an object tells that an earlier probe could not delete; `None` where there is none, or it leaves anything to
/// ask.
fn again(objects: &RawObjects) -> Result<Option<Probed>, Error> {
    let (name, content) = (name_below(KEPT.0.to_owned())?, KEPT.1);
    if read(objects, &name)?.is_none() {
        return Ok(None);
    }
    // `New` may also mean that somebody with other credentials has just deleted it.
    let is_refused = overwrite(objects, &name)?.is_none() && read(objects, &name)?.as_deref() == Some(content);
    if is_refused && !remove(objects, &name)? {
        return Ok(Some(Probed { doubt: None, can_delete: false, races: 0 }));
    }
    Ok(None)
}

/// What keeps objects from being deleted or replaced, beside what the credentials may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protection {
    /// What the store is set up to do.
    pub features: Features,
    /// Whether an object can be put without asking that there is none, and so replace one; `None` where there is no
    /// such request.
    pub can_replace: Option<bool>,
}

/// Finds out what protects the objects in a store, with an object of its own, or the one that a probe left. It is
/// replaced by the same content, if it can be.
///
/// # Errors
/// As the store's.
pub(super) fn protection(objects: &RawObjects) -> Result<Protection, Error> {
    let features = objects.store().features()?;
    let kept = name_below(KEPT.0.to_owned())?;
    let is_kept = read(objects, &kept)?.is_some();
    let id: [u8; 8] = random_bytes().map_err(|e| Error::new(Kind::Bug, e))?;
    let name = if is_kept { kept } else { name_below(format!("{}/replace", hex::encode(id)))? };
    let can_replace = objects.store().can_replace(&name.key()?, Bytes::from_static(KEPT.1))?;
    if !is_kept && can_replace.is_some() {
        remove(objects, &name)?;
    }
    Ok(Protection { features, can_replace })
}

/// Creates an object, and then again with other content.
fn one_after_the_other(objects: &RawObjects, name: &ObjectName) -> Result<Option<String>, Error> {
    let first = b"first\n";
    // A lost answer makes `Exists` of this one.
    let _ = objects.create(name, Bytes::from_static(first), &content_id(first))?;
    if let Some(doubt) = overwrite(objects, name)? {
        return Ok(Some(doubt));
    }
    let is_untouched = read(objects, name)?.as_deref() == Some(first);
    Ok((!is_untouched).then(|| "it says that an object exists, and yet replaces it".to_owned()))
}

/// Lists names that stores which keep directories put into another order than that of their bytes. A listing out of
/// order is an error of the store, which says so. Whether the credentials can delete.
fn list_in_order(objects: &RawObjects, prefix: &str) -> Result<bool, Error> {
    let names = ["a-b/c", "a.b", "a/b", "a0"].map(|name| name_below(format!("{prefix}{name}")));
    let names: Vec<ObjectName> = names.into_iter().collect::<Result<_, _>>()?;
    let expected: Vec<Key> = names.iter().map(ObjectName::key).collect::<Result<_, _>>()?;
    for name in &names {
        let _ = objects.create(name, Bytes::new(), &content_id(b""))?;
    }
    let mut listed = Vec::new();
    let outcome = objects.store().list(&format!("{}{prefix}", Prefix::Probes), "", &mut |entry| {
        listed.push(entry.key);
        ControlFlow::Continue(())
    });
    let mut can_delete = true;
    for name in &names {
        can_delete = can_delete && remove(objects, name)?;
    }
    outcome?;
    if listed != expected {
        return Err(Error::new(Kind::Unreachable, format!("{} does not list what was just stored there", objects.location()))
            .hint("its listings lag behind its writes: choose another store"));
    }
    Ok(can_delete)
}

/// Tries to overwrite an object in both ways; what speaks against the store.
fn overwrite(objects: &RawObjects, name: &ObjectName) -> Result<Option<String>, Error> {
    let (second, third) = (b"second\n", b"third\n");
    if objects.create(name, Bytes::from_static(second), &content_id(second))? == Created::New {
        return Ok(Some("it replaces what is there (it ignores If-None-Match)".to_owned()));
    }
    let mut upload = objects.store().begin(&name.key()?, &content_id(third))?;
    upload.part(Bytes::from_static(third))?;
    Ok((upload.complete()? == Created::New)
        .then(|| "an upload in parts replaces what is there (it ignores If-None-Match when completing one)".to_owned()))
}

/// A writer who has done everything but the last request.
enum Writer<'a> {
    Put(&'a RawObjects),
    Upload(Box<dyn Upload + 'a>),
}

impl Writer<'_> {
    fn prepare<'a>(objects: &'a RawObjects, name: &ObjectName, content: &Bytes, uploads: bool) -> Result<Writer<'a>, Error> {
        if !uploads {
            return Ok(Writer::Put(objects));
        }
        let mut upload = objects.store().begin(&name.key()?, &content_id(content))?;
        upload.part(content.clone())?;
        Ok(Writer::Upload(upload))
    }

    fn finish(&mut self, name: &ObjectName, content: &Bytes) -> Result<Created, Error> {
        match self {
            Writer::Put(objects) => objects.create(name, content.clone(), &content_id(content)),
            Writer::Upload(upload) => Ok(upload.complete()?),
        }
    }
}

/// Lets many create one object at the same moment, and looks at who is said to have done it.
fn race(objects: &RawObjects, name: &ObjectName, round: Round) -> Result<Option<String>, Error> {
    let (writers, size) = round.writers();
    let contents: Vec<(usize, Bytes)> =
        (0_u8..).take(writers).map(|writer| (writer.into(), Bytes::from(vec![writer; size]))).collect();
    let outcomes = at_the_same_moment(
        &contents,
        |(writer, content)| Writer::prepare(objects, name, content, round.uploads(*writer)),
        |(_, content), mut writer| writer.finish(name, content),
    );
    let writers = outcomes.len();
    if writers < 2 {
        return Err(Error::new(Kind::Unreachable, "no threads to find out whether the store refuses to overwrite")
            .hint("raise the limits on memory (ulimit -v) or on processes (ulimit -u, TasksMax=)"));
    }
    let mut winners = Vec::new();
    for ((_, content), outcome) in outcomes {
        if outcome? == Created::New {
            winners.push(content);
        }
    }
    if winners.len() > 1 {
        return Ok(Some(format!(
            "of {writers} writers that created one object at the same moment with different content, {} got the answer that theirs is stored",
            winners.len()
        )));
    }
    // Nobody may have won: the winner's answer was lost, and the next attempt found the object.
    let stored = read(objects, name)?;
    let is_right = stored.is_some_and(|stored| match winners.first() {
        Some(winner) => stored == **winner,
        None => contents.iter().any(|(_, content)| stored == *content),
    });
    Ok((!is_right)
        .then(|| format!("of {writers} writers that created one object at the same moment, another than the winner is stored")))
}

/// Deletes an object; whether the credentials can.
fn remove(objects: &RawObjects, name: &ObjectName) -> Result<bool, Error> {
    match objects.store().delete(&name.key()?) {
        Ok(()) => Ok(true),
        // What is locked they cannot delete either.
        Err(e) if matches!(e.kind, ErrorKind::Denied | ErrorKind::Held) => {
            tracing::debug!("the probe object stays: {e}");
            Ok(false)
        }
        Err(e) => Err(e.into()),
    }
}

/// Deletes what probes left behind that were killed. Those at work are younger.
fn sweep(objects: &RawObjects) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let mut left = Vec::new();
    let listed = objects.list(Prefix::Probes, "", &mut |object| {
        let modified = object.modified_unix_s.and_then(|at| u64::try_from(at).ok());
        if modified.is_some_and(|at| at + ABANDONED_AFTER.as_secs() < now) {
            left.push(object.name);
        }
        ControlFlow::Continue(())
    });
    let swept = listed.and_then(|()| left.iter().try_for_each(|name| objects.delete(name)));
    if let Err(error) = swept {
        tracing::debug!(%error, "objects of earlier probes stay");
    }
}
