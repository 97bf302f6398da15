//! TLS to a real server: every `sslmode`, with certificates that are right and wrong, and servers that insist on TLS or
//! have none.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use walvis::deadline::Deadline;
use walvis::error::{Error, Kind};
use walvis::postgres::Server;

use crate::support::postgres::{Cluster, Options, Scratch, poll};

const NAME: &str = "db.walvis.test";
const PASSWORD: &str = "p:w\\d";

/// A server that listens on a port, and the authority of its certificates.
struct Host {
    scratch: Arc<Scratch>,
    cluster: Cluster,
    port: u16,
    ca: Issuer<'static, KeyPair>,
}

impl Host {
    fn new() -> Self {
        let scratch = Scratch::new();
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(DnType::CommonName, "Walvis test CA");
        let key = KeyPair::generate().unwrap();
        let pem = ca.self_signed(&key).unwrap().pem();
        scratch.write(&scratch.path().join("ca.pem"), pem.as_bytes());
        let ca = Issuer::new(ca, key);
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let options = Options { checksums: false, ..Options::default() }
            .setting("listen_addresses", "127.0.0.1")
            .setting("port", &port.to_string())
            .setting("password_encryption", "scram-sha-256")
            .setting("ssl_ca_file", scratch.path().join("ca.pem").to_str().unwrap());
        let cluster = Cluster::init(&scratch, "server", 15, &options);
        let host = Self { scratch, cluster, port, ca };
        host.certify("good", &[NAME, "127.0.0.1"], NAME, |_| {});
        let hba = "local all all trust\nhostssl all only_tls 127.0.0.1/32 trust\nhostnossl all only_plain 127.0.0.1/32 trust\n\
                   host all with_password 127.0.0.1/32 scram-sha-256\nhostssl all with_certificate 127.0.0.1/32 cert\n\
                   host all postgres 127.0.0.1/32 trust\n";
        host.scratch.write(&host.cluster.data.join("pg_hba.conf"), hba.as_bytes());
        host
    }

