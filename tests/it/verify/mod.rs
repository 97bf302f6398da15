//! Verification: what is whole is found whole, and every damage is found, with what it costs.

mod command;
mod evidence;
mod full;
mod interrupted;
mod lost;
mod lost_kept;
mod quick;
pub mod world;
