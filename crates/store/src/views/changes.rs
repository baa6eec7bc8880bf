//! What has changed since a reader last looked: new events, and events of which an attempt ended.
//!
//! A change is one that a reader's last snapshot did not see and this one does. So each is met once, in whatever order transactions
//! commit, and also when they commit long after their ids were made, as long as they take no longer than [`LONGEST_COMMIT`].

use std::collections::HashMap;
use std::time::Duration;

use grapnel_core::ids::IntegrationId;
use jiff::{SignedDuration, Timestamp};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::events::{EventFilter, EventRow, EventSelection, load};
use super::id_time::id_at;
use super::snapshot::Snapshot;
use crate::database::Database;
use crate::deliveries::is_filtered;
use crate::error::Result;

/// The time from the making of an id to its commit, clocks that differ included, up to which a change is met.
const LONGEST_COMMIT: SignedDuration = SignedDuration::from_secs(10);

/// How far back a reader may go on.
const LONGEST_ABSENCE: SignedDuration = SignedDuration::from_mins(10);

/// The time that reading changes may take.
const READ_TIME: Duration = Duration::from_secs(2);

/// Characters of a [`Seen`] that is read back: more than a server's connections can make.
const MAX_SEEN_CHARS: usize = 16_384;

/// What a reader has seen: the time, and the snapshot as PostgreSQL writes it (`xmin:xmax:xip,xip`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    at: Timestamp,
    snapshot: String,
}

impl Seen {
    /// Reads what [`Self::to_text`] wrote. `None` for anything else.
    pub fn of_text(text: &str) -> Option<Self> {
        let (at, snapshot) = text.split_once('-')?;
        if text.len() > MAX_SEEN_CHARS || at.is_empty() || !at.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let at = Timestamp::from_millisecond(at.parse().ok()?).ok()?;
        let parts: Vec<&str> = snapshot.split(':').collect();
        let [first, end, running] = parts[..] else { return None };
        let number =
            |text: &str| text.parse::<u64>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        let (first, end) = (number(first)?, number(end)?);
        let mut before = None;
        for id in running.split(',').filter(|_| !running.is_empty()) {
            // PostgreSQL refuses what is not within the bounds, or not in order.
            let id = number(id).filter(|id| (first..end).contains(id) && Some(*id) > before)?;
            before = Some(id);
        }
        (0 < first && first <= end).then(|| Self { at, snapshot: snapshot.to_owned() })
    }

    /// The form that a client keeps: digits, `-`, `:` and `,`.
    pub fn to_text(&self) -> String {
        format!("{}-{}", self.at.as_millisecond(), self.snapshot)
    }
}

/// An event that has changed, as it is now; its payload is left out.
#[derive(Debug)]
pub struct ChangedEvent {
    pub event: EventRow,
    deliveries: Vec<ChangedDelivery>,
}

#[derive(Debug)]
struct ChangedDelivery {
    destination: String,
    /// As the list of events selects it.
    status: String,
    /// Of its last attempt: when that was, and the HTTP status of the answer, if there was one.
    last_attempt: Option<(Uuid, Option<i16>)>,
}

/// The changes since a reader last looked.
#[derive(Debug)]
pub struct Changes {
    /// The latest ones, in the order of their ids.
    pub events: Vec<ChangedEvent>,
    /// How many more there were within the limit that were only counted.
    pub counted: u64,
    /// How many more there were than the limit. None when the reader was away for too long to say.
    pub unread: Option<u64>,
    pub seen: Seen,
}

/// Returns what a reader has seen that begins now.
pub async fn now_seen(db: &Database) -> Result<Seen> {
    db.bounded(async {
        let mut snapshot = Snapshot::take(db).await?;
        let seen = seen(snapshot.connection()).await?;
        snapshot.release().await?;
        Ok(seen)
    })
    .await
}

async fn seen(connection: &mut PgConnection) -> Result<Seen> {
    let row =
        sqlx::query("/* views::changes::seen */ SELECT now() AS at, pg_current_snapshot()::text AS snapshot")
            .fetch_one(connection)
            .await?;
    let at: jiff_sqlx::Timestamp = row.try_get("at")?;
    Ok(Seen { at: at.to_jiff(), snapshot: row.try_get("snapshot")? })
}

