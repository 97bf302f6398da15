//! Key files: the operator's key as text, and the repositories that it belongs to.

use std::fmt;

use zeroize::Zeroizing;

use super::ids::RepositoryId;
use super::keys::WrappingKey;

const KEY: &str = "walvis-key-1:";
const REPOSITORY: &str = "walvis-repository-1:";

/// A repository as its operator remembers it, where nobody who writes to the store can change it. As text
/// `<id>:<generation>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KnownRepository {
    /// Which one it is.
    pub id: RepositoryId,
    /// A data key of at least this generation is stored there.
    pub generation: u64,
}

impl KnownRepository {
    /// Reads `<id>` or `<id>:<generation>`.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, generation) = match text.split_once(':') {
            Some((id, generation)) => (id, generation.parse().ok()?),
            None => (text, 1),
        };
        Some(Self { id: RepositoryId::parse(id)?, generation })
    }

    /// The line of a key file that says that the key belongs to it.
    pub fn line(&self) -> String {
        format!("{REPOSITORY}{self}")
    }
}

impl fmt::Display for KnownRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.id, self.generation)
    }
}

/// What a key file holds.
pub struct KeyFile {
    /// The key.
    pub key: WrappingKey,
    /// The repositories that it belongs to. None: it opens whatever was made with it.
    pub repositories: Vec<KnownRepository>,
}

impl From<WrappingKey> for KeyFile {
    /// A key that belongs to no repository yet.
    fn from(key: WrappingKey) -> Self {
        Self { key, repositories: Vec::new() }
    }
}

/// Why a text is not a key file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// No key line.
    #[error("it holds no line that begins with 'walvis-key-1:'")]
    Missing,
    /// Several.
    #[error("it holds more than one key")]
    Several,
    /// Digits missing or mistyped.
    #[error("its key line is damaged: {0}")]
    Damaged(&'static str),
    /// A repository line that names none.
    #[error("line {0} names no repository: 'walvis-repository-1:', 32 hexadecimal digits, and perhaps ':' and a number")]
    Repository(usize),
    /// Something else.
    #[error("line {0} is neither a key nor a repository")]
    Unknown(usize),
}

impl KeyFile {
    /// Whether a text seems to hold a key, in any place of it.
    pub fn is_in(text: &str) -> bool {
        text.contains(KEY)
    }

    /// The text of a new key file.
    pub fn to_text(&self) -> Zeroizing<String> {
        let bytes = self.key.bytes();
        let check = blake3::hash(bytes);
        let check = check.as_bytes().first_chunk::<4>().copied().unwrap_or_default();
        let repositories: String = self.repositories.iter().map(|repository| repository.line() + "\n").collect();
        Zeroizing::new(format!(
            "# Walvis key {id}. Whoever has it can read the backups; without it nobody can. Keep a copy apart from both.\n\
             {KEY}{key}:{check}\n{repositories}",
            id = self.key.id(),
            key = Zeroizing::new(hex::encode(bytes)).as_str(),
            check = hex::encode(check),
        ))
    }

    /// Reads the text of a key file.
    ///
    /// # Errors
    /// See [`KeyFileError`]. No part of the text is in the error.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let (mut key, mut repositories, mut unknown) = (None, Vec::new(), None);
        for (number, line) in lines.map(|(index, line)| (index + 1, line)) {
            if let Some(digits) = line.strip_prefix(KEY) {
                if key.replace(parse_key(digits)?).is_some() {
                    return Err(KeyFileError::Several);
                }
            } else if let Some(repository) = line.strip_prefix(REPOSITORY) {
                repositories.push(KnownRepository::parse(repository).ok_or(KeyFileError::Repository(number))?);
            } else {
                unknown.get_or_insert(number);
            }
        }
        match (key, unknown) {
            (None, _) => Err(KeyFileError::Missing),
            (Some(_), Some(number)) => Err(KeyFileError::Unknown(number)),
            (Some(key), None) => Ok(Self { key, repositories }),
        }
    }
}

fn parse_key(text: &str) -> Result<WrappingKey, KeyFileError> {
    let (digits, check) = text.split_once(':').ok_or(KeyFileError::Damaged("the check digits are missing"))?;
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(digits, &mut *bytes).map_err(|_| KeyFileError::Damaged("not 64 hexadecimal digits"))?;
    let mut expected = [0; 4];
    hex::decode_to_slice(check, &mut expected).map_err(|_| KeyFileError::Damaged("not 8 check digits"))?;
    if !blake3::hash(&*bytes).as_bytes().starts_with(&expected) {
        return Err(KeyFileError::Damaged("the check digits do not fit"));
    }
    Ok(WrappingKey::from_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<KeyFile, KeyFileError> {
        KeyFile::parse(text)
    }

    #[test]
    fn a_key_file_round_trips_and_every_typing_error_is_seen() {
        let file = KeyFile::from(WrappingKey::generate().unwrap());
        let text = file.to_text();
        let read = parse(&text).unwrap();
        assert!(read.key.id() == file.key.id() && read.repositories.is_empty());
        let line = text.lines().nth(1).unwrap();
        for i in KEY.len()..line.len() {
            let mut bad = line.as_bytes().to_vec();
            bad[i] = if bad[i] == b'0' { b'1' } else { b'0' };
            assert!(parse(std::str::from_utf8(&bad).unwrap()).is_err(), "digit {i}");
        }
        assert_eq!(parse("").err(), Some(KeyFileError::Missing));
        assert_eq!(parse("anything else").err(), Some(KeyFileError::Missing));
        assert_eq!(parse(&format!("{line}\n{line}\n")).err(), Some(KeyFileError::Several));
        assert!(matches!(parse("walvis-key-1:00").err(), Some(KeyFileError::Damaged(_))));
    }

    #[test]
    fn it_names_the_repositories_that_it_belongs_to() {
        let known = |byte, generation| KnownRepository { id: RepositoryId([byte; 16]), generation };
        let (one, two) = (known(0x1f, 1), known(2, 12));
        let file = KeyFile { repositories: vec![one, two], ..KeyFile::from(WrappingKey::generate().unwrap()) };
        let text = file.to_text();
        assert_eq!(parse(&text).unwrap().repositories, [one, two]);
        assert_eq!(one.line(), "walvis-repository-1:1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f:1");
        // By hand: another order, spaces, comments, capitals, no generation.
        let key = text.lines().nth(1).unwrap();
        let by_hand = format!("# mine\n\n  walvis-repository-1:1F1F1F1F1f1f1f1f1f1f1f1f1f1f1f1f  \r\n{key}");
        assert_eq!(parse(&by_hand).unwrap().repositories, [one]);
        for (bad, error) in [
            ("walvis-repository-1:", KeyFileError::Repository(2)),
            ("walvis-repository-1:1f1f", KeyFileError::Repository(2)),
            ("walvis-repository-1:1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f:", KeyFileError::Repository(2)),
            ("walvis-repository-1:1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f:-1", KeyFileError::Repository(2)),
            ("walvis-repository-2:1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f", KeyFileError::Unknown(2)),
            ("something", KeyFileError::Unknown(2)),
        ] {
            assert_eq!(parse(&format!("{key}\n{bad}\n")).err(), Some(error), "{bad}");
        }
    }
}
