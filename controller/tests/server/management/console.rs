//! The console for users of the cluster: what a token opens, what it does not, and when it stops.

use grapnel_testing::{MANAGEMENT_KEY, wait_until};
use reqwest::redirect::Policy;
use reqwest::{Client, Response};

use super::harness::{EDIT_RULES, LIST_RULES, Management, Role, VIEW_RULES};

const KEYS: &str = "console:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
const PROXY_SECRET: &str = "secret-of-the-proxy-1";

/// A browser without a memory.
struct Browser {
    http: Client,
    port: u16,
}

impl Browser {
    fn new(port: u16) -> Self {
        Self { http: Client::builder().redirect(Policy::none()).build().expect("a client"), port }
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let mut request = self.http.get(format!("http://127.0.0.1:{}{path}", self.port));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a body"))
    }

    async fn page(&self, path: &str, session: &str) -> (u16, String) {
        self.get(path, &[("cookie", &format!("grapnel_session={session}"))]).await
    }

    /// Logs in with a token, and returns the session. Tries again while the address has sent too many new tokens.
    async fn log_in(&self, token: &str) -> Result<String, (u16, String)> {
        let mut outcome = self.try_log_in(token).await;
        wait_until("tokens to be taken again", async || {
            if matches!(outcome, Err((429, _))) {
                outcome = self.try_log_in(token).await;
            }
            !matches!(outcome, Err((429, _)))
        })
        .await;
        outcome
    }

