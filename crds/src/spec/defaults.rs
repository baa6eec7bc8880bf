//! Defaults and their precedence.
//!
//! A default is given once, in the serde attribute of the field. The schema's `default` and the Rust `Default` of a
//! section both come from there, so a file, an object from the API server and a value built in code agree.

use serde::de::DeserializeOwned;

/// Returns the default of an integer field: `#[serde(default = "int::<10>")]`.
pub(super) fn int<const VALUE: i32>() -> i32 {
    VALUE
}

/// Returns the section that an empty object stands for.
pub(super) fn section<T: DeserializeOwned>() -> T {
    serde_json::from_value(serde_json::json!({}))
        .expect("every field of a section with a default has a default")
}

/// Returns the value if it is set, and the default otherwise.
pub(super) fn or_default<T: Clone>(value: &Option<T>, default: &Option<T>) -> Option<T> {
    value.as_ref().or(default.as_ref()).cloned()
}

/// Returns the list if it has items, and the default otherwise.
pub(super) fn list_or_default<T: Clone>(list: &[T], default: &[T]) -> Vec<T> {
    if list.is_empty() { default.to_vec() } else { list.to_vec() }
}

/// Merges two sections if both are set, and returns the one that is set otherwise.
pub(super) fn merge_sections<T: Clone>(
    section: &Option<T>,
    default: &Option<T>,
    merge: fn(&T, &T) -> T,
) -> Option<T> {
    match (section, default) {
        (Some(section), Some(default)) => Some(merge(section, default)),
        _ => or_default(section, default),
    }
}
