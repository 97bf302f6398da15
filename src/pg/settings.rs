//! Lines of `postgresql.auto.conf`, and the shell commands in them.
//!
//! Lives here: quoting. The server reads a value in single quotes with backslash escapes (`GUC_scanstr`), replaces `%` letters of
//! `restore_command`, and hands the result to `/bin/sh -c`: three layers, each with its own rule.

use std::fmt::Write as _;

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
            c => out.push(c),
        }
    }
    out.push('\'');
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

/// Every setting that says where recovery ends. Those that are not wanted have to be unset: others may be left from an earlier
/// restore, and two targets are an error.
const TARGETS: [&str; 5] =
    ["recovery_target", "recovery_target_time", "recovery_target_xid", "recovery_target_name", "recovery_target_lsn"];

/// Commands that a restored server must not inherit: they would clean up the original's archive, or do what it does when promoted.
const INHERITED_COMMANDS: [&str; 2] = ["archive_cleanup_command", "recovery_end_command"];

/// The lines to add at the end of `postgresql.auto.conf`, where later lines win.
///
/// `wanted` are the settings of the target. Unset ones come first: the server looks at them one after the other and refuses one that
/// is set while another is.
pub fn recovery_settings(comment: &str, restore_command: &str, wanted: &[(&str, &str)], archiving: bool) -> String {
    let mut out = String::new();
    // Writing into memory cannot fail.
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "{name} = {}", quote_value(value));
    };
    line("restore_command", restore_command);
    for name in INHERITED_COMMANDS {
        line(name, "");
    }
    if !archiving {
        line("archive_mode", "off");
    }
    for name in TARGETS.iter().filter(|name| wanted.iter().all(|(wanted, _)| wanted != *name)) {
        line(name, "");
    }
    for (name, value) in wanted {
        line(name, value);
    }
    let comment = comment.replace(['\n', '\r'], " ");
    format!("\n# {comment}\n{out}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_layer_quotes_by_its_own_rule() {
        assert_eq!(quote_value("a'b\\c\nd"), r"'a''b\\c\nd'");
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

    #[test]
    fn what_is_not_wanted_is_unset_before_what_is() {
        let wanted =
            [("recovery_target_lsn", "0/5A3B4F0"), ("recovery_target_inclusive", "off"), ("recovery_target_timeline", "1")];
        let text = recovery_settings("by walvis\nx", "/w fetch-wal %f \"%p\"", &wanted, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..3], ["", "# by walvis x", "restore_command = '/w fetch-wal %f \"%p\"'"]);
        assert_eq!(text.matches("recovery_target_lsn").count(), 1);
        for unset in ["recovery_target", "recovery_target_time", "recovery_target_xid", "recovery_target_name"] {
            let at = lines.iter().position(|line| *line == format!("{unset} = ''")).unwrap();
            assert!(at < lines.iter().position(|line| line.starts_with("recovery_target_lsn")).unwrap());
        }
        assert!(text.contains("\narchive_mode = 'off'\n") && text.ends_with("recovery_target_timeline = '1'\n"));
        assert!(!recovery_settings("", "", &[], true).contains("archive_mode"));
    }
}
