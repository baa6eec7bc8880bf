//! Receivers as they are: servers that close connections, that prefer HTTP/2, and that are behind a proxy.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use grapnel_testing::certificates::file;
use grapnel_testing::{
    Environment, TestProcess, TestReceiver, acme_event, free_port, unique_name, wait_until,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::harness::{Platform, acme_integration, destination};
use super::{attempts, delivery, destination_with, wait_until_finished};

/// A server from a package, with its configuration in a directory of its own. Both are gone when it is dropped.
pub(super) struct Server {
    process: TestProcess,
    directory: PathBuf,
    pub(super) port: u16,
}

impl Server {
    /// `configure` gets the directory and the port, and returns the text of the configuration; its path follows `arguments`.
    pub(super) async fn start(
        program: &str,
        arguments: &[&str],
        configure: impl FnOnce(&Path, u16) -> String,
    ) -> Self {
        let directory = std::env::temp_dir().join(unique_name("grapnel-server"));
        std::fs::create_dir_all(&directory).expect("a directory");
        let port = free_port();
        let path = directory.join("configuration");
        std::fs::write(&path, configure(&directory, port)).expect("a configuration");
        let path = path.to_str().expect("a path in UTF-8");
        let arguments = [arguments, &[path]].concat();
        let process = TestProcess::start(Path::new(program), &arguments, &Environment::new([]), &directory);
        let server = Self { process, directory, port };
        let listens = async || TcpStream::connect(("127.0.0.1", port)).await.is_ok();
        wait_until(&format!("{program} to listen"), listens).await;
        server
    }

    /// nginx with TLS that offers HTTP/2, and a keep-alive of 2 s. `more` is added to the server.
    async fn nginx(more: &str) -> Self {
        Self::start("/usr/sbin/nginx", &["-c"], |directory, port| {
            for name in ["root.pem", "localhost.pem", "server.key"] {
                std::fs::write(directory.join(name), file(name)).expect("a file");
            }
            let directory = directory.display();
            let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|name| format!("    {name}_temp_path {directory}/{name};\n"))
                .concat();
            format!(
                "daemon off;
master_process off;
pid {directory}/pid;
error_log stderr;
events {{}}
http {{
{paths}    log_format counted '$http_webhook_id $server_protocol $ssl_client_verify $ssl_client_fingerprint';
    access_log {directory}/access counted;
    keepalive_timeout 2s;
    keepalive_requests 7;
    server {{
        listen 127.0.0.1:{port} ssl http2;
        ssl_certificate {directory}/localhost.pem;
        ssl_certificate_key {directory}/server.key;
        ssl_client_certificate {directory}/root.pem;
        {more}
        location / {{ return 200 taken; }}
    }}
}}
"
            )
        })
        .await
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.join(name)).unwrap_or_default()
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.process.log());
        }
        // A server may still write there.
        let _removed = std::fs::remove_dir_all(&self.directory);
    }
}

/// Reads a request, and returns its `webhook-id`; `None` when the connection has ended.
async fn read_webhook_id(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    loop {
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
        let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&read[..end]).into_owned();
        let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let length: usize = value("content-length: ")?.parse().expect("a length");
        if read.len() >= end + 4 + length {
            return value("webhook-id: ");
        }
    }
}

#[tokio::test]
async fn receiver_that_closes_connections_unannounced_costs_no_attempt() {
    const EVENTS: usize = 60;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let (answered, met) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
    let (recorded, counted) = (Arc::clone(&answered), Arc::clone(&met));
    let receiver = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (recorded, counted) = (Arc::clone(&recorded), Arc::clone(&counted));
            tokio::spawn(async move {
                // After three answers the next request meets a connection that is being closed.
                for _ in 0..3 {
                    let Some(id) = read_webhook_id(&mut stream).await else { return };
                    recorded.lock().expect("no panic").push(id);
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    stream.write_all(answer).await.expect("an answer");
                }
                if read_webhook_id(&mut stream).await.is_some() {
                    *counted.lock().expect("no panic") += 1;
                }
            });
        }
    });
    let platform = Platform::new().await;
    let destination = destination_with("orders", &url, "{maxAttempts: 1}", "maxConcurrency: 2,");
    let _running = platform.start_api_and_worker(&acme_integration(&[destination])).await;
    for number in 0..EVENTS {
        platform.post_acme(&acme_event(&format!("e-{number}"))).await;
    }
    wait_until_finished(&platform, 60).await;
    let succeeded = "SELECT count(*) FROM deliveries WHERE status = 'succeeded'";
    assert_eq!(platform.count(succeeded).await, 60);
    let made = attempts(&platform, "orders").await;
    assert!(made.len() == EVENTS && made.iter().all(|(number, ..)| *number == 1), "{made:?}");
    let answered = answered.lock().expect("no panic").clone();
    assert_eq!(answered.len(), EVENTS, "each once");
    assert_eq!(answered.iter().collect::<HashSet<_>>().len(), EVENTS);
    assert!(*met.lock().expect("no panic") > 0, "no request met a connection that was being closed");
    receiver.abort();
}

