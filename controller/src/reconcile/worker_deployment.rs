//! Builds the worker Deployment of an Integration: a function of the object and the platform's configuration.
//!
//! Invariants: the pods comply with the restricted Pod Security Standard and have no token for the API server;
//! the image, the credentials and the account are the platform's; an Integration sets only what the platform's
//! [`crate::worker_policy`] permits; `spec.replicas` is not set here, because another step
//! owns it; and the same object gives the same Deployment.

use std::collections::BTreeMap;
use std::time::Duration;

use grapnel_crds::{
    Integration, Resources, TolerationEffect, TolerationOperator, Workers, exceeds_quantity, names,
};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, HTTPGetAction, PodSecurityContext, PodSpec,
    PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecurityContext, Toleration,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use kube::api::ObjectMeta;

use crate::config::WorkerPod;
use crate::object::integration_id;

/// The name of the container.
const CONTAINER: &str = "worker";

/// The name and number of a worker's operations port.
const OPS_PORT: (&str, i32) = ("ops", 9090);

/// The time that a worker needs to stop after the longest request that may be in flight.
const GRACE: Duration = Duration::from_secs(15);

/// The part of the pod's grace period in which the kubelet notices that the process has ended.
const GRACE_MARGIN: Duration = Duration::from_secs(5);

/// The user that the image is built for.
const USER: i64 = 65_532;

