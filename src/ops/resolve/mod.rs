//! `walvis resolve`: where a recovery to a target stops, and whether everything it needs is there. Touches nothing.

pub mod search;

#[cfg(test)]
mod tests;
