//! Defaults are said once, in the serde attribute of the field. The schema's `default` and the Rust `Default` of a
//! section both come from there, so a file, an object from the API server and a value built in code agree.

use serde::de::DeserializeOwned;

/// The default of an integer field: `#[serde(default = "int::<10>")]`.
pub(crate) fn int<const VALUE: i32>() -> i32 {
    VALUE
}

/// The section that an empty object stands for.
pub(crate) fn section<T: DeserializeOwned>() -> T {
    serde_json::from_value(serde_json::json!({}))
        .expect("every field of a section with a default has a default")
}
