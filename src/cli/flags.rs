//! The flags of every command. Their arguments of clap follow from the table of settings.
//!
//! Lives here: from rows of the table to arguments of clap, and from what it found to [`Flags`]. May not live here:
//! names and help of flags (`config::definitions`), and flags of single commands (`args`).

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};
use std::path::PathBuf;

use crate::config::definitions::{ALL, JSON, LOG, VERBOSE};
use crate::config::setting::{Kind, Setting};
use crate::config::{Flags, Value};

const HEADING: &str = "Options of every command";

/// What the flags of every command say.
#[derive(Debug, Default)]
pub(super) struct Global(pub(super) Flags);

impl Global {
    /// Whether results are printed as JSON.
    pub(super) fn json(&self) -> bool {
        self.0.has(&JSON)
    }

    /// The form of the log, if it is given.
    pub(super) fn log(&self) -> Option<&str> {
        self.0.text(&LOG)
    }

    /// How much more is logged than usual.
    pub(super) fn verbosity(&self) -> u8 {
        u8::try_from(self.0.count(&VERBOSE)).unwrap_or(u8::MAX)
    }
}

/// The settings that are flags of every command.
pub(super) fn global_flags() -> impl Iterator<Item = &'static Setting> {
    ALL.into_iter().filter(|setting| setting.is_global_flag())
}

/// Whether a flag is followed by a value.
pub(super) fn takes_value(setting: &Setting) -> bool {
    !matches!(setting.kind, Kind::Switch | Kind::Truth | Kind::Count)
}

fn argument(setting: &'static Setting) -> Arg {
    let argument = Arg::new(setting.name).long(setting.long()).help(setting.flag_help()).help_heading(HEADING).global(true);
    let argument = match setting.flag.as_ref().and_then(|flag| flag.short) {
        Some(short) => argument.short(short),
        None => argument,
    };
    let argument = match setting.value_name() {
        "" => argument,
        name => argument.value_name(name),
    };
    match setting.kind {
        Kind::Switch | Kind::Truth => argument.action(ArgAction::SetTrue),
        Kind::Count => argument.action(ArgAction::Count),
        Kind::Path => argument.value_parser(value_parser!(PathBuf)),
        // Zero and what is too much are refused with everybody else's values.
        Kind::Seconds(_) | Kind::Whole(..) => argument.value_parser(value_parser!(i64).range(0..)),
        Kind::Choice(words) => argument.value_parser(PossibleValuesParser::new(words)),
        Kind::Text | Kind::Conninfo | Kind::ShellCommand | Kind::Period | Kind::Secret => {
            argument.value_parser(value_parser!(String))
        }
    }
}

fn value(setting: &Setting, matches: &ArgMatches) -> Option<Value> {
    match setting.kind {
        Kind::Switch | Kind::Truth => matches.get_flag(setting.name).then_some(Value::Truth(true)),
        Kind::Count => Some(i64::from(matches.get_count(setting.name))).filter(|count| *count > 0).map(Value::Number),
        Kind::Path => matches.get_one::<PathBuf>(setting.name).cloned().map(Value::Path),
        Kind::Seconds(_) | Kind::Whole(..) => matches.get_one::<i64>(setting.name).copied().map(Value::Number),
        Kind::Text | Kind::Conninfo | Kind::ShellCommand | Kind::Choice(_) | Kind::Period | Kind::Secret => {
            matches.get_one::<String>(setting.name).cloned().map(Value::Text)
        }
    }
}

impl Args for Global {
    fn augment_args(command: Command) -> Command {
        command.args(global_flags().map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Global {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut global = Self::default();
        global.update_from_arg_matches(matches)?;
        Ok(global)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in global_flags() {
            if let Some(value) = value(setting, matches) {
                self.0.set(setting, value);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::args::{Cli, Command as OurCommand};

    /// A value that a setting takes.
    fn sample(setting: &Setting) -> &'static str {
        match setting.kind {
            Kind::Path => "/sample path",
            Kind::Seconds(_) | Kind::Whole(..) => "7",
            Kind::Choice(words) => words.last().unwrap(),
            _ => "sample",
        }
    }

    #[test]
    fn every_global_flag_is_in_the_table() {
        let known: Vec<&str> = global_flags().map(Setting::long).collect();
        let told: Vec<String> = Cli::command()
            .get_arguments()
            .filter(|argument| argument.is_global_set())
            .filter_map(|argument| argument.get_long().map(str::to_owned))
            .collect();
        assert_eq!(told, known);
        // And what single commands have of the table they call by the same name.
        for setting in ALL {
            for command in setting.flag.as_ref().map_or(&[][..], |flag| flag.commands) {
                let told = Cli::command();
                let command = told.find_subcommand(command).unwrap_or_else(|| panic!("no command {command}"));
                assert!(command.get_arguments().any(|a| a.get_long() == Some(setting.long())), "{}", setting.long());
            }
        }
    }

    /// Before the command and after it, each flag says what was given.
    #[test]
    fn every_global_flag_is_read() {
        for setting in global_flags() {
            let flag = format!("--{}", setting.long());
            let takes_value = !setting.value_name().is_empty();
            let words: Vec<&str> = [flag.as_str()].into_iter().chain(takes_value.then(|| sample(setting))).collect();
            for line in [[&["walvis"][..], &words, &["list"]].concat(), [&["walvis", "list"][..], &words].concat()] {
                let cli = Cli::try_parse_from(&line).unwrap_or_else(|e| panic!("{line:?}: {e}"));
                assert!(matches!(cli.command, OurCommand::List(_)) && cli.global.0.has(setting), "{line:?}");
                let value = match setting.kind {
                    Kind::Path => Value::Path(sample(setting).into()),
                    Kind::Seconds(_) | Kind::Whole(..) => Value::Number(7),
                    Kind::Switch => Value::Truth(true),
                    Kind::Count => Value::Number(1),
                    _ => Value::from(sample(setting)),
                };
                assert_eq!(format!("{:?}", cli.global.0), format!("{:?}", Flags::default().with(setting, value)), "{line:?}");
            }
            let none = Cli::try_parse_from(["walvis", "list"]).unwrap();
            assert!(!none.global.0.has(setting));
        }
        for argument in Cli::command().get_arguments().filter(|argument| argument.is_global_set()) {
            let setting = global_flags().find(|setting| Some(setting.long()) == argument.get_long()).unwrap();
            assert_eq!(takes_value(setting), argument.get_action().takes_values(), "{}", setting.long());
        }
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("Time limit of the whole command [default: 300; environment: WALVIS_TIMEOUT_S]"), "{help}");
    }
}
