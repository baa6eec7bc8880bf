//! The fixture of a preset as a template: numbered, padded to the size of the run, and with placeholders for the values that
//! differ between events.

use anyhow::{Context, bail};
use grapnel_core::preset::Preset;
use grapnel_crds::{Scheme, TimeUnit};
use serde_json::Value;

use super::SignedPart;
use crate::byte_template::ByteTemplate;

/// A fixture as text, with the marks that a [`ByteTemplate`] replaces.
pub(super) struct FixtureTemplate {
    pub(super) body: String,
    pub(super) headers: Vec<(String, String)>,
}

/// Returns a body with one event, where it is split into several.
fn first_event(body: &str, split: &[String]) -> anyhow::Result<String> {
    if split.is_empty() {
        return Ok(body.to_owned());
    }
    let mut json: Value = serde_json::from_str(body).context("read the fixture as JSON")?;
    for path in split {
        let mut place = Some(&mut json);
        for segment in path.split('/').skip(1) {
            place = match (place, segment) {
                (Some(Value::Array(items)), "*") => {
                    items.truncate(1);
                    items.first_mut()
                }
                (Some(value), name) => value.get_mut(name),
                (None, _) => None,
            };
        }
    }
    Ok(json.to_string())
}

impl FixtureTemplate {
    /// # Errors
    /// When the body is neither JSON nor a form, or the fixture has a query.
    pub(super) fn new(preset: &Preset, run: &str, body_bytes: usize) -> anyhow::Result<FixtureTemplate> {
        let fixture = &preset.fixture;
        if fixture.query.is_some() {
            bail!("presets whose webhooks have a query are not supported");
        }
        let event = format!("{run}-@number@");
        let mut body = first_event(&fixture.body, &preset.mapping.split)?;
        let mut headers: Vec<(String, String)> =
            fixture.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        if let Some(id) = fixture.first_event().and_then(|event| event.external_event_id.as_ref()) {
            body = body.replace(&format!("\"{id}\""), &format!("\"{event}\""));
            headers
                .iter_mut()
                .filter(|(_, value)| value == id)
                .for_each(|(_, value)| value.clone_from(&event));
        }
        let missing = body_bytes.saturating_sub(body.len() + 32);
        let padding: String = ('a'..='z').cycle().take(missing).collect();
        if let Some(at) = body.find('{') {
            let comma = if body[at + 1..].trim_start().starts_with('}') { "" } else { "," };
            body.insert_str(at + 1, &format!(r#""loadtest":"{event} {padding}"{comma}"#));
        } else if body.contains('=') {
            body.push_str(&format!("&Loadtest={event}"));
            // Many short fields, as in such forms.
            for index in 0..missing / 41 {
                body.push_str(&format!("&Field{index:02}={}", &padding[..32]));
            }
        } else {
            bail!("the webhooks of {} are neither JSON nor forms", preset.provider);
        }
        Ok(FixtureTemplate { body, headers })
    }

    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    fn member(&self, pointer: &str) -> anyhow::Result<String> {
        let body: Value = serde_json::from_str(&self.body).context("read the fixture as JSON")?;
        Ok(match body.pointer(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        })
    }

    /// Returns the time as the provider sends it, or its placeholder.
    pub(super) fn time(&self, scheme: &Scheme) -> anyhow::Result<String> {
        let Some(source) = &scheme.timestamp else { return Ok(String::new()) };
        Ok(match source.from.as_deref().and_then(|from| from.split_once(':')) {
            Some(("header", name)) => self.header(name).to_owned(),
            Some(("json", pointer)) => self.member(pointer).unwrap_or_default(),
            _ => match source.unit {
                Some(TimeUnit::Ms) => "@nowMs@".to_owned(),
                Some(TimeUnit::Iso8601) => "@nowIso@".to_owned(),
                Some(TimeUnit::S) | None => "@now@".to_owned(),
            },
        })
    }

    /// Returns the parts of the signed message.
    ///
    /// # Errors
    /// When the message of the scheme contains an unsupported placeholder.
    pub(super) fn signed_parts(
        &self,
        scheme: &Scheme,
        time: &str,
        url: &str,
    ) -> anyhow::Result<Vec<SignedPart>> {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = scheme.message.as_deref().unwrap_or_default();
        while let Some((literal, after)) = rest.split_once('{') {
            let (placeholder, after) = after.split_once('}').context("read the preset's message")?;
            text.push_str(literal);
            rest = after;
            // Nothing in these webhooks is escaped.
            match placeholder.trim_end_matches("|unescape") {
                "body" => {
                    parts.push(SignedPart::Template(ByteTemplate::parse(&std::mem::take(&mut text))));
                    parts.push(SignedPart::Body);
                }
                "timestamp" => text.push_str(time),
                "method" => text.push_str("POST"),
                "url" => text.push_str(url),
                "form:sorted" => {
                    let mut fields: Vec<_> = url::form_urlencoded::parse(self.body.as_bytes()).collect();
                    fields.sort();
                    fields.iter().for_each(|(name, value)| text.extend([&**name, &**value]));
                }
                other => match other.split_once(':') {
                    Some(("header", name)) => text.push_str(self.header(name)),
                    Some(("json", pointer)) => text.push_str(&self.member(pointer)?),
                    _ => bail!("{{{other}}} is not supported"),
                },
            }
        }
        text.push_str(rest);
        parts.push(SignedPart::Template(ByteTemplate::parse(&text)));
        Ok(parts)
    }
}
