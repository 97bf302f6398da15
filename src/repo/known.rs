//! Is this the repository that its operator means?
//!
//! A key that serves several repositories opens each of them, under whatever URL. So anybody who can write to two
//! buckets could put all of one, descriptor and keys included, in place of the other: staging would be restored for
//! production. Nothing in the bucket can tell, and binding more to the key would not either, since the key is the same;
//! what tells is what the operator's side remembers: the lines of the key file that name the repositories it belongs
//! to, and `id` in the settings. A copy of a repository has its id, and is as good. The generation that they remember
//! is that of the newest data key: without it, who deletes that key's object would have writers go back to one that was
//! given up.

use super::repository::Repository;
use super::secret::Secret;
use crate::crypto::KnownRepository;
use crate::error::{Error, Kind};
use crate::format::descriptor::RepositoryCipher;
use crate::limits::MAX_NAMES_IN_MESSAGE;

/// Their ids, for a message: the first of them.
pub fn names(known: &[KnownRepository]) -> String {
    let ids: Vec<String> = known.iter().take(MAX_NAMES_IN_MESSAGE).map(|known| known.id.to_string()).collect();
    let more = match known.len().saturating_sub(MAX_NAMES_IN_MESSAGE) {
        0 => String::new(),
        more => format!(" and {more} others"),
    };
    ids.join(", ") + &more
}

impl Repository {
    /// Whether the key or the settings say that it is this one that is meant.
    pub fn is_named(&self) -> bool {
        self.named
    }

    /// Refuses what the settings do not mean.
    ///
    /// # Errors
    /// [`Kind::Refused`], [`Kind::Damaged`].
    pub(super) fn expect_settings(&mut self, known: Option<KnownRepository>) -> Result<(), Error> {
        let Some(known) = known else { return Ok(()) };
        let this = self.known_as();
        if known.id != this.id {
            return Err(Error::new(
                Kind::Refused,
                format!("{} holds repository {}, and its settings say id = \"{}\": refused", self.location(), this.id, known.id),
            )
            .hint(format!(
                "somebody may have put another repository there; if this one is meant, write id = \"{this}\" into its settings"
            )));
        }
        self.named = true;
        self.expect_generation(known, "its settings know")
    }

    /// Refuses what the key does not belong to.
    ///
    /// # Errors
    /// As [`named_by`](Self::named_by).
    pub(super) fn expect_key(&mut self, secret: &Secret) -> Result<(), Error> {
        self.named |= self.named_by(secret)?;
        Ok(())
    }

    /// Whether the key says that it belongs to this repository. `false` when it names none at all.
    ///
    /// # Errors
    /// [`Kind::Refused`] when it names others; [`Kind::Damaged`] when it knows of a newer data key.
    pub fn named_by(&self, secret: &Secret) -> Result<bool, Error> {
        let named = secret.repositories();
        let this = self.known_as();
        if named.is_empty() || self.descriptor().cipher == RepositoryCipher::None {
            return Ok(false);
        }
        let Some(known) = named.iter().filter(|known| known.id == this.id).max() else {
            return Err(Error::new(
                Kind::Refused,
                format!("{} holds repository {}, and the key belongs to {}: refused", self.location(), this.id, names(named)),
            )
            .hint(format!(
                "somebody may have put another repository of this key there; if this one is meant, add the line {} to the key file",
                this.line()
            )));
        };
        self.expect_generation(*known, "the key knows")?;
        Ok(true)
    }

    fn expect_generation(&self, known: KnownRepository, who_knows: &str) -> Result<(), Error> {
        let newest = self.known_as().generation;
        if known.generation <= newest {
            return Ok(());
        }
        Err(Error::new(
            Kind::Damaged,
            format!(
                "the newest data key in {} is of generation {newest}, and {who_knows} of generation {}: an object below keys/ is gone",
                self.location(),
                known.generation
            ),
        )
        .hint("restore the objects below keys/ from a copy of the repository; until then nothing is sealed with the earlier key"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::RepositoryId;

    #[test]
    fn a_message_names_few() {
        let known: Vec<KnownRepository> = (0..9).map(|n| KnownRepository { id: RepositoryId([n; 16]), generation: 1 }).collect();
        assert_eq!(names(&known[1..2]), "01".repeat(16));
        assert_eq!(names(&known[..5]).split(", ").count(), 5);
        assert!(names(&known).ends_with(&format!("{} and 4 others", "04".repeat(16))), "{}", names(&known));
    }
}
