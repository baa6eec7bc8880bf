//! Tokens of the cluster become users.
//!
//! An accepted token is believed for a minute, a refused one is refused for 5 s, without another question. Tokens are reviewed once
//! however many requests carry one at the same time. When the API server cannot be asked, a token that it accepted in the last five
//! minutes is still accepted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};
use serde::Deserialize;

use crate::answers::{ASK_AGAIN_AFTER, Answers};
use crate::api_server::{ApiServer, Unavailable};
use crate::digest::{Digest, Digests};
use crate::review_rate::ReviewRate;
use crate::user::User;

/// The audience that tokens for Grapnel alone are made for.
const AUDIENCE: &str = "grapnel";

/// For this long an accepted token is not reviewed again.
const ACCEPTED_FOR: Duration = Duration::from_secs(60);

/// For this long a refused token is not reviewed again.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// Tokens that are remembered, accepted and refused ones apart: a flood of the latter costs none of the former.
const MAX_TOKENS: usize = 8192;

/// Longer tokens are refused unseen: the API server accepts no header of that size.
const MAX_TOKEN_BYTES: usize = 64 * 1024;

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is nobody's.
    Unknown,
    /// Too many tokens were sent, by this address or by all: try again in a second.
    TooMany,
    /// The API server cannot be asked, and has not accepted it lately.
    Unavailable,
}

type Reviewed = Result<Option<Arc<User>>, Unavailable>;
type Review = BoxFuture<'static, Reviewed>;

struct Memory {
    accepted: Answers<Arc<User>>,
    refused: Answers<()>,
    rate: ReviewRate,
    /// When the last review failed; `None` once one was answered.
    failed_at: Option<Instant>,
    /// The reviews under way, for all who wait for one.
    under_way: HashMap<Digest, WeakShared<Review>>,
}

/// Reviews tokens, and remembers what came of it.
pub struct Authenticator {
    server: ApiServer,
    digests: Digests,
    memory: Mutex<Memory>,
}

impl Authenticator {
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new(server: ApiServer) -> Result<Self, ring::error::Unspecified> {
        let memory = Memory {
            accepted: Answers::new(MAX_TOKENS),
            refused: Answers::new(MAX_TOKENS),
            rate: ReviewRate::new(Instant::now()),
            failed_at: None,
            under_way: HashMap::new(),
        };
        Ok(Self { server, digests: Digests::new()?, memory: Mutex::new(memory) })
    }

