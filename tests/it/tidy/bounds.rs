//! Finds bounds that are defined outside of `src/limits`, by rules that look at names and types.
//!
//! A bound is taken to be:
//! - a constant whose type is or holds a `Duration`,
//! - a constant of a number in whose name is one of [`WORDS`], unless it ends in `AT`: the place of a field,
//! - a constant of a number that counts bytes or characters, outside of `format` and `pg`, where these are sizes of
//!   what is stored and of what PostgreSQL writes,
//! - a `Duration` that is made of a number in the code,
//! - `for _ in 0..10`: a number of attempts.

use std::collections::BTreeMap;

use super::tokens::{Token, is_sign};

/// Words of names that speak of a bound.
const WORDS: [&str; 33] = [
    "MAX", "MIN", "MOST", "LEAST", "LIMIT", "LIMITS", "TIMEOUT", "PATIENCE", "ATTEMPTS", "RETRIES", "ROUNDS", "TRIES", "PAUSE",
    "PAUSES", "DELAY", "EVERY", "AFTER", "INTERVAL", "GRACE", "BUFFER", "BATCH", "WINDOW", "CACHED", "DEPTH", "THREADS",
    "WORKERS", "READERS", "JOBS", "LISTED", "LINES", "COLUMNS", "S", "MS",
];
/// Words of names that count bytes or characters.
const SIZES: [&str; 3] = ["BYTES", "CHARS", "KIB"];
/// Modules in which such a name is a fact of a format.
const FORMATS: [&str; 2] = ["format", "pg"];
const NUMBERS: [&str; 13] = ["u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize", "f64"];

/// What is found in these modules, each as the module and the name or the code.
pub fn elsewhere(modules: &BTreeMap<String, Vec<Token>>) -> Vec<(String, String)> {
    let is_elsewhere = |module: &str| module != "limits" && !module.starts_with("limits::");
    let elsewhere = modules.iter().filter(|(module, _)| is_elsewhere(module));
    elsewhere.flat_map(|(module, tokens)| bounds(module, tokens).into_iter().map(|bound| (module.clone(), bound))).collect()
}

fn bounds(module: &str, tokens: &[Token]) -> Vec<String> {
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        let rest = &tokens[at..];
        if let Some((name, names)) = constant(rest) {
            if is_bound(module, name, &names) {
                found.push(name.to_owned());
            }
        } else if let [Token::Name(made), Token::Into, Token::Name(by), Token::Sign('('), Token::Name(number), ..] = rest
            && made == "Duration"
            && is_number(number)
        {
            found.push(format!("Duration::{by}({number})"));
        } else if let [Token::Name(word), Token::Name(any), Token::Name(_in), Token::Name(from), dots @ ..] = rest
            && (word.as_str(), any.as_str(), from.as_str()) == ("for", "_", "0")
            && is_sign(dots.first(), '.')
            && is_sign(dots.get(1), '.')
            && let Some(Token::Name(to)) = dots.iter().find(|token| !matches!(token, Token::Sign('.' | '=')))
            && is_number(to)
        {
            found.push(format!("for _ in 0..{to}"));
        }
    }
    found
}

fn is_number(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_digit())
}

/// The name of the constant that is defined here, and the names in its type.
fn constant(tokens: &[Token]) -> Option<(&str, Vec<&str>)> {
    let [Token::Name(word), Token::Name(name), Token::Sign(':'), kind @ ..] = tokens else { return None };
    if !matches!(word.as_str(), "const" | "static") {
        return None;
    }
    let (mut names, mut depth) = (Vec::new(), 0);
    for token in kind {
        match token {
            Token::Name(name) => names.push(name.as_str()),
            Token::Sign('=') => return Some((name, names)),
            // What a type is generic over has no value here.
            Token::Sign('>' | ',') if depth == 0 => return None,
            Token::Sign('<' | '[' | '(') => depth += 1,
            Token::Sign('>' | ']' | ')') => depth -= 1,
            Token::Into | Token::Sign(_) => {}
        }
    }
    None
}

fn is_bound(module: &str, name: &str, kind: &[&str]) -> bool {
    let words: Vec<&str> = name.split('_').collect();
    let has = |wanted: &[&str]| words.iter().any(|word| wanted.contains(word));
    if kind.contains(&"Duration") {
        return true;
    }
    let is_of_a_format = FORMATS.contains(&module.split("::").next().unwrap());
    let is_place = words.last() == Some(&"AT");
    kind.iter().any(|name| NUMBERS.contains(name)) && !is_place && (has(&WORDS) || has(&SIZES) && !is_of_a_format)
}

#[cfg(test)]
mod tests {
    use super::super::tokens::tokens;
    use super::*;

    fn found(module: &str, text: &str) -> Vec<String> {
        elsewhere(&BTreeMap::from([(module.to_owned(), tokens(text))])).into_iter().map(|(_, bound)| bound).collect()
    }

    #[test]
    fn bounds_are_found_by_type_and_by_name() {
        let text = "const A: std::time::Duration = X; pub(super) static PAUSES: [Duration; 2] = [X, X]; \
                    impl S { pub const MAX_FILES: usize = 5; } fn f() { const READ_BYTES: u64 = 1 << 20; } \
                    const RETRIES: RangeInclusive<u32> = 1..=2;";
        assert_eq!(found("wal::ask", text), ["A", "PAUSES", "MAX_FILES", "READ_BYTES", "RETRIES"]);
    }

    #[test]
    fn bounds_are_found_in_the_code() {
        let text = "fn f() { sleep(Duration::from_millis(10)); for _ in 0..20 {} for _ in 0..=3 {} }";
        assert_eq!(found("wal::ask", text), ["Duration::from_millis(10)", "for _ in 0..20", "for _ in 0..3"]);
    }

    #[test]
    fn facts_are_not_taken_for_bounds() {
        let text = "const MAX_CONNECTIONS_AT: usize = 180; const MAXIMAL: u32 = 1; const MAX_HINT: &str = \"\"; \
                    const fn max_bytes() -> usize { 1 } fn g<const N: usize, const MAX: u32>() { Duration::from_secs(n); for i in 0..3 {} }";
        assert_eq!(found("wal::ask", text), Vec::<String>::new());
        let size = "const HEADER_BYTES: usize = 24;";
        assert_eq!((found("pg::scan", size).len(), found("format", size).len(), found("codec", size).len()), (0, 0, 1));
        assert_eq!(found("pg::scan", "const MAX_RECORDS: usize = 24;"), ["MAX_RECORDS"]);
        assert_eq!(found("limits::wal", "pub const MAX_FILES: usize = 5;"), Vec::<String>::new());
    }
}
