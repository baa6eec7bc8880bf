//! Rights of users, for one object or for a list.
//!
//! What the API server says of a namespace, or of all, is used for 30 s, and so is a permission for an object; that an object is
//! denied, for 5 s. When it cannot be asked, permissions of the last five minutes are still used. A list is then the one that was
//! known last, and is refused where any part of it was not known.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::answers::{ASK_AGAIN_AFTER, Answers};
use crate::api_server::{ApiServer, Unavailable};
use crate::digest::{Digest, Digests};
use crate::right::{Place, Right};
use crate::user::User;

/// For this long an answer is not asked for again.
const FRESH: Duration = Duration::from_secs(30);

/// For this long the denial of an object is not asked about again.
const DENIED_FOR: Duration = Duration::from_secs(5);

/// Reviews at a time, of all users together.
const AT_A_TIME: usize = 16;

/// One request waits at most this long for all of its reviews.
const DEADLINE: Duration = Duration::from_secs(5);

/// Answers that are kept.
const MAX_ANSWERS: usize = 65_536;

/// The namespaces in which a user has a right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespaces {
    All,
    These(Vec<String>),
}

/// What is known of a right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// The API server said so now, or a moment ago.
    Now(bool),
    /// It said so before, and cannot be asked.
    Before(bool),
    Nothing,
}

/// Asks about rights, and remembers the answers.
pub struct Authorizer {
    server: ApiServer,
    digests: Digests,
    answers: Mutex<Answers<bool>>,
    /// When a question last failed.
    failed_at: Mutex<Option<Instant>>,
    permits: Semaphore,
}

impl Authorizer {
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new(server: ApiServer) -> Result<Self, ring::error::Unspecified> {
        Ok(Self {
            server,
            digests: Digests::new()?,
            answers: Mutex::new(Answers::new(MAX_ANSWERS)),
            failed_at: Mutex::new(None),
            permits: Semaphore::new(AT_A_TIME),
        })
    }

    /// Returns whether the user has the right there.
    ///
    /// # Errors
    /// When the API server cannot be asked, and did not allow it in the last minutes.
    pub async fn may(&self, user: &User, right: Right, place: Place<'_>) -> Result<bool, Unavailable> {
        let known = timeout(DEADLINE, self.ask(user, right, place, &AtomicBool::new(false))).await;
        match known.map_err(|_elapsed| Unavailable)? {
            Known::Now(allowed) => Ok(allowed),
            Known::Before(true) => Ok(true),
            Known::Before(false) | Known::Nothing => Err(Unavailable),
        }
    }

    /// Returns in which of the namespaces the user has the right.
    ///
    /// # Errors
    /// When the API server cannot be asked, and that was not known before.
    pub async fn namespaces(
        &self,
        user: &User,
        right: Right,
        namespaces: Vec<String>,
    ) -> Result<Namespaces, Unavailable> {
        let asked = timeout(DEADLINE, self.ask_each(user, right, namespaces)).await;
        asked.map_err(|_elapsed| Unavailable)?
    }

    async fn ask_each(
        &self,
        user: &User,
        right: Right,
        namespaces: Vec<String>,
    ) -> Result<Namespaces, Unavailable> {
        let is_away = AtomicBool::new(false);
        let mut is_current = match self.ask(user, right, Place::Everywhere, &is_away).await {
            Known::Now(true) | Known::Before(true) => return Ok(Namespaces::All),
            Known::Now(false) => true,
            Known::Before(false) => false,
            Known::Nothing => return Err(Unavailable),
        };
        let is_away = &is_away;
        let asked = namespaces.into_iter().map(|namespace| async move {
            let known = self.ask(user, right, Place::Namespace(&namespace), is_away).await;
            (namespace, known)
        });
        let mut answers = futures::stream::iter(asked).buffer_unordered(AT_A_TIME);
        let mut allowed = Vec::new();
        while let Some((namespace, known)) = answers.next().await {
            match known {
                Known::Now(true) | Known::Before(true) => allowed.push(namespace),
                Known::Now(false) => {}
                Known::Before(false) => is_current = false,
                Known::Nothing => return Err(Unavailable),
            }
        }
        // That nothing is allowed must be said now.
        if allowed.is_empty() && !is_current {
            return Err(Unavailable);
        }
        allowed.sort_unstable();
        Ok(Namespaces::These(allowed))
    }

    /// Returns what is known, after a question if needed. `is_away` is set by one that failed, and spares the further ones.
    async fn ask(&self, user: &User, right: Right, place: Place<'_>, is_away: &AtomicBool) -> Known {
        let question = self.question(user, right, place);
        let before = self.answers().get(&question, Instant::now());
        if let Some((allowed, age)) = before
            && age < fresh_for(allowed, place)
        {
            return Known::Now(allowed);
        }
        if self.failed_just_now() {
            is_away.store(true, Ordering::Relaxed);
        }
        let answer = if is_away.load(Ordering::Relaxed) {
            Err(Unavailable)
        } else {
            match self.permits.acquire().await {
                Ok(_permit) => self.server.review_access(user, right, place).await,
                Err(_closed) => Err(Unavailable),
            }
        };
        match (answer, before) {
            (Ok(allowed), _) => {
                self.answers().put(question, allowed, Instant::now());
                Known::Now(allowed)
            }
            (Err(Unavailable), before) => {
                if !is_away.swap(true, Ordering::Relaxed) {
                    *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                }
                before.map_or(Known::Nothing, |(allowed, _)| Known::Before(allowed))
            }
        }
    }