    async fn try_log_in(&self, token: &str) -> Result<String, (u16, String)> {
        let url = format!("http://127.0.0.1:{}/console/log-in", self.port);
        let form = self.http.get(&url).send().await.expect("an answer");
        let cookie = cookie(&form, "grapnel_log_in").expect("a cookie");
        let text = form.text().await.expect("a body");
        let csrf = text.split(r#"name="csrf" value=""#).nth(1).and_then(|rest| rest.split('"').next());
        // All of it is safe in a form.
        let body = format!("csrf={}&kind=token&credential={token}", csrf.expect("a form"));
        let request = self.http.post(&url).body(body).header("cookie", format!("grapnel_log_in={cookie}"));
        let answer = request.send().await.expect("an answer");
        match cookie_of_session(&answer) {
            Some(session) => Ok(session),
            None => Err((answer.status().as_u16(), answer.text().await.expect("a body"))),
        }
    }
}

fn cookie_of_session(answer: &Response) -> Option<String> {
    cookie(answer, "grapnel_session")
}

fn cookie(answer: &Response, name: &str) -> Option<String> {
    let mut lines = answer.headers().get_all("set-cookie").iter().filter_map(|line| line.to_str().ok());
    let value = lines.find_map(|line| line.strip_prefix(&format!("{name}=")))?;
    value.split(';').next().filter(|value| !value.is_empty()).map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_what_its_owner_may_see_and_no_trace_of_the_rest() {
    let management = Management::new().await;
    let port = management.start(&[("GRAPNEL_CONSOLE_SEALING_KEY", KEYS)]).await;
    let browser = Browser::new(port.port);
    let (first, second) = (management.tenants[0].clone(), management.tenants[1].clone());
    let rules = [LIST_RULES, VIEW_RULES].concat();
    let token = management.account(&Role::in_namespace("viewer", &first.namespace, &rules)).await;
    let session = browser.log_in(&token).await.expect("a session");

    let (status, overview) = browser.page("/console/", &session).await;
    assert_eq!(status, 200, "{overview}");
    assert!(overview.contains(&first.integration) && overview.contains(&first.namespace), "{overview}");
    assert!(!overview.contains(&second.integration) && !overview.contains(&second.namespace), "{overview}");
    assert!(!overview.contains(&token), "{overview}");
    let (status, page) =
        browser.page(&format!("/console/integrations/{}", first.integration), &session).await;
    assert_eq!(status, 200, "{page}");
    let (status, hidden) =
        browser.page(&format!("/console/integrations/{}", second.integration), &session).await;
    assert_eq!(status, 404, "{hidden}");
    assert!(!hidden.contains(&second.namespace), "{hidden}");
    let (status, replays) = browser.page("/console/replays/requests", &session).await;
    assert_eq!(status, 200, "{replays}");
    assert!(replays.contains(&first.event) && !replays.contains(&second.event), "{replays}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_may_not_do_is_not_offered() {
    let management = Management::new().await;
    let port = management.start(&[("GRAPNEL_CONSOLE_SEALING_KEY", KEYS)]).await;
    let browser = Browser::new(port.port);
    let namespace = &management.tenants[0].namespace;
    let offered = async |name: &str, rules: &str| {
        let token = management.account(&Role::in_namespace(name, namespace, rules)).await;
        let session = browser.log_in(&token).await.expect("a session");
        let (_, page) = browser.page("/console/nothing", &session).await;
        ["Overview", "Events", "Deliveries", "Replays", "Rejections", "Audit"]
            .into_iter()
            .filter(|title| page.contains(&format!(">{title}</a>")))
            .collect::<Vec<_>>()
    };
    let everything = ["Overview", "Events", "Deliveries", "Replays", "Rejections", "Audit"];
    assert_eq!(offered("editor", &[LIST_RULES, VIEW_RULES, EDIT_RULES].concat()).await, everything);
    let audit = "- {apiGroups: [grapnel.dev], resources: [integrations/audit], verbs: [get, list]}\n";
    assert_eq!(offered("auditor", audit).await, ["Audit"]);
    assert_eq!(offered("nobody", "[]").await, Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_token() {
    let management = Management::new().await;
    let variables = [("GRAPNEL_CONSOLE_SEALING_KEY", KEYS)];
    let port = management.start(&variables).await;
    let browser = Browser::new(port.port);
    let role =
        Role::in_namespace("leaver", &management.tenants[0].namespace, &[LIST_RULES, VIEW_RULES].concat());
    let token = management.account(&role).await;
    let session = browser.log_in(&token).await.expect("a session");
    assert_eq!(browser.page("/console/", &session).await.0, 200);
    // Another audience is no token for us, and the key is none either.
    let foreign = management.token(&role, Some("another")).await;
    assert_eq!(browser.log_in(&foreign).await.expect_err("no session").0, 401);
    assert_eq!(browser.log_in(MANAGEMENT_KEY).await.expect_err("no session").0, 401);

    management.remove_account(&role, &token).await;
    // This process still believes what it was told less than a minute ago; another one asks.
    let other = management.start(&variables).await;
    let elsewhere = Browser::new(other.port);
    wait_until("the token to be refused", async || elsewhere.page("/console/", &session).await.0 == 303)
        .await;
    // The row is gone, so it has ended everywhere.
    assert_eq!(browser.page("/console/", &session).await.0, 303);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_names_users_whose_rights_the_cluster_knows() {
    let management = Management::new().await;
    let port = management
        .start(&[
            ("GRAPNEL_CONSOLE_SEALING_KEY", KEYS),
            ("GRAPNEL_IDENTITY_PROXIES", "127.0.0.0/8"),
            ("GRAPNEL_IDENTITY_PROXY_SECRET", PROXY_SECRET),
        ])
        .await;
    let browser = Browser::new(port.port);
    let (first, second) = (management.tenants[0].clone(), management.tenants[1].clone());
    let group = management.bind_group(&first.namespace, &[LIST_RULES, VIEW_RULES].concat()).await;
    let ask = async |user: &str, groups: &str| {
        let headers = [
            ("x-grapnel-proxy-secret", PROXY_SECRET),
            ("x-forwarded-user", user),
            ("x-forwarded-groups", groups),
        ];
        browser.get("/console/", &headers).await
    };
    let (status, page) = ask("jane@example.com", &format!("dev,{group}")).await;
    assert_eq!(status, 200, "{page}");
    assert!(page.contains("jane@example.com") && page.contains(&first.integration), "{page}");
    assert!(!page.contains(&second.integration) && !page.contains("Log out"), "{page}");
    let (status, page) = ask("joe@example.com", "dev").await;
    assert_eq!(status, 403, "{page}");
    let (status, page) = ask("joe@example.com", "system:masters").await;
    assert_eq!(status, 403, "{page}");
    assert!(!page.contains(&first.integration), "{page}");
}
