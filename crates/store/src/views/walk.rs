//! Walks: lists whose filters have no index, or not one in the order of the list.
//!
//! A walk reads the rows of a source in the order of their ids, a bounded number in each statement, and tests each of them. So it ends when its
//! page is full, when nothing is left, or when its time is up, and then it can be resumed where it ended: it never begins again from
//! the front, and what it costs does not depend on how much history there is.

use std::time::{Duration, Instant};

use sqlx::Row;
use uuid::Uuid;

use super::list_page::Statement;
use super::page::{Page, PageRequest, Position, TOTAL_CAP, Total};
use super::snapshot::Snapshot;
use crate::database::Database;
use crate::error::{Error, Result};

/// The time that a page may take, its total included: what the page leaves of it is spent on counting, and then there is no total.
const PAGE_TIME: Duration = Duration::from_secs(2);

/// The rows of the first slice, the fewest, and the most.
const FIRST_ROWS: i64 = 100;
const FEWEST_ROWS: i64 = 10;
const MOST_ROWS: i64 = 100_000;

/// How many times as long as the one before a slice may be, at most: the first ones take as long as they take to plan, and say little.
const FASTEST_GROWTH: i64 = 64;

/// The times within which slices are kept, and the one after which a slice is given up for a shorter one.
const SHORT_SLICE: Duration = Duration::from_millis(60);
const LONG_SLICE: Duration = Duration::from_millis(250);
const SLICE_TIMEOUT: Duration = Duration::from_millis(700);

/// The time for the fewest rows, when nothing was read before the time was up: a walk always gets somewhere.
const LAST_SLICE_TIMEOUT: Duration = Duration::from_secs(3);

/// The rows that a slice is to read: so many of its source after an id. A statement returns how many there were (`scanned`), the last one in the
/// order of the walk (`last`), and those that pass (`ids`), in any order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slice {
    pub(super) after: Option<Uuid>,
    pub(super) rows: i64,
}

impl Slice {
    /// The one that says what the total is.
    pub(super) const COUNTED: Self = Self { after: None, rows: TOTAL_CAP as i64 + 1 };
}

/// Why a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// There is nothing more.
    Complete,
    /// As many were found as were wanted.
    Full,
    OutOfTime,
}

/// What a walk has found so far.
#[derive(Debug, Default)]
struct Found {
    /// In the order of the walk.
    ids: Vec<Uuid>,
    /// Everything up to this one was read.
    through: Option<Uuid>,
    /// Whether there is something to go on from, so that the walk may end.
    has_progressed: bool,
}

/// The ids of a page, and all of the page but its items.
#[derive(Debug)]
pub(super) struct WalkedPage {
    pub(super) ids: Vec<Uuid>,
    total: Option<Total>,
    /// Where the walk ended for lack of time.
    scanned_through: Option<Uuid>,
}

impl WalkedPage {
    /// The page of a list that has nothing.
    pub(super) fn empty() -> Self {
        Self { ids: Vec::new(), total: Some(Total::of(0)), scanned_through: None }
    }

    /// Makes the page from the items with the ids, in their order.
    pub(super) fn page<T>(self, request: PageRequest, items: Vec<T>, id: impl Fn(&T) -> Uuid) -> Page<T> {
        let mut page = request.page(items, self.total, |item| Position { key: 0, id: id(item) });
        if let Some(through) = self.scanned_through {
            page.next = Some(Position { key: 0, id: through });
            page.scanned_through = Some(through);
        }
        page
    }
}

