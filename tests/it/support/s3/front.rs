//! The HTTP server in front of the buckets: it logs every request and lets a test decide what becomes of it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use s3s::service::S3Service;

use super::bucket::IgnoreCondition;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    Put,
    Get,
    List,
    ListVersions,
    Delete,
    DeleteMany,
    BeginUpload,
    Part,
    Complete,
    Abort,
    ListUploads,
    ListParts,
    /// The settings of the bucket.
    Settings,
    Other,
}

impl Op {
    fn of(method: &str, query: &str) -> Self {
        let has = |name: &str| query.split('&').any(|p| p.split('=').next() == Some(name));
        match method {
            "PUT" if has("partNumber") => Self::Part,
            "PUT" => Self::Put,
            "GET" if has("list-type") => Self::List,
            "GET" if has("uploads") => Self::ListUploads,
            "GET" if has("uploadId") => Self::ListParts,
            "GET" if has("versions") => Self::ListVersions,
            "GET" if has("object-lock") || has("versioning") => Self::Settings,
            "GET" => Self::Get,
            "POST" if has("uploads") => Self::BeginUpload,
            "POST" if has("uploadId") => Self::Complete,
            "POST" if has("delete") => Self::DeleteMany,
            "DELETE" if has("uploadId") => Self::Abort,
            "DELETE" => Self::Delete,
            _ => Self::Other,
        }
    }
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// How many came before it.
    pub ordinal: usize,
    /// How many of the same kind came before it.
    pub nth: usize,
    pub op: Op,
    pub method: String,
    /// `/bucket/key`.
    pub path: String,
    pub query: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What becomes of a request.
pub enum Action {
    /// It is served.
    Pass,
    /// It is served after a while.
    Delay(Duration),
    /// It is never answered, and not served.
    Hang,
    /// It is served, but never answered.
    ServeAndHang,
    /// It is not served, but answered so.
    Answer { status: u16, content_type: &'static str, body: String },
    /// The connection is closed when the request has arrived; it is not served.
    Cut,
    /// It is served, and the connection closed instead of an answer.
    ServeAndCut,
    /// It is served, and the connection closed after so many bytes of the answer's body.
    Truncate(usize),
    /// It is served, the answer's body ends after so many bytes, and the connection stays open in silence.
    Stall(usize),
    /// It is served, and the answer changed.
    Alter(Alteration),
    /// Something is done when its head has arrived, before its body is read; then it is served.
    AtHead(Box<dyn FnOnce() + Send>),
    /// Something is done when it has arrived; then it is served.
    Before(Box<dyn FnOnce() + Send>),
    /// Something is done when it has been served; then it is answered.
    After(Box<dyn FnOnce() + Send>),
}

impl Action {
    /// Answers as S3 does when it refuses.
    pub fn s3_error(status: u16, code: &str, message: &str) -> Self {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>\
             <RequestId>4442587FB7D0A2F9</RequestId></Error>"
        );
        Self::Answer { status, content_type: "application/xml", body }
    }

