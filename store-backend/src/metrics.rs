//! The figures of this tier, each described beside where it is counted.

use std::time::Duration;

use daemon::metrics::{
    counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use directory_api::{BackendName, Service, VolumeName};

use crate::volume::{SHORTAGES, VolumeStatus};

/// Tells the recorder what each figure means.
pub(crate) fn describe() {
    // What is described before anybody collects is lost. Once a process; later calls change nothing.
    daemon::metrics::install();
    describe_counter!(
        DELIVERIES,
        "Deliveries to one account, by the way they came and by outcome."
    );
    describe_gauge!(HELD, "Messages held for accounts of other back-ends.");
    describe_gauge!(HELD_BYTES, "Octets of these.");
    describe_gauge!(
        HELD_OLDEST,
        "Seconds since the oldest of these was received."
    );
    describe_gauge!(
        HELD_ASIDE,
        "Held messages that their home did not take: they wait by themselves."
    );
    describe_counter!(HOLD_FED, "Held messages given to a home, by its answer.");
    describe_counter!(
        HOLD_REFUSED,
        "Messages that were not held for want of room, by reason."
    );
    describe_histogram!(
        COMMIT,
        "Seconds from the end of a message's octets to its durable commit."
    );
    describe_histogram!(MESSAGE, "Octets of accepted messages, without trace lines.");
    describe_counter!(
        QUOTA,
        "Quotas that refused a write or a recipient, came near their end, or were exceeded by mail."
    );
    describe_gauge!(SESSIONS_OPEN, "Sessions of users open now.");
    describe_counter!(SESSIONS, "Sessions of users that ended, by how.");
    describe_counter!(
        SESSIONS_REFUSED,
        "Sessions of users that were not opened, by why."
    );
    describe_counter!(
        LEFT_ASKED,
        "Users whom proxies have looked for here while the directory is away, by what they were told."
    );
    describe_gauge!(COMPRESSED, "Sessions of users that use COMPRESS now.");
    describe_counter!(
        COMPRESSIONS_REFUSED,
        "COMPRESS answered with NO because limits.compressed_sessions_max is reached."
    );
    describe_counter!(POP3_EXPIRED, "Messages that POP3's retention removed.");
    describe_counter!(TRANSFERS, "Steps of moves, by step and outcome.");
    describe_gauge!(
        ANNOUNCED,
        "Whether the directory took the volume's last announcement."
    );
    describe_gauge!(JOURNAL, "Journal octets that a restart would replay.");
    describe_gauge!(
        OPEN,
        "Whether the volume is open; else its accounts are told to come again."
    );
    describe_gauge!(
        READ_ONLY,
        "Whether the volume refuses writes until a restart."
    );
    describe_counter!(
        FAILURES,
        "Failures after which a volume took no more writes, by reason."
    );
    describe_gauge!(
        REFUSES,
        "Whether a volume refuses what takes room, for now."
    );
    describe_gauge!(SHORT, "Whether a volume is short of something, by what.");
    describe_gauge!(DISK_SIZE, "Octets of the volume's file system.");
    describe_gauge!(DISK_FREE, "Octets of it that are free.");
    describe_gauge!(
        DISK_MARK,
        "Free octets below which the volume refuses what takes room."
    );
    describe_gauge!(
        INODES_FREE,
        "Inodes of the volume's file system that are free; absent where they are made as needed."
    );
    describe_gauge!(INDEX_MAP, "Octets that the index's map can hold.");
    describe_gauge!(INDEX_FILE, "Octets of the index's file.");
    describe_gauge!(
        INDEX_FREE,
        "Octets of it in pages given back, to be used again."
    );
    describe_gauge!(READERS, "Reads of the index under way.");
    describe_gauge!(
        READER_AGE,
        "Seconds since the oldest read of the index began that is under way: it pins pages given back since."
    );
    describe_gauge!(READER_LAG, "Writes of the index since that read began.");
    describe_gauge!(ACCOUNTS, "Accounts in the volume's index.");
    describe_gauge!(
        OUTSTANDING,
        "Reads and writes of the volume that wait or are being done."
    );
    describe_gauge!(
        QUARANTINED,
        "Blobs that are not served because their file has other octets or is gone."
    );
    describe_counter!(SCRUBBED, "Octets of blobs that the scrub has read.");
    describe_counter!(
        SCRUB_FOUND,
        "What the scrub has found wrong, by what it is and whether it was mended."
    );
    describe_gauge!(
        SCRUB_ENDED,
        "When the scrub last came to the end of the volume, in seconds since 1970."
    );
    describe_gauge!(
        INDEX_COPIED,
        "When the last verified copy of the index was made, in seconds since 1970."
    );
    describe_counter!(
        INDEX_COMPACTIONS,
        "How often the index was made small because most of its file was free."
    );
    describe_counter!(
        INDEX_GIVEN_BACK,
        "Octets by which that made the index's file smaller."
    );
}

/// One delivery to one account.
pub(crate) fn delivered(via: &'static str, outcome: &'static str) {
    counter!(DELIVERIES, "via" => via, "outcome" => outcome).increment(1);
}

/// What is held now.
#[expect(clippy::cast_precision_loss, reason = "a gauge is for people")]
pub(crate) fn held(messages: u64, octets: u64, oldest: Duration, aside: usize) {
    gauge!(HELD).set(messages as f64);
    gauge!(HELD_ASIDE).set(aside as f64);
    gauge!(HELD_BYTES).set(octets as f64);
    gauge!(HELD_OLDEST).set(oldest.as_secs_f64());
}

/// One held message was given to a home.
pub(crate) fn hold_fed(outcome: &'static str) {
    counter!(HOLD_FED, "outcome" => outcome).increment(1);
}

/// A message was not held, for want of room.
pub(crate) fn hold_refused(reason: &'static str) {
    counter!(HOLD_REFUSED, "reason" => reason).increment(1);
}

/// One message, however many accounts got it.
pub(crate) fn committed(octets: u64, commit: Duration) {
    histogram!(COMMIT).record(commit);
    #[expect(
        clippy::cast_precision_loss,
        reason = "a histogram's buckets are far coarser"
    )]
    histogram!(MESSAGE).record(octets as f64);
}

