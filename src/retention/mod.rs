//! Retention: what is kept, and how the rest goes. `docs/RETENTION.md` has the design and the argument.
//!
//! Lives here: the rules, the plan, the two phases. May not live here: the form of stored objects (`repo`), where
//! recovery would stop (`recovery`). Depends on layers below it only.

mod clock;
mod copies;
mod deleting;
pub mod execute;
mod expire_system;
mod leftovers;
#[cfg(test)]
mod model;
mod needed;
pub mod plan;
pub mod report;
pub mod rules;
mod stored;
