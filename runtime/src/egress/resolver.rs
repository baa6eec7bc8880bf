//! Resolves the names that the process dials on behalf of others, and returns only permitted addresses.
//!
//! Invariants: exactly the addresses returned here are dialed, each of which was checked, so a name that changes between
//! check and connection (DNS rebinding) gains nothing. Waiting for a lookup has a deadline, and a name has at most one
//! lookup in progress, so a name whose servers hang occupies one thread and not one per delivery.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::time::timeout;

use grapnel_core::delivery::egress_policy::{DeniedAddress, EgressPolicy};

/// Shorter than the connect deadline, so that a lookup that hangs is reported as such. The lookup itself continues, and the
/// next attempt finds its result.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(4);
/// How long a successful result is reused; a failure is not. The system's resolver does not return a lifetime; this is
/// short enough for a failover by DNS and saves a lookup per delivery to receivers that close every connection.
const RESULT_LIFETIME: Duration = Duration::from_secs(5);
/// Outdated results are removed when there are this many names.
const NAMES_BEFORE_SWEEP: usize = 1024;

/// A name without a permitted address.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum NameError {
    #[error(transparent)]
    Denied(DeniedAddress),
    #[error("the name of the destination could not be resolved: {0}")]
    Failed(Arc<str>),
    #[error("resolving the name of the destination took longer than {} s", LOOKUP_DEADLINE.as_secs())]
    TimedOut,
}

type LookupResult = Result<Arc<[IpAddr]>, Arc<str>>;
pub(super) type LookupFn = fn(&str) -> io::Result<Vec<IpAddr>>;

/// The resolver of every client. It remembers results for a few seconds.
pub(super) struct PermittedResolver {
    policy: Arc<EgressPolicy>,
    look_up: LookupFn,
    lookups: Mutex<HashMap<String, Lookup>>,
}

struct Lookup {
    result: Shared<BoxFuture<'static, LookupResult>>,
    /// Unset while the lookup runs; then the time at which it succeeded, or `None` if it failed. Set by the thread that runs
    /// it, because a result that arrives after all waiters have given up is not taken until much later.
    succeeded_at: Arc<OnceLock<Option<Instant>>>,
}

impl Lookup {
    /// Starts a lookup on a thread of its own. It runs to its end even if nothing waits for it.
    fn start(look_up: LookupFn, name: String) -> Self {
        let succeeded_at = Arc::new(OnceLock::new());
        let guard = LookupGuard(Arc::clone(&succeeded_at));
        let running = tokio::task::spawn_blocking(move || {
            let addresses = look_up(&name)?;
            guard.0.get_or_init(|| Some(Instant::now()));
            io::Result::Ok(addresses)
        });
        let result = async move {
            match running.await {
                Ok(Ok(addresses)) => Ok(addresses.into()),
                Ok(Err(error)) => Err(reason(&error).into()),
                Err(_) => Err("the lookup was abandoned".into()),
            }
        };
        Self { result: result.boxed().shared(), succeeded_at }
    }

    fn is_usable(&self, now: Instant) -> bool {
        match self.succeeded_at.get() {
            None => true,
            Some(None) => false,
            Some(Some(at)) => now.saturating_duration_since(*at) < RESULT_LIFETIME,
        }
    }
}

/// Dropped when a lookup ends in any way, so that none counts as in progress indefinitely.
struct LookupGuard(Arc<OnceLock<Option<Instant>>>);

impl Drop for LookupGuard {
    fn drop(&mut self) {
        self.0.get_or_init(|| None);
    }
}

impl PermittedResolver {
    pub(super) fn new(policy: Arc<EgressPolicy>) -> Self {
        Self::with_look_up(policy, ask_system)
    }

    /// Returns the addresses of a name that may be dialed.
    pub(super) async fn permitted_addresses(&self, name: &str) -> Result<Vec<IpAddr>, NameError> {
        permitted(&self.policy, &self.any_addresses(name).await?)
    }

