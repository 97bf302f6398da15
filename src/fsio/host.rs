//! What this host calls itself. Depends on nothing.

/// The name of this host; `?` where the kernel does not tell. What is no UTF-8 in it is replaced.
pub fn host_name() -> String {
    nix::unistd::gethostname().map_or_else(|_| "?".to_owned(), |name| name.to_string_lossy().into_owned())
}
