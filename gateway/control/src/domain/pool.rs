//! A location's address pools, and other addresses of a location.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::Invalid;

/// A pool of tunnel addresses. Its first host is the gateway's, the others are for devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pool(IpNet);

impl Pool {
    pub(crate) fn parse(text: &str) -> Result<Self, Invalid> {
        let net = network("pool", text)?;
        let smallest = if net.addr().is_ipv4() { 30 } else { 126 };
        if net.prefix_len() > smallest {
            return Err(Invalid(format!(
                "pool {net} is too small: it must hold the gateway and a device (/{smallest} or wider)"
            )));
        }
        if net.prefix_len() < 8 {
            return Err(Invalid(format!("pool {net} is too wide: /8 at most")));
        }
        let base = net.network();
        if base.is_loopback() || base.is_multicast() || base.is_unspecified() {
            return Err(Invalid(format!(
                "pool {net} cannot be used as tunnel addresses"
            )));
        }
        Ok(Self(net))
    }

    pub(crate) fn net(self) -> IpNet {
        self.0
    }

    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.0.contains(&other.0.network()) || other.0.contains(&self.0.network())
    }

    /// The gateway's address, with the pool's prefix length.
    pub(crate) fn gateway(self) -> IpNet {
        let first = at(self.0.network(), 1);
        IpNet::new(first, self.0.prefix_len()).unwrap_or(self.0)
    }

    /// The lowest free host after the gateway's.
    pub(crate) fn lowest_free(self, taken: &HashSet<IpAddr>) -> Option<IpAddr> {
        let last = match self.0 {
            IpNet::V4(net) => (1u128 << (32 - net.prefix_len())) - 2, // not the broadcast address
            IpNet::V6(net) => (1u128 << (128 - net.prefix_len())) - 1,
        };
        // One more candidate than there are taken addresses is enough to find a free one.
        (2..=last)
            .take(taken.len() + 1)
            .map(|host| at(self.0.network(), host))
            .find(|a| !taken.contains(a))
    }
}

/// A CIDR without host bits, as the clients' AllowedIPs take it.
pub(crate) fn route(text: &str) -> Result<IpNet, Invalid> {
    network("route", text)
}

/// `host:port`, the host a name, an IPv4 address or an IPv6 address in brackets. Answers the port.
pub(crate) fn endpoint(text: &str) -> Result<u16, Invalid> {
    let refused = || Invalid(format!("endpoint {text:?} is not host:port"));
    let (host, port) = text.rsplit_once(':').ok_or_else(refused)?;
    let host_ok = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.len() <= 253
                && host.split('.').all(|label| {
                    !label.is_empty()
                        && label.len() <= 63
                        && label
                            .chars()
                            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
                })
        }
    };
    match port.parse::<u16>() {
        Ok(port) if host_ok && port != 0 => Ok(port),
        _ => Err(refused()),
    }
}

fn network(what: &str, text: &str) -> Result<IpNet, Invalid> {
    let net: IpNet = text
        .parse()
        .map_err(|_| Invalid(format!("{what} {text:?} is not a network in CIDR notation")))?;
    if net.addr() != net.network() {
        return Err(Invalid(format!(
            "{what} {net} has host bits set: did you mean {}?",
            net.trunc()
        )));
    }
    Ok(net)
}

fn at(base: IpAddr, host: u128) -> IpAddr {
    match base {
        // A pool of IPv4 is 24 bits of hosts at most.
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() | host as u32).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() | host).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(text: &str) -> Pool {
        Pool::parse(text).unwrap()
    }

    #[test]
    fn pools_are_checked() {
        for bad in [
            "10.77.0.1/24",
            "10.0.0.0/31",
            "fd00::/127",
            "10.0.0.0",
            "x",
            "127.0.0.0/8",
            "::/8",
            "224.0.0.0/8",
            "0.0.0.0/0",
        ] {
            assert!(Pool::parse(bad).is_err(), "{bad}");
        }
        assert!(pool("10.0.0.0/8").overlaps(pool("10.77.0.0/24")));
        assert!(pool("10.77.0.0/24").overlaps(pool("10.0.0.0/8")));
        assert!(!pool("10.77.0.0/24").overlaps(pool("10.77.1.0/24")));
        assert!(!pool("10.77.0.0/24").overlaps(pool("fd00::/64")));
    }

    #[test]
    fn the_lowest_free_host_after_the_gateway_is_next() {
        let small = pool("10.77.0.0/29");
        assert_eq!(small.gateway().to_string(), "10.77.0.1/29");
        let mut taken = HashSet::new();
        for expected in [
            "10.77.0.2",
            "10.77.0.3",
            "10.77.0.4",
            "10.77.0.5",
            "10.77.0.6",
        ] {
            let next = small.lowest_free(&taken).unwrap();
            assert_eq!(next.to_string(), expected);
            taken.insert(next);
        }
        assert_eq!(small.lowest_free(&taken), None);
        taken.remove(&"10.77.0.4".parse().unwrap());
        assert_eq!(small.lowest_free(&taken).unwrap().to_string(), "10.77.0.4");
        assert_eq!(
            pool("fd77::/64")
                .lowest_free(&HashSet::new())
                .unwrap()
                .to_string(),
            "fd77::2"
        );
    }

    #[test]
    fn endpoints_are_checked() {
        assert_eq!(endpoint("vpn.example.org:51820").unwrap(), 51820);
        assert_eq!(endpoint("[2001:db8::1]:1").unwrap(), 1);
        for bad in [
            "",
            "vpn",
            "vpn:",
            ":1",
            "vpn:0",
            "vpn:65536",
            "2001:db8::1:1",
            "a b:1",
            "[x]:1",
        ] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }
}
