//! Files that the server's settings name: those outside the data directory become attachments of the backup.
//!
//! The server's own views of them (`pg_file_settings`, `pg_hba_file_rules`) are for superusers, leave out files without
//! a setting, and do not name the files of `pg_hba.conf` before 16. So the files are read here as the server reads them
//! (`guc-file.l`, `hba.c`).

use crate::error::Error;
use crate::fsio::{self, Attributes, LiveKind, Problem};
use crate::limits::{MAX_ATTACHMENT_BYTES, MAX_ATTACHMENTS, MAX_INCLUDE_DEPTH};
use crate::postgres::Server;
use crate::raw_text::RawText;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Settings that name a file with settings.
const SETTINGS: [&str; 3] = ["config_file", "hba_file", "ident_file"];
/// Settings that name what the server needs for TLS: without it, it does not start where `ssl` is on.
const TLS: [&str; 6] = ["ssl_cert_file", "ssl_key_file", "ssl_ca_file", "ssl_crl_file", "ssl_crl_dir", "ssl_dh_params_file"];

/// A file outside the data directory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outside {
    /// Where it is, by the server's name for it.
    pub path: PathBuf,
    /// The setting that leads to it.
    pub setting: &'static str,
}

/// What the settings name.
#[derive(Debug, Default)]
pub(crate) struct Named {
    /// Outside the data directory.
    pub outside: Vec<Outside>,
    /// Below it, relative to it.
    pub below: Vec<Vec<u8>>,
    /// What could not be found out.
    pub warnings: Vec<String>,
}

/// A file outside, as it is.
pub(crate) struct Read {
    /// Its attributes.
    pub attributes: Attributes,
    /// Its content.
    pub content: Vec<u8>,
}

/// Asks the server for its files, and reads what they include. What cannot be found out is a warning: the cluster is
/// whole without.
pub(crate) fn find(server: &Server, data_directory: &Path) -> Named {
    let mut search = Search {
        data_directory,
        real: fsio::real_path(data_directory).ok().flatten().unwrap_or_else(|| data_directory.to_owned()),
        seen: HashSet::new(),
        named: Named::default(),
    };
    let setting = |name: &str| server.text(&format!("pg_catalog.current_setting('{name}', true)"));
    for name in SETTINGS {
        match setting(name) {
            Ok(Some(path)) if !path.as_bytes().is_empty() => search.file(path.as_path().to_owned(), name, 0, true),
            Ok(_) => {}
            Err(error) => {
                search.warn(format!(
                    "where the files with the server's settings are could not be asked for, so none outside the data directory is in the \
                     backup: {}; GRANT pg_read_all_settings to the role",
                    error.what
                ));
                return search.named;
            }
        }
    }
    if matches!(setting("ssl"), Ok(Some(on)) if on == *"on") {
        for name in TLS {
            if let Ok(Some(path)) = setting(name)
                && !path.as_bytes().is_empty()
            {
                let path = data_directory.join(path.as_path());
                if name == "ssl_crl_dir" {
                    search.directory(&path, name, &|_| true, &mut |search, file| search.file(file, name, 0, true));
                } else {
                    search.file(path, name, 0, true);
                }
            }
        }
    }
    search.named
}

/// Reads a file outside the data directory. `Err` says why it is not in the backup.
pub(crate) fn read(file: &Outside, owner: u32) -> Result<Read, String> {
    let why = |why: &str| {
        let (path, setting) = (RawText::from(file.path.as_path()), file.setting);
        format!("{path} ({setting}) is not in the backup: {why}")
    };
    let attributes = match fsio::attributes(&file.path) {
        Ok(Some(attributes)) if attributes.kind == LiveKind::File => attributes,
        Ok(Some(_)) => return Err(why("it is not a file")),
        Ok(None) => return Err(why("it is not there")),
        Err(error) => return Err(why(&error.to_string())),
    };
    // Root may read more than the server, whose superuser chooses the names.
    if nix::unistd::geteuid().is_root() && attributes.mode & 0o004 == 0 && attributes.uid != owner {
        return Err(why(
            "it belongs to another user than the data directory; run the backup as the user that the server runs as",
        ));
    }
    match fsio::read_bounded(&file.path, MAX_ATTACHMENT_BYTES) {
        Ok(content) => Ok(Read { attributes, content }),
        Err(error) if error.problem == Problem::TooLarge => Err(why("it is longer than 1 MiB")),
        Err(error) => Err(why(&error.to_string())),
    }
}

struct Search<'a> {
    data_directory: &'a Path,
    real: PathBuf,
    seen: HashSet<PathBuf>,
    named: Named,
}

