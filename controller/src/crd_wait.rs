//! Waits until the API server knows the Integration resource, instead of failing over and over: charts are installed in
//! any order.

use std::time::Duration;

use grapnel_crds::Integration;
use kube::Client;
use kube::api::{Api, ListParams};
use tokio::time::{sleep, timeout};

use crate::context::API_DEADLINE;
use crate::metrics;
use crate::watch::namespaces::Namespaces;

const POLL: Duration = Duration::from_secs(1);

/// Answers when Integrations can be listed.
pub async fn wait_for_crd(client: &Client, watched: &Namespaces) {
    let api: Api<Integration> = watched.first_api(client);
    let mut told = String::new();
    loop {
        let problem = match timeout(API_DEADLINE, api.list_metadata(&ListParams::default().limit(1))).await {
            Ok(Ok(_)) => break,
            // By the code: of a group that it does not know the API server says so in a text without a reason.
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                metrics::crd_missing(true);
                "the custom resource integrations.grapnel.dev is not installed (chart grapnel-crds)"
                    .to_owned()
            }
            Ok(Err(error)) => format!("Integrations cannot be listed: {}", grapnel::telemetry::chain(&error)),
            Err(_) => "the API server did not answer in time".to_owned(),
        };
        if problem != told {
            tracing::warn!("waiting: {problem}");
            told = problem;
        }
        sleep(POLL).await;
    }
    metrics::crd_missing(false);
}
