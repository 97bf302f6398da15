//! Processes: what the environment says, what a killed one leaves, how much memory one takes. The other process is this
//! very test binary, running [`child`] alone.

use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use walvis::limits::{MIB, PART_BYTES};
use walvis::store::s3::S3Settings;
use walvis::store::{Created, ErrorKind, Store};

use super::{create, id, key, noise, read_all, refuses};
use crate::support::s3::{Action, Op, S3Server, open};

/// Parts of the object that a child uploads to be killed meanwhile.
const PARTS: usize = 3;

fn command(server: &S3Server, task: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "store_s3::processes::child", "--ignored", "--nocapture", "--test-threads=1"])
        .env("WALVIS_TEST_CHILD", task)
        .env("WALVIS_TEST_CHILD_URL", server.url("pg"))
        .envs(server.env())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// What a child said on its `child:` line.
fn said(output: &Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    let (_, line) = stdout.split_once("child: ").unwrap_or_else(|| panic!("it said nothing: {stdout}"));
    line.lines().next().unwrap().to_owned()
}

#[test]
#[ignore = "the other tests run it as a process of its own"]
fn child() {
    let task = std::env::var("WALVIS_TEST_CHILD").expect("run by other tests");
    let url = std::env::var("WALVIS_TEST_CHILD_URL").unwrap();
    let mut settings = S3Settings { path_style: true, ..S3Settings::parse_url(&url).unwrap() };
    settings.endpoint = std::env::var("WALVIS_S3_ENDPOINT").ok();
    settings.ca_file = std::env::var_os("WALVIS_S3_CA_FILE").map(Into::into);
    let store = open(settings);
    let answer = match task.split(' ').collect::<Vec<_>>()[..] {
        ["create", name, body] => match create(&store, name, body.as_bytes()) {
            Ok(created) => format!("{created:?}"),
            Err(error) => format!("{:?}: {error} ({})", error.kind, error.hint.clone().unwrap_or_default()),
        },
        ["upload", name, parts] => {
            let mut upload = store.begin(&key(name), &id(b"")).unwrap();
            for n in 0..parts.parse().unwrap() {
                upload.part(part(n)).unwrap();
            }
            let created = upload.complete().unwrap();
            format!("{created:?} {}", peak_memory_kib())
        }
        _ => panic!("unknown task {task}"),
    };
    println!("child: {answer}");
}

fn part(n: u64) -> Bytes {
    noise(PART_BYTES, n).into()
}

fn peak_memory_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn everything_can_come_from_the_environment() {
    let server = S3Server::start();
    let endpoint = server.endpoint();
    for (n, name) in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"].into_iter().enumerate() {
        let mut command = command(&server, &format!("create env{n} x"));
        // Without a region: there is an endpoint, so any will do.
        command.env_remove("WALVIS_S3_ENDPOINT").env_remove("AWS_REGION").env(name, &endpoint);
        assert_eq!(said(&command.output().unwrap()), "New", "{name}");
        assert_eq!(server.objects("").remove(&format!("pg/env{n}")).unwrap(), b"x");
    }
    let tls = S3Server::start_tls();
    assert_eq!(said(&command(&tls, "create a x").output().unwrap()), "New");
}

#[test]
fn without_credentials_or_region_it_says_so() {
    let server = S3Server::start();
    let mut none = command(&server, "create a x");
    none.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    let answer = said(&none.output().unwrap());
    assert!(answer.starts_with("Denied: ") && answer.contains("no credentials found"), "{answer}");
    let mut nowhere = command(&server, "create a x");
    nowhere.env_remove("WALVIS_S3_ENDPOINT").env_remove("AWS_REGION").env_remove("AWS_DEFAULT_REGION");
    let answer = said(&nowhere.output().unwrap());
    assert!(answer.starts_with("NoSuchPlace: ") && answer.contains("AWS_REGION"), "{answer}");
    assert!(server.log().is_empty());
}

#[test]
fn two_processes_create_the_same_object() {
    let server = S3Server::start();
    // Both requests are held until both are there.
    let both = Arc::new(std::sync::Barrier::new(2));
    server.hook(move |_| {
        let both = Arc::clone(&both);
        Action::Before(Box::new(move || {
            both.wait();
        }))
    });
    let children: Vec<Child> =
        ["one", "two"].iter().map(|body| command(&server, &format!("create a {body}")).spawn().unwrap()).collect();
    let mut answers: Vec<String> = children.into_iter().map(|c| said(&c.wait_with_output().unwrap())).collect();
    answers.sort();
    assert_eq!(answers, ["Exists", "New"]);
    assert_eq!(server.objects("").len(), 1);
}

/// When a child is killed, seen from the server.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// The request has begun to arrive.
    AtHead,
    /// The request has arrived and is served all the same.
    BeforeServing,
    /// The request has been served and the answer not yet sent.
    AfterServing,
}

#[test]
fn a_killed_process_leaves_all_or_nothing() {
    let expected: Vec<u8> = (0..PARTS as u64).flat_map(part).collect();
    for (op, nth, moment, there) in [
        (Op::BeginUpload, 0, Moment::AfterServing, false),
        (Op::Part, 1, Moment::AtHead, false),
        (Op::Part, 1, Moment::AfterServing, false),
        (Op::Part, PARTS - 1, Moment::AfterServing, false),
        (Op::Complete, 0, Moment::BeforeServing, true),
        (Op::Complete, 0, Moment::AfterServing, true),
    ] {
        let server = S3Server::start();
        let victim: Arc<Mutex<Option<Child>>> = Arc::default();
        let hooked = Arc::clone(&victim);
        server.hook(move |seen| {
            if (seen.op, seen.nth) != (op, nth) {
                return Action::Pass;
            }
            let victim = Arc::clone(&hooked);
            let kill = Box::new(move || {
                let mut child = victim.lock().unwrap().take().unwrap();
                child.kill().unwrap();
                child.wait().unwrap();
            });
            match moment {
                Moment::AtHead => Action::AtHead(kill),
                Moment::BeforeServing => Action::Before(kill),
                Moment::AfterServing => Action::After(kill),
            }
        });
        let what = format!("{op:?} {nth} {moment:?}");
        // Held while the child is started, so that the server finds it there.
        {
            let mut slot = victim.lock().unwrap();
            *slot = Some(command(&server, &format!("upload a {PARTS}")).spawn().unwrap());
        }
        super::eventually(&what, || victim.lock().unwrap().is_none());
        server.unhook();
        let store = server.store("pg");
        if there {
            super::eventually(&what, || read_all(&store, "a").is_ok());
        } else {
            refuses(read_all(&store, "a"), ErrorKind::NotFound, "", "");
        }
        let mut upload = store.begin(&key("a"), &id(b"")).unwrap();
        for n in 0..PARTS as u64 {
            upload.part(part(n)).unwrap();
        }
        assert_eq!(upload.complete().unwrap(), if there { Created::Exists } else { Created::New }, "{what}");
        assert!(read_all(&store, "a").unwrap() == expected, "{what}");
    }
}

#[test]
fn memory_is_bounded_by_parts() {
    let server = S3Server::start();
    let peak = |parts: usize| {
        let answer = said(&command(&server, &format!("upload a{parts} {parts}")).output().unwrap());
        answer.strip_prefix("New ").unwrap().parse::<usize>().unwrap() / 1024
    };
    let (few, many) = (peak(2), peak(24));
    let part = PART_BYTES / MIB;
    assert!(many <= few + 2 * part, "2 parts took {few} MiB, 24 parts {many} MiB");
}
