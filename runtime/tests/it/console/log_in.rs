//! Sessions: how they begin, what they are worth, and how they end.

use std::collections::HashSet;

use grapnel_testing::MANAGEMENT_KEY;

use super::harness::{Console, SESSION, attributes, cookie, csrf};
use crate::harness::Platform;

#[tokio::test]
async fn a_key_begins_a_session_that_ends_at_log_out() {
    let mut platform = Platform::new().await;
    let console = Console::start(&mut platform, &[]).await;
    let stranger = console.get("/console/events?status=failed", &[]).await;
    assert_eq!(stranger.status, 303);
    assert_eq!(stranger.header("location"), "/console/log-in?next=events%3Fstatus%3Dfailed");

    let fields = [("kind", "key"), ("credential", MANAGEMENT_KEY), ("next", "events?status=failed")];
    let answer = console.try_log_in(&[], &fields).await;
    assert_eq!((answer.status, answer.header("location")), (303, "/console/events?status=failed"));
    let set = attributes(&answer.headers, SESSION).expect("a cookie");
    for attribute in ["HttpOnly", "SameSite=Lax", "Path=/console", "Max-Age=3600"] {
        assert!(set.contains(attribute), "{set}");
    }
    assert!(!set.contains("Secure"), "{set}");
    let session = cookie(&answer.headers, SESSION).expect("a session");
    let page = console.page("/console/", &session).await;
    assert_eq!(page.status, 200, "{}", page.text);
    assert!(page.text.contains("management key") && page.text.contains("Log out"), "{}", page.text);
    assert!(!page.text.contains(MANAGEMENT_KEY) && !page.text.contains(&session), "{}", page.text);

    let headers = [("cookie", format!("{SESSION}={session}"))];
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let left = console.post("/console/log-out", &headers, &[("csrf", &csrf(&page.text))]).await;
    assert_eq!((left.status, left.header("location")), (303, "/console/log-in"));
    assert!(attributes(&left.headers, SESSION).expect("a cookie").contains("Max-Age=0"));
    assert!(!console.holds(&session).await);
    assert_eq!(platform.count("SELECT count(*) FROM console_sessions").await, 0);
}

#[tokio::test]
async fn what_nobody_has_begins_no_session() {
    let mut platform = Platform::new().await;
    let console = Console::start(&mut platform, &[]).await;
    for (kind, credential) in
        [("key", "not-the-management-key"), ("key", ""), ("token", MANAGEMENT_KEY), ("token", "a.b.c")]
    {
        let answer = console.try_log_in(&[], &[("kind", kind), ("credential", credential)]).await;
        assert_eq!(answer.status, 401, "{kind} {credential}: {}", answer.text);
        assert_eq!(cookie(&answer.headers, SESSION), None);
        assert!(credential.is_empty() || !answer.text.contains(credential), "{}", answer.text);
    }
    // A form of nobody, or of somebody else.
    let fields = [("kind", "key"), ("credential", MANAGEMENT_KEY)];
    assert_eq!(console.post("/console/log-in", &[], &fields).await.status, 403);
    let other = console.get("/console/log-in", &[]).await;
    let with_token = [fields[0], fields[1], ("csrf", &csrf(&other.text))];
    assert_eq!(console.post("/console/log-in", &[], &with_token).await.status, 403);
    let answer = console.try_log_in(&[("sec-fetch-site", "cross-site")], &fields).await;
    assert_eq!(answer.status, 403, "{}", answer.text);
    assert_eq!(platform.count("SELECT count(*) FROM console_sessions").await, 0);
}