/// Whether a row was not yet visible in snapshot $1. `xmin` has 32 bits, to which the epoch of now is added, or the one before. The
/// statements that write these rows have no subtransactions, which a snapshot does not tell.
///
/// Nearly all rows of the last seconds are older than all that ran then, and nearly all others are younger: which of the two is found out at a tenth
/// of the cost.
macro_rules! is_new {
    ($row:literal) => {
        concat!(
            "age(",
            $row,
            ".xmin) <= present.age_of_first AND (age(",
            $row,
            ".xmin) <= present.age_of_end OR NOT pg_visible_in_snapshot((
                    ((present.xid >> 32) - (",
            $row,
            ".xmin::text::bigint > (present.xid & 4294967295))::int << 32) + ",
            $row,
            ".xmin::text::bigint
                )::text::xid8, $1::text::pg_snapshot))"
        )
    };
}

const CHANGED: &str = concat!(
    "/* views::changes::changed */
    WITH present AS MATERIALIZED (
        SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS xid,
            age(pg_snapshot_xmin($1::text::pg_snapshot)::xid) AS age_of_first,
            age(pg_snapshot_xmax($1::text::pg_snapshot)::xid) AS age_of_end
    ),
    changed AS (
        SELECT e.id AS event_id, e.id AS at FROM present, events e
        WHERE e.id >= $2 AND ",
    is_new!("e"),
    "
        UNION ALL
        SELECT a.event_id, a.id FROM present, delivery_attempts a
        WHERE a.id >= $2 AND ",
    is_new!("a"),
    "
    )
    SELECT event_id, count(*) OVER () AS all_changed FROM changed
    GROUP BY event_id ORDER BY max(at::text) DESC LIMIT $3"
);

/// Returns what has changed since then, at most so many events, and of these only the latest.
pub async fn changes_since(db: &Database, since: &Seen, limit: usize, latest: usize) -> Result<Changes> {
    db.bounded(async {
        let mut snapshot = Snapshot::take(db).await?;
        snapshot.walk_for(READ_TIME).await?;
        let seen = seen(snapshot.connection()).await?;
        if seen.at.duration_since(since.at) > LONGEST_ABSENCE || is_of_another_history(since, &seen) {
            snapshot.release().await?;
            return Ok(Changes { events: Vec::new(), counted: 0, unread: None, seen });
        }
        let first = id_at((since.at - LONGEST_COMMIT).as_millisecond());
        let rows = sqlx::query(CHANGED)
            .bind(&since.snapshot)
            .bind(first)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(snapshot.connection())
            .await?;
        let mut ids = rows.iter().map(|row| row.try_get("event_id")).collect::<sqlx::Result<Vec<Uuid>>>()?;
        let all = rows.first().map_or(Ok(0), |row| row.try_get::<i64, _>("all_changed"))?;
        let within = ids.len();
        ids.truncate(latest);
        ids.sort_unstable();
        let mut deliveries = load_deliveries(snapshot.connection(), &ids).await?;
        let events = load(snapshot.connection(), &ids, 0).await?;
        snapshot.release().await?;
        let changed = |event: EventRow| {
            let deliveries = deliveries.remove(&event.id.uuid()).unwrap_or_default();
            ChangedEvent { event, deliveries }
        };
        let unread = u64::try_from(all).unwrap_or(0).saturating_sub(within as u64);
        let counted = within.saturating_sub(latest) as u64;
        Ok(Changes { events: events.into_iter().map(changed).collect(), counted, unread: Some(unread), seen })
    })
    .await
}

/// Whether a snapshot is ahead of the present one, as after a restore from a backup.
fn is_of_another_history(since: &Seen, present: &Seen) -> bool {
    let end = |seen: &Seen| seen.snapshot.split(':').nth(1).and_then(|xid| xid.parse::<u64>().ok());
    end(since) > end(present)
}

async fn load_deliveries(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<HashMap<Uuid, Vec<ChangedDelivery>>> {
    let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Ok(HashMap::new()) };
    let rows = sqlx::query(concat!(
        "/* views::changes::deliveries */
        SELECT d.event_id, d.destination,
            CASE WHEN ",
        is_filtered!(),
        " THEN 'filtered' WHEN d.status = 'succeeded' THEN 'processed' ELSE d.status::text END AS status,
            attempt.id AS attempt_id, attempt.http_status
        FROM deliveries d
        LEFT JOIN LATERAL (
            SELECT a.id, a.http_status FROM delivery_attempts a
            WHERE a.event_id = d.event_id AND a.destination = d.destination
            ORDER BY a.id DESC LIMIT 1
        ) AS attempt ON true
        WHERE d.event_id = ANY($1) AND d.event_id BETWEEN $2 AND $3"
    ))
    .bind(ids)
    .bind(first)
    .bind(last)
    .fetch_all(connection)
    .await?;
    let mut deliveries: HashMap<Uuid, Vec<ChangedDelivery>> = HashMap::new();
    for row in rows {
        let attempt: Option<Uuid> = row.try_get("attempt_id")?;
        let http_status: Option<i16> = row.try_get("http_status")?;
        deliveries.entry(row.try_get("event_id")?).or_default().push(ChangedDelivery {
            destination: row.try_get("destination")?,
            status: row.try_get("status")?,
            last_attempt: attempt.map(|id| (id, http_status)),
        });
    }
    Ok(deliveries)
}

