//! What the live workers can read. A worker reports the newest version of events and of messages that it knows; while an older one
//! lives, events are stored and messages are published in the form that it can read.

use uuid::Uuid;

use crate::database::Database;
use crate::error::Result;
use crate::stored_form::StoredForm;

/// The version that this one reports.
const FORMAT_VERSION: i32 = 3;

/// What every live worker can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadableFormats {
    version: i32,
}

impl ReadableFormats {
    /// Returns the form in which events can be stored.
    pub fn stored_form(self) -> StoredForm {
        if self.version >= 1 { StoredForm::Apart } else { StoredForm::Alone }
    }

    /// Returns whether messages can have several hints.
    pub fn has_shared_messages(self) -> bool {
        self.version >= 2
    }

    /// Returns whether the headers of events can be packed.
    pub fn has_packed_headers(self) -> bool {
        self.version >= 3
    }
}

/// A worker that was not seen for this long, in seconds, is not live: more than three of its beats.
const LIVE_SECONDS: f64 = 35.0;

/// Reports that a worker lives, and forgets those that have not lived for an hour.
pub async fn beat(db: &Database, worker_id: Uuid) -> Result<()> {
    db.bounded(async {
        sqlx::query(
            "/* worker_heartbeats::beat */
            WITH gone AS (
                DELETE FROM worker_heartbeats WHERE seen_at < now() - interval '1 hour' AND worker_id <> $1
            )
            INSERT INTO worker_heartbeats (worker_id, format_version, seen_at) VALUES ($1, $2, now())
            ON CONFLICT (worker_id) DO UPDATE SET format_version = EXCLUDED.format_version, seen_at = EXCLUDED.seen_at",
        )
        .bind(worker_id)
        .bind(FORMAT_VERSION)
        .execute(db.pool())
        .await?;
        Ok(())
    })
    .await
}

/// Reports that a worker has ended.
pub async fn end(db: &Database, worker_id: Uuid) -> Result<()> {
    db.bounded(async {
        sqlx::query("/* worker_heartbeats::end */ DELETE FROM worker_heartbeats WHERE worker_id = $1")
            .bind(worker_id)
            .execute(db.pool())
            .await?;
        Ok(())
    })
    .await
}

/// Returns what every live worker can read; without any, what this version can.
pub async fn readable_formats(db: &Database) -> Result<ReadableFormats> {
    db.bounded(async {
        let oldest: Option<i32> = sqlx::query_scalar(
            "/* worker_heartbeats::readable_formats */
            SELECT min(format_version) FROM worker_heartbeats WHERE seen_at > now() - make_interval(secs => $1)",
        )
        .bind(LIVE_SECONDS)
        .fetch_one(db.pool())
        .await?;
        Ok(ReadableFormats { version: oldest.unwrap_or(FORMAT_VERSION).min(FORMAT_VERSION) })
    })
    .await
}
