//! The data keys of a repository: which objects below `keys/` are read, which are tried, and in which order.
//!
//! Anybody who writes to the store can add objects there, thousands of them, that ask for much work and open nothing.
//! So their number, their length and what they may ask for are bounded, and those that were stored first come first:
//! objects that are added come later. A bogus object is no reason to stop where another one opens.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::descriptor::descriptor_error;
use super::kernel_keyring;
use super::object_name::ObjectName;
use super::prefix::Prefix;
use super::raw_objects::RawObjects;
use super::secret::Secret;
use crate::crypto::{DataKey, DataKeys, KeyId, WrappingKey};
use crate::error::{Error, Kind};
use crate::format::descriptor::{Descriptor, KeyObject};
use crate::limits::{CATALOG_READERS, MAX_DERIVED_KEYS, MAX_DESCRIPTOR_BYTES, MAX_KEY_OBJECTS, MAX_NAMES_IN_MESSAGE};
use crate::threads::at_once;

/// The key objects that the secret may open, as far as they could be read.
#[derive(Default)]
pub(super) struct Found {
    /// By when they were stored.
    objects: Vec<(ObjectName, KeyObject)>,
    /// Wrapping keys of others: the first of them.
    others: BTreeSet<KeyId>,
    /// What could not be read.
    damaged: Option<Error>,
}

/// When an object was stored, where the store tells, and its name: what comes first is tried first.
type Rank = (i64, String);

/// Looks for the key objects of a repository.
pub(super) fn find_keys(objects: &RawObjects, secret: &Secret) -> Result<Found, Error> {
    if matches!(secret, Secret::None) {
        return Ok(Found::default());
    }
    let given = given_id(secret);
    let mut found = Found::default();
    let mut first: BTreeMap<Rank, ObjectName> = BTreeMap::new();
    let mut left_out = 0_u64;
    objects.list(Prefix::DataKeys, "", &mut |object| {
        let ObjectName::DataKey { wrapping_key_id, .. } = object.name else { return ControlFlow::Continue(()) };
        if given.is_some_and(|id| id != wrapping_key_id) {
            if found.others.len() < MAX_NAMES_IN_MESSAGE {
                found.others.insert(wrapping_key_id);
            }
            return ControlFlow::Continue(());
        }
        first.insert((object.modified_unix_s.unwrap_or(i64::MAX), object.name.to_string()), object.name);
        if first.len() > MAX_KEY_OBJECTS {
            first.pop_last();
            left_out += 1;
        }
        ControlFlow::Continue(())
    })?;
    if left_out > 0 {
        tracing::warn!(
            "{} holds {} key objects that could be ours: only the {MAX_KEY_OBJECTS} oldest are looked at; somebody may have added the others",
            objects.location(),
            MAX_KEY_OBJECTS as u64 + left_out
        );
    }
    let names: Vec<ObjectName> = first.into_values().collect();
    for some in names.chunks(CATALOG_READERS) {
        for (name, read) in some.iter().zip(at_once(some, CATALOG_READERS, |name| read_key_object(objects, name))) {
            match read {
                Ok(Some(object)) => found.objects.push((name.clone(), object)),
                Ok(None) => {}
                // One object that may not be read is no reason: somebody who adds objects may keep them from being
                // read.
                Err(e) if matches!(e.kind, Kind::Damaged | Kind::Denied) => {
                    tracing::error!("{e}");
                    found.damaged.get_or_insert(e);
                }
                Err(e) => return Err(e),
            }
        }
    }
    Ok(found)
}

fn given_id(secret: &Secret) -> Option<KeyId> {
    match secret {
        Secret::Key(file) => Some(file.key.id()),
        Secret::Passphrase(_) | Secret::None => None,
    }
}

