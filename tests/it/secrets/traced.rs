//! What a push, a fetch, a backup and a restore really do, as `strace` sees it: no secret is in an argument, in the
//! environment of anybody who does not need it, or in anything that is written, sent or stored.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use walvis::format::descriptor::{Descriptor, KeyObject};
use walvis::limits::MIB;

use crate::pitr::Site as Host;
use crate::recovery::Archive;
use crate::support::command::{self, DESTINATION, Ran, Site, WALVIS, files_below};
use crate::support::postgres::Scratch;
use crate::support::s3::{S3Server, SECRET_KEY};
use crate::support::segment::{Content, Segment};

const CALLS: &str = "trace=execve,execveat,write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,sendmmsg,symlink,symlinkat,setxattr,fsetxattr,mkdirat,openat";
const PASSPHRASE: &str = "correct-horse-battery-staple";

/// Secrets by name, in the forms in which they could show up.
struct Secrets(Vec<(String, Vec<u8>)>);

impl Secrets {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn text(mut self, name: &str, text: &str) -> Self {
        self.0.push((name.to_owned(), text.as_bytes().to_vec()));
        self
    }

    fn key(mut self, name: &str, key: &[u8; 32]) -> Self {
        for (form, bytes) in [
            ("raw", key.to_vec()),
            ("hexadecimal", hex::encode(key).into_bytes()),
            ("upper-case hexadecimal", hex::encode_upper(key).into_bytes()),
        ] {
            self.0.push((format!("{name}, {form}"), bytes));
        }
        self
    }

    /// The key in a key file, and the data key that it opens.
    fn of_key_file(self, text: &str, sealed: &Sealed) -> Self {
        let line = text.lines().find_map(|line| line.strip_prefix("walvis-key-1:")).unwrap();
        let mut key = [0; 32];
        hex::decode_to_slice(line.split(':').next().unwrap(), &mut key).unwrap();
        self.key("wrapping key", &key).key("data key", &data_key(&key, sealed))
    }

    fn of_passphrase(self, passphrase: &str, sealed: &Sealed) -> Self {
        let argon2id = sealed.key.argon2id.as_ref().unwrap();
        let params = Params::new(argon2id.memory_kib, argon2id.passes, argon2id.lanes, Some(32)).unwrap();
        let mut key = [0; 32];
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon2.hash_password_into(passphrase.as_bytes(), &argon2id.salt, &mut key).unwrap();
        self.text("passphrase", passphrase).key("wrapping key", &key).key("data key", &data_key(&key, sealed))
    }

    /// The names of those that are in there.
    fn found_in(&self, bytes: &[u8]) -> Vec<&str> {
        let is_in = |secret: &[u8]| {
            let mut rest = bytes;
            // Looked for by their first byte: there may be a lot to look through.
            while let Some(at) = rest.iter().position(|byte| *byte == secret[0]) {
                rest = &rest[at..];
                if rest.starts_with(secret) {
                    return true;
                }
                rest = &rest[1..];
            }
            false
        };
        self.0.iter().filter(|(_, secret)| is_in(secret)).map(|(name, _)| name.as_str()).collect()
    }

    /// No file below a directory holds one, but those that are meant to.
    #[track_caller]
    fn are_not_below(&self, dir: &Path, but: &[&Path]) {
        for path in files_below(dir).into_iter().filter(|path| !but.contains(&path.as_path()) && path.is_file()) {
            let found = self.found_in(&fs::read(&path).unwrap());
            assert!(found.is_empty(), "{} holds: {found:?}", path.display());
        }
    }
}

/// As docs/FORMAT.md says.
fn data_key(wrapping: &[u8; 32], Sealed { descriptor, key: object }: &Sealed) -> [u8; 32] {
    let cipher = ChaCha20Poly1305::new((&blake3::derive_key("walvis 1 key wrapping", wrapping)).into());
    let associated = KeyObject::associated(descriptor, object.key_id, object.generation);
    let mut key: [u8; 32] = object.wrapped.sealed[..32].try_into().unwrap();
    let tag: [u8; 16] = object.wrapped.sealed[32..].try_into().unwrap();
    cipher
        .decrypt_inout_detached(&object.wrapped.nonce.into(), &associated, key.as_mut_slice().into(), (&tag).into())
        .expect("the key object opens");
    key
}

/// What a repository holds of its key.
struct Sealed {
    descriptor: Descriptor,
    key: KeyObject,
}

fn sealed(repository: &Path) -> Sealed {
    let keys = files_below(&repository.join("keys"));
    assert_eq!(keys.len(), 1, "{keys:?}");
    let descriptor = Descriptor::parse(&fs::read(repository.join("walvis.json")).unwrap()).unwrap();
    Sealed { descriptor, key: KeyObject::parse(&fs::read(&keys[0]).unwrap()).unwrap() }
}