impl ChangedEvent {
    /// Whether the list of events with this filter has it, as far as that does not take its body. `of` are the integrations that the
    /// filter names, if it names some.
    pub fn passes(
        &self,
        filter: &EventFilter,
        selection: Option<EventSelection>,
        of: Option<&[IntegrationId]>,
    ) -> bool {
        let event = &self.event;
        let is = |wanted: &Option<String>, text: &str| wanted.as_deref().is_none_or(|wanted| wanted == text);
        let is_some = |wanted: &Option<String>, text: &Option<String>| wanted.is_none() || wanted == text;
        let is_within = |from: Option<Timestamp>, until: Option<Timestamp>, time: Timestamp| {
            from.is_none_or(|from| from <= time) && until.is_none_or(|until| time < until)
        };
        of.is_none_or(|of| of.contains(&event.integration_id))
            && filter.visible.as_ref().is_none_or(|visible| visible.contains(&event.integration_id))
            && is(&filter.provider, &event.provider)
            && is(&filter.event_type, &event.event_type)
            && is(&filter.correlation_id, &event.correlation_id)
            && is_some(&filter.external_event_id, &event.external_event_id)
            && is_within(filter.from, filter.until, event.occurred_at)
            && is_within(filter.received_from, filter.received_until, event.received_at)
            && filter.subject.as_deref().is_none_or(|text| has_text(event.subject.as_deref(), text))
            && self.deliveries_pass(filter, selection)
    }

    fn deliveries_pass(&self, filter: &EventFilter, selection: Option<EventSelection>) -> bool {
        let destination = filter.destination.as_deref();
        let meant = || {
            let is_meant = |delivery: &&ChangedDelivery| {
                destination.is_none_or(|destination| destination == delivery.destination)
            };
            self.deliveries.iter().filter(is_meant)
        };
        let has_status = match (selection, destination) {
            (None, None) => true,
            (None, Some(_)) => meant().next().is_some(),
            (Some(EventSelection::Status(status)), None) => self.event.status == status,
            (Some(selection), _) => meant().any(|delivery| delivery.status == selection.as_str()),
        };
        let http_status = || {
            let last = meant().filter_map(|delivery| delivery.last_attempt).max_by_key(|(id, _)| *id);
            last.and_then(|(_, status)| status)
        };
        has_status && (filter.http_status.is_none() || filter.http_status == http_status())
    }
}

/// Whether a subject has the text, in upper or lower case.
fn has_text(subject: Option<&str>, text: &str) -> bool {
    subject.is_some_and(|subject| subject.to_lowercase().contains(&text.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_read_as_it_was_written() {
        for text in ["1764435600000-10:20:10,14,19", "0-3:3:", "1764435600000-10:20:"] {
            assert_eq!(Seen::of_text(text).unwrap().to_text(), text);
        }
    }

    #[test]
    fn what_postgresql_would_refuse_is_not_read() {
        for text in [
            "",
            "-",
            "1",
            "1-",
            "x-1:2:",
            "-1-1:2:",
            "1-1:2",
            "1-2:1:",
            "1-0:1:",
            "1-1:2:3",
            "1-1:5:3,2",
            "1-1:5:2,2",
            "1-1:5:+2",
            "1-1:2:,",
            "1-1:2::",
            "1-1:99999999999999999999:",
        ] {
            assert_eq!(Seen::of_text(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_snapshot_that_is_ahead_is_of_another_history() {
        let seen = |text: &str| Seen::of_text(text).unwrap();
        assert!(is_of_another_history(&seen("1-5:9:"), &seen("2-5:8:")));
        assert!(!is_of_another_history(&seen("1-5:9:"), &seen("2-9:9:")));
    }
}
