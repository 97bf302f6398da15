//! Logs go to standard error, as text or JSON. Lines are written whole; a closed standard error is not a reason to
//! fail. Whatever an event holds, it is one line, and moves no terminal.

use std::io;

use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;

use super::lines::plain_json;
use crate::config::definitions::LOG;
use crate::raw_text::plain;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogFormat {
    Text,
    Json,
}

impl LogFormat {
    /// By the word of the flag, or else of the variable. A word that is none must not keep a command from running.
    pub(super) fn of(flag: Option<&str>) -> Self {
        let variable = LOG.variable.and_then(|name| std::env::var(name).ok());
        match flag.or(variable.as_deref()) {
            Some("json") => Self::Json,
            _ => Self::Text,
        }
    }
}

/// Starts logging; the second call of a process has no effect.
pub(super) fn start(format: LogFormat, verbose: u8) {
    let level = match verbose {
        0 => Level::INFO,
        1 => Level::DEBUG,
        _ => Level::TRACE,
    };
    // Libraries below speak only when asked for.
    let builder =
        tracing_subscriber::fmt().with_max_level(level).with_writer(Stderr { format, libraries: verbose > 1 }).with_ansi(false);
    // It fails only when logging has started already.
    let _ = match format {
        LogFormat::Text => builder.without_time().with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

/// Lets pass what comes from Walvis, and from libraries if asked.
struct Stderr {
    format: LogFormat,
    libraries: bool,
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Box<dyn io::Write>;

    fn make_writer(&'a self) -> Self::Writer {
        Box::new(Quiet(self.format))
    }

    fn make_writer_for(&'a self, meta: &tracing::Metadata<'_>) -> Self::Writer {
        if self.libraries || meta.target().starts_with("walvis") { Box::new(Quiet(self.format)) } else { Box::new(io::sink()) }
    }
}

/// Standard error; what cannot be written is lost. Each event comes in one piece.
struct Quiet(LogFormat);

impl io::Write for Quiet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        super::progress::erase();
        let event = String::from_utf8_lossy(bytes);
        let line = event.strip_suffix('\n').unwrap_or(&event);
        let line = match self.0 {
            LogFormat::Text => plain(line),
            LogFormat::Json => plain_json(line).into(),
        };
        let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
