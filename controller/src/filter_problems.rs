//! The filters of an Integration that could not be evaluated, as its condition reports them.

use grapnel_core::ids::{EventId, IntegrationId};
use grapnel_store::filter_errors::FilterErrorRow;

/// A destination whose filter could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterProblem {
    pub destination: String,
    pub error: String,
    pub sample_event_id: EventId,
}

/// Returns the problems of an Integration. A problem that is known keeps its event: another one for each event would make another
/// status of each.
pub fn problems(id: IntegrationId, errors: &[FilterErrorRow], known: &[FilterProblem]) -> Vec<FilterProblem> {
    let problem = |error: &FilterErrorRow| {
        let is_same =
            |known: &&FilterProblem| known.destination == error.destination && known.error == error.error;
        known.iter().find(is_same).cloned().unwrap_or_else(|| FilterProblem {
            destination: error.destination.clone(),
            error: error.error.clone(),
            sample_event_id: error.sample_event_id,
        })
    };
    errors.iter().filter(|error| error.integration_id == id).map(problem).collect()
}

/// Returns the message of the condition; `None` without problems.
pub fn message(problems: &[FilterProblem]) -> Option<String> {
    let each = problems.iter().map(|problem| {
        let FilterProblem { destination, error, sample_event_id } = problem;
        format!("the filter of destination {destination} could not be evaluated for event {sample_event_id}: {error}")
    });
    let each: Vec<String> = each.collect();
    (!each.is_empty()).then(|| each.join("; "))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn row(integration: u128, error: &str, event: u128) -> FilterErrorRow {
        FilterErrorRow {
            integration_id: IntegrationId::new(Uuid::from_u128(integration)),
            destination: "orders".to_owned(),
            generation: 1,
            error: error.to_owned(),
            sample_event_id: EventId::new(Uuid::from_u128(event)),
            errors: 1,
        }
    }

    #[test]
    fn a_problem_keeps_its_event_until_it_is_another_problem() {
        let id = IntegrationId::new(Uuid::from_u128(1));
        let first = problems(id, &[row(1, "a field is absent", 7), row(2, "busy", 8)], &[]);
        assert_eq!(first.len(), 1, "those of another Integration are not its own");
        let again = problems(id, &[row(1, "a field is absent", 9)], &first);
        assert_eq!(again, first);
        let other = problems(id, &[row(1, "the result is of the type int, not bool", 9)], &first);
        assert_eq!(other[0].sample_event_id, EventId::new(Uuid::from_u128(9)));
        let text = message(&other).expect("a message");
        assert!(text.contains("orders") && text.contains("not bool"), "{text}");
        assert_eq!(message(&[]), None);
    }
}
