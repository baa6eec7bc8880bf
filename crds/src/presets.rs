//! The names of the presets in this release. The runtime embeds a file for each name.

use crate::rules::CelRule;

/// The provider of Integrations that have no preset.
pub const CUSTOM: &str = "custom";

/// Calls a macro with the names of all presets, in alphabetical order.
///
/// This is the only list of them. It is a macro because both the text of a rule and the runtime's embedded files are
/// made from the names at compile time.
#[macro_export]
macro_rules! with_presets {
    ($then:ident) => {
        $then![
            "acme",
            "adyen",
            "adyen-platform",
            "airtable",
            "alchemy",
            "asana",
            "aws-sns",
            "azure-event-grid",
            "bigcommerce",
            "bitbucket",
            "box",
            "brevo",
            "buildkite",
            "cal-com",
            "calendly",
            "checkout-com",
            "circleci",
            "clerk",
            "clickup",
            "cloudevents",
            "coinbase-commerce",
            "customer-io",
            "discord",
            "discord-interactions",
            "docusign",
            "dropbox",
            "easypost",
            "figma",
            "gitea",
            "github",
            "gitlab",
            "gitlab-signed",
            "globex",
            "gocardless",
            "grafana",
            "heroku",
            "hubspot",
            "hubspot-v1",
            "hubspot-v2",
            "intercom",
            "jira",
            "klaviyo",
            "launchdarkly",
            "lemonsqueezy",
            "line",
            "linear",
            "mailgun",
            "mandrill",
            "meta",
            "microsoft-graph",
            "mollie",
            "mux",
            "notion",
            "okta",
            "openai",
            "paddle",
            "pagerduty",
            "paypal",
            "paystack",
            "persona",
            "qq-bot",
            "razorpay",
            "recurly",
            "replicate",
            "resend",
            "sanity",
            "scalr",
            "sendgrid",
            "sentry",
            "shippo",
            "shopify",
            "slack",
            "sonarqube",
            "square",
            "standard-webhooks",
            "standard-webhooks-v1a",
            "stripe",
            "svix",
            "telegram",
            "telnyx",
            "terraform-cloud",
            "trello",
            "twilio",
            "twitch",
            "typeform",
            "vercel",
            "webflow",
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
        /// The names of all presets, in alphabetical order.
        pub const NAMES: &[&str] = &[$first, $($name),*];

        /// The rule for a provider. A text that is not a DNS label breaks another rule, and is reported once.
        pub(crate) const KNOWN: CelRule = CelRule::new(
            concat!(
                "self == 'custom' || self in ['", $first, "'", $(", '", $name, "'",)* "] || \
                 !self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')"
            ),
            concat!("unknown preset; must be one of ", $first, $(", ", $name,)* " or custom"),
        );
    };
}
with_presets!(names);

/// The message for an unknown provider. The API server reports the same, after the name of the field.
pub const UNKNOWN: &str = KNOWN.message;

/// Returns whether a provider is a preset of this release, or custom.
pub fn is_known(provider: &str) -> bool {
    provider == CUSTOM || NAMES.contains(&provider)
}
