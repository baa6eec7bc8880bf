//! `grapnel providers`: lists the presets, shows one, and prints the documentation of all.

use std::fmt::Write;

use anyhow::bail;
use grapnel_crds::{HandshakeAuth, HashAlgorithm, Scheme, SchemeType};

use grapnel_core::preset::{
    self, AttemptTimestamps, Behavior, EventIdOrigin, EventsPerRequest, Preset, RetryWindow,
};

const HEADER: &str = "\
<!-- Generated from crates/core/presets. Do not edit; refresh it with:
     cargo run --package grapnel-runtime --bin grapnel -- providers docs > docs/providers.md -->

# Providers

A provider is a preset: a YAML file of the same fields as `spec.verification.scheme`, `spec.mapping`, `spec.handshakes` and
`spec.acknowledgement` of an Integration. What an Integration sets takes precedence over its preset, field by field, and
`provider: custom` with a scheme and a mapping needs no preset at all. `grapnel providers show NAME` prints a preset;
`grapnel verify` says why a captured request does not verify.

The route's URL is `GRAPNEL_PUBLIC_URL` followed by `/api/v1/webhooks/{route}`. The secret goes into the Secret that
`spec.verification.secretRef` names. To replace it, put the new one there and the old one into `previousSecretRefs`, change it
at the provider, and remove the old one when it is not used any more.

A repeated webhook is one event, except where a preset says otherwise. It is recognized by the provider's id; without one, by its
body, its type and its subject. Where a provider counts its attempts in the body, `attemptFields` of the mapping names that field, and
it is left out of what is compared. `grapnel verify` shows what a captured request is recognized by.

Where a request carries several events, the preset says at which paths they are (`mapping.split`), and each is an event of its own: it
is recognized, delivered and replayed by itself, and all of a request are accepted or refused together. An element that lacks what an
event needs has the type `unmapped`, with a note. The preset reads the fields of an element with `element:/POINTER`. A mapping of an Integration
is merged with that field by field: a source such as `/0/id` still reads the whole body, the same for every element, and an id that is
read so tells elements apart only together with their content. Sources of your own should begin with `element:`.

Some differences make no difference: one line end after a secret, and other white space around a key in base64 or hexadecimal; a
public key in PEM; a signature in base64 with either alphabet, with or without padding; the case of an authentication scheme such as
`Bearer`; a slash after the route; a UTF-8 byte order mark before JSON. An optional field that is longer than 512 bytes or contains
U+0000 is left out of the event, with a note in it.

A body with the `content-encoding` gzip or deflate is decoded, up to `spec.ingress.maxBodyBytes`; any other coding is answered with
415. Providers that compress webhooks sign them before that, so a signature is checked over the decoded body; `body: received` in
`spec.verification.scheme` has it checked over the body as it was sent. Stored and delivered is the decoded body.

Webhooks are POST requests; `spec.ingress.methods` adds GET and PUT. A GET without a body has its query as payload, as if it were a
form. `spec.mapping.accept` says which kinds of bodies are read. With `bodyField` the JSON in a field of a form is read and
delivered, as if it were the body: `payload` of GitHub and of Slack's interactions. Of a form with parts
(`multipart/form-data`) the text fields are read and delivered; its files are in the raw body, and their names and sizes in
the audit entry. It may have 256 parts, with names of 256 bytes.

Each preset lists what was read of its provider, and on which day. What was not read, or is not said there, is unknown. If a
provider repeats a request with its first timestamp, the preset tolerates that age; if it signs each attempt anew, it need
not.
";

#[derive(Debug, clap::Args)]
pub struct ProvidersArgs {
    #[command(subcommand)]
    command: Option<ProvidersCommand>,
}

#[derive(Debug, clap::Subcommand)]
enum ProvidersCommand {
    /// Print a preset
    Show {
        /// Its name
        name: String,
    },
    /// Print the documentation of all presets
    Docs,
}

/// Prints the list, one preset, or the documentation.
///
/// # Errors
/// When there is no such preset.
pub fn run(args: &ProvidersArgs) -> anyhow::Result<()> {
    match &args.command {
        None => print!("{}", list()),
        Some(ProvidersCommand::Docs) => print!("{}", docs()),
        Some(ProvidersCommand::Show { name }) => match preset::text(name) {
            Some(text) => print!("{text}"),
            None => bail!("there is no preset for {name:?}; there are {}", preset::providers().join(", ")),
        },
    }
    Ok(())
}

