//! What a setting is: the names it goes by, the values it takes, and who is given it.
//!
//! Lives here: the types of the table in [`definitions`](super::definitions), and what follows from one row of it, such
//! as the help of a flag. May not live here: the rows, and values that somebody set. Depends on nothing.

use std::time::Duration;

/// One setting. Its names stand here and nowhere else.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its key in the settings file; of one that is not in the file, what it would be.
    pub name: &'static str,
    /// Where in the settings file it stands.
    pub table: Table,
    /// The environment variable.
    pub variable: Option<&'static str>,
    /// The flag.
    pub flag: Option<Flag>,
    /// Which values it takes.
    pub kind: Kind,
    /// What counts if nobody sets it.
    pub fallback: Fallback,
    /// One line without a full stop: the help of the flag, and the first line of the reference.
    pub help: &'static str,
    /// What else a reader of the reference has to know; empty, or whole sentences.
    pub more: &'static str,
    /// What a flag or variable applies to.
    pub reach: Reach,
    /// Whether a program that runs later on this one's behalf gets it.
    pub child: Child,
}

/// A table of the settings file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// None: a flag or a variable alone.
    NotInFile,
    /// The top of the file.
    Top,
    /// One of the tables `[[repository]]`.
    Repository,
    /// The table `[repository.s3]` of a repository.
    S3,
    /// The table `[repository.retention]` of a repository.
    Retention,
    /// The table `evidence` of the latter.
    Evidence,
}

/// A flag.
#[derive(Debug, PartialEq, Eq)]
pub struct Flag {
    /// Its name, without the hyphens.
    pub long: &'static str,
    /// Its short form.
    pub short: Option<char>,
    /// What its value is called; empty if it takes none.
    pub value_name: &'static str,
    /// The commands that have it; none for every command.
    pub commands: &'static [&'static str],
}

/// Which values a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// The path of a file or directory.
    Path,
    /// A connection string of libpq.
    Conninfo,
    /// A command for the shell.
    ShellCommand,
    /// A whole number of seconds, at least 1 and at most the given number.
    Seconds(u64),
    /// A period: a number and a unit.
    Period,
    /// A whole number from the first to the second.
    Whole(i64, i64),
    /// True or false.
    Truth,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A secret, which stays where it is: only whether it is there is noted.
    Secret,
    /// Nothing: a flag that is there or not.
    Switch,
    /// Nothing: a flag that may be given several times.
    Count,
}

/// What counts if nobody sets a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// Nothing.
    None,
    /// This value.
    Value(&'static str),
    /// This time.
    Time(Duration),
    /// What these words say.
    Words(&'static str),
}

/// What a flag or variable applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The whole process.
    Process,
    /// It chooses the repository, the only one that is then used.
    ChoosesRepository,
    /// The one repository; with several it is an error.
    OneRepository,
    /// Every repository.
    EveryRepository,
    /// The one repository, whatever the file says of its key; with several those that the file gives no key.
    RepositoriesWithoutKey,
}

/// Whether a program that runs later on this one's behalf, such as the `restore_command` of a restored server, gets a
/// setting that it does not find in the settings file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Child {
    /// It does without.
    DoesWithout,
    /// It gets what a flag or variable said.
    Gets,
    /// It gets what counts, wherever that came from.
    AlwaysGets,
    /// It needs it in an environment of its own: a secret stands in no arguments and in no file that we write.
    NeedsInItsEnvironment,
}

impl Table {
    /// How the settings file begins it.
    pub fn header(self) -> &'static str {
        match self {
            Self::NotInFile | Self::Top => "",
            Self::Repository => "[[repository]]",
            Self::S3 => "[repository.s3]",
            Self::Retention => "[repository.retention]",
            Self::Evidence => "[repository.retention.evidence]",
        }
    }

    /// What its keys begin with in messages.
    fn prefix(self) -> &'static str {
        match self {
            Self::NotInFile | Self::Top => "",
            Self::Repository => "repository.",
            Self::S3 => "repository.s3.",
            Self::Retention => "repository.retention.",
            Self::Evidence => "repository.retention.evidence.",
        }
    }

    /// Its key in the table that it stands in.
    pub fn key(self) -> Option<&'static str> {
        match self {
            Self::NotInFile | Self::Top => None,
            Self::Repository => Some("repository"),
            Self::S3 => Some("s3"),
            Self::Retention => Some("retention"),
            Self::Evidence => Some("evidence"),
        }
    }

    /// The tables that stand in it.
    pub fn inner(self) -> &'static [Self] {
        match self {
            Self::NotInFile | Self::S3 | Self::Evidence => &[],
            Self::Top => &[Self::Repository],
            Self::Repository => &[Self::S3, Self::Retention],
            Self::Retention => &[Self::Evidence],
        }
    }

    /// A key of this table, as messages name it.
    pub fn path_of(self, key: &str) -> String {
        format!("{}{key}", self.prefix())
    }
}

impl Kind {
    /// What to give, for hints: it completes "give …".
    pub fn wanted(self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Conninfo => "a connection string, as for psql".to_owned(),
            Self::ShellCommand => "a command for the shell".to_owned(),
            Self::Seconds(most) => format!("1 to {most} seconds"),
            Self::Period => "a number and one of the units s, m, h, d, w, such as 7d, at most 100 years".to_owned(),
            Self::Whole(least, most) => format!("{least} to {most}"),
            Self::Truth => "true or false".to_owned(),
            Self::Choice(words) => one_of(words),
            Self::Secret => "text that only its owner knows".to_owned(),
            Self::Switch | Self::Count => "no value".to_owned(),
        }
    }
}

fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

impl Fallback {
    /// As text, if it is one value.
    pub fn value(self) -> Option<String> {
        match self {
            Self::None | Self::Words(_) => None,
            Self::Value(value) => Some(value.to_owned()),
            Self::Time(time) => Some(time.as_secs().to_string()),
        }
    }
}

impl Setting {
    /// Whether the settings file may have it.
    pub fn is_in_file(&self) -> bool {
        self.table != Table::NotInFile
    }

    /// Whether every command has its flag.
    pub fn is_global_flag(&self) -> bool {
        self.flag.as_ref().is_some_and(|flag| flag.commands.is_empty())
    }

    /// The name of its flag, without the hyphens; its own name if it has none.
    pub fn long(&self) -> &'static str {
        self.flag.as_ref().map_or(self.name, |flag| flag.long)
    }

    /// What the value of its flag is called.
    pub fn value_name(&self) -> &'static str {
        self.flag.as_ref().map_or("", |flag| flag.value_name)
    }

    /// The help of its flag.
    pub fn flag_help(&self) -> String {
        let fallback = match self.fallback {
            Fallback::Words(words) => Some(words.to_owned()),
            fallback => fallback.value(),
        };
        let facts: Vec<String> =
            [fallback.map(|value| format!("default: {value}")), self.variable.map(|variable| format!("environment: {variable}"))]
                .into_iter()
                .flatten()
                .collect();
        if facts.is_empty() { self.help.to_owned() } else { format!("{} [{}]", self.help, facts.join("; ")) }
    }

    /// How to set it, for hints: `--key-file, WALVIS_KEY_FILE or key_file in the settings`.
    pub fn ways_to_set(&self) -> String {
        let ways: Vec<String> = [
            self.flag.as_ref().map(|flag| format!("--{}", flag.long)),
            self.variable.map(str::to_owned),
            self.is_in_file().then(|| format!("{} in the settings", self.name)),
        ]
        .into_iter()
        .flatten()
        .collect();
        one_of(&ways.iter().map(String::as_str).collect::<Vec<_>>())
    }
}
