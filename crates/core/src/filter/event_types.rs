//! The types of the events that a destination gets, as a list of patterns.

/// Patterns of event types, such as `order.*` and `!order.test.*`.
///
/// A type is included if any pattern without `!` matches it, or if there is no such pattern, and no pattern with `!` matches it. So
/// the order of the patterns has no meaning. A `*` stands for any characters, also none and also dots; all else is compared as it
/// is, in its case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventTypes {
    included: Vec<Pattern>,
    excluded: Vec<Pattern>,
}

impl EventTypes {
    /// Reads a list of patterns; `None` if it is empty, which includes everything.
    pub fn new(patterns: &[String]) -> Option<Self> {
        if patterns.is_empty() {
            return None;
        }
        let (mut included, mut excluded) = (Vec::new(), Vec::new());
        for pattern in patterns {
            match pattern.strip_prefix('!') {
                Some(pattern) => excluded.push(Pattern::new(pattern)),
                None => included.push(Pattern::new(pattern)),
            }
        }
        Some(Self { included, excluded })
    }

    /// Returns whether events of the type are included.
    pub fn includes(&self, event_type: &str) -> bool {
        let matches = |pattern: &Pattern| pattern.matches(event_type);
        (self.included.is_empty() || self.included.iter().any(matches)) && !self.excluded.iter().any(matches)
    }
}

/// The texts between the stars, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern(Vec<String>);

impl Pattern {
    fn new(text: &str) -> Self {
        Self(text.split('*').map(str::to_owned).collect())
    }

    /// Takes time in proportion to the length of the type for each star: the leftmost place of each text leaves the most for the rest,
    /// so no other needs to be tried.
    fn matches(&self, text: &str) -> bool {
        let [first, rest @ ..] = self.0.as_slice() else { return false };
        let Some((last, middle)) = rest.split_last() else { return text == first };
        let inner = text.strip_prefix(first.as_str()).and_then(|text| text.strip_suffix(last.as_str()));
        let Some(mut inner) = inner else { return false };
        middle.iter().all(|part| match inner.split_once(part.as_str()) {
            Some((_, after)) => {
                inner = after;
                true
            }
            None => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn includes(patterns: &[&str], event_type: &str) -> bool {
        let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        EventTypes::new(&patterns).is_none_or(|types| types.includes(event_type))
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, event_type) in [
            ("*", ""),
            ("*", "order.created"),
            ("order.*", "order."),
            ("order.*", "order.created.twice"),
            ("*.created", "order.created"),
            ("o*er*d", "order.created"),
            ("**", "a"),
            ("a*a", "aa"),
            ("order.created", "order.created"),
            ("é*", "été"),
        ] {
            assert!(includes(&[pattern], event_type), "{pattern} {event_type}");
        }
        for (pattern, event_type) in [
            ("order.*", "order"),
            ("order.*", "Order.created"),
            ("order.*", "reorder.created"),
            ("*.created", "order.created.twice"),
            ("a*a", "a"),
            ("a*b*c", "acb"),
            ("order?created", "order.created"),
            ("order.created", "order.created "),
        ] {
            assert!(!includes(&[pattern], event_type), "{pattern} {event_type}");
        }
    }

    #[test]
    fn excluded_types_are_excluded_wherever_their_pattern_is() {
        for patterns in [["order.*", "!order.test.*"], ["!order.test.*", "order.*"]] {
            assert!(includes(&patterns, "order.created"));
            assert!(!includes(&patterns, "order.test.created"));
            assert!(!includes(&patterns, "invoice.paid"));
        }
        assert!(includes(&["!ping"], "order.created") && !includes(&["!ping"], "ping"));
        assert!(includes(&[], "anything"));
    }

    /// What the patterns mean, character by character.
    fn matches_slowly(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['*', rest @ ..] => (0..=text.len()).any(|skipped| matches_slowly(rest, &text[skipped..])),
            [first, rest @ ..] => text.first() == Some(first) && matches_slowly(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn patterns_match_what_they_mean(pattern in "[ab.*é]{0,8}", text in "[ab.é]{0,10}") {
            let characters = |text: &str| text.chars().collect::<Vec<_>>();
            let expected = matches_slowly(&characters(&pattern), &characters(&text));
            prop_assert_eq!(Pattern::new(&pattern).matches(&text), expected);
        }

        #[test]
        fn the_order_of_the_patterns_has_no_meaning(
            patterns in prop::collection::vec("!?[ab.*]{1,4}", 0..5),
            text in "[ab.]{0,6}",
        ) {
            let reversed: Vec<String> = patterns.iter().rev().cloned().collect();
            let includes = |patterns: &[String]| EventTypes::new(patterns).is_none_or(|types| types.includes(&text));
            prop_assert_eq!(includes(&patterns), includes(&reversed));
        }
    }
}
