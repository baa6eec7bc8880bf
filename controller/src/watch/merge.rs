//! Merges the watches of several namespaces into one, so that they fill one cache.
//!
//! This re-implements what kube's reflector does for one watch: a mistake here loses or resurrects objects, so change
//! it only together with the tests below. Invariants: the cache counts as filled once every namespace has been listed,
//! and a watch that lists its namespace again changes nothing of the others.

use std::collections::BTreeSet;

use futures::stream::{self, BoxStream, select_all};
use futures::{Stream, StreamExt};
use kube::Resource;
use kube::api::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::core::error_boundary::InvalidObject;
use kube::runtime::watcher::{self, Event};

/// An object as it is watched. One that cannot be decoded does not hide the others.
type Watched<K> = DeserializeGuard<K>;

type WatchStream<'a, K> = BoxStream<'a, watcher::Result<Event<Watched<K>>>>;

/// Merges several watches into one, with one initial list.
pub fn merge_watches<K>(
    watches: Vec<WatchStream<'static, K>>,
) -> impl Stream<Item = watcher::Result<Event<Watched<K>>>>
where
    K: Resource<DynamicType = ()> + Send + 'static,
{
    let mut merge = WatchMerge::new(watches.len());
    let numbered = watches.into_iter().enumerate().map(|(number, watch)| {
        let watch = watch.map(move |event| (number, event));
        watch.boxed()
    });
    select_all(numbered).flat_map(move |(number, event)| {
        stream::iter(match event {
            Ok(event) => merge.next(number, event).into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        })
    })
}

/// Namespace and name.
type ObjectKey = (Option<String>, Option<String>);

fn key<K: Resource<DynamicType = ()>>(object: &Watched<K>) -> ObjectKey {
    (object.meta().namespace.clone(), object.meta().name.clone())
}

/// The progress of each watch.
struct WatchMerge {
    has_begun: bool,
    /// Watches that have not listed their namespace yet.
    listing: BTreeSet<usize>,
    watches: Vec<NamespaceObjects>,
    /// Objects that were deleted while other watches were listing.
    deleted: BTreeSet<ObjectKey>,
}

#[derive(Default, Clone)]
struct NamespaceObjects {
    objects: BTreeSet<ObjectKey>,
    /// The objects of a list that is not complete yet.
    listed: BTreeSet<ObjectKey>,
}

impl WatchMerge {
    fn new(watches: usize) -> Self {
        Self {
            has_begun: false,
            listing: (0..watches).collect(),
            watches: vec![NamespaceObjects::default(); watches],
            deleted: BTreeSet::new(),
        }
    }

    /// Translates an event of one watch into events for the shared cache.
    fn next<K: Resource<DynamicType = ()>>(
        &mut self,
        number: usize,
        event: Event<Watched<K>>,
    ) -> Vec<Event<Watched<K>>> {
        let known = &mut self.watches[number];
        match event {
            Event::Init => {
                known.listed.clear();
                if std::mem::replace(&mut self.has_begun, true) { Vec::new() } else { vec![Event::Init] }
            }
            Event::InitApply(object) => {
                known.listed.insert(key(&object));
                // Also if the list ends early: the next one then shows whether the object still exists.
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
                let missing: Vec<ObjectKey> = before.difference(&known.objects).cloned().collect();
                let was_filling = !self.listing.is_empty();
                self.listing.remove(&number);
                let mut events = Vec::new();
                if was_filling {
                    self.deleted.extend(missing);
                    if self.listing.is_empty() {
                        events.push(Event::InitDone);
                        events.extend(std::mem::take(&mut self.deleted).into_iter().map(deletion));
                    }
                } else {
                    events.extend(missing.into_iter().map(deletion));
                }
                events
            }
        }
    }

    fn applied<K: Resource<DynamicType = ()>>(&mut self, object: Watched<K>) -> Event<Watched<K>> {
        if self.listing.is_empty() {
            return Event::Apply(object);
        }
        self.deleted.remove(&key(&object));
        Event::InitApply(object)
    }

    fn removed<K>(&mut self, keys: impl IntoIterator<Item = ObjectKey>) -> Vec<Event<Watched<K>>> {
        if self.listing.is_empty() {
            return keys.into_iter().map(deletion).collect();
        }
        self.deleted.extend(keys);
        Vec::new()
    }
}

/// A cache identifies an object by its name alone.
fn deletion<K>((namespace, name): ObjectKey) -> Event<Watched<K>> {
    let metadata = ObjectMeta { namespace, name, ..ObjectMeta::default() };
    Event::Delete(DeserializeGuard(Err(InvalidObject {
        error: "the object no longer exists".to_owned(),
        metadata,
    })))
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use kube::runtime::reflector;

    use super::*;
    use crate::object::WatchedObject;

    fn object(namespace: &str, name: &str) -> WatchedObject {
        let Event::Delete(object) = deletion((Some(namespace.to_owned()), Some(name.to_owned()))) else {
            panic!("not a deletion")
        };
        object
    }

    /// Feeds a cache and returns the names in it.
    fn cached(events: Vec<(usize, Event<WatchedObject>)>) -> Option<Vec<String>> {
        let (store, mut writer) = reflector::store();
        let mut merge = WatchMerge::new(2);
        for (number, event) in events {
            for event in merge.next(number, event) {
                writer.apply_watcher_event(&event);
            }
        }
        let is_filled = futures::FutureExt::now_or_never(store.wait_until_ready()).is_some();
        let mut names: Vec<String> = store.state().iter().map(|object| object.name_any()).collect();
        names.sort();
        is_filled.then_some(names)
    }

    fn listed(number: usize, names: &[&str]) -> Vec<(usize, Event<WatchedObject>)> {
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
    fn a_repeated_list_removes_only_the_missing_objects_of_its_own_namespace() {
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
    fn changes_during_the_lists_of_other_namespaces_are_not_lost() {
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
}