/// Builds the Deployment, in the platform's namespace.
pub fn worker_deployment(integration: &Integration, namespace: &str, pod: &WorkerPod) -> Deployment {
    let id = integration_id(integration);
    let labels = names::worker_labels(id, &integration.namespace_or_default());
    let annotations =
        BTreeMap::from([(names::INTEGRATION_NAME_ANNOTATION.to_owned(), integration.name_any())]);
    let workers = pod.permitted.permit(&integration.spec.workers).workers;
    let mut pod_labels = workers.pod_labels.clone();
    pod_labels.extend(labels.clone());
    let mut pod_annotations = workers.pod_annotations.clone();
    pod_annotations.extend(annotations.clone());
    Deployment {
        metadata: ObjectMeta {
            name: Some(names::worker_deployment(id)),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: Some(DeploymentSpec {
            selector: LabelSelector {
                match_labels: Some(names::worker_selector(id)),
                ..LabelSelector::default()
            },
            revision_history_limit: Some(2),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::String("25%".to_owned())),
                    // Waiting for a new worker causes a delay; too few workers would cause a longer one.
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(pod_labels),
                    annotations: Some(pod_annotations),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod_spec(integration, &workers, pod)),
            },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

/// `workers` is what the platform permits of the Integration's.
fn pod_spec(integration: &Integration, workers: &Workers, pod: &WorkerPod) -> PodSpec {
    let grace = grace_period(integration);
    let user = pod.run_as_user.unwrap_or(USER);
    let mut tolerations = pod.tolerations.clone();
    tolerations.extend(workers.tolerations.iter().map(toleration));
    // The platform's keys stay: an Integration narrows where its workers run.
    let mut node_selector = workers.node_selector.clone();
    node_selector.extend(pod.node_selector.clone());
    PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        service_account_name: pod.service_account_name.clone(),
        image_pull_secrets: some_if_any(&pod.image_pull_secrets),
        priority_class_name: workers.priority_class_name.clone().or_else(|| pod.priority_class_name.clone()),
        node_selector: (!node_selector.is_empty()).then_some(node_selector),
        tolerations: some_if_any(&tolerations),
        termination_grace_period_seconds: i64::try_from(grace.as_secs()).ok(),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(user),
            run_as_group: Some(user),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        volumes: some_if_any(&pod.volumes),
        containers: vec![Container {
            name: CONTAINER.to_owned(),
            image: Some(pod.image.clone()),
            image_pull_policy: pod.image_pull_policy.clone(),
            args: Some(vec!["worker".to_owned()]),
            env: Some(env(integration, pod, grace)),
            env_from: some_if_any(&pod.env_from),
            ports: Some(vec![ContainerPort {
                name: Some(OPS_PORT.0.to_owned()),
                container_port: OPS_PORT.1,
                protocol: Some("TCP".to_owned()),
                ..ContainerPort::default()
            }]),
            resources: resources(&workers.resources, pod.resources.as_ref()),
            liveness_probe: Some(probe("/livez", 10, 6)),
            readiness_probe: Some(probe("/readyz", 5, 2)),
            security_context: Some(SecurityContext {
                allow_privilege_escalation: Some(false),
                read_only_root_filesystem: Some(true),
                run_as_non_root: Some(true),
                capabilities: Some(Capabilities {
                    drop: Some(vec!["ALL".to_owned()]),
                    ..Capabilities::default()
                }),
                ..SecurityContext::default()
            }),
            volume_mounts: some_if_any(&pod.volume_mounts),
            ..Container::default()
        }],
        ..PodSpec::default()
    }
}

/// A request in flight may take its full timeout, and its result must be recorded after that.
fn grace_period(integration: &Integration) -> Duration {
    let longest = integration.spec.destinations.iter().map(|destination| destination.timeout()).max();
    longest.unwrap_or_default() + GRACE
}

/// The platform's variables and those that bind the worker to this Integration. The latter cannot be overridden.
fn env(integration: &Integration, pod: &WorkerPod, grace: Duration) -> Vec<EnvVar> {
    let own = [
        ("GRAPNEL_INTEGRATION", integration_id(integration).to_string()),
        ("GRAPNEL_OPS_ADDR", format!("0.0.0.0:{}", OPS_PORT.1)),
        ("GRAPNEL_SHUTDOWN_SECONDS", grace.saturating_sub(GRACE_MARGIN).as_secs().to_string()),
    ];
    let is_own = |variable: &&EnvVar| own.iter().any(|(name, _)| *name == variable.name);
    let given = pod.env.iter().filter(|variable| !is_own(variable)).cloned();
    let own = own.iter().map(|(name, value)| EnvVar {
        name: (*name).to_owned(),
        value: Some(value.clone()),
        ..EnvVar::default()
    });
    given.chain(own).collect()
}

/// Returns the Integration's quantities where it has them, and the platform's elsewhere: leaving out a limit does not
/// remove it. A default gives way where it would contradict the Integration's own request or limit.
fn resources(own: &Resources, default: Option<&ResourceRequirements>) -> Option<ResourceRequirements> {
    let merged = |own: &Option<BTreeMap<String, String>>, default: &Option<BTreeMap<String, Quantity>>| {
        let mut merged = default.clone().unwrap_or_default();
        let own = own.iter().flatten();
        merged.extend(own.map(|(name, value)| (name.clone(), Quantity(value.clone()))));
        merged
    };
    let default = default.cloned().unwrap_or_default();
    let mut requests = merged(&own.requests, &default.requests);
    let mut limits = merged(&own.limits, &default.limits);
    for (name, request) in &mut requests {
        let Some(limit) = limits.get_mut(name).filter(|limit| exceeds_quantity(&request.0, &limit.0)) else {
            continue;
        };
        if own.requests.as_ref().is_some_and(|own| own.contains_key(name)) {
            limit.clone_from(request);
        } else {
            request.clone_from(limit);
        }
    }
    let requirements = ResourceRequirements {
        requests: (!requests.is_empty()).then_some(requests),
        limits: (!limits.is_empty()).then_some(limits),
        ..ResourceRequirements::default()
    };
    (requirements != ResourceRequirements::default()).then_some(requirements)
}

fn toleration(own: &grapnel_crds::Toleration) -> Toleration {
    let operator = match own.operator {
        TolerationOperator::Equal => "Equal",
        TolerationOperator::Exists => "Exists",
    };
    let effect = own.effect.map(|effect| match effect {
        TolerationEffect::NoSchedule => "NoSchedule",
        TolerationEffect::PreferNoSchedule => "PreferNoSchedule",
        TolerationEffect::NoExecute => "NoExecute",
    });
    Toleration {
        key: own.key.clone(),
        operator: Some(operator.to_owned()),
        value: own.value.clone(),
        effect: effect.map(str::to_owned),
        toleration_seconds: own.toleration_seconds.map(i64::from),
    }
}

fn probe(path: &str, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(OPS_PORT.0.to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(3),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn some_if_any<T: Clone>(items: &[T]) -> Option<Vec<T>> {
    (!items.is_empty()).then(|| items.to_vec())
}

#[cfg(test)]
mod tests;
