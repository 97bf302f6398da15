//! What the documents say is held against the program: commands, exit codes, settings, paths, links; and how they are
//! laid out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use walvis::error::Kind;

use crate::support::sources::{root, sources};

/// Columns of a line of prose, in documents and in comments. Tables, code and links may be longer.
const MAX_COLUMNS: usize = 120;

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Every document, by its path from the root.
fn documents() -> Vec<String> {
    let mut found = Vec::new();
    for directory in ["", "docs", "docs/schema", "packaging"] {
        let Ok(entries) = std::fs::read_dir(root().join(directory)) else { continue };
        for entry in entries {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                found.push(Path::new(directory).join(name).to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    assert!(found.len() >= 15, "{found:?}");
    found
}

/// The lines of a document that are prose, numbered from 1: no code, no table.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut in_fence = false;
    let mut lines = Vec::new();
    let mut previous_is_blank = true;
    let mut in_code = false;
    for (number, line) in text.lines().enumerate() {
        let content = line.trim_start();
        if content.starts_with("```") {
            in_fence = !in_fence;
            continue;
        }
        // Code is indented by four or more after a blank line; a list's text is indented too, but follows its item at
        // once.
        let is_indented = line.starts_with("    ");
        in_code = is_indented && (in_code || previous_is_blank);
        previous_is_blank = content.is_empty();
        if !in_fence && !in_code && !content.starts_with('|') {
            lines.push((number + 1, line));
        }
    }
    lines
}

/// What stands between backticks in prose and tables.
fn spans(text: &str) -> Vec<String> {
    let mut in_fence = false;
    let mut spans = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
        } else if !in_fence {
            spans.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    spans
}

/// The rows of all tables, cell by cell, without head and rule. A cell may hold `\|`.
fn rows(text: &str) -> Vec<Vec<String>> {
    let lines: Vec<&str> = text.lines().collect();
    let cells = |line: &str| -> Vec<String> {
        let line = line.replace("\\|", "\u{1}");
        line.trim().trim_matches('|').split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect()
    };
    let is_rule = |line: Option<&&str>| line.is_some_and(|line| line.starts_with("|-"));
    (0..lines.len())
        .filter(|at| lines[*at].starts_with('|') && !is_rule(lines.get(*at)) && !is_rule(lines.get(at + 1)))
        .map(|at| cells(lines[at]))
        .collect()
}

/// The text below a heading of level 2.
fn section<'a>(text: &'a str, heading: &str) -> Option<&'a str> {
    let start = text.find(&format!("\n## {heading}\n"))? + 1;
    let rest = &text[start..];
    let body = rest.split_once('\n').unwrap().1;
    Some(body.split("\n## ").next().unwrap())
}

/// As GitHub makes the anchor of a heading.
fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            '-' | '_' => Some(c),
            _ => c.is_alphanumeric().then_some(c),
        })
        .collect()
}

// ---- exit codes -----------------------------------------------------------------------------------------------------

const KINDS: [(Kind, &str); 13] = [
    (Kind::Absent, "proven absent"),
    (Kind::Unavailable, "the standby can go on"),
    (Kind::Usage, "usage"),
    (Kind::Config, "configuration"),
    (Kind::Unreachable, "unreachable"),
    (Kind::Denied, "access denied"),
    (Kind::Conflict, "conflict"),
    (Kind::Damaged, "damaged"),
    (Kind::Target, "not reachable"),
    (Kind::Refused, "refused"),
    (Kind::Server, "PostgreSQL server"),
    (Kind::Problems, "problems"),
    (Kind::Bug, "bug"),
];

