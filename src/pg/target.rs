//! Recovery targets, as an operator writes them and as the server takes them.
//!
//! Lives here: text to values and back. The one thing that is not pure is a zone's name, which jiff looks up in the
//! system's time zone database; offsets and UTC always work.
//!
//! A moment is kept in microseconds, as the server does, and never rounded. A time without a zone is taken in the zone
//! that the caller states, and refused where none is stated: this host's zone need not be that of the person who writes
//! the time. Zone abbreviations are refused: CST is three zones, and the server's own list of them is a setting.

use std::fmt;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use super::lsn::{Lsn, Timeline};
use super::scan::{PgTime, RestorePointName, Xid};

/// Where a recovery is to stop.
///
/// ```
/// use walvis::pg::target::{Target, Zone, parse_time, show};
/// use walvis::pg::scan::PgTime;
///
/// // Moments are microseconds since 2000. "Now" is only asked for by "10 minutes ago".
/// let (zone, now) = (Zone::parse("Europe/Amsterdam")?, PgTime(0));
/// let target = Target::Time(parse_time("2026-07-01 14:03:07", Some(&zone), now)?);
/// let Target::Time(time) = target else { unreachable!() };
/// assert_eq!(show(time), "2026-07-01 12:03:07.000000+00:00");
/// # Ok::<(), walvis::pg::target::InvalidTarget>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `recovery_target_time`.
    Time(PgTime),
    /// `recovery_target_lsn`.
    Lsn(Lsn),
    /// `recovery_target_xid`: a top-level transaction.
    Xid(Xid),
    /// `recovery_target_name`: a restore point.
    Name(RestorePointName),
    /// The end of what is archived; no setting of the server.
    Latest,
    /// `recovery_target = 'immediate'`: as soon as the backup is consistent.
    Immediate,
}

/// `recovery_target_timeline`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetTimeline {
    /// The one with the highest number.
    #[default]
    Latest,
    /// The one that the recovery starts on.
    Current,
    /// This one.
    Number(Timeline),
}

/// A text that is no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct InvalidTarget {
    /// What is wrong with it, one line.
    pub what: String,
    /// What to write instead, one line.
    pub hint: String,
}

impl InvalidTarget {
    fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into() }
    }
}

impl TargetTimeline {
    /// Reads `latest`, `current`, a decimal number, or a hexadecimal one after `0x`.
    ///
    /// # Errors
    /// Anything else. A number that begins with 0 is refused: the server would read it as octal, and file names have
    /// them in hexadecimal.
    pub fn parse(text: &str) -> Result<Self, InvalidTarget> {
        let invalid = |what: String| InvalidTarget::new(what, "write latest, current, a number such as 12, or 0xC");
        let number = match (text, text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))) {
            ("latest", _) => return Ok(Self::Latest),
            ("current", _) => return Ok(Self::Current),
            (_, Some(digits)) => super::lsn::hex32(digits),
            (_, None) if text.starts_with('0') && text.len() > 1 => {
                return Err(invalid(format!("the timeline {text} can be read as octal, decimal or hexadecimal")));
            }
            (_, None) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
            (_, None) => None,
        };
        match number {
            Some(number) if number > 0 => Ok(Self::Number(Timeline(number))),
            _ => Err(invalid(format!("{text:?} is not a timeline"))),
        }
    }
}

impl Xid {
    /// Reads a transaction id; with an epoch (`txid_current()`, `pg_current_xact_id()`) as the server reads it: its
    /// lower 32 bits.
    ///
    /// # Errors
    /// No number, or one that is no transaction. One that begins with 0 is refused: the server would read it as octal.
    pub fn parse(text: &str) -> Result<Self, InvalidTarget> {
        const HINT: &str = "write a decimal number from 3, without sign or leading zeros";
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if digits && text.starts_with('0') && text.len() > 1 {
            return Err(InvalidTarget::new(format!("the transaction id {text} can be read as octal or decimal"), HINT));
        }
        let number = digits.then(|| text.parse::<u64>().ok()).flatten();
        // 0 is none, 1 and 2 never end.
        let xid = number.and_then(|number| Self::new((number & 0xFFFF_FFFF) as u32)).filter(|xid| xid.get() >= 3);
        xid.ok_or_else(|| InvalidTarget::new(format!("{text:?} is not the id of a transaction"), HINT))
    }
}