    fn start(&mut self) {
        self.cluster.spawn();
        let server = poll(|| self.connect_at(&self.socket(), "").ok()).expect("the server takes connections");
        for role in ["only_tls", "only_plain", "with_certificate"] {
            server.rows(&format!("create role {role} login")).unwrap();
        }
        server.rows(&format!("create role with_password login password '{PASSWORD}'")).unwrap();
        self.present("good");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn socket(&self) -> String {
        let conninfo = self.cluster.conninfo();
        format!("{} port={}", conninfo.split(' ').next().unwrap(), self.port)
    }

    /// Makes `<name>.pem` and `<name>.key`.
    fn certify(&self, name: &str, names: &[&str], common_name: &str, change: impl FnOnce(&mut CertificateParams)) {
        let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = match params.is_ca {
            IsCa::Ca(_) => params.self_signed(&key).unwrap(),
            _ => params.signed_by(&key, &self.ca).unwrap(),
        };
        self.scratch.write(&self.path(&format!("{name}.pem")), certificate.pem().as_bytes());
        self.scratch.write(&self.path(&format!("{name}.key")), key.serialize_pem().as_bytes());
    }

    /// Lets the server show this certificate from now on.
    fn present(&self, name: &str) {
        let own = self.connect_at(&self.socket(), "").unwrap();
        let (file, key) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        own.rows(&format!("alter system set ssl_cert_file = '{}'", file.display())).unwrap();
        own.rows(&format!("alter system set ssl_key_file = '{}'", key.display())).unwrap();
        own.rows("alter system set ssl = on").unwrap();
        self.reload("ssl_cert_file", file.to_str().unwrap());
    }

    /// Reads the settings again, and waits until new sessions have this one.
    fn reload(&self, setting: &str, value: &str) {
        self.connect_at(&self.socket(), "").unwrap().rows("select pg_reload_conf()").unwrap();
        let has_it = || {
            let now = self.connect_at(&self.socket(), "").ok()?.setting(setting).ok()??;
            (now == value).then_some(())
        };
        poll(has_it).unwrap_or_else(|| panic!("{setting} does not become {value}"));
    }

    fn connect_at(&self, place: &str, further: &str) -> Result<Server, Error> {
        let user = if further.contains("user=") { "" } else { "user=postgres" };
        let text = format!("{place} dbname=postgres {user} {further}");
        Server::connect(Some(&text), Deadline::after(Duration::from_secs(60)))
    }

    /// Connects by the right name; `~` stands for the directory of certificates.
    fn connect(&self, further: &str) -> Result<Server, Error> {
        let place = if further.contains("host=") { String::new() } else { format!("host={NAME} hostaddr=127.0.0.1") };
        let further = further.replace('~', self.scratch.path().to_str().unwrap());
        self.connect_at(&format!("{place} port={}", self.port), &further)
    }

    /// Whether a connection comes about in TLS.
    #[track_caller]
    fn speaks(&self, further: &str, tls: bool) -> Server {
        let server = self.connect(further).unwrap_or_else(|e| panic!("{further}: {e}"));
        let ssl = server.value("select ssl from pg_stat_ssl where pid = pg_backend_pid()").unwrap();
        assert_eq!(ssl, if tls { "t" } else { "f" }, "{further}");
        server
    }

    #[track_caller]
    fn fails(&self, further: &str, kind: Kind, word: &str) {
        match self.connect(further) {
            Ok(_) => panic!("{further}: it is connected"),
            Err(e) => {
                assert_eq!(e.kind, kind, "{further}: {e:?}");
                assert!(e.what.contains(word), "{further}: {e:?}");
                assert!(e.hint.is_some(), "{further}: {e:?}");
            }
        }
    }
}

#[test]
fn every_mode_means_what_it_means_to_libpq() {
    let mut host = Host::new();
    host.start();
    let (server, config) = (Kind::Server, Kind::Config);
    // Without anything said, and as said.
    host.speaks("", true);
    host.speaks("sslmode=disable", false);
    host.speaks("sslmode=allow", false);
    host.speaks("sslmode=prefer", true);
    host.speaks("sslmode=require", true);
    host.speaks("sslmode=require ssl_min_protocol_version=TLSv1.3", true);
    // A socket needs none.
    host.connect_at(&host.socket(), "sslmode=verify-full sslrootcert=/nonexistent").unwrap();
    // Roles that are let in only with TLS, or only without.
    host.speaks("sslmode=allow user=only_tls", true);
    host.fails("sslmode=disable user=only_tls", server, "pg_hba.conf");
    host.speaks("sslmode=prefer user=only_plain", false);
    host.fails("sslmode=require user=only_plain", server, "pg_hba.conf");
    host.fails("sslmode=prefer user=nobody", server, "with TLS");
    // What is believed.
    host.certify("other", &["x"], "Other CA", |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    host.speaks("sslmode=require sslrootcert=/nonexistent", true);
    host.speaks("sslmode=require sslrootcert=~/ca.pem", true);
    host.fails("sslmode=require sslrootcert=~/other.pem", server, "no authority that is believed");
    host.speaks("sslmode=prefer sslrootcert=~/other.pem", false);
    host.fails("sslmode=verify-ca sslrootcert=/nonexistent", config, "/nonexistent");
    host.fails("sslmode=verify-ca sslrootcert=~/good.key", config, "no certificate");
    host.fails("sslmode=verify-ca sslrootcert=~/other.pem", server, "no authority that is believed");
    host.speaks("sslmode=verify-ca sslrootcert=~/ca.pem host=wrong.test hostaddr=127.0.0.1", true);
    host.speaks("sslmode=verify-full sslrootcert=~/ca.pem", true);
    host.speaks("sslmode=verify-full sslrootcert=~/ca.pem host=127.0.0.1", true);
    host.fails("sslmode=verify-full sslrootcert=~/ca.pem host=wrong.test hostaddr=127.0.0.1", server, "not for wrong.test");
    host.fails("sslrootcert=system", server, "no authority that is believed");
    host.fails("sslmode=require sslrootcert=system", config, "sslrootcert=system");
    host.fails("sslmode=verify", config, "sslmode");
    // The second of two servers, where the first is nowhere.
    host.speaks("host=/nonexistent,127.0.0.1 sslmode=verify-full sslrootcert=~/ca.pem", true);
    // Passwords, from a file that is private, bound to the TLS connection.
    let line = format!("{NAME}:{}:*:with_password:{}\n", host.port, PASSWORD.replace('\\', "\\\\").replace(':', "\\:"));
    host.scratch.write(&host.path("pgpass"), line.as_bytes());
    host.speaks("user=with_password passfile=~/pgpass sslmode=require channel_binding=require", true);
    host.speaks("user=with_password passfile=~/pgpass sslmode=disable", false);
    host.fails("user=with_password passfile=~/pgpass sslmode=disable channel_binding=require", server, "channel");
    host.fails("user=with_password passfile=/nonexistent sslmode=disable", server, "password");
    // Certificates of clients.
    host.certify("client", &["c"], "with_certificate", |_| {});
    host.speaks("user=with_certificate sslmode=require sslcert=~/client.pem sslkey=~/client.key", true);
    host.fails("user=with_certificate sslmode=require", server, "certificate");
    host.fails("user=with_certificate sslmode=require sslcert=~/client.pem sslkey=/nonexistent", config, "/nonexistent");
    host.fails("user=with_certificate sslmode=require sslcert=/nonexistent", config, "/nonexistent");
    std::fs::set_permissions(host.path("client.key"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    host.fails("user=with_certificate sslmode=require sslcert=~/client.pem sslkey=~/client.key", config, "read by others");
}

#[test]
fn certificates_that_are_not_right_are_refused_where_that_matters() {
    let mut host = Host::new();
    host.start();
    let server = Kind::Server;
    host.certify("expired", &[NAME], NAME, |params| {
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    });
    host.present("expired");
    host.speaks("sslmode=require sslrootcert=/nonexistent", true);
    host.fails("sslmode=verify-ca sslrootcert=~/ca.pem", server, "expired");
    host.fails("sslmode=require sslrootcert=~/ca.pem", server, "expired");
    // As certificates were made for a long time.
    host.certify("subject", &[], NAME, |_| {});
    host.present("subject");
    host.speaks("sslmode=verify-full sslrootcert=~/ca.pem", true);
    host.fails("sslmode=verify-full sslrootcert=~/ca.pem host=wrong.test hostaddr=127.0.0.1", server, "not for wrong.test");
    // As `openssl req -x509` makes them.
    let of_authority = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    host.certify("self", &[NAME], NAME, of_authority);
    host.certify("imposter", &[NAME], NAME, of_authority);
    host.present("self");
    host.speaks("sslmode=verify-full sslrootcert=~/self.pem", true);
    host.fails("sslmode=verify-full sslrootcert=~/self.pem host=wrong.test hostaddr=127.0.0.1", server, "not for wrong.test");
    host.fails("sslmode=verify-full sslrootcert=~/imposter.pem", server, "certificate");
    host.fails("sslmode=verify-full sslrootcert=~/ca.pem", server, "certificate");
    // A server without TLS.
    let own = host.connect_at(&host.socket(), "").unwrap();
    own.rows("alter system set ssl = off").unwrap();
    host.reload("ssl", "off");
    host.speaks("", false);
    host.speaks("sslmode=allow", false);
    for mode in ["require", "verify-ca sslrootcert=~/ca.pem", "verify-full sslrootcert=~/ca.pem"] {
        host.fails(&format!("sslmode={mode}"), server, "does not support TLS");
    }
    host.fails("sslmode=allow user=only_tls", server, "TLS");
}

#[test]
fn a_statement_is_cancelled_over_tls_too() {
    let mut host = Host::new();
    host.start();
    let server = host.speaks("sslmode=verify-full sslrootcert=~/ca.pem user=only_tls", true);
    let own = host.connect_at(&host.socket(), "").unwrap();
    let count = "select count(*) from pg_stat_activity where state = 'active' and query like '%pg_sleep(600)%' and pid <> pg_backend_pid()";
    // In a thread of its own: it is asked by a runtime, and asks with another one.
    let sleeping = || std::thread::scope(|scope| scope.spawn(|| own.value(count).unwrap()).join().unwrap());
    let go_on = || match sleeping().as_str() {
        "0" => Ok(()),
        _ => Err(Error::new(Kind::Refused, "enough")),
    };
    assert_eq!(server.row_patiently("select pg_sleep(600)", &go_on).unwrap_err().what, "enough");
    assert!(poll(|| (own.value(count).unwrap() == "0").then_some(())).is_some(), "it sleeps on");
}