/// `docs/EXIT-CODES.md` prints the table that `cli/exit.rs` is, and so does the help.
#[test]
fn exit_codes_are_those_of_the_program() {
    let document = read("docs/EXIT-CODES.md");
    let rows = rows(&document);
    let described: BTreeSet<u8> = rows.iter().map(|row| row[0].parse().unwrap()).collect();
    for (kind, words) in KINDS {
        let code = walvis::cli::exit_code(kind).to_string();
        let row = rows.iter().find(|row| row[0] == code).unwrap_or_else(|| panic!("no row for {code}"));
        assert!(row[1].contains(words), "{row:?} does not say {words:?}");
    }
    let answered: BTreeSet<u8> = KINDS.iter().map(|(kind, _)| walvis::cli::exit_code(*kind)).chain([0, 200]).collect();
    assert_eq!(described, answered);
    let help = walvis::cli::definition().get_after_help().unwrap().to_string();
    let (_, table) = help.split_once("Exit codes:\n").unwrap();
    let printed: BTreeSet<u8> = table.lines().map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect();
    assert_eq!(printed, answered);
}

// ---- settings -------------------------------------------------------------------------------------------------------

/// The examples of settings are read without an error.
#[test]
fn example_settings_are_valid() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("walvis.toml");
    for (document, repositories) in [("README.md", [2, 1].as_slice()), ("docs/OPERATING.md", &[2])] {
        let text = read(document);
        let examples: Vec<&str> = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        assert_eq!(examples.len(), repositories.len(), "examples of {document}");
        for (example, repositories) in examples.into_iter().zip(repositories) {
            std::fs::write(&path, example).unwrap();
            let flags = walvis::config::Flags::default().with(&walvis::config::definitions::CONFIG, path.clone());
            let config = walvis::config::Config::load(&flags, &|_| None, &[]).unwrap_or_else(|e| panic!("{document}: {e}"));
            assert_eq!(config.repositories.len(), *repositories, "{document}");
        }
    }
}

// ---- commands -------------------------------------------------------------------------------------------------------

const TARGETS: &str = "Options that name a target";
const GLOBAL: &str = "Options of every command";

/// How the first cell of an argument's row is written.
fn written(argument: &clap::Arg) -> String {
    let value = argument.get_value_names().map(|names| names[0].to_string()).unwrap_or_default();
    let Some(long) = argument.get_long() else {
        let is_list = matches!(argument.get_action(), clap::ArgAction::Append);
        return if is_list { format!("`{value}…`") } else { format!("`{value}`") };
    };
    let short = argument.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    let takes_value = argument.get_action().takes_values();
    if takes_value { format!("`{short}--{long} {value}`") } else { format!("`{short}--{long}`") }
}

/// Holds arguments against the rows of sections, in both directions; an argument's values have to be named in its row.
fn compare(what: &str, arguments: &[&clap::Arg], rows: &[Vec<String>]) {
    let defined: BTreeSet<String> = arguments.iter().map(|argument| written(argument)).collect();
    let described: BTreeSet<String> = rows.iter().map(|row| row[0].clone()).collect();
    assert_eq!(defined, described, "{what}: what the program takes, and what docs/COMMANDS.md says it takes");
    for argument in arguments.iter().filter(|argument| argument.get_action().takes_values()) {
        let row = rows.iter().find(|row| row[0] == written(argument)).unwrap();
        for value in argument.get_possible_values() {
            let value = format!("`{}`", value.get_name());
            assert!(row[1].contains(&value), "{what}: the row of {} does not name {value}", row[0]);
        }
    }
}

/// All commands below this one that do something themselves, by their full names.
fn commands(command: &clap::Command, name: &str) -> Vec<(String, clap::Command)> {
    let mut found = Vec::new();
    for child in command.get_subcommands() {
        let name = format!("{name} {}", child.get_name());
        if !child.is_subcommand_required_set() {
            found.push((name.clone(), child.clone()));
        }
        found.extend(commands(child, &name));
    }
    found
}