/// The zone that times without one are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    zone: TimeZone,
    name: String,
}

impl Zone {
    /// UTC.
    pub fn utc() -> Self {
        Self { zone: TimeZone::UTC, name: "UTC".to_owned() }
    }

    /// Reads `UTC`, `Z`, an offset such as `+01:00`, or a name such as `Europe/Amsterdam`.
    ///
    /// # Errors
    /// An abbreviation, a name that the system's time zone database does not have, or anything else.
    pub fn parse(text: &str) -> Result<Self, InvalidTarget> {
        const HINT: &str = "write UTC, an offset such as +01:00, or a name such as Europe/Amsterdam";
        if matches!(text, "UTC" | "Z" | "z") {
            return Ok(Self::utc());
        }
        if text.starts_with(['+', '-']) {
            let offset = offset(text).ok_or_else(|| InvalidTarget::new(format!("{text:?} is not an offset from UTC"), HINT))?;
            return Ok(Self { zone: TimeZone::fixed(offset), name: text.to_owned() });
        }
        let named =
            text.contains('/') && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-' | b'+'));
        if named {
            let zone = TimeZone::get(text).map_err(|_| {
                InvalidTarget::new(
                    format!("this system's time zone database does not have {text:?}"),
                    "write an offset such as +01:00, or install the tzdata package",
                )
            })?;
            return Ok(Self { zone, name: text.to_owned() });
        }
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphabetic()) {
            let what = format!("{text} is a zone's abbreviation: some are several zones, and few say whether it is summer");
            return Err(InvalidTarget::new(what, HINT));
        }
        Err(InvalidTarget::new(format!("{text:?} is not a time zone"), HINT))
    }

    /// The day of a moment in this zone; `None` beyond the years that calendars have.
    pub fn date(&self, time: PgTime) -> Option<jiff::civil::Date> {
        timestamp(time).map(|moment| moment.to_zoned(self.zone.clone()).date())
    }

    /// A moment with its date, time and offset in this zone, to the microsecond.
    pub fn show(&self, time: PgTime) -> String {
        let Some(moment) = timestamp(time) else { return show(time) };
        moment.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.6f%:z").to_string()
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A moment in UTC to the microsecond, as RFC 3339 and the server read it. One beyond the year 9999 is a number of
/// microseconds.
pub fn show(time: PgTime) -> String {
    match timestamp(time) {
        Some(moment) => moment.strftime("%Y-%m-%d %H:%M:%S%.6f+00:00").to_string(),
        None => format!("2000-01-01 00:00:00+00:00 {:+} us", time.0),
    }
}

fn timestamp(time: PgTime) -> Option<Timestamp> {
    Timestamp::from_microsecond(time.unix_us()?).ok()
}

/// The present, by this host's clock.
pub fn now() -> PgTime {
    // No clock is so wrong.
    PgTime::from_unix_us(Timestamp::now().as_microsecond()).unwrap_or(PgTime(i64::MAX))
}

const TIME_HINT: &str = "write 2026-11-21 03:36:21.123456+01:00, the same without an offset and with --zone, or '10 minutes ago'";

/// The zone or offset that a time states itself, if it does.
pub fn stated_zone(text: &str) -> Option<Zone> {
    let (_, suffix) = split(text.trim())?;
    Zone::parse(suffix).ok()
}

/// Reads a moment: date and time with an offset, `Z`, `UTC` or a zone's name; the same without, in `zone`; or
/// `10 minutes ago`, counted from `now`.
///
/// # Errors
/// Anything else; a time without a zone where there is no `zone` to take it in; abbreviations of zones; more digits
/// than microseconds have; a leap second; a local time that does not exist or exists twice where a clock is put forward
/// or back.
pub fn parse_time(text: &str, zone: Option<&Zone>, now: PgTime) -> Result<PgTime, InvalidTarget> {
    let text = text.trim();
    if let Some(span) = text.strip_suffix("ago") {
        return ago(span.trim_end(), now).ok_or_else(|| {
            InvalidTarget::new(
                format!("{text:?} is not a moment before now"),
                "write a whole number of seconds, minutes, hours, days or weeks, such as '10 minutes ago'",
            )
        });
    }
    let invalid = |what: String| InvalidTarget::new(what, TIME_HINT);
    let (local, suffix) = split(text).ok_or_else(|| invalid(format!("{text:?} is not a date and a time")))?;
    if local.split_once('.').is_some_and(|(_, fraction)| fraction.len() > 6) {
        return Err(invalid(format!("{text:?} has more digits than the microseconds that the server knows")));
    }
    if local.get(17..19) == Some("60") {
        return Err(invalid(format!("{text:?} is a leap second, which the server's clock does not have")));
    }
    let local: DateTime = local.parse().map_err(|_| invalid(format!("{text:?} is not a date and a time")))?;
    let stated;
    let zone = match (suffix, zone) {
        ("", Some(zone)) => zone,
        ("", None) => {
            return Err(InvalidTarget::new(
                format!("{text:?} has no time zone, so it can be several moments"),
                format!(
                    "write '{text}Z' for UTC, or with the offset of the clock that you read, such as '{text}+01:00'; or name the zone \
                     with --zone, or 'zone' in the settings"
                ),
            ));
        }
        _ => {
            stated = Zone::parse(suffix)?;
            &stated
        }
    };
    let moment = match zone.zone.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(local).ok(),
        AmbiguousOffset::Gap { .. } => {
            return Err(InvalidTarget::new(
                format!("{local} does not exist in {zone}: the clock was put forward"),
                "write the time with an offset",
            ));
        }
        AmbiguousOffset::Fold { before, after } => {
            return Err(InvalidTarget::new(
                format!("{local} exists twice in {zone}: the clock was put back from {before} to {after}"),
                format!("write {local}{before} or {local}{after}"),
            ));
        }
    };
    let moment = moment.and_then(|moment| PgTime::from_unix_us(moment.as_microsecond()));
    moment.ok_or_else(|| invalid(format!("{text:?} is out of range")))
}

