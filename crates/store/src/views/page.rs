//! Pages of a list: by number, or by keyset after a position. Both cost the same however long the list is.

use std::num::NonZeroU32;

use uuid::Uuid;

/// Totals are exact up to here.
pub const TOTAL_CAP: u32 = 10_000;

/// Which way a list runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
}

/// The last item of a page: its sort key (microseconds, a status' rank, or 0 where the id is the key) and its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub key: i64,
    pub id: Uuid,
}

/// Where a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Page(NonZeroU32),
    After { position: Position, page: NonZeroU32 },
}

/// Which page is asked for. The caller bounds both numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    pub start: Start,
    pub size: u32,
}

impl PageRequest {
    /// Rows to skip.
    pub(super) fn offset(self) -> i64 {
        match self.start {
            Start::Page(page) => i64::from(page.get() - 1) * i64::from(self.size),
            Start::After { .. } => 0,
        }
    }

    /// Rows to read: one more than are shown tells whether there is another page.
    pub(super) fn limit(self) -> i64 {
        i64::from(self.size) + 1
    }

    /// The position to go on from.
    pub(super) fn after(self) -> Option<Position> {
        match self.start {
            Start::Page(_) => None,
            Start::After { position, .. } => Some(position),
        }
    }

    pub(super) fn after_id(self) -> Option<Uuid> {
        self.after().map(|position| position.id)
    }

    /// The key to go on from, where it is a time.
    pub(super) fn after_time(self) -> Option<jiff_sqlx::Timestamp> {
        // A position that no list has given may have a key that is no time; any time will do for it.
        let time = |position: Position| jiff::Timestamp::from_microsecond(position.key).unwrap_or_default();
        self.after().map(|position| time(position).into())
    }

    /// Cuts the page, and one item more, from the positions of the whole list. `after` is the cursor's position with
    /// its key as the positions have theirs.
    pub(super) fn cut(
        self,
        mut positions: Vec<Position>,
        after: Option<Position>,
        order: Order,
    ) -> Vec<Uuid> {
        positions.sort_unstable();
        if order == Order::Descending {
            positions.reverse();
        }
        let first = match after {
            None => usize::try_from(self.offset()).unwrap_or(usize::MAX),
            Some(after) => positions.partition_point(|position| match order {
                Order::Ascending => *position <= after,
                Order::Descending => *position >= after,
            }),
        };
        let limit = usize::try_from(self.limit()).unwrap_or(usize::MAX);
        positions.into_iter().skip(first).take(limit).map(|position| position.id).collect()
    }

    /// Makes the page of the rows that were read with `limit`.
    pub(super) fn page<T>(
        self,
        mut items: Vec<T>,
        total: Total,
        position: impl Fn(&T) -> Position,
    ) -> Page<T> {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        let more = items.len() > size;
        items.truncate(size);
        let next = if more { items.last().map(position) } else { None };
        let (Start::Page(number) | Start::After { page: number, .. }) = self.start;
        Page { items, next, total, number, size: self.size }
    }
}

/// How many items a list has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Total {
    pub count: u32,
    /// There are more than `count`.
    pub is_capped: bool,
}

impl Total {
    /// From a count that stopped at one more than the cap.
    pub(super) fn of(counted: i64) -> Self {
        match u32::try_from(counted) {
            Ok(count) if count <= TOTAL_CAP => Self { count, is_capped: false },
            _ => Self { count: TOTAL_CAP, is_capped: true },
        }
    }
}

/// A page of a list.
#[derive(Debug)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// The position that the next page goes on from; `None` on the last page.
    pub next: Option<Position>,
    pub total: Total,
    pub number: NonZeroU32,
    pub size: u32,
}