/// Walks to a page, and finds the total. `slice` makes the statement of a slice, and `descends` says in which direction. `count` counts up to
/// [`Slice::COUNTED`] where an index says what passes, and may say nothing (NULL); what has to be tested is counted by walking on.
///
/// # Errors
/// [`Error::Deadline`] when not even a few rows could be read in time.
pub(super) async fn walk_to_page<'q>(
    db: &Database,
    request: PageRequest,
    descends: bool,
    slice: impl Fn(Slice) -> Statement<'q>,
    count: Option<Statement<'q>>,
) -> Result<WalkedPage> {
    let skipped = usize::try_from(request.offset()).unwrap_or(usize::MAX);
    let wanted = skipped.saturating_add(usize::try_from(request.limit()).unwrap_or(usize::MAX));
    let mut walk = Walk { db, descends, slice, pace: Pace::default() };
    let mut found = Found { through: request.after_id(), ..Found::default() };
    let deadline = Instant::now() + PAGE_TIME;
    let end = walk.go_on(&mut found, wanted, deadline).await?;
    let ids = found.ids.iter().copied().skip(skipped).take(wanted - skipped).collect();
    if end == End::OutOfTime {
        return Ok(WalkedPage { ids, total: None, scanned_through: found.through });
    }
    let is_first = request.after().is_none();
    let counted = match count {
        _ if is_first && end == End::Complete => Ok(Some(found.counted())),
        Some(count) => count_until(db, count, deadline).await,
        None => Ok(None),
    };
    let counted = match counted {
        Ok(None) if is_first => walk.count_on(found, deadline).await,
        Ok(None) => walk.count_on(Found::default(), deadline).await,
        said => said,
    };
    let total = match counted {
        Ok(counted) => counted.map(Total::of),
        Err(Error::Deadline) => None,
        Err(error) => return Err(error),
    };
    Ok(WalkedPage { ids, total, scanned_through: None })
}

async fn count_until(db: &Database, count: Statement<'_>, deadline: Instant) -> Result<Option<i64>> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Ok(None);
    }
    db.bounded(async {
        let mut snapshot = Snapshot::take(db).await?;
        snapshot.walk_for(left).await?;
        let row = count.fetch_one(snapshot.connection()).await?;
        snapshot.release().await?;
        Ok(row.try_get(0)?)
    })
    .await
}

/// How long slices are: what is known from those before.
#[derive(Debug)]
struct Pace {
    /// The rows that are read in a short time.
    rows: i64,
    scanned: i64,
    passed: i64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { rows: FIRST_ROWS, scanned: 0, passed: 0 }
    }
}

impl Pace {
    /// Returns how many rows to read for so many that pass: none that are not wanted, and no more than there is time for.
    fn rows_for(&self, wanted: usize) -> i64 {
        self.expected(wanted).max(FEWEST_ROWS).min(self.rows)
    }

    fn expected(&self, wanted: usize) -> i64 {
        let wanted = i64::try_from(wanted).unwrap_or(i64::MAX);
        match self.passed {
            0 => i64::MAX,
            passed => (wanted.saturating_mul(self.scanned) / passed).saturating_add(1),
        }
    }

    /// Reads so many that pass at once, unless slices were slow: planning one takes longer than reading thousands of rows, and a part of a total is
    /// of no use.
    fn leap(&mut self, wanted: usize) {
        if self.rows >= FIRST_ROWS {
            self.rows = self.rows.max(self.expected(wanted).min(MOST_ROWS));
        }
    }

    fn has_read(&mut self, rows: i64, passed: usize, took: Duration) {
        self.scanned = self.scanned.saturating_add(rows);
        self.passed = self.passed.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX));
        if took > LONG_SLICE {
            self.rows = (rows / 2).max(FEWEST_ROWS);
        } else if took < SHORT_SLICE {
            let times = SHORT_SLICE.as_micros() / took.as_micros().max(1);
            let times = i64::try_from(times).unwrap_or(i64::MAX).clamp(4, FASTEST_GROWTH);
            self.rows = self.rows.max(rows.saturating_mul(times)).min(MOST_ROWS);
        }
    }

    /// It is given up as a whole: a shorter one gets somewhere.
    fn gave_up(&mut self, rows: i64) {
        self.rows = (rows / 8).max(FEWEST_ROWS);
    }
}

impl Found {
    fn counted(&self) -> i64 {
        i64::try_from(self.ids.len()).unwrap_or(i64::MAX)
    }
}

struct Walk<'a, S> {
    db: &'a Database,
    descends: bool,
    slice: S,
    pace: Pace,
}