#[test]
fn commands_and_flags_are_those_of_the_program() {
    let document = read("docs/COMMANDS.md");
    let definition = walvis::cli::definition();
    let rows_of = |heading: &str| rows(section(&document, heading).unwrap_or_else(|| panic!("no section {heading:?}")));
    compare(GLOBAL, &definition.get_arguments().collect::<Vec<_>>(), &rows_of(GLOBAL));
    let commands = commands(&definition, "walvis");
    assert!(commands.len() >= 13, "{commands:?}");
    for (name, command) in &commands {
        let arguments: Vec<&clap::Arg> = command.get_arguments().collect();
        let mut rows = rows_of(name);
        if matches!(name.as_str(), "walvis resolve" | "walvis pitr-restore") {
            rows.extend(rows_of(TARGETS));
        }
        compare(name, &arguments, &rows);
    }
    let named: BTreeSet<&str> = document.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let known: BTreeSet<&str> = commands.iter().map(|(name, _)| name.as_str()).chain([GLOBAL, TARGETS]).collect();
    assert_eq!(named, known, "sections of docs/COMMANDS.md, and commands");
}

/// No document shows a flag that no command has.
#[test]
fn flags_in_documents_exist() {
    let definition = walvis::cli::definition();
    let commands = commands(&definition, "walvis");
    let all = commands.iter().flat_map(|(_, command)| command.get_arguments()).chain(definition.get_arguments());
    let known: BTreeSet<String> = all.filter_map(|argument| argument.get_long().map(|long| format!("--{long}"))).collect();
    for document in documents() {
        for span in spans(&read(&document)) {
            let Some(command) = span.strip_prefix("walvis ") else { continue };
            // Of what is to come, ARCHITECTURE.md speaks in a section of its own.
            if document == "ARCHITECTURE.md" || command.contains("copy") {
                continue;
            }
            for flag in command.split_whitespace().filter(|word| word.starts_with("--")) {
                assert!(known.contains(flag) || flag == "--version", "{document}: no command has {flag}: `{span}`");
            }
        }
    }
}

// ---- layout, links and paths ----------------------------------------------------------------------------------------

#[test]
fn lines_of_prose_are_short() {
    let mut long = Vec::new();
    for document in documents() {
        for (number, line) in prose(&read(&document)) {
            // What cannot be broken, such as an address, may be longer.
            let can_be_broken = line.trim().chars().take(MAX_COLUMNS).any(char::is_whitespace);
            if line.chars().count() > MAX_COLUMNS && can_be_broken {
                long.push(format!("{document}:{number}"));
            }
        }
    }
    assert!(long.is_empty(), "more than {MAX_COLUMNS} columns: {}", long.join(", "));
}

#[test]
fn lines_of_comments_are_short() {
    let mut long = Vec::new();
    for path in ["src", "tests/it", "benches"].iter().flat_map(|below| sources(below)) {
        for (number, line) in std::fs::read_to_string(&path).unwrap().lines().enumerate() {
            let Some(text) = line.trim_start().strip_prefix("//") else { continue };
            let text = text.trim_start_matches(['/', '!']).trim_start();
            let starts_at = line.chars().count() - text.chars().count();
            let can_be_broken = text.chars().take(MAX_COLUMNS - starts_at).any(char::is_whitespace);
            if line.chars().count() > MAX_COLUMNS && !text.starts_with('|') && can_be_broken {
                long.push(format!("{}:{}", path.strip_prefix(root()).unwrap().display(), number + 1));
            }
        }
    }
    assert!(long.is_empty(), "comments of more than {MAX_COLUMNS} columns:\n{}", long.join("\n"));
}

/// The targets of a document's links.
fn links(text: &str) -> Vec<String> {
    let prose: String = text.lines().filter(|line| !line.starts_with("    ")).flat_map(|line| [line, "\n"]).collect();
    prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()).map(str::to_owned).collect()
}

#[test]
fn links_between_documents_work() {
    let mut checked = 0;
    for document in documents() {
        for link in links(&read(&document)) {
            if link.contains("://") {
                continue;
            }
            checked += 1;
            let (path, fragment) = link.split_once('#').unwrap_or((&link, ""));
            let directory = Path::new(&document).parent().unwrap();
            let target = if path.is_empty() { PathBuf::from(&document) } else { directory.join(path) };
            assert!(root().join(&target).exists(), "{document}: {link} leads nowhere");
            if !fragment.is_empty() {
                let text = read(target.to_str().unwrap());
                let mut headings =
                    text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
                assert!(headings.any(|heading| anchor(heading) == fragment), "{document}: {link}: no such heading");
            }
        }
    }
    assert!(checked > 50, "{checked}");
}

