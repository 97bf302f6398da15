//! Secrets stay where they belong: not in arguments, not in the environment of others, not in core dumps, logs, or
//! anything written.

mod closed;
mod spoken;
mod traced;
