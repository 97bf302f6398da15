//! Relations between bounds of which one relies on another, asserted at compile time. Nothing else.

use super::backups::{
    EXTENT_BYTES, EXTENTS_PER_TABLE, MAX_ATTACHMENT_BYTES, MAX_ATTACHMENTS, MAX_BACKUP_FILE_LINKS, MAX_BACKUP_JOBS,
    MAX_FACTS_BYTES, MAX_GAP_BYTES, MAX_PACK_BYTES, MAX_PACK_RECORDS, MAX_PATH_BYTES, MAX_RANGE_BYTES, MAX_SUMMARY_WARNINGS,
    MAX_WARNINGS, MIN_PACK_BYTES, MIN_RANGE_BYTES, NEEDED_WAL_FIRST_PAUSE, NEEDED_WAL_MAX_PAUSE, PACKS_MEMORY_BYTES,
    RANGES_MEMORY_BYTES,
};
use super::evidence::{
    MAX_EVIDENCE_BACKUPS, MAX_EVIDENCE_BYTES, MAX_EVIDENCE_FINDINGS, MAX_EVIDENCE_LINKS, MAX_EVIDENCE_RUNS,
    MAX_EVIDENCE_TEXT_BYTES,
};
use super::host::{DIRECT_ALIGNMENT, DIRECT_BLOCK_BYTES, MAX_PATH_LINKS, MIN_DIRECT_BYTES};
use super::objects::{
    CATALOG_READERS, LISTED_NAMES, MAX_LISTED_SPAN, MAX_METADATA_BYTES, MAX_SERVER_VERSION, MAX_SUMMARY_BYTES, MAX_WINDOW_LOG,
    METADATA_READ_BYTES, MIN_SERVER_VERSION, PUSH_CATALOG_READERS,
};
use super::output::{MAX_LOCKS_PRINTED, PROGRESS_EVERY, SHORT_WAIT};
use super::servers::{MAX_LOCKS_REPORTED, TRIAL_EVERY, TRIAL_LIMIT};
use super::stores::{
    ABANDONED_AFTER, CLAIM_RENEWED_AFTER, MAX_PARTS, MAX_STALL, MAX_TIMEOUT, OUTAGE_PAUSE, PART_BYTES, RETRY_FIRST_DELAY,
    RETRY_MAX_DELAY,
};
use super::units::{KIB, MIB};
use super::wal::{
    AHEAD_FILES, AHEAD_IDLE, CHECK_STORE_GRACE, CHECK_TIME_RESERVE, FETCH_IDLE, HEARTBEAT, HEARTBEAT_LOST, HELPER_LOOKS_EVERY,
    MAX_CHANGES_BYTES, MAX_CHANGES_MEMORY_BYTES, MAX_DROPPED_TABLESPACES, MAX_SEGMENT_CHANGES_BYTES, MAX_TABLESPACE_PATH_BYTES,
    MAX_WAL_SEGMENT_BYTES, MIN_WAL_SEGMENT_BYTES, NEAR_FILES, PIECE_FIRST_BYTES, PIECE_LAST_BYTES, PUSH_AHEAD_MAX_THREADS,
    STANDBY_PATIENCE, WATCHING_HELPER_LOOKS_EVERY,
};

