//! Lines of `postgresql.auto.conf`, and the shell commands in them.
//!
//! Lives here: quoting. The server reads a value in single quotes with backslash escapes (`GUC_scanstr`), replaces `%`
//! letters of `restore_command`, and hands the result to `/bin/sh -c`: three layers, each with its own rule.

use std::fmt::Write as _;

use crate::raw_text::{is_hazardous, plain};

/// A value as it stands in a configuration file, quotes included.
///
/// Line feeds cannot stand in a quoted value; they are written as escapes.
pub fn quote_value(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('\'');
    for c in value.chars() {
        match c {
            '\'' => out.push_str("''"),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            // Octal, which the server reads: the file is read by people, too.
            c if is_hazardous(c) => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    out.push_str(&format!("\\{byte:03o}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

/// As [`quote_value`], of bytes that need not be UTF-8.
pub fn quote_bytes(value: &[u8]) -> Vec<u8> {
    let mut out = vec![b'\''];
    for byte in value {
        match byte {
            b'\'' => out.extend_from_slice(b"''"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            byte => out.push(*byte),
        }
    }
    out.push(b'\'');
    out
}

/// A word as the shell takes it, whatever is in it.
pub fn quote_shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | ':' | '+' | '=' | ',' | '@');
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// How a server calls this program: what is set in the environment of the call, the program, its options.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Invocation {
    /// Variables and their values. Nothing secret belongs here: everybody may read `restore_command`.
    pub environment: Vec<(String, String)>,
    /// Absolute path of the program.
    pub program: String,
    /// Its options, before the command.
    pub options: Vec<String>,
}

impl Invocation {
    /// The value of `recovery_end_command` that takes the settings of the recovery out again. Recovery must not fail to
    /// end because of it: the server takes a command that is not found for one that was killed.
    pub fn end_command(&self) -> String {
        format!("{} {END_RECOVERY} --pgdata . || exit 0", quote_shell(&self.program).replace('%', "%%"))
    }

    /// The value of `restore_command` that fetches WAL.
    pub fn restore_command(&self) -> String {
        let mut words: Vec<String> =
            self.environment.iter().map(|(name, value)| format!("{name}={}", quote_shell(value))).collect();
        words.push(quote_shell(&self.program));
        words.extend(self.options.iter().map(|option| quote_shell(option)));
        // The server takes %f, %p and %r out of it, and %% for a percent sign.
        let call = words.join(" ").replace('%', "%%");
        format!("{call} fetch-wal %f \"%p\"")
    }
}

/// What a restored server does when it has reached its target: `recovery_target_action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetAction {
    /// It stays as it is and can be read.
    #[default]
    Pause,
    /// It ends recovery and takes writes.
    Promote,
    /// It stops.
    Shutdown,
}

impl TargetAction {
    /// As the server writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Promote => "promote",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Every setting that says where recovery ends. Those that are not wanted have to be unset: others may be left from an
/// earlier restore, and two targets are an error.
const TARGETS: [&str; 5] =
    ["recovery_target", "recovery_target_time", "recovery_target_xid", "recovery_target_name", "recovery_target_lsn"];

/// The others that only a recovery has.
const OF_TARGETS: [&str; 3] = ["recovery_target_inclusive", "recovery_target_timeline", "recovery_target_action"];

/// What a restored server must not inherit from a standby: a command that would clean up the original's archive, and a
/// delay that would make the recovery wait.
const NOT_INHERITED: [(&str, &str); 2] = [("archive_cleanup_command", ""), ("recovery_min_apply_delay", "0")];

/// What keeps it from reading WAL ahead of what it replays (`xlogprefetcher.c`): it would ask for segments behind its
/// target, and end where one of them is missing.
pub const NOT_AHEAD: (&str, &str) = ("recovery_prefetch", "off");
/// The first version, as `server_version_num`, that reads ahead.
pub const READS_AHEAD: u32 = 150_000;

/// What lets it pause at the target.
const TO_PAUSE: (&str, &str) = ("hot_standby", "on");

/// The command of this program that the server calls when a recovery ends.
pub const END_RECOVERY: &str = "end-recovery";
/// What our `restore_command` ends with. By hand nobody writes it just so.
const FETCH: &str = " fetch-wal %f \"%p\"";
/// How comments of ours begin.
const COMMENT: &str = "# walvis: ";

/// What is added to `postgresql.auto.conf`.
#[derive(Debug, Clone, Default)]
pub struct RecoverySettings<'a> {
    /// When, and from which backup.
    pub comment: &'a str,
    /// `restore_command`.
    pub restore_command: &'a str,
    /// What the server calls when recovery ends; `None` for a standby, which keeps all of it.
    pub end_command: Option<&'a str>,
    /// The settings of the target.
    pub wanted: &'a [(&'a str, &'a str)],
    /// Settings that stay when recovery is over.
    pub lasting: &'a [(&'a str, &'a str)],
}

impl RecoverySettings<'_> {
    /// The lines to add at the end of `postgresql.auto.conf`, where later lines win.
    ///
    /// Unset targets come first: the server looks at them one after the other and refuses one that is set while another
    /// is.
    pub fn lines(&self) -> String {
        let mut out = format!("\n{COMMENT}{}\n", plain(self.comment));
        // Writing into memory cannot fail.
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(out, "{name} = {}", quote_value(value));
        };
        line("restore_command", self.restore_command);
        if let Some(end_command) = self.end_command {
            for (name, value) in NOT_INHERITED {
                line(name, value);
            }
            line("recovery_end_command", end_command);
        }
        for name in TARGETS.iter().filter(|name| self.wanted.iter().all(|(wanted, _)| wanted != *name)) {
            line(name, "");
        }
        for (name, value) in self.wanted {
            line(name, value);
        }
        if !self.lasting.is_empty() {
            let _ = writeln!(out, "{COMMENT}what follows stays when recovery is over");
        }
        for (name, value) in self.lasting {
            let _ = writeln!(out, "{name} = {}", quote_value(value));
        }
        out
    }
}

/// `postgresql.auto.conf` without what is of a recovery: every target, and what [`RecoverySettings::lines`] adds for
/// the recovery alone. The server drops comments when it writes the file, so names and values have to tell. Gives the
/// new content and the names of what was taken out.
pub fn without_recovery(content: &[u8]) -> (Vec<u8>, Vec<String>) {
    let (mut kept, mut removed) = (Vec::new(), Vec::new());
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        let text = String::from_utf8_lossy(line);
        match assignment(&text) {
            Some((name, value)) if is_of_recovery(&name, &value) => {
                if !removed.contains(&name) {
                    removed.push(name);
                }
            }
            None if text.starts_with(COMMENT) => {}
            _ => kept.extend_from_slice(line),
        }
    }
    (kept, removed)
}