fn presets() -> impl Iterator<Item = std::sync::Arc<Preset>> {
    preset::providers().into_iter().filter_map(preset::find)
}

fn list() -> String {
    let width = preset::providers().iter().map(|name| name.len()).max().unwrap_or(0);
    let mut list = String::new();
    for preset in presets() {
        let line = writeln!(
            list,
            "{:<width$}  {} ({})",
            preset.provider,
            preset.name,
            summary(&preset.verification)
        );
        line.expect("a String can be written to");
    }
    list
}

/// Returns the documentation of all presets in Markdown.
fn docs() -> String {
    let mut docs = HEADER.to_owned();
    docs += "\n| provider | | verified by | handshakes |\n|---|---|---|---|\n";
    for preset in presets() {
        let handshakes: Vec<&str> =
            preset.handshakes.iter().map(|handshake| handshake.name.as_str()).collect();
        docs += &format!(
            "| [`{0}`](#{0}) | {1} | {2} | {3} |\n",
            preset.provider,
            preset.name,
            summary(&preset.verification),
            handshakes.join(", ")
        );
    }
    docs += "\n## How they send\n\n| provider | events in a request | id of the event | retries for | time of a retry |\n\
             |---|---|---|---|---|\n";
    for preset in presets() {
        docs +=
            &format!("| [`{0}`](#{0}) | {1} |\n", preset.provider, behavior(&preset.behavior).join(" | "));
    }
    for preset in presets() {
        docs += &section(&preset);
    }
    docs
}

fn section(preset: &Preset) -> String {
    let mut section = format!(
        "\n## {}\n\n{}. Verified by {}. Secret: {}\n\n",
        preset.provider,
        preset.name,
        summary(&preset.verification),
        lower_first(&preset.secret)
    );
    for (number, step) in preset.setup.iter().enumerate() {
        section += &format!("{}. {step}\n", number + 1);
    }
    if !preset.notes.is_empty() {
        section += "\n";
    }
    for note in &preset.notes {
        section += &format!("- {note}\n");
    }
    section += token_note(&preset.verification);
    for handshake in &preset.handshakes {
        let signed = if handshake.verify == HandshakeAuth::Verified { "signed" } else { "unsigned" };
        let captured = if handshake.capture.is_some() { "; its secret is captured" } else { "" };
        section += &format!("- The {signed} handshake `{}` is answered{captured}.\n", handshake.name);
    }
    let mapping = &preset.mapping;
    if !mapping.split.is_empty() {
        let paths: Vec<String> = mapping.split.iter().map(|path| format!("`{path}`")).collect();
        let types: Vec<String> = mapping.split_content_types.iter().map(|kind| format!("`{kind}`")).collect();
        let of_types = if types.is_empty() { String::new() } else { format!(" of {}", types.join(" and ")) };
        section += &format!("- Each element{of_types} at {} is an event.\n", paths.join(" and "));
    }
    for (name, sources) in [
        ("id", &mapping.external_event_id),
        ("id is unique within", &mapping.id_scope),
        ("type", &mapping.event_type),
        ("time", &mapping.occurred_at),
        ("subject", &mapping.subject),
    ] {
        if !sources.is_empty() {
            let sources: Vec<String> = sources.iter().map(|source| format!("`{source}`")).collect();
            section += &format!("- The event's {name}: {}\n", sources.join(", else "));
        }
    }
    if !mapping.attempt_fields.is_empty() {
        section += &format!("- Fields of the attempt, not the event: {}\n", quoted(&mapping.attempt_fields));
    }
    section += &format!("- Content types: {}\n", content_types(&preset.behavior));
    if !preset.forward_headers.is_empty() {
        section +=
            &format!("- Headers that are sent on with raw deliveries: {}\n", quoted(&preset.forward_headers));
    }
    section += &format!("\n<{}>\n\nSources:\n\n", preset.documentation);
    for source in &preset.sources {
        let topics: Vec<String> = source.topics.iter().map(ToString::to_string).collect();
        section += &format!("- <{}> ({}; read {})\n", source.url, topics.join(", "), source.read);
    }
    section
}

