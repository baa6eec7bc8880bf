use super::*;

#[test]
fn arguments_become_a_configuration() {
    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        run: LoadArgs,
    }
    let parse = |more: &[&str]| {
        let base = ["run", "--target", "http://127.0.0.1:1/x", "--provider", "acme"];
        <Command as clap::Parser>::try_parse_from(base.iter().chain(more))
            .map_err(|error| error.exit_code())
            .map(|command| command.run.into_config())
    };
    for bad in [
        &["--events", "1"][..],
        &["--secret-env", "PATH"],
        &["--secret-env", "PATH", "--events", "1", "--duration-seconds", "1"],
        &["--secret-env", "PATH", "--secret-file", "x", "--events", "1"],
        &["--secret-env", "PATH", "--events", "1", "--rate", "5", "--concurrency", "5"],
        &["--secret-env", "PATH", "--events", "1", "--no-sink", "--sink-addr", "127.0.0.1:1"],
        &["--secret-env", "PATH", "--events", "50000001"],
        &["--secret-env", "PATH", "--events", "1", "--secret", "x"],
    ] {
        assert_eq!(parse(bad).expect_err("wrong usage"), i32::from(EXIT_USAGE), "{bad:?}");
    }
    let config =
        parse(&["--secret-env", "PATH", "--events", "1"]).expect("good usage").expect("a configuration");
    assert_eq!((config.amount, config.pace), (Amount::Events(1), Pace::Closed { clients: 64 }));
    assert!(config.sink.is_some_and(|sink| sink.addr.port() == 0 && sink.signing_key.is_none()));
    let config = parse(&["--secret-env", "PATH", "--duration-seconds", "2", "--rate", "5", "--no-sink"]);
    let config = config.expect("good usage").expect("a configuration");
    assert_eq!(config.pace, Pace::Open { rate_per_second: 5, max_in_flight: 512 });
    assert!(config.sink.is_none());
    assert!(parse(&["--secret-env", "NOT_SET_ANYWHERE", "--events", "1"]).expect("good usage").is_err());
}

#[test]
fn the_line_break_at_the_end_of_a_secret_file_is_ignored() {
    let file = std::env::temp_dir().join(format!("grapnel-loadtest-secret-{}", RunId::random().as_str()));
    for (text, secret) in
        [("s3cret\n", Some("s3cret")), ("s3cret\r\n", Some("s3cret")), (" s ", Some(" s ")), ("\n", None)]
    {
        std::fs::write(&file, text).expect("a temporary file");
        let read = read_secret(&file).ok();
        assert_eq!(read.as_ref().map(secrecy::ExposeSecret::expose_secret), secret);
    }
    std::fs::remove_file(&file).expect("it was there");
}
