//! Text on its way into SQL and out of it, whatever the encodings of server and session are.

use super::errors::server_error;
use crate::error::Error;
use crate::raw_text::RawText;

/// A text as a literal of SQL, whatever the session's `standard_conforming_strings` is.
pub fn quoted(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// An SQL expression for the bytes of another one as hexadecimal digits. Neither converts nor checks an encoding, as
/// `convert_to` and the session's would: the way from text to `bytea` goes through the latter's text form, in which
/// only backslashes mean something.
pub fn hex_of(expression: &str) -> String {
    format!(
        "pg_catalog.encode(pg_catalog.replace(({expression})::pg_catalog.text COLLATE pg_catalog.\"C\", E'\\\\', E'\\\\\\\\')\
         ::pg_catalog.bytea, 'hex')"
    )
}

/// What [`hex_of`] led to.
///
/// # Errors
/// [`Kind::Server`](crate::error::Kind::Server).
pub fn of_hex(digits: &str) -> Result<RawText, Error> {
    hex::decode(digits).map(RawText::from).map_err(|e| server_error(format!("the server answers {digits:?}: {e}")))
}
