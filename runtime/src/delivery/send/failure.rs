//! Turns an error of the client into an outcome that an operator can read.
//!
//! Invariants: a message names the cause and nothing else: no URL (its query may contain a token), no address, no chain of
//! library errors. Text from a receiver, such as the names in a certificate, is bounded and has no control characters. A
//! failure of this machine never counts as an attempt.

use std::borrow::Cow;
use std::error::Error;
use std::io::{self, ErrorKind};

use http::StatusCode;

use super::connect::ConnectError;
use super::exchange::ExchangeError;
use super::tls::TlsError;
use crate::egress::{EgressError, NameError, ProxyError};
use grapnel_core::delivery::outcome::AttemptOutcome;

/// The longest message; longer than any of our own.
const LONGEST_MESSAGE: usize = 300;
/// `ENFILE`, `EMFILE`, `ENOMEM` and `ENOBUFS` on Linux: this machine is out of files or memory.
const EXHAUSTED: [i32; 4] = [23, 24, 12, 105];

/// Returns the outcome of an attempt without a connection.
pub(super) fn outcome_of_connect(error: &ConnectError) -> AttemptOutcome {
    match error {
        ConnectError::TimedOut(_) => AttemptOutcome::TimedOut { message: error.to_string() },
        ConnectError::Egress(EgressError::Name(error)) => outcome_of_name(error),
        ConnectError::Egress(error @ EgressError::NoEndpoint) => not_sent(&error.to_string()),
        ConnectError::Egress(EgressError::Connection(error)) => innermost(error),
        ConnectError::Egress(EgressError::Proxy(error)) => outcome_of_proxy(error),
        ConnectError::Tls(TlsError::Handshake(error)) => innermost(error),
        ConnectError::Tls(error @ (TlsError::Authorities(_) | TlsError::ClientCertificate(_))) => {
            not_sent(&error.to_string())
        }
        ConnectError::Tls(error @ (TlsError::ServerName | TlsError::OtherAuthority)) => {
            unreachable(&format!("TLS: {error}"))
        }
        ConnectError::Exchange(error) => outcome_of_exchange(error),
    }
}

/// Returns the outcome of a request without an answer.
pub(super) fn outcome_of_exchange(error: &ExchangeError) -> AttemptOutcome {
    match error {
        ExchangeError::Http(error) => innermost(error),
        ExchangeError::Ended => unreachable("the connection was closed before an answer came"),
    }
}

/// Returns the outcome for the most specific cause that is known, which is the innermost one.
fn innermost(error: &(dyn Error + 'static)) -> AttemptOutcome {
    let mut found = None;
    let mut next = Some(error);
    while let Some(cause) = next {
        found = known_cause(cause).or(found);
        next = cause.source();
    }
    found.unwrap_or_else(|| unreachable("the request failed"))
}

fn known_cause(cause: &(dyn Error + 'static)) -> Option<AttemptOutcome> {
    if let Some(error) = cause.downcast_ref::<rustls::Error>() {
        return Some(unreachable(&format!("TLS: {}", tls_cause(error))));
    }
    if let Some(error) = cause.downcast_ref::<hyper::Error>() {
        return Some(outcome_of_http(error));
    }
    let error = cause.downcast_ref::<io::Error>()?;
    // `source` skips an error that is wrapped in an I/O error.
    let wrapped = error.get_ref().and_then(|wrapped| known_cause(wrapped));
    wrapped.or_else(|| outcome_of_io(error))
}

/// A proxy that cannot be used is a failure of ours, and what it answers otherwise is about the receiver.
fn outcome_of_proxy(error: &ProxyError) -> AttemptOutcome {
    let message = error.to_string();
    match error {
        ProxyError::Unreachable(_) | ProxyError::Invalid(_) => not_sent(&message),
        // Some proxies answer 401 to wrong credentials and 407 to none.
        ProxyError::Refused(StatusCode::PROXY_AUTHENTICATION_REQUIRED | StatusCode::UNAUTHORIZED) => {
            not_sent(&message)
        }
        ProxyError::Refused(StatusCode::FORBIDDEN) => AttemptOutcome::Denied { message },
        ProxyError::Refused(_) => unreachable(&message),
    }
}

fn outcome_of_name(error: &NameError) -> AttemptOutcome {
    let message = bounded(&error.to_string());
    match error {
        NameError::Denied(_) => AttemptOutcome::Denied { message },
        NameError::Failed(_) => AttemptOutcome::Unreachable { message },
        NameError::TimedOut => AttemptOutcome::TimedOut { message },
    }
}

fn outcome_of_http(error: &hyper::Error) -> AttemptOutcome {
    if error.is_parse_too_large() {
        unreachable("the headers of the answer are too large")
    } else if error.is_parse() {
        unreachable("the answer is not valid HTTP")
    } else if error.is_incomplete_message() {
        unreachable("the connection was closed before an answer came")
    } else {
        // One of the library's constant descriptions.
        unreachable(&format!("HTTP: {error}"))
    }
}

/// Describes the common failures; the library's own messages are its type names.
fn tls_cause(error: &rustls::Error) -> Cow<'static, str> {
    use rustls::AlertDescription as Alert;
    use rustls::CertificateError::*;
    match error {
        rustls::Error::InvalidCertificate(UnknownIssuer) => {
            "the certificate was issued by an unknown authority".into()
        }
        rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => {
            "the certificate has expired".into()
        }
        rustls::Error::InvalidCertificate(NotValidYet | NotValidYetContext { .. }) => {
            "the certificate is not valid yet".into()
        }
        rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            "the certificate is for another name".into()
        }
        rustls::Error::AlertReceived(Alert::CertificateRequired) => {
            "the receiver requires a client certificate: tls.clientCertificateRef".into()
        }
        rustls::Error::AlertReceived(
            Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::AccessDenied,
        ) => "the receiver refused the certificate of tls.clientCertificateRef".into(),
        rustls::Error::AlertReceived(Alert::NoApplicationProtocol) => {
            "the receiver does not speak HTTP/1.1".into()
        }
        other => other.to_string().into(),
    }
}

