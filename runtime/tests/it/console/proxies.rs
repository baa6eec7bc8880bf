//! Behind proxies: a prefix, TLS that ends before us, and proxies that say who the visitor is.

use grapnel_testing::MANAGEMENT_KEY;

use super::harness::{Console, SESSION, attributes};
use crate::harness::Platform;

const SECRET: &str = "secret-of-the-proxy-1";

#[tokio::test]
async fn a_prefix_is_in_every_link_and_in_the_cookie() {
    let mut platform = Platform::new().await;
    let console = Console::start(&mut platform, &[("GRAPNEL_CONSOLE_PREFIX", "/tools/grapnel/")]).await;
    let home = console.get("/", &[]).await;
    assert_eq!((home.status, home.header("location")), (303, "/tools/grapnel/console/"));
    let fields = [("kind", "key"), ("credential", MANAGEMENT_KEY), ("next", "replays/requests")];
    let answer = console.try_log_in(&[], &fields).await;
    assert_eq!(answer.header("location"), "/tools/grapnel/console/replays/requests");
    let set = attributes(&answer.headers, SESSION).expect("a cookie");
    assert!(set.contains("Path=/tools/grapnel/console;"), "{set}");
    let session = super::harness::cookie(&answer.headers, SESSION).expect("a session");
    // Whether the proxy takes the prefix off or not.
    for path in
        ["/console/replays/requests?status=failed", "/tools/grapnel/console/replays/requests?status=failed"]
    {
        let page = console.page(path, &session).await;
        assert_eq!(page.status, 200, "{path}: {}", page.text);
        assert!(
            page.text.contains("hx-get=\"/tools/grapnel/console/replays/requests?status=failed\""),
            "{}",
            page.text
        );
        for link in page.text.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap_or_default())
        {
            let is_ours = link.starts_with("/tools/grapnel/console/")
                || link.starts_with('#')
                || link.starts_with("data:");
            assert!(is_ours, "{link}");
        }
        let asset =
            page.text.split("src=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a script");
        assert_eq!(console.get(asset, &[]).await.status, 200);
        assert_eq!(
            console.get(asset.strip_prefix("/tools/grapnel").expect("the prefix"), &[]).await.status,
            200
        );
    }
}

#[tokio::test]
async fn a_prefix_that_is_no_path_is_refused() {
    let mut platform = Platform::new().await;
    platform.set("GRAPNEL_CONSOLE_SEALING_KEY", super::harness::CONSOLE_KEYS);
    for prefix in ["grapnel", "//example.com", "/a/../b", "/a b", "/a?b", "https://example.com/a", "/console"]
    {
        platform.set("GRAPNEL_CONSOLE_PREFIX", prefix);
        let output = platform.try_run(&["manage"]).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("GRAPNEL_CONSOLE_PREFIX"), "{prefix}: {said}");
    }
}

#[tokio::test]
async fn only_a_trusted_proxy_says_that_the_browser_uses_https() {
    let mut platform = Platform::new().await;
    let fields = [("kind", "key"), ("credential", MANAGEMENT_KEY)];
    let headers = [("x-forwarded-proto", "https"), ("x-forwarded-for", "198.51.100.7")];
    let open = Console::start(&mut platform, &[]).await;
    let answer = open.try_log_in(&headers, &fields).await;
    assert!(!attributes(&answer.headers, SESSION).expect("a cookie").contains("Secure"));
    let behind = Console::start(&mut platform, &[("GRAPNEL_TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    let answer = behind.try_log_in(&headers, &fields).await;
    assert!(attributes(&answer.headers, SESSION).expect("a cookie").contains("; Secure"));
    let answer = behind.try_log_in(&[("x-forwarded-proto", "http")], &fields).await;
    assert!(!attributes(&answer.headers, SESSION).expect("a cookie").contains("Secure"));
}

/// The API server that judges rights is not there, so whoever is believed is undecided.
async fn behind_an_identity_proxy(platform: &mut Platform, networks: &str) -> Console {
    let kubeconfig = platform.write_file(
        "kubeconfig",
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}]\n\
         users: [{name: u, user: {}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n",
    );
    let variables = [
        ("KUBECONFIG", kubeconfig.as_str()),
        ("GRAPNEL_KUBERNETES_ACCESS", "true"),
        ("GRAPNEL_IDENTITY_PROXIES", networks),
        ("GRAPNEL_IDENTITY_PROXY_SECRET", SECRET),
    ];
    Console::start(platform, &variables).await
}

#[tokio::test]
async fn a_proxy_that_names_the_system_or_has_another_secret_is_refused() {
    let mut platform = Platform::new().await;
    let console = behind_an_identity_proxy(&mut platform, "127.0.0.0/8").await;
    let ask = async |headers: &[(&str, &str)]| console.get("/console/", headers).await;
    let proven = ("x-grapnel-proxy-secret", SECRET);
    for headers in [
        &[proven, ("x-forwarded-user", "system:admin")][..],
        &[proven, ("x-forwarded-user", "system:serviceaccount:kube-system:default")],
        &[proven, ("x-forwarded-user", "jane"), ("x-forwarded-groups", "dev,system:masters")],
        &[
            proven,
            ("x-forwarded-user", "jane"),
            ("x-forwarded-groups", "dev"),
            ("x-forwarded-groups", "SYSTEM:masters"),
        ],
        &[proven, ("x-forwarded-user", "jane"), ("x-forwarded-user", "admin")],
        &[("x-grapnel-proxy-secret", "another-secret-123"), ("x-forwarded-user", "jane")],
        &[proven, proven, ("x-forwarded-user", "jane")],
    ] {
        let answer = ask(headers).await;
        assert_eq!(answer.status, 403, "{headers:?}: {}", answer.text);
        assert!(!answer.text.contains(SECRET), "{}", answer.text);
    }
    // Who is believed is judged by the API server, which does not answer here.
    let believed = ask(&[proven, ("x-forwarded-user", "jane"), ("x-forwarded-groups", "dev")]).await;
    assert_eq!(believed.status, 503, "{}", believed.text);
    // Without its secret it is anybody.
    assert_eq!(ask(&[("x-forwarded-user", "jane")]).await.status, 303);
}

#[tokio::test]
async fn whoever_is_no_identity_proxy_names_nobody() {
    let mut platform = Platform::new().await;
    let console = behind_an_identity_proxy(&mut platform, "192.0.2.0/24").await;
    let headers =
        [("x-grapnel-proxy-secret", SECRET), ("x-forwarded-user", "jane"), ("x-forwarded-for", "192.0.2.1")];
    assert_eq!(console.get("/console/", &headers).await.status, 303);
}

#[tokio::test]
async fn identity_proxies_need_a_secret_and_somebody_who_judges() {
    let mut platform = Platform::new().await;
    platform.set("GRAPNEL_CONSOLE_SEALING_KEY", super::harness::CONSOLE_KEYS);
    platform.set("GRAPNEL_IDENTITY_PROXIES", "10.0.0.0/8");
    let refused = async |platform: &Platform, said: &str| {
        let output = platform.try_run(&["manage"]).await;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(said), "{text}");
    };
    refused(&platform, "GRAPNEL_IDENTITY_PROXY_SECRET is required").await;
    platform.set("GRAPNEL_IDENTITY_PROXY_SECRET", SECRET);
    refused(&platform, "GRAPNEL_KUBERNETES_ACCESS").await;
    platform.set("GRAPNEL_CONSOLE_SEALING_KEY", "");
    refused(&platform, "GRAPNEL_CONSOLE_SEALING_KEY is required").await;
}
