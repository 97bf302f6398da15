//! The environment of the server that a restore starts. It outlives us, hands its environment on to whatever it runs, and shows it to
//! everybody who may look at its processes: so it gets what a server needs and what `restore_command` needs, and no secret beyond that.
use crate::config::Config;
use crate::fsio;
use crate::process;
use crate::repo::{KeySource, StoreUrl};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Where programs are if nobody says so.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What the server itself, and libpq in it, read (`postmaster.c`, `guc.c`, `fe-connect.c`), but for passwords.
const OF_POSTGRES: [&str; 22] = [
    "PGPORT",
    "PGDATESTYLE",
    "PGTZ",
    "PG_OOM_ADJUST_FILE",
    "PG_OOM_ADJUST_VALUE",
    "PGSYSCONFDIR",
    "PGLOCALEDIR",
    "PGPASSFILE",
    "PGSERVICEFILE",
    "PGSSLMODE",
    "PGSSLROOTCERT",
    "PGSSLCERT",
    "PGSSLKEY",
    "PGSSLCRL",
    "PGSSLCRLDIR",
    "PGCHANNELBINDING",
    "PGREQUIREAUTH",
    "PGREQUIRESSL",
    "PGGSSENCMODE",
    "PGKRBSRVNAME",
    "KRB5_CONFIG",
    "KRB5CCNAME",
];
/// What requests to an S3 store need that is no secret, beside `AWS_…`. The variables of a proxy may hold a password.
const OF_S3: [&str; 4] = ["SSL_CERT_FILE", "SSL_CERT_DIR", "NO_PROXY", "no_proxy"];
const OF_PROXIES: [&str; 6] = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
/// The credentials of AWS that are secrets, or belong to one.
const AWS_SECRETS: [&str; 4] =
    ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN"];

/// What `restore_command`, and a standby that streams, need of this process's environment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Needs {
    /// Some repository is in S3.
    s3: bool,
    /// And its credentials may come from the environment.
    credentials: bool,
    /// A passphrase is in the environment.
    passphrase: bool,
    /// A command gets the key, and nobody knows what it reads.
    command: bool,
    /// The server connects to a primary, and may need a password there.
    primary: bool,
}

impl Needs {
    /// By the settings that `restore_command` goes by.
    pub fn of(config: &Config, has_primary: bool) -> Self {
        let mut needs = Self { primary: has_primary, ..Self::default() };
        for repository in &config.repositories {
            match &repository.store.url {
                StoreUrl::File(_) => {}
                #[cfg(feature = "s3")]
                StoreUrl::S3(settings) => {
                    needs.s3 = true;
                    needs.credentials |= settings.credentials_file.is_none();
                }
            }
            match &repository.key {
                KeySource::Command(_) => needs.command = true,
                KeySource::PassphraseEnvironment => needs.passphrase = true,
                KeySource::File(_) | KeySource::PassphraseFile(_) | KeySource::None => {}
            }
        }
        needs
    }

