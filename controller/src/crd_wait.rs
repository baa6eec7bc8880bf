//! Checks whether the API server knows the Integration resource: at the start by waiting for it, since charts are
//! installed in any order, and regularly afterwards, since it may be removed.

use std::time::Duration;

use grapnel_core::error_chain::chain;
use grapnel_crds::Integration;
use kube::Client;
use kube::api::{Api, ListParams};
use tokio::time::{sleep, timeout};

use crate::context::API_DEADLINE;
use crate::metrics;
use crate::namespaces::WatchedNamespaces;

const POLL: Duration = Duration::from_secs(1);

/// Why Integrations cannot be listed.
enum ListFailure {
    NotInstalled,
    Other(String),
}

/// Waits until Integrations can be listed.
pub async fn wait_for_crd(client: &Client, watched: &WatchedNamespaces) {
    let mut logged = String::new();
    while let Err(failure) = list(client, watched).await {
        let reason = match failure {
            ListFailure::NotInstalled => {
                "the custom resource integrations.grapnel.dev is not installed (chart grapnel-crds)"
                    .to_owned()
            }
            ListFailure::Other(reason) => reason,
        };
        if reason != logged {
            tracing::warn!("waiting: {reason}");
            logged = reason;
        }
        sleep(POLL).await;
    }
}

/// Logs when the resource is removed and when it is installed again. `was_installed` is what was logged last.
pub async fn log_changes(client: &Client, watched: &WatchedNamespaces, was_installed: &mut bool) {
    let is_installed = match list(client, watched).await {
        Ok(()) => true,
        Err(ListFailure::NotInstalled) => false,
        // Unknown. The watch reports an API server that does not answer.
        Err(ListFailure::Other(_)) => return,
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

async fn list(client: &Client, watched: &WatchedNamespaces) -> Result<(), ListFailure> {
    let api: Api<Integration> = watched.first_api(client);
    let listed = match timeout(API_DEADLINE, api.list_metadata(&ListParams::default().limit(1))).await {
        Ok(Ok(_)) => Ok(()),
        // By the code: for a group that it does not know the API server answers with a text that has no reason.
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(ListFailure::NotInstalled),
        Ok(Err(error)) => Err(ListFailure::Other(format!("cannot list Integrations: {}", chain(&error)))),
        Err(_) => Err(ListFailure::Other("the API server did not answer in time".to_owned())),
    };
    match &listed {
        Ok(()) => metrics::crd_missing(false),
        Err(ListFailure::NotInstalled) => metrics::crd_missing(true),
        Err(ListFailure::Other(_)) => {}
    }
    listed
}