/// A quota came near its end (`warned`), was exceeded by what is always taken (`exceeded`), or refused a write (`refused`) or a recipient (`recipient`).
pub(crate) fn quota(event: &'static str) {
    counter!(QUOTA, "event" => event).increment(1);
}

/// One session that was not opened.
pub(crate) fn session_refused(service: Service, why: &'static str) {
    counter!(SESSIONS_REFUSED, "service" => service.as_str(), "why" => why).increment(1);
}

/// A proxy has looked for one user while the directory is away.
pub(crate) fn left_asked(outcome: &'static str) {
    counter!(LEFT_ASKED, "outcome" => outcome).increment(1);
}

/// One session that ended.
pub(crate) fn session_ended(service: Service, end: &'static str) {
    counter!(SESSIONS, "service" => service.as_str(), "end" => end).increment(1);
}

/// Messages whose retention was over at a QUIT.
pub(crate) fn pop3_expired(count: usize) {
    counter!(POP3_EXPIRED).increment(count as u64);
}

/// One step of a move.
pub(crate) fn transfer(step: &'static str, outcome: &'static str) {
    counter!(TRANSFERS, "step" => step, "outcome" => outcome).increment(1);
}

/// Whether the directory took the announcement.
pub(crate) fn announced(backend: &BackendName, volume: &VolumeName, taken: bool) {
    gauge!(ANNOUNCED, "backend" => backend.to_string(), "volume" => volume.to_string())
        .set(f64::from(u8::from(taken)));
}

/// Whether a volume is open, whatever it takes.
pub(crate) fn volume_open(backend: &BackendName, volume: &VolumeName, open: bool) {
    gauge!(OPEN, "backend" => backend.to_string(), "volume" => volume.to_string())
        .set(f64::from(u8::from(open)));
}

/// A volume takes no more writes.
pub(crate) fn volume_failed(backend: &BackendName, volume: &VolumeName, reason: &'static str) {
    counter!(FAILURES, "backend" => backend.to_string(), "volume" => volume.to_string(), "reason" => reason)
        .increment(1);
    gauge!(READ_ONLY, "backend" => backend.to_string(), "volume" => volume.to_string()).set(1.0);
}

