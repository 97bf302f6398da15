//! Logs go to standard error, as text or JSON. Lines are written whole; a closed standard error is not a reason to fail.

use std::io;

use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;

use super::args::LogFormat;

/// Starts logging; the second call of a process has no effect.
pub(super) fn start(format: LogFormat, verbose: u8) {
    let level = match verbose {
        0 => Level::INFO,
        1 => Level::DEBUG,
        _ => Level::TRACE,
    };
    // Libraries below speak only when asked for.
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(Stderr { libraries: verbose > 1 }).with_ansi(false);
    // It fails only when logging has started already.
    let _ = match format {
        LogFormat::Text => builder.without_time().with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

/// Lets pass what comes from Walvis, and from libraries if asked.
struct Stderr {
    libraries: bool,
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Box<dyn io::Write>;

    fn make_writer(&'a self) -> Self::Writer {
        Box::new(Quiet)
    }

    fn make_writer_for(&'a self, meta: &tracing::Metadata<'_>) -> Self::Writer {
        if self.libraries || meta.target().starts_with("walvis") { Box::new(Quiet) } else { Box::new(io::sink()) }
    }
}

/// Standard error; what cannot be written is lost.
struct Quiet;

impl io::Write for Quiet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        super::progress::erase();
        let _ = io::stderr().lock().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
