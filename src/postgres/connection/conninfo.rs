//! Connection strings as libpq reads them, and what libpq adds to them: a service file, the environment, its defaults.
//!
//! Lives here: which options there are, and where each comes from. May not live here: connecting. No message of an
//! error has a value in it, because a value may be a password.
//!
//! <https://www.postgresql.org/docs/current/libpq-connect.html>

use crate::error::{Error, Kind};
use crate::fsio::{self, Problem};
use crate::limits::MAX_CONNECTION_FILE_BYTES;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where the socket of a server is if nobody says so.
const DEFAULT_HOST: &str = "/var/run/postgresql";

/// Options that are obeyed.
const OBEYED: [&str; 22] = [
    "user",
    "password",
    "passfile",
    "dbname",
    "host",
    "hostaddr",
    "port",
    "options",
    "service",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslcrl",
    "sslsni",
    "ssl_min_protocol_version",
    "channel_binding",
    "target_session_attrs",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
];
/// Options that may be there, and change nothing that matters to Walvis: with these values, or with any.
const WITHOUT_EFFECT: [(&str, &[&str]); 17] = [
    ("connect_timeout", &[]),
    ("tcp_user_timeout", &[]),
    ("application_name", &[]),
    ("fallback_application_name", &[]),
    ("client_encoding", &[]),
    ("sslcompression", &[]),
    ("krbsrvname", &[]),
    ("gsslib", &[]),
    ("gssdelegation", &["0"]),
    ("gssencmode", &["disable", "allow", "prefer"]),
    ("sslnegotiation", &["postgres"]),
    ("sslcertmode", &["allow"]),
    ("ssl_max_protocol_version", &["", "TLSv1.3"]),
    ("load_balance_hosts", &["disable"]),
    ("replication", &["false", "off", "no", "0"]),
    ("min_protocol_version", &["3.0"]),
    ("max_protocol_version", &[]),
];
/// Options that libpq has and that cannot be obeyed here: a user who sets one relies on it.
const NOT_SUPPORTED: [&str; 13] = [
    "sslpassword",
    "sslcrldir",
    "requirepeer",
    "require_auth",
    "scram_client_key",
    "scram_server_key",
    "sslkeylogfile",
    "servicefile",
    "oauth_issuer",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_scope",
    "requiressl",
];
/// Options that are secrets.
const SECRETS: [&str; 5] = ["password", "sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret"];

