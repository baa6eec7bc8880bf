//! What every answer says, what every form must prove, and that what others wrote is only text.

use serde_json::json;

use super::harness::{Console, SESSION, csrf};
use crate::harness::{Platform, acme_integration, destination};

#[tokio::test]
async fn every_answer_forbids_what_no_page_needs() {
    let mut platform = Platform::new().await;
    let console = Console::start(&mut platform, &[]).await;
    let session = console.log_in().await;
    let cookie = format!("{SESSION}={session}");
    for path in
        ["/", "/console", "/console/", "/console/log-in", "/console/nothing", "/console/assets/nothing"]
    {
        for headers in [&[][..], &[("cookie", cookie.as_str())]] {
            let answer = console.get(path, headers).await;
            assert_eq!(
                answer.header("content-security-policy"),
                "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                 form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
                "{path}"
            );
            assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
            assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
            assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        }
    }
    // The API is as it was.
    let api = console.get("/api/v1/health", &[]).await;
    assert_eq!(api.header("content-security-policy"), "");
}

#[tokio::test]
async fn no_page_has_a_script_or_a_style_of_its_own() {
    let mut platform = Platform::new().await;
    platform.apply(&acme_integration(&[destination("orders", "http://127.0.0.1:9/")])).await;
    let console = Console::start(&mut platform, &[]).await;
    let session = console.log_in().await;
    let id = platform.database.text("SELECT id::text FROM integrations").await.expect("an id");
    for path in
        ["/console/", "/console/replays/requests", "/console/nothing", &format!("/console/integrations/{id}")]
    {
        let text = console.page(path, &session).await.text;
        assert!(!text.contains(" style=") && !text.contains("<style"), "{path}: {text}");
        assert_eq!(
            text.matches("<script").count(),
            text.matches("<script src=\"/console/assets/").count(),
            "{path}"
        );
        assert!(
            !text.contains(" onclick") && !text.contains("hx-on") && !text.contains("javascript:"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_form_that_is_not_of_the_session_does_nothing() {
    let mut platform = Platform::new().await;
    let console = Console::start(&mut platform, &[]).await;
    let (session, other) = (console.log_in().await, console.log_in().await);
    let cookie = format!("{SESSION}={session}");
    let headers = [("cookie", cookie.as_str())];
    let own = csrf(&console.page("/console/", &session).await.text);
    let foreign = csrf(&console.page("/console/", &other).await.text);
    for fields in [&[][..], &[("csrf", "")], &[("csrf", "AAAA")], &[("csrf", foreign.as_str())]] {
        let answer = console.post("/console/log-out", &headers, fields).await;
        assert_eq!(answer.status, 403, "{fields:?}: {}", answer.text);
        assert!(answer.text.contains("nothing was done"), "{}", answer.text);
    }
    let crossing = [("cookie", cookie.as_str()), ("sec-fetch-site", "cross-site")];
    assert_eq!(console.post("/console/log-out", &crossing, &[("csrf", &own)]).await.status, 403);
    assert!(console.holds(&session).await);
    // A GET changes nothing, whatever it carries.
    assert_eq!(console.page(&format!("/console/log-out?csrf={own}"), &session).await.status, 405);
}

#[tokio::test]
async fn a_part_of_a_page_leads_a_stranger_to_the_log_in() {
    let mut platform = Platform::new().await;
    let console = Console::start(&mut platform, &[]).await;
    let answer = console.get("/console/?window=1h", &[("hx-request", "true")]).await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("hx-redirect"), "/console/log-in?next=%3Fwindow%3D1h");
    assert_eq!(answer.text, "");
    let session = console.log_in().await;
    let cookie = format!("{SESSION}={session}");
    let part = console.get("/console/", &[("hx-request", "true"), ("cookie", &cookie)]).await;
    assert_eq!(part.status, 200);
    assert!(part.text.trim_start().starts_with("<div id=\"live\""), "{}", part.text);
    let missing = console.get("/console/nothing", &[("hx-request", "true"), ("cookie", &cookie)]).await;
    assert_eq!(missing.status, 404);
    assert!(missing.text.trim_start().starts_with("<div id=\"live\""), "{}", missing.text);
}

#[tokio::test]
async fn what_others_wrote_is_only_text() {
    let mut platform = Platform::new().await;
    let hostile = "<script>alert(1)</script>\u{202e}\"'&<img src=x onerror=alert(2)>";
    let yaml = acme_integration(&[destination("orders", "http://127.0.0.1:9/")])
        .replace("spec:\n", &format!("spec:\n  displayName: {}\n", json!(&hostile[..60.min(hostile.len())])));
    platform.apply(&yaml).await;
    platform.insert_deliveries("e", 1, "'pending', now(), NULL").await;
    let event = platform.database.text("SELECT id::text FROM events").await.expect("an id");
    let requests = format!(
        "INSERT INTO replay_requests (id, event_id, destination, requested_by, reason, status, created_at)
         SELECT uuidv7_now(), '{event}', t, t, t, 'failed', now() FROM (SELECT $hostile${hostile}$hostile$ AS t) AS given"
    );
    platform.database.execute(&requests).await;
    let console = Console::start(&mut platform, &[]).await;
    let session = console.log_in().await;
    let id = platform.database.text("SELECT id::text FROM integrations").await.expect("an id");
    let replays = console.page("/console/replays/requests", &session).await;
    let integration = console.page(&format!("/console/integrations/{id}"), &session).await;
    for page in [&replays, &integration] {
        assert_eq!(page.status, 200, "{}", page.text);
        assert!(!page.text.contains("<script>alert") && !page.text.contains("<img src=x"), "{}", page.text);
        assert!(page.text.contains("&#60;script&#62;alert(1)"), "{}", page.text);
    }
    assert!(!replays.text.contains('\u{202e}') && replays.text.contains("[U+202E]"), "{}", replays.text);
}

#[tokio::test]
async fn a_first_page_is_small_and_its_files_are_kept() {
    let mut platform = Platform::new().await;
    platform.apply(&acme_integration(&[destination("orders", "http://127.0.0.1:9/")])).await;
    let console = Console::start(&mut platform, &[]).await;
    let session = console.log_in().await;
    let cookie = format!("{SESSION}={session}");
    let headers = [("cookie", cookie.as_str()), ("accept-encoding", "gzip")];
    let raw = reqwest::Client::new();
    let size = async |path: &str| {
        let mut request = raw.get(console.url(path));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = request.send().await.expect("an answer");
        let kept =
            answer.headers().get("cache-control").and_then(|value| value.to_str().ok()).map(str::to_owned);
        assert_eq!(answer.headers()["content-encoding"], "gzip", "{path}");
        (answer.bytes().await.expect("a body").len(), kept.unwrap_or_default())
    };
    let page = console.page("/console/", &session).await.text;
    let files: Vec<_> =
        page.split('"').filter(|part| part.starts_with("/console/assets/")).map(str::to_owned).collect();
    assert_eq!(files.len(), 3, "{files:?}");
    let mut total = size("/console/").await.0;
    for file in &files {
        let (bytes, kept) = size(file).await;
        assert_eq!(kept, "public, max-age=31536000, immutable", "{file}");
        total += bytes;
    }
    assert!(total <= 40 * 1024, "{total} bytes");
    assert_eq!(console.get("/console/assets/console.0000000000000000.css", &[]).await.status, 404);
}
