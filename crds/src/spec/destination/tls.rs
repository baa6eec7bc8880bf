//! The TLS of connections to a destination.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::rules::{self as shared_rules, destination as rules};
use crate::spec::verification::SecretRef;

/// How the receiver's certificate is verified, and the certificate that requests present. Secrets need the label
/// grapnel.dev/destination: "true".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DestinationTls {
    /// The only authorities that may issue the receiver's certificate: certificates in PEM. Default: the authorities that
    /// the platform trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CaRef>,

    /// The certificate that requests present to the receiver. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_ref: Option<CertificateRef>,

    /// The name that the receiver's certificate must have, which is also sent as the server name (SNI): a DNS name of at
    /// most 253 characters. Default: the host of the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::SERVER_NAME)]
    pub server_name: Option<String>,
}

/// A key of a Secret in the namespace of the Integration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaRef {
    /// The name of a Secret in the namespace of the Integration. Required; a DNS subdomain of at most 253 characters.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = shared_rules::DNS_SUBDOMAIN)]
    pub name: String,

    /// The key of the certificates in the Secret's data. Default: ca.crt. At most 253 letters, digits, '-', '_' and '.'.
    #[serde(default = "ca_key")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = shared_rules::SECRET_KEY)]
    pub key: String,
}

/// A Secret of type kubernetes.io/tls in the namespace of the Integration, such as cert-manager writes: a certificate with
/// its chain under tls.crt, and its private key under tls.key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRef {
    /// The name of the Secret. Required; a DNS subdomain of at most 253 characters.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = shared_rules::DNS_SUBDOMAIN)]
    pub name: String,
}

impl DestinationTls {
    /// Returns the references to its secrets, each with its field in the destination.
    pub(super) fn secret_refs(&self) -> impl Iterator<Item = (&'static str, SecretRef)> {
        let authorities = self.ca_ref.iter().map(|ca_ref| ("tls.caRef", ca_ref.secret_ref()));
        let certificate = self.client_certificate_ref.iter().flat_map(CertificateRef::secret_refs);
        authorities.chain(certificate.map(|secret_ref| ("tls.clientCertificateRef", secret_ref)))
    }
}

impl CaRef {
    /// Returns the reference to the certificates.
    pub fn secret_ref(&self) -> SecretRef {
        SecretRef { name: self.name.clone(), key: self.key.clone() }
    }
}

impl CertificateRef {
    /// Returns the references to the certificate and to its private key.
    pub fn secret_refs(&self) -> [SecretRef; 2] {
        ["tls.crt", "tls.key"].map(|key| SecretRef { name: self.name.clone(), key: key.to_owned() })
    }
}

fn ca_key() -> String {
    "ca.crt".to_owned()
}
