//! Which namespaces are watched, and how the watches of several fill one cache.
//!
//! What always holds: the cache counts as filled once every namespace was listed, and a watch that lists its namespace
//! again changes nothing of the others.

use std::collections::BTreeSet;

use futures::stream::{self, BoxStream, select_all};
use futures::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use kube::api::{Api, ObjectMeta};
use kube::core::DeserializeGuard;
use kube::core::error_boundary::InvalidObject;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource};

use crate::context::Watched;

/// Namespaces by name, or all of the cluster.
#[derive(Debug, Clone, Default)]
pub struct Namespaces(BTreeSet<String>);

impl Namespaces {
    /// Without a name: all of the cluster.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect())
    }

    pub fn contains(&self, namespace: &str) -> bool {
        self.0.is_empty() || self.0.contains(namespace)
    }

    /// What has to be watched to see all of them.
    pub fn apis<K>(&self, client: &Client) -> Vec<Api<K>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        if self.0.is_empty() {
            return vec![Api::all(client.clone())];
        }
        self.0.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect()
    }

    /// One of them, to see whether there is such a resource.
    pub fn first_api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match self.0.first() {
            None => Api::all(client.clone()),
            Some(namespace) => Api::namespaced(client.clone(), namespace),
        }
    }
}

type Watch<'a> = BoxStream<'a, watcher::Result<Event<Watched>>>;

/// Several watches as one, with one beginning.
pub fn merged(watches: Vec<Watch<'_>>) -> impl Stream<Item = watcher::Result<Event<Watched>>> {
    let mut merging = Merging::of(watches.len());
    let numbered = watches.into_iter().enumerate().map(|(number, watch)| {
        let watch = watch.map(move |event| (number, event));
        watch.boxed()
    });
    select_all(numbered).flat_map(move |(number, event)| {
        stream::iter(match event {
            Ok(event) => merging.next(number, event).into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        })
    })
}

/// Namespace and name.
type Key = (Option<String>, Option<String>);

fn key(object: &Watched) -> Key {
    (object.meta().namespace.clone(), object.meta().name.clone())
}

/// How far each watch is.
struct Merging {
    began: bool,
    /// Watches that have not listed yet.
    listing: BTreeSet<usize>,
    watches: Vec<Known>,
    /// Objects that went while other watches were listing.
    gone: BTreeSet<Key>,
}

#[derive(Default, Clone)]
struct Known {
    objects: BTreeSet<Key>,
    /// Those of a list that is not complete.
    listed: BTreeSet<Key>,
}

impl Merging {
    fn of(watches: usize) -> Self {
        Self {
            began: false,
            listing: (0..watches).collect(),
            watches: vec![Known::default(); watches],
            gone: BTreeSet::new(),
        }
    }

    /// What an event of a watch means for the cache of all of them.
    fn next(&mut self, number: usize, event: Event<Watched>) -> Vec<Event<Watched>> {
        let known = &mut self.watches[number];
        match event {
            Event::Init => {
                known.listed.clear();
                if std::mem::replace(&mut self.began, true) { Vec::new() } else { vec![Event::Init] }
            }
            Event::InitApply(object) => {
                known.listed.insert(key(&object));
                // Also when the list ends early: the next one then tells whether it is still there.
                known.objects.insert(key(&object));
                vec![self.applied(object)]
            }
            Event::Apply(object) => {
                known.objects.insert(key(&object));
                vec![self.applied(object)]
            }
            Event::Delete(object) => {
                let key = key(&object);
                known.objects.remove(&key);
                self.removed([key])
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut known.listed);
                let before = std::mem::replace(&mut known.objects, listed);
                let gone: Vec<Key> = before.difference(&known.objects).cloned().collect();
                let was_filling = !self.listing.is_empty();
                self.listing.remove(&number);
                let mut events = Vec::new();
                if was_filling {
                    self.gone.extend(gone);
                    if self.listing.is_empty() {
                        events.push(Event::InitDone);
                        events.extend(std::mem::take(&mut self.gone).into_iter().map(deleted));
                    }
                } else {
                    events.extend(gone.into_iter().map(deleted));
                }
                events
            }
        }
    }

    fn applied(&mut self, object: Watched) -> Event<Watched> {
        if self.listing.is_empty() {
            return Event::Apply(object);
        }
        self.gone.remove(&key(&object));
        Event::InitApply(object)
    }

    fn removed(&mut self, keys: impl IntoIterator<Item = Key>) -> Vec<Event<Watched>> {
        if self.listing.is_empty() {
            return keys.into_iter().map(deleted).collect();
        }
        self.gone.extend(keys);
        Vec::new()
    }
}

