use super::*;
use crate::commands::EXIT_USAGE;

#[test]
fn events_are_sent_or_were_there_before() {
    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        replay: ReplayArgs,
    }
    let parse = |more: &[&str]| {
        let base =
            ["replay", "--api", "http://127.0.0.1:1/api/v1", "--key-env", "PATH", "--integration", "a/b"];
        <Command as clap::Parser>::try_parse_from(base.iter().chain(&["--events", "7"]).chain(more))
            .map_err(|error| error.exit_code())
            .map(|command| command.replay.into_config())
    };
    let target = ["--target", "http://127.0.0.1:1/x"];
    for bad in [
        &[][..],
        &target,
        &["--present"],
        &["--present", "--run-id", "r", "--target", "http://127.0.0.1:1/x", "--secret-env", "PATH"],
        &["--present", "--run-id", "r", "--rate", "5001"],
    ] {
        assert_eq!(parse(bad).expect_err("wrong usage"), i32::from(EXIT_USAGE), "{bad:?}");
    }
    let present = ["--present", "--run-id", "r", "--destination", "one", "--destination", "two"];
    let config = parse(&present).expect("good usage").expect("a configuration");
    assert!(matches!(&config.events, FailedEvents::Present { events: 7, run_id } if run_id.as_str() == "r"));
    assert_eq!((config.destinations.len(), config.max_repeats, config.rate_per_second), (2, None, 50));
    let sent = [&target[..], &["--secret-env", "PATH", "--provider", "globex"]].concat();
    let config = parse(&sent).expect("good usage").expect("a configuration");
    assert!(matches!(&config.events, FailedEvents::Sent(run) if run.provider == Provider::Globex));
}

#[tokio::test]
async fn too_many_deliveries_to_be_counted_are_refused() {
    let of = |present: bool| {
        let target = Target::parse("http://127.0.0.1:1/").expect("a good URL");
        let events = if present {
            FailedEvents::Present { events: 100_001, run_id: RunId::random() }
        } else {
            let secret = secrecy::SecretString::from("secret");
            FailedEvents::Sent(Box::new(Config::new(
                target.clone(),
                Provider::Acme,
                secret,
                Amount::Events(100_001),
            )))
        };
        let limit = Duration::from_secs(1);
        ReplayRun::start(ReplayConfig {
            events,
            api: target,
            key: secrecy::SecretString::from("key"),
            integration: "a/b".to_owned(),
            destinations: Vec::new(),
            rate_per_second: 1,
            sink: SinkConfig::default(),
            limits: ReplayLimits { outage: limit, replay: limit, unreachable: limit, linger: limit },
            max_repeats: None,
            rate_must_be_kept: false,
        })
    };
    assert!(of(true).is_ok());
    let error = of(false).err().expect("too many");
    assert!(error.to_string().contains("100000"), "{error:#}");
}
