//! Decides which addresses may be dialed. Pure: no lookup and no connection happens here.
//!
//! Invariants: an address that is not globally routable unicast is refused unless the platform allows its range; an IPv6
//! address that embeds an IPv4 address is classified by that one, since its packets end up there. An allowed range opens
//! an address in either form.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use url::{Host, Url};

/// The platform's policy for the addresses of destinations.
#[derive(Debug, Clone, Default)]
pub struct EgressPolicy {
    allowed: Vec<IpNet>,
}

/// A refused address. It names the class only: tenants must not learn the address to which a name resolves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the destination is a {class} address, which the platform does not allow")]
pub struct DeniedAddress {
    /// The class of the address.
    pub class: AddressClass,
}

/// A class of addresses that are not globally routable unicast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressClass {
    /// `0.0.0.0/8` and `::`.
    Unspecified,
    /// `127.0.0.0/8` and `::1`.
    Loopback,
    /// A cloud's instance metadata or host agent.
    Metadata,
    /// `169.254.0.0/16` and `fe80::/10`.
    LinkLocal,
    /// RFC 1918, unique local and site-local.
    Private,
    /// `100.64.0.0/10`, RFC 6598.
    CarrierGradeNat,
    /// `224.0.0.0/4` and `ff00::/8`.
    Multicast,
    /// `255.255.255.255`.
    Broadcast,
    /// RFC 5737, RFC 3849 and RFC 9637.
    Documentation,
    /// `198.18.0.0/15`, RFC 2544.
    Benchmarking,
    /// Everything else outside of the globally routable ranges.
    Reserved,
    /// A server that the platform itself uses; of any range, and whatever is allowed.
    Datastore,
}

impl EgressPolicy {
    /// Refuses addresses that are not globally routable, except in `allowed`.
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed }
    }

    /// Checks the address of a URL that has one instead of a name. A client dials it without asking its resolver. `Url` has
    /// already parsed every form of an address, such as `0x7f.1` and `2130706433`.
    ///
    /// # Errors
    /// When it may not be dialed.
    pub fn permits_literal(&self, url: &Url) -> Result<(), DeniedAddress> {
        match url.host() {
            Some(Host::Ipv4(address)) => self.permits(address.into()),
            Some(Host::Ipv6(address)) => self.permits(address.into()),
            Some(Host::Domain(_)) | None => Ok(()),
        }
    }

    /// Checks whether `address` may be dialed.
    ///
    /// # Errors
    /// When its class is refused and no allowed range contains it.
    pub fn permits(&self, address: IpAddr) -> Result<(), DeniedAddress> {
        let effective = effective_address(address);
        match class_of(effective) {
            None => Ok(()),
            Some(_) if self.allows(address, effective) => Ok(()),
            Some(class) => Err(DeniedAddress { class }),
        }
    }

    /// Checks whether the address of a Service's endpoint may be dialed. Pods may have an address of any network, so only what
    /// can never be a pod's is refused.
    ///
    /// # Errors
    /// When its class is refused and no allowed range contains it.
    pub fn permits_endpoint(&self, address: IpAddr) -> Result<(), DeniedAddress> {
        let effective = effective_address(address);
        match class_of(effective) {
            Some(class) if !class.may_be_a_pods() && !self.allows(address, effective) => {
                Err(DeniedAddress { class })
            }
            _ => Ok(()),
        }
    }

    /// Returns whether the platform allows this address by itself, and not only a range with it.
    pub fn names(&self, address: IpAddr) -> bool {
        let is_single = |net: &&IpNet| net.prefix_len() == net.max_prefix_len();
        self.allowed.iter().filter(is_single).any(|net| net.contains(&address))
    }

    fn allows(&self, address: IpAddr, effective: IpAddr) -> bool {
        self.allowed.iter().any(|net| net.contains(&address) || net.contains(&effective))
    }
}

impl AddressClass {
    /// Returns whether a cluster may give such an address to a pod. Some use carrier-grade NAT, benchmarking or reserved ranges.
    const fn may_be_a_pods(self) -> bool {
        match self {
            Self::Private
            | Self::CarrierGradeNat
            | Self::Documentation
            | Self::Benchmarking
            | Self::Reserved => true,
            Self::Unspecified
            | Self::Loopback
            | Self::Metadata
            | Self::LinkLocal
            | Self::Multicast
            | Self::Broadcast
            | Self::Datastore => false,
        }
    }
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::Metadata => "cloud metadata",
            Self::LinkLocal => "link-local",
            Self::Private => "private",
            Self::CarrierGradeNat => "carrier-grade NAT",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Documentation => "documentation",
            Self::Benchmarking => "benchmarking",
            Self::Reserved => "reserved",
            Self::Datastore => "datastore",
        })
    }
}

