//! Wrapping keys derived from passphrases, kept in the kernel's keyring: an Argon2id run per WAL file would cost more
//! than all the rest.
//!
//! A key lies in the keyring of the user (`user-keyring(7)`) for [`KEY_CACHE_TIME`]: in kernel memory, never on a disk,
//! readable for this user alone, who can read the passphrase too. Its name says for which salt and parameters it is,
//! and nothing of the passphrase; its payload proves by which passphrase it was made ([`WrappingKey::from_cached`]).
//! Nothing depends on it: where the kernel has no keyring, or a container or a quota forbids it, every process derives
//! the key again.

use linux_keyutils::{Key, KeyError, KeyPermissionsBuilder, KeyRing, KeyRingIdentifier, Permission};
use zeroize::Zeroizing;

use crate::crypto::{Argon2id, CACHED_KEY_BYTES, WrappingKey};
use crate::limits::KEY_CACHE_TIME;

/// Derives the wrapping key, or takes it from the keyring when it was derived before from this passphrase. The caller
/// checks its id.
///
/// # Errors
/// When the parameters are out of range.
pub(super) fn derive(argon2id: &Argon2id, passphrase: &[u8]) -> Result<WrappingKey, String> {
    match load(argon2id, passphrase) {
        Ok(Some(key)) => {
            tracing::debug!("the key of the passphrase comes from the kernel's keyring");
            return Ok(key);
        }
        Ok(None) => tracing::debug!("the kernel's keyring holds another key than that of this passphrase"),
        Err(KeyError::KeyDoesNotExist | KeyError::KeyExpired) => {
            tracing::debug!("the kernel's keyring does not hold the key yet")
        }
        Err(e) => tracing::debug!("the kernel's keyring cannot be used: {e:?}"),
    }
    argon2id.derive(passphrase)
}

/// Keeps a key that opened something. Failing is fine.
pub(super) fn keep(argon2id: &Argon2id, passphrase: &[u8], key: &WrappingKey) {
    if load(argon2id, passphrase).is_ok_and(|kept| kept.is_some_and(|kept| kept.id() == key.id())) {
        return; // And its time is not prolonged.
    }
    if let Err(e) = store(argon2id, passphrase, key) {
        tracing::debug!("the kernel's keyring does not take the key: {e:?}");
    }
}

/// Not through the session keyring: services have none, or one each.
fn find(argon2id: &Argon2id) -> Result<Key, KeyError> {
    KeyRing::from_special_id(KeyRingIdentifier::User, false)?.search(&argon2id.cache_name())
}

fn load(argon2id: &Argon2id, passphrase: &[u8]) -> Result<Option<WrappingKey>, KeyError> {
    let key = find(argon2id)?;
    // Of a longer payload the kernel says the length and gives the beginning.
    let mut payload = Zeroizing::new([0; CACHED_KEY_BYTES]);
    if key.read(&mut *payload)? != CACHED_KEY_BYTES {
        return Ok(None);
    }
    Ok(WrappingKey::from_cached(&payload, passphrase))
}

