//! The namespaces that are watched.

use std::collections::BTreeSet;

use k8s_openapi::NamespaceResourceScope;
use kube::api::Api;
use kube::{Client, Resource};

/// Namespaces by name, or all of the cluster.
#[derive(Debug, Clone, Default)]
pub struct WatchedNamespaces(BTreeSet<String>);

impl WatchedNamespaces {
    /// Without a name, all namespaces of the cluster are watched.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect())
    }

    pub fn contains(&self, namespace: &str) -> bool {
        self.0.is_empty() || self.0.contains(namespace)
    }

    /// Returns the APIs that must be watched to see all of them.
    pub fn apis<K>(&self, client: &Client) -> Vec<Api<K>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        if self.0.is_empty() {
            return vec![Api::all(client.clone())];
        }
        self.0.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect()
    }

    /// Returns the API of one of them, to check whether the resource exists.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_name_all_are_watched() {
        let all = WatchedNamespaces::new([String::new(), " ".to_owned()]);
        assert!(all.contains("shop"));
        let some = WatchedNamespaces::new(["shop ".to_owned(), "desk".to_owned()]);
        assert!(some.contains("shop") && some.contains("desk") && !some.contains("other"));
    }
}