fn outcome_of_io(error: &io::Error) -> Option<AttemptOutcome> {
    if error.raw_os_error().is_some_and(|code| EXHAUSTED.contains(&code)) {
        return Some(not_sent("this machine is out of files or memory for a connection"));
    }
    Some(match error.kind() {
        ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse => {
            not_sent("this machine has no free port for a connection")
        }
        ErrorKind::ConnectionRefused => unreachable("connection refused"),
        ErrorKind::ConnectionReset => unreachable("connection reset"),
        ErrorKind::ConnectionAborted => unreachable("connection aborted"),
        ErrorKind::BrokenPipe => unreachable("connection closed while sending"),
        ErrorKind::UnexpectedEof => unreachable("connection closed unexpectedly"),
        ErrorKind::HostUnreachable => unreachable("host unreachable"),
        ErrorKind::NetworkUnreachable => unreachable("network unreachable"),
        ErrorKind::NetworkDown => unreachable("network down"),
        ErrorKind::PermissionDenied => unreachable("connection forbidden by the network"),
        ErrorKind::TimedOut => AttemptOutcome::TimedOut { message: "connection timed out".to_owned() },
        // The system's message if there is a code; any other error is explained by the error around it.
        _ => unreachable(&error.raw_os_error().map(|_| error.to_string())?),
    })
}

fn unreachable(message: &str) -> AttemptOutcome {
    AttemptOutcome::Unreachable { message: bounded(message) }
}

fn not_sent(message: &str) -> AttemptOutcome {
    AttemptOutcome::NotSent { message: message.to_owned() }
}

fn bounded(message: &str) -> String {
    message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_io(error: io::Error) -> AttemptOutcome {
        known_cause(&error).unwrap()
    }

    #[test]
    fn a_failure_of_this_machine_is_not_an_attempt() {
        for code in EXHAUSTED {
            assert!(
                matches!(of_io(io::Error::from_raw_os_error(code)), AttemptOutcome::NotSent { .. }),
                "{code}"
            );
        }
        assert!(matches!(of_io(ErrorKind::AddrNotAvailable.into()), AttemptOutcome::NotSent { .. }));
    }

    #[test]
    fn an_error_inside_an_io_error_is_found() {
        let inner = io::Error::other(rustls::Error::HandshakeNotComplete);
        let AttemptOutcome::Unreachable { message } = of_io(io::Error::other(inner)) else {
            panic!("not unreachable")
        };
        assert!(message.starts_with("TLS: "), "{message}");
    }

    #[test]
    fn what_the_proxy_answers_is_not_always_about_the_receiver() {
        let of = |status| outcome_of_proxy(&ProxyError::Refused(status));
        let message = |status: u16| format!("the egress proxy answered {status} to CONNECT");
        assert_eq!(of(StatusCode::BAD_GATEWAY), AttemptOutcome::Unreachable { message: message(502) });
        assert_eq!(of(StatusCode::FORBIDDEN), AttemptOutcome::Denied { message: message(403) });
        let unauthorized = StatusCode::PROXY_AUTHENTICATION_REQUIRED;
        assert_eq!(of(unauthorized), AttemptOutcome::NotSent { message: message(407) });
        let unreachable = ProxyError::Unreachable(ErrorKind::ConnectionRefused.into());
        assert!(matches!(outcome_of_proxy(&unreachable), AttemptOutcome::NotSent { .. }));
    }

    #[test]
    fn text_of_a_receiver_in_a_message_is_bounded() {
        let error = rustls::Error::General(format!("a\nb\0{}", "x".repeat(10_000)));
        let AttemptOutcome::Unreachable { message } = of_io(io::Error::other(error)) else {
            panic!("not unreachable")
        };
        assert_eq!(message.len(), LONGEST_MESSAGE);
        assert!(message.starts_with("TLS: unexpected error: a b x"));
    }
}
