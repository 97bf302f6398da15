//! Values that are checked by their row in the table of settings: bounds of numbers, and words to choose from.
//!
//! Lives here: the checks that need nothing but the row. Depends on `given`, `invalid` and `setting`.

use std::fmt::Debug;
use std::time::Duration;

use super::given::{Given, Item, Value};
use super::invalid::wrong_value;
use super::setting::{Fallback, Kind, Setting, Table};
use crate::error::{Error, Kind as ErrorKind};
use crate::limits::MAX_PERIOD;

/// A time limit, or what counts if nobody set it.
pub(super) fn seconds(given: &Given, setting: &Setting) -> Result<Duration, Error> {
    match (given.get(setting), setting.fallback) {
        (Some(item), _) => Ok(Duration::from_secs(whole(item, &item.name())?.unsigned_abs())),
        (None, Fallback::Time(time)) => Ok(time),
        (None, _) => Err(Error::new(ErrorKind::Bug, format!("{} has no time that counts if nobody set it", setting.name))),
    }
}

/// A number in the bounds of its setting.
fn whole(item: &Item, name: &str) -> Result<i64, Error> {
    let Value::Number(number) = item.value else { return Err(wrong_value(name, &item.value, item.setting.kind)) };
    let is_in_bounds = match item.setting.kind {
        Kind::Whole(least, most) => (least..=most).contains(&number),
        Kind::Seconds(most) => u64::try_from(number).is_ok_and(|seconds| (1..=most).contains(&seconds)),
        _ => true,
    };
    if is_in_bounds { Ok(number) } else { Err(wrong_value(name, number, item.setting.kind)) }
}

/// A period such as `7d`: a whole number from 1 on, and `s`, `m` (minutes), `h`, `d` or `w`. `None` for anything else,
/// and for what is longer than [`MAX_PERIOD`].
pub fn parse_period(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let number = text.strip_suffix(unit)?;
    let unit_s = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        'w' => 7 * 24 * 3600,
        _ => return None,
    };
    if number.starts_with('0') || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let period = Duration::from_secs(number.parse::<u64>().ok()?.checked_mul(unit_s)?);
    (period <= MAX_PERIOD).then_some(period)
}

/// A period as [`parse_period`] reads it, in the largest unit that it is a whole number of, days at most.
pub fn show_period(period: Duration) -> String {
    let seconds = period.as_secs();
    let units = [("d", 24 * 3600), ("h", 3600), ("m", 60)];
    let unit = units.into_iter().find(|(_, unit_s)| seconds > 0 && seconds.is_multiple_of(*unit_s));
    unit.map_or_else(|| format!("{seconds}s"), |(name, unit_s)| format!("{}{name}", seconds / unit_s))
}

/// What somebody set for one repository; messages name it by its URL.
pub(super) struct OfRepository<'a> {
    pub(super) given: &'a Given,
    pub(super) url: &'a str,
}

impl<'a> OfRepository<'a> {
    /// A number in its bounds.
    pub(super) fn whole(&self, setting: &Setting) -> Result<Option<i64>, Error> {
        self.given.get(setting).map(|item| whole(item, &self.name(setting))).transpose()
    }

    /// One of the words that the setting takes.
    pub(super) fn choice(&self, setting: &Setting) -> Result<Option<&'a str>, Error> {
        let Some(word) = self.given.text(setting) else { return Ok(None) };
        match setting.kind {
            Kind::Choice(words) if !words.contains(&word) => Err(self.wrong(setting, word)),
            _ => Ok(Some(word)),
        }
    }

    /// A period.
    pub(super) fn period(&self, setting: &Setting) -> Result<Option<Duration>, Error> {
        let Some(text) = self.given.text(setting) else { return Ok(None) };
        parse_period(text).map(Some).ok_or_else(|| self.wrong(setting, text))
    }

    /// That a setting does not take this value.
    pub(super) fn wrong(&self, setting: &Setting, value: impl Debug) -> Error {
        wrong_value(&self.name(setting), value, setting.kind)
    }

    fn name(&self, setting: &Setting) -> String {
        match setting.table {
            Table::Retention | Table::Evidence => format!("{} of {}", setting.table.path_of(setting.name), self.url),
            _ => format!("{} of {}", setting.name, self.url),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_a_number_and_a_unit() {
        let day = 24 * 3600;
        for (text, seconds) in
            [("1s", 1), ("90m", 90 * 60), ("24h", day), ("7d", 7 * day), ("2w", 14 * day), ("36525d", 36_525 * day)]
        {
            assert_eq!(parse_period(text), Some(Duration::from_secs(seconds)), "{text}");
            assert_eq!(parse_period(&show_period(Duration::from_secs(seconds))), parse_period(text), "{text}");
        }
        for text in
            ["", "d", "7", "0d", "07d", "-7d", "+7d", "7 d", "7D", "1.5d", "7y", "36526d", "99999999999999999999d", "7\u{e4}"]
        {
            assert_eq!(parse_period(text), None, "{text}");
        }
    }
}
