//! Standard output: reports whole, and lists line by line as they are found.

use super::lines::{Lines, plain_json};
use super::progress;
use crate::error::{Error, Kind};
use crate::raw_text::plain;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::ops::ControlFlow;

/// Prints a report, as JSON or as the text that `text` makes of it.
///
/// # Errors
/// When it cannot be written.
pub(super) fn report<T: serde::Serialize>(json: bool, report: &T, text: impl FnOnce(&T) -> Lines) -> Result<(), Error> {
    if json {
        let json = serde_json::to_string_pretty(report).map_err(|e| Error::new(Kind::Bug, e.to_string()))?;
        bytes(format!("{}\n", plain_json(&json)).as_bytes())
    } else {
        bytes(text(report).as_str().as_bytes())
    }
}

/// Prints what is ready to be printed.
///
/// # Errors
/// When it cannot be written.
pub(super) fn bytes(bytes: &[u8]) -> Result<(), Error> {
    progress::erase();
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).or_else(|e| output_error(&e))
}

/// A reader that has seen enough is no error.
fn output_error(error: &io::Error) -> Result<(), Error> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Ok(());
    }
    Err(Error::new(Kind::Config, format!("cannot write to standard output: {error}")))
}

/// A list that is printed as it is found.
pub(super) struct List {
    out: BufWriter<StdoutLock<'static>>,
    json: bool,
    failure: Option<io::Error>,
}

impl List {
    /// Nothing yet. Nobody else writes to standard output until it is finished.
    pub(super) fn begin(json: bool) -> Self {
        Self { out: BufWriter::new(io::stdout().lock()), json, failure: None }
    }

    /// Prints one line: as JSON, or as the text that `text` makes of it. Breaks when nothing more can be written.
    pub(super) fn line<T: serde::Serialize>(&mut self, line: &T, text: impl FnOnce(&T) -> String) -> ControlFlow<()> {
        let written = if self.json {
            let json = serde_json::to_string(line).map_err(io::Error::from);
            json.and_then(|json| writeln!(self.out, "{}", plain_json(&json)))
        } else {
            writeln!(self.out, "{}", plain(&text(line)))
        };
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => {
                self.failure.get_or_insert(e);
                ControlFlow::Break(())
            }
        }
    }

    /// Writes what is left; whether all was written. A reader that has seen enough is no error.
    ///
    /// # Errors
    /// When it could not be written.
    pub(super) fn finish(mut self) -> Result<bool, Error> {
        if let Err(e) = self.out.flush() {
            self.failure.get_or_insert(e);
        }
        match self.failure {
            Some(e) => output_error(&e).map(|()| false),
            None => Ok(true),
        }
    }
}
