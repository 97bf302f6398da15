//! Passwords from a password file, as libpq takes them.
//!
//! <https://www.postgresql.org/docs/current/libpq-pgpass.html>

use crate::fsio;
use crate::limits::MAX_CONNECTION_FILE_BYTES;
use std::path::Path;
use zeroize::Zeroizing;

/// Whom a password is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Host name; `localhost` for the socket in its usual place.
    pub(super) host: &'a str,
    pub(super) port: &'a str,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// The password in the first line that fits. A file that others can read is not used, as by libpq.
pub(super) fn find(path: &Path, wanted: Wanted<'_>) -> Option<Zeroizing<String>> {
    let bytes = Zeroizing::new(fsio::read_bounded(path, MAX_CONNECTION_FILE_BYTES).ok()?);
    if fsio::attributes(path).ok().flatten()?.mode & 0o077 != 0 {
        tracing::warn!("password file {} can be read by others, and is not used; make it private: chmod 600 {0}", path.display());
        return None;
    }
    let text = std::str::from_utf8(&bytes).ok()?;
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| password_in(line, wanted))
}

fn password_in(line: &str, wanted: Wanted<'_>) -> Option<Zeroizing<String>> {
    let mut chars = line.chars();
    for wanted in [wanted.host, wanted.port, wanted.database, wanted.user] {
        let mut field = Zeroizing::new(String::new());
        let mut is_literal = false;
        loop {
            match chars.next()? {
                ':' => break,
                '\\' => {
                    is_literal = true;
                    field.extend(chars.next());
                }
                c => field.push(c),
            }
        }
        if !(*field == wanted || *field == "*" && !is_literal) {
            return None;
        }
    }
    let mut password = Zeroizing::new(String::with_capacity(line.len()));
    while let Some(c) = chars.next() {
        match c {
            ':' => break,
            '\\' => password.extend(chars.next()),
            c => password.push(c),
        }
    }
    Some(password).filter(|password| !password.is_empty())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_first_line_that_fits_counts() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("pgpass");
        let text = "# c\nother:*:*:*:no\ndb:5432:*:me:se\\:cr\\\\et:rest\n*:*:a\\:b:*:colon\n\\*:*:*:*:star\n*:*:*:*:any\n";
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let find = |host, port, database, user| find(&path, Wanted { host, port, database, user }).map(|p| p.to_string());
        assert_eq!(find("db", "5432", "x", "me").unwrap(), "se:cr\\et");
        assert_eq!(find("db", "5433", "a:b", "me").unwrap(), "colon");
        assert_eq!(find("*", "1", "x", "me").unwrap(), "star");
        assert_eq!(find("db", "5432", "x", "you").unwrap(), "any");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(find("db", "5432", "x", "me"), None);
        assert!(super::find(&place.path().join("none"), Wanted { host: "", port: "", database: "", user: "" }).is_none());
    }
}
