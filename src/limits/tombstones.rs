//! Bounds of tombstones, voids and pins.

use super::units::{KIB, MIB};

/// Longest plaintext of a tombstone. Segments and packs are written as runs, about 100 bytes each; only `.partial` and
/// `.backup` files are written one by one: room for a million of those.
pub const MAX_TOMBSTONE_BYTES: u64 = 64 * MIB as u64;
/// Largest object that may be a void: they take about 400 bytes. What is larger in the place of a manifest is one, and
/// its metadata need not be read to know that.
pub const MAX_VOID_OBJECT_BYTES: u64 = 4 * KIB as u64;
/// Longest reason of a void, so that its object stays far below [`MAX_VOID_OBJECT_BYTES`].
pub const MAX_VOID_REASON_BYTES: usize = KIB;
/// Longest reason of a pin.
pub const MAX_PIN_REASON_BYTES: usize = 500;
/// Most pins of one backup, one after the other: their numbers have 8 digits.
pub const MAX_PINS: u32 = 99_999_999;
