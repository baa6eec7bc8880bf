//! The headers of several events, which lists leave out.

use std::collections::HashMap;

use grapnel_core::ids::EventId;
use sqlx::postgres::PgRow;

use crate::columns::Columns;
use crate::database::Database;
use crate::error::Result;
use crate::packed_headers;
use crate::stored_form::{first_of_millisecond, of_request};

/// Reads the headers of events, as JSON text: `[[name, value], …]`, secrets redacted. Events that are gone are missing.
pub async fn load_headers(db: &Database, ids: &[EventId]) -> Result<HashMap<EventId, String>> {
    let ids: Vec<_> = ids.iter().map(|id| id.uuid()).collect();
    let (Some(first), Some(last)) = (ids.iter().min(), ids.iter().max()) else { return Ok(HashMap::new()) };
    db.bounded(async {
        let rows = sqlx::query(concat!(
            "/* views::load_headers */
            SELECT e.id, COALESCE(",
            of_request!("r.headers", "$4", "$3"),
            ", e.headers)::text AS headers, e.packed_headers
            FROM events e WHERE e.id = ANY($1) AND e.id BETWEEN $2 AND $3"
        ))
        .bind(&ids)
        .bind(first)
        .bind(last)
        .bind(first_of_millisecond(*first))
        .fetch_all(db.pool())
        .await?;
        let pair = |row: &PgRow| {
            let id = row.id("id", EventId::new)?;
            Ok((id, packed_headers::json_text(row, id.uuid())?.unwrap_or_default()))
        };
        rows.iter().map(pair).collect()
    })
    .await
}