impl<'q, S: Fn(Slice) -> Statement<'q>> Walk<'_, S> {
    /// Goes on until there are so many ids, nothing is left, or the time is up.
    async fn go_on(&mut self, found: &mut Found, wanted: usize, deadline: Instant) -> Result<End> {
        while found.ids.len() < wanted {
            let began = Instant::now();
            let left = deadline.saturating_duration_since(began);
            if left.is_zero() && found.has_progressed {
                return Ok(End::OutOfTime);
            }
            let (rows, time) = if left.is_zero() {
                (FEWEST_ROWS, LAST_SLICE_TIMEOUT)
            } else {
                (self.pace.rows_for(wanted - found.ids.len()), left.min(SLICE_TIMEOUT))
            };
            let slice = Slice { after: found.through, rows };
            let (scanned, last, mut ids) = match self.read(slice, time).await {
                Ok(read) => read,
                Err(Error::Deadline) if !left.is_zero() => {
                    self.pace.gave_up(rows);
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.pace.has_read(rows, ids.len(), began.elapsed());
            ids.sort_unstable();
            if self.descends {
                ids.reverse();
            }
            found.ids.extend(ids);
            found.through = last.or(found.through);
            found.has_progressed = true;
            if scanned < rows {
                return Ok(End::Complete);
            }
        }
        Ok(End::Full)
    }

    /// Goes on to the total: `None` when there is no time for it.
    async fn count_on(&mut self, mut found: Found, deadline: Instant) -> Result<Option<i64>> {
        // Nobody goes on from there.
        found.has_progressed = true;
        let all = usize::try_from(Slice::COUNTED.rows).unwrap_or(usize::MAX);
        self.pace.leap(all.saturating_sub(found.ids.len()));
        match self.go_on(&mut found, all, deadline).await? {
            End::Complete | End::Full => Ok(Some(found.counted())),
            End::OutOfTime => Ok(None),
        }
    }

    async fn read(&self, slice: Slice, time: Duration) -> Result<(i64, Option<Uuid>, Vec<Uuid>)> {
        self.db
            .bounded(async {
                let mut snapshot = Snapshot::take(self.db).await?;
                snapshot.walk_for(time).await?;
                let row = (self.slice)(slice).fetch_one(snapshot.connection()).await?;
                snapshot.release().await?;
                let ids: Option<Vec<Uuid>> = row.try_get("ids")?;
                Ok((row.try_get("scanned")?, row.try_get("last")?, ids.unwrap_or_default()))
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(2);
    const SLOW: Duration = Duration::from_millis(400);

    #[test]
    fn a_slice_has_about_as_many_rows_as_are_wanted() {
        let mut pace = Pace::default();
        assert_eq!(pace.rows_for(20), FIRST_ROWS, "nothing is known yet");
        pace.has_read(100, 0, QUICK);
        pace.has_read(3_000, 1_550, QUICK);
        assert_eq!(pace.rows_for(1_000), 2_001, "every second one passes");
        assert_eq!(pace.rows_for(1), FEWEST_ROWS);
        assert_eq!(pace.rows_for(usize::MAX), 90_000, "for which there is time");
    }

    #[test]
    fn a_slice_is_as_long_as_there_is_time_for() {
        let mut pace = Pace::default();
        pace.has_read(100, 0, QUICK);
        assert_eq!(pace.rows_for(20), 3_000);
        pace.has_read(10, 10, QUICK);
        assert_eq!(pace.rows, 3_000, "a short one says nothing of longer ones");
        pace.has_read(3_000, 0, SLOW);
        assert_eq!(pace.rows, 1_500);
        pace.gave_up(1_500);
        assert_eq!(pace.rows, 187);
        pace.gave_up(10);
        assert_eq!(pace.rows, FEWEST_ROWS);
        pace.leap(10_000);
        assert_eq!(pace.rows, FEWEST_ROWS, "it is slow");
    }

    #[test]
    fn a_total_is_counted_at_once() {
        let mut pace = Pace::default();
        pace.has_read(100, 50, SHORT_SLICE);
        pace.leap(9_950);
        assert_eq!(pace.rows_for(9_950), 19_901);
    }

    #[test]
    fn what_is_counted_is_one_more_than_the_cap() {
        assert_eq!(Total::of(Slice::COUNTED.rows), Total { count: TOTAL_CAP, is_capped: true });
        assert_eq!(Total::of(Slice::COUNTED.rows - 1), Total { count: TOTAL_CAP, is_capped: false });
    }
}
