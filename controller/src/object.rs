//! Integrations as they are watched, and what can be read from one that cannot be decoded.

use std::time::Duration;

use futures::FutureExt;
use grapnel_core::ids::IntegrationId;
use grapnel_crds::{Integration, names};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, ObjectMeta};
use kube::Resource;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{Lookup, ObjectRef, Store};
use serde_json::json;

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

/// Returns the field manager that last wrote fields of the spec.
pub fn last_manager(metadata: &ObjectMeta) -> Option<&str> {
    let entries = metadata.managed_fields.as_deref().unwrap_or_default();
    last_spec_entry(entries).and_then(|entry| entry.manager.as_deref())
}

/// Removes all managed fields but the name that [`last_manager`] returns: they are larger than the object.
pub fn keep_last_manager(metadata: &mut ObjectMeta) {
    let entries = metadata.managed_fields.take().unwrap_or_default();
    if let Some(last) = last_spec_entry(&entries) {
        let fields_v1 = Some(FieldsV1(json!({ "f:spec": {} })));
        metadata.managed_fields = Some(vec![ManagedFieldsEntry { fields_v1, ..last.clone() }]);
    }
}

fn last_spec_entry(entries: &[ManagedFieldsEntry]) -> Option<&ManagedFieldsEntry> {
    let writes_spec = |entry: &&ManagedFieldsEntry| {
        entry.subresource.as_deref().unwrap_or_default().is_empty()
            && entry.fields_v1.as_ref().is_some_and(|fields| fields.0.get("f:spec").is_some())
    };
    entries.iter().filter(writes_spec).max_by(|a, b| a.time.cmp(&b.time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_writer_of_the_spec_is_kept_by_name() {
        let entry = |manager: &str, subresource: Option<&str>, seconds: i64, fields: serde_json::Value| {
            let time = jiff::Timestamp::from_second(seconds).expect("a time");
            json!({
                "manager": manager, "operation": "Update", "apiVersion": "grapnel.dev/v1alpha1", "fieldsType": "FieldsV1",
                "time": time, "subresource": subresource, "fieldsV1": fields,
            })
        };
        let spec = || json!({"f:spec": {"f:route": {}}});
        let mut metadata: ObjectMeta = serde_json::from_value(json!({"managedFields": [
            entry("argocd", None, 200, spec()),
            entry("kubectl", None, 100, spec()),
            entry("grapnel-controller", None, 300, json!({"f:metadata": {"f:finalizers": {}}})),
            entry("grapnel-controller", Some("status"), 400, json!({"f:status": {}})),
        ]}))
        .expect("metadata");
        assert_eq!(last_manager(&metadata), Some("argocd"));
        keep_last_manager(&mut metadata);
        assert_eq!(last_manager(&metadata), Some("argocd"));
        assert_eq!(metadata.managed_fields.map(|fields| fields.len()), Some(1));
        assert_eq!(last_manager(&ObjectMeta::default()), None);
    }
}
