//! Resolves the names of destinations, and lets only permitted addresses through.
//!
//! What always holds: the connector dials exactly the addresses returned here, each of which was judged, so a name
//! that changes between a check and a connection (DNS rebinding) gains nothing. IP literals never come here; they are
//! judged before each request. A lookup is given up after a deadline, and one name has at most one lookup under way,
//! so a name whose servers hang occupies one thread and not one per delivery.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::time::timeout;

use grapnel_core::delivery::egress_policy::{Denied, EgressPolicy};

/// Shorter than the connect deadline, so that a lookup that hangs is reported as one. The lookup itself goes on, and
/// the next attempt finds its result.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(4);
/// How long a good answer is used again after it came; a failure is not. The system's resolver does not tell its lifetime; this is short enough for a
/// failover by DNS and spares receivers that close every connection a lookup per delivery.
const ANSWER_LIFETIME: Duration = Duration::from_secs(5);
/// Outdated answers are swept out when there are this many names.
const NAMES_BEFORE_SWEEP: usize = 1024;

/// Why a name led to no address that may be dialed. Found again in the chain of the client's error.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum NameError {
    #[error(transparent)]
    Denied(Denied),
    #[error("the name of the destination could not be resolved: {0}")]
    Failed(Arc<str>),
    #[error("resolving the name of the destination took longer than {} s", LOOKUP_DEADLINE.as_secs())]
    TimedOut,
}

type Answer = Result<Arc<[IpAddr]>, Arc<str>>;
type LookUp = fn(&str) -> io::Result<Vec<IpAddr>>;

/// The resolver given to the HTTP client.
pub(super) struct PermittedResolver {
    policy: Arc<EgressPolicy>,
    look_up: LookUp,
    lookups: Mutex<HashMap<String, Lookup>>,
}

struct Lookup {
    answer: Shared<BoxFuture<'static, Answer>>,
    /// Unset while the lookup runs; then when it succeeded, or `None` when it failed. Set by the thread that runs it,
    /// because an answer that came after everyone had given up waiting is not taken until much later.
    succeeded: Arc<OnceLock<Option<Instant>>>,
}

impl Lookup {
    /// Starts on a thread of its own, and runs to its end whether or not anyone waits for it.
    fn begin(look_up: LookUp, name: String) -> Self {
        let succeeded = Arc::new(OnceLock::new());
        let ending = Ending(Arc::clone(&succeeded));
        let running = tokio::task::spawn_blocking(move || {
            let addresses = look_up(&name)?;
            ending.0.get_or_init(|| Some(Instant::now()));
            io::Result::Ok(addresses)
        });
        let answer = async move {
            match running.await {
                Ok(Ok(addresses)) => Ok(addresses.into()),
                Ok(Err(error)) => Err(reason(&error).into()),
                Err(_) => Err("the lookup was abandoned".into()),
            }
        };
        Self { answer: answer.boxed().shared(), succeeded }
    }

    fn is_usable(&self, now: Instant) -> bool {
        match self.succeeded.get() {
            None => true,
            Some(None) => false,
            Some(Some(at)) => now.saturating_duration_since(*at) < ANSWER_LIFETIME,
        }
    }
}

/// Dropped when a lookup ends in any way, so that none counts as under way for ever.
struct Ending(Arc<OnceLock<Option<Instant>>>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.get_or_init(|| None);
    }
}

impl PermittedResolver {
    pub(super) fn new(policy: Arc<EgressPolicy>) -> Self {
        Self::with_look_up(policy, ask_system)
    }

    fn with_look_up(policy: Arc<EgressPolicy>, look_up: LookUp) -> Self {
        Self { policy, look_up, lookups: Mutex::default() }
    }

    /// The lookup of `name` that is under way or recent, else a new one.
    fn answer(&self, name: &str) -> Shared<BoxFuture<'static, Answer>> {
        let now = Instant::now();
        // Nothing panics while this is held, and the map is whole between any two statements.
        let mut lookups = self.lookups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lookup) = lookups.get(name).filter(|lookup| lookup.is_usable(now)) {
            return lookup.answer.clone();
        }
        if lookups.len() >= NAMES_BEFORE_SWEEP {
            lookups.retain(|_, lookup| lookup.is_usable(now));
        }
        let lookup = Lookup::begin(self.look_up, name.to_owned());
        let answer = lookup.answer.clone();
        lookups.insert(name.to_owned(), lookup);
        answer
    }
}

impl Resolve for PermittedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let answer = self.answer(name.as_str());
        let policy = Arc::clone(&self.policy);
        Box::pin(async move {
            let addresses = timeout(LOOKUP_DEADLINE, answer)
                .await
                .map_err(|_| NameError::TimedOut)?
                .map_err(NameError::Failed)?;
            let permitted = permitted(&policy, &addresses)?;
            let sockets = permitted.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(sockets) as Addrs)
        })
    }
}

