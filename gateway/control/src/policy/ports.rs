//! Entries of `ports`: protocols, and the destination's ports.

use super::problem::Fault;

/// ICMP, TCP, UDP and ICMPv6, by the names that rules use.
pub(super) const NAMED: [(&str, u8); 4] = [("icmp", 1), ("tcp", 6), ("udp", 17), ("icmp6", 58)];

/// One entry of `ports`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortSpec {
    /// Every protocol: `ports` is left out.
    Any,
    /// A protocol, whatever its ports.
    Protocol(u8),
    /// Some ports of TCP or UDP.
    Ports {
        /// 6 or 17.
        protocol: u8,
        /// First port, at least 1.
        first: u16,
        /// Last port, not below the first.
        last: u16,
    },
}

impl PortSpec {
    /// Reads an entry of `ports`.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let Some((protocol, ports)) = text.split_once('/') else {
            return Ok(Self::Protocol(protocol(text)?));
        };
        let number = protocol_by_name(protocol);
        if !matches!(protocol, "tcp" | "udp") {
            return Err(match number.or_else(|| decimal(protocol, 255).map(|_| 0)) {
                Some(_) => Fault::PortOfPortless {
                    text: text.to_owned(),
                },
                None => Fault::Protocol {
                    text: text.to_owned(),
                },
            });
        }
        let Some(protocol) = number else {
            return Err(Fault::Protocol {
                text: text.to_owned(),
            });
        };
        let (first, last) = match ports.split_once('-') {
            Some((first, last)) => (port(text, first)?, port(text, last)?),
            None => (port(text, ports)?, port(text, ports)?),
        };
        if last < first {
            return Err(Fault::ReversedPorts {
                text: text.to_owned(),
            });
        }
        Ok(Self::Ports {
            protocol,
            first,
            last,
        })
    }
}

/// Reads a protocol by name or number.
pub(super) fn protocol(text: &str) -> Result<u8, Fault> {
    protocol_by_name(text)
        .or_else(|| decimal(text, 255).and_then(|number| u8::try_from(number).ok()))
        .ok_or_else(|| Fault::Protocol {
            text: text.to_owned(),
        })
}

fn protocol_by_name(text: &str) -> Option<u8> {
    NAMED
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, number)| *number)
}

fn port(entry: &str, text: &str) -> Result<u16, Fault> {
    decimal(text, u16::MAX.into())
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
        .ok_or_else(|| Fault::Port {
            text: entry.to_owned(),
        })
}

/// A number up to `most`, in the one way of writing it: no sign, no leading zero, no space.
pub(super) fn decimal(text: &str, most: u32) -> Option<u32> {
    let canonical = text == "0" || !text.starts_with('0');
    if text.is_empty() || !canonical || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|number| *number <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form() {
        let ports = |protocol, first, last| PortSpec::Ports {
            protocol,
            first,
            last,
        };
        for (text, spec) in [
            ("tcp/22", ports(6, 22, 22)),
            ("tcp/8000-8999", ports(6, 8000, 8999)),
            ("udp/1-65535", ports(17, 1, 65535)),
            ("udp/53-53", ports(17, 53, 53)),
            ("udp", PortSpec::Protocol(17)),
            ("tcp", PortSpec::Protocol(6)),
            ("icmp", PortSpec::Protocol(1)),
            ("icmp6", PortSpec::Protocol(58)),
            ("47", PortSpec::Protocol(47)),
            ("0", PortSpec::Protocol(0)),
            ("255", PortSpec::Protocol(255)),
        ] {
            assert_eq!(PortSpec::parse(text).unwrap(), spec, "{text}");
        }
    }

    #[test]
    fn bad_protocols() {
        for text in [
            "",
            "/",
            "/22",
            "TCP",
            "tcp ",
            " tcp",
            "sctp",
            "256",
            "-1",
            "+6",
            "06",
            "icmpv6",
            "sctp/5",
            "65536/tcp",
            "any",
        ] {
            assert!(
                matches!(PortSpec::parse(text), Err(Fault::Protocol { .. })),
                "{text:?}"
            );
        }
    }

    #[test]
    fn bad_ports() {
        for text in [
            "tcp/",
            "tcp/0",
            "tcp/0-5",
            "tcp/65536",
            "tcp/70000",
            "tcp/-1",
            "tcp/1-",
            "tcp/-",
            "tcp/1-2-3",
            "tcp/+22",
            "tcp/022",
            "tcp/ 22",
            "tcp/22 ",
            "tcp/22,23",
            "tcp/ssh",
            "tcp/22/23",
            "udp/4294967297",
            "tcp/1--2",
        ] {
            assert!(
                matches!(PortSpec::parse(text), Err(Fault::Port { .. })),
                "{text:?}"
            );
        }
    }

    #[test]
    fn ports_of_protocols_without_any() {
        for text in ["icmp/8", "icmp6/128", "47/1", "6/22", "0/0", "icmp/"] {
            assert!(
                matches!(PortSpec::parse(text), Err(Fault::PortOfPortless { .. })),
                "{text:?}"
            );
        }
    }

    #[test]
    fn reversed_range() {
        assert!(matches!(
            PortSpec::parse("tcp/9-8"),
            Err(Fault::ReversedPorts { .. })
        ));
    }
}
