//! A provider as data: how its requests are verified, and where the event's fields are.
//!
//! Presets are YAML files that are embedded in the binary; no provider is named in code.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use axum::http::HeaderName;
use serde::Deserialize;

/// How the webhooks of one provider are verified and read.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Preset {
    pub provider: Arc<str>,
    pub verification: Verification,
    pub mapping: Mapping,
}

/// What proves that a request comes from the provider.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, tag = "type", rename_all = "kebab-case")]
pub enum Verification {
    /// A header carries the HMAC-SHA256 of the raw body.
    HmacSha256 { header: Header, encoding: Encoding },
    /// A header carries the secret itself.
    Token { header: Header },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// Either case is read.
    Hex,
    /// Standard alphabet, padded.
    Base64,
}

/// Where the fields of an event are in the body: JSON Pointers (RFC 6901).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Mapping {
    pub external_event_id: Pointer,
    pub event_type: Pointer,
    /// RFC 3339.
    pub occurred_at: Pointer,
    /// The first that is a text counts; an event may have none.
    #[serde(default)]
    pub subject: Vec<Pointer>,
    /// An object, delivered as it came, under the name of its last segment.
    pub payload: Pointer,
}

/// A JSON Pointer over object members.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Pointer {
    segments: Vec<String>,
    /// The field in the words of an error: `data.id`.
    pub field: String,
}

impl Pointer {
    pub fn segments(&self) -> &[String] {
        &self.segments
    }

    /// The name of the member that is pointed to.
    pub fn member(&self) -> &str {
        self.segments.last().map_or("", String::as_str)
    }
}

impl TryFrom<String> for Pointer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let path = text.strip_prefix('/').ok_or_else(|| format!("{text}: a pointer begins with /"))?;
        // The order matters: ~01 is ~1, not /.
        let unescape = |segment: &str| segment.replace("~1", "/").replace("~0", "~");
        let segments: Vec<String> = path.split('/').map(unescape).collect();
        Ok(Self { field: segments.join("."), segments })
    }
}

/// A header's name, lower-case.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Header(pub HeaderName);

impl TryFrom<String> for Header {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        HeaderName::try_from(&text).map(Self).map_err(|_| format!("{text}: not a header name"))
    }
}

const PRESETS: [&str; 2] = [include_str!("../presets/acme.yaml"), include_str!("../presets/globex.yaml")];

static BY_PROVIDER: LazyLock<HashMap<Arc<str>, Arc<Preset>>> = LazyLock::new(|| {
    let parse = |text: &&str| {
        let preset: Preset = serde_saphyr::from_str(text).expect("embedded presets are parsed by a test");
        (Arc::clone(&preset.provider), Arc::new(preset))
    };
    PRESETS.iter().map(parse).collect()
});

/// The preset of a provider.
pub fn find(provider: &str) -> Option<Arc<Preset>> {
    BY_PROVIDER.get(provider).cloned()
}

/// The providers that there are presets for, in order.
pub fn providers() -> Vec<&'static str> {
    let mut names: Vec<&str> = BY_PROVIDER.keys().map(|name| &**name).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_presets_are_read_and_found_by_their_provider() {
        assert_eq!(providers(), ["acme", "globex"]);
        assert!(find("acme").is_some_and(|preset| preset.mapping.payload.member() == "data"));
        assert!(find("initech").is_none());
    }

    #[test]
    fn pointers_follow_rfc_6901() {
        let pointer = Pointer::try_from("/a~1b/m~0n/~01".to_owned());
        assert_eq!(
            pointer.map(|pointer| pointer.segments),
            Ok(vec!["a/b".into(), "m~n".into(), "~1".into()])
        );
        assert!(Pointer::try_from("a".to_owned()).is_err());
    }
}
