//! Standard error, which may be closed: what cannot be written is lost.

use std::io::Write as _;

/// Writes a text as it is.
pub(super) fn write(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
