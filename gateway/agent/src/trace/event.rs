//! One packet as the programs tell of it.

use std::fmt;
use std::mem::offset_of;
use std::net::{IpAddr, Ipv6Addr};

use gateway_common::abi::Event;
use gateway_common::verdict::{Reason, Verdict};
use portcullis_proto::v1;

use crate::keys::PublicKey;

/// A dropped packet, or the first of a permitted flow.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// On the maps' clock.
    pub(super) time: u64,
    /// Index of the peer, or of none.
    pub(super) peer: u32,
    /// Number of the rule, or of none.
    pub(super) rule: u32,
    reason: Reason,
    direction: u8,
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
    protocol: u8,
    length: u32,
}

impl Seen {
    /// `None` for bytes that are no [`Event`] of this ABI.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let address = |at: usize| {
            let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
            Some(Ipv6Addr::from(octets).to_canonical())
        };
        let half = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let time = offset_of!(Event, time);
        Some(Self {
            time: u64::from_ne_bytes(bytes.get(time..time + 8)?.try_into().ok()?),
            peer: word(offset_of!(Event, peer))?,
            rule: word(offset_of!(Event, rule))?,
            reason: Reason::from_number(*bytes.get(offset_of!(Event, reason))?)?,
            direction: *bytes.get(offset_of!(Event, direction))?,
            source: (address(offset_of!(Event, source))?, half(offset_of!(Event, source_port))?),
            destination: (
                address(offset_of!(Event, destination))?,
                half(offset_of!(Event, destination_port))?,
            ),
            protocol: *bytes.get(offset_of!(Event, protocol))?,
            length: word(offset_of!(Event, length))?,
        })
    }

    /// For control.
    pub(super) fn event(&self, key: Option<PublicKey>, rule: &str, at_ms: i64) -> v1::TraceEvent {
        // All-zero: the packet could not be parsed.
        let parsed = !self.source.0.is_unspecified() || !self.destination.0.is_unspecified();
        let text = |address: IpAddr| if parsed { address.to_string() } else { String::new() };
        v1::TraceEvent {
            at_ms,
            public_key: key.map(|key| key.as_bytes().to_vec()).unwrap_or_default(),
            direction: self.direction.into(),
            source: text(self.source.0),
            source_port: self.source.1.into(),
            destination: text(self.destination.0),
            destination_port: self.destination.1.into(),
            protocol: self.protocol.into(),
            reason: self.reason as u32,
            rule: rule.to_owned(),
            length: self.length,
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} ({} bytes, {}): protocol {}, {} port {} -> {} port {}",
            match self.reason.verdict() {
                Verdict::Pass => "opened",
                Verdict::Drop => "dropped",
            },
            if self.direction == 0 { "from a peer" } else { "to a peer" },
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
        bytes[offset_of!(Event, reason)] = Reason::Locked as u8;
        let drop = Seen::parse(&bytes).expect("an event");
        assert_eq!(drop.source.0.to_string(), "10.77.0.2");
        assert!(drop.to_string().contains("dropped from a peer"), "{drop}");
        assert_eq!(Seen::parse(&bytes[..20]), None);
    }
}
