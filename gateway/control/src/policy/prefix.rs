//! Addresses and CIDRs in rules.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

use super::ports::decimal;
use super::problem::Fault;

/// Reads an address or a CIDR without host bits.
pub(super) fn parse(text: &str) -> Result<IpNet, Fault> {
    let bad = || Fault::Prefix {
        text: text.to_owned(),
    };
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| bad())?;
    let widest: u8 = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => widest,
        Some(text) => decimal(text, widest.into())
            .and_then(|length| u8::try_from(length).ok())
            .ok_or_else(bad)?,
    };
    let net = IpNet::new(address, length).map_err(|_| bad())?;
    if net.trunc() != net {
        return Err(Fault::HostBits {
            text: text.to_owned(),
            network: net.trunc(),
        });
    }
    if let IpNet::V6(v6) = net
        && mapped().is_some_and(|mapped| mapped.contains(&v6))
    {
        return Err(Fault::MappedPrefix {
            text: text.to_owned(),
        });
    }
    Ok(net)
}

/// `::ffff:0:0/96`: such an address is never on the wire, so a rule about it would never match.
fn mapped() -> Option<Ipv6Net> {
    Ipv6Net::new(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_networks() {
        for (text, net) in [
            ("10.1.0.0/16", "10.1.0.0/16"),
            ("10.1.0.5", "10.1.0.5/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fd00:1::/64", "fd00:1::/64"),
            ("fd00::1", "fd00::1/128"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), net);
        }
    }

    #[test]
    fn host_bits_are_refused_with_the_network_meant() {
        for (text, network) in [
            ("10.1.0.1/16", "10.1.0.0/16"),
            ("fd00::1/64", "fd00::/64"),
            ("1.0.0.0/0", "0.0.0.0/0"),
        ] {
            let Err(Fault::HostBits { network: found, .. }) = parse(text) else {
                panic!("{text}")
            };
            assert_eq!(found.to_string(), network);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "/",
            "10.0.0.0/",
            "/8",
            "10.0.0.0/33",
            "fd00::/129",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0.0/-1",
            "10.0.0/8",
            "010.0.0.0/8",
            " 10.0.0.0/8",
            "10.0.0.0/8 ",
            "10.0.0.0 /8",
            "10.0.0.0/8/8",
            "10.0.0.0/255.0.0.0",
            "fe80::1%eth0",
            "example.org",
            "10.0.0.0/256",
            "10.0.0.0/4294967304",
        ] {
            assert!(matches!(parse(text), Err(Fault::Prefix { .. })), "{text:?}");
        }
    }

    #[test]
    fn ipv4_mapped_addresses_are_refused() {
        for text in ["::ffff:10.0.0.1", "::ffff:10.0.0.0/104"] {
            assert!(
                matches!(parse(text), Err(Fault::MappedPrefix { .. })),
                "{text}"
            );
        }
    }
}
