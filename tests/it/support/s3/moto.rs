//! moto: an S3 server in Python with versions, object lock and access control, written by others than `s3s`.

use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Region};
use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
use tempfile::TempDir;
use walvis::store::s3::S3Settings;

use super::{ACCESS_KEY, REGION, SECRET_KEY, client_env, credentials};

/// How long Python may take to start.
const START_TIME: Duration = Duration::from_secs(60);

/// A moto server on a loopback port, killed when dropped.
pub struct Moto {
    child: Child,
    endpoint: String,
    dir: TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Moto {
    /// Starts a server.
    ///
    /// # Panics
    /// When moto is not installed: a test that can't run has failed.
    pub fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let mut child = Command::new(program())
            .args(["-H", "127.0.0.1", "-p", "0"])
            .env("PYTHONUNBUFFERED", "1")
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start moto_server ({e}): run tests/run.sh"));
        let stderr = child.stderr.take().unwrap();
        let (sender, receiver) = mpsc::channel();
        // It goes on reading until the server ends, so that the server never waits for its log to be read.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((_, url)) = line.split_once("Running on ") {
                    let _ = sender.send(url.trim().to_owned());
                }
            }
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut moto = Self { child, endpoint: String::new(), dir, runtime };
        moto.endpoint = receiver.recv_timeout(START_TIME).expect("moto_server says where it runs");
        moto.credentials_file("admin", ACCESS_KEY, SECRET_KEY);
        moto
    }

    fn credentials_file(&self, name: &str, access_key: &str, secret_key: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, credentials(access_key, secret_key)).unwrap();
        path
    }

    /// Settings of a store in `bucket`, as administrator.
    pub fn settings(&self, bucket: &str, prefix: &str) -> S3Settings {
        S3Settings {
            endpoint: Some(self.endpoint.clone()),
            region: Some(REGION.to_owned()),
            profile: Some("default".to_owned()),
            credentials_file: Some(self.dir.path().join("admin")),
            path_style: true,
            ..S3Settings::parse_url(&format!("s3://{bucket}/{prefix}")).unwrap()
        }
    }

    /// What a `walvis` process needs in its environment to use this server, as administrator.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        client_env(&self.endpoint, ACCESS_KEY, SECRET_KEY)
    }

    /// Makes a request with the SDK, as administrator.
    pub fn admin<T, F: Future<Output = T>>(&self, request: impl FnOnce(Client) -> F) -> T {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&self.endpoint)
            .region(Region::new(REGION))
            .force_path_style(true)
            .credentials_provider(aws_sdk_s3::config::Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test"))
            .build();
        self.runtime.block_on(request(Client::from_conf(config)))
    }

    pub fn create_bucket(&self, name: &str, object_lock: bool) {
        let place = CreateBucketConfiguration::builder().location_constraint(BucketLocationConstraint::from(REGION)).build();
        self.admin(|client| {
            client
                .create_bucket()
                .bucket(name)
                .create_bucket_configuration(place)
                .object_lock_enabled_for_bucket(object_lock)
                .send()
        })
        .unwrap();
    }

    /// Makes a user who may do what `statements` (of an IAM policy) say, checks every request from now on, and returns
    /// the settings of a store as that user.
    pub fn restrict(&self, bucket: &str, prefix: &str, statements: &str) -> S3Settings {
        let policy = format!("{{\"Version\":\"2012-10-17\",\"Statement\":[{statements}]}}");
        self.iam("Action=CreateUser&UserName=walvis");
        self.iam(&format!("Action=PutUserPolicy&UserName=walvis&PolicyName=walvis&PolicyDocument={}", percent(&policy)));
        let answer = self.iam("Action=CreateAccessKey&UserName=walvis");
        let field = |name: &str| {
            let (_, rest) = answer.split_once(&format!("<{name}>")).unwrap();
            rest.split_once('<').unwrap().0.to_owned()
        };
        let file = self.credentials_file("walvis", &field("AccessKeyId"), &field("SecretAccessKey"));
        self.post("/moto-api/reset-auth", "text/plain", "0");
        S3Settings { credentials_file: Some(file), ..self.settings(bucket, prefix) }
    }

    fn iam(&self, form: &str) -> String {
        self.post("/", "application/x-www-form-urlencoded", &format!("{form}&Version=2010-05-08"))
    }

    /// Moto tells the service from the signature's scope, and does not look at the signature before it is told to.
    fn post(&self, path: &str, content_type: &str, body: &str) -> String {
        let host = self.endpoint.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(host).unwrap();
        stream.set_read_timeout(Some(START_TIME)).unwrap();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: {content_type}\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/20260101/us-east-1/iam/aws4_request, \
             SignedHeaders=host, Signature=00\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `WALVIS_TEST_MOTO` or `target/test-tools/moto` is where tests/run.sh installed it.
fn program() -> PathBuf {
    let dir = std::env::var_os("WALVIS_TEST_MOTO")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/moto"), PathBuf::from);
    dir.join("bin/moto_server")
}

fn percent(text: &str) -> String {
    text.bytes().map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
