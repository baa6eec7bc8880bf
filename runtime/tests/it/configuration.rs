//! The configuration of a role from its environment: every mistake is reported before the first connection, by name, and
//! without a secret.

use grapnel_testing::{Environment, acme_event, run_to_end, unique_name};

use super::harness::{Platform, acme_integration, destination, grapnel};

const KEY: &str = "bWFudWFsLXNlYWxpbmcta2V5LW9mLTMyLWJ5dGVzLi4=";

/// Returns a complete environment with services that cannot be reached: a role that begins to connect does not end.
fn complete() -> Environment {
    Environment::new([
        ("DATABASE_URL", "postgres://user:database-word@127.0.0.1:1/grapnel"),
        ("REDIS_URL", "redis://:redis-word@127.0.0.1:1/0"),
        ("RABBITMQ_URL", "amqp://user:rabbitmq-word@127.0.0.1:1/%2f"),
        ("MANAGEMENT_API_KEY", "management-word-1"),
        ("GRAPNEL_SEALING_KEYS", &format!("first:{KEY}")),
        ("GRAPNEL_HTTP_ADDR", "127.0.0.1:0"),
        ("GRAPNEL_MANAGEMENT_ADDR", "127.0.0.1:0"),
        ("GRAPNEL_OPS_ADDR", "127.0.0.1:0"),
    ])
}

/// Runs a role with changes to the complete environment (`None`: absent). It must end with an error that contains a text.
async fn check(role: &str, changes: &[(&str, Option<&str>)], said: &str) {
    let mut environment = complete();
    for (name, value) in changes {
        match value {
            Some(value) => environment.set(name, value),
            None => environment.remove(name),
        }
    }
    let arguments: &[&str] = match role {
        "dev" | "apply" => &[role, "--file", "/nonexistent/integrations.yaml"],
        _ => &[role],
    };
    let output = run_to_end(grapnel(), arguments, &environment).await;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(!output.status.success(), "{role} {changes:?} is accepted");
    assert!(text.contains(said), "{role} {changes:?}: {text}");
    for secret in
        ["database-word", "redis-word", "rabbitmq-word", "management-word", "short-word", &KEY[..20]]
    {
        assert!(!text.contains(secret), "{role} {changes:?}: {text}");
    }
}

#[tokio::test]
async fn required_variable_that_is_missing_or_empty_is_named() {
    for (role, names) in [
        ("api", &["DATABASE_URL", "REDIS_URL", "RABBITMQ_URL", "GRAPNEL_SEALING_KEYS"][..]),
        ("worker", &["DATABASE_URL", "RABBITMQ_URL", "GRAPNEL_SEALING_KEYS"]),
        ("dev", &["DATABASE_URL", "REDIS_URL", "RABBITMQ_URL", "GRAPNEL_SEALING_KEYS"]),
        ("manage", &["DATABASE_URL"]),
        ("apply", &["DATABASE_URL", "RABBITMQ_URL", "GRAPNEL_SEALING_KEYS"]),
        ("migrate", &["DATABASE_URL"]),
    ] {
        for name in names {
            let said =
                format!("grapnel: {name} is required (or {name}_FILE, the path of a file that contains it)");
            check(role, &[(name, None)], &said).await;
            check(role, &[(name, Some(""))], &said).await;
            check(role, &[(name, Some("")), (&format!("{name}_FILE"), Some(""))], &said).await;
        }
    }
}

#[tokio::test]
async fn empty_variable_counts_as_absent() {
    for (role, names) in [
        (
            "api",
            &[
                "GRAPNEL_ENV",
                "GRAPNEL_HTTP_ADDR",
                "GRAPNEL_OPS_ADDR",
                "MANAGEMENT_API_KEY_PREVIOUS",
                "GRAPNEL_TRUSTED_PROXIES",
                "GRAPNEL_RATE_LIMIT_PER_MINUTE",
                "GRAPNEL_REQUEUE_AFTER_SECONDS",
                "GRAPNEL_SHUTDOWN_SECONDS",
                "GRAPNEL_QUEUE_PREFIX",
                "GRAPNEL_ALLOWED_DESTINATION_CIDRS",
            ][..],
        ),
        (
            "worker",
            &["GRAPNEL_ENV", "GRAPNEL_INTEGRATION", "GRAPNEL_OPS_ADDR", "GRAPNEL_ALLOWED_DESTINATION_CIDRS"],
        ),
        ("dev", &["GRAPNEL_ENV", "GRAPNEL_RATE_LIMIT_PER_MINUTE", "GRAPNEL_ALLOWED_DESTINATION_CIDRS"]),
        ("apply", &["GRAPNEL_ENV", "GRAPNEL_QUEUE_PREFIX"]),
    ] {
        for name in names {
            // The empty one is not reported: a missing one comes first.
            check(role, &[(name, Some("")), ("DATABASE_URL", None)], "grapnel: DATABASE_URL is required")
                .await;
        }
    }
}