/// Opens the data keys of this repository that the secret opens; says which generation the newest is of.
///
/// # Errors
/// [`Kind::Damaged`], also when it is the descriptor that was changed; [`Kind::Denied`].
pub(super) fn open_keys(
    objects: &RawObjects,
    descriptor: &Descriptor,
    secret: &Secret,
    found: Found,
) -> Result<(DataKeys, u64), Error> {
    let Found { objects: key_objects, mut others, mut damaged } = found;
    let given = given_id(secret);
    let mut keys: Vec<(u64, KeyId, DataKey)> = Vec::new();
    let mut derived = Derived::default();
    for (name, object) in key_objects.into_iter().filter(|(_, object)| object.repository_id == descriptor.repository_id) {
        match open_key(&object, descriptor, secret, &mut derived) {
            Ok(Some(data_key)) => keys.push((object.generation, object.key_id, data_key)),
            Ok(None) => drop(others.insert(object.wrapping_key_id)),
            Err(detail) => drop(damaged.get_or_insert(damaged_key(objects, &name, &detail))),
        }
    }
    keys.sort_by_key(|(generation, id, _)| (*generation, *id));
    match (keys.pop(), damaged) {
        (Some((generation, _, current)), _) => Ok((
            DataKeys::Encrypted { current: current.into(), earlier: keys.into_iter().map(|(_, _, key)| key).collect() },
            generation,
        )),
        (None, Some(error)) => Err(error),
        (None, None) if others.is_empty() => {
            Err(Error::new(Kind::Damaged, format!("{} is encrypted, but no data key of it is stored there", objects.location()))
                .hint("restore the objects below keys/ from a copy of the repository"))
        }
        (None, None) => Err(wrong_key(objects, given, &others)),
    }
}

fn wrong_key(objects: &RawObjects, given: Option<KeyId>, others: &BTreeSet<KeyId>) -> Error {
    let others: Vec<String> = others.iter().take(MAX_NAMES_IN_MESSAGE).map(KeyId::to_string).collect();
    let what = match given {
        Some(id) => {
            format!(
                "wrong key for {}: the given key is {id}, the repository opens with {}",
                objects.location(),
                others.join(", ")
            )
        }
        None => format!("wrong passphrase for {}", objects.location()),
    };
    Error::new(Kind::Denied, what).hint("name the right one: --key-file, WALVIS_KEY_FILE, or the settings of this repository")
}

/// Wrapping keys of a passphrase, by the names of what they were derived with. Each costs work, and an object can ask
/// for it without being genuine.
#[derive(Default)]
struct Derived(BTreeMap<String, WrappingKey>);

fn open_key(
    object: &KeyObject,
    descriptor: &Descriptor,
    secret: &Secret,
    derived: &mut Derived,
) -> Result<Option<DataKey>, String> {
    let wrapping = match (secret, &object.argon2id) {
        (Secret::Key(file), None) => &file.key,
        (Secret::Passphrase(text), Some(argon2id)) => {
            let name = argon2id.cache_name();
            if !derived.0.contains_key(&name) {
                if derived.0.len() >= MAX_DERIVED_KEYS {
                    return Ok(None);
                }
                let key = kernel_keyring::derive(argon2id, text)?;
                // Also of an object that it does not open: that costs the next process nothing then.
                kernel_keyring::keep(argon2id, text, &key);
                derived.0.insert(name.clone(), key);
            }
            match derived.0.get(&name) {
                Some(key) => key,
                None => return Ok(None),
            }
        }
        _ => return Ok(None),
    };
    // Of a key from the keyring too: it is never used unless it is the one that was asked for.
    if wrapping.id() != object.wrapping_key_id {
        return Ok(None);
    }
    let associated = KeyObject::associated(descriptor, object.key_id, object.generation);
    let data_key = wrapping
        .unwrap_key(&object.wrapped, &associated)
        .map_err(|e| format!("{e}: it was changed, or {} was, which it was sealed with", ObjectName::Descriptor))?;
    if data_key.id() == object.key_id { Ok(Some(data_key)) } else { Err("the sealed key has another id".to_owned()) }
}

fn read_key_object(objects: &RawObjects, name: &ObjectName) -> Result<Option<KeyObject>, Error> {
    let Some(bytes) = objects.read_at_most(name, MAX_DESCRIPTOR_BYTES)? else { return Ok(None) };
    let object = KeyObject::parse(&bytes).map_err(|e| descriptor_error(objects, name, &e))?;
    if *name == (ObjectName::DataKey { key_id: object.key_id, wrapping_key_id: object.wrapping_key_id }) {
        Ok(Some(object))
    } else {
        Err(damaged_key(objects, name, "it is stored under the name of another key"))
    }
}

fn damaged_key(objects: &RawObjects, name: &ObjectName, detail: &str) -> Error {
    Error::new(Kind::Damaged, format!("{name} in {} is damaged: {detail}", objects.location()))
        .hint(format!("restore this object, and {}, from a copy of the repository", ObjectName::Descriptor))
}