impl Search<'_> {
    fn warn(&mut self, warning: String) {
        self.named.warnings.push(warning);
    }

    /// Where something is below the data directory.
    fn below(&self, path: &Path) -> Option<PathBuf> {
        if let Ok(relative) = path.strip_prefix(self.data_directory) {
            return Some(relative.to_owned());
        }
        let directory = fsio::real_path(path.parent()?).ok().flatten()?;
        Some(directory.join(path.file_name()?).strip_prefix(&self.real).ok()?.to_owned())
    }

    /// Takes a file, and those that it includes.
    fn file(&mut self, path: PathBuf, setting: &'static str, depth: u32, must_exist: bool) {
        // Without dots, which a path in a manifest does not have.
        let path: PathBuf = path.components().collect();
        if depth > MAX_INCLUDE_DEPTH || !self.seen.insert(path.clone()) {
            return;
        }
        if self.seen.len() > MAX_ATTACHMENTS {
            if self.seen.len() == MAX_ATTACHMENTS + 1 {
                self.warn(format!("the settings name more than {MAX_ATTACHMENTS} files: the rest is not in the backup"));
            }
            return;
        }
        match fsio::exists(&path) {
            Ok(false) if !must_exist => return,
            Ok(_) | Err(_) => {}
        }
        match self.below(&path) {
            Some(relative) => self.named.below.push(relative.as_os_str().as_bytes().to_vec()),
            None => self.named.outside.push(Outside { path: path.clone(), setting }),
        }
        if !SETTINGS.contains(&setting) {
            return;
        }
        // What cannot be read is said when its content is wanted.
        let Ok(text) = fsio::read_bounded(&path, MAX_ATTACHMENT_BYTES) else { return };
        let found = if setting == "config_file" { includes_of_settings(&text) } else { includes_of_rules(&text) };
        let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
        for Include { kind, name } in found {
            let included = directory.join(OsStr::from_bytes(&name));
            match kind {
                Kind::File => self.file(included, setting, depth + 1, true),
                Kind::IfExists => self.file(included, setting, depth + 1, false),
                Kind::Directory => {
                    let wanted = |name: &OsStr| {
                        let name = name.as_bytes();
                        name.ends_with(b".conf") && !name.starts_with(b".")
                    };
                    self.directory(&included, setting, &wanted, &mut |search, file| search.file(file, setting, depth + 1, true));
                }
            }
        }
    }

    fn directory(
        &mut self,
        path: &Path,
        setting: &str,
        wanted: &dyn Fn(&OsStr) -> bool,
        take: &mut dyn FnMut(&mut Self, PathBuf),
    ) {
        match fsio::list_dir(path) {
            Ok(mut names) => {
                names.sort();
                for name in names.into_iter().filter(|name| wanted(name)) {
                    let file = path.join(name);
                    if matches!(fsio::attributes(&file), Ok(Some(found)) if found.kind == LiveKind::File) {
                        take(self, file);
                    }
                }
            }
            Err(error) => {
                self.warn(format!("{} ({setting}) is not in the backup: {error}", RawText::from(path)));
            }
        }
    }
}

/// What a file includes.
#[derive(Debug, PartialEq, Eq)]
struct Include {
    kind: Kind,
    name: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    File,
    IfExists,
    Directory,
}

impl Kind {
    fn of(word: &[u8]) -> Option<Self> {
        match word.to_ascii_lowercase().as_slice() {
            b"include" => Some(Self::File),
            b"include_if_exists" => Some(Self::IfExists),
            b"include_dir" => Some(Self::Directory),
            _ => None,
        }
    }
}

/// Of `postgresql.conf`: `include 'name'`, with or without an equals sign.
fn includes_of_settings(text: &[u8]) -> Vec<Include> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let line = line.trim_ascii();
            let end = line.iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_').unwrap_or(line.len());
            let kind = Kind::of(line.get(..end)?)?;
            let rest = line.get(end..)?.trim_ascii_start();
            let rest = rest.strip_prefix(b"=").unwrap_or(rest).trim_ascii_start();
            let name = match rest.strip_prefix(b"'") {
                Some(quoted) => unquoted(quoted)?,
                None => rest.split(|byte| byte.is_ascii_whitespace() || *byte == b'#').next()?.to_vec(),
            };
            (!name.is_empty()).then_some(Include { kind, name })
        })
        .collect()
}

/// A text in single quotes, from after the first one: two quotes, or a backslash before one, stand for one.
fn unquoted(text: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\'' if bytes.peek() == Some(&b'\'') => name.extend(bytes.next()),
            b'\'' => return Some(name),
            b'\\' => name.push(bytes.next()?),
            byte => name.push(byte),
        }
    }
    None
}

