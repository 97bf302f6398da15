//! The module graph of `src`: which module uses what which other one defines. Re-exports are followed to where an item
//! is defined, whole files are read, and only test modules are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

/// A path of names, such as `["pg", "scan", "event"]`.
type Names = Vec<String>;

/// Modules and what they use.
pub struct Graph {
    /// Of every module those that it uses, and a path by which it does.
    pub edges: BTreeMap<String, BTreeMap<String, String>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Name(String),
    /// `::`
    Into,
    Sign(char),
}

/// A name that a `use` brings into a module.
#[derive(Debug, Clone)]
struct Import {
    path: Names,
    name: String,
    is_public: bool,
}

/// A module as its file has it.
#[derive(Default)]
struct Module {
    imports: Vec<Import>,
    /// Paths of at least two names in its code.
    paths: Vec<Names>,
}

impl Graph {
    /// Reads all files below `src`, of which `files` are the paths.
    pub fn read(src: &Path, files: &[std::path::PathBuf]) -> Self {
        let mut modules = BTreeMap::new();
        let mut of_tests = BTreeSet::new();
        for path in files {
            let relative = path.strip_prefix(src).unwrap().with_extension("");
            let mut names: Names = relative.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
            if names.last().is_some_and(|name| name == "mod") {
                names.pop();
            }
            if matches!(names.join("::").as_str(), "lib" | "main") {
                continue;
            }
            let (tokens, tests) = without_tests(&tokens(&std::fs::read_to_string(path).unwrap()));
            of_tests.extend(tests.into_iter().map(|test| format!("{}::{test}", names.join("::"))));
            modules.insert(names.join("::"), Module::read(&tokens));
        }
        modules.retain(|name, _| !of_tests.iter().any(|test| name == test || name.starts_with(&format!("{test}::"))));
        let edges = modules.iter().map(|(name, module)| (name.clone(), edges_of(name, module, &modules))).collect();
        Self { edges }
    }

    /// Modules that use each other, directly or not.
    pub fn circles(&self) -> Vec<BTreeSet<String>> {
        let reach: BTreeMap<&String, BTreeSet<&String>> = self.edges.keys().map(|from| (from, self.reachable(from))).collect();
        let mut circles: Vec<BTreeSet<String>> = Vec::new();
        for (from, reached) in &reach {
            if reached.contains(from) && !circles.iter().any(|circle| circle.contains(*from)) {
                let back = reached.iter().filter(|other| reach.get(*other).is_some_and(|reached| reached.contains(from)));
                circles.push(back.map(|other| (*other).clone()).collect());
            }
        }
        circles
    }