#[tokio::test]
async fn secret_is_read_from_a_file_and_only_from_one_place() {
    let mut platform = Platform::new().await;
    let folder = tempfile_folder("secret-files");
    let file = |name: &str, value: &str| {
        let path = folder.join(name);
        std::fs::write(&path, format!("{value}\n")).expect("write a file");
        path.to_str().expect("a path in UTF-8").to_owned()
    };
    for name in ["DATABASE_URL", "REDIS_URL", "RABBITMQ_URL", "MANAGEMENT_API_KEY", "GRAPNEL_SEALING_KEYS"] {
        let value = platform.variable(name);
        platform.set(name, "");
        platform.set(&format!("{name}_FILE"), &file(name, &value));
    }
    let _api = platform.start_api(&acme_integration(&[destination("orders", "http://127.0.0.1:9/")])).await;
    assert_eq!(platform.post_acme(&acme_event("e-1")).await.status, 202);
    assert_eq!(platform.get("/api/v1/events").await.status, 200);

    let (url_file, empty) = (file("url", "postgres://x"), file("empty", ""));
    let both = "grapnel: DATABASE_URL and DATABASE_URL_FILE are both set: set only one";
    check("api", &[("DATABASE_URL_FILE", Some(&url_file))], both).await;
    let missing = "grapnel: DATABASE_URL_FILE: cannot read /nonexistent/file";
    check("api", &[("DATABASE_URL", None), ("DATABASE_URL_FILE", Some("/nonexistent/file"))], missing).await;
    let empty_file = [("DATABASE_URL", None), ("DATABASE_URL_FILE", Some(empty.as_str()))];
    check("api", &empty_file, "grapnel: DATABASE_URL is required").await;
    std::fs::remove_dir_all(&folder).expect("remove the folder");
}

fn tempfile_folder(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(unique_name(name));
    std::fs::create_dir_all(&folder).expect("create a folder");
    folder
}

#[tokio::test]
async fn management_key_that_can_be_guessed_is_refused() {
    let said = "grapnel: MANAGEMENT_API_KEY: a key needs at least 16 characters";
    check("api", &[("MANAGEMENT_API_KEY", Some("short-word-0123"))], said).await;
    let said = "grapnel: MANAGEMENT_API_KEY_PREVIOUS: a key needs at least 16 characters";
    check("api", &[("MANAGEMENT_API_KEY_PREVIOUS", Some("short-word-0123"))], said).await;
    check("dev", &[("MANAGEMENT_API_KEY_PREVIOUS", Some("short-word-0123"))], said).await;
    let alone = [("MANAGEMENT_API_KEY", None), ("MANAGEMENT_API_KEY_PREVIOUS", Some("management-word-1"))];
    check("api", &alone, "grapnel: MANAGEMENT_API_KEY_PREVIOUS: is only valid beside MANAGEMENT_API_KEY")
        .await;
}

#[tokio::test]
async fn management_port_that_nobody_could_use_is_refused() {
    let said = "grapnel: MANAGEMENT_API_KEY: is required unless GRAPNEL_KUBERNETES_ACCESS is true";
    check("manage", &[("MANAGEMENT_API_KEY", None)], said).await;
    check("manage", &[("MANAGEMENT_API_KEY", Some(""))], said).await;
    let nowhere =
        [("GRAPNEL_KUBERNETES_ACCESS", Some("true")), ("KUBECONFIG", Some("/nonexistent/kubeconfig"))];
    check("manage", &nowhere, "grapnel: find the API server, by the account of the pod or by KUBECONFIG")
        .await;
}

#[tokio::test]
async fn unusable_sealing_keys_are_refused_by_position_and_never_shown() {
    let part = &KEY[..24];
    for (keys, said) in [
        (KEY.to_owned(), "sealing key 1 is not of the form id:base64 of 32 bytes"),
        (format!("first:{KEY},{KEY}"), "sealing key 2 is not of the form id:base64 of 32 bytes"),
        (format!("First:{KEY}"), "the id of sealing key 1 is not 1 to 32 characters of a-z, 0-9 and -"),
        (format!("first:{KEY},first:{KEY}"), "the id of sealing key 2 was already used by an earlier key"),
        (format!("first:{part}"), "sealing key 1 has 18 bytes and not 32"),
        (format!("first:{part}!"), "sealing key 1 is not valid base64"),
        (format!("first:{KEY},"), "sealing key 2 is not of the form id:base64 of 32 bytes"),
        (",".to_owned(), "sealing key 1 is not of the form id:base64 of 32 bytes"),
    ] {
        for role in ["api", "worker", "dev", "apply"] {
            let said = format!("grapnel: GRAPNEL_SEALING_KEYS: {said}");
            check(role, &[("GRAPNEL_SEALING_KEYS", Some(&keys))], &said).await;
        }
    }
}

