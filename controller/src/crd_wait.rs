//! Checks whether the API server knows the custom resources: at the start by waiting for them, since charts are installed in any
//! order, and regularly afterwards, since that of Integrations may be removed.

use std::time::Duration;

use grapnel_core::error_chain::chain;
use grapnel_crds::{Integration, Replay};
use kube::Client;
use kube::api::{Api, ListParams};
use tokio::time::{sleep, timeout};

use crate::api::Kind;
use crate::context::API_DEADLINE;
use crate::metrics;
use crate::namespaces::WatchedNamespaces;

const POLL: Duration = Duration::from_secs(1);

/// Integrations do not wait for the resource of Replays, which a release that is only half upgraded does not have.
const REPLAY_POLL: Duration = Duration::from_secs(10);

/// Why objects cannot be listed.
enum ListFailure {
    NotInstalled,
    Other(String),
}

/// Waits until Integrations can be listed.
pub async fn wait_for_crd(client: &Client, watched: &WatchedNamespaces) {
    wait(POLL, || list_integrations(client, watched)).await;
}

/// Waits until Replays can be listed.
pub async fn wait_for_replays(client: &Client, watched: &WatchedNamespaces) {
    wait(REPLAY_POLL, || list::<Replay>(client, watched)).await;
}

/// Tries until it succeeds, and logs each reason why it does not once.
async fn wait<F>(poll: Duration, list: impl Fn() -> F)
where
    F: Future<Output = Result<(), (String, ListFailure)>>,
{
    let mut logged = String::new();
    while let Err((resource, failure)) = list().await {
        let reason = match failure {
            ListFailure::NotInstalled => {
                format!("the custom resource {resource} is not installed (chart grapnel-crds)")
            }
            ListFailure::Other(reason) => reason,
        };
        if reason != logged {
            tracing::warn!("waiting: {reason}");
            logged = reason;
        }
        sleep(poll).await;
    }
}

/// Logs when the resource is removed and when it is installed again. `was_installed` is what was logged last.
pub async fn log_changes(client: &Client, watched: &WatchedNamespaces, was_installed: &mut bool) {
    let is_installed = match list_integrations(client, watched).await {
        Ok(()) => true,
        Err((_, ListFailure::NotInstalled)) => false,
        // Unknown. The watch reports an API server that does not answer.
        Err((_, ListFailure::Other(_))) => return,
    };
    if std::mem::replace(was_installed, is_installed) != is_installed {
        if is_installed {
            tracing::info!("the custom resource integrations.grapnel.dev is installed again");
        } else {
            tracing::error!(
                "the custom resource integrations.grapnel.dev was removed, and with it every Integration"
            );
        }
    }
}

async fn list_integrations(
    client: &Client,
    watched: &WatchedNamespaces,
) -> Result<(), (String, ListFailure)> {
    let listed = list::<Integration>(client, watched).await;
    match &listed {
        Ok(()) => metrics::crd_missing(false),
        Err((_, ListFailure::NotInstalled)) => metrics::crd_missing(true),
        Err((_, ListFailure::Other(_))) => {}
    }
    listed
}

/// Lists one object, or returns the name of the resource and why not.
async fn list<K: Kind>(client: &Client, watched: &WatchedNamespaces) -> Result<(), (String, ListFailure)> {
    let api: Api<K> = watched.first_api(client);
    let failure = match timeout(API_DEADLINE, api.list_metadata(&ListParams::default().limit(1))).await {
        Ok(Ok(_)) => return Ok(()),
        // By the code: for a group that it does not know the API server answers with a text that has no reason.
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => ListFailure::NotInstalled,
        Ok(Err(error)) => ListFailure::Other(format!("cannot list {}s: {}", K::kind(&()), chain(&error))),
        Err(_) => ListFailure::Other("the API server did not answer in time".to_owned()),
    };
    Err((format!("{}.{}", K::plural(&()), K::group(&())), failure))
}
