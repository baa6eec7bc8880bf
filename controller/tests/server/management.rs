//! Who sees and may do what on the management port: every route with every role in every namespace, against a real API server.
//!
//! The routes are those that the port itself describes, each with the right that it needs, so a new one is tested without a
//! change here.

mod harness;
mod console;

use std::time::Instant;

use grapnel_testing::{ACME_SECRET, FaultProxy, MANAGEMENT_KEY, free_port, unique_name, wait_until};
use serde_json::{Value, json};

use self::harness::{Management, Role, Route, VIEW_RULES};
use crate::harness::process::counter;
use crate::harness::{Installation, access, acme_spec, variable};

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_every_role_by_its_rights() {
    let management = Management::new().await;
    let port = management.start(&[]).await;
    let routes = management.routes(&port).await;
    assert!(routes.len() >= 10, "{routes:?}");
    for role in Role::all(&management) {
        let token = management.account(&role).await;
        for route in &routes {
            check(&management, port.port, &role, &token, route).await;
        }
    }
}

/// Checks one route with one role, in each namespace if the route is about one thing.
async fn check(management: &Management, port: u16, role: &Role, token: &str, route: &Route) {
    let may = |resource: &str, verb: &str, namespace: &str| role.may(resource, verb, namespace);
    let context = format!("{} {} as {}", route.method, route.path, role.name);
    if route.scope == "list" {
        let answer = management.ask(port, route, None, token).await;
        let visible: Vec<_> = management
            .tenants
            .iter()
            .filter(|tenant| may(&route.resource, &route.verb, &tenant.namespace))
            .collect();
        let status = if visible.is_empty() { 403 } else { 200 };
        assert_eq!(answer.status, status, "{context}: {}", answer.text);
        for tenant in &management.tenants {
            let is_visible = visible.iter().any(|seen| seen.namespace == tenant.namespace);
            assert_eq!(answer.names(tenant), is_visible, "{context}, {}: {}", tenant.namespace, answer.text);
            let shows =
                is_visible && route.shows_payloads && may("integrations/payloads", "get", &tenant.namespace);
            assert_eq!(
                answer.shows_payload_of(tenant),
                shows,
                "{context}, {}: {}",
                tenant.namespace,
                answer.text
            );
        }
        return;
    }
    for tenant in &management.tenants {
        // What is deleted is missed by no other role.
        let target = match (route.scope.as_str(), route.method.as_str()) {
            (_, "delete") | ("replay", "post") => {
                &management.add_integration(&tenant.namespace, &unique_name("short-lived")).await
            }
            _ => tenant,
        };
        let answer = management.ask(port, route, Some(target), token).await;
        let getting = match route.scope.as_str() {
            "integration" => "integrations",
            "replayRequest" | "replay" | "body" => "integrations/replays",
            _ => "integrations/events",
        };
        let allowed = may(&route.resource, &route.verb, &tenant.namespace);
        let expected = match (allowed, route.method.as_str()) {
            (true, "post") if ["event", "integration"].contains(&route.scope.as_str()) => 202,
            (true, _) => 200,
            (false, _) if may(getting, "get", &tenant.namespace) => 403,
            (false, _) => 404,
        };
        assert_eq!(answer.status, expected, "{context}, {}: {}", tenant.namespace, answer.text);
        // What a replay would deliver is named by its ids.
        let shows_payloads = route.shows_payloads && route.scope != "body";
        let shows = allowed && shows_payloads && may("integrations/payloads", "get", &tenant.namespace);
        assert_eq!(
            answer.shows_payload_of(tenant),
            shows,
            "{context}, {}: {}",
            tenant.namespace,
            answer.text
        );
        if answer.status == 404 {
            let unknown = management.ask_for(port, route, &uuid::Uuid::now_v7().to_string(), token).await;
            assert_eq!(
                answer.error(),
                unknown.error(),
                "{context}: what is hidden looks like what is not there"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_for_grapnel_or_for_the_api_server() {
    let management = Management::new().await;
    let port = management.start(&[]).await;
    let role = Role::in_namespace("viewer", &management.tenants[0].namespace, VIEW_RULES);
    management.account(&role).await;
    for (audience, status) in [(Some("grapnel"), 200), (None, 200), (Some("another"), 401)] {
        let token = management.token(&role, audience).await;
        let answer = management.get(port.port, "events", Some(&token)).await;
        assert_eq!(answer.status, status, "{audience:?}: {}", answer.text);
    }
    let answer = management.get(port.port, "events", None).await;
    assert_eq!((answer.status, answer.error()["code"].as_str()), (401, Some("UNAUTHORIZED")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_by_name_is_for_that_integration() {
    let management = Management::new().await;
    let port = management.start(&[]).await;
    let tenant = &management.tenants[0];
    let rules = r#"[{apiGroups: [grapnel.dev], resources: [integrations/events], resourceNames: [acme], verbs: [get]}]"#;
    let role = Role::in_namespace("reader-of-acme", &tenant.namespace, rules);
    let token = management.account_for(&role, "acme").await;
    assert_eq!(
        management.get(port.port, &format!("events/{}/status", tenant.event), Some(&token)).await.status,
        200
    );
    let other = management.add_integration(&tenant.namespace, "other").await;
    assert_eq!(
        management.get(port.port, &format!("events/{}/status", other.event), Some(&token)).await.status,
        404
    );
    assert_eq!(management.get(port.port, "events", Some(&token)).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_authenticated_is_the_actor_and_denials_are_audited() {
    let management = Management::new().await;
    let port = management.start(&[]).await;
    let tenant = &management.tenants[0];
    let rules = [VIEW_RULES, harness::EDIT_RULES].concat();
    let (editor, viewer) = (
        Role::in_namespace("editor", &tenant.namespace, &rules),
        Role::in_namespace("viewer", &tenant.namespace, VIEW_RULES),
    );
    let (editor_token, viewer_token) = (management.account(&editor).await, management.account(&viewer).await);
    let path = format!("events/{}/replay", tenant.event);
    let body = json!({"reason": "because", "requestedBy": "somebody else"});
    let answer = management.post(port.port, &path, &body, &editor_token).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let replay = answer.json()["data"]["replayRequestId"].as_str().expect("an id").to_owned();
    assert_eq!(management.post(port.port, &path, &body, &viewer_token).await.status, 403);
    assert_eq!(management.post(port.port, &path, &body, &viewer_token).await.status, 403);

    let entries = management.entries(port.port, &replay, "replay.requested").await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["actor"], format!("user:{}", management.user(&editor)));
    assert_eq!(entries[0]["details"]["requestedBy"], "somebody else");
    assert_eq!(entries[0]["details"]["sourceAddress"], "127.0.0.1");
    assert!(entries[0]["details"]["groups"].as_u64().is_some_and(|groups| groups > 0), "{}", entries[0]);

    let denials = management.entries(port.port, &tenant.integration, "access.denied").await;
    assert_eq!(denials.len(), 1, "{denials:?}");
    assert_eq!(denials[0]["actor"], format!("user:{}", management.user(&viewer)));
    assert_eq!(denials[0]["details"]["resource"], "integrations/replays");
    assert_eq!(denials[0]["details"]["verb"], "create");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_server_only_what_was_allowed_and_the_key_work() {
    let management = Management::new().await;
    let server = management.server_url();
    let proxy = FaultProxy::new(&server).await;
    let port = management.start_behind(&proxy.url(&server)).await;
    let (first, second) = (management.tenants[0].clone(), management.tenants[1].clone());
    let role = Role::in_namespace("viewer", &first.namespace, VIEW_RULES);
    let token = management.account(&role).await;
    let status = |id: &str| format!("events/{id}/status");
    let known = ["events".to_owned(), status(&first.event)];
    for path in &known {
        assert_eq!(management.get(port.port, path, Some(&token)).await.status, 200);
    }
    let stranger = management.token(&role, Some("grapnel")).await;

    proxy.close();
    for path in &known {
        let answer = management.get(port.port, path, Some(&token)).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    }
    // What was never asked is not decided, and no refusal.
    for path in ["audit-entries".to_owned(), "deliveries".to_owned(), status(&second.event)] {
        let answer = management.get(port.port, &path, Some(&token)).await;
        assert_eq!(
            (answer.status, answer.error()["code"].as_str()),
            (503, Some("DEPENDENCY_UNAVAILABLE")),
            "{path}"
        );
    }
    assert_eq!(management.get(port.port, "events", Some(&stranger)).await.status, 503);
    assert_eq!(management.with_key(port.port, "events", MANAGEMENT_KEY).await.status, 200);
    assert_eq!(management.with_key(port.port, "events", "not-the-management-key").await.status, 401);

    proxy.open();
    wait_until("the API server to be asked again", async || {
        management.get(port.port, "audit-entries", Some(&token)).await.status == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_random_tokens_reaches_the_api_server_as_a_trickle() {
    const TOKENS: usize = 400;
    let management = Management::new().await;
    let ops_port = free_port();
    let ops_address = format!("127.0.0.1:{ops_port}");
    let variables = [("GRAPNEL_TRUSTED_PROXIES", "127.0.0.0/8"), ("GRAPNEL_OPS_ADDR", &ops_address)];
    let port = management.start(&variables).await;
    let role = Role::in_namespace("viewer", &management.tenants[0].namespace, VIEW_RULES);
    let token = management.account(&role).await;
    // From then on the address is known.
    assert_eq!(management.get_from(port.port, "events", &token, "198.51.100.1").await.status, 200);
    wait_until("the audit log", async || management.token_reviews() > 0).await;
    let before = management.token_reviews();
    let started = Instant::now();
    let mut answers = std::collections::BTreeMap::<u16, usize>::new();
    for number in 0..TOKENS {
        let source = format!("203.0.113.{}", number % 250);
        let answer =
            management.get_from(port.port, "events", &format!("random-token-{number}"), &source).await;
        *answers.entry(answer.status).or_default() += 1;
    }
    // Somebody who works here is let in meanwhile, with a token that is new too.
    let fresh = management.token(&role, Some("grapnel")).await;
    let answer = management.get_from(port.port, "events", &fresh, "198.51.100.1").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let elapsed = started.elapsed();
    assert!(!answers.contains_key(&200) && answers.contains_key(&429), "{answers:?}");
    // Strangers get 5 reviews at once, and 5 a second; one more is the fresh token's.
    let most = 5 + 5 * (elapsed.as_secs() as usize + 1) + 1;
    wait_until("the audit log", async || management.token_reviews() > before).await;
    let reviews = management.token_reviews() - before;
    assert!(reviews <= most, "{reviews} reviews for {TOKENS} tokens in {elapsed:?}");

    assert_eq!(management.get_from(port.port, "events", &fresh, "198.51.100.1").await.status, 200);
    let counted = async |outcome: &str| {
        let label = format!("outcome=\"{outcome}\"");
        counter(ops_port, "grapnel_token_reviews_total", &[&label], &[]).await as usize
    };
    assert_eq!(counted("limited").await, answers[&429]);
    assert_eq!(counted("refused").await, TOKENS - answers[&429]);
    assert_eq!(counted("accepted").await, 2);
    assert_eq!(counted("cached").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_management_pods_use_every_right_that_they_have_and_no_other() {
    let management = Management::new().await;
    let port = management.start(&[]).await;
    let role = Role::in_namespace("viewer", &management.tenants[0].namespace, VIEW_RULES);
    let token = management.account(&role).await;
    assert_eq!(management.get(port.port, "events", Some(&token)).await.status, 200);
    let used = || {
        let log = std::fs::read_to_string(variable("GRAPNEL_CLUSTER_AUDIT_LOG")).expect("read the audit log");
        let user = management.manage_user();
        let lines = log.lines().filter(|line| line.contains(&user));
        let entries = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let of_user = entries.filter(|entry| entry["user"]["username"] == user);
        let line =
            |entry: Value| format!("{} {}", entry["verb"], entry["objectRef"]["resource"]).replace('"', "");
        of_user.map(line).collect::<std::collections::BTreeSet<_>>()
    };
    let granted = access::rules_of(harness::MANAGE_RULES);
    let granted: std::collections::BTreeSet<String> = granted
        .iter()
        .flat_map(|rule| {
            let resources = rule.resources.clone().unwrap_or_default();
            let verbs = rule.verbs.clone();
            resources.into_iter().flat_map(move |resource| {
                verbs.clone().into_iter().map(move |verb| format!("{verb} {resource}"))
            })
        })
        .collect();
    wait_until("all of them in the audit log", async || granted.is_subset(&used())).await;
    assert_eq!(used(), granted);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_applied_integration_has_its_field_manager_as_the_actor() {
    let installation = Installation::new().await;
    let _controller = installation.start_leader().await;
    installation.apply_secret("acme", ACME_SECRET).await;
    installation.apply("orders", acme_spec("acme")).await;
    let id = installation.wait_until_ready("orders").await.id();
    let entries = |action: &str, actor: &str| {
        format!(
            "SELECT count(*) FROM audit_entries WHERE entity_id = '{id}' AND action = 'integration.{action}' AND actor = '{actor}'"
        )
    };
    let database = &installation.database;
    assert_eq!(database.count(&entries("applied", "manager:kubectl")).await, 1);
    // Another secret is no new generation, and nobody applied the object.
    installation.apply_secret("acme", "another-secret").await;
    database.wait_for_count(&entries("applied", "controller"), 1).await;
    assert_eq!(database.count(&entries("applied", "manager:kubectl")).await, 1);
    installation.delete("orders").await;
    installation.wait_until_gone("orders").await;
    assert_eq!(database.count(&entries("removed", "controller")).await, 1);
}
