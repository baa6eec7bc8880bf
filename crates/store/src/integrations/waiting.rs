//! What waits for destinations, to be told before they are removed.

use grapnel_core::ids::IntegrationId;
use sqlx::Row;

use crate::database::Database;
use crate::error::Result;

/// Counting ends here: the number is for people.
pub const MOST_COUNTED: i64 = 10_000;

/// The unfinished deliveries to one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingDeliveries {
    pub destination: String,
    /// At most [`MOST_COUNTED`], which then means at least as many.
    pub count: i64,
}

impl WaitingDeliveries {
    /// Returns the warning before the destinations are removed; `None` when nothing waits.
    pub fn warning(waiting: &[Self]) -> Option<String> {
        let counts: Vec<String> = waiting
            .iter()
            .map(|Self { destination, count }| {
                let more = if *count >= MOST_COUNTED { " or more" } else { "" };
                format!("{destination} ({count}{more})")
            })
            .collect();
        (!counts.is_empty()).then(|| {
            format!(
                "destinations are removed while deliveries wait for them, which end as failed: {}. If one was renamed, replay \
                 these events to the new name",
                counts.join(", ")
            )
        })
    }
}

/// Returns which of the destinations have unfinished deliveries, and how many.
pub async fn waiting_for(
    db: &Database,
    id: IntegrationId,
    destinations: &[String],
) -> Result<Vec<WaitingDeliveries>> {
    if destinations.is_empty() {
        return Ok(Vec::new());
    }
    db.bounded(async {
        let rows = sqlx::query(
            "/* integrations::waiting::waiting_for */
            SELECT asked.destination, waiting.count
            FROM unnest($2::text[]) AS asked (destination)
            CROSS JOIN LATERAL (
                SELECT count(*) AS count
                FROM (
                    SELECT FROM deliveries d
                    WHERE d.integration_id = $1 AND d.destination = asked.destination AND d.finished_at IS NULL
                    LIMIT $3
                ) AS counted
            ) AS waiting
            WHERE waiting.count > 0
            ORDER BY asked.destination",
        )
        .bind(id.uuid())
        .bind(destinations)
        .bind(MOST_COUNTED)
        .fetch_all(db.pool())
        .await?;
        rows.iter()
            .map(|row| {
                Ok(WaitingDeliveries {
                    destination: row.try_get("destination")?,
                    count: row.try_get("count")?,
                })
            })
            .collect()
    })
    .await
}
