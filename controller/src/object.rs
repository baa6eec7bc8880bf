//! Integrations as they are watched, and what can be read from one that cannot be decoded.

use std::time::Duration;

use futures::FutureExt;
use grapnel_core::ids::IntegrationId;
use grapnel_crds::{Integration, names};
use jiff::Timestamp;
use kube::Resource;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{Lookup, ObjectRef, Store};

/// An Integration as it is watched. An object that cannot be decoded does not hide the others.
pub type WatchedObject = DeserializeGuard<Integration>;

pub fn object_ref(object: &WatchedObject) -> ObjectRef<WatchedObject> {
    ObjectRef::from_obj(object)
}

/// Returns the id of an object, even if the rest of it cannot be decoded.
pub fn id_of(object: &WatchedObject) -> IntegrationId {
    let meta = object.meta();
    let namespace = meta.namespace.as_deref().unwrap_or(names::DEFAULT_NAMESPACE);
    let name = meta.name.as_deref().unwrap_or_default();
    IntegrationId::new(names::integration_id(meta.uid.as_deref(), namespace, name))
}

/// Returns the id of an Integration.
pub fn integration_id(integration: &Integration) -> IntegrationId {
    IntegrationId::new(integration.id())
}

/// Cuts a time to the second, as the API server keeps it: it is compared with what the server sends back.
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Waits until a cache has been filled for the first time.
///
/// Of several tasks that wait for one store only the last is woken (kube-runtime 5.0), so this polls.
pub async fn wait_until_filled<K>(store: &Store<K>)
where
    K: Lookup<DynamicType = ()> + Clone + 'static,
{
    while store.wait_until_ready().now_or_never().is_none() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
