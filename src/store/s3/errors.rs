//! From what the SDK, the network and the service say to what a store error says. One walk along the causes is for
//! everything that got no answer; the table of the service's codes is in [`codes`](super::codes).

use std::error::Error;
use std::fmt;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::SdkError;

use super::codes::{is_unknown_key, meaning};
use super::error_documents::{ServiceError, element, field};
use crate::limits::MAX_QUOTE_CHARS;
use crate::store::{ErrorKind, StoreError};

/// A request that did not end as it should.
#[derive(Debug)]
pub(super) struct Failure {
    kind: ErrorKind,
    detail: String,
    hint: Option<String>,
    /// Whether trying again is pointless, where that does not follow from the kind.
    permanent: Option<bool>,
    answer: Option<Box<Answer>>,
    /// There were no credentials to send the request with.
    lacks_credentials: bool,
    /// The service said of one object of many that it is not there.
    is_absence: bool,
}

/// What the service answered instead of what was asked for.
#[derive(Debug)]
struct Answer {
    status: u16,
    error: Option<ServiceError>,
    /// Of a success that the SDK could not read.
    unread: Option<String>,
}

/// What a refusal means for the credentials that the request was sent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// They were valid once.
    Expired,
    /// The store does not know them.
    Unknown,
    /// They may be those of another, or just not enough.
    Denied,
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            hint: None,
            permanent: None,
            answer: None,
            lacks_credentials: false,
            is_absence: false,
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn permanently(mut self) -> Self {
        self.permanent = Some(true);
        self
    }

    /// Says that trying again can help, and why.
    pub(super) fn may_pass(mut self, why: &str) -> Self {
        self.detail = format!("{}; {why}", self.detail);
        self.permanent = Some(false);
        self
    }

    /// Says where the credentials come from.
    pub(super) fn about(mut self, origin: &str) -> Self {
        self.detail = format!("{} ({origin})", self.detail);
        self
    }

    /// Says, of a request that did not come to the store, where it may have got stuck.
    pub(super) fn on_the_way(mut self, station: &str, hint: &str) -> Self {
        let is_stuck = match &self.answer {
            // The certificate and all that is said in TLS are the store's.
            None => matches!(self.kind, ErrorKind::Unreachable | ErrorKind::TimedOut) && self.permanent.is_none(),
            Some(answer) => answer.error.is_none() && matches!(answer.status, 407 | 502..=504),
        };
        if is_stuck && !self.lacks_credentials {
            self.detail = format!("{station}: {}", self.detail);
            self.hint = Some(hint.to_owned());
        }
        if self.detail.contains("proxy authorization required") {
            self.kind = ErrorKind::Denied;
        }
        self
    }

    /// Whether there were no credentials to send the request with.
    pub(super) fn lacks_credentials(&self) -> bool {
        self.lacks_credentials
    }

    /// What it means for the credentials, when it was the service that refused them.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        let code = self.answer.as_ref()?.error.as_ref()?.code.as_str();
        match code {
            "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "InvalidToken" => Some(Refusal::Expired),
            _ if is_unknown_key(code) || code == "SignatureDoesNotMatch" => Some(Refusal::Unknown),
            _ => (self.kind == ErrorKind::Denied).then_some(Refusal::Denied),
        }
    }

    /// A field of a success whose root element the SDK does not know: some stores call it otherwise than S3.
    pub(super) fn field_of(&self, root: &str, name: &str) -> Option<String> {
        field(element(self.answer.as_ref()?.unread.as_deref()?, root)?, name).filter(|value| !value.is_empty())
    }

    /// Whether it is a success with this root element, which the SDK does not know.
    pub(super) fn is_unread(&self, root: &str) -> bool {
        let unread = self.answer.as_ref().and_then(|answer| answer.unread.as_deref());
        unread.is_some_and(|text| element(text, root).is_some())
    }

    /// The kind it will have as a store error.
    pub(super) fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the service itself answered with this HTTP status and this error code, in a genuine S3 error document.
    pub(super) fn says(&self, status: u16, code: &str) -> bool {
        self.answer.as_ref().is_some_and(|a| a.status == status && a.error.as_ref().is_some_and(|e| e.code == code))
    }

    /// Whether the service itself gave this error code.
    pub(super) fn is_code(&self, code: &str) -> bool {
        let of_request = self.answer.as_ref().and_then(|answer| answer.error.as_ref());
        of_request.is_some_and(|error| error.code == code)
    }

    /// Whether the service itself said that there is no such object.
    pub(super) fn is_of_absence(&self) -> bool {
        self.says(404, "NoSuchKey") || self.is_absence
    }

    /// Whether it was answered with this HTTP status, by whomever.
    pub(super) fn has_status(&self, status: u16) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.status == status)
    }

    /// The size of the object, as an `InvalidRange` error tells it.
    pub(super) fn object_size(&self) -> Option<u64> {
        self.answer.as_ref()?.error.as_ref()?.object_size
    }

    /// The store error, once it is known what was being done and where.
    pub(super) fn while_doing(self, action: impl fmt::Display, location: &str) -> StoreError {
        let mut error = StoreError::new(self.kind, action.to_string(), location, self.detail);
        error.hint = self.hint;
        error.permanent = self.permanent.unwrap_or(error.permanent);
        error
    }

    /// What happened, for another message.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// Reads what the SDK reports.
    pub(super) fn from_sdk<E: Error + Send + Sync + 'static>(error: SdkError<E, HttpResponse>) -> Self {
        match &error {
            SdkError::ServiceError(inner) => Self::answered(inner.raw(), None),
            SdkError::ResponseError(inner) => Self::answered(inner.raw(), Some(&error)),
            SdkError::TimeoutError(_) => Self::new(ErrorKind::TimedOut, "no answer in time"),
            _ => Self::unanswered(&error),
        }
    }

    /// The service, or something that stands before it, sent an answer that is no success.
    fn answered(raw: &HttpResponse, unreadable: Option<&(dyn Error + 'static)>) -> Self {
        let status = raw.status().as_u16();
        let header = |name: &str| raw.headers().get(name).map(str::to_owned);
        let body = raw.body().bytes().unwrap_or_default();
        let mut error = ServiceError::parse(body);
        if let Some(error) = &mut error {
            error.request_id = error.request_id.take().or_else(|| header("x-amz-request-id"));
            error.region = header("x-amz-bucket-region").or_else(|| error.region.take());
            let total = header("content-range").and_then(|r| r.strip_prefix("bytes */")?.parse().ok());
            error.object_size = error.object_size.or(total);
        }
        let mut failure = match (&error, unreadable) {
            (Some(error), _) => Self::from_service(status, error),
            (None, Some(cause)) if find::<std::io::Error>(cause).is_some() || body.is_empty() => Self::new(
                ErrorKind::Unreachable,
                format!("HTTP {status}, but the answer was cut short: {}", quote(&chain(cause))),
            ),
            (None, _) => Self::from_stranger(status, &header, body),
        };
        let unread = (error.is_none() && status == 200).then(|| String::from_utf8_lossy(body).into_owned());
        failure.answer = Some(Box::new(Answer { status, error, unread }));
        failure
    }

    /// What the service says of one of many objects.
    pub(super) fn of_one(code: &str, message: &str) -> Self {
        let error = ServiceError {
            code: code.to_owned(),
            message: message.to_owned(),
            request_id: None,
            region: None,
            object_size: None,
        };
        let (kind, hint) = meaning(200, &error);
        let mut failure = Self::new(kind, format!("{}: {}", quote(code), quote(message)));
        failure.hint = hint.map(str::to_owned);
        failure.is_absence = matches!(code, "NoSuchKey" | "NoSuchVersion");
        failure
    }

    /// A genuine S3 error document.
    fn from_service(status: u16, error: &ServiceError) -> Self {
        let (kind, hint) = meaning(status, error);
        let request = error.request_id.as_deref().map(|id| format!(", request {}", quote(id))).unwrap_or_default();
        let message = if error.message.is_empty() { "(no message)".to_owned() } else { quote(&error.message) };
        let mut failure = Self::new(kind, format!("{}: {message} (HTTP {status}{request})", quote(&error.code)));
        failure.hint = match &error.region {
            Some(region) if is_about_region(&error.code) => Some(other_region(region)),
            _ => hint.map(str::to_owned),
        };
        failure
    }

    /// An answer that no S3 service would give.
    fn from_stranger(status: u16, header: &dyn Fn(&str) -> Option<String>, body: &[u8]) -> Self {
        let kind = match status {
            401 | 403 | 407 => ErrorKind::Denied,
            408 | 429 | 500 | 502..=504 | 520..=529 => ErrorKind::Busy,
            507 => ErrorKind::NoSpace,
            _ => ErrorKind::BadAnswer,
        };
        let text = String::from_utf8_lossy(body);
        let content_type = header("content-type");
        let what = match &content_type {
            _ if text.trim().is_empty() => "and nothing else".to_owned(),
            Some(kind) => format!("and {}: {:?}", quote(kind), quote(text.get(..100).unwrap_or(&text))),
            None => format!("and {:?}", quote(text.get(..100).unwrap_or(&text))),
        };
        let failure = Self::new(kind, format!("HTTP {status} {what}, which is not an answer of S3"));
        match (status, header("x-amz-bucket-region"), header("location")) {
            (300..=399, Some(region), _) => {
                let what = format!("HTTP {status}: the bucket is in the region {}", quote(&region));
                Self::new(ErrorKind::NoSuchPlace, what).hint(other_region(&region)).permanently()
            }
            (300..=399, None, Some(location)) => Self::new(
                ErrorKind::BadAnswer,
                format!("HTTP {status}: the server there redirects to {}", quote(&location)),
            )
            .hint("set `endpoint` to the address of the store itself; requests are signed for one address and can't be sent on")
            .permanently(),
            // As Go and nginx say it.
            (400, ..)
                if text.contains("HTTP request to an HTTPS server") || text.contains("HTTP request was sent to HTTPS port") =>
            {
                failure.hint(SPEAKS_TLS).permanently()
            }
            // No page of a portal, which may be gone tomorrow.
            (200..=299, ..) if content_type.is_some_and(|kind| kind.contains("xml")) && !text.trim().is_empty() => {
                failure.hint("the store answers in another form than S3; a newer version of it may know better").permanently()
            }
            _ => failure.hint("check the endpoint; a proxy, load balancer or web server may be answering instead of the store"),
        }
    }

    /// No answer at all.
    pub(super) fn unanswered(error: &(dyn Error + 'static)) -> Self {
        use std::io::ErrorKind as Io;
        let all = chain(error);
        if let Some(tls) = find::<rustls::Error>(error) {
            return Self::tls(tls);
        }
        if let Some(failure) = Self::credentials(&all) {
            return failure;
        }
        let causes = quote(&all);
        // The first bytes of a TLS alert, read as HTTP.
        if all.contains("invalid HTTP version parsed") {
            return Self::new(ErrorKind::Unreachable, format!("the answer is not HTTP: {causes}")).hint(SPEAKS_TLS).permanently();
        }
        if causes.contains("dns error") || causes.contains("failed to lookup address") {
            return Self::new(ErrorKind::Unreachable, format!("the host name was not found: {causes}"))
                .hint("check the endpoint, the region and the name service; with an own endpoint `path_style` may be needed");
        }
        match find::<std::io::Error>(error).map(std::io::Error::kind) {
            Some(Io::ConnectionRefused) => Self::new(ErrorKind::Unreachable, "the connection was refused")
                .hint("check that the store runs and that the endpoint's port is right"),
            Some(Io::TimedOut) => Self::new(ErrorKind::TimedOut, causes),
            _ if find::<aws_sdk_s3::error::ConnectorError>(error).is_some_and(aws_sdk_s3::error::ConnectorError::is_timeout) => {
                Self::new(ErrorKind::TimedOut, causes)
            }
            _ => Self::new(ErrorKind::Unreachable, causes),
        }
    }

    /// TLS refused to talk: that will not change by trying again.
    fn tls(error: &rustls::Error) -> Self {
        let rustls::Error::InvalidCertificate(certificate) = error else {
            return Self::new(ErrorKind::Unreachable, format!("TLS failed: {error}"))
                .hint("check that the endpoint speaks https on this port")
                .permanently();
        };
        let hint = match certificate {
            rustls::CertificateError::Expired | rustls::CertificateError::ExpiredContext { .. } => {
                "renew the store's certificate, or correct this host's clock"
            }
            rustls::CertificateError::NotValidForName | rustls::CertificateError::NotValidForNameContext { .. } => {
                "the certificate is for another host: check the endpoint; `path_style` keeps the bucket out of the host name"
            }
            _ => "name the certificate of its authority in `ca_file`",
        };
        Self::new(ErrorKind::Unreachable, format!("the server's certificate is not trusted: {certificate}"))
            .hint(hint)
            .permanently()
    }

    /// What the credential chain says, known by the fixed texts of its error type.
    fn credentials(all: &str) -> Option<Self> {
        const HINT: &str = "give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a shared credentials file, or a role; `profile` and \
                            `credentials_file` say where to look";
        const PROGRAM: &str = "`credential_process` of the profile names the program; run it as the user who runs this";
        let causes = quote(all);
        let failure = if all.contains("credential provider was not enabled") {
            Self::new(ErrorKind::Denied, "no credentials found in the environment, the shared files or a role").hint(HINT)
        } else if all.contains("credentials provider was not properly configured") {
            Self::new(ErrorKind::Denied, format!("the credentials are not usable: {causes}")).hint(HINT)
        } else if all.contains("credentials provider timed out") {
            Self::new(ErrorKind::TimedOut, format!("no credentials in time: {causes}")).hint(HINT)
        } else if !(all.contains("loading credentials") || all.contains("credentials error")) {
            return None;
        } else if all.contains("exit status: 127") || all.contains("exit status: 126") {
            Self::new(ErrorKind::Denied, format!("the credential program cannot be run: {causes}")).hint(PROGRAM)
        } else if all.contains("external process") && (all.contains("could not parse") || all.contains("could not decode")) {
            Self::new(ErrorKind::Denied, format!("the credential program gives no credentials: {causes}")).hint(PROGRAM)
        } else if all.contains("external process") {
            Self::new(ErrorKind::Unreachable, format!("the credential program failed: {causes}")).hint(PROGRAM)
        } else {
            Self::new(ErrorKind::Unreachable, format!("no credentials were found: {causes}")).hint(HINT)
        };
        Some(Self { lacks_credentials: true, ..failure })
    }
}

/// What to do where an endpoint begins with `http://` and should not.
const SPEAKS_TLS: &str = "the store speaks TLS on this port: begin the endpoint with https://";

fn other_region(region: &str) -> String {
    format!("the bucket is in another region: set `region` to {}", quote(region))
}

fn is_about_region(code: &str) -> bool {
    matches!(code, "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" | "BadRequest")
}

/// The first cause of this type, also inside [`std::io::Error`]s.
fn find<'e, T: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// All causes, without what is said twice.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !texts.iter().any(|t| t.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    // The SDK's outermost words say nothing that the others do not.
    let empty =
        |text: &str| matches!(text, "dispatch failure" | "failed to construct request" | "other" | "io error" | "timeout");
    while texts.len() > 1 && texts.first().is_some_and(|t| empty(t)) {
        texts.remove(0);
    }
    texts.join(": ")
}