#[test]
fn the_readme_leads_to_every_document() {
    let readme = read("README.md");
    for document in documents().iter().filter(|document| *document != "README.md") {
        assert!(readme.contains(&format!("({document})")), "the README does not lead to {document}");
    }
}

/// Whether a span names a file or directory of the repository: `src/wal`, `tests/run.sh`, `docs/FORMAT.md`.
fn is_path(span: &str) -> bool {
    const TOP: [&str; 6] = ["src/", "tests/", "docs/", "packaging/", "benches/", ".ci/"];
    TOP.iter().any(|top| span.starts_with(top)) && !span.contains([' ', '{', '*', '…', '<'])
}

#[test]
fn files_that_documents_name_exist() {
    let mut checked = 0;
    let mut absent = Vec::new();
    for document in documents() {
        let text = read(&document);
        let text = if document == "ARCHITECTURE.md" { text.split("\n## What comes next\n").next().unwrap() } else { &text };
        for span in spans(text).into_iter().filter(|span| is_path(span)) {
            checked += 1;
            let path = span.split("::").next().unwrap();
            if !root().join(path).exists() {
                absent.push(format!("{document}: {path}"));
            }
        }
    }
    assert!(absent.is_empty(), "there is no such file:\n{}", absent.join("\n"));
    assert!(checked > 20, "{checked}");
}

/// Whether a span is the path of a test or an item: `resolve_choice::at_random`.
fn is_item(span: &str) -> bool {
    span.contains("::") && span.chars().all(|c| c.is_alphanumeric() || c == '_' || c == ':')
}