/// Date and time `YYYY-MM-DD HH:MM[:SS[.…]]`, and what follows.
fn split(text: &str) -> Option<(String, &str)> {
    let shape = |shape: &str, text: &str| {
        let fits = |(s, t): (u8, u8)| if s == b'9' { t.is_ascii_digit() } else { s == t };
        text.len() >= shape.len() && shape.bytes().zip(text.bytes()).all(fits)
    };
    let normal = text.replacen(['T', 't'], " ", usize::from(matches!(text.as_bytes().get(10), Some(b'T' | b't'))));
    if !shape("9999-99-99 99:99", &normal) {
        return None;
    }
    let mut at = 16;
    if shape(":99", normal.get(at..)?) {
        at += 3;
        let fraction = normal.get(at..)?.strip_prefix('.');
        let digits = fraction.map_or(0, |f| f.bytes().take_while(u8::is_ascii_digit).count());
        if fraction.is_some() && digits == 0 {
            return None;
        }
        at += if digits > 0 { digits + 1 } else { 0 };
    }
    Some((normal.get(..at)?.to_owned(), text.get(at..)?.trim_start()))
}

/// `+HH`, `+HHMM`, `+HH:MM` or `+HH:MM:SS`.
fn offset(text: &str) -> Option<Offset> {
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let digits: String = match rest.len() {
        2 | 4 => rest.to_owned(),
        5 | 8 if rest.bytes().enumerate().all(|(i, b)| (b == b':') == (i % 3 == 2)) => rest.replace(':', ""),
        _ => return None,
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part = |at: usize| digits.get(at..at + 2).map_or(Some(0), |two| two.parse::<i32>().ok());
    let (hours, minutes, seconds) = (part(0)?, part(2)?, part(4)?);
    // As far as the server goes (`MAX_TZDISP_HOUR`).
    if hours > 15 || minutes > 59 || seconds > 59 {
        return None;
    }
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60 + seconds)).ok()
}