/// A program that was run.
struct Exec {
    program: String,
    arguments: Vec<Vec<u8>>,
    environment: Vec<Vec<u8>>,
}

impl Exec {
    fn is_walvis(&self) -> bool {
        // Helpers are started through /proc/self/exe's target.
        self.program.ends_with("/walvis")
    }

    fn has(&self, name: &str) -> bool {
        self.environment.iter().any(|variable| variable.starts_with(format!("{name}=").as_bytes()))
    }
}

/// What `strace` saw.
struct Trace {
    execs: Vec<Exec>,
    /// What was written by Walvis and PostgreSQL; what an operator's command prints is its own business.
    writes: Vec<Vec<u8>>,
}

impl Trace {
    fn read(log: &Path) -> Self {
        let text = fs::read_to_string(log).unwrap();
        let (mut execs, mut writes) = (Vec::new(), Vec::new());
        let mut own = BTreeMap::new();
        for line in text.lines() {
            let Some((thread, rest)) = line.split_once(' ') else { continue };
            let Some((call, arguments)) = rest.trim_start().split_once('(') else { continue };
            let strings = strings(arguments);
            if !call.starts_with("exec") {
                if *own.get(thread).unwrap_or(&true) {
                    writes.extend(strings);
                }
                continue;
            }
            // Where another thread came between, the result is in a later line; one that failed does no harm here.
            if !["= 0", "<unfinished ...>"].iter().any(|end| line.trim_end().ends_with(end)) {
                continue;
            }
            // execve("program", ["argument", …], ["variable", …]) = 0
            let (front, environment) = arguments.rsplit_once("], [").unwrap_or((arguments, ""));
            let mut front = self::strings(front).into_iter();
            let program = String::from_utf8_lossy(&front.next().unwrap()).into_owned();
            let exec = Exec { program, arguments: front.collect(), environment: self::strings(environment) };
            own.insert(thread.to_owned(), exec.is_walvis() || exec.program.ends_with("/postgres"));
            execs.push(exec);
        }
        assert!(execs.iter().any(Exec::is_walvis) && writes.len() > 5, "strace saw nothing of it");
        Self { execs, writes }
    }

    /// Nothing that was written holds a secret, nor any argument; and of environments only those that may.
    #[track_caller]
    fn keeps(&self, secrets: &Secrets, may_have: impl Fn(&Exec) -> bool) {
        for write in &self.writes {
            let found = secrets.found_in(write);
            assert!(found.is_empty(), "written: {found:?} in {}", String::from_utf8_lossy(write));
        }
        for exec in &self.execs {
            let found = secrets.found_in(&exec.arguments.join(&0));
            assert!(found.is_empty(), "an argument of {} is: {found:?}", exec.program);
            if !may_have(exec) {
                let found = secrets.found_in(&exec.environment.join(&0));
                assert!(found.is_empty(), "in the environment of {}: {found:?}", exec.program);
            }
        }
    }
}

/// The strings of a line, all of whose bytes are `\x41`.
fn strings(text: &str) -> Vec<Vec<u8>> {
    let quoted = text.split('"').skip(1).step_by(2);
    quoted.map(|digits| hex::decode(digits.replace("\\x", "")).unwrap_or_else(|e| panic!("{digits}: {e}"))).collect()
}

/// Runs the program under `strace`.
fn traced(site: &Site, arguments: &[&str]) -> (Ran, Trace) {
    let log = site.path("strace.log");
    let wrapper = ["strace", "-f", "-v", "-xx", "-s", "65536", "-o", log.to_str().unwrap(), "-e", CALLS, WALVIS];
    let mut command = site.wrapped(wrapper, arguments);
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let ran = command::run(&mut command).exits(0);
    let trace = Trace::read(&log);
    fs::remove_file(log).unwrap();
    (ran, trace)
}

/// Pushes two segments, the second one through a helper, and fetches the first.
fn push_and_fetch(site: &Site, secrets: &Secrets, may_have: impl Fn(&Exec) -> bool) -> Vec<Exec> {
    let names: Vec<String> =
        (1..3).map(|number| site.make(&Segment::new(number).sized(MIB).holding(Content::Records(number)))).collect();
    fs::create_dir_all(site.data().join("pg_wal/archive_status")).unwrap();
    for name in &names {
        fs::write(site.data().join(format!("pg_wal/archive_status/{name}.ready")), "").unwrap();
    }
    let mut execs = Vec::new();
    for arguments in [vec!["-vv", "push-wal", &format!("pg_wal/{}", names[0])], vec!["-vv", "fetch-wal", &names[0], DESTINATION]]
    {
        let (ran, trace) = traced(site, &arguments);
        trace.keeps(secrets, &may_have);
        assert_eq!(secrets.found_in(format!("{ran:?}").as_bytes()), Vec::<&str>::new());
        execs.extend(trace.execs);
    }
    assert!(execs.iter().any(|exec| exec.arguments.iter().any(|argument| argument == b"--ahead")), "no helper was started");
    execs
}

