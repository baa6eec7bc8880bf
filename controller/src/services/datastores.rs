//! The addresses of the platform's datastores, so that no Service leads to them, not even one of a namespace that has them.
//!
//! Redis is none of the controller's connections, so it does not know that one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use secrecy::{ExposeSecret, SecretString};
use tokio::net::lookup_host;
use tokio::time::timeout;
use url::Url;

/// A look-up that takes longer leaves the addresses as they are.
const DEADLINE: Duration = Duration::from_secs(5);

/// The hosts of the datastores, with their addresses as of the last look-up that succeeded.
#[derive(Debug, Default)]
pub struct Datastores(Mutex<BTreeMap<String, Vec<IpAddr>>>);

impl Datastores {
    /// Takes the hosts of the URLs by which the platform reaches them.
    pub fn new<'a>(urls: impl IntoIterator<Item = &'a SecretString>) -> Self {
        let hosts = urls.into_iter().filter_map(host);
        Self(Mutex::new(hosts.map(|host| (host, Vec::new())).collect()))
    }

    /// Looks the hosts up.
    pub async fn look_up(&self) {
        let hosts: Vec<String> = self.lock().keys().cloned().collect();
        let look_ups = hosts.iter().map(|host| timeout(DEADLINE, lookup_host((host.as_str(), 0))));
        for (host, found) in hosts.iter().zip(join_all(look_ups).await) {
            if let Ok(Ok(found)) = found {
                self.lock().insert(host.clone(), found.map(|address| address.ip()).collect());
            }
        }
    }

    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.lock().values().flatten().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<IpAddr>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn host(url: &SecretString) -> Option<String> {
    let url = Url::parse(url.expose_secret()).ok()?;
    let host = url.host_str()?;
    Some(host.trim_start_matches('[').trim_end_matches(']').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_hosts_of_urls_are_looked_up() {
        let urls = ["postgres://user:password@127.0.0.7:5432/grapnel", "amqp://[::1]:5672/%2f", "not a URL"];
        let urls = urls.map(SecretString::from);
        let datastores = Datastores::new(&urls);
        assert!(datastores.addresses().is_empty());
        datastores.look_up().await;
        let expected: [IpAddr; 2] = ["127.0.0.7".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(datastores.addresses(), BTreeSet::from(expected));
    }
}
