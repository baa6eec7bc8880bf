//! Replays on the server: what it accepts, rejects and keeps, and the columns of their list.

use serde_json::{Value, json};

use crate::admission::{DRY_CREATE, expect_complaint};
use crate::cases;
use crate::kubectl::{Namespace, check_all};

#[test]
fn valid_replays_are_accepted_without_a_warning() {
    let namespace = Namespace::new();
    check_all(&cases::valid_replays(), |case| {
        let answer = namespace.send(&DRY_CREATE, &case.manifest());
        if answer.succeeded && answer.stderr.is_empty() {
            Ok(())
        } else {
            Err(format!("{}: {}", case.name, answer.stderr))
        }
    });
}

#[test]
fn invalid_replays_are_rejected_with_the_field_named() {
    let namespace = Namespace::new();
    check_all(&cases::invalid_replays(), |case| {
        let stderr = namespace.send(&DRY_CREATE, &case.manifest()).stderr;
        expect_complaint(&case.name, &stderr, case.field.as_deref().zip(case.server_message()))
    });
}

#[test]
fn nothing_of_a_replay_changes_but_its_state_its_rate_and_its_time_to_live() {
    check_all(&cases::replay_updates(), |update| {
        let namespace = Namespace::new();
        let created = namespace.send(&["create"], &update.old_manifest());
        if !created.succeeded {
            return Err(format!("{}: {}", update.name, created.stderr));
        }
        let stderr = namespace.send(&["replace", "--dry-run=server"], &update.new_manifest()).stderr;
        expect_complaint(&update.name, &stderr, update.field.as_deref().zip(update.message.as_deref()))
    });
}

#[test]
fn absent_fields_of_a_replay_get_their_defaults_and_the_columns_show_what_was_reported() {
    let namespace = Namespace::new();
    let smallest = cases::valid_replays().remove(0).manifest();
    let stored = namespace.send(&["create", "--output=json"], &smallest).object();
    let defaults = json!({
        "integrationRef": {"name": "acme-orders"}, "select": "Failed", "receivedAfter": "2026-11-23T08:00:00Z",
        "reason": "the receiver was down", "ratePerSecond": 50, "maxDeliveries": 10000, "order": "OldestFirst",
        "state": "Running", "dryRun": false,
    });
    assert_eq!((&stored["spec"], &stored["status"]), (&defaults, &Value::Null));

    let status = json!({
        "observedGeneration": 1, "phase": "Running", "progress": "1200/5000", "failed": 7, "ratePerSecond": 70,
        "replayId": "3d2c8a52-3f0e-4a54-9f0a-2f5d6e1f7c10",
        "conditions": [{"type": "Running", "status": "True", "reason": "Running", "message": "",
                        "lastTransitionTime": "2026-11-23T10:00:00Z"}],
    });
    let patch = format!("--patch={}", json!({ "status": status }));
    let name = "after-the-outage";
    let patched = ["patch", "greplay", name, "--subresource=status", "--type=merge", "--output=json", &patch];
    assert_eq!(namespace.kubectl(&patched).object()["status"], status);

    let table = namespace.kubectl(&["get", "greplay", "--output=wide"]).output();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let columns =
        ["NAME", "INTEGRATION", "PHASE", "PROGRESS", "FAILED", "AGE", "REASON", "RATE", "REPLAY", "ID"];
    assert_eq!(rows[0], columns);
    assert_eq!(rows[1][..5], [name, "acme-orders", "Running", "1200/5000", "7"]);
    assert_eq!(rows[1][6..], ["Running", "70", "3d2c8a52-3f0e-4a54-9f0a-2f5d6e1f7c10"]);

    let all = namespace.kubectl(&["explain", "greplay", "--recursive"]).output();
    assert!(!all.contains("<no description>") && all.contains("ttlSecondsAfterFinished"), "{all}");
}
