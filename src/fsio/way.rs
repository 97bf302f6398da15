//! The way along a path, name by name and through symbolic links, for a walker that looks at each name before it goes
//! on.
//!
//! Lives here: which name comes next, and how many links are too many. May not live here: looking at anything. Depends
//! on nothing.

use crate::limits::MAX_PATH_LINKS;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path};

/// Names that are still ahead. `..` is one; `.` and the root are not.
pub(super) struct Way {
    ahead: VecDeque<OsString>,
    /// How many of these, at the end, are of the path itself and not of a link.
    own_names: usize,
    /// Whether the name that was taken last is of the path itself.
    is_own_name: bool,
    links: u32,
}

/// Where what a link says begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begins {
    /// At `/`.
    AtRoot,
    /// At the directory that the link is in.
    Here,
}

impl Way {
    /// All names of a path.
    pub(super) fn along(path: &Path) -> Self {
        let ahead: VecDeque<OsString> = names(path).collect();
        Self { own_names: ahead.len(), ahead, is_own_name: true, links: 0 }
    }

    /// Takes the next name; `None` at the end.
    pub(super) fn next_name(&mut self) -> Option<OsString> {
        let name = self.ahead.pop_front()?;
        self.is_own_name = self.ahead.len() < self.own_names;
        self.own_names = self.own_names.min(self.ahead.len());
        Some(name)
    }

    /// Puts the name back that was taken last.
    pub(super) fn put_back(&mut self, name: OsString) {
        self.ahead.push_front(name);
    }

    /// Whether the name that was taken last is of the path itself and not of a link.
    pub(super) fn is_own_name(&self) -> bool {
        self.is_own_name
    }

    /// Whether no name is left.
    pub(super) fn is_at_end(&self) -> bool {
        self.ahead.is_empty()
    }

    /// Puts the names of a link's target before all others; `None` when that was one link too many.
    pub(super) fn follow(&mut self, target: &Path) -> Option<Begins> {
        self.links += 1;
        if self.links > MAX_PATH_LINKS {
            return None;
        }
        for name in names(target).rev() {
            self.ahead.push_front(name);
        }
        Some(if target.is_absolute() { Begins::AtRoot } else { Begins::Here })
    }
}

fn names(path: &Path) -> impl DoubleEndedIterator<Item = OsString> + '_ {
    path.components().filter_map(|name| match name {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_links_come_first_and_are_not_the_paths_own() {
        let mut way = Way::along(Path::new("/a/./b/../c"));
        let take = |way: &mut Way| way.next_name().map(|name| (name.into_string().unwrap(), way.is_own_name()));
        assert_eq!(take(&mut way), Some(("a".to_owned(), true)));
        assert_eq!(way.follow(Path::new("/x/y")), Some(Begins::AtRoot));
        assert_eq!(take(&mut way), Some(("x".to_owned(), false)));
        assert_eq!(way.follow(Path::new("z")), Some(Begins::Here));
        let rest: Vec<_> = std::iter::from_fn(|| take(&mut way)).collect();
        let expected = [("z", false), ("y", false), ("b", true), ("..", true), ("c", true)];
        assert_eq!(rest, expected.map(|(name, is_own)| (name.to_owned(), is_own)));
        assert!(way.is_at_end());
        way.put_back("c".into());
        assert!(!way.is_at_end());
    }

    #[test]
    fn a_loop_of_links_ends() {
        let mut way = Way::along(Path::new("loop"));
        let followed = std::iter::from_fn(|| way.follow(Path::new("loop"))).count();
        assert_eq!(followed, MAX_PATH_LINKS as usize);
    }
}