/// Returns the columns of the table: events in a request, id, retries, and their time.
fn behavior(behavior: &Behavior) -> [String; 4] {
    let events = match behavior.events_per_request {
        EventsPerRequest::One => "one",
        EventsPerRequest::Several => "several",
        EventsPerRequest::Unknown => "unknown",
    };
    let id = match behavior.event_id {
        EventIdOrigin::Documented => "documented",
        EventIdOrigin::Unknown => "sent; unknown if unique",
        EventIdOrigin::None => "none",
    };
    let window = match behavior.retries.window {
        RetryWindow::None => "never".to_owned(),
        RetryWindow::Unknown => "unknown".to_owned(),
        RetryWindow::For(window) => format!("{window:#}"),
    };
    let timestamp = match behavior.retries.timestamps {
        AttemptTimestamps::First => "the first attempt's",
        AttemptTimestamps::Each => "its own",
        AttemptTimestamps::Unknown => "unknown",
        AttemptTimestamps::None => "not checked",
    };
    [events.to_owned(), id.to_owned(), window, timestamp.to_owned()]
}

fn content_types(behavior: &Behavior) -> String {
    match behavior.content_types.as_slice() {
        [] => "unknown".to_owned(),
        types => quoted(types),
    }
}

fn quoted(texts: &[impl std::fmt::Display]) -> String {
    texts.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(", ")
}

/// Says what becomes of a token that is not in a header. One in a header is stored as `[redacted]`, whatever the provider.
fn token_note(scheme: &Scheme) -> &'static str {
    let from = scheme.signature.as_ref().and_then(|signature| signature.from.as_deref()).unwrap_or_default();
    match from.split_once(':') {
        _ if scheme.kind != Some(SchemeType::Token) => "",
        Some(("json" | "form" | "element", _)) => {
            "- The token is in the body. It is replaced by `*` in what is stored, shown and delivered.\n"
        }
        Some(("query", _)) => "- The token is in the URL, which is neither stored nor delivered.\n",
        _ => "",
    }
}

fn lower_first(text: &str) -> String {
    let mut characters = text.chars();
    // An abbreviation is kept.
    if text.chars().nth(1).is_some_and(char::is_uppercase) {
        return text.to_owned();
    }
    characters.next().map(|first| first.to_lowercase().chain(characters).collect()).unwrap_or_default()
}

/// Summarizes the scheme in a few words.
fn summary(scheme: &Scheme) -> String {
    let hash = match scheme.hash.unwrap_or(HashAlgorithm::Sha256) {
        HashAlgorithm::Sha1 => "SHA-1",
        HashAlgorithm::Sha256 => "SHA-256",
        HashAlgorithm::Sha384 => "SHA-384",
        HashAlgorithm::Sha512 => "SHA-512",
    };
    let timed = if scheme.timestamp.is_some() { ", with a timestamp" } else { "" };
    match scheme.kind {
        Some(SchemeType::Hmac) => format!("HMAC {hash}{timed}"),
        Some(SchemeType::Digest) => format!("digest {hash}{timed}"),
        Some(SchemeType::Ed25519) => format!("Ed25519{timed}"),
        Some(SchemeType::Ecdsa) => format!("ECDSA P-256{timed}"),
        Some(SchemeType::Token) => "token".to_owned(),
        Some(SchemeType::Basic) => "basic authentication".to_owned(),
        Some(SchemeType::AwsSns | SchemeType::Paypal) => "certificate".to_owned(),
        None => "nothing".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_matches_the_presets() {
        assert!(
            include_str!("../../../docs/providers.md") == docs(),
            "docs/providers.md is stale; refresh it with\n  cargo run --package grapnel-runtime --bin grapnel -- providers docs \
             > docs/providers.md"
        );
    }

    #[test]
    fn every_preset_is_listed_and_can_be_shown() {
        for name in preset::providers() {
            assert!(list().lines().any(|line| line.starts_with(name)), "{name}");
            assert!(
                preset::text(name).is_some_and(|text| text.contains(&format!("provider: {name}\n"))),
                "{name}"
            );
        }
    }
}
