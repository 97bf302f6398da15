//! When something was last verified, as text.

use super::units::duration;
use crate::pg::target::now;
use crate::report::time::Time;
use crate::report::verified::{LastVerification, Verified};

/// A moment, and how long ago it was.
pub(super) fn since(time: Time) -> String {
    // To the minute: nobody verifies more often.
    let ago_s = now().0.saturating_sub(time.get().0) / 60_000_000 * 60;
    match u64::try_from(ago_s) {
        Ok(ago_s) => format!("{time} ({} ago)", duration(ago_s.saturating_mul(1000))),
        Err(_) => format!("{time} (in the FUTURE)"),
    }
}

/// What a verification found, and when.
pub(super) fn last(verification: &LastVerification) -> String {
    let mode = verification.verification_mode;
    let time = verification.verified_at.map_or_else(|| "?".to_owned(), since);
    let interrupted = if verification.interrupted { ", not finished" } else { "" };
    let found = match (verification.findings_total, verification.findings_that_matter) {
        (0, _) => "nothing found".to_owned(),
        (1, 1) => "1 finding, which MATTERS".to_owned(),
        (1, _) => "1 finding, which does not matter".to_owned(),
        (total, 0) => format!("{total} findings, none of which matters"),
        (total, matter) => format!("{total} findings, {matter} of which MATTER"),
    };
    format!("{mode}, {time}{interrupted}: {found}")
}

/// What evidence says of objects: a word for it, and the rest.
pub(super) fn objects(verified: &Verified) -> (&'static str, String) {
    let Verified { objects, unverified_objects, damaged_objects, .. } = *verified;
    let Some(time) = verified.verified_at.map(since) else {
        return ("NOT VERIFIED", format!("none of {objects} objects was ever read by a verification"));
    };
    let read = objects.saturating_sub(unverified_objects);
    let whole = match unverified_objects {
        0 => format!("all {objects} objects since {time}"),
        rest => format!("{read} of {objects} objects since {time}; {rest} were never read by a verification"),
    };
    match damaged_objects {
        0 => ("verified", whole),
        damaged => ("DAMAGED", format!("{damaged} objects, when they were last read; verified: {whole}")),
    }
}
