//! Kubernetes' formats for names, labels and quantities, checked offline. Lengths are checked only where no bound of
//! the schema covers them.

use std::cmp::Ordering;

/// The value of a quantity, in billionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Quantity(i128);

impl Quantity {
    /// Returns whether it is below zero.
    pub(crate) fn is_negative(self) -> bool {
        self.0.cmp(&0) == Ordering::Less
    }
}

/// Returns whether a text has only lower-case letters, digits and '-', with a letter or digit at both ends.
pub(crate) fn is_dns_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    has_ends(text, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) && text.bytes().all(inner)
}

/// Returns whether a text is a list of DNS labels joined by '.'.
pub(crate) fn is_dns_subdomain(text: &str) -> bool {
    text.split('.').all(is_dns_label)
}

/// Returns whether a text is a valid key of a Secret's data.
pub(crate) fn is_secret_key(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
}

/// Returns whether a text is a valid value of a label: empty, or a name as in a label's key.
pub(crate) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_label_name(text)
}

/// Returns whether a text is a valid key of a label or an annotation: a name, optionally after a DNS subdomain and '/'.
pub(crate) fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => {
            prefix.len() <= 253 && is_dns_subdomain(prefix) && name.len() <= 63 && is_label_name(name)
        }
        None => text.len() <= 63 && is_label_name(text),
    }
}

/// Parses a Kubernetes quantity such as 500m, 1.5 or 256Mi; `None` if it is invalid or too large.
pub(crate) fn parse_quantity(text: &str) -> Option<Quantity> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end =
        unsigned.bytes().position(|byte| !byte.is_ascii_digit() && byte != b'.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let decimals = i32::try_from(fraction.len()).ok()?;
    let (factor, exponent) = scale(suffix)?;
    let value = shift(mantissa.checked_mul(factor)?, exponent.checked_add(9)?.checked_sub(decimals)?)?;
    Some(Quantity(if negative { -value } else { value }))
}

/// Returns the multiplier of a suffix: a factor and a power of ten.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    let binary = |power: u32| Some((1_i128 << (10 * power), 0));
    match suffix {
        "" => Some((1, 0)),
        "n" => Some((1, -9)),
        "u" => Some((1, -6)),
        "m" => Some((1, -3)),
        "k" => Some((1, 3)),
        "M" => Some((1, 6)),
        "G" => Some((1, 9)),
        "T" => Some((1, 12)),
        "P" => Some((1, 15)),
        "E" => Some((1, 18)),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            Some((1, exponent.parse().ok()?))
        }
    }
}

/// Multiplies by a power of ten. Anything smaller than a billionth is rounded up, away from zero.
fn shift(value: i128, power: i32) -> Option<i128> {
    let factor = 10_i128.checked_pow(power.unsigned_abs());
    if power >= 0 {
        return if value == 0 { Some(0) } else { value.checked_mul(factor?) };
    }
    let Some(factor) = factor else { return Some(i128::from(value != 0)) };
    Some(value / factor + i128::from(value % factor != 0))
}

fn is_label_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    has_ends(text, |byte| byte.is_ascii_alphanumeric()) && text.bytes().all(inner)
}

fn has_ends(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(first), Some(last)) if allowed(*first) && allowed(*last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_compared_by_value_and_not_by_spelling() {
        let equal = [
            ("1", "1000m"),
            ("0.5", "500m"),
            ("1Ki", "1024"),
            ("1.5Gi", "1536Mi"),
            ("1e3", "1k"),
            ("+1E-3", "1m"),
        ];
        for (left, right) in equal {
            assert!(
                parse_quantity(left).is_some() && parse_quantity(left) == parse_quantity(right),
                "{left} and {right}"
            );
        }
        assert!(
            parse_quantity("1025Mi") > parse_quantity("1Gi") && parse_quantity("1G") < parse_quantity("1Gi")
        );
        assert!(
            parse_quantity("-1m").is_some_and(Quantity::is_negative)
                && !parse_quantity("-0").is_some_and(Quantity::is_negative)
        );
    }

    #[test]
    fn invalid_quantities_are_rejected_whatever_their_size() {
        for text in [
            "",
            "+",
            ".",
            "m",
            "1.2.3",
            "1MB",
            "1 ",
            "--1",
            "1e",
            "1e1.5",
            "0x1",
            "1e99",
            "9E999999999999",
            "é",
        ] {
            assert_eq!(parse_quantity(text), None, "{text}");
        }
        assert_eq!(parse_quantity(&"9".repeat(60)), None);
        assert_eq!(parse_quantity("0e38"), parse_quantity("0"));
        assert!(parse_quantity("1e-300") > parse_quantity("0"), "rounded up, as Kubernetes does");
    }

    #[test]
    fn label_keys_have_a_name_and_may_have_a_domain() {
        for key in ["a", "A.b_c-d", "example.com/a", "kubernetes.io/arch"] {
            assert!(is_label_key(key), "{key}");
        }
        for key in ["", "/a", "a/", "a/b/c", "Example.com/a", "-a", "a b", &"a".repeat(64)] {
            assert!(!is_label_key(key), "{key}");
        }
    }
}
