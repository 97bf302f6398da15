//! The source as the tidiness tests read it: names and signs, without what is built for tests alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A name or number, or a sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    Name(String),
    /// `::`
    Into,
    Sign(char),
}

/// The modules of the program, by their paths, with their tokens. Test modules are left out, and so are `lib` and
/// `main`, which only name others.
pub fn program(src: &Path, files: &[PathBuf]) -> BTreeMap<String, Vec<Token>> {
    let mut modules = BTreeMap::new();
    let mut of_tests = BTreeSet::new();
    for path in files {
        let relative = path.strip_prefix(src).unwrap().with_extension("");
        let mut names: Vec<&str> = relative.iter().map(|name| name.to_str().unwrap()).collect();
        if names.last().is_some_and(|name| *name == "mod") {
            names.pop();
        }
        let module = names.join("::");
        if matches!(module.as_str(), "lib" | "main") {
            continue;
        }
        let (tokens, tests) = without_tests(&tokens(&std::fs::read_to_string(path).unwrap()));
        of_tests.extend(tests.into_iter().map(|test| format!("{module}::{test}")));
        modules.insert(module, tokens);
    }
    modules.retain(|name, _| !of_tests.iter().any(|test| name == test || name.starts_with(&format!("{test}::"))));
    modules
}

/// Names, `::` and other signs, without comments, texts, characters and lifetimes.
pub fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let (mut tokens, mut i) = (Vec::new(), 0);
    while i < chars.len() {
        match at(i) {
            '/' if at(i + 1) == '/' => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
            }
            '/' if at(i + 1) == '*' => {
                i += 2;
                while i < chars.len() && !(at(i) == '*' && at(i + 1) == '/') {
                    i += 1;
                }
                i += 2;
            }
            '"' => {
                i += 1;
                while i < chars.len() && at(i) != '"' {
                    i += if at(i) == '\\' { 2 } else { 1 };
                }
                i += 1;
            }
            '\'' if at(i + 1) == '\\' => {
                i += 3;
                while i < chars.len() && at(i) != '\'' {
                    i += 1;
                }
                i += 1;
            }
            '\'' if at(i + 2) == '\'' => i += 3,
            // A lifetime: the name that follows is none of ours.
            '\'' => {
                i += 1;
                while is_name(at(i)) {
                    i += 1;
                }
            }
            ':' if at(i + 1) == ':' => {
                tokens.push(Token::Into);
                i += 2;
            }
            c if is_name(c) => {
                let from = i;
                while is_name(at(i)) {
                    i += 1;
                }
                let name: String = chars[from..i].iter().collect();
                let hashes = (i..).take_while(|i| at(*i) == '#').count();
                if matches!(name.as_str(), "r" | "br") && at(i + hashes) == '"' {
                    i += hashes + 1;
                    while i < chars.len() && !(at(i) == '"' && (1..=hashes).all(|n| at(i + n) == '#')) {
                        i += 1;
                    }
                    i += hashes + 1;
                } else {
                    tokens.push(Token::Name(name));
                }
            }
            c => {
                if !c.is_whitespace() {
                    tokens.push(Token::Sign(c));
                }
                i += 1;
            }
        }
    }
    tokens
}

pub fn is_name(token: Option<&Token>, name: &str) -> bool {
    matches!(token, Some(Token::Name(found)) if found == name)
}

pub fn is_sign(token: Option<&Token>, sign: char) -> bool {
    token == Some(&Token::Sign(sign))
}

/// The index after what is opened at `at` by `open`.
pub fn after_pair(tokens: &[Token], at: usize, open: char, close: char) -> usize {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(at) {
        depth += i32::from(*token == Token::Sign(open)) - i32::from(*token == Token::Sign(close));
        if depth == 0 {
            return i + 1;
        }
    }
    tokens.len()
}

/// The index after `(…)` if there is one at `at`, as after `pub`.
pub fn after_visibility(tokens: &[Token], at: usize) -> usize {
    if is_sign(tokens.get(at), '(') { after_pair(tokens, at, '(', ')') } else { at }
}

/// Leaves out modules that are built for tests alone, and names those that are in files of their own.
fn without_tests(tokens: &[Token]) -> (Vec<Token>, Vec<String>) {
    let marker = ["#", "[", "cfg", "(", "test", ")", "]"];
    let is_marker = |at: usize| {
        marker.iter().enumerate().all(|(n, wanted)| match tokens.get(at + n) {
            Some(Token::Name(name)) => name == wanted,
            Some(Token::Sign(sign)) => wanted.len() == 1 && wanted.starts_with(*sign),
            _ => false,
        })
    };
    let (mut kept, mut tests, mut i) = (Vec::new(), Vec::new(), 0);
    while i < tokens.len() {
        if is_marker(i) {
            let mut next = i + marker.len();
            while is_sign(tokens.get(next), '#') {
                next = after_pair(tokens, next + 1, '[', ']');
            }
            if is_name(tokens.get(next), "pub") {
                next = after_visibility(tokens, next + 1);
            }
            if is_name(tokens.get(next), "mod")
                && let Some(Token::Name(name)) = tokens.get(next + 1)
            {
                if is_sign(tokens.get(next + 2), '{') {
                    i = after_pair(tokens, next + 2, '{', '}');
                } else {
                    tests.push(name.clone());
                    i = next + 3;
                }
                continue;
            }
        }
        kept.push(tokens[i].clone());
        i += 1;
    }
    (kept, tests)
}