/// How a volume is. Several back-ends may share a process, therefore the label.
#[expect(clippy::cast_precision_loss, reason = "a gauge is read by people")]
pub(crate) fn volume(backend: &BackendName, volume: &VolumeName, status: &VolumeStatus) {
    let set = |name: &'static str, value: f64| {
        gauge!(name, "backend" => backend.to_string(), "volume" => volume.to_string()).set(value);
    };
    let space = &status.space;
    set(JOURNAL, status.unreleased_bytes as f64);
    set(ACCOUNTS, status.account_count as f64);
    set(OUTSTANDING, status.outstanding as f64);
    set(READ_ONLY, f64::from(u8::from(status.read_only.is_some())));
    set(REFUSES, f64::from(u8::from(space.refuses)));
    for what in SHORTAGES {
        let is_short = f64::from(u8::from(space.short.contains(&what)));
        gauge!(SHORT, "backend" => backend.to_string(), "volume" => volume.to_string(), "what" => what)
            .set(is_short);
    }
    if let Some(disk) = space.disk {
        set(DISK_SIZE, disk.size_bytes as f64);
        set(DISK_FREE, disk.free_bytes as f64);
        set(DISK_MARK, space.mark_bytes as f64);
        if disk.inodes > 0 {
            set(INODES_FREE, disk.free_inodes as f64);
        }
    }
    set(INDEX_MAP, space.index.map_bytes as f64);
    set(INDEX_FILE, space.index.file_bytes as f64);
    set(INDEX_FREE, space.index.free_bytes as f64);
    set(READERS, space.readers.count as f64);
    set(READER_AGE, space.readers.oldest.as_secs_f64());
    set(READER_LAG, space.readers.oldest_lag_commits as f64);
}

/// How many blobs are broken now.
#[expect(clippy::cast_precision_loss, reason = "a gauge is read by people")]
pub(crate) fn quarantined(backend: &BackendName, volume: &VolumeName, count: usize) {
    gauge!(QUARANTINED, "backend" => backend.to_string(), "volume" => volume.to_string())
        .set(count as f64);
}

/// A copy of the index was made and verified.
#[expect(clippy::cast_precision_loss, reason = "a gauge is read by people")]
pub(crate) fn index_copied(backend: &BackendName, volume: &VolumeName, made_ms: i64) {
    gauge!(INDEX_COPIED, "backend" => backend.to_string(), "volume" => volume.to_string())
        .set(made_ms as f64 / 1000.0);
}

/// The index was made small.
pub(crate) fn index_compacted(backend: &BackendName, volume: &VolumeName, given_back: u64) {
    for (name, count) in [(INDEX_COMPACTIONS, 1), (INDEX_GIVEN_BACK, given_back)] {
        counter!(name, "backend" => backend.to_string(), "volume" => volume.to_string())
            .increment(count);
    }
}

/// The scrub has read a blob.
pub(crate) fn scrubbed(backend: &BackendName, volume: &VolumeName, octets: u64) {
    counter!(SCRUBBED, "backend" => backend.to_string(), "volume" => volume.to_string())
        .increment(octets);
}

/// The scrub has found something wrong.
pub(crate) fn scrub_found(
    backend: &BackendName,
    volume: &VolumeName,
    what: &'static str,
    mended: bool,
) {
    let mended = if mended { "yes" } else { "no" };
    counter!(SCRUB_FOUND, "backend" => backend.to_string(), "volume" => volume.to_string(), "what" => what, "mended" => mended)
        .increment(1);
}

/// The scrub has been everywhere.
#[expect(clippy::cast_precision_loss, reason = "a gauge is read by people")]
pub(crate) fn scrub_ended(backend: &BackendName, volume: &VolumeName, at_ms: i64) {
    gauge!(SCRUB_ENDED, "backend" => backend.to_string(), "volume" => volume.to_string())
        .set(at_ms as f64 / 1000.0);
}

/// Counts a session as open for as long as it lives.
pub(crate) struct SessionGauge(Service);

impl SessionGauge {
    pub(crate) fn enter(service: Service) -> Self {
        gauge!(SESSIONS_OPEN, "service" => service.as_str()).increment(1.0);
        Self(service)
    }
}