#[test]
fn a_push_and_a_fetch_with_a_key_file() {
    let site = Site::new();
    let key = site.path("key");
    let secrets = Secrets::new().of_key_file(&fs::read_to_string(&key).unwrap(), &sealed(&site.repository()));
    push_and_fetch(&site, &secrets, |_| false);
    secrets.are_not_below(site.dir(), &[&key]);
}

#[test]
fn a_push_and_a_fetch_with_a_passphrase() {
    let mut site = Site::without_repository();
    site.unset("WALVIS_KEY_FILE");
    site.set("WALVIS_PASSPHRASE", PASSPHRASE);
    site.set("PGPASSWORD", "another-secret-of-the-host");
    site.init();
    let secrets = Secrets::new().of_passphrase(PASSPHRASE, &sealed(&site.repository()));
    // A helper does what the call does, and needs what the call needs.
    push_and_fetch(&site, &secrets, Exec::is_walvis);
    secrets.are_not_below(site.dir(), &[]);
}

#[test]
fn a_push_and_a_fetch_with_a_key_command() {
    let mut site = Site::new();
    let key = site.path("key");
    let secrets = Secrets::new().of_key_file(&fs::read_to_string(&key).unwrap(), &sealed(&site.repository()));
    let secrets = secrets.text("password", "password-of-a-server");
    site.unset("WALVIS_KEY_FILE");
    site.set("WALVIS_KEY_COMMAND", format!("cat '{}'", key.display()));
    site.set("PGPASSWORD", "password-of-a-server");
    let execs = push_and_fetch(&site, &secrets, Exec::is_walvis);
    assert!(execs.iter().any(|exec| exec.program.ends_with("/cat")), "the key command was not seen");
    secrets.are_not_below(site.dir(), &[&key]);
}

#[test]
fn a_push_and_a_fetch_over_s3() {
    let server = S3Server::start();
    let site = Site::on_s3(&server);
    let key = site.path("key");
    let objects = server.objects("pg/keys/");
    let descriptor = Descriptor::parse(&server.objects("pg/walvis.json")["pg/walvis.json"]).unwrap();
    let object = Sealed { descriptor, key: KeyObject::parse(objects.values().next().unwrap()).unwrap() };
    let secrets = Secrets::new().of_key_file(&fs::read_to_string(&key).unwrap(), &object);
    let secrets = secrets.text("secret access key", SECRET_KEY);
    // Plain HTTP: what is sent is seen.
    push_and_fetch(&site, &secrets, Exec::is_walvis);
    for (name, body) in server.objects("") {
        assert_eq!(secrets.found_in(&body), Vec::<&str>::new(), "{name}");
    }
    for request in server.log() {
        assert_eq!(secrets.found_in(format!("{request:?}").as_bytes()), Vec::<&str>::new());
    }
    secrets.are_not_below(site.dir(), &[&key]);
}

#[test]
fn a_key_is_written_into_its_file_and_nowhere_else() {
    let site = Site::bare();
    let path = site.path("new.key");
    let (ran, trace) = traced(&site, &["-vv", "key", "generate", path.to_str().unwrap()]);
    let text = fs::read_to_string(&path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("walvis-key-1:")).unwrap();
    let digits = line.split(':').next().unwrap();
    let secrets = Secrets::new().text("key", digits);
    assert_eq!(trace.writes.iter().filter(|write| !secrets.found_in(write).is_empty()).count(), 1);
    assert_eq!(secrets.found_in(format!("{ran:?}").as_bytes()), Vec::<&str>::new());
}

