//! IP protocols and endpoints, between people and numbers.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// Names as in the policy language.
const NAMES: [(&str, u8); 4] = [("tcp", 6), ("udp", 17), ("icmp", 1), ("icmp6", 58)];

/// `tcp`, `udp`, `icmp`, `icmp6`, or the number.
pub(crate) fn name(number: u32) -> String {
    let known = NAMES.iter().find(|(_, known)| u32::from(*known) == number);
    known.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

/// Address and port, or the address alone.
pub(crate) fn endpoint(address: &str, port: u32) -> String {
    match port {
        0 => address.to_owned(),
        port if address.contains(':') => format!("[{address}]:{port}"),
        port => format!("{address}:{port}"),
    }
}

/// A destination on the command line: `10.9.0.2`, `10.9.0.2:22`, `10.9.0.2:53/udp`, `[fd09::2]:22`,
/// `10.9.0.2/icmp`, `10.9.0.2/47`. With a port and no protocol it is tcp, without both it is a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) address: IpAddr,
    pub(crate) protocol: u8,
    /// 0 where the protocol has none.
    pub(crate) port: u16,
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (place, protocol) = match text.split_once('/') {
            Some((place, protocol)) => (place, Some(number(protocol)?)),
            None => (text, None),
        };
        let (address, port) = split(place)?;
        let echo = if address.is_ipv4() { 1 } else { 58 };
        let protocol = protocol.unwrap_or(if port.is_some() { 6 } else { echo });
        match (matches!(protocol, 6 | 17), port) {
            (true, None) => Err(format!("which port? Write it like {}", example(address))),
            (false, Some(_)) => Err("only tcp and udp have ports".to_owned()),
            (_, port) => Ok(Self {
                address,
                protocol,
                port: port.unwrap_or(0),
            }),
        }
    }
}

fn number(text: &str) -> Result<u8, String> {
    let known = NAMES.iter().find(|(name, _)| *name == text);
    match known {
        Some((_, number)) => Ok(*number),
        None => text.parse().map_err(|_| {
            format!("{text:?} is not tcp, udp, icmp, icmp6 or the number of an IP protocol")
        }),
    }
}

fn split(place: &str) -> Result<(IpAddr, Option<u16>), String> {
    if let Ok(address) = place.parse() {
        return Ok((address, None));
    }
    let wrong = || {
        format!(
            "{place:?} is not an IP address with or without a port, like 10.9.0.2:22 or [fd09::2]:22"
        )
    };
    if let Some(bare) = place
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        let address: Ipv6Addr = bare.parse().map_err(|_| wrong())?;
        return Ok((address.into(), None));
    }
    let socket: std::net::SocketAddr = place.parse().map_err(|_| wrong())?;
    if socket.port() == 0 {
        return Err("0 is not a port".to_owned());
    }
    Ok((socket.ip(), Some(socket.port())))
}

fn example(address: IpAddr) -> String {
    endpoint(&address.to_string(), 22)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_read_strictly() {
        let read = |text: &str| {
            text.parse::<Destination>()
                .map(|d| (d.address.to_string(), d.protocol, d.port))
        };
        assert_eq!(read("10.9.0.2:22"), Ok(("10.9.0.2".into(), 6, 22)));
        assert_eq!(read("10.9.0.2:53/udp"), Ok(("10.9.0.2".into(), 17, 53)));
        assert_eq!(read("10.9.0.2"), Ok(("10.9.0.2".into(), 1, 0)));
        assert_eq!(read("fd09::2"), Ok(("fd09::2".into(), 58, 0)));
        assert_eq!(read("[fd09::2]:443"), Ok(("fd09::2".into(), 6, 443)));
        assert_eq!(read("10.9.0.2/47"), Ok(("10.9.0.2".into(), 47, 0)));
        for bad in [
            "",
            "server",
            "10.9.0.2:0",
            "10.9.0.2:65536",
            "10.9.0.2/tcp",
            "10.9.0.2:22/icmp",
            "10.9.0.2:22/x",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
