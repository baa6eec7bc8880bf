//! What has become of the deliveries that a job has fed.
//!
//! The end of a delivery is read from the delivery itself, so it does not matter who recorded it. What waits for a retry is not looked at before its
//! time.

use grapnel_core::ids::{EventId, ReplayJobId};
use grapnel_core::replay::pace::{RECENT_ATTEMPTS, RecentAttempts};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::columns::Columns;
use crate::error::Result;

/// Deliveries that one turn looks at.
const MAX_LOOKS: i64 = 10_000;

/// What has become of deliveries.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) succeeded: i64,
    pub(super) failed: i64,
}

/// Looks at the deliveries that are under way.
pub(super) async fn look(
    tx: &mut PgConnection,
    id: ReplayJobId,
    recent: &mut RecentAttempts,
) -> Result<Ends> {
    let mut ends = Ends::default();
    let (mut ended, mut changed) = (Vec::new(), Vec::new());
    for delivery in read_fed(tx, id).await? {
        let (look, failures) = delivery.look();
        (0..failures.min(RECENT_ATTEMPTS)).for_each(|_| recent.add(true));
        match look {
            Look::Succeeded => {
                recent.add(false);
                ends.succeeded += 1;
                ended.push(delivery);
            }
            Look::Failed => {
                ends.failed += 1;
                ended.push(delivery);
            }
            Look::WaitsUntil(time) => changed.push((delivery, Some(time))),
            Look::UnderWay if failures > 0 => changed.push((delivery, None)),
            Look::UnderWay => {}
        }
    }
    forget(tx, id, &ended).await?;
    update(tx, id, &changed).await?;
    Ok(ends)
}

/// What a look at a delivery says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Succeeded,
    Failed,
    /// It waits for its next attempt until then.
    WaitsUntil(Timestamp),
    UnderWay,
}

/// A delivery that was fed, as it is now. `attempts` and the rest are `None` when it is gone.
#[derive(Debug)]
struct FedDelivery {
    event_id: EventId,
    destination: String,
    /// Attempts that were counted before.
    counted: i32,
    /// What another replay saw before it took it.
    outcome: Option<bool>,
    attempts: Option<i32>,
    has_succeeded: Option<bool>,
    is_finished: bool,
    due_at: Option<Timestamp>,
    is_unsent: bool,
}

impl FedDelivery {
    /// Says what has become of it, and how many of its attempts have failed since the last look. One that is gone before its end was seen has failed.
    fn look(&self) -> (Look, u32) {
        let attempts = self.attempts.map_or(0, |attempts| (attempts - self.counted).max(0).unsigned_abs());
        let end = match self.outcome {
            Some(succeeded) => Some(succeeded),
            None if self.attempts.is_none() => Some(false),
            None => self.has_succeeded.filter(|_| self.is_finished),
        };
        match (end, self.due_at) {
            // The attempts since then are another's.
            (Some(succeeded), _) if self.outcome.is_some() => match succeeded {
                true => (Look::Succeeded, 0),
                false => (Look::Failed, 1),
            },
            (Some(true), _) => (Look::Succeeded, attempts.saturating_sub(1)),
            (Some(false), _) => (Look::Failed, attempts),
            // What could not be sent because of a fault of ours is no attempt, and no reason to go on either.
            (None, Some(due_at)) => (Look::WaitsUntil(due_at), attempts.max(self.is_unsent.into())),
            (None, None) => (Look::UnderWay, attempts),
        }
    }
}

