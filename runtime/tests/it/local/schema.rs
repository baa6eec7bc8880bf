//! `grapnel migrate`.

use futures::future::join_all;
use grapnel_testing::acme_event;

use super::super::harness::{Platform, acme_integration};
use super::nowhere;

/// Returns a platform whose database is empty.
async fn empty() -> Platform {
    let platform = Platform::new().await;
    platform.database.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public").await;
    platform
}

fn version() -> i64 {
    grapnel_store::migrate::REQUIRED_VERSION
}

fn migration_files() -> i64 {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations");
    let files = std::fs::read_dir(folder).expect("the migrations").map(|entry| entry.expect("a file").path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "sql"));
    i64::try_from(files.count()).expect("a few")
}

#[tokio::test]
async fn migrations_run_once_however_many_processes_run_them_at_once() {
    let platform = empty().await;
    let said = format!("schema version {0}, this program needs {0}\n", version());
    let outputs = join_all((0..5).map(|_| platform.run(&["migrate"]))).await;
    assert_eq!(outputs, vec![said.clone(); 5]);
    assert_eq!(platform.run(&["migrate"]).await, said);
    let applied = platform.count("SELECT count(*) FROM _sqlx_migrations WHERE success").await;
    assert_eq!(applied, migration_files());
}

#[tokio::test]
async fn check_prints_the_version_and_fails_when_it_is_too_old() {
    let platform = empty().await;
    let check = async || {
        let output = platform.try_run(&["migrate", "--check"]).await;
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let needed = version();
    assert_eq!(check().await, (Some(1), format!("schema version 0, this program needs {needed}\n")));
    assert_eq!(platform.count("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").await, 0);

    platform.run(&["migrate"]).await;
    assert_eq!(check().await, (Some(0), format!("schema version {needed}, this program needs {needed}\n")));

    // A newer program has migrated the database: this one still runs.
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES (9999, 'later', true, '', 0)";
    platform.database.execute(newer).await;
    assert_eq!(check().await, (Some(0), format!("schema version 9999, this program needs {needed}\n")));
    platform.run(&["migrate"]).await;
    let _api = platform.start_api(&acme_integration(&[nowhere()])).await;
    assert_eq!(platform.post_acme(&acme_event("e-1")).await.status, 202);
}

#[tokio::test]
async fn roles_wait_for_the_migrations_and_apply_fails_without_them() {
    let platform = empty().await;
    let path = platform.write_integrations(&acme_integration(&[nowhere()]));
    let path = path.to_str().expect("a path in UTF-8");
    let applied = platform.try_run(&["apply", "--file", path]).await;
    let text = String::from_utf8_lossy(&applied.stderr).into_owned();
    assert!(!applied.status.success() && text.contains("run `grapnel migrate`"), "{text}");

    let (api, worker) = (platform.start(&["api"]), platform.start(&["worker"]));
    for role in [&api, &worker] {
        role.wait_for_log("waiting for the database").await;
    }
    platform.run(&["migrate"]).await;
    platform.apply(&acme_integration(&[nowhere()])).await;
    platform.wait_until_accepting().await;
    worker.wait_for_log("delivering").await;
    assert!(api.stop().await.success());
}
