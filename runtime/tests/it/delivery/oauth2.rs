//! Deliveries that a token of a real authorization server opens: Authlib, of which the server in `oauth2_server.py` consists.

use grapnel_testing::{acme_event, wait_until};
use serde_json::Value;

use super::super::harness::{Platform, acme_integration};
use super::sending::Server;
use super::{attempts, destination_with, wait_until_finished};

const BASIC: &str = "client_secret_basic";
const POST: &str = "client_secret_post";
const CLIENT_SECRET: &str = "client-secret-90aa";

/// The time for which a token opens the receiver, in seconds.
const LONG: u32 = 3_600;
const SHORT: u32 = 10;

/// Starts the server, which is the receiver too.
async fn server(lifetime: u32) -> Server {
    Server::start("/usr/bin/python3", &["-B"], |_, port| {
        format!("PORT, LIFETIME = {port}, {lifetime}\n{}", include_str!("oauth2_server.py"))
    })
    .await
}

/// Returns a destination whose requests a client authenticates in this way.
fn destination(name: &str, server: &Server, client: &str, authentication: &str) -> String {
    let url = format!("http://127.0.0.1:{}", server.port);
    let auth = format!(
        "auth: {{oauth2: {{tokenUrl: '{url}/token', clientIdRef: {{name: out, key: {client}}},
         clientSecretRef: {{name: out, key: secret}}, clientAuthentication: {authentication}, scopes: [orders.write]}}}},"
    );
    destination_with(name, &format!("{url}/hooks"), "{maxAttempts: 1}", &auth)
}

fn integration(destinations: &[String]) -> String {
    format!(
        "{}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: out, namespace: test, labels: {{grapnel.dev/destination: 'true'}}}}\n\
         stringData: {{{BASIC}: {BASIC}, {POST}: {POST}, secret: {CLIENT_SECRET}}}\n",
        acme_integration(destinations)
    )
}

/// Returns the requests that came to the receiver: the token and the status of each.
async fn requests(platform: &Platform, server: &Server) -> Vec<(String, u64)> {
    let url = format!("http://127.0.0.1:{}/requests", server.port);
    let answer = platform.http.get(url).send().await.expect("an answer");
    let requests: Vec<Value> = answer.json().await.expect("JSON");
    let token = |request: &Value| request["token"].as_str().expect("a token").to_owned();
    requests.iter().map(|request| (token(request), request["status"].as_u64().expect("a status"))).collect()
}

#[tokio::test]
async fn a_client_authenticates_as_its_server_demands() {
    let (platform, server) = (Platform::new().await, server(LONG).await);
    let destinations = [
        destination("basic", &server, BASIC, "basic"),
        destination("post", &server, POST, "post"),
        destination("other", &server, POST, "basic"),
    ];
    let running = platform.start_api_and_worker(&integration(&destinations)).await;
    for number in 0..5 {
        platform.post_acme(&acme_event(&format!("e-{number}"))).await;
    }
    wait_until_finished(&platform, 10).await;
    for name in ["basic", "post"] {
        let made = attempts(&platform, name).await;
        assert!(made.len() == 5 && made.iter().all(|made| *made == (1, Some(200), None)), "{name}: {made:?}");
    }
    let requests = requests(&platform, &server).await;
    assert!(requests.iter().all(|(_, status)| *status == 200), "{requests:?}");
    let mut tokens: Vec<_> = requests.iter().map(|(token, _)| token).collect();
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 2, "one for each destination");
    let refused = "SELECT count(*) FROM deliveries WHERE destination = 'other' AND finished_at IS NULL
        AND last_error = 'the token endpoint cannot be used: it answered 401 (invalid_client)'";
    platform.wait_for_count(refused, 5).await;
    assert!(attempts(&platform, "other").await.is_empty(), "the receiver was not called");
    for process in [&running.0, &running.1] {
        assert!(
            !process.log().contains(CLIENT_SECRET)
                && !tokens.iter().any(|token| process.log().contains(*token))
        );
    }
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    let (platform, server) = (Platform::new().await, server(SHORT).await);
    let _running =
        platform.start_api_and_worker(&integration(&[destination("orders", &server, BASIC, "basic")])).await;
    let mut posted = 0;
    wait_until("a second token", async || {
        posted += 1;
        platform.post_acme(&acme_event(&format!("e-{posted}"))).await;
        wait_until_finished(&platform, posted).await;
        let mut tokens: Vec<_> =
            requests(&platform, &server).await.into_iter().map(|(token, _)| token).collect();
        tokens.dedup();
        tokens.len() >= 2
    })
    .await;
    let requests = requests(&platform, &server).await;
    assert!(
        requests.len() as i64 == posted && requests.iter().all(|(_, status)| *status == 200),
        "{requests:?}"
    );
}

#[tokio::test]
async fn a_token_that_was_revoked_is_replaced_within_the_attempt() {
    let (platform, server) = (Platform::new().await, server(LONG).await);
    let _running =
        platform.start_api_and_worker(&integration(&[destination("orders", &server, POST, "post")])).await;
    platform.post_acme(&acme_event("e-1")).await;
    wait_until_finished(&platform, 1).await;
    let (first, _) = requests(&platform, &server).await.remove(0);
    let revocation = platform.http.post(format!("http://127.0.0.1:{}/revoke", server.port));
    let revocation = revocation
        .basic_auth(POST, Some(CLIENT_SECRET))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("token={first}"));
    assert_eq!(revocation.send().await.expect("an answer").status(), 200);

    platform.post_acme(&acme_event("e-2")).await;
    wait_until_finished(&platform, 2).await;
    let failed = "SELECT count(*) FROM deliveries WHERE status <> 'succeeded'";
    assert_eq!(platform.count(failed).await, 0);
    assert_eq!(attempts(&platform, "orders").await, [(1, Some(200), None), (1, Some(200), None)]);
    let requests = requests(&platform, &server).await;
    let [_, refused, taken] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!((refused, taken.1), (&(first.clone(), 401), 200));
    assert_ne!(taken.0, first);
}
