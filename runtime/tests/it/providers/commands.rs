//! `grapnel providers` and `grapnel verify`, which need no services.

use grapnel_testing::ACME_SECRET;

use super::super::harness::{Platform, sign};

#[tokio::test]
async fn presets_are_listed_and_shown_by_name() {
    let platform = Platform::unmigrated().await;
    let list = platform.run(&["providers"]).await;
    let names: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() >= 40 && names.contains(&"acme") && names.is_sorted(), "{list}");
    let shown = platform.run(&["providers", "show", "stripe"]).await;
    assert!(shown.starts_with("provider: stripe\n") && shown.contains("{timestamp}.{body}"), "{shown}");
    let unknown = platform.try_run(&["providers", "show", "initech"]).await;
    assert!(!unknown.status.success());
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(said.contains("there is no preset for \"initech\""), "{said}");
}

#[tokio::test]
async fn captured_request_is_verified_offline_with_the_step_that_fails() {
    let platform = Platform::unmigrated().await;
    let body = r#"{"eventId":"e-1"}"#;
    let request = |signature: &str, body: &str| {
        format!("POST /hooks HTTP/1.1\r\nx-acme-signature: {signature}\r\n\r\n{body}")
    };
    let folder = std::env::temp_dir().join(format!("grapnel-verify-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("a path").to_owned()
    };
    let secret = file("secret", &format!("{ACME_SECRET}\n"));
    let judge = async |request: String| {
        let request = file("request", &request);
        let output = platform
            .try_run(&["verify", "--provider", "acme", "--secret-file", &secret, "--request", &request])
            .await;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            !said.contains(ACME_SECRET) && !String::from_utf8_lossy(&output.stderr).contains(ACME_SECRET)
        );
        (output.status.success(), said)
    };
    let (verified, said) = judge(request(&sign(body.as_bytes()), body)).await;
    assert!(verified && said.contains("verified with the first secret"), "{said}");
    let (verified, said) = judge(request(&sign(b"other"), body)).await;
    assert!(
        !verified && said.contains("step \"comparison\" failed") && said.contains(r#"{\"eventId\":\"e-1\"}"#),
        "{said}"
    );
    let (verified, said) = judge(request(&sign(body.as_bytes()), &format!("{body}\n"))).await;
    assert!(!verified && said.contains("without the line end"), "{said}");
    std::fs::remove_dir_all(&folder).expect("removed");
}
