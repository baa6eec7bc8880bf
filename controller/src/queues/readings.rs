//! Reads the backlog of all queues from RabbitMQ's management API, in one request for all Integrations, and counts the deliveries of
//! their messages in PostgreSQL.
//!
//! AMQP itself reports only ready messages; those that workers hold count too, or the last worker would be stopped
//! while it still has work. A queue without numbers, or one that is not in the response, is unknown and never zero.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use grapnel_core::error_chain::chain;
use grapnel_core::ids::IntegrationId;
use grapnel_crds::names::parse_queue_name;
use grapnel_store::Database;
use grapnel_store::deliveries::{self, DeliveryQueue};
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use crate::replicas::decide::Backlog;

/// Shorter than a tick.
const DEADLINE: Duration = Duration::from_secs(4);

/// Enough for ten thousand queues and more.
const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

/// Queues whose deliveries are counted by one statement.
const CHUNK: usize = 64;

/// Deliveries of one queue that are counted. A longer queue has this many, or one for each message.
const MAX_COUNTED: i64 = 20_000;

/// The management API of one vhost.
#[derive(Debug)]
pub struct ManagementApi {
    client: reqwest::Client,
    queues: Url,
    user: String,
    password: SecretString,
}

/// The queues of each Integration, by destination; `None` for a queue without numbers.
pub type QueueReadings = HashMap<IntegrationId, BTreeMap<String, Option<Backlog>>>;

impl ManagementApi {
    /// The vhost is that of `RABBITMQ_URL`, and so are the credentials when the management URL has none.
    pub fn new(management_url: &SecretString, rabbitmq_url: &SecretString) -> anyhow::Result<Self> {
        let parse = |url: &SecretString, name: &str| {
            Url::parse(url.expose_secret()).map_err(|error| anyhow::anyhow!("{name}: {error}"))
        };
        let mut base = parse(management_url, "RABBITMQ_MANAGEMENT_URL")?;
        let amqp = parse(rabbitmq_url, "RABBITMQ_URL")?;
        ensure!(matches!(base.scheme(), "http" | "https"), "RABBITMQ_MANAGEMENT_URL: must be http or https");
        let with_credentials = if base.username().is_empty() { &amqp } else { &base };
        let user = percent_decode(with_credentials.username());
        let password = SecretString::from(percent_decode(with_credentials.password().unwrap_or_default()));
        let stripped = base.set_username("").and_then(|()| base.set_password(None));
        ensure!(stripped.is_ok(), "RABBITMQ_MANAGEMENT_URL: must have a host");
        let vhost = match amqp.path().strip_prefix('/').unwrap_or_default() {
            "" => "%2F",
            vhost => vhost,
        };
        let path = format!("{}/api/queues/{vhost}", base.path().trim_end_matches('/'));
        base.set_path(&path);
        // Only the columns that are needed: the full response is fifty times as long. Newer servers skip the rest of
        // the statistics with the other two parameters; older ones ignore them.
        base.set_query(Some(
            "columns=name,messages_ready,messages_unacknowledged&disable_stats=true&enable_queue_totals=true",
        ));
        let client = reqwest::Client::builder()
            .timeout(DEADLINE)
            .connect_timeout(Duration::from_secs(2))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .context("make an HTTP client")?;
        Ok(Self { client, queues: base, user, password })
    }

    /// Reads every queue under the prefix.
    pub async fn read(&self, prefix: &str) -> anyhow::Result<QueueReadings> {
        let request =
            self.client.get(self.queues.clone()).basic_auth(&self.user, Some(self.password.expose_secret()));
        let mut response =
            request.send().await.map_err(reqwest::Error::without_url).context("ask RabbitMQ")?;
        if response.status() != reqwest::StatusCode::OK {
            bail!("RabbitMQ's management API returned {}", response.status());
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
            ensure!(body.len() + chunk.len() <= MAX_RESPONSE_BYTES, "the response is too long");
            body.extend_from_slice(&chunk);
        }
        parse(&body, prefix)
    }
}

fn percent_decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[derive(Deserialize)]
struct QueueTotals {
    name: String,
    messages_ready: Option<u64>,
    messages_unacknowledged: Option<u64>,
}

fn parse(body: &[u8], prefix: &str) -> anyhow::Result<QueueReadings> {
    // One queue with invalid numbers makes all unknown: the response then has another format than this code knows.
    let queues: Vec<QueueTotals> = serde_json::from_slice(body).context("decode RabbitMQ's response")?;
    let mut readings = QueueReadings::new();
    for queue in queues {
        let Some((id, destination)) = parse_queue_name(prefix, &queue.name) else { continue };
        let backlog = match (queue.messages_ready, queue.messages_unacknowledged) {
            (Some(ready), Some(unacknowledged)) => Some(Backlog { ready, unacknowledged, deliveries: 0 }),
            _ => None,
        };
        readings.entry(IntegrationId::new(id)).or_default().insert(destination.to_owned(), backlog);
    }
    Ok(readings)
}