fn ago(span: &str, now: PgTime) -> Option<PgTime> {
    let unit_at = span.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = span.split_at_checked(unit_at)?;
    let unit_s = match unit.trim_start() {
        "s" | "second" | "seconds" => 1,
        "min" | "minute" | "minutes" => 60,
        "h" | "hour" | "hours" => 3600,
        "d" | "day" | "days" => 86_400,
        "w" | "week" | "weeks" => 7 * 86_400,
        _ => return None,
    };
    let span = SignedDuration::from_secs(number.parse::<i64>().ok()?.checked_mul(unit_s)?);
    let moment = now.0.checked_sub(i64::try_from(span.as_micros()).ok()?)?;
    Some(PgTime(moment))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: PgTime = PgTime(846_990_000_000_000);

    fn utc(text: &str) -> Result<String, String> {
        parse_time(text, Some(&Zone::utc()), NOW).map(show).map_err(|e| e.what)
    }

    #[test]
    fn times_are_exact_and_zones_are_stated() {
        for (text, expected) in [
            ("2026-11-21T03:36:21.123456Z", "2026-11-21 03:36:21.123456+00:00"),
            ("2026-11-21 03:36:21.123456+00", "2026-11-21 03:36:21.123456+00:00"),
            ("2026-11-21 03:36:21.1", "2026-11-21 03:36:21.100000+00:00"),
            ("2026-11-21 03:36", "2026-11-21 03:36:00.000000+00:00"),
            ("2026-11-21 03:36:21 UTC", "2026-11-21 03:36:21.000000+00:00"),
            ("2026-11-21 03:36:21+01:00", "2026-11-21 02:36:21.000000+00:00"),
            ("2026-11-21t03:36:21-0530", "2026-11-21 09:06:21.000000+00:00"),
            ("1999-12-31 23:59:59.999999Z", "1999-12-31 23:59:59.999999+00:00"),
        ] {
            assert_eq!(utc(text).as_deref(), Ok(expected), "{text}");
        }
        let zone = Zone::parse("+02:00").unwrap();
        let time = parse_time("2026-11-21 03:36:21.000001", Some(&zone), NOW).unwrap();
        assert_eq!(show(time), "2026-11-21 01:36:21.000001+00:00");
        assert_eq!(zone.show(time), "2026-11-21 03:36:21.000001+02:00");
    }

    #[test]
    fn a_time_without_a_zone_is_refused_unless_one_is_stated() {
        for text in ["2026-11-21 03:36:21.1", "2026-11-21T03:36"] {
            let error = parse_time(text, None, NOW).unwrap_err();
            assert!(error.what.contains("no time zone") && error.hint.contains(&format!("'{text}Z'")), "{error:?}");
        }
        assert_eq!(parse_time("1 hour ago", None, NOW), Ok(PgTime(NOW.0 - 3_600_000_000)));
        assert_eq!(parse_time("2026-11-21 03:36Z", None, NOW), parse_time("2026-11-21 03:36", Some(&Zone::utc()), NOW));
        for (text, zone) in [("2026-11-21 03:36+01", Some("+01")), ("2026-11-21 03:36", None), ("1 hour ago", None)] {
            assert_eq!(stated_zone(text).map(|zone| zone.to_string()).as_deref(), zone, "{text}");
        }
    }

    #[test]
    fn transactions_are_read_as_the_server_reads_them_or_refused() {
        for (text, expected) in [("3", Some(3)), ("700", Some(700)), ("4294967999", Some(703)), ("4294967295", Some(u32::MAX))] {
            assert_eq!(Xid::parse(text).ok().map(Xid::get), expected, "{text}");
        }
        for text in ["", "0", "2", "0700", "007", "+700", "-700", " 700", "0x2BC", "700 ", "99999999999999999999"] {
            assert!(Xid::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_read() {
        for us in [0, 1, -1, 846_990_123_456_789, -846_990_123_456_789] {
            assert_eq!(parse_time(&show(PgTime(us)), Some(&Zone::utc()), NOW), Ok(PgTime(us)));
        }
        assert!(show(PgTime(i64::MAX)).contains("us"));
    }

    #[test]
    fn relative_times_count_from_now() {
        for (text, seconds) in
            [("10 minutes ago", 600), ("1 hour ago", 3600), ("90s ago", 90), ("2 days ago", 172_800), ("0 s ago", 0)]
        {
            assert_eq!(parse_time(text, Some(&Zone::utc()), NOW), Ok(PgTime(NOW.0 - seconds * 1_000_000)), "{text}");
        }
        for text in [
            "ago",
            "minutes ago",
            "ten minutes ago",
            "-1 minutes ago",
            "1.5 hours ago",
            "1 month ago",
            "99999999999999999 weeks ago",
        ] {
            assert!(utc(text).is_err(), "{text}");
        }
    }

    #[test]
    fn other_times_are_refused() {
        for text in [
            "",
            "now",
            "2026-11-21",
            "03:36",
            "2026-11-21 3:36",
            "2026-02-30 00:00",
            "2026-11-21 24:00",
            "2026-11-21 03:36:60",
            "2026-11-21 03:36:21.",
            "2026-11-21 03:36:21.1234567",
            "2026-11-21 03:36:21+1",
            "2026-11-21 03:36:21+16",
            "2026-11-21 03:36:21+01:60",
            "2026-11-21 03:36:21 +01 CET",
            "21.11.2026 03:36",
            "2026-11-21 03:36:21é",
        ] {
            assert!(utc(text).is_err(), "{text}: {:?}", utc(text));
        }
        for zone in ["CET", "PST", "BST", "GMT", "cest"] {
            assert!(utc(&format!("2026-11-21 03:36:21 {zone}")).unwrap_err().contains("abbreviation"), "{zone}");
        }
        assert!(Zone::parse("Europe/Atlantis").unwrap_err().what.contains("time zone database"));
    }

    /// Only where the system has a time zone database.
    #[test]
    fn a_named_zone_with_a_clock_that_is_put_back() {
        let Ok(zone) = Zone::parse("Europe/Amsterdam") else { return };
        let parse = |text| parse_time(text, Some(&zone), NOW).map(show).map_err(|e| e.what);
        assert_eq!(parse("2026-07-01 12:00").as_deref(), Ok("2026-07-01 10:00:00.000000+00:00"));
        assert!(parse("2026-10-25 02:30").unwrap_err().contains("twice"));
        assert!(parse("2026-03-29 02:30").unwrap_err().contains("does not exist"));
    }

    #[test]
    fn timelines_and_transactions() {
        assert_eq!(TargetTimeline::parse("latest"), Ok(TargetTimeline::Latest));
        assert_eq!(TargetTimeline::parse("current"), Ok(TargetTimeline::Current));
        assert_eq!(TargetTimeline::parse("12"), Ok(TargetTimeline::Number(Timeline(12))));
        assert_eq!(TargetTimeline::parse("0xC"), Ok(TargetTimeline::Number(Timeline(12))));
        for text in ["", "0", "0x", "0x0", "010", "00000002", "-1", "+1", "4294967296", "Latest", "1 "] {
            assert!(TargetTimeline::parse(text).is_err(), "{text}");
        }
        assert_eq!(Xid::parse("4294968296").map(Xid::get), Ok(1000));
        for text in ["", "0", "2", "4294967296", "-5", "x"] {
            assert!(Xid::parse(text).is_err(), "{text}");
        }
    }
}