fn is_of_recovery(name: &str, value: &str) -> bool {
    match name {
        "restore_command" => value.ends_with(FETCH),
        "recovery_end_command" => value.is_empty() || value.contains(&format!(" {END_RECOVERY} ")),
        _ => {
            TARGETS.contains(&name)
                || OF_TARGETS.contains(&name)
                || NOT_INHERITED.contains(&(name, value))
                || TO_PAUSE == (name, value)
                || NOT_AHEAD == (name, value)
        }
    }
}

/// What a setting is in a file of settings, as far as its lines tell; the last one wins there.
pub fn value_in(content: &[u8], setting: &str) -> Option<String> {
    let text = String::from_utf8_lossy(content);
    text.lines().filter_map(assignment).filter(|(name, _)| name == setting).map(|(_, value)| value).next_back()
}

/// A line `name = 'value'` (the equals sign and quotes may be missing), quotes undone.
fn assignment(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let end = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.').unwrap_or(line.len());
    let (name, rest) = line.split_at_checked(end).filter(|(name, _)| !name.is_empty())?;
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let value = match rest.strip_prefix('\'') {
        Some(quoted) => {
            let mut value = String::new();
            let mut chars = quoted.chars().peekable();
            while let Some(c) = chars.next() {
                match c {
                    '\'' if chars.peek() == Some(&'\'') => value.extend(chars.next()),
                    '\'' => break,
                    '\\' => value.extend(chars.next()),
                    c => value.push(c),
                }
            }
            value
        }
        None => rest.split(|c: char| c == '#' || c.is_whitespace()).next().unwrap_or_default().to_owned(),
    };
    Some((name.to_ascii_lowercase(), value))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    #[test]
    fn each_layer_quotes_by_its_own_rule() {
        assert_eq!(quote_value("a'b\\c\nd"), r"'a''b\\c\nd'");
        assert_eq!(quote_value("\u{1b}[2J\u{9b}\u{202e}é"), r"'\033[2J\302\233\342\200\256é'");
        assert_eq!(quote_shell("/usr/bin/walvis"), "/usr/bin/walvis");
        assert_eq!(quote_shell("s3://b/a b"), "'s3://b/a b'");
        assert_eq!(quote_shell("it's"), r"'it'\''s'");
        assert_eq!(quote_shell(""), "''");
        assert_eq!(quote_shell("$(rm)"), "'$(rm)'");
        let call = Invocation {
            environment: vec![("WALVIS_S3_REGION".to_owned(), "eu 1".to_owned())],
            program: "/opt/100%/walvis".to_owned(),
            options: vec!["--config".to_owned(), "/etc/it's".to_owned()],
        };
        let expected = r#"WALVIS_S3_REGION='eu 1' '/opt/100%%/walvis' --config '/etc/it'\''s' fetch-wal %f "%p""#;
        assert_eq!(call.restore_command(), expected);
    }

    /// What the shell makes of it is what was meant.
    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for word in ["plain", "a b", "it's", "$HOME", "`x`", "a\"b", "\\", "*", "a\nb", "é", "-n", "#x", "~"] {
            let output =
                std::process::Command::new("/bin/sh").arg("-c").arg(format!("printf %s {}", quote_shell(word))).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), word);
        }
    }

    fn settings<'a>(wanted: &'a [(&'a str, &'a str)], lasting: &'a [(&'a str, &'a str)]) -> RecoverySettings<'a> {
        RecoverySettings {
            comment: "by walvis\nx",
            restore_command: "/w fetch-wal %f \"%p\"",
            end_command: Some("/w end-recovery || exit 0"),
            wanted,
            lasting,
        }
    }

    const WANTED: [(&str, &str); 3] =
        [("recovery_target_lsn", "0/5A3B4F0"), ("recovery_target_inclusive", "off"), ("recovery_target_timeline", "1")];

    #[test]
    fn what_is_not_wanted_is_unset_before_what_is() {
        let text = settings(&WANTED, &[("archive_mode", "off")]).lines();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..3], ["", "# walvis: by walvis\\nx", "restore_command = '/w fetch-wal %f \"%p\"'"]);
        assert_eq!(text.matches("recovery_target_lsn").count(), 1);
        for unset in ["recovery_target", "recovery_target_time", "recovery_target_xid", "recovery_target_name"] {
            let at = lines.iter().position(|line| *line == format!("{unset} = ''")).unwrap();
            assert!(at < lines.iter().position(|line| line.starts_with("recovery_target_lsn")).unwrap());
        }
        assert!(text.ends_with("timeline = '1'\n# walvis: what follows stays when recovery is over\narchive_mode = 'off'\n"));
        let standby = RecoverySettings { end_command: None, ..settings(&[], &[]) }.lines();
        assert!(!standby.contains("recovery_end_command") && !standby.contains("archive"));
    }

    /// Whatever the server makes of the file meanwhile.
    #[test]
    fn what_is_of_a_recovery_goes_and_the_rest_stays() {
        let own = "# Do not edit\nwork_mem = '4MB'\nrestore_command = '/bin/own %f %p'\nrecovery_min_apply_delay = '5min'\n";
        let whole = format!("{own}recovery_target_xid = '7'\n{}", settings(&WANTED, &[("archive_mode", "off")]).lines());
        let expected = format!("{own}\narchive_mode = 'off'\n");
        let (kept, removed) = without_recovery(whole.as_bytes());
        assert_eq!(String::from_utf8(kept).unwrap(), expected);
        assert!(
            ["recovery_target_lsn", "restore_command", "recovery_end_command"].iter().all(|n| removed.iter().any(|r| r == n))
        );
        // ALTER SYSTEM leaves no comments.
        let lines = |text: &str| -> String {
            text.lines()
                .filter(|line| !line.starts_with('#') && !line.is_empty())
                .fold(String::new(), |out, line| out + line + "\n")
        };
        assert_eq!(without_recovery(lines(&whole).as_bytes()).0, lines(&expected).as_bytes());
        let foreign = b"a = 1\n\xFF\nwhat";
        assert_eq!(without_recovery(foreign), (foreign.to_vec(), vec![]));
    }

    #[test]
    fn the_last_line_of_a_setting_counts() {
        let text = b"# hot_standby = on\nhot_standby off # c\nHot_Standby='on'\nx = 'it''s'\n";
        assert_eq!(value_in(text, "hot_standby").as_deref(), Some("on"));
        assert_eq!(value_in(text, "x").as_deref(), Some("it's"));
        assert_eq!(value_in(text, "y"), None);
    }
}
