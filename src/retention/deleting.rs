//! Deleting in batches, and counting what came of it: gone, held by the store, or not for these credentials to delete.

use crate::error::Error;
use crate::limits::DELETED_AT_ONCE;
use crate::repo::{ObjectName, RawObjects};
use crate::store::Deleted;

/// What deleting came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Objects that are gone.
    pub gone: u64,
    /// Objects that the store holds, and those that have to wait for them.
    pub held: u64,
    /// The last moment until which the store holds any of them, in Unix seconds, as far as that is known.
    pub held_until_unix_s: Option<i64>,
    /// Objects that these credentials cannot delete.
    pub denied: u64,
    /// What the store said about that first.
    pub denied_because: Option<String>,
}

impl Tally {
    /// Adds another one.
    pub fn add(&mut self, other: Self) {
        self.gone += other.gone;
        self.held += other.held;
        self.held_until_unix_s = self.held_until_unix_s.max(other.held_until_unix_s);
        self.denied += other.denied;
        if self.denied_because.is_none() {
            self.denied_because = other.denied_because;
        }
    }

    fn count(&mut self, deleted: Deleted) -> bool {
        match deleted {
            Deleted::Gone => {
                self.gone += 1;
                return true;
            }
            Deleted::Held { until_unix_s } => {
                self.held += 1;
                self.held_until_unix_s = self.held_until_unix_s.max(until_unix_s);
            }
            Deleted::Denied(why) => {
                self.denied += 1;
                self.denied_because.get_or_insert(why);
            }
        }
        false
    }
}

/// How a run is interrupted, and how far it is.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Fails when the command has to end.
    pub go_on: &'a dyn Fn() -> Result<(), Error>,
    /// Is told how many objects were deleted so far.
    pub deleted: &'a dyn Fn(u64),
}

/// Deletes, and counts.
pub(super) struct Deleting<'a> {
    objects: &'a RawObjects,
    watch: Watch<'a>,
    asked: u64,
}

impl<'a> Deleting<'a> {
    pub(super) fn new(objects: &'a RawObjects, watch: Watch<'a>) -> Self {
        Self { objects, watch, asked: 0 }
    }

    /// Deletes objects, a batch after the other in this order; `left` is told of those that are still there. Ends after
    /// a batch of which the credentials could not delete something: it would be no different for the rest, which counts
    /// as neither.
    ///
    /// # Errors
    /// As the store's, and when the command has to end; any of them may be gone then.
    pub(super) fn all(
        &mut self,
        names: impl IntoIterator<Item = ObjectName>,
        left: &mut dyn FnMut(&ObjectName),
    ) -> Result<Tally, Error> {
        let (mut tally, mut names) = (Tally::default(), names.into_iter());
        loop {
            let batch: Vec<ObjectName> = names.by_ref().take(DELETED_AT_ONCE).collect();
            if batch.is_empty() || tally.denied > 0 {
                batch.iter().for_each(&mut *left);
                names.for_each(|name| left(&name));
                return Ok(tally);
            }
            (self.watch.go_on)()?;
            for (name, deleted) in batch.iter().zip(self.objects.delete_many(&batch)?) {
                if !tally.count(deleted) {
                    left(name);
                }
            }
            self.asked += batch.len() as u64;
            (self.watch.deleted)(self.asked);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_of_it_is_counted() {
        let held = |until_unix_s| Deleted::Held { until_unix_s };
        let mut tally = Tally::default();
        let gone: Vec<bool> =
            [Deleted::Gone, held(None), held(Some(7)), held(Some(5)), Deleted::Denied("no".to_owned()), Deleted::Gone]
                .into_iter()
                .map(|deleted| tally.count(deleted))
                .collect();
        assert_eq!(gone, [true, false, false, false, false, true]);
        let because = Some("no".to_owned());
        let expected = Tally { gone: 2, held: 3, held_until_unix_s: Some(7), denied: 1, denied_because: because.clone() };
        assert_eq!(tally, expected);
        tally.add(Tally { gone: 1, held: 1, held_until_unix_s: Some(9), denied: 1, denied_because: Some("never".to_owned()) });
        assert_eq!(tally, Tally { gone: 3, held: 4, held_until_unix_s: Some(9), denied: 2, denied_because: because });
    }
}
