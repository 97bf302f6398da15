//! The table of the service's error codes: what each means, and what can be done about it.

use super::error_documents::ServiceError;
use crate::store::ErrorKind;

/// Whether it is a store's word for an access key that it does not know; `XAdminUserNotFound` is versitygw's.
pub(super) fn is_unknown_key(code: &str) -> bool {
    matches!(
        code,
        "InvalidAccessKeyId"
            | "InvalidClientTokenId"
            | "UnrecognizedClientException"
            | "XAdminUserNotFound"
            | "XAdminNoSuchUser"
            | "NoSuchUser"
    )
}

/// The table: what a code means, and what can be done about it. Codes:
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>, those beginning with `XMinio` are MinIO's.
pub(super) fn meaning(status: u16, error: &ServiceError) -> (ErrorKind, Option<&'static str>) {
    use ErrorKind::{BadAnswer, Busy, Denied, Held, NoSpace, NoSuchPlace, Unsupported};
    const REGION: &str = "set `region` to the bucket's region, or `endpoint` to its store";
    let message = error.message.to_ascii_lowercase();
    match error.code.as_str() {
        "AccessDenied" | "ObjectLocked" | "MethodNotAllowed" if message.contains("object lock") || message.contains("worm") => {
            (Held, Some("the object is locked until its retention ends"))
        }
        "ObjectLocked" | "ObjectLockedByBucketPolicy" => (Held, Some("the object is locked until its retention ends")),
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "NotSignedUp" | "InvalidPayer" => {
            (Denied, Some("check what the credentials are allowed to do in this bucket and below this prefix"))
        }
        code if is_unknown_key(code) => {
            (Denied, Some("the store does not know this access key: check the credentials and that they belong to this endpoint"))
        }
        "SignatureDoesNotMatch" => (Denied, Some("the secret key is wrong, or a proxy changes the requests on their way")),
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "InvalidToken" => {
            (Denied, Some("the session has expired: get new credentials"))
        }
        "RequestExpired" => (Denied, Some("correct this host's clock: the store takes the request for an old one")),
        "RequestTimeTooSkewed" => (Denied, Some("correct this host's clock: it differs too much from the store's")),
        code if code.starts_with("KMS.") || code.starts_with("KMSAccess") => {
            (Denied, Some("check the key of the key management service and the right to use it"))
        }
        "NoSuchBucket" => (NoSuchPlace, Some("check the bucket's name, the endpoint and the region; Walvis makes no buckets")),
        "PermanentRedirect" | "IllegalLocationConstraintException" => (NoSuchPlace, Some(REGION)),
        "AuthorizationHeaderMalformed" => (Denied, Some(REGION)),
        "QuotaExceeded"
        | "StorageQuotaExceeded"
        | "InsufficientStorage"
        | "XMinioStorageFull"
        | "XMinioAdminBucketQuotaExceeded" => (NoSpace, Some("free space in the store or raise the quota")),
        "SlowDown"
        | "InternalError"
        | "ServiceUnavailable"
        | "ServerBusy"
        | "ThrottlingException"
        | "Throttling"
        | "TooManyRequests"
        | "RequestLimitExceeded"
        | "BandwidthLimitExceeded"
        | "RequestTimeout"
        | "OperationAborted"
        | "ConditionalRequestConflict"
        | "TemporaryRedirect"
        | "XMinioServerNotInitialized" => (Busy, None),
        "BadDigest" | "IncompleteBody" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" => {
            (BadAnswer, Some("the content was changed on its way: check the network and proxies"))
        }
        "NoSuchKey" | "NoSuchVersion" | "PreconditionFailed" | "InvalidRange" => (BadAnswer, None),
        "NoSuchUpload" => (BadAnswer, Some("something aborted the upload: check the bucket's lifecycle rules")),
        "InvalidObjectState" => (Unsupported, Some("the object is in an archive storage class: restore it from there first")),
        "InvalidStorageClass" => (Unsupported, Some("choose a `storage_class` that the store has")),
        "EntityTooLarge" => (Unsupported, Some("the store takes no objects or parts of this size")),
        "NotImplemented" | "MethodNotAllowed" => (Unsupported, Some("the store lacks this operation")),
        "ObjectLockConfigurationNotFoundError" | "InvalidBucketState" => {
            (Unsupported, Some("object lock is not enabled on the bucket"))
        }
        "InvalidRequest" if message.contains("object lock") || message.contains("objectlock") => {
            (Unsupported, Some("object lock is not enabled on the bucket"))
        }
        _ => match status {
            401 | 403 => (Denied, None),
            408 | 429 | 500 | 502..=504 => (Busy, None),
            507 => (NoSpace, None),
            400 | 404..=499 | 501 => {
                (Unsupported, Some("the store refuses the request: compare the settings with what it supports"))
            }
            _ => (BadAnswer, None),
        },
    }
}
