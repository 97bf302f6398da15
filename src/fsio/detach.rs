//! Leaving what a process was started with.

use std::path::Path;

use super::Dir;

/// Leaves the session of the process that started this one, and closes every descriptor that came from there but the
/// first three. To be called before anything is opened.
pub fn detach() {
    // It fails only for the leader of a process group, who is in no group of a caller.
    let _ = nix::unistd::setsid();
    let Ok(dir) = Dir::open(Path::new("/proc/self/fd")) else { return };
    let Ok(items) = dir.items() else { return };
    drop(dir);
    for item in items {
        if let Some(fd) = item.name.to_str().and_then(|name| name.parse::<i32>().ok()).filter(|fd| *fd > 2) {
            // The descriptors of the listing itself are closed by now, and nothing else was opened.
            let _ = nix::unistd::close(fd);
        }
    }
}