    fn reachable(&self, from: &String) -> BTreeSet<&String> {
        let (mut found, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(module) = open.pop() {
            for next in self.edges.get(module).into_iter().flat_map(BTreeMap::keys) {
                if found.insert(next) {
                    open.push(next);
                }
            }
        }
        found
    }

    /// A line for each module that uses others.
    pub fn picture(&self) -> String {
        let mut picture = String::new();
        for (module, used) in self.edges.iter().filter(|(_, used)| !used.is_empty()) {
            let used: Vec<&str> = used.keys().map(String::as_str).collect();
            writeln!(picture, "{module} -> {}", used.join(", ")).unwrap();
        }
        picture
    }

    /// Why these modules are a circle: what they use of each other.
    pub fn explain(&self, circle: &BTreeSet<String>) -> String {
        let mut lines = String::new();
        for module in circle {
            for (used, by) in self.edges[module].iter().filter(|(used, _)| circle.contains(*used)) {
                writeln!(lines, "    {module} -> {used} ({by})").unwrap();
            }
        }
        lines
    }
}

/// Names, `::` and other signs, without comments, texts, characters and lifetimes.
fn tokens(text: &str) -> Vec<Token> {
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

fn is_name(token: Option<&Token>, name: &str) -> bool {
    matches!(token, Some(Token::Name(found)) if found == name)
}

fn is_sign(token: Option<&Token>, sign: char) -> bool {
    token == Some(&Token::Sign(sign))
}

/// The index after what is opened at `at` by `open`.
fn after_pair(tokens: &[Token], at: usize, open: char, close: char) -> usize {
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
fn after_visibility(tokens: &[Token], at: usize) -> usize {
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

impl Module {
    fn read(tokens: &[Token]) -> Self {
        let mut module = Self::default();
        let mut i = 0;
        while i < tokens.len() {
            if is_name(tokens.get(i), "pub") {
                let after = after_visibility(tokens, i + 1);
                if is_name(tokens.get(after), "use") {
                    i = module.import(tokens, after + 1, true);
                } else {
                    i = after;
                }
            } else if is_name(tokens.get(i), "use") && !is_sign(tokens.get(i + 1), '<') {
                i = module.import(tokens, i + 1, false);
            } else if let Token::Name(name) = &tokens[i] {
                let mut path = vec![name.clone()];
                i += 1;
                while let (Some(Token::Into), Some(Token::Name(next))) = (tokens.get(i), tokens.get(i + 1)) {
                    path.push(next.clone());
                    i += 2;
                }
                if path.len() > 1 {
                    module.paths.push(path);
                }
            } else {
                i += 1;
            }
        }
        module
    }

    /// Reads what follows `use`; the index after its semicolon.
    fn import(&mut self, tokens: &[Token], at: usize, is_public: bool) -> usize {
        let end = tokens.iter().skip(at).position(|token| *token == Token::Sign(';')).map_or(tokens.len(), |n| at + n);
        self.tree(&tokens[at..end], &mut Vec::new(), is_public);
        end + 1
    }

    fn tree(&mut self, tokens: &[Token], base: &mut Names, is_public: bool) {
        let depth = base.len();
        let mut i = 0;
        while i < tokens.len() {
            match &tokens[i] {
                Token::Name(name) if name == "as" => {
                    if let Some(Token::Name(alias)) = tokens.get(i + 1) {
                        self.imports.push(Import { path: base.clone(), name: alias.clone(), is_public });
                    }
                    return base.truncate(depth);
                }
                Token::Name(name) if name == "self" && !base.is_empty() => {}
                Token::Name(name) => base.push(name.clone()),
                Token::Sign('{') => {
                    let inside = &tokens[i + 1..after_pair(tokens, i, '{', '}') - 1];
                    for part in parts(inside) {
                        self.tree(part, base, is_public);
                    }
                    return base.truncate(depth);
                }
                Token::Sign('*') | Token::Into | Token::Sign(_) => {}
            }
            i += 1;
        }
        if let Some(name) = base.last().cloned() {
            self.imports.push(Import { path: base.clone(), name, is_public });
        }
        base.truncate(depth);
    }
}

/// What commas outside of braces divide.
fn parts(tokens: &[Token]) -> Vec<&[Token]> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
    for (i, token) in tokens.iter().enumerate() {
        match token {
            Token::Sign('{') => depth += 1,
            Token::Sign('}') => depth -= 1,
            Token::Sign(',') if depth == 0 => {
                parts.push(&tokens[from..i]);
                from = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&tokens[from..]);
    parts.retain(|part| !part.is_empty());
    parts
}

type Modules = BTreeMap<String, Module>;

/// The path from the crate's root; `None` for what is of another crate.
fn absolute(path: &[String], module: &str, modules: &Modules) -> Option<Names> {
    let mut here: Names = module.split("::").map(str::to_owned).collect();
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some([here, path[1..].to_vec()].concat()),
        "super" => {
            let ups = path.iter().take_while(|name| *name == "super").count();
            here.truncate(here.len().saturating_sub(ups));
            Some([here, path[ups..].to_vec()].concat())
        }
        first => modules.contains_key(&format!("{module}::{first}")).then(|| [here, path.to_vec()].concat()),
    }
}

/// The module that defines what a path leads to.
fn defined_in(path: &[String], modules: &Modules, depth: usize) -> Option<String> {
    for n in (1..=path.len()).rev() {
        let name = path[..n].join("::");
        let Some(module) = modules.get(&name) else { continue };
        let Some(next) = path.get(n) else { return Some(name) };
        let again = module.imports.iter().find(|import| import.is_public && import.name == *next);
        let further = again.filter(|_| depth > 0).and_then(|import| absolute(&import.path, &name, modules));
        let followed = further.and_then(|to| defined_in(&[to, path[n + 1..].to_vec()].concat(), modules, depth - 1));
        return Some(followed.unwrap_or(name));
    }
    None
}

fn edges_of(name: &str, module: &Module, modules: &Modules) -> BTreeMap<String, String> {
    const MOST_RE_EXPORTS: usize = 10;
    let mut edges = BTreeMap::new();
    let mut add = |to: &[String], by: &[String]| {
        if let Some(used) = defined_in(to, modules, MOST_RE_EXPORTS)
            && used != name
        {
            edges.entry(used).or_insert_with(|| by.join("::"));
        }
    };
    let mut imported: BTreeMap<&str, Names> = BTreeMap::new();
    for import in module.imports.iter().filter(|import| !import.is_public) {
        let Some(to) = absolute(&import.path, name, modules) else { continue };
        // A module that is imported counts by what the code takes from it.
        if !modules.contains_key(&to.join("::")) {
            add(&to, &import.path);
        }
        imported.insert(&import.name, to);
    }
    for path in &module.paths {
        let to = match imported.get(path[0].as_str()) {
            Some(base) if modules.contains_key(&base.join("::")) => Some([base.clone(), path[1..].to_vec()].concat()),
            Some(_) => None,
            None => absolute(path, name, modules),
        };
        if let Some(to) = to.filter(|to| !modules.contains_key(&to.join("::"))) {
            add(&to, path);
        }
    }
    edges
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The graph of files that are given by their paths and texts.
    fn graph(files: &[(&str, &str)]) -> Graph {
        let place = tempfile::tempdir().unwrap();
        let mut paths = Vec::new();
        for (path, text) in files {
            let path = place.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            paths.push(path);
        }
        Graph::read(place.path(), &paths)
    }

    fn uses(graph: &Graph, module: &str) -> Vec<String> {
        graph.edges[module].keys().cloned().collect()
    }

    #[test]
    fn re_exports_lead_to_the_module_that_defines() {
        let graph = graph(&[
            ("a/mod.rs", "mod one; pub(crate) mod two; pub use one::{One, self as uno}; pub use two::Two as Second;"),
            ("a/one.rs", "pub struct One; use super::Second;"),
            ("a/two.rs", "pub struct Two;"),
            ("b.rs", "use crate::a::{self, One}; fn f() -> a::Second { 'x: loop { crate::a::two::f('\"') } }"),
            (
                "c.rs",
                "// crate::b::X\nconst C: &str = \"crate::b::X\"; const D: &str = r#\"\"crate::b::X\"#; use std::fmt::Debug;",
            ),
        ]);
        assert_eq!(uses(&graph, "a"), Vec::<String>::new());
        assert_eq!(uses(&graph, "a::one"), ["a::two"]);
        assert_eq!(uses(&graph, "b"), ["a::one", "a::two"]);
        assert_eq!(uses(&graph, "c"), Vec::<String>::new());
        assert!(graph.circles().is_empty());
    }

    #[test]
    fn circles_are_found_and_test_modules_do_not_count() {
        let graph = graph(&[
            ("a/mod.rs", "mod child; pub struct Parent; fn f() { child::g() } #[cfg(test)] mod checks;"),
            ("a/child.rs", "use super::Parent; pub fn g() {}"),
            ("a/checks.rs", "use crate::c::X;"),
            (
                "b.rs",
                "use crate::c::X; #[cfg(test)]\n#[allow(x)]\npub(super) mod tests { use crate::a::Parent; } fn h() { crate::d::y() }",
            ),
            ("c.rs", "pub struct X;"),
            ("d.rs", "#[cfg(test)] fn t() {} use crate::e::Y;"),
            ("e.rs", "pub struct Y; fn z() -> Option<crate::b::Z> {}"),
        ]);
        let circles: Vec<Vec<String>> = graph.circles().into_iter().map(|circle| circle.into_iter().collect()).collect();
        assert_eq!(circles, [vec!["a", "a::child"], vec!["b", "d", "e"]]);
        assert_eq!(uses(&graph, "b"), ["c", "d"]);
        assert!(!graph.edges.contains_key("a::checks"));
        assert!(graph.explain(&graph.circles()[0]).contains("a::child -> a (super::Parent)"));
    }
}
