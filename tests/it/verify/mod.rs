//! Verification: what is whole is found whole, and every damage is found, with what it costs.

mod quick;
mod world;
