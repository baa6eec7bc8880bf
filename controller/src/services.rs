//! What the controller knows of the Services that Integrations deliver to.
//!
//! Only the namespaces of Integrations with such a destination are watched, so a cluster without any costs nothing.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use grapnel_core::delivery::service_endpoints::{ServiceEndpoints, ServicePort};
use grapnel_crds::Integration;
use grapnel_crds::conditions::reason;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::object::wait_until_filled;

pub mod datastores;
pub mod endpoints;
pub mod pod;

use self::datastores::Datastores;
use self::endpoints::{EndpointAddresses, ServiceProblem, has_address_among, judge};
use self::pod::WatchedPod;

/// The label by which an EndpointSlice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// How long a pass waits for the caches of a namespace that it is the first to need.
const FILL_DEADLINE: Duration = Duration::from_secs(3);

/// How often it looks for them meanwhile.
const FILL_POLL: Duration = Duration::from_millis(50);

/// The Services, EndpointSlices and pods of one namespace.
#[derive(Clone)]
pub struct ServiceCaches {
    pub services: Store<Service>,
    pub slices: Store<EndpointSlice>,
    pub pods: Store<WatchedPod>,
}

impl ServiceCaches {
    /// Returns whether all of them were filled once.
    pub fn are_filled(&self) -> bool {
        self.wait_until_filled().now_or_never().is_some()
    }

    async fn wait_until_filled(&self) {
        wait_until_filled(&self.services).await;
        wait_until_filled(&self.slices).await;
        wait_until_filled(&self.pods).await;
    }

    fn addresses(
        &self,
        namespace: &str,
        wanted: &ServicePort,
        datastores: &BTreeSet<IpAddr>,
    ) -> EndpointAddresses {
        let service = self.services.get(&ObjectRef::new(&wanted.name).within(namespace));
        let pod = |name: &str| self.pods.get(&ObjectRef::new(name).within(namespace));
        judge(service.as_deref(), wanted.port, &self.slices_of(&wanted.name), pod, datastores)
    }

    fn slices_of(&self, service: &str) -> Vec<Arc<EndpointSlice>> {
        let is_its =
            |slice: &EndpointSlice| slice.labels().get(SERVICE_NAME).is_some_and(|name| name == service);
        self.slices.state_filter(is_its)
    }

    /// Adds the pods behind the Services that have one of these addresses.
    fn with_pods_behind(&self, mut addresses: BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
        let leads_there = |service: &Service| has_address_among(service, &addresses);
        let names: Vec<String> =
            self.services.state_filter(leads_there).iter().map(|service| service.name_any()).collect();
        for slice in names.iter().flat_map(|name| self.slices_of(name)) {
            let listed = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
            addresses.extend(listed.filter_map(|address| address.parse::<IpAddr>().ok()));
        }
        addresses
    }
}

/// The caches of every namespace that needs them, and the places that no Service may lead to.
pub struct Services {
    /// The namespace of the platform.
    platform: String,
    pub datastores: Datastores,
    namespaces: Mutex<HashMap<String, ServiceCaches>>,
    /// Notified when one of them changed, or when another namespace needs some.
    pub changed: Notify,
}

impl Services {
    pub fn new(platform: &str, datastores: Datastores) -> Self {
        Self {
            platform: platform.to_owned(),
            datastores,
            namespaces: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Returns the caches of a namespace, which may not be filled yet.
    pub fn get(&self, namespace: &str) -> Option<ServiceCaches> {
        self.lock().get(namespace).cloned()
    }

    pub fn insert(&self, namespace: &str, caches: ServiceCaches) {
        self.lock().insert(namespace.to_owned(), caches);
    }

    pub fn remove(&self, namespace: &str) {
        self.lock().remove(namespace);
    }

    /// Returns the caches of a namespace once they are filled; `None` if that takes long.
    pub async fn filled(&self, namespace: &str) -> Option<ServiceCaches> {
        let filled = async {
            if self.get(namespace).is_none() {
                self.changed.notify_one();
            }
            let caches = loop {
                match self.get(namespace) {
                    Some(caches) => break caches,
                    None => sleep(FILL_POLL).await,
                }
            };
            caches.wait_until_filled().await;
            caches
        };
        timeout(FILL_DEADLINE, filled).await.ok()
    }

    /// Resolves Services of one namespace. Those beside the platform itself are its datastores, so none of them is used.
    pub fn resolve<'a>(
        &self,
        caches: &ServiceCaches,
        namespace: &str,
        services: impl IntoIterator<Item = &'a ServicePort>,
    ) -> ResolvedServices {
        let datastores = caches.with_pods_behind(self.datastores.addresses());
        let mut resolved = ResolvedServices::default();
        for service in services {
            let found = if namespace == self.platform {
                let message = "is in the namespace of the platform, whose Services are not delivered to";
                Err(ServiceProblem::new(reason::SERVICE_NOT_ALLOWED, message))
            } else {
                caches.addresses(namespace, service, &datastores)
            };
            let addresses = found.unwrap_or_else(|problem| {
                let message = format!("the Service {namespace}/{} {}", service.name, problem.message);
                resolved.problem.get_or_insert(ServiceProblem::new(problem.reason, message));
                Vec::new()
            });
            resolved.endpoints.set(service.clone(), addresses);
        }
        resolved
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, ServiceCaches>> {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The Services of an Integration, as far as they can be delivered to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvedServices {
    pub endpoints: ServiceEndpoints,
    /// Of the first Service without addresses.
    pub problem: Option<ServiceProblem>,
}

/// Returns the Services that an Integration delivers to.
pub fn services_of(integration: &Integration) -> Vec<ServicePort> {
    let destinations = integration.spec.destinations.iter();
    destinations.filter_map(|destination| destination.service.as_ref().map(ServicePort::from)).collect()
}