#[tokio::test]
async fn unusable_url_is_refused_before_the_first_connection_and_not_shown() {
    for (name, system, values) in [
        (
            "DATABASE_URL",
            "PostgreSQL",
            &[
                "database-word",
                "http://user:database-word@127.0.0.1:1/x",
                "postgres://user:database-word@:x/",
            ][..],
        ),
        (
            "REDIS_URL",
            "Redis",
            &["redis-word", "http://:redis-word@127.0.0.1:1/0", "redis://:redis-word@127.0.0.1:x/0"],
        ),
        (
            "RABBITMQ_URL",
            "RabbitMQ",
            &[
                "rabbitmq-word",
                "http://user:rabbitmq-word@127.0.0.1:1/",
                "amqp://user:rabbitmq-word@127.0.0.1:x/",
            ],
        ),
    ] {
        for value in values {
            for role in ["api", "dev"] {
                check(role, &[(name, Some(value))], &format!("grapnel: {name}: not a {system} URL")).await;
            }
        }
    }
    check("worker", &[("RABBITMQ_URL", Some("rabbitmq-word"))], "grapnel: RABBITMQ_URL: not a RabbitMQ URL")
        .await;
}

#[tokio::test]
async fn value_of_another_form_is_refused_with_the_options_name() {
    for (role, name, value, said) in [
        ("api", "GRAPNEL_ENV", "staging", "--environment"),
        ("api", "GRAPNEL_HTTP_ADDR", "8080", "--http-addr"),
        ("api", "GRAPNEL_OPS_ADDR", "localhost:9090", "--ops-addr"),
        ("api", "GRAPNEL_TRUSTED_PROXIES", "10.0.0.0/8,10.0.0.300", "--trusted-proxies"),
        ("api", "GRAPNEL_RATE_LIMIT_PER_MINUTE", "-1", "--rate-limit-per-minute"),
        ("api", "GRAPNEL_REQUEUE_AFTER_SECONDS", "0", "--requeue-after-seconds"),
        ("api", "GRAPNEL_SHUTDOWN_SECONDS", "601", "--shutdown-seconds"),
        ("api", "GRAPNEL_QUEUE_PREFIX", "a b", "GRAPNEL_QUEUE_PREFIX"),
        ("worker", "GRAPNEL_INTEGRATION", "acme", "--integration"),
        ("worker", "GRAPNEL_ALLOWED_DESTINATION_CIDRS", "private", "--allowed-destination-cidrs"),
        ("worker", "GRAPNEL_DENIED_DESTINATIONS", "redis.example.com", "redis.example.com is not host:port"),
        ("api", "GRAPNEL_DENIED_DESTINATIONS", "redis://redis:6379", "--denied-destinations"),
    ] {
        check(role, &[(name, Some(value))], said).await;
    }
}

#[tokio::test]
async fn help_names_the_variables_and_shows_no_secret() {
    for role in ["api", "worker", "dev", "apply", "migrate"] {
        let output = run_to_end(grapnel(), &[role, "--help"], &complete()).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("[env: DATABASE_URL]"), "{text}");
        for secret in ["database-word", "redis-word", "rabbitmq-word", "management-word", &KEY[..20]] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[tokio::test]
async fn way_out_that_cannot_be_used_is_named() {
    let directory = std::env::temp_dir().join(unique_name("grapnel-egress"));
    std::fs::create_dir_all(&directory).expect("a directory");
    let path = directory.join("ca.crt");
    let file = path.to_str().expect("a path in UTF-8");
    for role in ["api", "worker"] {
        let proxy = "GRAPNEL_EGRESS_PROXY: not the URL of an HTTP proxy";
        for url in
            ["socks5://user:short-word@proxy", "https://user:short-word@proxy", "user:short-word@proxy:1"]
        {
            check(role, &[("GRAPNEL_EGRESS_PROXY", Some(url))], proxy).await;
        }
        let missing = format!("GRAPNEL_EGRESS_CA_FILE: cannot read {file}");
        check(role, &[("GRAPNEL_EGRESS_CA_FILE", Some(file))], &missing).await;
        std::fs::write(&path, "no certificate").expect("a file");
        let invalid = "GRAPNEL_EGRESS_CA_FILE: it has no PEM certificate";
        check(role, &[("GRAPNEL_EGRESS_CA_FILE", Some(file))], invalid).await;
        std::fs::remove_file(&path).expect("removed");
    }
    std::fs::remove_dir_all(&directory).expect("removed");
}