/// The variables that stand for options. Whether a server is the right one, and how it is spoken to, is as important
/// there as in the string.
const VARIABLES: [(&str, &str); 18] = [
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGPORT", "port"),
    ("PGDATABASE", "dbname"),
    ("PGUSER", "user"),
    ("PGPASSWORD", "password"),
    ("PGPASSFILE", "passfile"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLSNI", "sslsni"),
    ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGREQUIREPEER", "requirepeer"),
    ("PGREQUIREAUTH", "require_auth"),
];

/// The environment, as a function so that tests need not change the process's.
type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Options by their names.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Conninfo(BTreeMap<String, String>);

pub(super) fn malformed<T: std::fmt::Display>(what: T) -> Error {
    Error::new(Kind::Config, format!("server connection string: {what}"))
        .hint("write it as for psql, for example 'host=/var/run/postgresql port=5432 user=postgres dbname=postgres'")
}

/// What an option is called, unless it may be part of a value.
fn named(name: &str) -> String {
    let is_name = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let known = OBEYED.contains(&name)
        || NOT_SUPPORTED.contains(&name)
        || WITHOUT_EFFECT.iter().any(|(known, _)| *known == name)
        || SECRETS.contains(&name);
    if is_name && known { format!("option {name}") } else { "an option".to_owned() }
}

impl Conninfo {
    /// Reads `host=… user=…` or `postgresql://…`.
    ///
    /// # Errors
    /// [`Kind::Config`], without any value.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let info = Self::read(text)?;
        for (name, value) in &info.0 {
            check(name, value)?;
        }
        Ok(info)
    }

    /// As [`parse`](Self::parse), whatever the options are: for a string that somebody else is to obey.
    ///
    /// # Errors
    /// [`Kind::Config`], without any value.
    pub fn read(text: &str) -> Result<Self, Error> {
        let mut info = Self::default();
        match text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://")) {
            Some(rest) => info.parse_url(rest)?,
            None => info.parse_words(text)?,
        }
        Ok(info)
    }

    /// The first option that is a secret.
    pub fn secret(&self) -> Option<&'static str> {
        SECRETS.into_iter().find(|name| self.get(name).is_some())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Pairs with `=`, values in single quotes where they need it (`conninfo_parse` of `fe-connect.c`).
    fn parse_words(&mut self, text: &str) -> Result<(), Error> {
        let mut chars = text.chars().peekable();
        loop {
            while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
            if chars.peek().is_none() {
                return Ok(());
            }
            let mut name = String::new();
            while let Some(c) = chars.next_if(|c| *c != '=' && !c.is_ascii_whitespace()) {
                name.push(c);
            }
            while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
            if chars.next_if_eq(&'=').is_none() {
                return Err(malformed(format!("there is no '=' after {}", named(&name))));
            }
            while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
            let is_quoted = chars.next_if_eq(&'\'').is_some();
            let mut value = String::new();
            loop {
                match chars.next() {
                    Some('\\') => value.extend(chars.next()),
                    Some('\'') if is_quoted => break,
                    Some(c) if !is_quoted && c.is_ascii_whitespace() => break,
                    Some(c) => value.push(c),
                    None if is_quoted => return Err(malformed(format!("the quotes of {} do not end", named(&name)))),
                    None => break,
                }
            }
            self.set(&name, value);
        }
    }

    /// `[user[:password]@][host[:port]][,…][/dbname][?name=value&…]`, percent-encoded.
    fn parse_url(&mut self, rest: &str) -> Result<(), Error> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let authority_len = rest.find('/').unwrap_or(rest.len());
        // A password may hold a slash that nobody encoded; libpq takes what is before the first '@' of the authority.
        let (authority, path) = rest.split_at(authority_len);
        let (user, hosts) = authority.split_once('@').map_or((None, authority), |(user, hosts)| (Some(user), hosts));
        if let Some(user) = user {
            let (user, password) = user.split_once(':').map_or((user, None), |(user, password)| (user, Some(password)));
            if !user.is_empty() {
                self.set("user", decoded(user)?);
            }
            if let Some(password) = password.filter(|password| !password.is_empty()) {
                self.set("password", decoded(password)?);
            }
        }
        let (mut names, mut ports) = (Vec::new(), Vec::new());
        for host in hosts.split(',') {
            let (name, port) = match host.strip_prefix('[') {
                Some(v6) => {
                    let (name, port) = v6.split_once(']').ok_or_else(|| malformed("an IPv6 address without ']'"))?;
                    (name, port.strip_prefix(':').unwrap_or_default())
                }
                None => host.split_once(':').unwrap_or((host, "")),
            };
            names.push(decoded(name)?);
            ports.push(decoded(port)?);
        }
        if names.iter().any(|name| !name.is_empty()) {
            self.set("host", names.join(","));
        }
        if ports.iter().any(|port| !port.is_empty()) {
            self.set("port", ports.join(","));
        }
        if let Some(database) = path.strip_prefix('/').filter(|database| !database.is_empty()) {
            self.set("dbname", decoded(database)?);
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| malformed("an option of the URL has no '='"))?;
            let (name, value) = (decoded(name)?, decoded(value)?);
            // As JDBC has it.
            if name == "ssl" && value == "true" { self.set("sslmode", "require") } else { self.set(&name, value) }
        }
        Ok(())
    }

    /// Adds what libpq takes from a service file, the environment and its defaults where the string says nothing.
    ///
    /// # Errors
    /// [`Kind::Config`], naming file or variable.
    pub(super) fn complete(mut self, env: Environment<'_>) -> Result<Self, Error> {
        let service = self.get("service").map(str::to_owned).or_else(|| env("PGSERVICE"));
        if let Some(service) = service {
            for (name, value) in read_service(&service, env)? {
                self.0.entry(name).or_insert(value);
            }
        }
        let has_place = self.get("host").is_some() || self.get("hostaddr").is_some();
        for (variable, name) in VARIABLES {
            // Who names a host means that one.
            let is_place = matches!(name, "host" | "hostaddr");
            if self.get(name).is_some() || is_place && has_place {
                continue;
            }
            if let Some(value) = env(variable) {
                check(name, &value).map_err(|e| Error { what: format!("{variable}: {}", e.what), ..e })?;
                self.set(name, value);
            }
        }
        if self.get("host").is_none() && self.get("hostaddr").is_none() {
            self.set("host", DEFAULT_HOST);
        }
        if self.get("user").is_none()
            && let Ok(Some(user)) = nix::unistd::User::from_uid(nix::unistd::geteuid())
        {
            self.set("user", user.name);
        }
        if self.get("dbname").is_none() {
            self.set("dbname", "postgres");
        }
        Ok(self)
    }
}