const _: () = {
    assert!(HEARTBEAT.as_millis() * 3 < HEARTBEAT_LOST.as_millis());
    assert!(STANDBY_PATIENCE.as_secs() < OUTAGE_PAUSE.as_secs());
    assert!(MAX_STALL.as_secs() * 4 <= MAX_TIMEOUT.as_secs());
    assert!(MAX_PARTS as u64 * PART_BYTES as u64 >= 8 * MAX_WAL_SEGMENT_BYTES);
    assert!(PART_BYTES >= 5 * MIB);
    assert!(PUSH_AHEAD_MAX_THREADS * PART_BYTES <= 32 * MIB);
    assert!(METADATA_READ_BYTES <= MAX_METADATA_BYTES);
    // Of a record that crosses segments all that a mark says is kept.
    assert!(PIECE_FIRST_BYTES >= MAX_TABLESPACE_PATH_BYTES + 64 && PIECE_FIRST_BYTES >= 4 * MAX_DROPPED_TABLESPACES + 64);
    // encode_within always succeeds then.
    assert!(MAX_SUMMARY_BYTES >= MAX_SEGMENT_CHANGES_BYTES + 4 * (PIECE_FIRST_BYTES + PIECE_LAST_BYTES));
    // A push reads some nodes of changes at once, and joins them.
    assert!(MAX_CHANGES_MEMORY_BYTES + PUSH_CATALOG_READERS * MAX_CHANGES_BYTES <= 64 * MIB);
    assert!(MAX_WINDOW_LOG <= 23);
    // 300 bytes of JSON for each extent, 1 KiB more and the path for each attachment.
    assert!(MAX_ATTACHMENTS * (MAX_ATTACHMENT_BYTES / EXTENT_BYTES * 300 + KIB + 2 * MAX_PATH_BYTES) <= MAX_FACTS_BYTES / 2);
    // A table of extents that all lie in different packs: 16 bytes more each.
    assert!(EXTENTS_PER_TABLE * (16 + 4 + 3 + 5 + 3 + 17) + 32 <= EXTENT_BYTES);
    assert!(MAX_PACK_RECORDS * 6 + 4 * KIB <= MAX_METADATA_BYTES);
    assert!(PACKS_MEMORY_BYTES >= 2 * MAX_PACK_BYTES);
    assert!(MAX_TIMEOUT.as_secs() * 2 <= ABANDONED_AFTER.as_secs());
    assert!(RETRY_FIRST_DELAY.as_millis() <= RETRY_MAX_DELAY.as_millis());
    // Claims: one that is still renewed is never taken to be dead.
    assert!(CLAIM_RENEWED_AFTER.as_secs() + MAX_TIMEOUT.as_secs() < ABANDONED_AFTER.as_secs());
    // The jobs of a backup fill their packs at the same time.
    assert!(MAX_BACKUP_JOBS * MIN_PACK_BYTES <= PACKS_MEMORY_BYTES);
    assert!(MIN_RANGE_BYTES <= MAX_RANGE_BYTES && MAX_RANGE_BYTES <= RANGES_MEMORY_BYTES);
    assert!(MAX_GAP_BYTES < MIN_RANGE_BYTES);
    assert!(MAX_BACKUP_FILE_LINKS <= MAX_PATH_LINKS);
    assert!(MIN_DIRECT_BYTES <= DIRECT_BLOCK_BYTES);
    assert!(EXTENT_BYTES.is_multiple_of(DIRECT_ALIGNMENT) && DIRECT_BLOCK_BYTES.is_multiple_of(EXTENT_BYTES));
    assert!(MIN_SERVER_VERSION < MAX_SERVER_VERSION);
    assert!(LISTED_NAMES as u64 <= MAX_LISTED_SPAN);
    assert!(MAX_LOCKS_PRINTED <= MAX_LOCKS_REPORTED);
    assert!(PUSH_CATALOG_READERS <= CATALOG_READERS);
    assert!(NEEDED_WAL_FIRST_PAUSE.as_millis() <= NEEDED_WAL_MAX_PAUSE.as_millis());
    assert!(NEAR_FILES < AHEAD_FILES);
    assert!(HELPER_LOOKS_EVERY.as_millis() < HEARTBEAT.as_millis());
    assert!(WATCHING_HELPER_LOOKS_EVERY.as_millis() <= AHEAD_IDLE.as_millis() && AHEAD_IDLE.as_secs() < FETCH_IDLE.as_secs());
    assert!(TRIAL_LIMIT.as_secs() < TRIAL_EVERY.as_secs());
    assert!(CHECK_TIME_RESERVE.as_secs() < CHECK_STORE_GRACE.as_secs());
    assert!(SHORT_WAIT.as_millis() < PROGRESS_EVERY.as_millis());
    assert!(MAX_SUMMARY_WARNINGS <= MAX_WARNINGS);
    assert!(MIN_WAL_SEGMENT_BYTES <= MAX_WAL_SEGMENT_BYTES);
    // Evidence fits: two texts for each finding, of which JSON may write each byte as six.
    assert!(
        MAX_EVIDENCE_RUNS * 100 + MAX_EVIDENCE_BACKUPS * 110 + MAX_EVIDENCE_LINKS * 130 + 4 * KIB
            <= MAX_EVIDENCE_BYTES - MAX_EVIDENCE_FINDINGS * (12 * MAX_EVIDENCE_TEXT_BYTES + 100)
    );
};
