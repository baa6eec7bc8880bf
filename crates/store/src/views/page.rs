//! Pages of a list: by number, or by keyset after a position. Neither costs more when the list is longer.

use std::num::NonZeroU32;

use uuid::Uuid;

/// The largest total that is exact. The statements that count have it as a literal, which a test compares.
pub const TOTAL_CAP: u32 = 10_000;

/// The direction of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
}

/// The last item of a page: its sort key (microseconds, a status's rank, or 0 where the id is the key) and its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub key: i64,
    pub id: Uuid,
}

/// The beginning of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Page(NonZeroU32),
    After { position: Position, page: NonZeroU32 },
}

/// A request for a page. The caller bounds both numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    pub start: Start,
    pub size: u32,
}

impl PageRequest {
    /// Returns the number of rows to skip.
    pub(super) fn offset(self) -> i64 {
        match self.start {
            Start::Page(page) => i64::from(page.get() - 1) * i64::from(self.size),
            Start::After { .. } => 0,
        }
    }

    /// Returns the number of rows to read: one more than are shown, which shows whether there is another page.
    pub(super) fn limit(self) -> i64 {
        i64::from(self.size) + 1
    }

    /// Returns the position to go on from.
    pub(super) fn after(self) -> Option<Position> {
        match self.start {
            Start::Page(_) => None,
            Start::After { position, .. } => Some(position),
        }
    }

    pub(super) fn after_id(self) -> Option<Uuid> {
        self.after().map(|position| position.id)
    }

    /// Returns the key to go on from, where it is a time.
    pub(super) fn after_time(self) -> Option<jiff_sqlx::Timestamp> {
        // A forged position may have a key that is not a time; any time will do for it.
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

    /// Makes the page from the rows that were read with `limit`.
    pub(super) fn page<T>(
        self,
        mut items: Vec<T>,
        total: Option<Total>,
        position: impl Fn(&T) -> Position,
    ) -> Page<T> {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        let more = items.len() > size;
        items.truncate(size);
        let next = if more { items.last().map(position) } else { None };
        let (Start::Page(number) | Start::After { page: number, .. }) = self.start;
        Page { items, next, total, scanned_through: None, number, size: self.size }
    }
}

/// The number of items in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Total {
    pub count: u32,
    /// Whether there are more than `count`.
    pub is_capped: bool,
}

impl Total {
    /// Reads a count that stopped at one more than the cap.
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
    /// `None` when counting took too long.
    pub total: Option<Total>,
    /// The id up to which the list was read, when there was no time to read on: `next` goes on from there.
    pub scanned_through: Option<Uuid>,
    pub number: NonZeroU32,
    pub size: u32,
}