fn store(argon2id: &Argon2id, passphrase: &[u8], key: &WrappingKey) -> Result<(), KeyError> {
    // Made in a keyring of this thread, because only who possesses a key may limit its time and say who may read it;
    // then shared.
    let mine = KeyRing::from_special_id(KeyRingIdentifier::Thread, true)?;
    let added = mine.add_key(&argon2id.cache_name(), &key.to_cached(passphrase)[..])?;
    let shared = (|| {
        let of_user = Permission::VIEW | Permission::READ | Permission::SEARCH;
        let seconds = usize::try_from(KEY_CACHE_TIME.as_secs()).map_err(|_| KeyError::InvalidArguments)?;
        added.set_timeout(seconds)?;
        added.set_perms(KeyPermissionsBuilder::builder().posessor(Permission::ALL).user(of_user).build())?;
        KeyRing::from_special_id(KeyRingIdentifier::User, false)?.link_key(added)
    })();
    mine.unlink_key(added)?;
    shared
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters() -> Argon2id {
        Argon2id { memory_kib: 64, passes: 1, lanes: 1, ..Argon2id::generate().unwrap() }
    }

    /// Removes the key when the test ends, however.
    struct Removed(Argon2id);

    impl Drop for Removed {
        fn drop(&mut self) {
            if let (Ok(key), Ok(ring)) = (find(&self.0), KeyRing::from_special_id(KeyRingIdentifier::User, false)) {
                let _ = ring.unlink_key(key);
            }
        }
    }

    /// Whether this kernel lets us use keyrings. Containers often do not.
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn available() -> bool {
        let probe = Removed(parameters());
        let stored = store(&probe.0, b"probe", &probe.0.derive(b"probe").unwrap());
        if let Err(e) = &stored {
            eprintln!("skipped: no kernel keyring here: {e:?}");
        }
        stored.is_ok()
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a file of the kernel's")]
    fn a_kept_key_serves_its_passphrase_and_parameters_only() {
        if !available() {
            return;
        }
        let (argon2id, other) = (Removed(parameters()), Removed(parameters()));
        let (argon2id, other) = (&argon2id.0, &other.0);
        let key = argon2id.derive(b"right").unwrap();
        assert!(matches!(load(argon2id, b"right"), Err(KeyError::KeyDoesNotExist)));
        keep(argon2id, b"right", &key);
        assert_eq!(load(argon2id, b"right").unwrap().map(|key| key.id()), Some(key.id()));
        assert_eq!(derive(argon2id, b"right").unwrap().id(), key.id());
        assert!(load(argon2id, b"wrong").unwrap().is_none());
        assert_ne!(derive(argon2id, b"wrong").unwrap().id(), key.id());
        assert!(load(other, b"right").is_err());
        let costlier = Argon2id { passes: 2, ..argon2id.clone() };
        assert!(load(&costlier, b"right").is_err());
        // Seen by other threads and so by other processes, for a while, and with no right beyond reading for this user.
        let id = std::thread::scope(|scope| scope.spawn(|| load(argon2id, b"right").unwrap().unwrap().id()).join().unwrap());
        assert_eq!(id, key.id());
        let keys = std::fs::read_to_string("/proc/keys").unwrap();
        let line = keys.lines().find(|line| line.contains(&argon2id.cache_name())).unwrap();
        let fields: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(fields[4], "3f0b0000", "{line}");
        assert!(matches!(fields[3], "59m" | "60m" | "1h"), "{line}");
    }

    #[test]
    fn a_foreign_payload_is_not_believed() {
        if !available() {
            return;
        }
        let argon2id = Removed(parameters());
        let argon2id = &argon2id.0;
        let right = argon2id.derive(b"right").unwrap().to_cached(b"right");
        let mut flipped = right.to_vec();
        flipped[0] ^= 1;
        let other_key = WrappingKey::generate().unwrap();
        let spliced = [&other_key.to_cached(b"x")[..32], &right[32..]].concat();
        let ring = KeyRing::from_special_id(KeyRingIdentifier::User, false).unwrap();
        for payload in [&b"short"[..], &[0; CACHED_KEY_BYTES], &[right.as_slice(), b"1"].concat(), &flipped, &spliced] {
            ring.add_key(&argon2id.cache_name(), payload).unwrap();
            // Readable only where it is possessed; either way it is not believed.
            assert!(!load(argon2id, b"right").is_ok_and(|key| key.is_some()), "{} bytes", payload.len());
            assert_eq!(derive(argon2id, b"right").unwrap().id(), argon2id.derive(b"right").unwrap().id());
        }
        keep(argon2id, b"right", &argon2id.derive(b"right").unwrap());
        assert!(load(argon2id, b"right").unwrap().is_some());
    }
}
