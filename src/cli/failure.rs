//! How a command says why it failed: as text, or with `--json` as one line of JSON. Both go to standard error.

use super::exit::kind_word;
use super::lines::{Lines, plain_json};
use super::{render, stderr};
use crate::error::{Error, Kind};
use crate::raw_text::plain;
use crate::report::failure::FailureReport;
use clap::error::ErrorKind;
use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the command was asked for JSON. Also a panic and the watchdog say it that way, and they have no arguments.
static AS_JSON: AtomicBool = AtomicBool::new(false);

/// Notes whether JSON is asked for, also by arguments that may be wrong otherwise.
pub(super) fn note_arguments(arguments: &[OsString]) {
    let mut options = arguments.iter().skip(1).take_while(|argument| *argument != "--");
    AS_JSON.store(options.any(|argument| argument == "--json"), Ordering::Relaxed);
}

/// Whether JSON is asked for.
pub(super) fn is_json() -> bool {
    AS_JSON.load(Ordering::Relaxed)
}

/// Says why the command failed, and with which code it exits.
pub(super) fn say(error: &Error, exit: u8) {
    if is_json() {
        stderr::write(&json(error, exit));
    } else {
        stderr::write(render::failure::text(error).as_str());
    }
}

/// One line.
fn json(error: &Error, exit: u8) -> String {
    let report = FailureReport::new(error, kind_word(error.kind), exit);
    // Texts and a number always serialize.
    format!("{}\n", plain_json(&serde_json::to_string(&report).unwrap_or_default()))
}

/// Says what is wrong with the arguments.
pub(super) fn say_usage(error: &clap::Error, exit: u8) {
    if is_json() {
        say(&usage(error), exit);
    } else {
        let mut out = Lines::new();
        out.text("", &error.render().to_string());
        stderr::write(out.as_str());
    }
}

/// What the parser says in several lines: what is wrong, what could be meant, how the command is used, where help is.
fn usage(error: &clap::Error) -> Error {
    const HELP: &str = "see 'walvis --help'";
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Error::new(Kind::Usage, "no command is given").hint(HELP);
    }
    let rendered = error.render().to_string();
    let mut paragraphs = rendered.trim().split("\n\n");
    let first = paragraphs.next().unwrap_or_default();
    let what: Vec<&str> = first.trim_start_matches("error: ").lines().map(str::trim).collect();
    let rest: Vec<&str> = paragraphs.filter(|paragraph| !paragraph.starts_with("For more information")).collect();
    Error::new(Kind::Usage, plain(&what.join(" "))).hint(HELP).detail(rest.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Cli;
    use clap::Parser;
    use serde_json::Value;

    #[test]
    fn an_error_is_one_line_of_json() {
        let error = Error::new(Kind::Server, "it said no\u{9b}").hint("try again").detail("one\ntwo");
        let line = json(&error, 17);
        assert!(line.ends_with('\n') && line.lines().count() == 1 && !line.contains('\u{9b}'), "{line}");
        let parsed: Value = serde_json::from_str(&line).unwrap();
        let expected = serde_json::json!({"error": {
            "kind": "server", "exit": 17, "message": "it said no\u{9b}", "hint": "try again", "detail": "one\ntwo",
        }});
        assert_eq!(parsed, expected);
        let parsed: Value = serde_json::from_str(&json(&Error::new(Kind::Bug, "x"), 70)).unwrap();
        assert_eq!(parsed, serde_json::json!({"error": {"kind": "bug", "exit": 70, "message": "x", "hint": null}}));
    }

    #[test]
    fn what_the_parser_says_has_a_message_of_one_line() {
        for (arguments, message, detail) in [
            (&["walvis", "lst"][..], "unrecognized subcommand 'lst'", "list"),
            (&["walvis", "fetch-wal"], "the following required arguments were not provided: <NAME> <DESTINATION>", "Usage"),
            (&["walvis", "list", "--nonsense"], "unexpected argument '--nonsense' found", "Usage"),
            (&["walvis"], "no command is given", ""),
        ] {
            let error = usage(&Cli::try_parse_from(arguments).unwrap_err());
            assert_eq!((error.kind, error.what.as_str()), (Kind::Usage, message));
            assert!(error.hint.is_some() && error.detail.as_deref().unwrap_or_default().contains(detail), "{error:?}");
        }
    }
}