/// Of `pg_hba.conf` and `pg_ident.conf`: `include "name"` (16 and later), and `@name` in a list.
fn includes_of_rules(text: &[u8]) -> Vec<Include> {
    let mut found = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let words = words(line);
        match words.as_slice() {
            [first, name, ..] if Kind::of(first).is_some() => {
                found.extend(Kind::of(first).map(|kind| Include { kind, name: name.clone() }));
            }
            words => found.extend(words.iter().filter_map(|word| {
                let name = word.strip_prefix(b"@")?.to_vec();
                (!name.is_empty()).then_some(Include { kind: Kind::File, name })
            })),
        }
    }
    found
}

/// The words of a line, without quotes; commas part them as blanks do.
fn words(line: &[u8]) -> Vec<Vec<u8>> {
    let (mut words, mut word, mut in_quotes) = (Vec::new(), Vec::new(), false);
    for byte in line {
        match byte {
            b'"' => in_quotes = !in_quotes,
            b'#' if !in_quotes => break,
            b',' if !in_quotes => words.push(std::mem::take(&mut word)),
            byte if byte.is_ascii_whitespace() && !in_quotes => words.push(std::mem::take(&mut word)),
            byte => word.push(*byte),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// The owner of the data directory: who the server runs as.
pub(crate) fn owner_of(data_directory: &Path) -> Result<u32, Error> {
    fsio::owner(data_directory).map_err(|e| fsio::file_error(crate::error::Kind::Config, e))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    fn texts(found: Vec<Include>) -> Vec<String> {
        found.iter().map(|include| format!("{:?} {}", include.kind, String::from_utf8_lossy(&include.name))).collect()
    }

    #[test]
    fn includes_are_found() {
        let settings = b"include 'a.conf' # yes\n  INCLUDE_IF_EXISTS = '/etc/it''s'\ninclude_dir conf.d#no\n#include 'x'\n\
            included = 'y'\ninclude\ninclude 'torn\ninclude 'b\\'c'\n";
        assert_eq!(texts(includes_of_settings(settings)), ["File a.conf", "IfExists /etc/it's", "Directory conf.d", "File b'c"]);
        let rules =
            b"# @no\nlocal all @admins,@\"more admins\" trust\ninclude \"other hba\"\ninclude_dir d\ninclude_if_exists e\n\
            host \"@quoted\" all ::1/128 md5 # @no\n";
        assert_eq!(
            texts(includes_of_rules(rules)),
            ["File admins", "File more admins", "File other hba", "Directory d", "IfExists e", "File quoted"]
        );
    }

    #[test]
    fn files_are_followed_once_each_and_told_apart_by_where_they_are() {
        let place = tempfile::tempdir().unwrap();
        let (data, etc) = (place.path().join("data"), place.path().join("etc"));
        for directory in ["data/conf.d", "etc/conf.d"] {
            std::fs::create_dir_all(place.path().join(directory)).unwrap();
        }
        let write = |path: PathBuf, text: &str| std::fs::write(path, text).unwrap();
        let inside = data.join("conf.d").display().to_string();
        write(
            etc.join("postgresql.conf"),
            &format!(
                "include_dir 'conf.d'\ninclude './postgresql.conf'\ninclude_if_exists 'none'\ninclude 'gone'\ninclude_dir '{inside}'\n"
            ),
        );
        write(etc.join("conf.d/b.conf"), "");
        write(etc.join("conf.d/a.conf"), "include 'b.conf'");
        write(etc.join("conf.d/.hidden.conf"), "");
        write(etc.join("conf.d/c.txt"), "");
        write(data.join("conf.d/d.conf"), "");
        std::os::unix::fs::symlink(&data, place.path().join("link")).unwrap();
        let data_directory = place.path().join("link");
        let real = fsio::real_path(&data).unwrap().unwrap();
        let mut search = Search { data_directory: &data_directory, real, seen: HashSet::new(), named: Named::default() };
        search.file(etc.join("postgresql.conf"), "config_file", 0, true);
        let Named { outside, below, warnings } = search.named;
        let names: Vec<&Path> = outside.iter().map(|file| file.path.strip_prefix(&etc).unwrap()).collect();
        assert_eq!(names, ["postgresql.conf", "conf.d/a.conf", "conf.d/b.conf", "gone"].map(Path::new));
        assert_eq!(below, [b"conf.d/d.conf".to_vec()]);
        assert!(warnings.is_empty(), "{warnings:?}");
        let owner = owner_of(&data).unwrap();
        let gone = read(&outside[3], owner).err().unwrap();
        assert!(gone.contains("gone (config_file) is not in the backup: it is not there"), "{gone}");
        assert_eq!(read(&outside[1], owner).map(|read| read.content).unwrap(), b"include 'b.conf'");
    }
}