#[tokio::test]
async fn odd_answers_count_as_what_their_status_says() {
    const ODD: [(&str, &str); 4] = [
        ("space", "X-Powered : php"),
        ("name", "X Powered By: php"),
        ("folded", "x-folded: one\r\n two"),
        ("latin", "x-place: K\u{f6}ln"),
    ];
    let receiver = grapnel_testing::RawReceiver::new(|path| {
        let line =
            ODD.iter().find(|(name, _)| path == format!("/{name}")).map(|(_, line)| (*line).to_owned());
        let line = line.unwrap_or_else(|| (0..150).map(|number| format!("x-{number}: a\r\n")).collect());
        Some(format!("HTTP/1.1 200 OK\r\n{}\r\ncontent-length: 2\r\n\r\nok", line.trim_end()).into_bytes())
    })
    .await;
    let platform = Platform::new().await;
    let names: Vec<&str> = ODD.iter().map(|(name, _)| *name).chain(["many"]).collect();
    let destinations: Vec<String> = names
        .iter()
        .map(|name| destination_with(name, &receiver.url(&format!("/{name}")), "{maxAttempts: 1}", ""))
        .collect();
    let _running = platform.start_api_and_worker(&acme_integration(&destinations)).await;
    platform.post_acme(&acme_event("e-1")).await;
    wait_until_finished(&platform, 5).await;
    for name in names {
        assert_eq!(delivery(&platform, name).await, ("succeeded".to_owned(), None), "{name}");
    }
}

#[tokio::test]
async fn nginx_that_offers_http_2_and_closes_soon_loses_nothing() {
    let nginx = Server::nginx("").await;
    let mut platform = Platform::new().await;
    platform.set("GRAPNEL_EGRESS_CA_FILE", &nginx.path("root.pem"));
    let url = format!("https://localhost:{}/", nginx.port);
    let destination = destination_with("orders", &url, "{maxAttempts: 1}", "");
    let _running = platform.start_api_and_worker(&acme_integration(&[destination])).await;
    for number in 0..30 {
        platform.post_acme(&acme_event(&format!("e-{number}"))).await;
    }
    wait_until_finished(&platform, 30).await;
    let succeeded = "SELECT count(*) FROM deliveries WHERE status = 'succeeded'";
    assert_eq!(platform.count(succeeded).await, 30);
    let log = nginx.file("access");
    let ids: HashSet<&str> = log.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(ids.len(), 30, "{log}");
    assert!(log.lines().all(|line| line.contains(" HTTP/1.1 ")), "{log}");
}

/// Returns the documents of an Integration, and of the Secret with its authority and its certificate.
fn with_certificate(url: &str, certificate: &str) -> String {
    let tls = "tls: {caRef: {name: client}, clientCertificateRef: {name: client}},";
    let values: String = [("ca.crt", "root.pem"), ("tls.crt", certificate), ("tls.key", "signer.key")]
        .map(|(key, name)| format!("  {key}: {}\n", STANDARD.encode(file(name))))
        .concat();
    let destination = destination_with("orders", url, "{maxAttempts: 1}", tls);
    format!(
        "{}---\napiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\n\
         metadata: {{name: client, namespace: test, labels: {{grapnel.dev/destination: 'true'}}}}\ndata:\n{values}",
        acme_integration(&[destination])
    )
}

#[tokio::test]
async fn client_certificate_is_presented_and_follows_its_secret() {
    let nginx = Server::nginx("ssl_verify_client on;").await;
    let platform = Platform::new().await;
    let url = format!("https://localhost:{}/", nginx.port);
    let _running = platform.start_api_and_worker(&with_certificate(&url, "client.pem")).await;
    platform.post_acme(&acme_event("e-1")).await;
    wait_until_finished(&platform, 1).await;
    assert_eq!(delivery(&platform, "orders").await, ("succeeded".to_owned(), None));
    // HTTP is answered 400 without a certificate.
    let fingerprints = || -> HashSet<String> {
        let log = nginx.file("access");
        assert!(log.lines().all(|line| line.contains(" HTTP/1.1 SUCCESS ")), "{log}");
        log.lines().filter_map(|line| line.split(' ').nth(3)).map(str::to_owned).collect()
    };
    assert_eq!(fingerprints().len(), 1);

    platform.apply(&with_certificate(&url, "sns.pem")).await;
    let mut posted = 1;
    wait_until("the rotated certificate", async || {
        posted += 1;
        platform.post_acme(&acme_event(&format!("e-{posted}"))).await;
        wait_until_finished(&platform, posted).await;
        fingerprints().len() == 2
    })
    .await;
    let failed = "SELECT count(*) FROM deliveries WHERE status <> 'succeeded'";
    assert_eq!(platform.count(failed).await, 0);
}

