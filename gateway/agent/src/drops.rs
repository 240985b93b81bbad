//! Logs the samples of dropped packets that the programs put into their ring buffer. They are
//! rate-limited in the kernel; the counters are what counts.

use std::fmt;
use std::mem::offset_of;
use std::net::{IpAddr, Ipv6Addr};

use aya::maps::{MapData, RingBuf};
use gateway_common::abi::Event;
use gateway_common::verdict::Reason;

/// The ring buffer's reading end.
pub(crate) struct Drops(Option<RingBuf<MapData>>);

impl Drops {
    pub(crate) fn new(events: Option<RingBuf<MapData>>) -> Self {
        Self(events)
    }

    /// Logs what has come since. Never waits.
    pub(crate) fn log(&mut self) {
        let Some(events) = &mut self.0 else { return };
        while let Some(item) = events.next() {
            if let Some(drop) = Dropped::parse(&item) {
                tracing::debug!("{drop}");
            }
        }
    }
}

/// One dropped packet.
#[derive(Debug, PartialEq, Eq)]
struct Dropped {
    reason: Reason,
    from_peer: bool,
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
    protocol: u8,
    length: u32,
}

impl Dropped {
    /// `None` for bytes that are no [`Event`] of this ABI.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let address = |at: usize| {
            let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
            Some(Ipv6Addr::from(octets).to_canonical())
        };
        let port = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let length = offset_of!(Event, length);
        Some(Self {
            reason: Reason::from_number(*bytes.get(offset_of!(Event, reason))?)?,
            from_peer: *bytes.get(offset_of!(Event, direction))? == 0,
            source: (
                address(offset_of!(Event, source))?,
                port(offset_of!(Event, source_port))?,
            ),
            destination: (
                address(offset_of!(Event, destination))?,
                port(offset_of!(Event, destination_port))?,
            ),
            protocol: *bytes.get(offset_of!(Event, protocol))?,
            length: u32::from_ne_bytes(bytes.get(length..length + 4)?.try_into().ok()?),
        })
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "dropped {} ({} bytes, {}): protocol {}, {} port {} -> {} port {}",
            if self.from_peer {
                "from a peer"
            } else {
                "to a peer"
            },
            self.length,
            self.reason.name(),
            self.protocol,
            self.source.0,
            self.source.1,
            self.destination.0,
            self.destination.1,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_by_its_layout_and_a_short_one_refused() {
        let mut bytes = [0; size_of::<Event>()];
        let source = "::ffff:10.77.0.2".parse::<Ipv6Addr>().expect("address");
        let at = offset_of!(Event, source);
        bytes[at..at + 16].copy_from_slice(&source.octets());
        bytes[offset_of!(Event, protocol)] = 6;
        bytes[offset_of!(Event, reason)] = Reason::ALL[0] as u8;
        let drop = Dropped::parse(&bytes).expect("an event");
        assert_eq!(drop.source.0.to_string(), "10.77.0.2");
        assert!(drop.to_string().contains("from a peer"), "{drop}");
        assert_eq!(Dropped::parse(&bytes[..20]), None);
    }
}
