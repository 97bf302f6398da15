//! One host after the other, each with and without TLS as `sslmode` says, until one takes the connection.

use super::conninfo::{self, Conninfo};
use super::errors;
use super::mode::Mode;
use super::passfile;
use crate::error::{Error, Kind};
use crate::limits::{KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_RETRIES};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;
use tokio_postgres::config::{ChannelBinding, SslMode, TargetSessionAttrs};
use tokio_postgres::{Client, Config};

const DEFAULT_PORT: u16 = 5432;

#[cfg(feature = "tls")]
pub(super) use super::tls::Connector;

/// What drives a connection; it ends with the connection.
pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Without TLS.
#[cfg(not(feature = "tls"))]
#[derive(Debug, Clone)]
pub(super) struct Connector(tokio_postgres::NoTls);

#[cfg(not(feature = "tls"))]
impl Connector {
    fn new(_: &Conninfo, _: Mode, _: Option<&std::path::Path>) -> Self {
        Self(tokio_postgres::NoTls)
    }

    fn prepare(&self) -> Result<(), String> {
        Err("this program was built without TLS".to_owned())
    }
}

/// Where a server may be, and how it is spoken to.
pub(super) struct Targets {
    hosts: Vec<Target>,
    mode: Mode,
    connector: Connector,
}

struct Target {
    config: Config,
    /// For messages: ` at host port 1 as user`.
    described: String,
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "for messages about certificates"))]
    host: String,
    is_socket: bool,
}

/// A connection that did not come about.
struct Failed {
    error: Error,
    /// The server, or TLS, refused: it may be otherwise with or without TLS.
    is_refusal: bool,
}

impl Targets {
    /// Everything that can be known before anybody is asked.
    ///
    /// # Errors
    /// [`Kind::Config`].
    pub(super) fn of(info: &Conninfo, time: Duration, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let mode = Mode::of(info)?;
        let home = conninfo::home(env);
        let list = |name: &str| -> Vec<String> {
            info.get(name).map_or_else(Vec::new, |text| text.split(',').map(|item| item.trim().to_owned()).collect())
        };
        let (hosts, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
        let count = hosts.len().max(addresses.len());
        let wrong = conninfo::malformed::<&str>;
        if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
            return Err(wrong("host and hostaddr name different numbers of servers"));
        }
        if ports.len() > 1 && ports.len() != count {
            return Err(wrong("host and port name different numbers of servers"));
        }
        let mut targets = Vec::new();
        for at in 0..count {
            let address = addresses.get(at).filter(|address| !address.is_empty());
            let address: Option<IpAddr> =
                address.map(|text| text.parse().map_err(|_| wrong("hostaddr is no IP address"))).transpose()?;
            let host = hosts.get(at).filter(|host| !host.is_empty()).cloned();
            let host = host.or_else(|| address.map(|address| address.to_string())).unwrap_or_else(|| "localhost".to_owned());
            let port = match ports.get(at).or_else(|| ports.first()).map(String::as_str) {
                None | Some("") => DEFAULT_PORT,
                Some(text) => text.parse().map_err(|_| wrong("port is not a number from 1 to 65535"))?,
            };
            targets.push(Target::new(info, &host, address, port, time, home.as_deref(), env)?);
        }
        let connector = Connector::new(info, mode, home.as_deref());
        // What only matters once a server agrees to TLS is found out then.
        if mode.insists() && targets.iter().any(|target| !target.is_socket) {
            connector.prepare().map_err(|what| Error::new(Kind::Config, what).hint("see sslmode in PostgreSQL's manual"))?;
        }
        Ok(Self { hosts: targets, mode, connector })
    }

    /// What cancels a statement has to be spoken with the same TLS.
    #[cfg(feature = "tls")]
    pub(super) fn connector(&self) -> Connector {
        self.connector.clone()
    }

    #[cfg(not(feature = "tls"))]
    pub(super) fn connector(&self) -> tokio_postgres::NoTls {
        self.connector.0
    }

    /// Connects to the first that takes the connection.
    ///
    /// # Errors
    /// [`Kind::Server`] with what each said.
    pub(super) async fn connect(&self) -> Result<(Client, Driver), Error> {
        let mut failed: Option<Error> = None;
        for host in &self.hosts {
            match self.connect_to(host).await {
                Ok(connected) => return Ok(connected),
                Err(error) => {
                    failed = Some(match failed {
                        Some(before) => Error { what: format!("{}; {}", before.what, error.what), ..error },
                        None => error,
                    });
                }
            }
        }
        Err(failed.unwrap_or_else(|| conninfo::malformed("it names no server")))
    }

