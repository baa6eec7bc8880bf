//! The names of the presets that this release has. What each says is the runtime's, which embeds a file for each name.

use crate::rules::CelRule;

/// The provider of Integrations that have no preset.
pub const CUSTOM: &str = "custom";

/// Calls a macro with the names of all presets, in the order of the alphabet: this is the one list of them.
#[macro_export]
macro_rules! with_presets {
    ($then:ident) => {
        $then![
            "acme",
            "adyen",
            "adyen-platform",
            "asana",
            "aws-sns",
            "azure-event-grid",
            "bitbucket",
            "box",
            "buildkite",
            "calendly",
            "circleci",
            "clerk",
            "cloudevents",
            "coinbase-commerce",
            "discord",
            "discord-interactions",
            "docusign",
            "dropbox",
            "github",
            "gitlab",
            "gitlab-signed",
            "globex",
            "gocardless",
            "heroku",
            "hubspot",
            "hubspot-v1",
            "hubspot-v2",
            "intercom",
            "jira",
            "line",
            "linear",
            "mailgun",
            "meta",
            "microsoft-graph",
            "mux",
            "notion",
            "okta",
            "openai",
            "paddle",
            "pagerduty",
            "paypal",
            "qq-bot",
            "razorpay",
            "recurly",
            "resend",
            "scalr",
            "sendgrid",
            "sentry",
            "shopify",
            "slack",
            "square",
            "standard-webhooks",
            "standard-webhooks-v1a",
            "stripe",
            "svix",
            "telegram",
            "trello",
            "twilio",
            "typeform",
            "vercel",
            "whatsapp",
            "woocommerce",
            "workos",
            "x",
            "xero",
            "zendesk",
            "zoom",
        ];
    };
}

macro_rules! names {
    ($first:literal, $($name:literal,)*) => {
        /// Every preset, in the order of the alphabet.
        pub const NAMES: &[&str] = &[$first, $($name),*];

        /// What a provider must be. What is no label at all breaks another rule, and is told once.
        pub(crate) const KNOWN: CelRule = CelRule::new(
            concat!(
                "self == 'custom' || self in ['", $first, "'", $(", '", $name, "'",)* "] || \
                 !self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')"
            ),
            concat!("there is no such preset; there are ", $first, $(", ", $name,)* ", and custom"),
        );
    };
}
with_presets!(names);

/// What is said of a provider that is none of them. The API server says it too, after the name of the field.
pub const UNKNOWN: &str = KNOWN.message;

/// Whether a provider is a preset of this release, or custom.
pub fn is_known(provider: &str) -> bool {
    provider == CUSTOM || NAMES.contains(&provider)
}