/// Counts the deliveries of queues with messages, since a message can have several. Where they cannot be counted, the messages count.
pub async fn count_deliveries(db: &Database, readings: &mut QueueReadings) {
    let with_messages = readings.iter().flat_map(|(id, queues)| {
        let is_used = |backlog: &Option<Backlog>| backlog.is_some_and(|backlog| backlog.messages() > 0);
        let used = queues.iter().filter(move |(_, backlog)| is_used(backlog));
        used.map(|(destination, _)| DeliveryQueue { integration_id: *id, destination: destination.clone() })
    });
    let queues: Vec<DeliveryQueue> = with_messages.collect();
    for chunk in queues.chunks(CHUNK) {
        match deliveries::queued_counts(db, chunk, MAX_COUNTED).await {
            Ok(counts) => {
                for (queue, count) in counts {
                    let reading = readings
                        .get_mut(&queue.integration_id)
                        .and_then(|queues| queues.get_mut(&queue.destination)?.as_mut());
                    if let Some(reading) = reading {
                        reading.deliveries = count;
                    }
                }
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "queued deliveries cannot be counted");
                return;
            }
        }
    }
}

/// Returns the backlog over these destinations; `None` unless all of them are known.
pub fn total_backlog<'a>(
    queues: Option<&BTreeMap<String, Option<Backlog>>>,
    mut destinations: impl Iterator<Item = &'a str>,
) -> Option<Backlog> {
    destinations
        .try_fold(Backlog::default(), |sum, destination| Some(sum.plus((*queues?.get(destination)?)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3d2c8a52-3f0e-4a54-9f0a-2f5d6e1f7c10";

    #[test]
    fn queues_are_read_by_integration_and_destination() {
        let body = format!(
            r#"[{{"name":"grapnel.{ID}.a","messages_ready":3,"messages_unacknowledged":2}},
                {{"name":"grapnel.{ID}.b"}}, {{"name":"else","messages_ready":9,"messages_unacknowledged":9}}]"#
        );
        let readings = parse(body.as_bytes(), "").unwrap();
        let queues = readings.get(&ID.parse().unwrap());
        assert_eq!(readings.len(), 1);
        assert_eq!(total_backlog(queues, ["a"].into_iter()).map(Backlog::load), Some(5));
        assert_eq!(
            total_backlog(queues, ["a", "b"].into_iter()),
            None,
            "one without numbers makes the sum unknown"
        );
        assert_eq!(total_backlog(queues, ["a", "c"].into_iter()), None, "and so does one that is missing");
        assert_eq!(total_backlog(None, ["a"].into_iter()), None);
    }

    #[test]
    fn deliveries_count_where_they_were_counted_and_messages_elsewhere() {
        let reading = |ready, deliveries| Some(Backlog { ready, unacknowledged: 1, deliveries });
        let queues = BTreeMap::from([("a".to_owned(), reading(2, 48)), ("b".to_owned(), reading(4, 0))]);
        let total = total_backlog(Some(&queues), ["a", "b"].into_iter()).expect("a backlog");
        assert_eq!((total.load(), total.messages()), (48 + 5, 3 + 5));
        assert_eq!(total.to_string(), "backlog 53 in messages (ready 6, unacknowledged 2)");
    }

    #[test]
    fn a_response_of_another_format_is_an_error() {
        for body in ["", "{}", r#"{"error":"x"}"#, r#"[{"name":"a","messages_ready":-1}]"#] {
            assert!(parse(body.as_bytes(), "").is_err(), "{body}");
        }
    }

    #[test]
    fn the_vhost_and_the_credentials_are_those_of_the_broker() {
        let url = |text: &str| SecretString::from(text.to_owned());
        let of = |management: &str, amqp: &str| {
            let management = ManagementApi::new(&url(management), &url(amqp)).unwrap();
            let path = management.queues.path().to_owned();
            (path, management.user, management.password.expose_secret().to_owned())
        };
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            // Another test was first.
        }
        assert_eq!(
            of("http://host:15672", "amqp://me:p%40ss@host/team%2Fa"),
            ("/api/queues/team%2Fa".to_owned(), "me".to_owned(), "p@ss".to_owned())
        );
        assert_eq!(
            of("http://ops:secret@host/rabbit/", "amqp://me:mine@host"),
            ("/rabbit/api/queues/%2F".to_owned(), "ops".to_owned(), "secret".to_owned())
        );
    }
}
