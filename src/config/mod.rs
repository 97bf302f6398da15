//! Settings: file < environment < flags → one validated [`Config`].
//!
//! Lives here: the [table of settings](definitions), from which all names, the reading of the settings file and of the
//! environment, the global flags, what a restored server's `restore_command` carries and `docs/SETTINGS.md` follow;
//! defaults, checks, suggestions for misspelt names. May not live here: parsing the command line (`cli` hands it over
//! as [`Flags`]), anything that opens a repository. What somebody set ([`Flags`], and the like for the file) and what
//! counts ([`Config`]) are different types.
//!
//! | file | what lives there |
//! |---|---|
//! | `setting` | what a setting is |
//! | `definitions` | the table: every setting, once |
//! | `given` | values that somebody set, before they mean anything |
//! | `file`, `environment` | where they come from |
//! | `values`, `repository`, `s3`, `retention`, `spool` | what they mean, checked |
//! | `load` | all of it in order |
//! | `child` | what a restored server gets of them |
//! | `trusted` | whose settings root follows, and secrets that others can read |
//! | `reference` | `docs/SETTINGS.md` |

mod child;
pub mod definitions;
mod environment;
mod file;
mod given;
mod invalid;
mod load;
mod reference;
mod repository;
mod retention;
mod s3;
pub mod setting;
mod spool;
mod trusted;
mod values;

pub use child::{Carried, HandedOn, absolute};
pub use definitions::{DEFAULT_CLUSTER, DEFAULT_COMPRESSION_LEVEL, DEFAULT_FILE, HELPER_VARIABLE};
pub use environment::{Environment, is_known_variable};
pub use given::{Flags, Value};
pub use load::Config;
pub use reference::reference;
pub use repository::RepositoryConfig;
pub use retention::Retention;
pub use spool::SpoolPlace;
pub use trusted::FileTexts;
pub use values::{parse_period, show_period};

#[cfg(test)]
mod tests;
