//! `docs/SETTINGS.md`: the table of settings as a document.
//!
//! Lives here: its text. A test compares the file with it, and writes it anew when told so. Depends on `definitions`
//! and `setting`.

use super::definitions::{ALL, FOREIGN_PREFIXES, HELPER_VARIABLE};
use super::setting::{Child, Fallback, Kind, Reach, Setting, Table};
use crate::limits::REFERENCE_COLUMNS;

const HEAD: &str = "\
# Settings

<!-- Made from the table in src/config/definitions.rs by a test: do not edit it here. To write it anew:
     WALVIS_TEST_BLESS=1 cargo test --test it -- settings_reference -->
";

const INTRODUCTION: [&str; 4] = [
    "A flag wins over the environment, and the environment over the settings file. The file is `/etc/walvis/walvis.toml`, or \
     what `--config` or `WALVIS_CONFIG` names; one repository needs no file. [OPERATING.md](OPERATING.md) has an example. An \
     empty variable counts as unset. A key that is not known is an error; a variable that begins with `WALVIS_` and is not \
     known is warned about.",
    "Settings name commands that are run and directories that are written to. So as root a settings file that another user can change is \
     refused (10), and so are AWS's own files, such as `~/.aws/config`: each directory on the way counts, too. The message says who it is, \
     and how to end it. Secrets do not belong into it, and never on the command line: a settings file that other users can read and that holds one is \
     warned about. See [SECURITY-MODEL.md](SECURITY-MODEL.md).",
    "`pitr-restore` writes a `restore_command` that runs later, in another directory and environment. It carries what flags and variables \
     said, as far as fetching WAL depends on it: flags as flags, variables as variables that are set for the call, paths as absolute ones. \
     It carries no secret. The helpers that `push-wal` and `fetch-wal` start have the arguments and the environment of their call.",
    "Several repositories are written at the same time and read in the order of the file. A variable that is about one repository is an \
     error while there are several.",
];

/// The whole document.
pub fn reference() -> String {
    let mut out = HEAD.to_owned();
    for paragraph in INTRODUCTION {
        out.push('\n');
        wrap(&mut out, "", paragraph);
    }
    out.push_str("\n## Names\n\n| setting | variable | flag |\n|---|---|---|\n");
    for setting in ALL {
        let key = if setting.is_in_file() { code(&setting.table.path_of(setting.name)) } else { String::new() };
        let variable = setting.variable.map(code).unwrap_or_default();
        out.push_str(&format!("| {key} | {variable} | {} |\n", flag(setting).unwrap_or_default()));
    }
    for (title, introduction, table) in [
        ("Top of the file", "What is about the whole program.", Table::Top),
        ("`[[repository]]`", "One such table for each repository.", Table::Repository),
        ("`[repository.s3]`", "What only a repository in S3 has; it follows the `[[repository]]` that it belongs to.", Table::S3),
        (
            "`[repository.retention]`",
            "What a repository keeps; it follows the `[[repository]]` that it belongs to. A backup is kept if any rule keeps it. Without a \
             rule nothing is ever deleted. [RETENTION.md](RETENTION.md) says what each rule means.",
            Table::Retention,
        ),
        (
            "`[repository.retention.evidence]`",
            "What verifications remember; also written as `evidence = { keep_within = \"365d\" }` in `[repository.retention]`.",
            Table::Evidence,
        ),
        ("Not in the file", "What only flags and variables say.", Table::NotInFile),
    ] {
        out.push_str(&format!("\n## {title}\n"));
        wrap(&mut out, "", introduction);
        ALL.into_iter().filter(|setting| setting.table == table).for_each(|setting| describe(&mut out, setting));
    }
    out.push_str("\n## Variables that are no settings\n");
    let others: Vec<String> = FOREIGN_PREFIXES.iter().map(|prefix| code(&format!("{prefix}…"))).collect();
    wrap(
        &mut out,
        "",
        &format!(
            "`{HELPER_VARIABLE}` marks the helpers that Walvis itself starts. {} belong to tests and scripts.",
            others.join(" and ")
        ),
    );
    out
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn flag(setting: &Setting) -> Option<String> {
    let flag = setting.flag.as_ref()?;
    let short = flag.short.map(|short| format!("-{short}, ")).unwrap_or_default();
    let value = if flag.value_name.is_empty() { String::new() } else { format!(" {}", flag.value_name) };
    Some(code(&format!("{short}--{}{value}", flag.long)))
}

fn describe(out: &mut String, setting: &Setting) {
    out.push_str(&format!("\n### `{}`\n", setting.name));
    wrap(out, "", &format!("{}. {}", setting.help, setting.more));
    out.push('\n');
    let value = match setting.kind {
        Kind::Choice(words) => words.iter().map(|word| code(word)).collect::<Vec<_>>().join(", "),
        kind => kind.wanted(),
    };
    wrap(out, "- ", &format!("Value: {value}"));
    let fallback = match setting.fallback {
        Fallback::None => None,
        Fallback::Words(words) => Some(words.to_owned()),
        Fallback::Value(value) => Some(code(value)),
        Fallback::Time(time) => Some(code(&time.as_secs().to_string())),
    };
    if let Some(fallback) = fallback {
        wrap(out, "- ", &format!("Default: {fallback}"));
    }
    if let Some(variable) = setting.variable {
        wrap(out, "- ", &format!("Environment: {}{}", code(variable), reach(setting.reach)));
    }
    if let (Some(flag), Some(commands)) = (flag(setting), setting.flag.as_ref().map(|flag| flag.commands)) {
        let commands: Vec<String> = commands.iter().map(|command| code(command)).collect();
        let of = if commands.is_empty() { "every command".to_owned() } else { commands.join(", ") };
        wrap(out, "- ", &format!("Flag: {flag}, of {of}"));
    }
    match setting.child {
        Child::AlwaysGets => wrap(out, "- ", "`restore_command` of a restored server: always carries it"),
        Child::NeedsInItsEnvironment => {
            wrap(out, "- ", "`restore_command` of a restored server: never carries it; the server needs it in its environment");
        }
        Child::Gets if setting.variable.is_some() || setting.flag.is_some() => {
            wrap(out, "- ", "`restore_command` of a restored server: carries it, unless it is from the file");
        }
        Child::Gets | Child::DoesWithout => {}
    }
}

/// What a variable is about, where that is not the whole program.
fn reach(reach: Reach) -> &'static str {
    match reach {
        Reach::Process => "",
        Reach::ChoosesRepository => ", which chooses the repository",
        Reach::OneRepository => ", of the one repository",
        Reach::EveryRepository => ", of every repository",
        Reach::RepositoriesWithoutKey => ", of the one repository, or of those that the file gives no key",
    }
}

/// Adds a paragraph, its lines no longer than [`REFERENCE_COLUMNS`]. The first begins with `mark`, the others with as
/// many spaces.
fn wrap(out: &mut String, mark: &str, text: &str) {
    let mut line = mark.to_owned();
    let mut is_empty = true;
    for word in text.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > REFERENCE_COLUMNS {
            out.push_str(&line);
            out.push('\n');
            line = " ".repeat(mark.len());
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    out.push_str(&line);
    out.push('\n');
}