/// A foreign text, fit for one line of a message.
pub(super) fn quote(text: &str) -> String {
    let mut clean = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()) {
        if !clean.is_empty() {
            clean.push(' ');
        }
        clean.push_str(word);
    }
    if clean.chars().count() > MAX_QUOTE_CHARS { clean.chars().take(MAX_QUOTE_CHARS).chain(['…']).collect() } else { clean }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(code: &str, message: &str) -> ServiceError {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>\
             <RequestId>R1</RequestId></Error>"
        );
        ServiceError::parse(body.as_bytes()).unwrap()
    }

    #[test]
    fn only_genuine_documents_count() {
        let error = document("NoSuchKey", "it&apos;s &lt;gone&gt;");
        assert_eq!((error.code.as_str(), error.message.as_str()), ("NoSuchKey", "it's <gone>"));
        assert_eq!(error.request_id.as_deref(), Some("R1"));
        let with_size = ServiceError::parse(
            b"<Error xmlns=\"x\">\n <Code>InvalidRange</Code><ActualObjectSize>12</ActualObjectSize>\n</Error>\n",
        );
        assert_eq!(with_size.unwrap().object_size, Some(12));
        for foreign in [
            "",
            "NoSuchKey",
            "<html><body><Error><Code>NoSuchKey</Code></Error></body></html>",
            "<Errors><Code>NoSuchKey</Code></Errors>",
            "<Error><Code>NoSuchKey</Code>",
            "<Error><Code></Code></Error>",
            "<Error></Error>",
            "<page><Code>NoSuchKey</Code></page>",
        ] {
            assert_eq!(ServiceError::parse(foreign.as_bytes()), None, "{foreign}");
        }
    }

    #[test]
    fn the_table() {
        use ErrorKind::*;
        for (status, code, message, kind, permanent, hint) in [
            (403, "AccessDenied", "Access Denied", Denied, true, "allowed to do"),
            (403, "AccessDenied", "Access Denied because object protected by object lock.", Held, true, "locked"),
            (400, "ObjectLocked", "Object is WORM protected", Held, true, "locked"),
            (403, "InvalidAccessKeyId", "", Denied, true, "does not know"),
            (403, "SignatureDoesNotMatch", "", Denied, true, "secret key"),
            (400, "ExpiredToken", "", Denied, true, "expired"),
            (403, "RequestTimeTooSkewed", "", Denied, true, "clock"),
            (400, "KMS.DisabledException", "", Denied, true, "key management"),
            (404, "NoSuchBucket", "", NoSuchPlace, true, "bucket's name"),
            (301, "PermanentRedirect", "", NoSuchPlace, true, "region"),
            (400, "AuthorizationHeaderMalformed", "", Denied, true, "region"),
            (403, "QuotaExceeded", "", NoSpace, true, "quota"),
            (507, "XMinioStorageFull", "", NoSpace, true, "free space"),
            (503, "SlowDown", "", Busy, false, ""),
            (500, "InternalError", "", Busy, false, ""),
            (200, "InternalError", "", Busy, false, ""),
            (409, "ConditionalRequestConflict", "", Busy, false, ""),
            (503, "SomethingNew", "", Busy, false, ""),
            (429, "SomethingNew", "", Busy, false, ""),
            (403, "SomethingNew", "", Denied, true, ""),
            (400, "SomethingNew", "", Unsupported, true, "refuses"),
            (501, "NotImplemented", "", Unsupported, true, "lacks"),
            (403, "InvalidObjectState", "", Unsupported, true, "archive"),
            (400, "InvalidRequest", "Bucket is missing Object Lock Configuration", Unsupported, true, "not enabled"),
            (400, "EntityTooLarge", "", Unsupported, true, "size"),
            (400, "BadDigest", "", BadAnswer, false, "on its way"),
            (404, "NoSuchKey", "", BadAnswer, false, ""),
        ] {
            let error = Failure::from_service(status, &document(code, message)).while_doing("create x", "s3://b");
            assert_eq!((error.kind, error.permanent), (kind, permanent), "{code}");
            assert!(error.detail.starts_with(code) && error.detail.contains(&format!("HTTP {status}, request R1")), "{error}");
            assert!(error.hint.clone().unwrap_or_default().contains(hint), "{code}: {:?}", error.hint);
        }
    }

    #[test]
    fn the_right_region_is_named() {
        let mut error = document("PermanentRedirect", "use the other endpoint");
        error.region = Some("eu-west-3".to_owned());
        assert!(Failure::from_service(301, &error).hint.unwrap().contains("`region` to eu-west-3"));
    }

    #[test]
    fn strangers() {
        use ErrorKind::*;
        for (status, kind) in
            [(200, BadAnswer), (404, BadAnswer), (302, BadAnswer), (403, Denied), (503, Busy), (429, Busy), (507, NoSpace)]
        {
            let html = |name: &str| (name == "content-type").then(|| "text/html".to_owned());
            let failure = Failure::from_stranger(status, &html, b"<html>\n  sorry</html>");
            assert_eq!(failure.kind, kind, "{status}");
            assert!(failure.detail.contains("not an answer of S3") && failure.detail.contains("sorry"), "{}", failure.detail);
            assert!(!failure.detail.contains('\n'));
        }
    }

    #[test]
    fn what_cannot_heal_is_permanent() {
        use ErrorKind::*;
        let failure = |status, headers: &'static [(&str, &str)], body: &[u8]| {
            let header = |name: &str| headers.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
            Failure::from_stranger(status, &header, body).while_doing("read x", "s3://b")
        };
        for (status, headers, body, kind, hint) in [
            (301, &[("x-amz-bucket-region", "eu-west-3")] as &[_], "", NoSuchPlace, "`region` to eu-west-3"),
            (302, &[("location", "https://login.example.org/")], "<html>moved</html>", BadAnswer, "address of the store itself"),
            (400, &[], "Client sent an HTTP request to an HTTPS server.\n", BadAnswer, "https://"),
            (200, &[("content-type", "application/xml")], "<Other><Name>x</Name></Other>", BadAnswer, "another form"),
        ] {
            let error = failure(status, headers, body.as_bytes());
            assert_eq!((error.kind, error.permanent), (kind, true), "{error}");
            assert!(error.hint.clone().unwrap().contains(hint), "{error:?}");
        }
        assert!(!failure(200, &[("content-type", "text/html")], b"<html>please log in</html>").permanent);
        assert!(!failure(404, &[], b"no such service").permanent);
    }

    #[test]
    fn refusals_of_credentials() {
        for (status, code, refusal) in [
            (400, "ExpiredToken", Some(Refusal::Expired)),
            (404, "XAdminUserNotFound", Some(Refusal::Unknown)),
            (403, "InvalidAccessKeyId", Some(Refusal::Unknown)),
            (403, "SignatureDoesNotMatch", Some(Refusal::Unknown)),
            (403, "AccessDenied", Some(Refusal::Denied)),
            (404, "NoSuchBucket", None),
            (503, "SlowDown", None),
        ] {
            let error = document(code, "");
            let mut failure = Failure::from_service(status, &error);
            failure.answer = Some(Box::new(Answer { status, error: Some(error), unread: None }));
            assert_eq!(failure.refusal(), refusal, "{code}");
            if refusal.is_some() {
                assert_eq!(failure.kind, ErrorKind::Denied, "{code}");
            }
        }
    }

    #[test]
    fn foreign_text_stays_on_one_line_and_short() {
        assert_eq!(quote(" a\n\tb\u{1b}[31m c "), "a b [31m c");
        assert_eq!(quote(&"x".repeat(1000)).chars().count(), MAX_QUOTE_CHARS + 1);
    }
}