    async fn connect_to(&self, host: &Target) -> Result<(Client, Driver), Error> {
        // The server is on this very host then.
        let attempts = if host.is_socket { Mode::Disable.attempts() } else { self.mode.attempts() };
        let attempts = if cfg!(feature = "tls") || self.mode.insists() { attempts } else { Mode::Disable.attempts() };
        let mut before: Option<Error> = None;
        for (at, tls) in attempts.iter().enumerate() {
            match self.attempt(host, *tls).await {
                Ok(connected) => return Ok(connected),
                Err(Failed { error, is_refusal }) => {
                    let error = match before.take() {
                        Some(first) if first.what != error.what => Error {
                            what: format!(
                                "{}; {}: {}",
                                error.what,
                                if self.mode == Mode::Allow { "without TLS" } else { "with TLS" },
                                first.what
                            ),
                            ..error
                        },
                        _ => error,
                    };
                    if !is_refusal || at + 1 == attempts.len() {
                        let what = format!("cannot connect to the PostgreSQL server{}: {}", host.described, error.what);
                        return Err(Error { what, ..error });
                    }
                    before = Some(error);
                }
            }
        }
        Err(Error::new(Kind::Bug, "no way to connect was tried"))
    }

    async fn attempt(&self, host: &Target, tls: SslMode) -> Result<(Client, Driver), Failed> {
        let mut config = host.config.clone();
        config.ssl_mode(tls);
        match config.connect(self.connector()).await {
            Ok((client, connection)) => {
                let driver: Driver = Box::pin(async move {
                    if let Err(e) = connection.await {
                        tracing::debug!("server connection: {e}");
                    }
                });
                Ok((client, driver))
            }
            Err(e) => {
                let text = errors::detail(&e);
                let is_tls = text.contains("TLS");
                #[cfg(feature = "tls")]
                if let Some((what, hint)) = super::tls::explain(&e, &host.host) {
                    return Err(Failed { error: Error::new(Kind::Server, what).hint(hint), is_refusal: true });
                }
                let hint = match e.as_db_error() {
                    None if text.contains("server does not support TLS") => {
                        "switch TLS on there (ssl = on), or say sslmode=prefer or disable if the way to it is safe"
                    }
                    None if is_tls => "sslmode, sslrootcert, sslcert and sslkey say how TLS is spoken",
                    said => errors::way_in(said),
                };
                Err(Failed { is_refusal: is_tls || e.as_db_error().is_some(), error: Error::new(Kind::Server, text).hint(hint) })
            }
        }
    }
}

impl Target {
    fn new(
        info: &Conninfo,
        host: &str,
        address: Option<IpAddr>,
        port: u16,
        time: Duration,
        home: Option<&std::path::Path>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let is_socket = host.starts_with('/') && address.is_none();
        let mut config = Config::new();
        config.host(host).port(port).application_name("walvis").connect_timeout(time);
        if let Some(address) = address {
            config.hostaddr(address);
        }
        config.keepalives(info.get("keepalives") != Some("0"));
        let number = |name: &str| info.get(name).and_then(|text| text.parse::<u32>().ok()).filter(|number| *number > 0);
        let seconds = |name: &str, usual: Duration| number(name).map_or(usual, |seconds| Duration::from_secs(seconds.into()));
        config.keepalives_idle(seconds("keepalives_idle", KEEPALIVE_IDLE));
        config.keepalives_interval(seconds("keepalives_interval", KEEPALIVE_INTERVAL));
        config.keepalives_retries(number("keepalives_count").unwrap_or(KEEPALIVE_RETRIES));
        let (user, database) = (info.get("user").unwrap_or_default(), info.get("dbname").unwrap_or_default());
        config.user(user).dbname(database);
        if let Some(options) = info.get("options") {
            config.options(options);
        }
        let unknown = |name: &str, known: &str| {
            conninfo::malformed(format!("{name} has a value that Walvis does not know; it knows {known}"))
        };
        match info.get("target_session_attrs") {
            None | Some("any") => {}
            Some("read-write") => {
                config.target_session_attrs(TargetSessionAttrs::ReadWrite);
            }
            Some("read-only") => {
                config.target_session_attrs(TargetSessionAttrs::ReadOnly);
            }
            Some(_) => return Err(unknown("target_session_attrs", "any, read-write and read-only")),
        }
        match info.get("channel_binding") {
            None | Some("prefer") => {}
            Some("disable") => {
                config.channel_binding(ChannelBinding::Disable);
            }
            Some("require") => {
                config.channel_binding(ChannelBinding::Require);
            }
            Some(_) => return Err(unknown("channel_binding", "disable, prefer and require")),
        }
        if let Some(password) = info.get("password") {
            config.password(password);
        } else if let Some(path) = info.get("passfile").map(Into::into).or_else(|| home.map(|home| home.join(".pgpass"))) {
            // As libpq: the socket in its usual place is this host.
            let name =
                if is_socket && host == env("PGHOST").as_deref().unwrap_or("/var/run/postgresql") { "localhost" } else { host };
            let wanted = passfile::Wanted { host: name, port: &port.to_string(), database, user };
            if let Some(password) = passfile::find(&path, wanted) {
                config.password(password.as_bytes());
            }
        }
        let described = format!(" at {host} port {port} as {user}");
        Ok(Self { config, described, host: host.to_owned(), is_socket })
    }
}