#[tokio::test]
async fn receiver_with_an_unknown_authority_is_refused_without_the_file() {
    let nginx = Server::nginx("").await;
    let platform = Platform::new().await;
    let url = format!("https://localhost:{}/", nginx.port);
    let destination = destination_with("orders", &url, "{maxAttempts: 1}", "");
    let _running = platform.start_api_and_worker(&acme_integration(&[destination])).await;
    platform.post_acme(&acme_event("e-1")).await;
    wait_until_finished(&platform, 1).await;
    let error =
        "gave up after 1 attempts; the last one: TLS: the certificate was issued by an unknown authority";
    assert_eq!(delivery(&platform, "orders").await, ("failed".to_owned(), Some(error.to_owned())));
    assert_eq!(nginx.file("access"), "");
}

#[tokio::test]
async fn deliveries_go_through_the_proxy_to_judged_addresses() {
    let (direct, receiver) = (TestReceiver::new().await, TestReceiver::new().await);
    let proxy = Server::start("/usr/bin/tinyproxy", &["-d", "-c"], |directory, port| {
        let directory = directory.display();
        format!(
            "Port {port}
Listen 127.0.0.1
Timeout 60
MaxClients 50
Allow 127.0.0.1
BasicAuth grapnel proxy-word
LogLevel Connect
LogFile \"{directory}/log\"
PidFile \"{directory}/pid\"
"
        )
    })
    .await;
    let mut platform = Platform::new().await;
    platform.set("GRAPNEL_EGRESS_PROXY", &format!("http://grapnel:proxy-word@127.0.0.1:{}", proxy.port));
    platform.set("GRAPNEL_NO_PROXY", "127.0.0.1, .example.com");
    let port = receiver.url("").rsplit(':').next().expect("a port").to_owned();
    let destinations = [
        destination("proxied", &format!("http://localhost:{port}/hooks")),
        destination("direct", &direct.url("/hooks")),
        destination_with("private", "http://10.0.0.1/", "{maxAttempts: 1}", ""),
    ];
    let running = platform.start_api_and_worker(&acme_integration(&destinations)).await;
    platform.post_acme(&acme_event("e-1")).await;
    wait_until_finished(&platform, 3).await;
    for name in ["proxied", "direct"] {
        assert_eq!(delivery(&platform, name).await, ("succeeded".to_owned(), None), "{name}");
    }
    assert_eq!(receiver.deliveries()[0].header("host"), format!("localhost:{port}"));
    assert_eq!(direct.deliveries().len(), 1);
    let log = proxy.file("log");
    assert!(log.contains(&format!("CONNECT 127.0.0.1:{port} ")), "{log}");
    assert!(!log.contains("CONNECT localhost") && !log.contains("10.0.0.1"), "{log}");
    for process in [&running.0, &running.1] {
        assert!(!process.log().contains("proxy-word"));
    }
}

#[tokio::test]
async fn proxy_that_refuses_the_credentials_costs_no_attempt() {
    let receiver = TestReceiver::new().await;
    let proxy = Server::start("/usr/bin/tinyproxy", &["-d", "-c"], |directory, port| {
        format!(
            "Port {port}\nListen 127.0.0.1\nMaxClients 50\nAllow 127.0.0.1\nBasicAuth grapnel proxy-word\n\
             PidFile \"{}/pid\"\n",
            directory.display()
        )
    })
    .await;
    let mut platform = Platform::new().await;
    platform.set("GRAPNEL_EGRESS_PROXY", &format!("http://grapnel:other-word@127.0.0.1:{}", proxy.port));
    let destination = destination_with("orders", &receiver.url("/"), "{maxAttempts: 1}", "");
    let _running = platform.start_api_and_worker(&acme_integration(&[destination])).await;
    platform.post_acme(&acme_event("e-1")).await;
    let why = "SELECT count(*) FROM deliveries WHERE finished_at IS NULL AND last_error LIKE '%answered 401 to CONNECT%'";
    platform.wait_for_count(why, 1).await;
    assert!(attempts(&platform, "orders").await.is_empty());
    assert!(receiver.deliveries().is_empty());
}
