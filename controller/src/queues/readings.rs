//! What is queued, read from RabbitMQ's management API in one request for all Integrations.
//!
//! AMQP itself tells only of ready messages; those that workers hold count too, or the last worker would be stopped
//! under its work. A queue without numbers, or one that is not in the answer, is unknown and never zero.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use grapnel_crds::names::parse_queue_name;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;
use uuid::Uuid;

use super::decide::Backlog;

/// A reading takes less than a tick.
const DEADLINE: Duration = Duration::from_secs(4);

/// About ten thousand queues: more is an answer that nobody asked for.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// The management API of one vhost.
#[derive(Debug)]
pub struct Management {
    client: reqwest::Client,
    queues: Url,
    user: String,
    password: SecretString,
}

/// The queues of each Integration, by destination; `None` for a queue without numbers.
pub type Readings = HashMap<Uuid, BTreeMap<String, Option<Backlog>>>;

impl Management {
    /// The vhost is that of `RABBITMQ_URL`, and so are the credentials when the management URL has none.
    pub fn new(management_url: &SecretString, rabbitmq_url: &SecretString) -> anyhow::Result<Self> {
        let parse = |url: &SecretString, name: &str| {
            Url::parse(url.expose_secret()).map_err(|error| anyhow::anyhow!("{name}: {error}"))
        };
        let mut base = parse(management_url, "RABBITMQ_MANAGEMENT_URL")?;
        let amqp = parse(rabbitmq_url, "RABBITMQ_URL")?;
        ensure!(matches!(base.scheme(), "http" | "https"), "RABBITMQ_MANAGEMENT_URL: must be http or https");
        let with_credentials = if base.username().is_empty() { &amqp } else { &base };
        let user = decoded(with_credentials.username());
        let password = SecretString::from(decoded(with_credentials.password().unwrap_or_default()));
        let stripped = base.set_username("").and_then(|()| base.set_password(None));
        ensure!(stripped.is_ok(), "RABBITMQ_MANAGEMENT_URL: has no host");
        let vhost = match amqp.path().strip_prefix('/').unwrap_or_default() {
            "" => "%2F",
            vhost => vhost,
        };
        let path = format!("{}/api/queues/{vhost}", base.path().trim_end_matches('/'));
        base.set_path(&path);
        // Only the columns that are needed: the whole answer is fifty times as long. Newer servers skip the rest of the
        // statistics when told so, older ones ignore it.
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

    /// Every queue under the prefix.
    pub async fn read(&self, prefix: &str) -> anyhow::Result<Readings> {
        let request =
            self.client.get(self.queues.clone()).basic_auth(&self.user, Some(self.password.expose_secret()));
        let mut response =
            request.send().await.map_err(reqwest::Error::without_url).context("ask RabbitMQ")?;
        if response.status() != reqwest::StatusCode::OK {
            bail!("RabbitMQ's management API answered {}", response.status());
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
            ensure!(body.len() + chunk.len() <= MAX_ANSWER_BYTES, "the answer is too long");
            body.extend_from_slice(&chunk);
        }
        parse(&body, prefix)
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        let hex = others.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match hex.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &others[2..];
            }
            _ => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[derive(Deserialize)]
struct Queue {
    name: String,
    messages_ready: Option<u64>,
    messages_unacknowledged: Option<u64>,
}

fn parse(body: &[u8], prefix: &str) -> anyhow::Result<Readings> {
    // A queue with numbers that are no numbers makes all unknown: then it is not the API that we know.
    let queues: Vec<Queue> = serde_json::from_slice(body).context("read RabbitMQ's answer")?;
    let mut readings = Readings::new();
    for queue in queues {
        let Some((id, destination)) = parse_queue_name(prefix, &queue.name) else { continue };
        let backlog = match (queue.messages_ready, queue.messages_unacknowledged) {
            (Some(ready), Some(unacknowledged)) => Some(Backlog { ready, unacknowledged }),
            _ => None,
        };
        readings.entry(id).or_default().insert(destination.to_owned(), backlog);
    }
    Ok(readings)
}

/// The backlog over these destinations; `None` unless all of them are known.
pub fn total<'a>(
    queues: Option<&BTreeMap<String, Option<Backlog>>>,
    mut destinations: impl Iterator<Item = &'a str>,
) -> Option<Backlog> {
    destinations.try_fold(Backlog::default(), |sum, destination| {
        let backlog = (*queues?.get(destination)?)?;
        Some(Backlog {
            ready: sum.ready.saturating_add(backlog.ready),
            unacknowledged: sum.unacknowledged.saturating_add(backlog.unacknowledged),
        })
    })
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
        let queues = readings.get(&Uuid::parse_str(ID).unwrap());
        assert_eq!(readings.len(), 1);
        assert_eq!(total(queues, ["a"].into_iter()).map(Backlog::load), Some(5));
        assert_eq!(total(queues, ["a", "b"].into_iter()), None, "one without numbers makes the sum unknown");
        assert_eq!(total(queues, ["a", "c"].into_iter()), None, "and so does one that is missing");
        assert_eq!(total(None, ["a"].into_iter()), None);
    }

    #[test]
    fn an_answer_of_another_form_is_no_reading() {
        for body in ["", "{}", r#"{"error":"x"}"#, r#"[{"name":"a","messages_ready":-1}]"#] {
            assert!(parse(body.as_bytes(), "").is_err(), "{body}");
        }
    }

    #[test]
    fn the_vhost_and_the_credentials_are_those_of_the_broker() {
        let url = |text: &str| SecretString::from(text.to_owned());
        let of = |management: &str, amqp: &str| {
            let management = Management::new(&url(management), &url(amqp)).unwrap();
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