fn ask_system(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

/// The cause without the standard library's preamble ("failed to lookup address information: ").
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.rsplit(": ").next().unwrap_or_default().to_owned()
}

/// The addresses that may be dialed. A name of which none may be is denied for the class of its first.
fn permitted(policy: &EgressPolicy, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, NameError> {
    let mut permitted = Vec::with_capacity(addresses.len());
    let mut first_denial = None;
    for &address in addresses {
        match policy.permits(address) {
            Ok(()) => permitted.push(address),
            Err(denied) => first_denial = first_denial.or(Some(denied)),
        }
    }
    match (permitted.is_empty(), first_denial) {
        (false, _) => Ok(permitted),
        (true, Some(denied)) => Err(NameError::Denied(denied)),
        (true, None) => Err(NameError::Failed("it has no address".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use grapnel_core::delivery::egress_policy::AddressClass;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    async fn resolve(resolver: &PermittedResolver, name: &str) -> Result<Vec<IpAddr>, String> {
        match resolver.resolve(name.parse().unwrap()).await {
            Ok(addresses) => Ok(addresses.map(|address| address.ip()).collect()),
            Err(error) => Err(error.downcast_ref::<NameError>().unwrap().to_string()),
        }
    }

    #[test]
    fn only_permitted_addresses_of_a_name_remain() {
        let policy = EgressPolicy::default();
        let mixed = addresses(&["10.0.0.1", "1.1.1.1", "::1", "2606:4700::1"]);
        assert_eq!(permitted(&policy, &mixed).unwrap(), addresses(&["1.1.1.1", "2606:4700::1"]));
    }

    #[test]
    fn a_name_without_a_permitted_address_is_denied() {
        let policy = EgressPolicy::default();
        let error = permitted(&policy, &addresses(&["10.0.0.1", "::1"])).unwrap_err();
        assert!(matches!(error, NameError::Denied(Denied { class: AddressClass::Private })));
        assert!(matches!(permitted(&policy, &[]).unwrap_err(), NameError::Failed(_)));
    }

    #[tokio::test]
    async fn a_name_that_is_loopback_is_denied() {
        let resolver = PermittedResolver::new(Arc::new(EgressPolicy::default()));
        let message = "the destination is a loopback address, which the platform does not allow";
        assert_eq!(resolve(&resolver, "localhost").await, Err(message.to_owned()));
    }

    #[tokio::test]
    async fn a_failure_is_reported_with_its_cause() {
        let look_up: LookUp = |_| Err(io::Error::other("failed to lookup: Name or service not known"));
        let resolver = PermittedResolver::with_look_up(Arc::default(), look_up);
        let message = "the name of the destination could not be resolved: Name or service not known";
        assert_eq!(resolve(&resolver, "gone.example").await, Err(message.to_owned()));
    }

    #[tokio::test]
    async fn attempts_at_the_same_time_share_one_lookup_per_name() {
        static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
        let look_up: LookUp = |_| {
            LOOKUPS.fetch_add(1, Ordering::SeqCst);
            Ok(vec![IpAddr::from([1, 1, 1, 1])])
        };
        let resolver = PermittedResolver::with_look_up(Arc::default(), look_up);
        let same = (0..50).map(|_| resolve(&resolver, "a.example"));
        for answer in futures::future::join_all(same).await {
            assert_eq!(answer.unwrap(), addresses(&["1.1.1.1"]));
        }
        assert_eq!(LOOKUPS.load(Ordering::SeqCst), 1);
        resolve(&resolver, "b.example").await.unwrap();
        assert_eq!(LOOKUPS.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_good_answer_is_used_for_its_lifetime() {
        let resolver = PermittedResolver::with_look_up(Arc::default(), |_| Ok(vec![[1, 1, 1, 1].into()]));
        resolve(&resolver, "a.example").await.unwrap();
        let lookups = resolver.lookups.lock().unwrap();
        let lookup = &lookups["a.example"];
        let succeeded = lookup.succeeded.get().unwrap().unwrap();
        assert!(lookup.is_usable(succeeded));
        assert!(!lookup.is_usable(succeeded + ANSWER_LIFETIME));
    }

    #[tokio::test]
    async fn a_failure_is_not_used_again() {
        let resolver = PermittedResolver::with_look_up(Arc::default(), |_| Err(io::Error::other("gone")));
        resolve(&resolver, "a.example").await.unwrap_err();
        let lookups = resolver.lookups.lock().unwrap();
        assert!(!lookups["a.example"].is_usable(Instant::now()));
    }
}
