//! Verification: whether what is stored is all there and right, and what damage costs. `docs/VERIFICATION.md` has the
//! design.
//!
//! Lives here: the quick, full and rolling looks, findings and their cost, repair. May not live here: the form of
//! stored objects (`repo`), where recovery would stop (`recovery`). Depends on layers below it only.
//!
//! | question | file |
//! |---|---|
//! | What is stored, by the names in one listing? | `inventory` |
//! | Which backups are there, and what do they refer to? | `heads` |
//! | Which paths lead to each timeline, and what is missing on them? | `lines` |
//! | What is needed by somebody? | `needed`; by the rules of the repository: `window` |
//! | What does damage cost? | `costs`; all of these put together: `known` |
//! | What is wrong, without reading content? | `quick` |
//! | Which manifests did somebody delete? | `lost_manifests` |
//! | What is wrong in any byte? | `full`; one object: `read`; what packs must hold: `references`; neighbours: `continuity`; the catalog: `nodes` |
//! | What does a rolling verification read now? | `rolling`, from the listings of `listing` |
//! | What do earlier ones tell, and what is written down? | `remember` |
//! | Since when is each backup verified? | `checked_backups` |
//! | What is found, and what was looked at? | [`findings`] |
//! | In which order does all that happen, for the command? | `session` |
//! | How does what is damaged become good again? | [`repair`]; all that was found: `repair_found` |

mod answer;
mod checked_backups;
mod continuity;
mod costs;
mod fault;
pub mod findings;
mod full;
mod heads;
mod inventory;
mod known;
mod lines;
mod listing;
mod lost_manifests;
mod meter;
mod needed;
mod nodes;
mod quick;
mod read;
mod references;
mod remember;
pub mod repair;
mod repair_found;
mod request;
mod rolling;
mod run;
mod session;
mod window;

pub use answer::answer;
pub use checked_backups::checked_backups;
pub use findings::{Checked, Cost, Finding, Findings, LostMoments, Problem, Subject};
pub use listing::Listing;
pub use remember::{Memory, Occasion, Shares};
pub use repair_found::{RepairRun, RepairedObject, repair_found};
pub use request::{Hooks, Mode, Progress, SeenManifests, VerifyRequest, Window};
pub use rolling::{Share, share};
pub use run::{Counts, Verified, verify};
pub use session::{Look, Session, SessionRequest, session};
