//! The platform's own datastores. They are no destinations, whatever the policy allows and whoever names them.
//!
//! A datastore is known by its host, which is resolved when something else is dialed, since a failover changes its address. The addresses
//! that were found last stay in force while a look-up fails or takes long: the name servers of a datastore hold up no delivery.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use grapnel_core::delivery::egress_policy::{AddressClass, DeniedAddress, EgressPolicy, effective_address};
use tokio::time::timeout;

use super::resolver::PermittedResolver;

/// The longest wait for a look-up. Its result counts from the next time on.
const LOOKUP_WAIT: Duration = Duration::from_millis(500);

/// The servers that are never dialed for others.
#[derive(Debug, Default)]
pub(crate) struct Datastores(Vec<Datastore>);

#[derive(Debug)]
struct Datastore {
    host: String,
    port: u16,
    /// As of the last look-up that succeeded.
    known: Mutex<Arc<[IpAddr]>>,
}

impl Datastores {
    /// Takes the hosts, names or addresses, and the ports of servers.
    pub(crate) fn new(servers: impl IntoIterator<Item = (String, u16)>) -> Self {
        let datastore = |(host, port): (String, u16)| {
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            Datastore { host, port, known: Mutex::new(Arc::new([])) }
        };
        Self(servers.into_iter().map(datastore).collect())
    }

    /// Returns those of the addresses that are not a datastore's.
    ///
    /// # Errors
    /// When all of them are.
    pub(super) async fn leave_out(
        &self,
        policy: &EgressPolicy,
        resolver: &PermittedResolver,
        mut dialed: Vec<SocketAddr>,
    ) -> Result<Vec<SocketAddr>, DeniedAddress> {
        let known = join_all(self.0.iter().map(|datastore| datastore.addresses(resolver))).await;
        let datastores: Vec<SocketAddr> = known
            .iter()
            .zip(&self.0)
            .flat_map(|(known, Datastore { port, .. })| {
                known.iter().map(|address| SocketAddr::new(*address, *port))
            })
            .collect();
        let count = dialed.len();
        dialed
            .retain(|dialed| !datastores.iter().any(|datastore| is_same_server(policy, *datastore, *dialed)));
        if dialed.is_empty() && count > 0 {
            return Err(DeniedAddress { class: AddressClass::Datastore });
        }
        Ok(dialed)
    }
}

impl Datastore {
    async fn addresses(&self, resolver: &PermittedResolver) -> Arc<[IpAddr]> {
        let found = timeout(LOOKUP_WAIT, resolver.any_addresses(&self.host)).await;
        // It is replaced as a whole.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(Ok(found)) = found {
            *known = found;
        }
        Arc::clone(&known)
    }
}

/// Returns whether a connection to `dialed` may reach the server of a datastore: any port of its address, since a server has others beside
/// the one that is used. Receivers share an address with it only on this machine and where the operator allows that very address; there
/// the port decides.
fn is_same_server(policy: &EgressPolicy, datastore: SocketAddr, dialed: SocketAddr) -> bool {
    let (server, address) = (effective_address(datastore.ip()), effective_address(dialed.ip()));
    let is_here = is_this_machine(server);
    let is_its = if is_here { is_this_machine(address) } else { server == address };
    is_its && (datastore.port() == dialed.port() || !(is_here || policy.names(address)))
}

/// Connections to an unspecified address are made to this machine too.
fn is_this_machine(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified()
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn sockets(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn datastores(servers: &[(&str, u16)]) -> Datastores {
        Datastores::new(servers.iter().map(|(host, port)| ((*host).to_owned(), *port)))
    }

    async fn left(datastores: &Datastores, resolver: &PermittedResolver, dialed: &[&str]) -> Vec<SocketAddr> {
        datastores.leave_out(&EgressPolicy::default(), resolver, sockets(dialed)).await.unwrap_or_default()
    }

    #[tokio::test]
    async fn no_port_of_a_datastore_is_dialed_in_any_form_of_its_address() {
        let resolver = PermittedResolver::new(Arc::default());
        let datastores = datastores(&[("10.1.2.3", 5432), ("[fd00::7]", 5672)]);
        for dialed in [
            "10.1.2.3:5432",
            "10.1.2.3:8008",
            "[::ffff:10.1.2.3]:80",
            "[64:ff9b::a01:203]:80",
            "[fd00::7]:15672",
        ] {
            assert!(left(&datastores, &resolver, &[dialed]).await.is_empty(), "{dialed}");
        }
        let others = ["10.1.2.4:5432", "127.0.0.1:5432", "[fd00::8]:5672"];
        assert_eq!(left(&datastores, &resolver, &others).await, sockets(&others));
        let mixed = ["10.1.2.3:80", "10.1.2.4:80"];
        assert_eq!(left(&datastores, &resolver, &mixed).await, sockets(&["10.1.2.4:80"]));
        assert!(left(&datastores, &resolver, &[]).await.is_empty());
    }

    #[tokio::test]
    async fn on_this_machine_only_the_port_of_a_datastore_is_refused() {
        let resolver = PermittedResolver::new(Arc::default());
        let datastores = datastores(&[("localhost", 5432)]);
        for dialed in [
            "127.0.0.1:5432",
            "127.9.9.9:5432",
            "[::1]:5432",
            "0.0.0.0:5432",
            "[::]:5432",
            "[::ffff:127.0.0.1]:5432",
        ] {
            assert!(left(&datastores, &resolver, &[dialed]).await.is_empty(), "{dialed}");
        }
        let others = ["127.0.0.1:8080", "[::1]:8080", "10.0.0.1:5432"];
        assert_eq!(left(&datastores, &resolver, &others).await, sockets(&others));
    }

    #[tokio::test]
    async fn an_address_that_the_operator_allows_by_itself_has_receivers_too() {
        let resolver = PermittedResolver::new(Arc::default());
        let datastores = datastores(&[("10.1.2.3", 5432)]);
        let both = ["10.1.2.3:5432", "10.1.2.3:8080"];
        for (allowed, expected) in [("10.1.2.3/32", &both[1..]), ("10.0.0.0/8", &[])] {
            let policy = EgressPolicy::new(vec![allowed.parse().unwrap()]);
            let left = datastores.leave_out(&policy, &resolver, sockets(&both)).await.unwrap_or_default();
            assert_eq!(left, sockets(expected), "{allowed}");
        }
    }

    #[tokio::test]
    async fn addresses_stay_in_force_while_a_look_up_fails() {
        static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
        // One for each time, since a resolver remembers what it found.
        let resolvers = [0, 1, 2].map(|_| {
            PermittedResolver::with_look_up(Arc::default(), |_| {
                match LOOKUPS.fetch_add(1, Ordering::SeqCst) {
                    0 => Ok(vec![[10, 0, 0, 1].into()]),
                    1 => Err(io::Error::other("no such name")),
                    _ => Ok(vec![[10, 0, 0, 2].into()]),
                }
            })
        });
        let datastores = datastores(&[("postgres.example", 5432)]);
        let both = ["10.0.0.1:80", "10.0.0.2:80"];
        for (resolver, expected) in resolvers.iter().zip(["10.0.0.2:80", "10.0.0.2:80", "10.0.0.1:80"]) {
            assert_eq!(left(&datastores, resolver, &both).await, sockets(&[expected]));
        }
    }
}
