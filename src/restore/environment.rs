//! What `restore_command`, and a standby that streams, need of this program's environment: the server that a restore
//! starts gets that, and no secret beyond it.

use crate::config::{Config, is_known_variable};
use crate::postgres::server_process::{Passing, is_read_by_a_server};
use crate::process;
use crate::repo::{KeySource, StoreUrl};
use std::ffi::OsStr;

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
    pub fn judge(&self, name: &str) -> Passing {
        let only_if = |needed: bool| if needed { Passing::Told } else { Passing::Dropped };
        match name {
            process::PASSPHRASE_VARIABLE => only_if(self.passphrase),
            "PGPASSWORD" => only_if(self.primary),
            name if AWS_SECRETS.contains(&name) => only_if(self.credentials || self.command),
            name if OF_PROXIES.contains(&name) => only_if(self.s3 || self.command),
            name if is_read_by_a_server(name) => Passing::Passed,
            name if name.starts_with("AWS_") || OF_S3.contains(&name) => {
                if self.s3 || self.command {
                    Passing::Passed
                } else {
                    Passing::Dropped
                }
            }
            name if is_known_variable(name) => Passing::Passed,
            name if process::is_secret(OsStr::new(name)) => Passing::Dropped,
            // Such as VAULT_TOKEN.
            _ => only_if(self.command),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::server_process::Environment;
    use std::ffi::OsString;

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
        let environment = Environment::choose(&|name| needs.judge(name), variables, None);
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
}
