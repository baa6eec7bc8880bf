//! A console, and a browser that keeps nothing by itself.

use grapnel_testing::{MANAGEMENT_KEY, TestProcess, free_port, wait_until};
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;

use crate::harness::{Answer, Platform};

/// Seals the credentials of sessions.
pub(crate) const CONSOLE_KEYS: &str = "console:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

pub(crate) const SESSION: &str = "grapnel_session";

/// A management port with a console.
pub(crate) struct Console {
    pub(crate) process: TestProcess,
    pub(crate) port: u16,
    http: reqwest::Client,
}

impl Console {
    /// Starts a management port, with these variables besides those of the platform.
    pub(crate) async fn start(platform: &mut Platform, variables: &[(&str, &str)]) -> Self {
        platform.set("GRAPNEL_CONSOLE_SEALING_KEY", CONSOLE_KEYS);
        Self::start_role(platform, &["manage"], "127.0.0.1", variables).await
    }

    /// Starts a role at an address.
    pub(crate) async fn start_role(
        platform: &mut Platform,
        arguments: &[&str],
        address: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        let port = free_port();
        platform.set("GRAPNEL_MANAGEMENT_ADDR", &format!("{address}:{port}"));
        for (name, value) in variables {
            platform.set(name, value);
        }
        let process = platform.start(arguments);
        let http = reqwest::Client::builder().redirect(Policy::none()).build().expect("a client");
        let console = Self { process, port, http };
        let health = console.url("/api/v1/health");
        wait_until("the management port", async || {
            console.http.get(&health).send().await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        console
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.http.get(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request.send().await.expect("an answer")).await
    }

    pub(crate) async fn page(&self, path: &str, session: &str) -> Answer {
        self.get(path, &[("cookie", &format!("{SESSION}={session}"))]).await
    }

    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], fields: &[(&str, &str)]) -> Answer {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let mut request = self.http.post(self.url(path)).body(body);
        request = request.header("content-type", "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request.send().await.expect("an answer")).await
    }

    /// Opens the form of the log-in, and sends it with further headers and fields.
    pub(crate) async fn try_log_in(&self, headers: &[(&str, &str)], fields: &[(&str, &str)]) -> Answer {
        let form = self.get("/console/log-in", &[]).await;
        assert_eq!(form.status, 200, "{}", form.text);
        let form_cookie = cookie(&form.headers, "grapnel_log_in").expect("a cookie of the form");
        let token = csrf(&form.text);
        let mut cookies = format!("grapnel_log_in={form_cookie}");
        let mut sent = Vec::new();
        for (name, value) in headers {
            if *name == "cookie" {
                cookies = format!("{cookies}; {value}");
            } else {
                sent.push((*name, *value));
            }
        }
        sent.push(("cookie", &cookies));
        let mut all = vec![("csrf", token.as_str())];
        all.extend_from_slice(fields);
        self.post("/console/log-in", &sent, &all).await
    }

    /// Logs in with the management key, and returns the value of the session's cookie.
    pub(crate) async fn log_in(&self) -> String {
        let answer = self.try_log_in(&[], &[("kind", "key"), ("credential", MANAGEMENT_KEY)]).await;
        assert_eq!(answer.status, 303, "{}", answer.text);
        cookie(&answer.headers, SESSION).expect("a session")
    }

    /// Whether the session opens a page.
    pub(crate) async fn holds(&self, session: &str) -> bool {
        let answer = self.page("/console/", session).await;
        assert!(matches!(answer.status, 200 | 303), "{}", answer.text);
        answer.status == 200
    }
}

/// Returns the value that an answer gives to a cookie.
pub(crate) fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let attributes = attributes(headers, name)?;
    let value = attributes.split(';').next()?.split_once('=')?.1;
    (!value.is_empty()).then(|| value.to_owned())
}

/// Returns a cookie of an answer with its attributes.
pub(crate) fn attributes(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines = headers.get_all("set-cookie").iter().filter_map(|line| line.to_str().ok());
    lines.into_iter().find(|line| line.starts_with(&format!("{name}="))).map(str::to_owned)
}

/// Returns the token of the first form of a page.
pub(crate) fn csrf(page: &str) -> String {
    let (_, rest) = page.split_once(r#"name="csrf" value=""#).unwrap_or_else(|| panic!("no form: {page}"));
    rest.split('"').next().unwrap_or_default().to_owned()
}
