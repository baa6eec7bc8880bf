//! The addresses of the Services that an Integration delivers to. Only the controller knows the cluster: it judges the addresses
//! and writes them into the row, and a worker dials one of them and never resolves the name of a Service.
//!
//! They are kept by Service and port and not by destination, so a destination that was changed to another Service never gets the
//! addresses of the previous one.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use grapnel_crds::ServiceRef;
use serde::{Deserialize, Serialize};

/// The most addresses of one Service that are kept: a worker spreads its requests over them.
pub const MOST_ADDRESSES: usize = 100;

/// A Service of the namespace of an Integration, and one of its ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServicePort {
    pub name: String,
    pub port: u16,
}

/// A text that is not of the form `name:port`.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not a Service and a port")]
pub struct ServicePortError(String);

impl From<&ServiceRef> for ServicePort {
    fn from(service: &ServiceRef) -> Self {
        // Validation has bounded the port; none of a Service is 0.
        Self { name: service.name.clone(), port: u16::try_from(service.port).unwrap_or(0) }
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}

impl From<ServicePort> for String {
    fn from(service: ServicePort) -> Self {
        service.to_string()
    }
}

impl TryFrom<String> for ServicePort {
    type Error = ServicePortError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let parts =
            text.rsplit_once(':').and_then(|(name, port)| Some((name.to_owned(), port.parse().ok()?)));
        parts.map(|(name, port)| Self { name, port }).ok_or(ServicePortError(text))
    }
}

/// The judged addresses of each Service and port; none while the Service cannot be delivered to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServiceEndpoints(BTreeMap<ServicePort, Vec<SocketAddr>>);

impl ServiceEndpoints {
    /// Reads the stored form.
    pub fn parse(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    /// Returns the stored form. It is the same for the same addresses.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("the keys are strings")
    }

    /// Sets the addresses of a Service, in order, each once, and not more than are kept.
    pub fn set(&mut self, service: ServicePort, mut addresses: Vec<SocketAddr>) {
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(MOST_ADDRESSES);
        self.0.insert(service, addresses);
    }

    /// Returns the addresses of a Service, if it is known.
    pub fn of(&self, service: &ServicePort) -> Option<&[SocketAddr]> {
        self.0.get(service).map(Vec::as_slice)
    }

    /// Returns the addresses that a destination dials; none while the Service is not known.
    pub fn to_dial(&self, service: &ServicePort) -> Arc<[SocketAddr]> {
        self.of(service).unwrap_or_default().into()
    }

    pub fn services(&self) -> impl Iterator<Item = &ServicePort> {
        self.0.keys()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, port: u16) -> ServicePort {
        ServicePort { name: name.to_owned(), port }
    }

    fn addresses(count: u8) -> Vec<SocketAddr> {
        (0..count).rev().map(|last| SocketAddr::from(([10, 0, 0, last], 8080))).collect()
    }

    #[test]
    fn the_stored_form_is_read_again() {
        let mut endpoints = ServiceEndpoints::default();
        endpoints.set(
            service("orders", 80),
            vec!["[fd00::1]:8080".parse().unwrap(), "10.0.0.1:8080".parse().unwrap()],
        );
        endpoints.set(service("audit", 443), Vec::new());
        let text = endpoints.to_text();
        assert_eq!(text, r#"{"audit:443":[],"orders:80":["10.0.0.1:8080","[fd00::1]:8080"]}"#);
        assert_eq!(ServiceEndpoints::parse(&text).unwrap(), endpoints);
        for text in [
            r#"{"orders":[]}"#,
            r#"{"orders:http":[]}"#,
            r#"{"orders:70000":[]}"#,
            r#"{"orders:80":["orders"]}"#,
        ] {
            assert!(ServiceEndpoints::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_are_in_order_and_bounded() {
        let mut endpoints = ServiceEndpoints::default();
        endpoints.set(service("orders", 80), [addresses(2), addresses(200)].concat());
        let kept = endpoints.to_dial(&service("orders", 80));
        assert_eq!(kept.len(), MOST_ADDRESSES);
        assert!(kept.is_sorted() && kept[0] == SocketAddr::from(([10, 0, 0, 0], 8080)));
    }

    #[test]
    fn another_service_or_port_has_no_addresses() {
        let mut endpoints = ServiceEndpoints::default();
        endpoints.set(service("orders", 80), addresses(1));
        assert!(endpoints.to_dial(&service("orders", 81)).is_empty());
        assert!(endpoints.to_dial(&service("order", 80)).is_empty());
        assert_eq!(endpoints.of(&service("audit", 80)), None);
    }
}
