//! The clock of the boot, which no clock setting changes. Depends on nothing.

use std::time::Duration;

/// A boot of this host, and how long ago it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// The kernel's random id of it.
    pub id: String,
    /// How long ago, the time asleep included. No clock setting changes it.
    pub since: Duration,
}

impl Boot {
    /// Now. `None` where the kernel does not tell.
    pub fn now() -> Option<Self> {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        let since = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).ok()?;
        (!id.is_empty()).then(|| Self { id, since: since.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_has_an_id_and_its_clock_runs() {
        let (one, two) = (Boot::now().unwrap(), Boot::now().unwrap());
        assert!(one.id == two.id && one.since <= two.since);
    }
}
