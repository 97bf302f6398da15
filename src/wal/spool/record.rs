//! The text of a record or plan: lines of a name and a value, and a hash of them, so that a torn one counts as none.
//!
//! Lives here: encoding and decoding, and how a record names the state of a file. Reads and writes nothing.

use crate::fsio::Stat;

const FIRST_LINE: &str = "walvis-record-1";

/// Names and values in the order in which they were added; a name may have several values.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Record(Vec<(String, String)>);

impl Record {
    /// Adds a value, in one line.
    pub(super) fn add(&mut self, name: &str, value: impl ToString) {
        self.0.push((name.to_owned(), value.to_string().replace(['\n', '\r'], " ")));
    }

    /// All values of a name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The first value of a name.
    pub(super) fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut text = format!("{FIRST_LINE}\n");
        for (name, value) in &self.0 {
            text.push_str(&format!("{name} {value}\n"));
        }
        let hash = blake3::hash(text.as_bytes());
        text.push_str(&format!("blake3 {hash}\n"));
        text.into_bytes()
    }

    /// `None` unless it is whole.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (lines, hash) = text.strip_suffix('\n')?.rsplit_once('\n')?;
        let lines = text.get(..lines.len() + 1)?;
        if blake3::hash(lines.as_bytes()).to_hex().as_str() != hash.strip_prefix("blake3 ")? {
            return None;
        }
        let fields = lines.strip_prefix(FIRST_LINE)?.strip_prefix('\n')?.lines();
        fields.map(|line| line.split_once(' ').map(|(n, v)| (n.to_owned(), v.to_owned()))).collect::<Option<_>>().map(Self)
    }
}

/// The state of a file: a changed or replaced file has another one.
pub(super) fn state_of(stat: &Stat) -> String {
    let Stat { dev, ino, size_bytes, modified, changed, .. } = stat;
    format!("{dev} {ino} {size_bytes} {}.{} {}.{}", modified.0, modified.1, changed.0, changed.1)
}

/// A short name for a repository in the spool.
pub(super) fn name_of(location: &str) -> String {
    blake3::hash(location.as_bytes()).to_hex().chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_whole_or_none() {
        let mut record = Record::default();
        record.add("file", "000000010000000000000001");
        record.add("failed", "one\nline");
        record.add("empty", "");
        let bytes = record.encode();
        let decoded = Record::decode(&bytes).unwrap();
        assert_eq!((decoded.get("failed"), decoded.get("empty"), decoded.get("none")), (Some("one line"), Some(""), None));
        assert_eq!(decoded.encode(), bytes);
        for cut in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..cut]), None, "{cut}");
        }
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert_eq!(Record::decode(&bytes), None, "{at}");
        }
    }
}
