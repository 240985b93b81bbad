//! Logs the samples of dropped messages that the guard puts into its ring buffer. They are rate-limited
//! in the kernel; the counters are what counts.

use std::fmt;
use std::mem::offset_of;
use std::net::{IpAddr, Ipv6Addr};

use aya::maps::{MapData, RingBuf};
use gateway_common::shield::{ShieldEvent, ShieldReason};

/// The ring buffer's reading end.
pub(super) struct Events {
    ring: Option<RingBuf<MapData>>,
    last: Option<IpAddr>,
}

impl Events {
    pub(super) fn new(events: Option<RingBuf<MapData>>) -> Self {
        Self {
            ring: events,
            last: None,
        }
    }

    /// Logs what has come since. Never waits.
    pub(super) fn log(&mut self) {
        let Some(ring) = &mut self.ring else { return };
        while let Some(item) = ring.next() {
            if let Some(drop) = Dropped::parse(&item) {
                tracing::debug!("{drop}");
                self.last = Some(drop.source);
            }
        }
    }

    /// Where the last of them came from, or claimed to.
    pub(super) fn last_source(&self) -> Option<IpAddr> {
        self.last
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Dropped {
    reason: ShieldReason,
    source: IpAddr,
    port: u16,
    length: u16,
    receiver: u32,
}

impl Dropped {
    /// `None` for bytes that are no [`ShieldEvent`] of this ABI.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let octets: [u8; 16] = bytes
            .get(offset_of!(ShieldEvent, source)..)?
            .first_chunk()
            .copied()?;
        let half = |at: usize| Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        Some(Self {
            reason: ShieldReason::from_number(*bytes.get(offset_of!(ShieldEvent, reason))?)?,
            source: Ipv6Addr::from(octets).to_canonical(),
            port: half(offset_of!(ShieldEvent, port))?,
            length: half(offset_of!(ShieldEvent, length))?,
            receiver: u32::from_le_bytes(
                *bytes
                    .get(offset_of!(ShieldEvent, receiver)..)?
                    .first_chunk()?,
            ),
        })
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "shield dropped a message of {} bytes from {} port {} for index {:#010x}: {}",
            self.length, self.source, self.port, self.receiver, self.reason
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_by_its_layout_and_a_short_one_refused() {
        let mut bytes = [0; size_of::<ShieldEvent>()];
        let source = "::ffff:192.0.2.7".parse::<Ipv6Addr>().expect("address");
        let at = offset_of!(ShieldEvent, source);
        bytes[at..at + 16].copy_from_slice(&source.octets());
        bytes[offset_of!(ShieldEvent, reason)] = ShieldReason::DeadIndex as u8;
        let drop = Dropped::parse(&bytes).expect("an event");
        assert_eq!(drop.source.to_string(), "192.0.2.7");
        assert!(drop.to_string().ends_with("dead_index"), "{drop}");
        assert_eq!(Dropped::parse(&bytes[..20]), None);
    }
}
