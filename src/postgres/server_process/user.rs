//! Acting as the user that a server runs as.

use crate::error::{Error, Kind};
use crate::fsio::{self, Owner};
use crate::process;

/// Acts as the owner of the data directory: a server that asks the system who connects (`peer`) lets only him in.
///
/// What is read in the directory meanwhile is read with his rights, too. ([`crate::fsio::Identity`] is not enough: the
/// server looks at the effective user, which all threads have together.)
pub(super) struct Acting {
    is_changed: bool,
}

impl Acting {
    /// Takes on the rights of a user, until it is dropped. Nothing changes where this process is not root.
    ///
    /// # Errors
    /// [`Kind::Config`].
    pub(super) fn take(owner: Owner) -> Result<Self, Error> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(Self { is_changed: false });
        }
        let fail =
            |e: nix::errno::Errno| Error::new(Kind::Config, format!("cannot act as user {}: {e}", fsio::user_name(owner.uid)));
        nix::unistd::setegid(nix::unistd::Gid::from_raw(owner.gid)).map_err(fail)?;
        nix::unistd::seteuid(nix::unistd::Uid::from_raw(owner.uid)).map_err(fail)?;
        process::close_memory_again();
        Ok(Self { is_changed: true })
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        if self.is_changed {
            let back = nix::unistd::seteuid(nix::unistd::Uid::from_raw(0))
                .and_then(|()| nix::unistd::setegid(nix::unistd::Gid::from_raw(0)));
            process::close_memory_again();
            if let Err(e) = back {
                tracing::debug!("cannot act as root again: {e}");
            }
        }
    }
}
