//! Bounds of what is logged and printed, and how often.

use std::time::Duration;

/// How often progress is logged where nobody watches a terminal.
pub const PROGRESS_EVERY: Duration = Duration::from_secs(10);
/// A wait that is over sooner is not worth a word.
pub const SHORT_WAIT: Duration = Duration::from_secs(2);
/// Between two looks at what is being waited for.
pub const PROGRESS_LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest line of progress: longer ones would wrap on most terminals, and then no longer be rewritten.
pub const PROGRESS_COLUMNS: usize = 79;
/// Longest line of prose in the reference of settings, in characters.
pub const REFERENCE_COLUMNS: usize = 120;

/// Most gaps that are listed of a timeline; all are counted.
pub const MAX_GAPS_LISTED: usize = 10;
/// Most lines of damaged pages and warnings that are printed; `--json` has all.
pub const MAX_FINDINGS_PRINTED: usize = 20;
/// Most runs of segments that a plan prints; `--json` has all.
pub const MAX_RUNS_PRINTED: usize = 10;
/// Most locks that are printed; `--json` has all.
pub const MAX_LOCKS_PRINTED: usize = 20;
/// Most names that a message lists: of files, or of keys.
pub const MAX_NAMES_IN_MESSAGE: usize = 5;
/// Last lines of a server's log that are shown.
pub const LOG_TAIL_LINES: usize = 15;
/// Lines of the output of a trial of the archive command that are shown.
pub const TRIAL_OUTPUT_LINES: usize = 4;
