//! One event with all that is known of it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff_sqlx::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::Row;
use sqlx::postgres::PgRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::attempts::{Attempt, attempts_of_event};
use super::event_sql as sql;
use super::events::event_of;
use super::jobs::{ProcessingJob, jobs_of_event};
use super::snapshot::Snapshot;
use super::{Event, EventStatus, Instant};
use crate::database::Database;
use crate::error::{Error, Result};

/// The latest attempts that an event's answers have. An event that was replayed so often that it has more of them is
/// read through the list of attempts.
const SHOWN_ATTEMPTS: i64 = 500;

/// An event, what was received, and what became of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventRecord {
    pub event: Event,
    pub webhook: Webhook,
    /// The latest 500, in the order in which they were made.
    pub delivery_attempts: Vec<Attempt>,
    /// The jobs of those attempts, then the unfinished ones.
    pub processing_jobs: Vec<ProcessingJob>,
}

/// The request as it was received.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    pub integration_id: Uuid,
    pub provider: String,
    #[schema(required)]
    pub external_event_id: Option<String>,
    pub idempotency_key: String,
    /// By name; values of a repeated name are joined with `, `. Headers that carry a secret are `[redacted]`.
    pub request_headers: BTreeMap<String, String>,
    /// The body, unchanged, when it is JSON.
    #[schema(required, value_type = Option<serde_json::Value>)]
    pub raw_payload: Option<Box<RawValue>>,
    /// The exact bytes of the body, in base64.
    #[schema(content_encoding = "base64")]
    pub raw_body: String,
    #[schema(required)]
    pub source_ip: Option<String>,
    pub received_at: Instant,
}

/// How far an event's processing is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Processing {
    pub event_id: Uuid,
    pub status: EventStatus,
    /// Attempts of all deliveries so far.
    #[schema(minimum = 0)]
    pub processing_attempts: i64,
    /// The latest error of a delivery that did not succeed.
    #[schema(required)]
    pub last_error: Option<String>,
    /// When the last attempt ended.
    #[schema(required)]
    pub last_processed_at: Option<Instant>,
    /// The jobs of the latest 500 attempts, then the unfinished ones.
    pub jobs: Vec<ProcessingJob>,
}

/// The event with its webhook, attempts and jobs.
pub async fn load_event(db: &Database, queue_prefix: &str, id: Uuid) -> Result<Option<EventRecord>> {
    db.bounded(async {
        let mut snapshot = Snapshot::take(db).await?;
        let connection = snapshot.connection();
        let Some(row) = sqlx::query(sql::LOAD_EVENT).bind(id).fetch_optional(&mut *connection).await? else {
            return Ok(None);
        };
        let attempts = attempts_of_event(connection, id, SHOWN_ATTEMPTS).await?;
        let processing_jobs = jobs_of_event(connection, queue_prefix, id, &attempts).await?;
        snapshot.release().await?;
        Ok(Some(EventRecord {
            event: event_of(&row)?,
            webhook: webhook_of(id, &row)?,
            delivery_attempts: attempts.into_iter().map(|finished| finished.attempt).collect(),
            processing_jobs,
        }))
    })
    .await
}

/// How far the event's processing is.
pub async fn load_processing(db: &Database, queue_prefix: &str, id: Uuid) -> Result<Option<Processing>> {
    db.bounded(async {
        let mut snapshot = Snapshot::take(db).await?;
        let connection = snapshot.connection();
        let Some(row) = sqlx::query(sql::LOAD_PROCESSING).bind(id).fetch_optional(&mut *connection).await?
        else {
            return Ok(None);
        };
        let attempts = attempts_of_event(connection, id, SHOWN_ATTEMPTS).await?;
        let jobs = jobs_of_event(connection, queue_prefix, id, &attempts).await?;
        snapshot.release().await?;
        let last_processed_at: Option<Timestamp> = row.try_get("last_processed_at")?;
        Ok(Some(Processing {
            event_id: id,
            status: EventStatus::of_row(&row, id)?,
            processing_attempts: row.try_get("attempts")?,
            last_error: row.try_get("last_error")?,
            last_processed_at: last_processed_at.map(Instant::from),
            jobs,
        }))
    })
    .await
}

fn webhook_of(id: Uuid, row: &PgRow) -> Result<Webhook> {
    let body: &[u8] = row.try_get("raw_body")?;
    let headers: &str = row.try_get("headers")?;
    let headers = serde_json::from_str::<Vec<(String, String)>>(headers)
        .map_err(|source| Error::Corrupt { table: "events", column: "headers", id, source: Some(source) })?;
    Ok(Webhook {
        integration_id: row.try_get("integration_id")?,
        provider: row.try_get("provider")?,
        external_event_id: row.try_get("external_event_id")?,
        idempotency_key: row.try_get("idempotency_key")?,
        request_headers: joined(headers),
        raw_payload: serde_json::from_slice(body).ok(),
        raw_body: STANDARD.encode(body),
        source_ip: row.try_get("source_ip")?,
        received_at: row.try_get::<Timestamp, _>("received_at")?.into(),
    })
}

fn joined(headers: Vec<(String, String)>) -> BTreeMap<String, String> {
    let mut by_name = BTreeMap::<String, String>::new();
    for (name, value) in headers {
        by_name
            .entry(name)
            .and_modify(|values| {
                values.push_str(", ");
                values.push_str(&value);
            })
            .or_insert(value);
    }
    by_name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_headers_are_joined() {
        let pairs = [("accept", "a"), ("x-tag", "1"), ("x-tag", "2"), ("x-tag", "1")];
        let headers = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let expected = [("accept", "a"), ("x-tag", "1, 2, 1")];
        assert!(joined(headers).iter().map(|(name, value)| (&**name, &**value)).eq(expected));
    }
}
