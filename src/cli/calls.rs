//! The command lines that PostgreSQL calls with, for one file after another: read from the table of settings alone.
//! clap first makes the arguments of every command there is, which takes longer than a call that finds its work done.
//!
//! Lives here: the form that is understood, and it is a narrow one. May not live here: what is wrong with a line: all
//! others, wrong ones included, are for clap.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::args::{Cli, Command, FetchArgs, OnError, PushArgs};
use super::flags::{Global, global_flags};
use crate::config::setting::{Kind, Setting};
use crate::config::{Flags, Value};

/// `push-wal PATH` or `fetch-wal NAME DESTINATION`, with flags of every command that take a text or a path, each at
/// most once and apart from its value. `None`: clap has to read it.
pub(super) fn read(arguments: &[OsString]) -> Option<Cli> {
    let mut given: Vec<(&Setting, &OsStr)> = Vec::new();
    let mut plain: Vec<&OsStr> = Vec::new();
    let mut words = arguments.iter().skip(1);
    while let Some(word) = words.next() {
        let Some(long) = word.to_str().and_then(|word| word.strip_prefix("--")) else {
            plain.push(ordinary(word)?);
            continue;
        };
        let setting = global_flags().find(|setting| setting.long() == long)?;
        if given.iter().any(|(other, _)| *other == setting) {
            return None;
        }
        given.push((setting, ordinary(words.next()?)?));
    }
    let command = match *plain.as_slice() {
        [command, path] if command == "push-wal" => {
            Command::PushWal(PushArgs { paths: vec![path.into()], missed: false, ahead: false })
        }
        [command, name, destination] if command == "fetch-wal" => Command::FetchWal(FetchArgs {
            name: name.to_str()?.to_owned(),
            destination: destination.into(),
            on_error: OnError::Auto,
            ahead: false,
        }),
        _ => return None,
    };
    let mut flags = Flags::default();
    // In the order of the table, as clap gives them.
    for setting in global_flags() {
        if let Some((_, text)) = given.iter().find(|(other, _)| *other == setting) {
            flags.set(setting, value(setting, text)?);
        }
    }
    Some(Cli { global: Global(flags), command })
}

/// A word that is something and no flag.
fn ordinary(word: &OsStr) -> Option<&OsStr> {
    word.as_encoded_bytes().first().is_some_and(|first| *first != b'-').then_some(word)
}

fn value(setting: &Setting, text: &OsStr) -> Option<Value> {
    match setting.kind {
        Kind::Path => Some(Value::Path(PathBuf::from(text))),
        Kind::Text | Kind::Conninfo | Kind::ShellCommand | Kind::Period => text.to_str().map(Value::from),
        // What else there is has to be checked, or takes no value.
        Kind::Seconds(_) | Kind::Whole(..) | Kind::Choice(_) | Kind::Secret | Kind::Switch | Kind::Truth | Kind::Count => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use clap::Parser;
    use proptest::prelude::*;

    use super::*;

    fn line(words: &[&str]) -> Vec<OsString> {
        ["walvis"].iter().chain(words).map(OsString::from).collect()
    }

    #[test]
    fn the_lines_that_the_documents_recommend_are_read_here() {
        let lines: [&[&str]; 5] = [
            &["push-wal", "pg_wal/000000010000000000000001"],
            &["fetch-wal", "000000010000000000000001", "pg_wal/RECOVERYXLOG"],
            &["--config", "/etc/walvis/b.toml", "push-wal", "pg_wal/000000010000000000000001"],
            &["push-wal", "--cluster", "b", "pg_wal/1", "--key-file", "/etc/key"],
            &["--repository", "file:///push-wal", "fetch-wal", "00000002.history", "x"],
        ];
        for words in lines {
            assert!(read(&line(words)).is_some(), "{words:?}");
        }
    }

    #[test]
    fn whatever_may_be_wrong_or_meant_otherwise_is_for_clap() {
        let lines: [&[&str]; 14] = [
            &[],
            &["push-wal"],
            &["push-wal", "a", "b"],
            &["push-wal", ""],
            &["push-wal", "-x"],
            &["push-wal", "--", "a"],
            &["push-wal", "--missed"],
            &["push-wal", "--ahead", "a"],
            &["push-wal", "a", "--cluster"],
            &["push-wal", "a", "--cluster", "-b"],
            &["push-wal", "a", "--cluster", "b", "--cluster", "b"],
            &["push-wal", "a", "--timeout", "5"],
            &["fetch-wal", "a", "b", "--on-error", "stop"],
            &["fetch-wal", "a", "b", "--json"],
        ];
        for words in lines {
            assert!(read(&line(words)).is_none(), "{words:?}");
        }
        assert!(read(&[]).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]

        /// What is read here, clap reads too, and no otherwise.
        #[test]
        fn clap_says_the_same(picked in prop::collection::vec(0..100_usize, 0..9)) {
            let flags: Vec<String> = global_flags().map(|setting| format!("--{}", setting.long())).collect();
            let plain = ["push-wal", "fetch-wal", "list", "a", "", "-v", "-", "--", "--ahead", "--missed", "--cluster=x", "7", "text"];
            let mut words = line(&[]);
            // More often what makes sense.
            words.extend(picked.iter().map(|pick| match pick {
                0..20 => plain[pick % 2].into(),
                20..40 => "some/path".into(),
                40..50 => OsString::from_vec(b"a\xff".to_vec()),
                50..75 => flags[pick % flags.len()].clone().into(),
                _ => plain[pick % plain.len()].into(),
            }));
            if let Some(cli) = read(&words) {
                let told = Cli::try_parse_from(&words);
                prop_assert_eq!(format!("{cli:?}"), format!("{:?}", told.unwrap()), "{:?}", words);
            }
        }
    }
}
