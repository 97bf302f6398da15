//! A moment, as reports have it.

use crate::pg::scan::PgTime;
use crate::pg::target::show;
use serde::{Serialize, Serializer};
use std::fmt;

/// A moment in UTC, to the microsecond. People read it as the server writes it; JSON has it as RFC 3339 with `T` and
/// `Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(PgTime);

impl Time {
    /// Of a number of microseconds since 1970 UTC; `None` for what PostgreSQL cannot express.
    pub fn from_unix_us(unix_us: i64) -> Option<Self> {
        PgTime::from_unix_us(unix_us).map(Self)
    }

    /// As the server has it.
    pub fn get(self) -> PgTime {
        self.0
    }
}

impl From<PgTime> for Time {
    fn from(time: PgTime) -> Self {
        Self(time)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show(self.0))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.unix_us().and_then(|us| jiff::Timestamp::from_microsecond(us).ok()) {
            Some(moment) => serializer.collect_str(&format_args!("{moment:.6}")),
            // RFC 3339 ends with the year 9999.
            None => serializer.collect_str(self),
        }
    }
}

#[cfg(test)]
impl schemars::JsonSchema for Time {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": "date-time"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_and_programs_read_the_same_moment() {
        let time = Time::from_unix_us(1_763_696_181_100_000).unwrap();
        assert_eq!(time.to_string(), "2025-11-21 03:36:21.100000+00:00");
        assert_eq!(serde_json::to_string(&time).unwrap(), "\"2025-11-21T03:36:21.100000Z\"");
        let late = Time::from(PgTime(i64::MAX / 2));
        assert_eq!(serde_json::to_string(&late).unwrap(), format!("\"{late}\""));
    }
}