    /// Answers as a proxy or portal does.
    pub fn html(status: u16) -> Self {
        let body = "<!DOCTYPE html><html><head><title>Sorry</title></head><body>We are sorry.</body></html>".to_owned();
        Self::Answer { status, content_type: "text/html", body }
    }
}

/// Changes headers and body of an answer.
pub type Alteration = Box<dyn FnOnce(&mut HeaderMap, Bytes) -> Bytes + Send>;

type Hook = Arc<dyn Fn(&Seen) -> Action + Send + Sync>;

/// State shared by all connections of a server.
pub struct Front {
    service: S3Service,
    hook: Mutex<Option<Hook>>,
    log: Mutex<Vec<Seen>>,
    latency_ms: AtomicU64,
    ignores_conditions: AtomicBool,
    in_flight: AtomicUsize,
    peak_in_flight: AtomicUsize,
}

/// Counts a request while it is being served.
struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Front {
    pub fn new(service: S3Service) -> Self {
        Self {
            service,
            hook: Mutex::new(None),
            log: Mutex::new(Vec::new()),
            latency_ms: AtomicU64::new(0),
            ignores_conditions: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            peak_in_flight: AtomicUsize::new(0),
        }
    }

    pub fn set_hook(&self, hook: Option<Hook>) {
        *self.hook.lock().unwrap() = hook;
    }

    pub fn set_latency(&self, latency: Duration) {
        self.latency_ms.store(latency.as_millis().try_into().unwrap(), Ordering::SeqCst);
    }

    pub fn set_ignores_conditions(&self, ignores: bool) {
        self.ignores_conditions.store(ignores, Ordering::SeqCst);
    }

    pub fn log(&self) -> Vec<Seen> {
        self.log.lock().unwrap().clone()
    }

    pub fn clear(&self) {
        self.log.lock().unwrap().clear();
        self.peak_in_flight.store(0, Ordering::SeqCst);
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    pub fn peak_in_flight(&self) -> usize {
        self.peak_in_flight.load(Ordering::SeqCst)
    }

    fn note(&self, request: &Request<Incoming>) -> Seen {
        let uri = request.uri();
        let method = request.method().to_string();
        let query = uri.query().unwrap_or_default().to_owned();
        let op = Op::of(&method, &query);
        let headers = request
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let mut log = self.log.lock().unwrap();
        let nth = log.iter().filter(|seen| seen.op == op).count();
        let seen = Seen { ordinal: log.len(), nth, op, method, path: uri.path().to_owned(), query, headers };
        log.push(seen.clone());
        seen
    }

    /// Serves one request, to its end even if the client is gone meanwhile: what has arrived at a store is done. An
    /// error closes the connection without an answer.
    pub async fn serve(self: Arc<Self>, request: Request<Incoming>) -> io::Result<Response<Scripted>> {
        tokio::spawn(self.follow_script(request)).await.map_err(io::Error::other)?
    }

    async fn follow_script(self: Arc<Self>, request: Request<Incoming>) -> io::Result<Response<Scripted>> {
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        let _in_flight = InFlight(&self.in_flight);
        self.peak_in_flight.fetch_max(now, Ordering::SeqCst);
        let seen = self.note(&request);
        let hook = self.hook.lock().unwrap().clone();
        let mut action = hook.map_or(Action::Pass, |hook| hook(&seen));
        if let Action::AtHead(act) = action {
            run(act).await;
            action = Action::Pass;
        }
        let (mut parts, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        tokio::time::sleep(Duration::from_millis(self.latency_ms.load(Ordering::SeqCst))).await;
        match action {
            Action::Delay(time) => {
                tokio::time::sleep(time).await;
                action = Action::Pass;
            }
            Action::Hang => std::future::pending::<Infallible>().await.never(),
            Action::Answer { status, content_type, body } => {
                let mut response = Response::new(Scripted::whole(body.into()));
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
                return Ok(response);
            }
            Action::Cut => return Err(cut()),
            Action::Before(act) => {
                run(act).await;
                action = Action::Pass;
            }
            _ => {}
        }
        if self.ignores_conditions.load(Ordering::SeqCst) {
            parts.extensions.insert(IgnoreCondition);
        }
        let request = Request::from_parts(parts, s3s::Body::http_body(Full::new(body)));
        let response = self.service.call(request).await.map_err(|e| io::Error::other(format!("{e:?}")))?;
        let (mut parts, body) = response.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let body = match action {
            Action::ServeAndCut => return Err(cut()),
            Action::ServeAndHang => std::future::pending::<Infallible>().await.never(),
            Action::Truncate(len) => {
                parts.headers.insert(CONTENT_LENGTH, body.len().into());
                Scripted { data: Some(body.slice(..len.min(body.len()))), end: End::Cut }
            }
            Action::Stall(len) => {
                parts.headers.insert(CONTENT_LENGTH, body.len().into());
                Scripted { data: Some(body.slice(..len.min(body.len()))), end: End::Silence }
            }
            Action::Alter(alter) => {
                parts.headers.remove(CONTENT_LENGTH);
                Scripted::whole(alter(&mut parts.headers, body))
            }
            Action::After(act) => {
                run(act).await;
                Scripted::whole(body)
            }
            _ => Scripted::whole(body),
        };
        Ok(Response::from_parts(parts, body))
    }
}

/// Runs what may block (killing a process and waiting for its end) off the server's threads.
async fn run(act: Box<dyn FnOnce() + Send>) {
    tokio::task::spawn_blocking(act).await.unwrap();
}

fn cut() -> io::Error {
    io::Error::other("the script says: cut the connection")
}

trait Never {
    fn never<T>(self) -> T;
}

impl Never for Infallible {
    fn never<T>(self) -> T {
        match self {}
    }
}

/// The body of an answer, and how it ends.
pub struct Scripted {
    data: Option<Bytes>,
    end: End,
}

enum End {
    Whole,
    Cut,
    Silence,
}

impl Scripted {
    fn whole(data: Bytes) -> Self {
        Self { data: Some(data), end: End::Whole }
    }
}

impl hyper::body::Body for Scripted {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match (self.data.take().filter(|d| !d.is_empty()), &self.end) {
            (Some(data), _) => Poll::Ready(Some(Ok(Frame::data(data)))),
            (None, End::Whole) => Poll::Ready(None),
            (None, End::Cut) => Poll::Ready(Some(Err(cut()))),
            (None, End::Silence) => Poll::Pending,
        }
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match (&self.data, &self.end) {
            (data, End::Whole) => hyper::body::SizeHint::with_exact(data.as_ref().map_or(0, Bytes::len) as u64),
            _ => hyper::body::SizeHint::default(),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.end, End::Whole) && self.data.as_ref().is_none_or(Bytes::is_empty)
    }
}
