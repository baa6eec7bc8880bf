//! Processes are killed while a replay runs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::{counts, failed, insert_failed, integration, read, start, wait_for_state};
use crate::harness::Platform;
use crate::harness::tally::Tally;
use grapnel_testing::wait_until;

const EVENTS: u32 = 120;

#[tokio::test]
async fn each_delivery_is_fed_once_whoever_is_killed() {
    let receiver = Tally::new(Duration::from_millis(20), |_| reqwest::StatusCode::OK).await;
    let platform = Platform::new().await;
    let (mut api, mut worker) = platform.start_api_and_worker(&integration(&receiver.url(), 40)).await;
    insert_failed(&platform, "e", EVENTS).await;
    let id = start(&platform, &failed(&json!({"ratePerSecond": 60}))).await;
    for part in 1..=3_u64 {
        wait_until("a part to be fed", async || {
            let fed = platform.count("SELECT fed FROM replay_jobs").await;
            fed >= (part * 20).cast_signed()
        })
        .await;
        match part {
            1 => {
                worker.kill();
                worker = platform.start(&["worker"]);
            }
            2 => {
                api.kill();
                api = platform.start(&["api"]);
                platform.wait_until_accepting().await;
            }
            _ => {
                api.kill();
                worker.kill();
                (api, worker) = (platform.start(&["api"]), platform.start(&["worker"]));
                platform.wait_until_accepting().await;
            }
        }
    }
    let replay = wait_for_state(&platform, &id, "Completed").await;
    assert_eq!(counts(&replay), [EVENTS.into(), EVENTS.into(), 0, 0]);
    // An attempt that was interrupted has no number: each was fed once.
    assert_eq!(platform.count("SELECT count(*) FROM deliveries WHERE attempts = 4").await, i64::from(EVENTS));
    assert_eq!(platform.count("SELECT count(*) FROM replay_deliveries").await, 0);
    let requests: BTreeMap<_, _> = receiver.counts().into_iter().collect();
    assert_eq!(requests.len(), EVENTS as usize);
    drop((api, worker));
    assert_eq!(read_after(&platform).await, "Completed");
}

/// The state as it is stored.
async fn read_after(platform: &Platform) -> String {
    platform.database.text("SELECT state FROM replay_jobs").await.expect("a replay")
}

#[tokio::test]
async fn a_rate_is_kept_by_a_new_leader() {
    let receiver = Tally::new(Duration::ZERO, |_| reqwest::StatusCode::OK).await;
    let platform = Platform::new().await;
    let (mut api, _worker) = platform.start_api_and_worker(&integration(&receiver.url(), 100)).await;
    insert_failed(&platform, "e", 200).await;
    let id = start(&platform, &failed(&json!({"ratePerSecond": 10}))).await;
    wait_until("some to be fed", async || platform.count("SELECT fed FROM replay_jobs").await >= 5).await;
    api.kill();
    let before = platform.count("SELECT fed FROM replay_jobs").await;
    let _api = platform.start(&["api"]);
    wait_until("more to be fed", async || platform.count("SELECT fed FROM replay_jobs").await > before).await;
    // What was not fed meanwhile is not made up for: half a second's worth at most, and what the rate allows since.
    let fed = platform.count("SELECT fed FROM replay_jobs").await;
    assert!(fed <= before + 7, "{before} {fed}");
    platform.wait_until_accepting().await;
    let replay = read(&platform, &id).await;
    assert_eq!(replay["ratePerSecond"], 10);
}