fn check(name: &str, value: &str) -> Result<(), Error> {
    if OBEYED.contains(&name) {
        return Ok(());
    }
    match WITHOUT_EFFECT.iter().find(|(known, _)| *known == name) {
        Some((_, [])) => Ok(()),
        Some((_, values)) if values.contains(&value) => Ok(()),
        Some((_, values)) => {
            Err(malformed(format!("{name} has a value that Walvis does not know; it knows {}", values.join(", "))))
        }
        None if NOT_SUPPORTED.contains(&name) => Err(malformed(format!("Walvis does not know how to obey {name}"))
            .hint("leave it out, or connect through the server's socket, as the user that it runs as")),
        None => Err(malformed("it has an option that libpq does not know")),
    }
}

fn decoded(text: &str) -> Result<String, Error> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes().iter();
    while let Some(byte) = rest.next() {
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let digits: Vec<u8> = rest.by_ref().take(2).copied().collect();
        let mut decoded = [0];
        hex::decode_to_slice(&digits, &mut decoded)
            .map_err(|_| malformed("a '%' in the URL is not followed by two hexadecimal digits"))?;
        bytes.extend(decoded);
    }
    String::from_utf8(bytes).map_err(|_| malformed("the URL is not UTF-8 text"))
}

/// Where a user's files are: `HOME`, else what the system says.
pub(super) fn home(env: Environment<'_>) -> Option<PathBuf> {
    let known = || fsio::user_and_home(nix::unistd::geteuid().as_raw()).map(|(_, home)| home);
    env("HOME").map(PathBuf::from).or_else(known)
}

fn read_service(service: &str, env: Environment<'_>) -> Result<Vec<(String, String)>, Error> {
    let own = env("PGSERVICEFILE").map(PathBuf::from).or_else(|| home(env).map(|home| home.join(".pg_service.conf")));
    let system = env("PGSYSCONFDIR").map(|directory| Path::new(&directory).join("pg_service.conf"));
    for path in own.into_iter().chain(system) {
        let bytes = match fsio::read_bounded(&path, MAX_CONNECTION_FILE_BYTES) {
            Ok(bytes) => bytes,
            Err(e) if e.problem == Problem::Absent => continue,
            Err(e) => return Err(Error::new(Kind::Config, format!("service file {}: {e}", path.display()))),
        };
        if let Some(found) = service_in(&String::from_utf8_lossy(&bytes), service, &path)? {
            return Ok(found);
        }
    }
    Err(Error::new(Kind::Config, format!("there is no definition of the service {service:?}"))
        .hint("write a section of that name into ~/.pg_service.conf, or the file that PGSERVICEFILE names"))
}