    /// Whether the server gets a variable, and whether that is worth a word: it may be a secret.
    fn judge(&self, name: &str) -> Verdict {
        let only_if = |needed: bool| if needed { Verdict::Told } else { Verdict::Dropped };
        match name {
            "WALVIS_PASSPHRASE" => only_if(self.passphrase),
            "PGPASSWORD" => only_if(self.primary),
            name if AWS_SECRETS.contains(&name) => only_if(self.credentials || self.command),
            name if OF_PROXIES.contains(&name) => only_if(self.s3 || self.command),
            name if process::is_basic(OsStr::new(name)) || OF_POSTGRES.contains(&name) => Verdict::Passed,
            name if name.starts_with("AWS_") || OF_S3.contains(&name) => {
                if self.s3 || self.command {
                    Verdict::Passed
                } else {
                    Verdict::Dropped
                }
            }
            name if crate::config::KNOWN_VARIABLES.contains(&name) => Verdict::Passed,
            name if process::is_secret(OsStr::new(name)) => Verdict::Dropped,
            // Such as VAULT_TOKEN.
            _ => only_if(self.command),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Dropped,
    Passed,
    /// Passed, and told.
    Told,
}

/// The environment of a server.
#[derive(Debug, Default)]
pub struct Environment {
    /// All of it.
    pub variables: Vec<(OsString, OsString)>,
    /// The names of those that may hold a secret.
    pub told: Vec<String>,
}

impl Environment {
    /// Of the variables of this process those that the server gets, with the home of the user that it runs as.
    pub fn of_server(needs: Needs, user: Option<u32>) -> Self {
        Self::choose(needs, std::env::vars_os(), user)
    }

    fn choose(needs: Needs, variables: impl Iterator<Item = (OsString, OsString)>, user: Option<u32>) -> Self {
        let mut chosen = Self::default();
        for (name, value) in variables {
            // One whose name is no text is none that we know.
            let verdict = name.to_str().map_or(Verdict::Dropped, |name| needs.judge(name));
            if verdict == Verdict::Dropped || value.is_empty() || name == "PATH" {
                continue;
            }
            if verdict == Verdict::Told {
                chosen.told.extend(name.to_str().map(str::to_owned));
            }
            chosen.variables.push((name, value));
        }
        chosen.told.sort();
        chosen.set("PATH", safe_path(std::env::var_os("PATH").as_deref()));
        if let Some(user) = user {
            // Ours are root's.
            for name in ["HOME", "USER", "LOGNAME"] {
                chosen.variables.retain(|(known, _)| known != name);
            }
            if let Some((name, home)) = fsio::user_and_home(user) {
                chosen.set("HOME", home.into_os_string());
                chosen.set("USER", OsString::from(&name));
                chosen.set("LOGNAME", OsString::from(name));
            }
        }
        chosen
    }

    fn set(&mut self, name: &str, value: OsString) {
        self.variables.push((name.into(), value));
    }
}

/// Without what depends on the directory that a program happens to run in.
fn safe_path(path: Option<&OsStr>) -> OsString {
    let absolute: Vec<PathBuf> =
        path.map(|path| std::env::split_paths(path).filter(|place| Path::is_absolute(place)).collect()).unwrap_or_default();
    match std::env::join_paths(absolute) {
        Ok(path) if !path.is_empty() => path,
        _ => PATH.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(needs: Needs) -> (Vec<String>, Vec<String>) {
        let names = [
            "PATH",
            "LANG",
            "LC_TIME",
            "TZ",
            "HOME",
            "PGPORT",
            "PGPASSFILE",
            "PGPASSWORD",
            "PGUSER",
            "WALVIS_PASSPHRASE",
            "WALVIS_CONFIG",
            "WALVIS_NONSENSE",
            "AWS_REGION",
            "AWS_PROFILE",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "HTTPS_PROXY",
            "VAULT_TOKEN",
            "SSH_AUTH_SOCK",
            "LD_PRELOAD",
        ];
        let variables = names.iter().map(|name| (OsString::from(name), OsString::from("x")));
        let environment = Environment::choose(needs, variables, None);
        let mut got: Vec<String> = environment.variables.into_iter().map(|(name, _)| name.into_string().unwrap()).collect();
        got.sort();
        (got, environment.told)
    }

    #[test]
    fn a_server_gets_what_its_restore_command_needs_and_no_more() {
        let basic = ["HOME", "LANG", "LC_TIME", "LD_PRELOAD", "PATH", "PGPASSFILE", "PGPORT", "TZ", "WALVIS_CONFIG"];
        let (got, told) = chosen(Needs::default());
        assert_eq!((got.as_slice(), told), (basic.map(str::to_owned).as_slice(), vec![]));
        let (got, told) = chosen(Needs { s3: true, ..Needs::default() });
        assert_eq!(told, ["HTTPS_PROXY"]);
        assert_eq!(got.iter().filter(|name| name.starts_with("AWS_")).collect::<Vec<_>>(), ["AWS_PROFILE", "AWS_REGION"]);
        let (_, told) = chosen(Needs { s3: true, credentials: true, ..Needs::default() });
        assert_eq!(told, ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HTTPS_PROXY"]);
        assert_eq!(chosen(Needs { passphrase: true, ..Needs::default() }).1, ["WALVIS_PASSPHRASE"]);
        assert_eq!(chosen(Needs { primary: true, ..Needs::default() }).1, ["PGPASSWORD"]);
        let (got, told) = chosen(Needs { command: true, ..Needs::default() });
        assert!(told.contains(&"VAULT_TOKEN".to_owned()) && told.contains(&"AWS_SECRET_ACCESS_KEY".to_owned()), "{told:?}");
        assert!(!got.contains(&"WALVIS_PASSPHRASE".to_owned()) && !got.contains(&"PGPASSWORD".to_owned()), "{got:?}");
    }

    #[test]
    fn programs_are_not_looked_for_in_the_working_directory() {
        let path = |text: &str| safe_path(Some(OsStr::new(text)));
        assert_eq!(path("/bin:.::x/bin:/usr/bin"), OsStr::new("/bin:/usr/bin"));
        assert_eq!(path(".:"), OsStr::new(PATH));
        assert_eq!(safe_path(None), OsStr::new(PATH));
    }
}
