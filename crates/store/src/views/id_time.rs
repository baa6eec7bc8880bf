//! The time in a UUIDv7, and ids as bounds of time.

use jiff::Timestamp;
use uuid::Uuid;

/// Returns the time in a UUIDv7; `None` for an id that carries no time.
pub fn time_of_id(id: Uuid) -> Option<Timestamp> {
    Timestamp::from_millisecond(uuid_milliseconds(id)?).ok()
}

/// Returns the smallest UUIDv7 that is `slack_milliseconds` older than `id`, as a bound that prunes partitions. For an id
/// that carries no time, it is the smallest id of all.
pub(super) fn id_floor(id: Uuid, slack_milliseconds: i64) -> Uuid {
    match uuid_milliseconds(id) {
        Some(milliseconds) => id_at(milliseconds - slack_milliseconds),
        None => Uuid::nil(),
    }
}

/// Returns the smallest UUIDv7 of a time, as `uuidv7_floor` does in SQL. Times that a UUIDv7 cannot hold are clamped.
pub(super) fn id_at(milliseconds: i64) -> Uuid {
    let last = (1_i64 << 48) - 1;
    let milliseconds = milliseconds.clamp(0, last).cast_unsigned();
    Uuid::from_u128(u128::from(milliseconds) << 80)
}

/// Returns the smallest id of a time that is so much later than that of an id.
pub(super) fn moved(id: Uuid, milliseconds: i64) -> Uuid {
    let at = i64::try_from(id.as_u128() >> 80).unwrap_or(i64::MAX);
    id_at(at.saturating_add(milliseconds))
}

/// Returns the first id of a window of time, and the end of its ids; absent bounds restrict nothing.
pub(crate) fn id_window(from: Option<Timestamp>, until: Option<Timestamp>) -> (Uuid, Uuid) {
    let id = |time: Timestamp| id_at(time.as_millisecond());
    (from.map_or(Uuid::nil(), id), until.map_or(Uuid::max(), id))
}

fn uuid_milliseconds(id: Uuid) -> Option<i64> {
    if id.get_version_num() != 7 {
        return None;
    }
    i64::try_from(id.as_u128() >> 80).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_carries_its_time() {
        let id = Uuid::parse_str("019b0000-0000-7abc-8def-0123456789ab").unwrap();
        let milliseconds = 0x019b_0000_0000;
        assert_eq!(time_of_id(id).unwrap().as_millisecond(), milliseconds);
        assert_eq!(id_floor(id, 0).to_string(), "019b0000-0000-0000-0000-000000000000");
        assert_eq!(id_floor(id, 1).to_string(), "019affff-ffff-0000-0000-000000000000");
        assert_eq!(id_floor(Uuid::max(), 0), Uuid::nil());
        assert_eq!(id_at(-1), Uuid::nil());
        assert_eq!(id_at(i64::MAX).to_string(), "ffffffff-ffff-0000-0000-000000000000");
        assert_eq!(moved(id, -milliseconds), Uuid::nil());
        assert_eq!(moved(Uuid::nil(), -1), Uuid::nil());
        assert_eq!(moved(Uuid::max(), 1), id_at(i64::MAX));
    }
}
