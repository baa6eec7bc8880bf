//! Judges the endpoints of a Service: which of its addresses may be dialed. Pure.
//!
//! Whoever may edit a namespace can write Services and EndpointSlices with any address, and the workers stand behind the firewall.
//! So nothing that these objects say is believed of an address: it must be that of a ready pod of the same namespace, in whose
//! status only its node writes, and not that of a node. That leaves out the API server, the nodes, other namespaces and
//! everything outside of the cluster, whatever the objects say.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use grapnel_core::delivery::egress_policy::EgressPolicy;
use grapnel_crds::conditions::reason;
use k8s_openapi::api::core::v1::{Service, ServicePort as ServicePortSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use super::pod::WatchedPod;

/// Why a Service has no address that may be dialed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceProblem {
    pub reason: &'static str,
    /// Completes a sentence about the Service.
    pub message: String,
}

impl ServiceProblem {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// The addresses that may be dialed, at least one, or why there are none.
pub type EndpointAddresses = Result<Vec<SocketAddr>, ServiceProblem>;

/// Why an endpoint is not used.
#[derive(Debug, PartialEq, Eq)]
enum Unused {
    /// It will be, or was.
    NotReady,
    /// It is not what it says it is.
    Refused(String),
}

/// Returns the addresses behind a port of a Service. `slices` are those of the Service, `pod` finds a pod of its namespace, and
/// `datastores` are the addresses of the platform's.
pub fn judge(
    service: Option<&Service>,
    port: u16,
    slices: &[Arc<EndpointSlice>],
    pod: impl Fn(&str) -> Option<Arc<WatchedPod>>,
    datastores: &BTreeSet<IpAddr>,
) -> EndpointAddresses {
    let service = service.ok_or_else(|| ServiceProblem::new(reason::SERVICE_NOT_FOUND, "does not exist"))?;
    let spec = service.spec.clone().unwrap_or_default();
    if spec.type_.as_deref() == Some("ExternalName") {
        let message = "is of type ExternalName, which names a host outside of the namespace; use url instead";
        return Err(ServiceProblem::new(reason::SERVICE_NOT_ALLOWED, message));
    }
    if has_address_among(service, datastores) {
        let message = "is a datastore of the platform";
        return Err(ServiceProblem::new(reason::SERVICE_NOT_ALLOWED, message));
    }
    let ports = spec.ports.unwrap_or_default();
    let Some(served) = ports.iter().find(|served| is_port(served, port)) else {
        let message = format!("has no TCP port {port}");
        return Err(ServiceProblem::new(reason::SERVICE_PORT_MISSING, message));
    };
    let (mut addresses, mut refused) = (Vec::new(), None);
    for slice in slices {
        let Some(target) = slice.ports.iter().flatten().find_map(|target| target_port(target, served)) else {
            continue;
        };
        for endpoint in &slice.endpoints {
            match address_of(endpoint, &pod) {
                Ok(address) if datastores.contains(&address) => {
                    refused = refused.or(Some("a pod is a datastore of the platform".to_owned()));
                }
                Ok(address) => addresses.push(SocketAddr::new(address, target)),
                Err(Unused::NotReady) => {}
                Err(Unused::Refused(why)) => refused = refused.or(Some(why)),
            }
        }
    }
    match refused {
        _ if !addresses.is_empty() => Ok(addresses),
        Some(why) => {
            let message = format!("has no endpoint that may be delivered to: {why}");
            Err(ServiceProblem::new(reason::SERVICE_NOT_ALLOWED, message))
        }
        None => Err(ServiceProblem::new(reason::NO_READY_ENDPOINTS, "has no ready endpoints")),
    }
}

/// Returns whether the Service itself has one of these addresses.
pub fn has_address_among(service: &Service, addresses: &BTreeSet<IpAddr>) -> bool {
    let own = service.spec.iter().flat_map(|spec| spec.cluster_ips.iter().flatten());
    own.filter_map(|address| address.parse::<IpAddr>().ok()).any(|address| addresses.contains(&address))
}

fn is_port(served: &ServicePortSpec, port: u16) -> bool {
    served.port == i32::from(port) && is_tcp(served.protocol.as_deref())
}

/// Returns the port of the pods behind a port of the Service. Slices name it as the Service does.
fn target_port(target: &EndpointPort, served: &ServicePortSpec) -> Option<u16> {
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let is_same = name(&target.name) == name(&served.name) && is_tcp(target.protocol.as_deref());
    is_same.then_some(target.port)?.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
}

fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}

/// Returns the address of an endpoint if it may be dialed. A slice may list more addresses of one endpoint, which have no meaning.
fn address_of(endpoint: &Endpoint, pod: impl Fn(&str) -> Option<Arc<WatchedPod>>) -> Result<IpAddr, Unused> {
    let refused = |why: &str| Err(Unused::Refused(why.to_owned()));
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    if conditions.ready == Some(false) || conditions.terminating == Some(true) {
        return Err(Unused::NotReady);
    }
    let Some(address) = endpoint.addresses.first().and_then(|address| address.parse::<IpAddr>().ok()) else {
        return refused("an endpoint has no IP address");
    };
    if let Err(denied) = EgressPolicy::default().permits_endpoint(address) {
        return Err(Unused::Refused(format!("an endpoint has a {} address", denied.class)));
    }
    let target = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
    let Some(name) = target.and_then(|target| target.name.as_deref()) else {
        return refused("an endpoint names no pod of the namespace");
    };
    // The watches are not in step: a pod that is not known yet, or no longer, is not ready.
    let Some(pod) = pod(name).filter(|pod| pod.is_ready()) else { return Err(Unused::NotReady) };
    if pod.is_of_node(address) {
        return Err(Unused::Refused(format!("the pod {name} has the address of its node")));
    }
    if !pod.has_address(address) {
        return Err(Unused::Refused(format!(
            "an endpoint has an address that is not that of its pod {name}"
        )));
    }
    Ok(address)
}

#[cfg(test)]
mod tests;