/// Returns the address at which packets to an address end up.
pub fn effective_address(address: IpAddr) -> IpAddr {
    embedded_ipv4(address).map_or(address, IpAddr::V4)
}

/// `None` for globally routable unicast.
fn class_of(effective: IpAddr) -> Option<AddressClass> {
    match effective {
        IpAddr::V4(address) => class_of_ipv4(address),
        IpAddr::V6(address) => class_of_ipv6(address),
    }
}

/// Returns the IPv4 address at which packets to an IPv6 address end up: mapped `::ffff:0:0/96`, compatible `::/96` (deprecated,
/// RFC 4291), translated `::ffff:0:0:0/96` (RFC 7915), NAT64 `64:ff9b::/96` (RFC 6052) and 6to4 `2002::/16` (RFC 3056).
fn embedded_ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let (high, low) = match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => return None, // unspecified and loopback
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => (high, low),
        [0, 0, 0, 0, 0xffff, 0, high, low] => (high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => (high, low),
        [0x2002, high, low, ..] => (high, low),
        _ => return None,
    };
    Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
}

/// `None` for globally routable unicast. After the IANA registry of special-purpose addresses.
fn class_of_ipv4(address: Ipv4Addr) -> Option<AddressClass> {
    use AddressClass::*;
    Some(match address.octets() {
        // AWS, Azure, Google Cloud and others; Alibaba Cloud; Oracle Cloud; Azure's host agent, which is in a public range.
        [169, 254, 169, 254] | [100, 100, 100, 200] | [192, 0, 0, 192] | [168, 63, 129, 16] => Metadata,
        [0, ..] => Unspecified,
        [127, ..] => Loopback,
        [169, 254, ..] => LinkLocal,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Private,
        [100, 64..=127, ..] => CarrierGradeNat,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Documentation,
        [198, 18..=19, ..] => Benchmarking,
        // Protocol assignments (RFC 6890) and the former anycast of 6to4 relays (RFC 7526).
        [192, 0, 0, _] | [192, 88, 99, _] => Reserved,
        [224..=239, ..] => Multicast,
        [255, 255, 255, 255] => Broadcast,
        [240..=255, ..] => Reserved,
        _ => return None,
    })
}

