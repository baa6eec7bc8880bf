//! Patterns of host names.

/// Whether the host matches the pattern, in which a star stands for one label.
pub fn host_matches(pattern: &str, host: &str) -> bool {
    let (pattern, host): (Vec<&str>, Vec<&str>) = (pattern.split('.').collect(), host.split('.').collect());
    pattern.len() == host.len()
        && pattern
            .iter()
            .zip(&host)
            .all(|(pattern, label)| *pattern == "*" && !label.is_empty() || pattern == label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_exactly_one_label() {
        let matches = |host: &str| host_matches("sns.*.amazonaws.com", host);
        assert!(matches("sns.eu-central-1.amazonaws.com"));
        for other in [
            "sns.amazonaws.com",
            "sns.a.b.amazonaws.com",
            "sns..amazonaws.com",
            "sns.eu.amazonaws.com.example",
            "xsns.eu.amazonaws.com",
            "sns.eu.amazonaws.com.",
        ] {
            assert!(!matches(other), "{other}");
        }
    }
}
