//! Secrets for the schemes of tests.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use grapnel_crds::{KeyEncoding, Scheme, SchemeType};

/// Returns a secret in the form that the scheme expects.
pub fn test_secret(scheme: &Scheme) -> String {
    if scheme.kind == Some(SchemeType::Ecdsa) {
        // The public key of a provider's published example.
        return "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==".to_owned();
    }
    if scheme.kind == Some(SchemeType::AwsSns) {
        return "arn:aws:sns:eu-central-1:123456789012:orders".to_owned();
    }
    let key = scheme.key.clone().unwrap_or_default();
    let prefix = key.strip_prefix.unwrap_or_default();
    match key.encoding {
        Some(KeyEncoding::Base64) => format!("{prefix}{}", STANDARD.encode([7; 32])),
        Some(KeyEncoding::Hex) => format!("{prefix}{}", hex::encode([7; 32])),
        Some(KeyEncoding::Utf8 | KeyEncoding::Seed) | None => format!("{prefix}secret-of-a-test"),
    }
}
