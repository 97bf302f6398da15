//! A setting of a PostgreSQL server.

use serde::Serialize;

/// A line of `postgresql.auto.conf`.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Setting {
    /// The setting.
    pub name: &'static str,
    /// Its value.
    pub value: String,
}

impl Setting {
    /// A setting and its value.
    pub fn new(name: &'static str, value: String) -> Self {
        Self { name, value }
    }
}
