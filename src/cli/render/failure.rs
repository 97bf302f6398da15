//! Why a command failed, as text.

use crate::cli::lines::Lines;
use crate::error::Error;

/// One line of what happened, what others said about it, one line of what to do.
pub(in crate::cli) fn text(error: &Error) -> Lines {
    let mut out = Lines::new();
    writeln!(out, "walvis: {}", error.what);
    if let Some(detail) = &error.detail {
        out.text("    ", detail);
    }
    if let Some(hint) = &error.hint {
        writeln!(out, "  {hint}");
    }
    out
}
