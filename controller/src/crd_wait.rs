//! Whether the API server knows the Integration resource: waited for at the start, since charts are installed in any
//! order, and looked at now and then afterwards, since it may be removed.

use std::time::Duration;

use grapnel_crds::Integration;
use kube::Client;
use kube::api::{Api, ListParams};
use tokio::time::{sleep, timeout};

use crate::context::API_DEADLINE;
use crate::metrics;
use crate::watch::namespaces::Namespaces;

const POLL: Duration = Duration::from_secs(1);

/// Why Integrations cannot be listed.
enum Problem {
    Missing,
    Other(String),
}

/// Answers when Integrations can be listed.
pub async fn wait_for_crd(client: &Client, watched: &Namespaces) {
    let mut told = String::new();
    while let Err(problem) = look(client, watched).await {
        let problem = match problem {
            Problem::Missing => {
                "the custom resource integrations.grapnel.dev is not installed (chart grapnel-crds)"
                    .to_owned()
            }
            Problem::Other(problem) => problem,
        };
        if problem != told {
            tracing::warn!("waiting: {problem}");
            told = problem;
        }
        sleep(POLL).await;
    }
}

/// Tells when the resource went and when it is back. `was_there` is what was told last.
pub async fn tell_changes(client: &Client, watched: &Namespaces, was_there: &mut bool) {
    let is_there = match look(client, watched).await {
        Ok(()) => true,
        Err(Problem::Missing) => false,
        // Not known; the watch tells of an API server that does not answer.
        Err(Problem::Other(_)) => return,
    };
    if std::mem::replace(was_there, is_there) != is_there {
        if is_there {
            tracing::info!("the custom resource integrations.grapnel.dev is installed again");
        } else {
            tracing::error!(
                "the custom resource integrations.grapnel.dev was removed, and with it every Integration"
            );
        }
    }
}

async fn look(client: &Client, watched: &Namespaces) -> Result<(), Problem> {
    let api: Api<Integration> = watched.first_api(client);
    let found = match timeout(API_DEADLINE, api.list_metadata(&ListParams::default().limit(1))).await {
        Ok(Ok(_)) => Ok(()),
        // By the code: of a group that it does not know the API server says so in a text without a reason.
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(Problem::Missing),
        Ok(Err(error)) => {
            let cause = grapnel::telemetry::chain(&error);
            Err(Problem::Other(format!("Integrations cannot be listed: {cause}")))
        }
        Err(_) => Err(Problem::Other("the API server did not answer in time".to_owned())),
    };
    match &found {
        Ok(()) => metrics::crd_missing(false),
        Err(Problem::Missing) => metrics::crd_missing(true),
        Err(Problem::Other(_)) => {}
    }
    found
}
