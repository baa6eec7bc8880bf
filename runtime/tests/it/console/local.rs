//! `grapnel dev`: the console without a log-in, where nobody else can reach it.

use super::harness::{Console, SESSION, csrf};
use crate::harness::{Platform, acme_integration, destination};

async fn dev(platform: &mut Platform, address: &str) -> Console {
    let file =
        platform.write_integrations(&acme_integration(&[destination("orders", "http://127.0.0.1:9/")]));
    let arguments = ["dev", "--file", file.to_str().expect("a path")];
    Console::start_role(platform, &arguments, address, &[]).await
}

#[tokio::test]
async fn on_a_loopback_address_nobody_logs_in() {
    let mut platform = Platform::new().await;
    platform.set("MANAGEMENT_API_KEY", "");
    let console = dev(&mut platform, "127.0.0.1").await;
    console
        .process
        .wait_for_log(&format!("the console is at http://127.0.0.1:{}/console/", console.port))
        .await;
    let page = console.get("/console/", &[]).await;
    assert_eq!(page.status, 200, "{}", page.text);
    assert!(page.text.contains("this machine") && !page.text.contains("Log out"), "{}", page.text);
    let form = console.get("/console/log-in", &[]).await;
    assert_eq!((form.status, form.header("location")), (303, "/console/"));
    // The API still asks for a credential.
    assert_eq!(console.get("/api/v1/events", &[]).await.status, 401);
}

#[tokio::test]
async fn a_name_of_another_site_that_leads_here_opens_nothing() {
    let mut platform = Platform::new().await;
    let console = dev(&mut platform, "127.0.0.1").await;
    for host in ["example.com", "localhost.example.com", "127.0.0.1.example.com:8081", "192.0.2.1"] {
        let answer = console.get("/console/", &[("host", host)]).await;
        assert_eq!(answer.status, 403, "{host}: {}", answer.text);
        assert!(!answer.text.contains("acme"), "{}", answer.text);
    }
    let named = format!("localhost:{}", console.port);
    let page = console.get("/console/", &[("host", &named)]).await;
    assert_eq!(page.status, 200);
    // Forms of other sites are refused here too.
    assert_eq!(console.post("/console/log-out", &[], &[]).await.status, 403);
    let shell = console.get("/console/", &[]).await;
    assert!(!shell.text.contains("name=\"csrf\""), "{}", shell.text);
}

#[tokio::test]
async fn on_any_other_address_the_key_is_needed() {
    let mut platform = Platform::new().await;
    let console = dev(&mut platform, "0.0.0.0").await;
    let stranger = console.get("/console/", &[]).await;
    assert_eq!((stranger.status, stranger.header("location")), (303, "/console/log-in"));
    let session = console.log_in().await;
    let page = console.get("/console/", &[("cookie", &format!("{SESSION}={session}"))]).await;
    assert_eq!(page.status, 200);
    assert!(!csrf(&page.text).is_empty());
}
