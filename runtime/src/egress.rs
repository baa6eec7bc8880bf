//! How the process reaches what others name: destinations, and the URLs of providers and token endpoints.
//!
//! Invariants: only addresses that the policy permits are dialed, or named to the proxy of the platform; each address is
//! checked after its name was resolved and dialed as it was checked. A proxy that resolves names itself is the policy for
//! them. The proxy, which the operator names, is exempt from the policy; the addresses of a Service are judged by the rules for
//! Services and never dialed through the proxy. The datastores of the platform are never reached for others.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use grapnel_core::delivery::egress_policy::{DeniedAddress, EgressPolicy};
use rand::seq::SliceRandom;
use rustls::RootCertStore;
use tokio::net::TcpStream;
use url::{Host, Url};

mod resolver;
mod datastores;
mod dial;
mod proxy;
mod trust;
mod client;

pub(crate) use client::{CallClient, CallError};
pub(crate) use datastores::Datastores;
pub(crate) use proxy::{EgressProxy, ProxyError};
pub(crate) use resolver::NameError;
pub(crate) use trust::{for_http_1, server_name, trusted_roots};

use resolver::PermittedResolver;

/// The ways out of the process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Egress {
    policy: Arc<EgressPolicy>,
    resolver: Arc<PermittedResolver>,
    datastores: Arc<Datastores>,
    proxy: Option<Arc<EgressProxy>>,
    roots: Arc<RootCertStore>,
}

impl std::fmt::Debug for Egress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Egress").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// No connection to a permitted address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EgressError {
    #[error(transparent)]
    Name(#[from] NameError),
    /// It says nothing about the receiver: one is started perhaps.
    #[error("the Service has no ready endpoint")]
    NoEndpoint,
    #[error("no address could be connected to")]
    Connection(#[source] io::Error),
    #[error(transparent)]
    Proxy(#[from] ProxyError),
}

impl Egress {
    /// Connects through `proxy` where it applies, and trusts the authorities in `roots`.
    pub(crate) fn new(policy: EgressPolicy, proxy: Option<EgressProxy>, roots: RootCertStore) -> Self {
        let policy = Arc::new(policy);
        let resolver = Arc::new(PermittedResolver::new(Arc::clone(&policy)));
        let datastores = Arc::default();
        Self { policy, resolver, datastores, proxy: proxy.map(Arc::new), roots: Arc::new(roots) }
    }

    /// Asks this function in place of the system's resolver, and remembers nothing of what was found before.
    #[cfg(test)]
    pub(crate) fn with_look_up(self, look_up: resolver::LookupFn) -> Self {
        let resolver = Arc::new(PermittedResolver::with_look_up(Arc::clone(&self.policy), look_up));
        Self { resolver, ..self }
    }

    /// Never reaches these servers.
    pub(crate) fn except(self, datastores: Datastores) -> Self {
        Self { datastores: Arc::new(datastores), ..self }
    }

    pub(crate) fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }

    /// Checks the address of a URL that has one instead of a name.
    pub(crate) fn permits_literal(&self, url: &Url) -> Result<(), DeniedAddress> {
        self.policy.permits_literal(url)
    }

    /// Connects to the host and the port of a URL. The caller bounds the time.
    pub(crate) async fn connect(&self, url: &Url) -> Result<TcpStream, EgressError> {
        // Both schemes that are called have one.
        let port = url.port_or_known_default().unwrap_or_default();
        let Some((proxy, intercept)) = self.proxy_for(url) else {
            let sockets = self.permitted_sockets(url, port).await?;
            return dial::first_of(&sockets).await.map_err(EgressError::Connection);
        };
        let proxy_addresses = self.proxy_addresses(proxy).await?;
        let tunnel = async |authority: String| {
            let stream = dial::first_of(&proxy_addresses).await.map_err(ProxyError::Unreachable)?;
            proxy::open_tunnel(stream, &authority, intercept.basic_auth()).await
        };
        if proxy.resolves_names()
            && let Some(Host::Domain(name)) = url.host()
        {
            return Ok(tunnel(format!("{name}:{port}")).await?);
        }
        let mut last_error = None;
        for address in self.permitted_sockets(url, port).await? {
            match tunnel(address.to_string()).await {
                Ok(stream) => return Ok(stream),
                // The proxy could not reach this address; it may reach another, of the other family for example.
                Err(error) if error.is_about_the_address() => last_error = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        let nothing = || NameError::Failed("it has no address".into()).into();
        Err(last_error.map_or_else(nothing, EgressError::from))
    }

    /// Connects to one of the endpoints of a Service, never through the proxy. Each is judged again, whoever wrote it.
    pub(crate) async fn connect_to_endpoint(
        &self,
        endpoints: &[SocketAddr],
    ) -> Result<TcpStream, EgressError> {
        let mut permitted = Vec::with_capacity(endpoints.len());
        let mut denied = None;
        for endpoint in endpoints {
            match self.policy.permits_endpoint(endpoint.ip()) {
                Ok(()) => permitted.push(*endpoint),
                Err(error) => denied = Some(error),
            }
        }
        if permitted.is_empty() {
            return Err(denied.map_or(EgressError::NoEndpoint, |denied| NameError::Denied(denied).into()));
        }
        let mut permitted = self.without_datastores(permitted).await?;
        permitted.shuffle(&mut rand::rng());
        dial::first_of(&permitted).await.map_err(EgressError::Connection)
    }

    fn proxy_for(&self, url: &Url) -> Option<(&EgressProxy, proxy::Intercept)> {
        let proxy = self.proxy.as_deref()?;
        Some((proxy, proxy.intercept(url)?))
    }

    /// Returns what is dialed for a URL, or named to the proxy.
    async fn permitted_sockets(&self, url: &Url, port: u16) -> Result<Vec<SocketAddr>, NameError> {
        let addresses = self.permitted_addresses(url).await?;
        self.without_datastores(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
            .await
    }

    async fn without_datastores(&self, sockets: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, NameError> {
        self.datastores.leave_out(&self.policy, &self.resolver, sockets).await.map_err(NameError::Denied)
    }

    async fn permitted_addresses(&self, url: &Url) -> Result<Vec<IpAddr>, NameError> {
        self.permits_literal(url).map_err(NameError::Denied)?;
        match url.host() {
            Some(Host::Domain(name)) => self.resolver.permitted_addresses(name).await,
            Some(Host::Ipv4(address)) => Ok(vec![address.into()]),
            Some(Host::Ipv6(address)) => Ok(vec![address.into()]),
            None => Err(NameError::Failed("the URL has no host".into())),
        }
    }

    async fn proxy_addresses(&self, proxy: &EgressProxy) -> Result<Vec<SocketAddr>, ProxyError> {
        let addresses: Arc<[IpAddr]> = match proxy.host() {
            Host::Domain(name) => {
                let found = self.resolver.any_addresses(name).await;
                found.map_err(|error| ProxyError::Unreachable(io::Error::other(error)))?
            }
            Host::Ipv4(address) => Arc::new([(*address).into()]),
            Host::Ipv6(address) => Arc::new([(*address).into()]),
        };
        Ok(addresses.iter().map(|address| SocketAddr::new(*address, proxy.port())).collect())
    }
}
