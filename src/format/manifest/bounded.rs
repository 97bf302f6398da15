//! Lists in JSON that end with an error where they have too many members: a name takes three bytes there, and ten times
//! that in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Reads a list of at most `MAX` members.
pub(super) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MAX: usize>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(Bounded::<T, MAX>(PhantomData))
}

/// Reads a map of texts with at most `MAX` members, none twice.
pub(super) fn map<'de, D: Deserializer<'de>, const MAX: usize>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    deserializer.deserialize_map(BoundedMap::<MAX>)
}

struct Bounded<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Bounded<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<Vec<T>, A::Error> {
        let mut found = Vec::new();
        while let Some(member) = members.next_element()? {
            if found.len() == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            found.push(member);
        }
        Ok(found)
    }
}

struct BoundedMap<const MAX: usize>;

impl<'de, const MAX: usize> Visitor<'de> for BoundedMap<MAX> {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX} texts, each with a name of its own")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = BTreeMap::new();
        while let Some((key, value)) = members.next_entry()? {
            if found.len() == MAX || found.insert(key, value).is_some() {
                return Err(A::Error::invalid_length(found.len() + 1, &self));
            }
        }
        Ok(found)
    }
}
