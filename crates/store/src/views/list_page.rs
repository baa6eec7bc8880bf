//! One page of a list, with the list's total.

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Postgres, Row};

use super::page::{Page, PageRequest, Position, Total};
use super::snapshot::Snapshot;
use crate::database::Database;
use crate::error::Result;

/// A statement with its first parameters.
pub(crate) type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// The two statements of a list. Their first parameters are the filters, the same in both.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListStatements {
    /// Selects the rows. After the filters come the id to go on after (and its time, see `sorted_by_time`), the limit and
    /// the offset.
    pub(crate) list: &'static str,
    /// Counts the rows, up to one more than [`super::TOTAL_CAP`].
    pub(crate) count: &'static str,
    /// Whether the list is sorted by a time, and by the id only within it.
    pub(crate) sorted_by_time: bool,
}

/// Reads a page and the total in one snapshot. `filter` binds the filters.
pub(crate) async fn list_page<'q, T>(
    db: &Database,
    statements: ListStatements,
    request: PageRequest,
    filter: impl Fn(Statement<'q>) -> Statement<'q>,
    read_row: impl Fn(&PgRow) -> Result<T>,
    position: impl Fn(&T) -> Position,
) -> Result<Page<T>> {
    db.bounded(async {
        let mut snapshot = Snapshot::take(db).await?;
        let mut list = filter(sqlx::query(statements.list)).bind(request.after_id());
        if statements.sorted_by_time {
            list = list.bind(request.after_time());
        }
        let rows = list.bind(request.limit()).bind(request.offset()).fetch_all(snapshot.connection()).await?;
        let counted = filter(sqlx::query(statements.count)).fetch_one(snapshot.connection()).await?;
        snapshot.release().await?;
        let items = rows.iter().map(read_row).collect::<Result<Vec<_>>>()?;
        Ok(request.page(items, Some(Total::of(counted.try_get(0)?)), position))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::super::{TOTAL_CAP, attempts, audit, integrations, replays};

    #[test]
    fn counts_stop_at_one_more_than_the_cap() {
        let limit = format!("LIMIT {}", TOTAL_CAP + 1);
        for list in [attempts::LIST, audit::list::LIST, integrations::LIST, replays::LIST] {
            assert!(list.count.contains(&limit), "{}", list.count);
        }
    }
}
