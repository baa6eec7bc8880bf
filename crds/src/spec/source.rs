//! Items of lists: sources, which are texts such as `header:webhook-id` that name the place of a value in a request, and content-types.

use serde_json::{Value, json};

/// Returns the schema of an item in a list of sources. A rule of the list checks its syntax.
pub(super) fn source_items() -> Value {
    json!({
        "type": "string",
        "minLength": 1,
        "maxLength": 256,
        "description": "A source of at most 256 characters."
    })
}

/// Returns the schema of an item in a list of content-types. A rule of the list checks its syntax.
pub(super) fn content_type_items() -> Value {
    json!({
        "type": "string",
        "minLength": 1,
        "maxLength": 128,
        "description": "A content-type of at most 128 characters."
    })
}
