//! What the documentation says about a condition: what its reason means, and what to do about it. The page is in the binary, so an operator has it where
//! the trouble shows.

use std::sync::LazyLock;

const PAGE: &str = include_str!("../../../docs/conditions.md");

static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| rows(PAGE));

/// What the documentation says about a reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Explanation {
    pub(super) meaning: String,
    /// Empty where there is nothing to do.
    pub(super) remedy: String,
}

#[derive(Debug)]
struct Row {
    /// Empty: any.
    types: Vec<String>,
    reason: String,
    explanation: Explanation,
}

/// Returns what the reason of a condition means. A summary, such as Ready, has the reasons of what it summarizes.
pub(super) fn explain(type_: &str, reason: &str) -> Option<&'static Explanation> {
    let of_reason = || ROWS.iter().filter(|row| row.reason == reason);
    let of_type = of_reason().find(|row| row.types.iter().any(|known| known == type_));
    of_type.or_else(|| of_reason().next()).map(|row| &row.explanation)
}

/// Reads the table of an Integration's conditions: type, status, reason, meaning, what to do.
fn rows(page: &str) -> Vec<Row> {
    lines(page).filter_map(row).collect()
}

/// The lines of the table, without its head.
fn lines(page: &str) -> impl Iterator<Item = &str> {
    let section = page.split("\n## ").find(|section| section.starts_with("Of an Integration"));
    section.unwrap_or_default().lines().filter(|line| line.starts_with("| ")).skip(1)
}

fn row(line: &str) -> Option<Row> {
    let cells: Vec<String> = line.trim_matches('|').split('|').map(plain).collect();
    let [types, _, reason, meaning, remedy] = cells.try_into().ok()?;
    let types = if types == "any" { Vec::new() } else { types.split(", ").map(str::to_owned).collect() };
    let remedy = if remedy == "nothing" { String::new() } else { remedy };
    Some(Row { types, reason, explanation: Explanation { meaning, remedy } })
}

/// Takes the marks of Markdown out of a text.
fn plain(cell: &str) -> String {
    let text = cell.trim().replace('`', "");
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, link)) = rest.split_once('[') {
        plain.push_str(before);
        let parts = link.split_once("](").and_then(|(name, target)| Some((name, target.split_once(')')?.1)));
        let Some((name, after)) = parts else {
            plain.push('[');
            rest = link;
            continue;
        };
        plain.push_str(name);
        rest = after;
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use grapnel_crds::conditions::{condition, reason};

    use super::*;

    #[test]
    fn every_reason_of_an_integration_is_explained() {
        let meaning = |type_, reason| explain(type_, reason).map(|found| found.meaning.as_str());
        for (type_, reason) in [
            (condition::READY, reason::PROGRESSING),
            (condition::ACCEPTED, reason::ROUTE_CONFLICT),
            (condition::READY, reason::SECRET_NOT_FOUND),
            (condition::STALLED, reason::WORKERS_FAILING),
            (condition::QUEUES_READY, reason::QUEUE_UNAVAILABLE),
            (condition::REGISTERED, reason::AS_DESIRED),
            (condition::SCALING_ACTIVE, reason::AT_MAX_REPLICAS),
        ] {
            let meaning = meaning(type_, reason);
            assert!(
                meaning.is_some_and(|meaning| !meaning.contains(['`', '[']) && meaning.len() > 10),
                "{reason}"
            );
        }
        assert_ne!(
            meaning(condition::CAPTURE_WAITING, reason::SECRET_NOT_FOUND),
            meaning(condition::SECRETS_RESOLVED, reason::SECRET_NOT_FOUND)
        );
        assert_eq!(explain(condition::READY, "Nonsense"), None);
        assert_eq!(
            explain(condition::READY, reason::AS_DESIRED).map(|found| found.remedy.as_str()),
            Some("")
        );
        assert!(ROWS.len() > 30 && ROWS.len() == lines(PAGE).count(), "a row of the table is not understood");
    }

    #[test]
    fn marks_are_taken_out() {
        assert_eq!(plain(" see [a page](x.md), `b` [c "), "see a page, b [c");
    }
}