async fn read_fed(tx: &mut PgConnection, id: ReplayJobId) -> Result<Vec<FedDelivery>> {
    // One that is held, or put aside by a removal, is under way: its time never comes by itself.
    let rows = sqlx::query(
        "/* replay_jobs::turn::read_fed */
        WITH fed AS MATERIALIZED (
            SELECT event_id, destination, attempts, outcome FROM replay_deliveries
            WHERE job_id = $1 AND look_at <= now()
            ORDER BY look_at LIMIT $2
        )
        SELECT fed.event_id, fed.destination, fed.attempts AS counted, fed.outcome = 'succeeded' AS outcome,
            d.attempts, d.status = 'succeeded' AS has_succeeded, d.finished_at IS NOT NULL AS is_finished,
            CASE WHEN d.due_at > now() AND d.due_at < '9999-01-01 00:00:00+00' THEN d.due_at END AS due_at,
            d.unsent_since IS NOT NULL AS is_unsent
        FROM fed
        LEFT JOIN deliveries d ON d.event_id = fed.event_id AND d.destination = fed.destination",
    )
    .bind(id.uuid())
    .bind(MAX_LOOKS)
    .fetch_all(tx)
    .await?;
    let delivery = |row: &PgRow| {
        Ok(FedDelivery {
            event_id: row.id("event_id", EventId::new)?,
            destination: row.try_get("destination")?,
            counted: row.try_get("counted")?,
            outcome: row.try_get("outcome")?,
            attempts: row.try_get("attempts")?,
            has_succeeded: row.try_get("has_succeeded")?,
            is_finished: row.try_get("is_finished")?,
            due_at: row.optional_time("due_at")?,
            is_unsent: row.try_get("is_unsent")?,
        })
    };
    rows.iter().map(delivery).collect()
}

async fn forget(tx: &mut PgConnection, id: ReplayJobId, ended: &[FedDelivery]) -> Result<()> {
    if ended.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "/* replay_jobs::turn::forget */
        DELETE FROM replay_deliveries r
        USING unnest($2::uuid[], $3::text[]) AS ended (event_id, destination)
        WHERE r.job_id = $1 AND r.event_id = ended.event_id AND r.destination = ended.destination",
    )
    .bind(id.uuid())
    .bind(ended.iter().map(|one| one.event_id.uuid()).collect::<Vec<_>>())
    .bind(ended.iter().map(|one| one.destination.as_str()).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

async fn update(
    tx: &mut PgConnection,
    id: ReplayJobId,
    changed: &[(FedDelivery, Option<Timestamp>)],
) -> Result<()> {
    if changed.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "/* replay_jobs::turn::update */
        UPDATE replay_deliveries r
        SET attempts = changed.attempts, look_at = COALESCE(changed.look_at, r.look_at)
        FROM unnest($2::uuid[], $3::text[], $4::int[], $5::timestamptz[]) AS changed (event_id, destination, attempts, look_at)
        WHERE r.job_id = $1 AND r.event_id = changed.event_id AND r.destination = changed.destination",
    )
    .bind(id.uuid())
    .bind(changed.iter().map(|(one, _)| one.event_id.uuid()).collect::<Vec<_>>())
    .bind(changed.iter().map(|(one, _)| one.destination.as_str()).collect::<Vec<_>>())
    .bind(changed.iter().map(|(one, _)| one.attempts.unwrap_or(one.counted)).collect::<Vec<_>>())
    .bind(changed.iter().map(|(_, look_at)| look_at.map(|time| time.to_sqlx())).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(counted: i32, attempts: Option<i32>) -> FedDelivery {
        FedDelivery {
            event_id: EventId::generate(),
            destination: "orders".to_owned(),
            counted,
            outcome: None,
            attempts,
            has_succeeded: attempts.map(|_| false),
            is_finished: false,
            due_at: None,
            is_unsent: false,
        }
    }

    #[test]
    fn a_look_counts_each_attempt_once() {
        let ended =
            |succeeded| FedDelivery { is_finished: true, has_succeeded: Some(succeeded), ..fed(1, Some(3)) };
        assert_eq!(ended(true).look(), (Look::Succeeded, 1));
        assert_eq!(ended(false).look(), (Look::Failed, 2));
        assert_eq!(fed(2, Some(2)).look(), (Look::UnderWay, 0));
        assert_eq!(fed(2, Some(3)).look(), (Look::UnderWay, 1));
        let time = Timestamp::now();
        let waiting = FedDelivery { due_at: Some(time), ..fed(0, Some(1)) };
        assert_eq!(waiting.look(), (Look::WaitsUntil(time), 1));
        let unsent = FedDelivery { due_at: Some(time), is_unsent: true, ..fed(1, Some(1)) };
        assert_eq!(unsent.look(), (Look::WaitsUntil(time), 1));
    }

    #[test]
    fn what_is_gone_has_failed_and_what_another_took_ended_as_that_one_saw_it() {
        assert_eq!(fed(2, None).look(), (Look::Failed, 0));
        let taken = FedDelivery { outcome: Some(true), ..fed(0, Some(5)) };
        assert_eq!(taken.look(), (Look::Succeeded, 0));
    }
}
