//! Cursors: the position at which a page ended and the next one goes on.
//!
//! They are opaque to clients. A cursor has the order of its list (a cursor of another list, or of the same list in another
//! order, is refused rather than misread), the number of the next page, and the position of the last item shown. Positions
//! are values, not offsets, so items that arrive meanwhile neither shift nor repeat a page.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use grapnel_store::views::{EventSort, Order, Position};

/// A list and how it is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListOrder {
    Events(EventSort, Order),
    Integrations,
    Attempts,
    AuditEntries,
    ReplayRequests,
    Replays,
}

impl ListOrder {
    /// Returns the number that cursors carry; a number is never given to another list or order.
    fn number(self) -> u8 {
        match self {
            Self::Events(EventSort::CreatedAt, Order::Descending) => 1,
            Self::Events(EventSort::CreatedAt, Order::Ascending) => 2,
            Self::Events(EventSort::OccurredAt, Order::Descending) => 3,
            Self::Events(EventSort::OccurredAt, Order::Ascending) => 4,
            Self::Events(EventSort::Status, Order::Descending) => 5,
            Self::Events(EventSort::Status, Order::Ascending) => 6,
            Self::Integrations => 7,
            Self::Attempts => 8,
            Self::AuditEntries => 9,
            Self::ReplayRequests => 10,
            Self::Replays => 11,
        }
    }
}

/// Order, page, key, id.
const LENGTH: usize = 1 + 4 + 8 + 16;

/// Returns the cursor to the page with this number, after the position.
pub(super) fn encode(order: ListOrder, position: Position, page: NonZeroU32) -> String {
    let mut bytes = Vec::with_capacity(LENGTH);
    bytes.push(order.number());
    bytes.extend_from_slice(&page.get().to_be_bytes());
    bytes.extend_from_slice(&position.key.to_be_bytes());
    bytes.extend_from_slice(position.id.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads a cursor of a list in this order.
pub(super) fn decode(text: &str, order: ListOrder) -> Option<(Position, NonZeroU32)> {
    let bytes: [u8; LENGTH] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    let [number, rest @ ..] = bytes;
    let (page, rest) = rest.split_first_chunk()?;
    let (key, rest) = rest.split_first_chunk()?;
    let id = Uuid::from_slice(rest).ok()?;
    let page = NonZeroU32::new(u32::from_be_bytes(*page))?;
    (number == order.number()).then_some((Position { key: i64::from_be_bytes(*key), id }, page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_is_read_only_in_the_order_it_was_made_for() {
        let position = Position { key: -5, id: Uuid::now_v7() };
        let page = NonZeroU32::new(7).unwrap();
        let order = ListOrder::Events(EventSort::OccurredAt, Order::Ascending);
        let cursor = encode(order, position, page);
        assert_eq!(decode(&cursor, order), Some((position, page)));
        assert_eq!(decode(&cursor, ListOrder::Events(EventSort::OccurredAt, Order::Descending)), None);
        assert_eq!(decode(&cursor, ListOrder::Attempts), None);
        assert_eq!(decode(&cursor[1..], order), None);
        assert_eq!(decode(&format!("{cursor}A"), order), None);
        assert_eq!(decode("é", order), None);
        let zero = encode(order, position, NonZeroU32::MIN).replace("AAAAB", "AAAAA");
        assert!(decode(&zero, order).is_none_or(|(_, page)| page.get() > 0));
    }
}