impl Drop for SessionGauge {
    fn drop(&mut self) {
        gauge!(SESSIONS_OPEN, "service" => self.0.as_str()).decrement(1.0);
    }
}

/// One COMPRESS refused for the limit.
pub(crate) fn compression_refused() {
    counter!(COMPRESSIONS_REFUSED).increment(1);
}

/// Counts a session as compressed for as long as it lives.
pub(crate) struct CompressedGauge(());

impl CompressedGauge {
    pub(crate) fn enter() -> Self {
        gauge!(COMPRESSED).increment(1.0);
        Self(())
    }
}

impl Drop for CompressedGauge {
    fn drop(&mut self) {
        gauge!(COMPRESSED).decrement(1.0);
    }
}

const DELIVERIES: &str = "posthouse_store_deliveries_total";
const HELD: &str = "posthouse_store_hold_messages";
const HELD_BYTES: &str = "posthouse_store_hold_bytes";
const HELD_OLDEST: &str = "posthouse_store_hold_oldest_seconds";
const HOLD_FED: &str = "posthouse_store_hold_fed_total";
const HELD_ASIDE: &str = "posthouse_store_hold_set_aside_messages";
const HOLD_REFUSED: &str = "posthouse_store_hold_refused_total";
const COMMIT: &str = "posthouse_store_delivery_commit_seconds";
const MESSAGE: &str = "posthouse_store_message_bytes";
const QUOTA: &str = "posthouse_store_quota_total";
const SESSIONS_OPEN: &str = "posthouse_store_sessions_open";
const SESSIONS: &str = "posthouse_store_sessions_total";
const SESSIONS_REFUSED: &str = "posthouse_store_sessions_refused_total";
const LEFT_ASKED: &str = "posthouse_store_left_asked_total";
const COMPRESSED: &str = "posthouse_store_sessions_compressed";
const COMPRESSIONS_REFUSED: &str = "posthouse_store_compressions_refused_total";
const POP3_EXPIRED: &str = "posthouse_store_pop3_expired_messages_total";
const TRANSFERS: &str = "posthouse_store_transfer_steps_total";
const ANNOUNCED: &str = "posthouse_store_announced";
const JOURNAL: &str = "posthouse_store_journal_unreleased_bytes";
const OPEN: &str = "posthouse_store_volume_open";
const READ_ONLY: &str = "posthouse_store_volume_read_only";
const FAILURES: &str = "posthouse_store_volume_failures_total";
const REFUSES: &str = "posthouse_store_volume_refuses_growth";
const SHORT: &str = "posthouse_store_volume_short";
const DISK_SIZE: &str = "posthouse_store_disk_size_bytes";
const DISK_FREE: &str = "posthouse_store_disk_free_bytes";
const DISK_MARK: &str = "posthouse_store_disk_free_mark_bytes";
const INODES_FREE: &str = "posthouse_store_disk_free_inodes";
const INDEX_MAP: &str = "posthouse_store_index_map_bytes";
const INDEX_FILE: &str = "posthouse_store_index_file_bytes";
const READERS: &str = "posthouse_store_index_readers";
const READER_AGE: &str = "posthouse_store_index_oldest_reader_seconds";
const READER_LAG: &str = "posthouse_store_index_oldest_reader_lag_commits";
const INDEX_FREE: &str = "posthouse_store_index_free_bytes";
const ACCOUNTS: &str = "posthouse_store_volume_accounts";
const OUTSTANDING: &str = "posthouse_store_volume_operations_outstanding";
const QUARANTINED: &str = "posthouse_store_quarantined_blobs";
const INDEX_COMPACTIONS: &str = "posthouse_store_index_compactions_total";
const INDEX_GIVEN_BACK: &str = "posthouse_store_index_compacted_bytes_total";
const INDEX_COPIED: &str = "posthouse_store_index_copy_timestamp_seconds";
const SCRUBBED: &str = "posthouse_store_scrub_read_bytes_total";
const SCRUB_FOUND: &str = "posthouse_store_scrub_findings_total";
const SCRUB_ENDED: &str = "posthouse_store_scrub_completed_timestamp_seconds";
