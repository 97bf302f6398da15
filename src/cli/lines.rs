//! Text for people, line by line.
//!
//! Lives here: [`Lines`], the only way to standard output and standard error for what is no JSON. Names come from the
//! log, the server, the store and the settings, and anybody who chose them may have had a terminal in mind: none of
//! them moves a cursor, sets a title, turns the direction of writing, or begins a line of its own, whether a terminal
//! reads it or a file that is read on one at night.

use std::fmt;

use crate::raw_text::plain;

/// Lines of text. Each [`writeln!`] makes exactly one: what a value in it holds of line feeds and other control
/// characters is escaped.
#[derive(Debug, Default)]
pub(super) struct Lines(String);

impl Lines {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// What [`writeln!`] calls. It cannot fail.
    pub(super) fn write_fmt(&mut self, line: fmt::Arguments<'_>) {
        let line = line.to_string();
        self.0.push_str(&plain(line.strip_suffix('\n').unwrap_or(&line)));
        self.0.push('\n');
    }

    /// A text whose line breaks are meant.
    pub(super) fn text(&mut self, indent: &str, text: &str) {
        for line in text.lines() {
            writeln!(self, "{indent}{line}");
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// JSON as it is, but with the characters escaped in it that JSON lets through and a terminal acts upon: the value
/// stays the same.
pub(super) fn plain_json(text: &str) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Outside of strings JSON has line feeds, and nothing else of these.
        if c == '\n' || !crate::raw_text::is_hazardous(c) {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing into memory cannot fail.
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_ends_no_line() {
        let mut lines = Lines::new();
        let (name, other) = ("x\nall is well\r\x1b]0;owned\x07\u{9b}2J\u{202e}", "more\n");
        writeln!(lines, "name {name}");
        writeln!(lines, "{other}");
        writeln!(lines);
        lines.text("    ", "one\n\x1b[2Jtwo\n");
        let expected = "name x\\nall is well\\r\\u{1b}]0;owned\\u{7}\\u{9b}2J\\u{202e}\nmore\\n\n\n    one\n    \\u{1b}[2Jtwo\n";
        assert_eq!(lines.as_str(), expected);
    }

    #[test]
    fn json_keeps_its_value() {
        let value = serde_json::json!({"name": "é\n\x1b\x7f\u{9b}\u{202e}\u{2028}\u{e0041}\u{1f600}"});
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let safe = plain_json(&text);
            assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
            assert!(!safe.chars().any(|c| c != '\n' && crate::raw_text::is_hazardous(c)), "{safe}");
            assert!(safe.contains('é') && safe.contains('\u{1f600}'));
        }
    }
}