/// A document that names a test says what somebody has tried: the test has to be there.
#[test]
fn tests_that_documents_name_exist() {
    let paths: Vec<PathBuf> = ["src", "tests/it"].iter().flat_map(|below| sources(below)).collect();
    let code: String = paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let modules: BTreeSet<&str> = paths.iter().filter_map(|path| path.file_stem()?.to_str()).collect();
    let is_there = |item: &str| {
        let name = item.trim_end_matches(':').rsplit(':').next().unwrap();
        modules.contains(name)
            || ["fn", "mod", "struct", "enum"].iter().any(|word| {
                code.match_indices(&format!("{word} {name}"))
                    .any(|(at, found)| !code[at + found.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_'))
            })
    };
    let mut checked = 0;
    for document in documents() {
        let text = read(&document);
        // The last column of its tables has nothing but tests.
        let last = |row: Vec<String>| row.last().map(|cell| spans(cell)).unwrap_or_default();
        let named = if document == "docs/RELIABILITY.md" { rows(&text).into_iter().flat_map(last).collect() } else { vec![] };
        // `…pg18_…` stands for the same test on another version.
        let is_test = |span: &String| !span.contains(['/', '.', ' ', '…']);
        let items = spans(&text).into_iter().filter(|span| is_item(span));
        for item in items.chain(named.into_iter().filter(is_test)) {
            checked += 1;
            assert!(is_there(&item), "{document}: there is no {item}");
        }
    }
    assert!(checked > 60, "{checked}");
}

/// `ARCHITECTURE.md` names what is there where it says how things are, and what is not there yet where it says what
/// comes next.
#[test]
fn the_architecture_is_that_of_the_code() {
    let document = read("ARCHITECTURE.md");
    let (present, next) = document.split_once("\n## What comes next\n").unwrap();
    let mut wrong = Vec::new();
    let features = rows(next);
    assert!(!features.is_empty(), "no table of what comes next");
    for row in &features {
        assert_eq!(row.len(), 3, "{row:?}");
        for path in spans(&row[1]).iter().filter(|span| is_path(span) && !root().join(span).exists()) {
            wrong.push(format!("{}: there is no {path}", row[0]));
        }
        for path in spans(&row[2]).iter().filter(|span| is_path(span) && root().join(span).exists()) {
            wrong.push(format!("{}: {path} is there now: it belongs in the other sections", row[0]));
        }
    }
    // "`check_page` in `src/pg/page_checksum.rs`": the file has an item of this name.
    let mut items = 0;
    for row in rows(present) {
        for cell in &row {
            let parts: Vec<&str> = cell.split('`').collect();
            for named in parts.windows(4).filter(|named| named[2] == " in " && is_path(named[3])) {
                items += 1;
                let (item, path) = (named[1], named[3]);
                let Ok(code) = std::fs::read_to_string(root().join(path)) else {
                    wrong.push(format!("there is no {path}"));
                    continue;
                };
                let is_defined = ["fn", "enum", "struct", "trait"].iter().any(|word| {
                    code.match_indices(&format!("{word} {item}"))
                        .any(|(at, found)| !code[at + found.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_'))
                });
                if !is_defined {
                    wrong.push(format!("{path} has no {item}"));
                }
            }
        }
    }
    assert!(items >= 8, "{items}");
    // Every module of the crate has its row in the table of layers.
    let layers = section(&document, "Layers").unwrap();
    for entry in std::fs::read_dir(root().join("src")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !layers.contains(&format!("`src/{name}`")) && name != "lib.rs" {
            wrong.push(format!("src/{name} has no row in the table of layers"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

// ---- the worked example of docs/FORMAT.md ---------------------------------------------------------------------------

/// The bytes of the first span in backticks.
fn bytes_of(cell: &str) -> Vec<u8> {
    let digits: String = cell.split('`').nth(1).unwrap().chars().filter(|c| !c.is_whitespace()).collect();
    hex::decode(digits).unwrap_or_else(|e| panic!("{cell}: {e}"))
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().unwrap()
}

/// Decodes the object that the document prints, derives every value that it names, and encodes the object again. The
/// ciphers are called here as the document says, not by the program.
#[test]
fn the_worked_example_is_what_the_program_reads_and_writes() {
    use chacha20poly1305::aead::{Aead, KeyInit, Payload};
    use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
    use walvis::codec::{self, Address, Digest, Sealing};
    use walvis::crypto::{DataKey, DataKeys};
    use walvis::format::envelope::{Metadata, ObjectKind};

    let document = read("docs/FORMAT.md");
    let text = section(&document, "A worked example").unwrap();
    let dump = text.split("```hex\n").nth(1).unwrap().split("```").next().unwrap();
    let digits: String = dump.lines().flat_map(|line| line.split_whitespace().skip(1)).collect();
    let object = hex::decode(digits).unwrap();
    let rows = rows(text);
    let cell = |name: &str| rows.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("no {name:?}"))[1].clone();
    let text_of = |name: &str| cell(name).split('`').nth(1).unwrap().to_owned();
    let value = |name: &str| bytes_of(&cell(name));

    // The program reads it.
    let (key, repository_id, salt) = (array::<32>(&value("data key")), array(&value("repository id")), array(&value("salt")));
    let (name, plaintext) = (text_of("object name"), value("plaintext"));
    let kind = ObjectKind::History;
    assert_eq!(text_of("kind"), (kind as u8).to_string());
    let address = Address { repository_id: &repository_id, kind, name: &name };
    let keys = DataKeys::Encrypted { current: DataKey::from_bytes(key).into(), earlier: vec![] };
    let mut read = Vec::new();
    let metadata = codec::open(object.as_slice(), address, &keys).unwrap().copy_to(&mut read).unwrap();
    assert_eq!(read, plaintext);
    assert_eq!(metadata.sealed_unix_us.to_string(), text_of("sealed"));
    assert_eq!(metadata.writer, text_of("writer"));

    // It writes the same.
    let digest = Digest::of(&mut plaintext.as_slice()).unwrap();
    let again = Metadata {
        plaintext_bytes: digest.bytes,
        plaintext_blake3: digest.blake3,
        sealed_unix_us: text_of("sealed").parse().unwrap(),
        writer: text_of("writer"),
        ..Metadata::by_this_program()
    };
    let mut written = Vec::new();
    let sealing = Sealing { level: 1, salt };
    codec::seal(&mut plaintext.as_slice(), &mut written, address, Some(&DataKey::from_bytes(key)), &again, sealing).unwrap();
    assert_eq!(hex::encode(&written), hex::encode(&object));

    // Fields stand where the document says, one after the other.
    let mut end = 0;
    let mut field = |name: &str| -> Vec<u8> {
        let row = rows.iter().find(|row| row.len() == 4 && row[3].starts_with(name)).unwrap_or_else(|| panic!("no {name:?}"));
        let (offset, size): (usize, usize) = (row[0].parse().unwrap(), row[1].parse().unwrap());
        assert_eq!(offset, end, "{row:?}");
        end = offset + size;
        let bytes = object[offset..end].to_vec();
        let printed: Vec<String> = row[2].split('`').skip(1).step_by(2).map(|part| part.replace(' ', "")).collect();
        let all = hex::encode(&bytes);
        assert!(all.starts_with(&printed[0]) && all.ends_with(printed.last().unwrap()), "{row:?}");
        assert!(printed.len() > 1 || printed[0] == all, "{row:?}");
        bytes
    };
    for name in ["magic", "format version", "codec", "cipher", "flags"] {
        field(name);
    }
    assert_eq!(field("data key id"), value("data key id"));
    assert_eq!(field("salt"), salt);
    let metadata_bytes = u32::from_le_bytes(array(&field("metadata length")));
    let sealed_metadata = [field("metadata, sealed"), field("its tag")];
    assert_eq!(sealed_metadata[0].len(), metadata_bytes as usize);
    let last_row = rows.iter().rfind(|row| row.len() == 4 && row[3] == "its tag").unwrap();
    let sealed_frame = [field("frame 0"), object[object.len() - 16..].to_vec()];
    assert_eq!(bytes_of(&last_row[2]), sealed_frame[1]);
    assert_eq!(end + 16, object.len());
    assert!(text.contains(&format!("The object has {} bytes", object.len())));

    // Every derived value follows from what is given.
    assert_eq!(value("data key id"), blake3::derive_key("walvis 1 data key id", &key)[..16]);
    let object_key = blake3::derive_key("walvis 1 object key", &[key, salt].concat());
    assert_eq!(value("object key"), object_key);
    let bound = [&repository_id[..], &[kind as u8], &object[..68], name.as_bytes()].concat();
    let binding = blake3::derive_key("walvis 1 binding", &bound);
    assert_eq!(value("binding"), binding);
    let cipher = ChaCha20Poly1305::new(&Key::from(object_key));
    let open = |nonce: &str, sealed: &[Vec<u8>; 2]| {
        let nonce = Nonce::from(array::<12>(&value(nonce)));
        cipher.decrypt(&nonce, Payload { msg: &sealed.concat(), aad: &binding }).unwrap()
    };

    // The metadata and the frame are, section by section, what the document prints.
    let printed = |width: usize, is_part: &dyn Fn(&[String]) -> bool| -> Vec<u8> {
        let parts = rows.iter().filter(|row| row.len() == width + 1 && is_part(row));
        parts.flat_map(|row| row[..width].iter().flat_map(|cell| bytes_of(cell)).collect::<Vec<_>>()).collect()
    };
    let is_section = |row: &[String]| row[..3].iter().all(|cell| cell.starts_with('`'));
    assert_eq!(open("nonce of the metadata", &sealed_metadata), printed(3, &is_section));
    let frame = text.split("Opened in the same way").nth(1).unwrap();
    let parts: Vec<u8> = self::rows(frame).iter().flat_map(|row| bytes_of(&row[0])).collect();
    assert_eq!(open("nonce of the frame", &sealed_frame), parts);
    assert_eq!(zstd::decode_all(parts.as_slice()).unwrap(), plaintext);
}