/// The whole way with a server: the repository has a passphrase, which the restored server needs; credentials of a
/// cloud and a password are in the environment too, and nobody needs them.
#[test]
fn a_backup_and_a_restore() {
    let scratch = Scratch::new();
    let directory = scratch.path().join("repository");
    let walvis = scratch.walvis();
    let mut env: Vec<(String, String)> = vec![
        ("WALVIS_REPOSITORY".to_owned(), format!("file://{}", directory.display())),
        ("WALVIS_PASSPHRASE".to_owned(), PASSPHRASE.to_owned()),
    ];
    let ran = command::run(scratch.command(&walvis).arg("init").envs(env.iter().map(|(n, v)| (n, v))));
    ran.exits(0);
    let archive = Archive {
        archive_command: format!("'{}' push-wal %p", walvis.display()),
        restore_command: String::new(),
        env: env.clone(),
        directory: directory.clone(),
    };
    let mut host = Host::with(scratch, archive, Vec::new());
    let mut primary = host.primary(15);
    primary.sql("create table t as select 1 as i");
    env.push(("AWS_SECRET_ACCESS_KEY".to_owned(), SECRET_KEY.to_owned()));
    env.push(("AWS_ACCESS_KEY_ID".to_owned(), "AKIAX".to_owned()));
    env.push(("PGPASSWORD".to_owned(), "password-of-a-server".to_owned()));
    env.push(("UNRELATED".to_owned(), "unrelated-secret".to_owned()));
    host.archive.env = env;
    let passphrase = Secrets::new().of_passphrase(PASSPHRASE, &sealed(&directory));
    let others = Secrets::new()
        .text("secret access key", SECRET_KEY)
        .text("password", "password-of-a-server")
        .text("unrelated", "unrelated-secret");
    let is_first = |trace: &Trace, exec: &Exec| std::ptr::eq(exec, &trace.execs[0]);

    let (ran, trace) = traced_host(&host, &Host::backup_arguments(&primary, &[]));
    trace.keeps(&passphrase, Exec::is_walvis);
    trace.keeps(&others, |exec| is_first(&trace, exec));
    for secrets in [&passphrase, &others] {
        assert_eq!(secrets.found_in(format!("{ran:?}").as_bytes()), Vec::<&str>::new());
        secrets.are_not_below(&directory, &[]);
    }
    let target = primary.sql("select pg_current_wal_insert_lsn()");
    primary.sql("insert into t select 2");
    primary.switch_and_archive();
    drop(primary);

    let restored = host.place("restored");
    let arguments = [
        "--json",
        "pitr-restore",
        "--pgdata",
        restored.to_str().unwrap(),
        "--target-lsn",
        &target,
        "--start",
        "--target-action",
        "shutdown",
    ];
    let bin = host.scratch.reachable_postgres(&crate::support::postgres::Postgres::find(15)).home.join("bin");
    let arguments = [&arguments[..], &["--bin-dir", bin.to_str().unwrap()]].concat();
    let (ran, trace) = traced_host(&host, &arguments.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["server"]["environment_variables"], serde_json::json!(["WALVIS_PASSPHRASE"]));
    assert!(ran.stderr.contains("the server has WALVIS_PASSPHRASE from this environment"), "{}", ran.stderr);
    // The server has it for its restore_command, and so have the shells between them; who is asked for a version has
    // not.
    let is_asked = |exec: &Exec| exec.arguments.iter().any(|argument| argument == b"--version" || argument == b"--bindir");
    assert!(trace.execs.iter().any(is_asked), "nobody was asked for a version");
    trace.keeps(&passphrase, |exec| !is_asked(exec));
    trace.keeps(&others, |exec| is_first(&trace, exec));
    let is_server = |exec: &&Exec| exec.program.ends_with("/postgres") && exec.arguments.iter().any(|argument| argument == b"-D");
    let server = trace.execs.iter().find(is_server).expect("the server was started");
    assert_eq!(passphrase.found_in(&server.environment.join(&0)), ["passphrase"]);
    assert!(server.has("HOME") && server.has("PATH") && !server.has("UNRELATED"));
    for secrets in [&passphrase, &others] {
        assert_eq!(secrets.found_in(format!("{ran:?}").as_bytes()), Vec::<&str>::new());
        // Of what is in `base`, tables and all, the beginnings were seen when they were written.
        for below in ["global", "pg_wal", "pg_tblspc"] {
            secrets.are_not_below(&restored.join(below), &[]);
        }
        for name in command::names_in(&restored).into_iter().filter(|name| restored.join(name).is_file()) {
            assert_eq!(secrets.found_in(&fs::read(restored.join(&name)).unwrap()), Vec::<&str>::new(), "{name}");
        }
    }
}

/// The same as the server's user.
fn traced_host(host: &Host, arguments: &[String]) -> (Ran, Trace) {
    let log: PathBuf = host.scratch.path().join("strace.log");
    host.scratch.write(&log, b"");
    let mut command = host.scratch.command(Path::new("strace"));
    command.args(["-f", "-v", "-xx", "-s", "512", "-o"]).arg(&log).args(["-e", CALLS]);
    command.arg(host.scratch.walvis()).args(arguments);
    command.envs(host.archive.env.iter().map(|(name, value)| (name, value)));
    let ran = command::run(&mut command).exits(0);
    let trace = Trace::read(&log);
    (ran, trace)
}
