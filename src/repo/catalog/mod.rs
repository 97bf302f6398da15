//! The catalog: what the stored WAL holds, found with few requests. `docs/CATALOG.md` has the design and its rules.
//!
//! Lives here: timelines and paths, walks over segments and nodes, transactions of a segment, the writing of nodes. May
//! not live here: what a recovery target means (that is `recovery`), how a segment is scanned (`pg::scan`).

mod changes;
mod changes_nodes;
mod ends;
mod expected;
mod gone;
mod known;
mod listing;
mod names_cache;
mod nodes;
mod open;
mod path;
mod summaries;
mod timelines;
mod walk;
mod wanted;
mod write;

pub use changes::ChangesBetween;
pub use ends::OnEnd;
pub use gone::{IndexNode, reach};
pub use open::Catalog;
pub use path::{Leg, Path, TimelineInfo};
pub use walk::{Step, Visit, Wanted};
pub use wanted::WantedEnds;
pub use write::Rebuilt;
