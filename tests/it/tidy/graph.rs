//! The module graph of `src`: which module uses what which other one defines. Re-exports are followed to where an item
//! is defined, whole files are read, and only test modules are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use super::tokens::{Token, after_pair, after_visibility, is_name, is_sign, program};

/// A path of names, such as `["pg", "scan", "event"]`.
type Names = Vec<String>;

/// Modules and what they use.
pub struct Graph {
    /// Of every module those that it uses, and a path by which it does.
    pub edges: BTreeMap<String, BTreeMap<String, String>>,
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
        let modules: Modules = program(src, files).iter().map(|(name, tokens)| (name.clone(), Module::read(tokens))).collect();
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
