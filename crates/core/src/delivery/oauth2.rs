//! The client credentials grant of OAuth 2.0 (RFC 6749, section 4.4): the request for a token, and how long its answer is used.
//!
//! Nothing printed contains the client's secret or a token.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use grapnel_crds::ClientAuthentication;
use http::HeaderValue;
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use url::{Url, form_urlencoded};

/// How long a token is used that does not say how long it lives.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(300);
/// The longest use of a token.
const LONGEST_USE: Duration = Duration::from_secs(24 * 60 * 60);
/// A token is renewed this long before its end, or after nine tenths of its life if that is later: it must not end on its way.
const MARGIN: Duration = Duration::from_secs(60);
/// The longest description of an error that is repeated.
const LONGEST_ERROR: usize = 64;

/// The request for a token, prepared once.
#[derive(Clone)]
pub struct TokenRequest {
    pub url: Url,
    /// The client's id and secret by HTTP Basic, unless they are in the body.
    pub authorization: Option<HeaderValue>,
    /// A form.
    pub body: String,
}

/// The id and the secret of a client, and how they are sent.
#[derive(Clone, Copy)]
pub struct ClientCredentials<'a> {
    pub id: &'a [u8],
    pub secret: &'a [u8],
    pub sent: ClientAuthentication,
}

/// A token.
#[derive(Clone)]
pub struct AccessToken {
    /// The value of the Authorization header.
    pub authorization: HeaderValue,
    /// How long it is used.
    pub used_for: Duration,
}

/// Why an answer of a token endpoint has no token. No message contains any of the answer but its error code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The server refused.
    #[error("it answered {status}{error}")]
    Refused {
        /// The status of the answer.
        status: u16,
        /// ` (CODE)`, or nothing when there is no code.
        error: String,
    },
    /// The answer is not as the standard defines it.
    #[error("its answer has no access_token")]
    NoToken,
    /// The token is of a kind that is sent in another way.
    #[error("its answer has a token that is not a bearer token")]
    Kind,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<Seconds>,
}

/// Some servers write the number as a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(f64),
    Text(String),
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

impl TokenRequest {
    /// Prepares the request.
    pub fn new(url: Url, client: ClientCredentials<'_>, scopes: &[String], audience: Option<&str>) -> Self {
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.append_pair("grant_type", "client_credentials");
        if !scopes.is_empty() {
            body.append_pair("scope", &scopes.join(" "));
        }
        if let Some(audience) = audience {
            body.append_pair("audience", audience);
        }
        let mut body = body.finish();
        // Both are encoded as in a form, also for Basic (section 2.3.1).
        let encode = |text: &[u8]| Zeroizing::new(form_urlencoded::byte_serialize(text).collect::<String>());
        let (id, secret) = (encode(client.id), encode(client.secret));
        let authorization = match client.sent {
            ClientAuthentication::Basic => Some(basic_authorization(id.as_bytes(), secret.as_bytes())),
            ClientAuthentication::Post => {
                for part in ["&client_id=", &id, "&client_secret=", &secret] {
                    body.push_str(part);
                }
                None
            }
        };
        Self { url, authorization, body }
    }

    /// Reads an answer of the token endpoint.
    ///
    /// # Errors
    /// When the server refused, or the answer has no bearer token.
    pub fn read_answer(status: u16, body: &[u8]) -> Result<AccessToken, TokenError> {
        if !(200..300).contains(&status) {
            let code = serde_json::from_slice(body).ok().and_then(|Refusal { error }| printable(&error));
            let error = code.map(|code| format!(" ({code})")).unwrap_or_default();
            return Err(TokenError::Refused { status, error });
        }
        let answer: Answer = serde_json::from_slice(body).map_err(|_| TokenError::NoToken)?;
        let token = Zeroizing::new(answer.access_token);
        if answer.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return Err(TokenError::Kind);
        }
        if token.is_empty() {
            return Err(TokenError::NoToken);
        }
        let value = Zeroizing::new(format!("Bearer {}", *token));
        let mut authorization = HeaderValue::from_str(&value).map_err(|_| TokenError::NoToken)?;
        authorization.set_sensitive(true);
        Ok(AccessToken { authorization, used_for: used_for(answer.expires_in) })
    }
}

/// Returns the value of an Authorization header for a user name and a password.
pub fn basic_authorization(user: &[u8], password: &[u8]) -> HeaderValue {
    let pair = Zeroizing::new([user, b":", password].concat());
    let value = Zeroizing::new(format!("Basic {}", *Zeroizing::new(STANDARD.encode(&pair))));
    let mut authorization = HeaderValue::from_str(&value).expect("base64 is visible ASCII");
    authorization.set_sensitive(true);
    authorization
}

/// Returns how long a token is used whose answer says this.
fn used_for(expires_in: Option<Seconds>) -> Duration {
    let seconds = match expires_in {
        Some(Seconds::Number(seconds)) => Some(seconds),
        Some(Seconds::Text(text)) => text.trim().parse().ok(),
        None => None,
    };
    let lifetime = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let lifetime = lifetime.unwrap_or(DEFAULT_LIFETIME).min(2 * LONGEST_USE);
    lifetime.saturating_sub(MARGIN).max(lifetime.mul_f64(0.9)).min(LONGEST_USE)
}

