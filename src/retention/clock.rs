//! The store's clock, held against that of this host, and whether these credentials can delete at all: found out with
//! one small object, before anything else is done.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::crypto::random_bytes;
use crate::error::{Error, Kind};
use crate::limits::MAX_CLOCK_DIFFERENCE;
use crate::repo::{ObjectName, Prefix, RawObjects};
use crate::store::{ContentId, Deleted, Key};

/// The present by the store's clock, in Unix seconds; `host` says what this host takes it for.
///
/// # Errors
/// [`Kind::Refused`] when it and the clock of this host are too far apart, or the store does not tell times;
/// [`Kind::Denied`] when these credentials cannot delete; as the store's.
pub(super) fn store_now(objects: &RawObjects, host: &dyn Fn() -> i64) -> Result<i64, Error> {
    let random: [u8; 16] = random_bytes().map_err(|e| Error::new(Kind::Bug, e))?;
    let text = format!("clock/{}", hex::encode(random));
    let name = ObjectName::Probe(Key::new(text).map_err(|e| Error::new(Kind::Bug, e.to_string()))?);
    let before = host();
    // Nobody else creates this name; a lost answer makes `Exists` of it.
    let _ = objects.create(&name, Bytes::new(), &ContentId(random))?;
    let mut stored = None;
    let full = name.to_string();
    let after = full.get(..full.len() - 1).unwrap_or_default();
    objects.list(Prefix::Probes, after, &mut |object| {
        stored = (object.name == name).then_some(object.modified_unix_s);
        if object.name.to_string() < full { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    let now = host();
    let deleted = objects.delete_many(std::slice::from_ref(&name))?;
    if let Some(Deleted::Denied(why)) = deleted.into_iter().next() {
        return Err(cannot_delete(objects.location(), &why));
    }
    let location = objects.location();
    let refused = |what: String| Error::new(Kind::Refused, what).hint("set the clocks of this host and of the store");
    let Some(stored) = stored else {
        return Err(Error::new(Kind::Unreachable, format!("{location} does not list what was just stored there"))
            .hint("its listings lag behind its writes: nothing may be deleted by them"));
    };
    let Some(stored) = stored else {
        return Err(refused(format!("{location} does not say when something was stored, so nothing may go")));
    };
    let most = i64::try_from(MAX_CLOCK_DIFFERENCE.as_secs()).unwrap_or(i64::MAX);
    if stored < before.saturating_sub(most) || stored > now.saturating_add(most) {
        let difference = stored.saturating_sub(now);
        let way = if difference < 0 { "behind" } else { "ahead of" };
        return Err(refused(format!(
            "the clock of {location} is {} s {way} that of this host: one of them is wrong, so nothing may go",
            difference.unsigned_abs()
        )));
    }
    Ok(stored)
}

/// What is said where the right to delete is missing.
pub(super) fn cannot_delete(location: &str, why: &str) -> Error {
    Error::new(Kind::Denied, format!("these credentials cannot delete in {location}: {why}")).hint(
        "run 'walvis expire' with credentials that may delete (s3:DeleteObject; in a directory, the rights of its owner): \
         'walvis check --policies' prints a policy for such a host; those that write need no such right",
    )
}

/// What is said where only the right to remove versions is missing.
pub(super) fn cannot_purge(location: &str, why: &str) -> Error {
    Error::new(Kind::Denied, format!("these credentials cannot remove versions in {location}: {why}")).hint(
        "what went is hidden, and the next run with --purge-versions removes its versions if its credentials may \
         (s3:DeleteObjectVersion): 'walvis check --policies' prints a policy for such a host",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::ErrorKind;
    use crate::store::fault::{Effect, Fault, Op};
    use crate::store::file::FileStore;

    #[test]
    fn the_clock_is_read_and_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Fault::new(Arc::new(FileStore::open(directory.path()).unwrap())));
        let objects = RawObjects::new(Arc::<Fault>::clone(&store));
        let host = || jiff::Timestamp::now().as_second();
        let before = host();
        let now = store_now(&objects, &host).unwrap();
        assert!(before - 1 <= now && now <= host());
        let mut left = 0;
        objects
            .list(Prefix::Probes, "", &mut |_| {
                left += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(left, 0);
        let most = i64::try_from(MAX_CLOCK_DIFFERENCE.as_secs()).unwrap();
        for (off, word) in [(most + 60, "behind"), (-most - 60, "ahead of")] {
            let error = store_now(&objects, &|| host() + off).unwrap_err();
            assert_eq!(error.kind, Kind::Refused);
            assert!(error.what.contains(word) && error.hint.is_some(), "{error}");
            assert!(store_now(&objects, &|| host() + off - off.signum() * 120).is_ok());
        }
        // A listing that ends before it.
        store.add(Op::List, "probe", 1, 1, Effect::EndAfter(0));
        assert_eq!(store_now(&objects, &host).unwrap_err().kind, Kind::Unreachable);
        store.heal();
        store.add(Op::Create, "probe", 1, 1, Effect::FailForGood(ErrorKind::Denied));
        assert_eq!(store_now(&objects, &host).unwrap_err().kind, Kind::Denied);
    }
}