    /// Returns whom the token belongs to. `source` is what a client counts as: an address, or its network.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn authenticate(&self, token: &str, source: IpAddr) -> Result<Arc<User>, Refusal> {
        if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
            return Err(Refusal::Unknown);
        }
        let digest = self.digests.of([token.as_bytes()]);
        if let Some(known) = self.remembered(&digest, source) {
            count("cached");
            return known;
        }
        let Some(review) = self.review(digest, token, source) else {
            count("limited");
            return self.without_review(&digest);
        };
        let reviewed = review.await;
        let now = Instant::now();
        let mut memory = self.memory();
        memory.under_way.remove(&digest);
        memory.failed_at = reviewed.is_err().then_some(now);
        match reviewed {
            Ok(Some(user)) => {
                memory.accepted.put(digest, Arc::clone(&user), now);
                memory.rate.accepted(source, now);
                Ok(user)
            }
            Ok(None) => {
                memory.accepted.remove(&digest);
                memory.refused.put(digest, (), now);
                Err(Refusal::Unknown)
            }
            Err(Unavailable) => {
                memory.accepted.get(&digest, now).map(|(user, _)| user).ok_or(Refusal::Unavailable)
            }
        }
    }

    /// Returns what needs no review.
    fn remembered(&self, digest: &Digest, source: IpAddr) -> Option<Result<Arc<User>, Refusal>> {
        let now = Instant::now();
        let mut memory = self.memory();
        let failed_just_now = memory.failed_at.is_some_and(|at| now - at < ASK_AGAIN_AFTER);
        if let Some((user, age)) = memory.accepted.get(digest, now)
            && (age < ACCEPTED_FOR || failed_just_now)
        {
            memory.rate.accepted(source, now);
            return Some(Ok(user));
        }
        let refused = memory.refused.get(digest, now).is_some_and(|(_, age)| age < REFUSED_FOR);
        refused.then_some(Err(Refusal::Unknown))
    }

    /// Returns what holds for a token when there are too many to review it: while the API server is away, reviews of tokens that it
    /// accepted before only fail, and must not shut out their owners.
    fn without_review(&self, digest: &Digest) -> Result<Arc<User>, Refusal> {
        let memory = self.memory();
        let before = memory.accepted.get(digest, Instant::now()).filter(|_| memory.failed_at.is_some());
        before.map(|(user, _)| user).ok_or(Refusal::TooMany)
    }

    /// Returns the review of a token, one that is under way or a new one; `None`: there are too many.
    fn review(&self, digest: Digest, token: &str, source: IpAddr) -> Option<Shared<Review>> {
        let mut memory = self.memory();
        if let Some(under_way) = memory.under_way.get(&digest).and_then(WeakShared::upgrade) {
            count("cached");
            return Some(under_way);
        }
        if !memory.rate.take(source, Instant::now()) {
            return None;
        }
        let (server, token) = (self.server.clone(), token.to_owned());
        let review: Review = Box::pin(async move {
            let audience = is_for_grapnel(&token).then_some(AUDIENCE);
            let reviewed = server.review_token(&token, audience).await;
            count(match reviewed {
                Ok(Some(_)) => "accepted",
                Ok(None) => "refused",
                Err(Unavailable) => "unavailable",
            });
            Ok(reviewed?.map(Arc::new))
        });
        let review = review.shared();
        // Those whose every waiter has gone are still listed.
        memory.under_way.retain(|_, review| review.upgrade().is_some());
        if let Some(shared) = review.downgrade() {
            memory.under_way.insert(digest, shared);
        }
        Some(review)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a token by what became of it: `cached` without a question of its own, `limited` without any, and the answers of the API server.
fn count(outcome: &'static str) {
    metrics::counter!("grapnel_token_reviews_total", "outcome" => outcome).increment(1);
}

/// Returns whether a token says that it is for Grapnel. It only decides which question the API server is asked, which then proves
/// or denies it.
fn is_for_grapnel(token: &str) -> bool {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Several(Vec<String>),
    }
    #[derive(Deserialize)]
    struct Claims {
        aud: Audience,
    }
    let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    match claims.and_then(|json| serde_json::from_slice::<Claims>(&json).ok()) {
        Some(Claims { aud: Audience::One(audience) }) => audience == AUDIENCE,
        Some(Claims { aud: Audience::Several(audiences) }) => audiences.iter().any(|name| name == AUDIENCE),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audience_is_read_from_the_claims() {
        let token = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        assert!(is_for_grapnel(&token(r#"{"aud":"grapnel"}"#)));
        assert!(is_for_grapnel(&token(r#"{"aud":["other","grapnel"],"sub":"x"}"#)));
        for other in [
            token(r#"{"aud":["https://kubernetes.default.svc"]}"#),
            token(r#"{"aud":"grapnel2"}"#),
            token(r#"{"sub":"grapnel"}"#),
            token("nonsense"),
            "e30.%%%.x".to_owned(),
            "opaque".to_owned(),
            String::new(),
        ] {
            assert!(!is_for_grapnel(&other), "{other}");
        }
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// An authenticator that cannot ask, and accepted the token some time ago.
    fn that_accepted(token: &str, age: Duration) -> Authenticator {
        let authenticator = Authenticator::new(ApiServer::nowhere()).expect("random bytes");
        let user = User { name: "jane".to_owned(), uid: None, groups: Vec::new(), extra: Default::default() };
        let at = Instant::now().checked_sub(age).expect("a machine that has been up for minutes");
        let digest = authenticator.digests.of([token.as_bytes()]);
        authenticator.memory().accepted.put(digest, Arc::new(user), at);
        authenticator
    }

    #[tokio::test]
    async fn tokens_of_the_last_minutes_are_accepted_while_nobody_can_be_asked() {
        let name = async |authenticator: &Authenticator, token: &str| {
            authenticator.authenticate(token, HERE).await.map(|user| user.name.clone())
        };
        let authenticator = that_accepted("jane's", Duration::from_secs(200));
        // More often than reviews are made.
        for _ in 0..20 {
            assert_eq!(name(&authenticator, "jane's").await, Ok("jane".to_owned()));
        }
        assert_eq!(
            name(&that_accepted("jane's", Duration::from_secs(300)), "jane's").await,
            Err(Refusal::Unavailable)
        );
        assert_eq!(
            name(&that_accepted("jane's", Duration::ZERO), "another").await,
            Err(Refusal::Unavailable)
        );
        assert_eq!(name(&that_accepted("jane's", Duration::ZERO), "").await, Err(Refusal::Unknown));
    }

    #[tokio::test]
    async fn a_flood_of_tokens_is_refused_unasked() {
        let authenticator = that_accepted("jane's", Duration::ZERO);
        let mut refused = 0;
        for number in 0..100 {
            let answer = authenticator.authenticate(&format!("random-{number}"), HERE).await;
            refused += usize::from(answer == Err(Refusal::TooMany));
        }
        assert!(refused > 0);
        assert_eq!(
            authenticator.authenticate("jane's", HERE).await.map(|user| user.name.clone()),
            Ok("jane".to_owned())
        );
    }
}