fn service_in(text: &str, service: &str, path: &Path) -> Result<Option<Vec<(String, String)>>, Error> {
    let mut found: Option<Vec<(String, String)>> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            if found.is_some() {
                break;
            }
            if section == service {
                found = Some(Vec::new());
            }
        } else if let Some(found) = &mut found {
            let wrong = |what: &str| Error::new(Kind::Config, format!("service file {}, line {number}: {what}", path.display()));
            let (name, value) = line.split_once('=').ok_or_else(|| wrong("there is no '='"))?;
            check(name, value).map_err(|e| wrong(&e.what))?;
            found.push((name.to_owned(), value.to_owned()));
        }
    }
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        Conninfo::parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).0.into_iter().collect()
    }

    fn expected(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn strings_are_read_as_libpq_reads_them() {
        for (text, wanted) in [
            ("", &[][..]),
            ("host=/run/x  user = 'a b'", &[("host", "/run/x"), ("user", "a b")]),
            (r"password='it\'s \\' user=a\ b", &[("password", r"it's \"), ("user", "a b")]),
            ("user=a user=b dbname=''", &[("dbname", ""), ("user", "b")]),
            ("postgresql://", &[]),
            ("postgres://h", &[("host", "h")]),
            (
                "postgresql://u:p%40@h1:1,[::1]:2/db?sslmode=verify-full",
                &[
                    ("dbname", "db"),
                    ("host", "h1,::1"),
                    ("password", "p@"),
                    ("port", "1,2"),
                    ("sslmode", "verify-full"),
                    ("user", "u"),
                ],
            ),
            ("postgresql://%2Frun%2Fx/db?ssl=true", &[("dbname", "db"), ("host", "/run/x"), ("sslmode", "require")]),
        ] {
            assert_eq!(pairs(text), expected(wanted), "{text}");
        }
    }

    #[test]
    fn no_error_repeats_a_value() {
        for text in [
            "hunter2",
            "password=x hunter2",
            "password='hunter2",
            "hunter2=1",
            "password=x hunter2=1",
            "postgresql://u:hunter2%zz@h",
            "postgresql://u:p@[hunter2",
            "postgresql://h?hunter2",
            "gssencmode=hunter2",
            "sslpassword=hunter2",
            "requirepeer=hunter2",
        ] {
            let error = Conninfo::parse(text).err().unwrap_or_else(|| panic!("{text} is taken"));
            assert_eq!(error.kind, Kind::Config);
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn secrets_are_seen_wherever_they_stand() {
        for text in ["host=a password=b", "password = 'b'", "postgresql://u:b@h/d", "postgres://h?password=b"] {
            assert_eq!(Conninfo::parse(text).unwrap().secret(), Some("password"), "{text}");
        }
        for text in ["host=password user=password", "passfile=/x", "postgresql://u@h", "password=''"] {
            assert_eq!(Conninfo::parse(text).unwrap().secret(), None, "{text}");
        }
    }

    #[test]
    fn a_service_and_the_environment_complete_it() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("services");
        std::fs::write(&file, "# one\n[other]\nhost=no\n[main]\nhost=db\nuser=service\n\nsslmode=require\n[more]\nport=1\n")
            .unwrap();
        let env = |name: &str| match name {
            "PGSERVICEFILE" => Some(file.display().to_string()),
            "PGPORT" => Some("7".to_owned()),
            "PGHOST" | "PGHOSTADDR" => Some("no".to_owned()),
            "PGSSLMODE" => Some("disable".to_owned()),
            _ => None,
        };
        let info = Conninfo::parse("service=main user=me").unwrap().complete(&env).unwrap();
        for (name, value) in [("host", "db"), ("user", "me"), ("port", "7"), ("sslmode", "require"), ("dbname", "postgres")] {
            assert_eq!(info.get(name), Some(value), "{name}");
        }
        assert_eq!(info.get("hostaddr"), None);
        let none = Conninfo::parse("service=none").unwrap().complete(&env).err().unwrap();
        assert!(none.what.contains("none") && none.hint.is_some());
        let alone = Conninfo::default().complete(&|_| None).unwrap();
        assert_eq!((alone.get("host"), alone.get("dbname")), (Some(DEFAULT_HOST), Some("postgres")));
        let strict = Conninfo::default().complete(&|name| (name == "PGREQUIREPEER").then(|| "x".to_owned()));
        assert!(strict.err().unwrap().what.contains("PGREQUIREPEER"));
    }
}