/// Returns `None` for globally routable unicast, which is `2000::/3` without its reserved parts. Closed rather than open: a
/// range that is assigned in the future is refused until it is added here.
fn class_of_ipv6(address: Ipv6Addr) -> Option<AddressClass> {
    use AddressClass::*;
    Some(match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Loopback,
        // AWS and Google Cloud.
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => Metadata,
        [0xfe80..=0xfebf, ..] => LinkLocal,
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Private,
        [0xff00..=0xffff, ..] => Multicast,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Documentation,
        // Protocol assignments (RFC 2928), including Teredo and ORCHID: no receiver has such an address.
        [0x2001, 0..=0x1ff, ..] => Reserved,
        [0x2000..=0x3fff, ..] => return None,
        _ => Reserved,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use AddressClass::*;

    fn permits(policy: &EgressPolicy, address: &str) -> Result<(), AddressClass> {
        policy.permits(address.parse().unwrap()).map_err(|denied| denied.class)
    }

    fn allowing(nets: &[&str]) -> EgressPolicy {
        EgressPolicy::new(nets.iter().map(|net| net.parse().unwrap()).collect())
    }

    #[test]
    fn global_unicast_is_permitted() {
        let policy = EgressPolicy::default();
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::1",
            "2606:4700:4700::1111",
            "3ffe::1",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::1",
        ] {
            assert_eq!(permits(&policy, address), Ok(()), "{address}");
        }
    }

    #[test]
    fn every_other_address_is_refused_by_class() {
        let policy = EgressPolicy::default();
        for (address, class) in [
            ("0.0.0.0", Unspecified),
            ("0.255.255.255", Unspecified),
            ("::", Unspecified),
            ("127.0.0.1", Loopback),
            ("127.255.255.255", Loopback),
            ("::1", Loopback),
            ("169.254.169.254", Metadata),
            ("100.100.100.200", Metadata),
            ("192.0.0.192", Metadata),
            ("168.63.129.16", Metadata),
            ("fd00:ec2::254", Metadata),
            ("fd20:ce::254", Metadata),
            ("169.254.0.1", LinkLocal),
            ("fe80::1", LinkLocal),
            ("febf:ffff::1", LinkLocal),
            ("10.0.0.1", Private),
            ("172.16.0.1", Private),
            ("172.31.255.255", Private),
            ("192.168.255.255", Private),
            ("fc00::1", Private),
            ("fdff:ffff::1", Private),
            ("fec0::1", Private),
            ("100.64.0.0", CarrierGradeNat),
            ("100.127.255.255", CarrierGradeNat),
            ("224.0.0.1", Multicast),
            ("239.255.255.255", Multicast),
            ("ff02::1", Multicast),
            ("255.255.255.255", Broadcast),
            ("192.0.2.1", Documentation),
            ("198.51.100.1", Documentation),
            ("203.0.113.1", Documentation),
            ("2001:db8::1", Documentation),
            ("3fff:fff::1", Documentation),
            ("198.18.0.0", Benchmarking),
            ("198.19.255.255", Benchmarking),
            ("192.0.0.1", Reserved),
            ("192.88.99.1", Reserved),
            ("240.0.0.1", Reserved),
            ("255.255.255.254", Reserved),
            ("100::1", Reserved),
            ("64:ff9b:1::a00:1", Reserved),
            ("2001::1", Reserved),
            ("2001:1ff::1", Reserved),
            ("4000::1", Reserved),
            ("5f00::1", Reserved),
        ] {
            assert_eq!(permits(&policy, address), Err(class), "{address}");
        }
    }

    #[test]
    fn an_address_that_embeds_ipv4_is_classified_by_it() {
        let policy = EgressPolicy::default();
        for (address, class) in [
            ("::ffff:127.0.0.1", Loopback),
            ("::127.0.0.1", Loopback),
            ("::ffff:0:127.0.0.1", Loopback),
            ("64:ff9b::127.0.0.1", Loopback),
            ("2002:7f00:1::1", Loopback),
            ("::ffff:169.254.169.254", Metadata),
            ("64:ff9b::169.254.169.254", Metadata),
            ("2002:a9fe:a9fe::", Metadata),
            ("::ffff:10.0.0.1", Private),
            ("::ffff:0.0.0.0", Unspecified),
            ("::2", Unspecified),
            ("::ffff:255.255.255.255", Broadcast),
        ] {
            assert_eq!(permits(&policy, address), Err(class), "{address}");
        }
    }

    #[test]
    fn an_allowed_range_opens_itself_and_nothing_else() {
        let policy = allowing(&["10.1.0.0/16", "fd12::/16"]);
        assert_eq!(permits(&policy, "10.1.2.3"), Ok(()));
        assert_eq!(permits(&policy, "::ffff:10.1.2.3"), Ok(()));
        assert_eq!(permits(&policy, "fd12::1"), Ok(()));
        assert_eq!(permits(&policy, "1.1.1.1"), Ok(()));
        assert_eq!(permits(&policy, "10.2.0.1"), Err(Private));
        assert_eq!(permits(&policy, "fd13::1"), Err(Private));
        assert_eq!(permits(&policy, "127.0.0.1"), Err(Loopback));
        assert_eq!(permits(&policy, "fd00:ec2::254"), Err(Metadata));
    }

    #[test]
    fn an_endpoint_has_any_address_that_a_pod_can_have() {
        let check = |policy: &EgressPolicy, address: &str| {
            policy.permits_endpoint(address.parse().unwrap()).map_err(|denied| denied.class)
        };
        let policy = EgressPolicy::default();
        for address in
            ["10.244.0.7", "100.64.3.4", "198.18.0.9", "240.0.0.4", "1.2.3.4", "fd00::7", "2001:db8::7"]
        {
            assert_eq!(check(&policy, address), Ok(()), "{address}");
        }
        for (address, class) in [
            ("127.0.0.1", Loopback),
            ("::1", Loopback),
            ("::ffff:127.0.0.1", Loopback),
            ("0.0.0.0", Unspecified),
            ("::", Unspecified),
            ("169.254.169.254", Metadata),
            ("fd00:ec2::254", Metadata),
            ("169.254.20.10", LinkLocal),
            ("fe80::1", LinkLocal),
            ("224.0.0.1", Multicast),
            ("255.255.255.255", Broadcast),
            ("64:ff9b::7f00:1", Loopback),
        ] {
            assert_eq!(check(&policy, address), Err(class), "{address}");
        }
        assert_eq!(check(&allowing(&["127.0.0.0/8"]), "127.0.0.1"), Ok(()));
    }

    #[test]
    fn the_message_names_the_class_and_no_address() {
        let denied = EgressPolicy::default().permits(Ipv4Addr::LOCALHOST.into()).unwrap_err();
        let message = "the destination is a loopback address, which the platform does not allow";
        assert_eq!(denied.to_string(), message);
    }
}
