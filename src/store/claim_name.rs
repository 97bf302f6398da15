//! Names of claims, `claims/<key>/<content id>-<random>`: see [`claims`](super::claims).

use std::fmt;

use super::{ContentId, Key};

/// What the keys of claims begin with. They are listed like all objects; anybody who finds a dead one may delete it.
pub const PREFIX: &str = "claims/";

/// The name of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimName {
    /// The object that is to be created.
    pub object: Key,
    /// What it is to contain.
    pub content: ContentId,
    /// Tells the claims of several writers of this content apart.
    pub random: u64,
}

impl ClaimName {
    /// A new name.
    pub fn new(object: &Key, content: &ContentId) -> Self {
        Self { object: object.clone(), content: *content, random: fastrand::u64(..) }
    }

    /// Reads what [`Display`](fmt::Display) writes, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let (object, claim) = text.strip_prefix(PREFIX)?.rsplit_once('/')?;
        let (content, random) = claim.split_once('-')?;
        let mut id = [0; 16];
        hex::decode_to_slice(content, &mut id).ok()?;
        let random = u64::from_str_radix(random, 16).ok()?;
        let name = Self { object: Key::new(object).ok()?, content: ContentId(id), random };
        (name.to_string() == text).then_some(name)
    }

    /// The key of the claim; `None` when it would be too long.
    pub fn key(&self) -> Option<Key> {
        Key::new(self.to_string()).ok()
    }
}

impl fmt::Display for ClaimName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}/{}-{:016x}", self.object, hex::encode(self.content.0), self.random)
    }
}
