//! The location that this gateway serves: what of it concerns the interface.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use portcullis_proto::v1;

use crate::datapath::Service;

/// A location that cannot be configured.
#[derive(Debug, thiserror::Error)]
pub enum LocationError {
    #[error("the snapshot names none")]
    Missing,
    #[error("{0:?} is not an address with a prefix length")]
    Address(String),
    #[error("it gives the gateway no address")]
    NoAddress,
    #[error("{0} is not a UDP port")]
    ListenPort(u32),
    #[error("an MTU of {0} bytes: IPv6 needs 1280, and 65535 is the most there is")]
    Mtu(u32),
    #[error("{0:?} is not an address of a service")]
    ServiceAddress(String),
    #[error("{0} is not an IP protocol number")]
    ServiceProtocol(u32),
    #[error("{0} is not a port of a service")]
    ServicePort(u32),
}

/// What the interface is configured with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// For logs.
    pub name: String,
    /// The gateway's own, with the prefix length of the network. Sorted, at least one.
    pub addresses: Vec<IpNet>,
    /// UDP port of WireGuard; never 0.
    pub listen_port: u16,
    /// Bytes, from 1280.
    pub mtu: u32,
    /// Reachable before login: the portal, the resolver. Sorted.
    pub services: Vec<Service>,
    /// Senders of dropped openers are told at once.
    pub answer_drops: bool,
    /// Where plain HTTP of peers that have to log in is led, the first of each family; nowhere if empty.
    pub captive_portals: Vec<SocketAddr>,
}

impl TryFrom<v1::LocationConfig> for Location {
    type Error = LocationError;

    fn try_from(wire: v1::LocationConfig) -> Result<Self, LocationError> {
        let parse = |text: String| text.parse().map_err(|_| LocationError::Address(text));
        let mut addresses: Vec<IpNet> = wire
            .addresses
            .into_iter()
            .map(parse)
            .collect::<Result<_, _>>()?;
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.is_empty() {
            return Err(LocationError::NoAddress);
        }
        let mut services = wire
            .open_services
            .into_iter()
            .map(service)
            .collect::<Result<Vec<_>, _>>()?;
        services.sort_unstable();
        services.dedup();
        Ok(Self {
            name: wire.name,
            addresses,
            listen_port: port(wire.listen_port)
                .filter(|port| *port != 0)
                .ok_or(LocationError::ListenPort(wire.listen_port))?,
            mtu: Some(wire.mtu)
                .filter(|mtu| (1280..=65_535).contains(mtu))
                .ok_or(LocationError::Mtu(wire.mtu))?,
            services,
            answer_drops: wire.answer_drops,
            captive_portals: wire
                .captive_portals
                .into_iter()
                .map(|text| {
                    text.parse()
                        .map_err(|_| LocationError::ServiceAddress(text))
                })
                .collect::<Result<_, _>>()?,
        })
    }
}

fn service(wire: v1::OpenService) -> Result<Service, LocationError> {
    Ok(Service {
        addr: wire
            .address
            .parse::<IpAddr>()
            .map_err(|_| LocationError::ServiceAddress(wire.address))?,
        protocol: u8::try_from(wire.protocol)
            .map_err(|_| LocationError::ServiceProtocol(wire.protocol))?,
        port: port(wire.port).ok_or(LocationError::ServicePort(wire.port))?,
    })
}

fn port(number: u32) -> Option<u16> {
    u16::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire() -> v1::LocationConfig {
        v1::LocationConfig {
            name: "office".into(),
            addresses: vec!["10.77.0.1/24".into(), "fd77::1/64".into()],
            listen_port: 51820,
            mtu: 1420,
            open_services: vec![v1::OpenService {
                address: "10.77.0.1".into(),
                protocol: 6,
                port: 443,
            }],
            answer_drops: true,
            captive_portals: vec!["10.77.0.1:443".into(), "[fd77::1]:443".into()],
        }
    }

    #[test]
    fn a_location_is_parsed() {
        let location = Location::try_from(wire()).expect("valid");
        assert_eq!(location.addresses.len(), 2);
        assert_eq!(location.services[0].port, 443);
    }

    #[test]
    fn a_location_with_one_bad_value_is_refused() {
        let refused = |change: fn(&mut v1::LocationConfig)| {
            let mut wire = wire();
            change(&mut wire);
            Location::try_from(wire).expect_err("must be refused")
        };
        refused(|wire| wire.addresses.clear());
        refused(|wire| wire.addresses.push("10.77.0".into()));
        refused(|wire| wire.listen_port = 0);
        refused(|wire| wire.listen_port = 65_536);
        refused(|wire| wire.mtu = 1279);
        refused(|wire| wire.open_services[0].protocol = 256);
        refused(|wire| wire.open_services[0].port = 65_536);
        refused(|wire| wire.open_services[0].address = "portal".into());
        refused(|wire| wire.captive_portals.push("10.77.0.1".into()));
    }
}