/// A cache looks at the name alone.
fn deleted((namespace, name): Key) -> Event<Watched> {
    let metadata = ObjectMeta { namespace, name, ..ObjectMeta::default() };
    Event::Delete(DeserializeGuard(Err(InvalidObject { error: "it is gone".to_owned(), metadata })))
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use kube::runtime::reflector;

    use super::*;

    fn object(namespace: &str, name: &str) -> Watched {
        let Event::Delete(object) = deleted((Some(namespace.to_owned()), Some(name.to_owned()))) else {
            panic!("not a deletion")
        };
        object
    }

    /// Feeds a cache and answers what is in it.
    fn cached(events: Vec<(usize, Event<Watched>)>) -> Option<Vec<String>> {
        let (store, mut writer) = reflector::store();
        let mut merging = Merging::of(2);
        for (number, event) in events {
            for event in merging.next(number, event) {
                writer.apply_watcher_event(&event);
            }
        }
        let is_filled = futures::FutureExt::now_or_never(store.wait_until_ready()).is_some();
        let mut names: Vec<String> = store.state().iter().map(|object| object.name_any()).collect();
        names.sort();
        is_filled.then_some(names)
    }

    fn listed(number: usize, names: &[&str]) -> Vec<(usize, Event<Watched>)> {
        let namespace = format!("ns-{number}");
        let objects = names.iter().map(|name| (number, Event::InitApply(object(&namespace, name))));
        [(number, Event::Init)].into_iter().chain(objects).chain([(number, Event::InitDone)]).collect()
    }

    #[test]
    fn the_cache_is_filled_when_every_namespace_was_listed() {
        assert_eq!(cached(listed(0, &["a"])), None);
        assert_eq!(
            cached([listed(0, &["a"]), listed(1, &["b"])].concat()),
            Some(vec!["a".into(), "b".into()])
        );
        assert_eq!(cached([listed(0, &[]), listed(1, &[])].concat()), Some(vec![]));
    }

    #[test]
    fn a_list_that_is_repeated_takes_away_what_is_gone_of_its_own_namespace_only() {
        let filled = [listed(0, &["a", "c"]), listed(1, &["b"])].concat();
        assert_eq!(
            cached([filled.clone(), listed(0, &["c", "d"])].concat()),
            Some(vec!["b".into(), "c".into(), "d".into()])
        );
        let interrupted =
            [filled, vec![(0, Event::Init), (0, Event::InitApply(object("ns-0", "e")))]].concat();
        assert_eq!(cached([interrupted, listed(0, &["a"])].concat()), Some(vec!["a".into(), "b".into()]));
    }

    #[test]
    fn what_changes_while_others_are_listed_is_not_lost() {
        let events = [
            listed(0, &["a", "b"]),
            vec![
                (0, Event::Apply(object("ns-0", "c"))),
                (0, Event::Delete(object("ns-0", "a"))),
                (0, Event::Delete(object("ns-0", "b"))),
                (0, Event::Apply(object("ns-0", "b"))),
            ],
            listed(1, &["d"]),
        ];
        assert_eq!(cached(events.concat()), Some(vec!["b".into(), "c".into(), "d".into()]));
    }

    #[test]
    fn without_a_name_all_are_watched() {
        let all = Namespaces::new([String::new(), " ".to_owned()]);
        assert!(all.contains("shop"));
        let some = Namespaces::new(["shop ".to_owned(), "desk".to_owned()]);
        assert!(some.contains("shop") && some.contains("desk") && !some.contains("other"));
    }
}
