//! Values that are checked by their row in the table of settings: bounds of numbers, and words to choose from.
//!
//! Lives here: the checks that need nothing but the row. Depends on `given`, `invalid` and `setting`.

use std::fmt::Debug;
use std::time::Duration;

use super::given::{Given, Item, Value};
use super::invalid::wrong_value;
use super::setting::{Fallback, Kind, Setting};
use crate::error::{Error, Kind as ErrorKind};

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

    /// That a setting does not take this value.
    pub(super) fn wrong(&self, setting: &Setting, value: impl Debug) -> Error {
        wrong_value(&self.name(setting), value, setting.kind)
    }

    fn name(&self, setting: &Setting) -> String {
        format!("{} of {}", setting.name, self.url)
    }
}