    fn failed_just_now(&self) -> bool {
        let failed_at = *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner);
        failed_at.is_some_and(|at| at.elapsed() < ASK_AGAIN_AFTER)
    }

    fn question(&self, user: &User, right: Right, place: Place<'_>) -> Digest {
        let (kind, namespace, name): (&[u8], _, _) = match place {
            Place::Everywhere => (b"everywhere", "", ""),
            Place::Namespace(namespace) => (b"namespace", namespace, ""),
            Place::Object { namespace, name } => (b"object", namespace, name),
        };
        let counts = [user.groups.len() as u64, user.extra.len() as u64].map(u64::to_be_bytes);
        let lengths: Vec<_> = user.extra.values().map(|values| (values.len() as u64).to_be_bytes()).collect();
        let fixed = [
            kind,
            namespace.as_bytes(),
            name.as_bytes(),
            right.resource.as_bytes(),
            right.subresource.unwrap_or_default().as_bytes(),
            right.verb.as_bytes(),
            user.name.as_bytes(),
            user.uid.as_deref().unwrap_or_default().as_bytes(),
            &counts[0],
            &counts[1],
        ];
        let groups = user.groups.iter().map(String::as_bytes);
        let extra = user.extra.iter().zip(&lengths).flat_map(|((name, values), length)| {
            [name.as_bytes(), length.as_slice()].into_iter().chain(values.iter().map(String::as_bytes))
        });
        self.digests.of(fixed.into_iter().chain(groups).chain(extra))
    }

    fn answers(&self) -> MutexGuard<'_, Answers<bool>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fresh_for(allowed: bool, place: Place<'_>) -> Duration {
    match place {
        Place::Object { .. } if !allowed => DENIED_FOR,
        _ => FRESH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: Right = Right { resource: "integrations", subresource: Some("events"), verb: "list" };

    fn jane() -> User {
        User {
            name: "jane".to_owned(),
            uid: None,
            groups: vec!["a".to_owned(), "b".to_owned()],
            extra: Default::default(),
        }
    }

    /// An authorizer that cannot ask, and was told this some time ago.
    fn told(answers: &[(Place<'_>, bool)], age: Duration) -> Authorizer {
        let authorizer = Authorizer::new(ApiServer::nowhere()).expect("random bytes");
        let at = Instant::now().checked_sub(age).expect("a machine that has been up for minutes");
        for (place, allowed) in answers {
            let question = authorizer.question(&jane(), LIST, *place);
            authorizer.answers().put(question, *allowed, at);
        }
        authorizer
    }

    async fn list(authorizer: &Authorizer) -> Result<Namespaces, Unavailable> {
        authorizer.namespaces(&jane(), LIST, vec!["bank".to_owned(), "shop".to_owned()]).await
    }

    #[tokio::test]
    async fn permissions_of_the_last_minutes_hold_while_nobody_can_be_asked() {
        let object = Place::Object { namespace: "shop", name: "acme" };
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        assert_eq!(told(&[(object, true)], minutes(4)).may(&jane(), LIST, object).await, Ok(true));
        assert_eq!(told(&[(object, true)], minutes(5)).may(&jane(), LIST, object).await, Err(Unavailable));
        assert_eq!(told(&[(object, false)], minutes(4)).may(&jane(), LIST, object).await, Err(Unavailable));
        assert_eq!(told(&[], minutes(0)).may(&jane(), LIST, object).await, Err(Unavailable));
        // A moment ago nobody needs to be asked.
        assert_eq!(told(&[(object, false)], minutes(0)).may(&jane(), LIST, object).await, Ok(false));
        // Another right, another user.
        let get = Right { verb: "get", ..LIST };
        assert_eq!(told(&[(object, true)], minutes(0)).may(&jane(), get, object).await, Err(Unavailable));
        let other = User { groups: vec!["ab".to_owned()], ..jane() };
        assert_eq!(told(&[(object, true)], minutes(0)).may(&other, LIST, object).await, Err(Unavailable));
    }

    #[tokio::test]
    async fn a_list_is_the_one_known_last_or_refused_and_never_shorter() {
        use Place::{Everywhere, Namespace};
        let before = Duration::from_secs(60);
        let shop = Namespaces::These(vec!["shop".to_owned()]);
        let known = [(Everywhere, false), (Namespace("bank"), false), (Namespace("shop"), true)];
        assert_eq!(list(&told(&known, before)).await, Ok(shop.clone()));
        assert_eq!(list(&told(&known, Duration::ZERO)).await, Ok(shop));
        assert_eq!(list(&told(&[(Everywhere, true)], before)).await, Ok(Namespaces::All));
        assert_eq!(
            list(&told(&[(Everywhere, false), (Namespace("shop"), true)], before)).await,
            Err(Unavailable)
        );
        // That nothing is allowed is only said when the API server says it.
        let nothing = [(Everywhere, false), (Namespace("bank"), false), (Namespace("shop"), false)];
        assert_eq!(list(&told(&nothing, before)).await, Err(Unavailable));
        assert_eq!(list(&told(&nothing, Duration::ZERO)).await, Ok(Namespaces::These(Vec::new())));
    }
}
