//! Authenticating proxies, such as oauth2-proxy and Pomerium, which know who the visitor is.
//!
//! A proxy is believed if the connection comes from its network *and* the request has its secret: in a cluster, addresses alone can be another
//! pod's a moment later. What it says is a name and groups, whose rights the API server judges. Names of the system are not believed: a proxy that
//! lets a visitor choose a header would otherwise make everybody an administrator of the cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;

use grapnel_access::User;
use http::{HeaderMap, HeaderName};
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

/// The header with the secret.
pub(super) const SECRET_HEADER: &str = "x-grapnel-proxy-secret";

/// The names that belong to Kubernetes itself.
const RESERVED: &str = "system:";

const MAX_NAME_BYTES: usize = 256;
const MAX_GROUPS: usize = 256;

/// The proxies that are believed.
pub(super) struct IdentityProxies {
    networks: Vec<IpNet>,
    secret: SecretString,
    user_header: HeaderName,
    groups_header: HeaderName,
}

/// What a request says of its visitor.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Claimed {
    /// It comes from no proxy, or from one that names nobody.
    Nobody,
    User(User),
    /// It must not be believed; why.
    Refused(&'static str),
}

impl IdentityProxies {
    pub(super) fn new(
        networks: Vec<IpNet>,
        secret: SecretString,
        user_header: HeaderName,
        groups_header: HeaderName,
    ) -> Self {
        Self { networks, secret, user_header, groups_header }
    }

    /// Returns whom a request from this peer names.
    pub(super) fn claimed(&self, peer: IpAddr, headers: &HeaderMap) -> Claimed {
        if !self.networks.iter().any(|network| network.contains(&peer.to_canonical())) {
            return Claimed::Nobody;
        }
        let secrets: Vec<_> = headers.get_all(SECRET_HEADER).iter().collect();
        match &secrets[..] {
            [] => return Claimed::Nobody,
            [given] if given.as_bytes().ct_eq(self.secret.expose_secret().as_bytes()).into() => {}
            _ => return Claimed::Refused("The proxy has another secret than the one that is configured"),
        }
        let mut users = headers.get_all(&self.user_header).iter();
        let name = match (users.next(), users.next()) {
            (None, _) => return Claimed::Nobody,
            (Some(name), None) => name.to_str().map(str::trim).unwrap_or_default(),
            (Some(_), Some(_)) => return Claimed::Refused("The proxy names several users"),
        };
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Claimed::Refused("The proxy names a user whose name is empty, too long or not ASCII");
        }
        let mut groups = Vec::new();
        for line in headers.get_all(&self.groups_header) {
            let Ok(line) = line.to_str() else {
                return Claimed::Refused("The proxy names a group that is not ASCII");
            };
            groups
                .extend(line.split(',').map(str::trim).filter(|group| !group.is_empty()).map(str::to_owned));
        }
        if groups.len() > MAX_GROUPS {
            return Claimed::Refused("The proxy names more than 256 groups");
        }
        let is_reserved =
            |name: &str| name.get(..RESERVED.len()).is_some_and(|start| start.eq_ignore_ascii_case(RESERVED));
        if is_reserved(name) || groups.iter().any(|group| is_reserved(group)) {
            return Claimed::Refused(
                "The proxy names a user or a group that begins with system:, which only the cluster itself may give",
            );
        }
        Claimed::User(User { name: name.to_owned(), uid: None, groups, extra: BTreeMap::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef";

    fn claimed(peer: &str, headers: &[(&'static str, &str)]) -> Claimed {
        let proxies = IdentityProxies::new(
            vec!["10.1.0.0/16".parse().unwrap()],
            SecretString::from(SECRET),
            HeaderName::from_static("x-forwarded-user"),
            HeaderName::from_static("x-forwarded-groups"),
        );
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        proxies.claimed(peer.parse().unwrap(), &map)
    }

    #[test]
    fn a_proxy_with_its_secret_names_a_user_and_groups() {
        let headers =
            [(SECRET_HEADER, SECRET), ("x-forwarded-user", "jane"), ("x-forwarded-groups", "ops, dev,,")];
        let Claimed::User(user) = claimed("10.1.2.3", &headers) else { panic!("nobody") };
        assert_eq!((user.name.as_str(), user.groups), ("jane", vec!["ops".to_owned(), "dev".to_owned()]));
        assert_eq!(claimed("10.2.0.1", &headers), Claimed::Nobody);
        assert_eq!(claimed("10.1.2.3", &headers[1..]), Claimed::Nobody);
        assert_eq!(claimed("10.1.2.3", &headers[..1]), Claimed::Nobody);
    }

    #[test]
    fn names_of_the_system_and_what_is_ambiguous_are_refused() {
        let named = |more: &[(&'static str, &str)]| {
            let mut headers = vec![(SECRET_HEADER, SECRET)];
            headers.extend_from_slice(more);
            claimed("10.1.2.3", &headers)
        };
        for refused in [
            named(&[("x-forwarded-user", "system:admin")]),
            named(&[("x-forwarded-user", "System:admin")]),
            named(&[("x-forwarded-user", "jane"), ("x-forwarded-groups", "dev,system:masters")]),
            named(&[
                ("x-forwarded-user", "jane"),
                ("x-forwarded-groups", "dev"),
                ("x-forwarded-groups", " system:masters"),
            ]),
            named(&[("x-forwarded-user", "jane"), ("x-forwarded-user", "root")]),
            named(&[("x-forwarded-user", "jane"), (SECRET_HEADER, SECRET)]),
            named(&[("x-forwarded-user", " ")]),
            claimed("10.1.2.3", &[(SECRET_HEADER, "another secret..."), ("x-forwarded-user", "jane")]),
        ] {
            assert!(matches!(refused, Claimed::Refused(_)), "{refused:?}");
        }
    }
}
