//! Statements that name the partitions of one day.
//!
//! A generic plan locks and opens every partition of a table that its statement names, whether or not a row needs it. The id of an
//! event tells its day, and a batch is nearly always of one: then the statement names that day's partitions in place of the tables. A
//! batch of several days, and one whose day is gone, has the tables.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use uuid::Uuid;

use crate::error::Error;

/// Texts of days that are kept.
const KEPT: usize = 8;

const MILLISECONDS_OF_DAY: u128 = 24 * 60 * 60 * 1_000;

/// A statement in whose text the tables with a partition for each day are in braces, as in `{events}`.
#[derive(Debug)]
pub(crate) struct DailyStatement {
    template: &'static str,
    tables: &'static [&'static str],
    /// The newest last. The general one has no day.
    texts: Mutex<Vec<(Option<Day>, Arc<str>)>>,
}

/// Days since 1970, in UTC.
pub(crate) type Day = u32;

impl DailyStatement {
    pub(crate) const fn new(template: &'static str, tables: &'static [&'static str]) -> Self {
        Self { template, tables, texts: Mutex::new(Vec::new()) }
    }

    /// Returns the text for events whose ids are within these bounds. If [`is_gone`] is true of its error, the general one is to be run.
    pub(crate) fn of_day(&self, first: Uuid, last: Uuid) -> Arc<str> {
        let day = day_of(first);
        self.text((day == day_of(last)).then_some(day))
    }

    /// Returns the text that names the tables.
    pub(crate) fn general(&self) -> Arc<str> {
        self.text(None)
    }

    fn text(&self, day: Option<Day>) -> Arc<str> {
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, text)) = texts.iter().find(|(known, _)| *known == day) {
            return Arc::clone(text);
        }
        let suffix = day.map_or_else(String::new, suffix);
        let text = self.tables.iter().fold(self.template.to_owned(), |text, table| {
            text.replace(&format!("{{{table}}}"), &format!("{table}{suffix}"))
        });
        let text: Arc<str> = text.into();
        if texts.len() >= KEPT {
            texts.remove(0);
        }
        texts.push((day, Arc::clone(&text)));
        text
    }
}

/// Returns the day of a UUIDv7.
pub(crate) fn day_of(id: Uuid) -> Day {
    const RANDOM_BITS: u32 = 80;
    // Of 48 bits of milliseconds.
    u32::try_from((id.as_u128() >> RANDOM_BITS) / MILLISECONDS_OF_DAY).unwrap_or(Day::MAX)
}

/// Returns the end of the names of a day's partitions.
fn suffix(day: Day) -> String {
    let start = Timestamp::from_second(i64::from(day) * 24 * 60 * 60).unwrap_or_default();
    start.to_zoned(TimeZone::UTC).strftime("_%Y%m%d").to_string()
}

/// Returns whether a statement failed because a partition that it names does not exist.
pub(crate) fn is_gone(error: &Error) -> bool {
    let Error::Statement(sqlx::Error::Database(error)) = error else { return false };
    error.code().is_some_and(|code| code == "42P01")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_of_one_day_names_its_partitions() {
        let statement =
            DailyStatement::new("UPDATE {deliveries} d FROM {events} e", &["deliveries", "events"]);
        assert_eq!(&*statement.text(Some(0)), "UPDATE deliveries_19700101 d FROM events_19700101 e");
        assert_eq!(&*statement.text(None), "UPDATE deliveries d FROM events e");
    }

    #[test]
    fn days_end_at_midnight_in_utc() {
        let id = |time: &str| {
            let milliseconds = time.parse::<Timestamp>().expect("a time").as_millisecond();
            Uuid::from_u128((milliseconds as u128) << 80)
        };
        let (last, next) = (id("2026-11-29T23:59:59.999Z"), id("2026-11-30T00:00:00Z"));
        assert_eq!((suffix(day_of(last)), suffix(day_of(next))), ("_20261129".into(), "_20261130".into()));
    }

    #[test]
    fn texts_are_bounded() {
        let statement = DailyStatement::new("{events}", &["events"]);
        for day in 0..100 {
            statement.text(Some(day));
        }
        assert_eq!(statement.texts.lock().expect("a lock").len(), KEPT);
    }
}
