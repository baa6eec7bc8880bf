//! The routes of the management port, and a request for each.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::Management;
use super::answer::Answer;
use super::tenant::Tenant;
use crate::harness::process::Process;

/// A route as the port describes it.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) resource: String,
    pub(crate) verb: String,
    pub(crate) scope: String,
    pub(crate) shows_payloads: bool,
}

impl Management {
    /// Returns the routes that take a credential, from the port's own description.
    pub(crate) async fn routes(&self, port: &Process) -> Vec<Route> {
        let url = format!("http://127.0.0.1:{}/openapi.json", port.port);
        let document = Answer::of(self.installation.http.get(url)).await.json();
        let mut routes = Vec::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("operations") {
                if operation["security"].is_null() {
                    continue;
                }
                let access = &operation["x-grapnel-access"];
                let text =
                    |member: &str| access[member].as_str().expect("a decision for every route").to_owned();
                routes.push(Route {
                    method: method.clone(),
                    path: path.clone(),
                    resource: text("resource"),
                    verb: text("verb"),
                    scope: text("scope"),
                    shows_payloads: access["showsPayloads"] == true,
                });
            }
        }
        routes
    }

    /// Asks a route with a token. One that is about one thing is asked about the tenant's.
    pub(crate) async fn ask(&self, port: u16, route: &Route, tenant: Option<&Tenant>, token: &str) -> Answer {
        let id = tenant.map_or("", |tenant| match route.scope.as_str() {
            "integration" => &tenant.integration,
            "route" => &tenant.route,
            "replayRequest" => &tenant.replay,
            "replay" => &tenant.job,
            "body" => &tenant.integration,
            _ => &tenant.event,
        });
        self.ask_for(port, route, id, token).await
    }

    pub(crate) async fn ask_for(&self, port: u16, route: &Route, id: &str, token: &str) -> Answer {
        let mut url = format!("http://127.0.0.1:{port}{}", route.path.replace("{id}", id));
        if route.scope == "route" {
            url = format!("{url}?route={id}");
        }
        // All that other roles have left is on one page.
        if route.scope == "list" && !route.path.ends_with("/stream/events") {
            url.push_str("?pageSize=100");
        }
        let request = match route.method.as_str() {
            "get" => self.installation.http.get(url),
            "post" if route.path.ends_with("/test-events") => {
                self.installation.http.post(url).json(&json!({"eventType": "test"}))
            }
            "post" if route.scope == "body" => self.installation.http.post(url).json(&json!({
                "integration": id, "select": "Failed", "receivedAfter": "2026-01-01T00:00:00Z", "reason": "because", "dryRun": true,
            })),
            "post" if route.scope == "replay" => self.installation.http.post(url),
            "post" => self.installation.http.post(url).json(&json!({"reason": "because"})),
            "patch" => self.installation.http.patch(url).json(&json!({"ratePerSecond": 10})),
            "delete" => self.installation.http.delete(url),
            other => panic!("give the test a request for {other}"),
        };
        // A stream goes on from five minutes ago, when nothing had been seen.
        let since = (Timestamp::now() - SignedDuration::from_mins(5)).as_millisecond();
        let request = request.header("last-event-id", format!("{since}-3:3:"));
        Answer::of_patient(request.bearer_auth(token)).await
    }
}