/// Returns a short code as it can be logged.
fn printable(code: &str) -> Option<String> {
    let is_plain = |char: char| char.is_ascii_graphic();
    (code.len() <= LONGEST_ERROR && !code.is_empty() && code.chars().all(is_plain)).then(|| code.to_owned())
}

/// Two requests are equal when they ask the same in the name of the same client.
impl PartialEq for TokenRequest {
    fn eq(&self, other: &Self) -> bool {
        let header =
            |request: &Self| request.authorization.as_ref().map(|value| Sha256::digest(value.as_bytes()));
        self.url == other.url
            && Sha256::digest(&self.body) == Sha256::digest(&other.body)
            && header(self) == header(other)
    }
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRequest").field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken").field("used_for", &self.used_for).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(scopes: &[&str], audience: Option<&str>) -> TokenRequest {
        request_by(ClientAuthentication::Basic, scopes, audience)
    }

    fn request_by(sent: ClientAuthentication, scopes: &[&str], audience: Option<&str>) -> TokenRequest {
        let scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
        let url = "https://login.example.com/token".parse().unwrap();
        let client = ClientCredentials { id: b"orders:1", secret: "s\u{e9}cret &=".as_bytes(), sent };
        TokenRequest::new(url, client, &scopes, audience)
    }

    fn used(answer: &str) -> u64 {
        TokenRequest::read_answer(200, answer.as_bytes()).unwrap().used_for.as_secs()
    }

    #[test]
    fn the_request_is_the_form_of_the_standard() {
        assert_eq!(request(&[], None).body, "grant_type=client_credentials");
        assert_eq!(
            request(&["a", "https://b/.default"], Some("https://c d")).body,
            "grant_type=client_credentials&scope=a+https%3A%2F%2Fb%2F.default&audience=https%3A%2F%2Fc+d"
        );
        let basic = STANDARD.encode("orders%3A1:s%C3%A9cret+%26%3D");
        assert_eq!(request(&[], None).authorization.unwrap(), format!("Basic {basic}"));
        let post = request_by(ClientAuthentication::Post, &["a"], None);
        let form =
            "grant_type=client_credentials&scope=a&client_id=orders%3A1&client_secret=s%C3%A9cret+%26%3D";
        assert_eq!((post.body.as_str(), &post.authorization), (form, &None));
        assert_ne!(post, request(&["a"], None));
    }

    #[test]
    fn a_token_is_used_until_shortly_before_its_end() {
        assert_eq!(used(r#"{"access_token":"t","token_type":"Bearer","expires_in":3600}"#), 3540);
        assert_eq!(used(r#"{"access_token":"t","token_type":"bearer","expires_in":"3600"}"#), 3540);
        assert_eq!(used(r#"{"access_token":"t","expires_in":60}"#), 54);
        assert_eq!(used(r#"{"access_token":"t","expires_in":0}"#), 0);
        for odd in ["null", "-5", "1e300", "\"soon\""] {
            let seconds = used(&format!(r#"{{"access_token":"t","expires_in":{odd}}}"#));
            assert_eq!(seconds, 270, "{odd}");
        }
        assert_eq!(used(r#"{"access_token":"t","expires_in":31536000}"#), 86_400);
        let token = TokenRequest::read_answer(200, br#"{"access_token":"a.b-c"}"#).unwrap();
        assert_eq!(token.authorization, "Bearer a.b-c");
    }

    #[test]
    fn an_answer_without_a_bearer_token_is_an_error_that_repeats_a_code_at_most() {
        let error = |status, body: &str| TokenRequest::read_answer(status, body.as_bytes()).unwrap_err();
        let refused = error(401, r#"{"error":"invalid_client","error_description":"secret s3 is wrong"}"#);
        assert_eq!(refused.to_string(), "it answered 401 (invalid_client)");
        assert_eq!(error(503, "<html>s3</html>").to_string(), "it answered 503");
        assert_eq!(error(302, "").to_string(), "it answered 302");
        assert_eq!(
            error(400, &format!(r#"{{"error":"{}"}}"#, "x".repeat(65))).to_string(),
            "it answered 400"
        );
        for body in ["", "t", "{}", r#"{"access_token":""}"#, r#"{"access_token":"a\nb"}"#] {
            assert_eq!(error(200, body), TokenError::NoToken, "{body}");
        }
        assert_eq!(error(200, r#"{"access_token":"t","token_type":"mac"}"#), TokenError::Kind);
    }

    #[test]
    fn nothing_printed_contains_a_secret() {
        let token = TokenRequest::read_answer(200, br#"{"access_token":"t0ken"}"#).unwrap();
        let basic = basic_authorization(b"user", b"password");
        let post = request_by(ClientAuthentication::Post, &[], None);
        let printed =
            format!("{:?} {post:?} {token:?} {:?} {basic:?}", request(&[], None), token.authorization);
        assert!(
            !printed.contains("t0ken") && !printed.contains("Basic") && !printed.contains("cret"),
            "{printed}"
        );
    }
}
