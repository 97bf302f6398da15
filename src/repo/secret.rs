//! Where the operator's key comes from: a key file, a command, a passphrase. Never the command line.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::command;
use crate::crypto::{KeyFile, KeyFileError, KnownRepository};
use crate::deadline::Deadline;
use crate::error::{Error, Kind};
use crate::fsio;
use crate::limits::MAX_SECRET_BYTES;
use crate::process::PASSPHRASE_VARIABLE;
use crate::waiting;

/// Where to get the key; nothing is read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A key file made by `walvis key generate`.
    File(PathBuf),
    /// A shell command that prints such a file: any KMS or password store works.
    Command(String),
    /// A file whose first line is a passphrase.
    PassphraseFile(PathBuf),
    /// The environment variable `WALVIS_PASSPHRASE`.
    PassphraseEnvironment,
    /// None: only for an unencrypted repository.
    None,
}

/// The key itself.
pub enum Secret {
    /// Opens data keys as it is.
    Key(KeyFile),
    /// Opens data keys after Argon2id.
    Passphrase(Zeroizing<Vec<u8>>),
    /// Nothing was configured.
    None,
}

impl Secret {
    /// The repositories that it belongs to, as far as it says so. A passphrase says nothing.
    pub fn repositories(&self) -> &[KnownRepository] {
        match self {
            Self::Key(file) => &file.repositories,
            Self::Passphrase(_) | Self::None => &[],
        }
    }
}

impl KeySource {
    /// Reads the key.
    ///
    /// # Errors
    /// [`Kind::Config`], naming the source and never its content.
    pub fn read(&self, deadline: &Deadline) -> Result<Secret, Error> {
        match self {
            Self::None => Ok(Secret::None),
            Self::File(path) => {
                let text = read_text(path, "key file")?;
                let key = KeyFile::parse(&text).map_err(|e| not_a_key(&format!("key file {}", path.display()), &e))?;
                warn_if_exposed(path);
                Ok(Secret::Key(key))
            }
            Self::Command(command) => {
                let text = run(command, deadline)?;
                let key = KeyFile::parse(&text).map_err(|e| not_a_key(&format!("the output of key_command '{command}'"), &e))?;
                Ok(Secret::Key(key))
            }
            Self::PassphraseFile(path) => {
                let text = read_text(path, "passphrase file")?;
                warn_if_exposed(path);
                passphrase(text.lines().next().unwrap_or_default(), &format!("passphrase file {}", path.display()))
            }
            Self::PassphraseEnvironment => {
                let text = Zeroizing::new(std::env::var(PASSPHRASE_VARIABLE).unwrap_or_default());
                passphrase(&text, PASSPHRASE_VARIABLE)
            }
        }
    }

    /// For messages: which key was used, without its content.
    pub fn describe(&self) -> String {
        match self {
            Self::File(path) => format!("key file {}", path.display()),
            Self::Command(command) => format!("key_command '{command}'"),
            Self::PassphraseFile(path) => format!("passphrase file {}", path.display()),
            Self::PassphraseEnvironment => format!("the passphrase in {PASSPHRASE_VARIABLE}"),
            Self::None => "no key".to_owned(),
        }
    }
}

fn not_a_key(source: &str, error: &KeyFileError) -> Error {
    Error::new(Kind::Config, format!("{source} is not a Walvis key: {error}"))
        .hint("take the right file from where its copy is kept; 'walvis key generate PATH' makes one for a new repository, which opens no other")
}

fn passphrase(text: &str, source: &str) -> Result<Secret, Error> {
    if text.is_empty() {
        return Err(Error::new(Kind::Config, format!("{source} is empty")).hint("write a long passphrase into it"));
    }
    Ok(Secret::Passphrase(Zeroizing::new(text.as_bytes().to_vec())))
}

fn read_text(path: &Path, what: &str) -> Result<Zeroizing<String>, Error> {
    let bytes = fsio::read_bounded(path, MAX_SECRET_BYTES).map(Zeroizing::new).map_err(|e| {
        Error::new(Kind::Config, format!("cannot read {what} {}: {e}", path.display()))
            .hint("name the file with key_file, --key-file or WALVIS_KEY_FILE, readable for the user that PostgreSQL runs as")
    })?;
    std::str::from_utf8(&bytes)
        .map(|text| Zeroizing::new(text.to_owned()))
        .map_err(|_| Error::new(Kind::Config, format!("{what} {} is not text", path.display())))
}

/// Its group may read it: that of the user that PostgreSQL runs as, where the file is root's.
fn warn_if_exposed(path: &Path) {
    if fsio::others_can_read(path) {
        tracing::warn!("{} can be read by every user of this host; make it private: chmod o-rwx {0}", path.display());
    } else if fsio::others_can_write(path) {
        tracing::warn!("{} can be changed by users other than its owner; make it private: chmod go-w {0}", path.display());
    }
}

/// Runs the command for as long as the deadline allows.
fn run(command: &str, deadline: &Deadline) -> Result<Zeroizing<String>, Error> {
    let failed = |detail: String| {
        Error::new(Kind::Config, format!("key_command '{command}' {detail}"))
            .hint("run it by hand as the user that PostgreSQL runs as; it must print the text of a key file")
    };
    let waiting = waiting::on("the key, from key_command");
    let output = command::run(command, deadline.remaining(), MAX_SECRET_BYTES);
    drop(waiting);
    let bytes = output.map_err(|e| match e {
        command::Failure::TooLate => failed(format!("did not finish within the time limit of {} s", deadline.limit().as_secs())),
        command::Failure::Asks => failed(format!("{e}; it has to print the key without asking")),
        e => failed(e.to_string()),
    })?;
    std::str::from_utf8(&bytes).map(|text| Zeroizing::new(text.to_owned())).map_err(|_| failed("printed no text".to_owned()))
}
