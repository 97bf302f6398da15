//! Names and paths as a server or file system has them: bytes, which need not be UTF-8.
//!
//! Lives here: [`RawText`], which keeps them, shows them and stores them without loss; which characters are not for a
//! reader's terminal. Depends on nothing.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt::{self, Write as _};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A name or path. In JSON it is text, and where it is not UTF-8 an object `{"hex": "636166e9"}`; for people, what
/// cannot be printed is `\xE9`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RawText(Vec<u8>);

impl RawText {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As a path.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The text, where it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl From<Vec<u8>> for RawText {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&[u8]> for RawText {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<&str> for RawText {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<String> for RawText {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl From<&OsStr> for RawText {
    fn from(text: &OsStr) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<OsString> for RawText {
    fn from(text: OsString) -> Self {
        Self(text.into_vec())
    }
}

impl From<&Path> for RawText {
    fn from(path: &Path) -> Self {
        Self(path.as_os_str().as_bytes().to_vec())
    }
}

impl From<PathBuf> for RawText {
    fn from(path: PathBuf) -> Self {
        Self(path.into_os_string().into_vec())
    }
}

impl PartialEq<str> for RawText {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl fmt::Display for RawText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                // A line feed in a name must not begin a new line of a report.
                if is_hazardous(c) { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02X}")?;
            }
        }
        Ok(())
    }
}

/// Whether a terminal or a reader may be misled by a character: control characters, and those that turn the direction
/// of writing, break lines or cannot be seen (Unicode's `Bidi_Control`, its separators, zero-width characters and
/// tags).
pub fn is_hazardous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61C}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
        || matches!(c, '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}')
}

/// A text in one line, with every [hazardous](is_hazardous) character escaped.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hazardous) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hazardous(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// A path for a message: what is not UTF-8 shows as what it is, where [`Path::display`] would lose it.
pub fn shown(path: impl AsRef<Path>) -> RawText {
    path.as_ref().into()
}

/// What JSON has for it.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Json<'a> {
    Text(Cow<'a, str>),
    Bytes { hex: String },
}

impl Serialize for RawText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.as_str() {
            Some(text) => serializer.serialize_str(text),
            None => Json::Bytes { hex: hex::encode(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for RawText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Json::deserialize(deserializer)? {
            Json::Text(text) => Ok(Self(text.into_owned().into_bytes())),
            // One spelling for each value: lower case, and text where it is UTF-8.
            Json::Bytes { hex } => match hex::decode(&hex) {
                Ok(bytes) if std::str::from_utf8(&bytes).is_ok() => Err(serde::de::Error::custom("hexadecimal digits of a text")),
                Ok(bytes) if hex::encode(&bytes) == hex => Ok(Self(bytes)),
                _ => Err(serde::de::Error::custom("not lower-case hexadecimal digits")),
            },
        }
    }
}

#[cfg(test)]
impl schemars::JsonSchema for RawText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "RawText".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"anyOf": [
            {"type": "string"},
            {
                "type": "object",
                "properties": {"hex": {"type": "string", "description": "The bytes of a name that is not UTF-8, in hexadecimal."}},
                "required": ["hex"],
            },
        ]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_string_survives_json_and_can_be_shown() {
        for (bytes, json, shown) in [
            (&b"shop"[..], "\"shop\"", "shop"),
            ("café \\ \"x\"".as_bytes(), "\"café \\\\ \\\"x\\\"\"", "café \\ \"x\""),
            (b"caf\xe9", "{\"hex\":\"636166e9\"}", "caf\\xE9"),
            (b"a\nb\x01", "\"a\\nb\\u0001\"", "a\\nb\\u{1}"),
            ("a\u{202e}b\u{9b}".as_bytes(), "\"a\u{202e}b\u{9b}\"", "a\\u{202e}b\\u{9b}"),
            (b"", "\"\"", ""),
        ] {
            let text = RawText::from(bytes);
            assert_eq!(serde_json::to_string(&text).unwrap(), json);
            assert_eq!(serde_json::from_str::<RawText>(json).unwrap(), text);
            assert_eq!(text.to_string(), shown);
        }
        assert!(serde_json::from_str::<RawText>("{\"hex\":\"6\"}").is_err());
        assert!(serde_json::from_str::<RawText>("{\"hex\":\"E9\"}").is_err());
        assert!(serde_json::from_str::<RawText>("{\"hex\":\"73686f70\"}").is_err());
        assert!(serde_json::from_str::<RawText>("7").is_err());
    }
}
