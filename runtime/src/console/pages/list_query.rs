//! The query of a page that lists: the one of the API, as a form of a browser sends it.
//!
//! A browser sends every field of a form, also the empty ones, and times without a zone. Such a query is answered with a redirect to the one that is
//! meant, so that an address which is copied says what it shows and nothing else.

use axum::response::Response;
use url::form_urlencoded;

use crate::console::visitor::Visitor;

/// Items of a page where the query does not say.
const PAGE_SIZE: &str = "50";

/// The fields that are times.
const TIMES: [&str; 6] = ["from", "to", "receivedFrom", "receivedTo", "receivedAfter", "receivedBefore"];

/// The parameters of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ListQuery(Vec<(String, String)>);

impl ListQuery {
    /// Reads a query.
    ///
    /// # Errors
    /// The redirect to what is meant, for a query of a form.
    pub(super) fn read(visitor: &Visitor, path: &str, raw: Option<&str>) -> Result<Self, Box<Response>> {
        let sent = Self(form_urlencoded::parse(raw.unwrap_or_default().as_bytes()).into_owned().collect());
        let meant = sent.meant();
        if meant == sent { Ok(sent) } else { Err(Box::new(visitor.go(&meant.path(path)))) }
    }

    fn meant(&self) -> Self {
        let given = self.0.iter().filter(|(_, value)| !value.trim().is_empty());
        let meant = given.map(|(name, value)| {
            let value = value.trim();
            let value = if TIMES.contains(&name.as_str()) { in_utc(value) } else { value.to_owned() };
            (name.clone(), value)
        });
        Self(meant.collect())
    }

    /// Returns the value of a parameter; an empty text if there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// Returns a time as the field of a form has it.
    pub(super) fn local(&self, name: &str) -> String {
        let value = self.get(name);
        let end = value.find(['.', 'Z', '+']).unwrap_or(value.len());
        let time = value.get(..end).unwrap_or_default();
        // A browser complains about anything else.
        if in_utc(time) == time { String::new() } else { time.to_owned() }
    }

    /// Whether one of these parameters is given.
    pub(super) fn has_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| !self.get(name).is_empty())
    }

    /// Whether it is the first page of a list.
    pub(super) fn is_first_page(&self) -> bool {
        !self.has_any(&["cursor", "page"])
    }

    /// Returns the query of the API.
    pub(super) fn for_api(&self) -> String {
        let query = self.encoded();
        if self.get("pageSize").is_empty() {
            let separator = if query.is_empty() { "" } else { "&" };
            return format!("{query}{separator}pageSize={PAGE_SIZE}");
        }
        query
    }

    /// Returns the same list with another value of a parameter, from its first page on; without it if the value is empty.
    pub(super) fn with(&self, name: &str, value: &str) -> Self {
        let left_out = [name, "cursor", "page"];
        let mut query =
            Self(self.0.iter().filter(|(known, _)| !left_out.contains(&known.as_str())).cloned().collect());
        if !value.is_empty() {
            query.0.push((name.to_owned(), value.to_owned()));
        }
        query
    }

    /// Returns the path of a page with this query.
    pub(super) fn path(&self, path: &str) -> String {
        if self.0.is_empty() { path.to_owned() } else { format!("{path}?{}", self.encoded()) }
    }

    /// Returns the path of the page after this one; an empty text if there is none.
    pub(super) fn next(&self, path: &str, cursor: Option<&String>) -> String {
        cursor.map(|cursor| self.with("cursor", cursor).path(path)).unwrap_or_default()
    }

    fn encoded(&self) -> String {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.0).finish()
    }
}

/// Returns a time of a browser's form, which has no zone and may have no seconds, as RFC 3339 in UTC; any other text as it is.
fn in_utc(value: &str) -> String {
    let digits = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b':' | b'T' | b'.'))
    };
    match value.len() {
        16 if digits(value) && value.contains('T') => format!("{value}:00Z"),
        19..=23 if digits(value) && value.contains('T') => format!("{value}Z"),
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> ListQuery {
        ListQuery(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    #[test]
    fn what_a_form_sends_becomes_what_is_meant() {
        let sent = query(
            "status=&q=+a%26b+&receivedFrom=2026-01-31T09%3A30&receivedTo=2026-01-31T09%3A30%3A10&from=x",
        );
        let expected =
            "q=a%26b&receivedFrom=2026-01-31T09%3A30%3A00Z&receivedTo=2026-01-31T09%3A30%3A10Z&from=x";
        assert_eq!(sent.meant().encoded(), expected);
        assert_eq!(sent.meant().meant(), sent.meant());
        assert_eq!(sent.meant().local("receivedFrom"), "2026-01-31T09:30:00");
        assert_eq!([sent.meant().local("to"), sent.meant().local("from")], ["", ""]);
    }

    #[test]
    fn another_page_has_the_same_filters() {
        let list = query("status=failed&cursor=abc&page=2");
        assert_eq!(list.next("/events", Some(&"d&f".to_owned())), "/events?status=failed&cursor=d%26f");
        assert_eq!(list.next("/events", None), "");
        assert_eq!(list.with("status", "").path("/events"), "/events");
        assert_eq!(list.for_api(), "status=failed&cursor=abc&page=2&pageSize=50");
        assert_eq!(query("").for_api(), "pageSize=50");
        assert_eq!(query("pageSize=10").for_api(), "pageSize=10");
        assert!(!list.is_first_page() && list.with("status", "x").is_first_page());
    }
}
