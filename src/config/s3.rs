//! A repository in S3: from what somebody set to checked settings of the store.
//!
//! Lives here: what the settings of `[repository.s3]` mean, and which go together. May not live here: what a store
//! itself accepts (`store::s3::settings`). Depends on `definitions`, `invalid` and `values`.

use std::time::Duration;

#[cfg(feature = "s3")]
use super::definitions::{
    S3_CA_FILE, S3_CHECKSUMS, S3_CREDENTIALS_FILE, S3_ENDPOINT, S3_OBJECT_LOCK_DAYS, S3_OBJECT_LOCK_MODE, S3_PATH_STYLE,
    S3_PROFILE, S3_REGION, S3_SSE, S3_SSE_KMS_KEY_ID, S3_STORAGE_CLASS,
};
use super::invalid::config_error;
use super::values::OfRepository;
use crate::error::Error;
use crate::repo::StoreUrl;
#[cfg(feature = "s3")]
use crate::store::s3::{Checksums, InvalidSettings, LockMode, ObjectLock, S3Settings, Sse};

#[cfg(not(feature = "s3"))]
pub(super) fn check(of_url: &OfRepository<'_>, _request_timeout: Duration) -> Result<StoreUrl, Error> {
    Err(config_error(format!("{}: this program was built without S3", of_url.url)).hint("build it with the feature s3"))
}

/// Checks the settings of a store.
#[cfg(feature = "s3")]
pub(super) fn check(of_url: &OfRepository<'_>, request_timeout: Duration) -> Result<StoreUrl, Error> {
    let given = of_url.given;
    let text = |setting| given.text(setting).map(str::to_owned);
    let path = |setting| given.path(setting).map(std::path::Path::to_owned);
    let checksums = match of_url.choice(&S3_CHECKSUMS)? {
        Some("when-required") => Checksums::WhenRequired,
        _ => Checksums::WhenSupported,
    };
    let sse = match (of_url.choice(&S3_SSE)?, text(&S3_SSE_KMS_KEY_ID)) {
        (None, None) => None,
        (Some("AES256"), None) => Some(Sse::Aes256),
        (Some("AES256"), Some(_)) => {
            let hint = format!("{} goes with aws:kms", S3_SSE_KMS_KEY_ID.name);
            return Err(Error { hint: Some(hint), ..of_url.wrong(&S3_SSE, "AES256") });
        }
        (_, key_id) => Some(Sse::Kms { key_id }),
    };
    let invalid = |e: InvalidSettings| Error { hint: e.hint, ..config_error(e.what) };
    let settings = S3Settings {
        endpoint: text(&S3_ENDPOINT),
        region: text(&S3_REGION),
        profile: text(&S3_PROFILE),
        credentials_file: path(&S3_CREDENTIALS_FILE),
        path_style: given.truth(&S3_PATH_STYLE).unwrap_or(false),
        ca_file: path(&S3_CA_FILE),
        checksums,
        sse,
        storage_class: text(&S3_STORAGE_CLASS),
        object_lock: object_lock(of_url)?,
        request_timeout,
        ..S3Settings::parse_url(of_url.url).map_err(invalid)?
    };
    settings.check().map_err(invalid)?;
    Ok(StoreUrl::S3(Box::new(settings)))
}

/// The lock of new objects: how and how long go together.
#[cfg(feature = "s3")]
fn object_lock(of_url: &OfRepository<'_>) -> Result<Option<ObjectLock>, Error> {
    let days = of_url.whole(&S3_OBJECT_LOCK_DAYS)?;
    let retain_days = match days {
        Some(days) => Some(u32::try_from(days).map_err(|_| of_url.wrong(&S3_OBJECT_LOCK_DAYS, days))?),
        None => None,
    };
    let mode = match of_url.given.text(&S3_OBJECT_LOCK_MODE) {
        None => None,
        Some("governance" | "GOVERNANCE") => Some(LockMode::Governance),
        Some("compliance" | "COMPLIANCE") => Some(LockMode::Compliance),
        Some(other) => return Err(of_url.wrong(&S3_OBJECT_LOCK_MODE, other)),
    };
    match (mode, retain_days) {
        (None, None) => Ok(None),
        (Some(mode), Some(retain_days)) => Ok(Some(ObjectLock { mode, retain_days })),
        _ => {
            let (mode, days) = (S3_OBJECT_LOCK_MODE.name, S3_OBJECT_LOCK_DAYS.name);
            Err(config_error(format!("only one of {mode} and {days} of {} is set", of_url.url))
                .hint(format!("set {mode} to {}, and {days}", S3_OBJECT_LOCK_MODE.kind.wanted())))
        }
    }
}