#[tokio::test]
async fn an_id_that_was_put_into_the_browser_is_of_no_use() {
    let mut platform = Platform::new().await;
    let console = Console::start(&mut platform, &[]).await;
    let planted = "A".repeat(43);
    let fields = [("kind", "key"), ("credential", MANAGEMENT_KEY)];
    let answer = console.try_log_in(&[("cookie", &format!("{SESSION}={planted}"))], &fields).await;
    let first = cookie(&answer.headers, SESSION).expect("a session");
    assert_ne!(first, planted);
    assert!(!console.holds(&planted).await && console.holds(&first).await);

    // The session of before ends at the next log-in of the same browser.
    let answer = console.try_log_in(&[("cookie", &format!("{SESSION}={first}"))], &fields).await;
    let second = cookie(&answer.headers, SESSION).expect("a session");
    assert!(!console.holds(&first).await && console.holds(&second).await);
}

#[tokio::test]
async fn a_session_ends_with_its_hour_and_with_its_key() {
    let mut platform = Platform::new().await;
    let console = Console::start(&mut platform, &[]).await;
    let (old, other) = (console.log_in().await, console.log_in().await);
    platform.database.execute("UPDATE console_sessions SET expires_at = now() - interval '1 second'").await;
    assert!(!console.holds(&old).await && !console.holds(&other).await);

    let session = console.log_in().await;
    let renewed = Console::start(&mut platform, &[("MANAGEMENT_API_KEY", "another-management-key-1")]).await;
    assert!(console.holds(&session).await);
    let ended = renewed.page("/console/", &session).await;
    assert_eq!((ended.status, ended.header("location")), (303, "/console/log-in?ended=true"));
    // It ended for good, wherever one asks.
    assert!(!console.holds(&session).await);
}

#[tokio::test]
async fn the_rows_open_no_session_and_hold_no_key() {
    let mut platform = Platform::new().await;
    let console = Console::start(&mut platform, &[]).await;
    let session = console.log_in().await;
    let row = platform.database.text("SELECT row_to_json(s)::text FROM console_sessions s").await;
    let row = row.expect("a row");
    assert!(!row.contains(&session), "{row}");
    assert!(!row.contains(&hex::encode(MANAGEMENT_KEY)), "{row}");
    assert!(row.contains(r#""owner":"key:current""#), "{row}");
    // The credential is sealed for its own id.
    let other = console.log_in().await;
    let copied = "UPDATE console_sessions SET credential = (SELECT credential FROM console_sessions ORDER BY created_at LIMIT 1)";
    platform.database.execute(copied).await;
    assert!(console.holds(&session).await && !console.holds(&other).await);
    let log = console.process.log();
    assert!(!log.contains(MANAGEMENT_KEY) && !log.contains(&session), "{log}");
}

#[tokio::test]
async fn an_owner_has_a_bounded_number_of_sessions() {
    let mut platform = Platform::new().await;
    let console = Console::start(&mut platform, &[]).await;
    let first = console.log_in().await;
    let insert = "INSERT INTO console_sessions (id_hash, owner, credential, created_at, expires_at)
        SELECT sha256(n::text::bytea), 'key:current', '', now() + n * interval '1 millisecond', now() + interval '1 hour'
        FROM generate_series(1, 60) n";
    platform.database.execute(insert).await;
    let last = console.log_in().await;
    assert_eq!(platform.count("SELECT count(*) FROM console_sessions").await, 50);
    assert!(!console.holds(&first).await && console.holds(&last).await);
}

#[tokio::test]
async fn a_log_in_leads_to_no_other_site() {
    let mut platform = Platform::new().await;
    let console = Console::start(&mut platform, &[]).await;
    let mut locations = HashSet::new();
    for next in [
        "//example.com",
        "https://example.com",
        "/\\example.com",
        "../../api/v1/events",
        "javascript:alert(1)",
    ] {
        let fields = [("kind", "key"), ("credential", MANAGEMENT_KEY), ("next", next)];
        let answer = console.try_log_in(&[], &fields).await;
        assert_eq!(answer.status, 303);
        locations.insert(answer.header("location").to_owned());
        let form = console.get(&format!("/console/log-in?next={next}"), &[]).await;
        assert!(!form.text.contains("href=\"//example.com"), "{}", form.text);
    }
    for location in &locations {
        assert!(location.starts_with("/console/"), "{location}");
        assert!(!location.contains(".."), "{location}");
    }
}