    /// Returns the addresses of a name that the operator chose, whatever they are.
    pub(super) async fn any_addresses(&self, name: &str) -> Result<Arc<[IpAddr]>, NameError> {
        let result = timeout(LOOKUP_DEADLINE, self.lookup(name)).await;
        result.map_err(|_| NameError::TimedOut)?.map_err(NameError::Failed)
    }

    pub(super) fn with_look_up(policy: Arc<EgressPolicy>, look_up: LookupFn) -> Self {
        Self { policy, look_up, lookups: Mutex::default() }
    }

    /// Returns the current or recent lookup of `name`, or starts a new one.
    fn lookup(&self, name: &str) -> Shared<BoxFuture<'static, LookupResult>> {
        let now = Instant::now();
        // Nothing panics while this is held, and the map is consistent between any two statements.
        let mut lookups = self.lookups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lookup) = lookups.get(name).filter(|lookup| lookup.is_usable(now)) {
            return lookup.result.clone();
        }
        if lookups.len() >= NAMES_BEFORE_SWEEP {
            lookups.retain(|_, lookup| lookup.is_usable(now));
        }
        let lookup = Lookup::start(self.look_up, name.to_owned());
        let result = lookup.result.clone();
        lookups.insert(name.to_owned(), lookup);
        result
    }
}

fn ask_system(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

/// Returns the cause without the standard library's preamble ("failed to lookup address information: ").
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.rsplit(": ").next().unwrap_or_default().to_owned()
}

/// Returns the addresses that may be dialed. If there are none, the name is denied for the class of the first one.
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
        resolver.permitted_addresses(name).await.map_err(|error| error.to_string())
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
        assert!(matches!(error, NameError::Denied(DeniedAddress { class: AddressClass::Private })));
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
        let look_up: LookupFn = |_| Err(io::Error::other("failed to lookup: Name or service not known"));
        let resolver = PermittedResolver::with_look_up(Arc::default(), look_up);
        let message = "the name of the destination could not be resolved: Name or service not known";
        assert_eq!(resolve(&resolver, "gone.example").await, Err(message.to_owned()));
    }

    #[tokio::test]
    async fn concurrent_attempts_share_one_lookup_per_name() {
        static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
        let look_up: LookupFn = |_| {
            LOOKUPS.fetch_add(1, Ordering::SeqCst);
            Ok(vec![IpAddr::from([1, 1, 1, 1])])
        };
        let resolver = PermittedResolver::with_look_up(Arc::default(), look_up);
        let same = (0..50).map(|_| resolve(&resolver, "a.example"));
        for result in futures::future::join_all(same).await {
            assert_eq!(result.unwrap(), addresses(&["1.1.1.1"]));
        }
        assert_eq!(LOOKUPS.load(Ordering::SeqCst), 1);
        resolve(&resolver, "b.example").await.unwrap();
        assert_eq!(LOOKUPS.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_successful_result_is_used_for_its_lifetime() {
        let resolver = PermittedResolver::with_look_up(Arc::default(), |_| Ok(vec![[1, 1, 1, 1].into()]));
        resolve(&resolver, "a.example").await.unwrap();
        let lookups = resolver.lookups.lock().unwrap();
        let lookup = &lookups["a.example"];
        let succeeded = lookup.succeeded_at.get().unwrap().unwrap();
        assert!(lookup.is_usable(succeeded));
        assert!(!lookup.is_usable(succeeded + RESULT_LIFETIME));
    }

    #[tokio::test]
    async fn a_failure_is_not_used_again() {
        let resolver = PermittedResolver::with_look_up(Arc::default(), |_| Err(io::Error::other("gone")));
        resolve(&resolver, "a.example").await.unwrap_err();
        let lookups = resolver.lookups.lock().unwrap();
        assert!(!lookups["a.example"].is_usable(Instant::now()));
    }
}
