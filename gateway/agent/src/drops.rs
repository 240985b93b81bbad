//! Explains the samples of dropped packets that the programs put into their ring buffer: which peer,
//! why, and by which deadline (invariant 9). They are rate-limited in the kernel; the counters are
//! what counts. Identities are logged at debug and below only.

use std::fmt;
use std::mem::offset_of;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use gateway_common::abi::{Ended, Event, PeerState};
use gateway_common::verdict::Reason;

use crate::datapath::Datapath;
use crate::keys::PublicKey;

/// The ring buffer's reading end.
pub(crate) struct Drops(Option<RingBuf<MapData>>);

impl Drops {
    pub(crate) fn new(events: Option<RingBuf<MapData>>) -> Self {
        Self(events)
    }

    /// Logs what has come since. Never waits.
    pub(crate) fn log(&mut self, datapath: &Datapath) {
        let Some(events) = &mut self.0 else { return };
        let heard = tracing::enabled!(tracing::Level::DEBUG);
        while let Some(item) = events.next() {
            if heard && let Some(drop) = Dropped::parse(&item) {
                let peer = datapath
                    .peer_at(drop.peer)
                    .and_then(|(key, state)| Some((PublicKey::try_from(key).ok()?, state)));
                match peer {
                    Some((key, state)) => {
                        tracing::debug!(peer = %key, "{drop}{}", drop.because(&state));
                    }
                    None => tracing::debug!("{drop}"),
                }
            }
        }
    }
}

/// One dropped packet.
#[derive(Debug, PartialEq, Eq)]
struct Dropped {
    /// On the clock of the maps.
    time: u64,
    /// Index of the peer.
    peer: u32,
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
        let number = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let time = offset_of!(Event, time);
        Some(Self {
            time: u64::from_ne_bytes(bytes.get(time..time + 8)?.try_into().ok()?),
            peer: number(offset_of!(Event, peer))?,
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
            length: number(offset_of!(Event, length))?,
        })
    }

    /// What of the peer's state dropped the packet; empty where the reason says it all.
    ///
    /// The state is read after the fact: it may have changed since.
    fn because(&self, state: &PeerState) -> String {
        let since = |at: u64| Duration::from_millis(self.time.saturating_sub(at) / 1_000_000);
        match self.reason {
            Reason::Locked if state.ended == Ended::Revoked as u8 => {
                " Its last session was revoked.".into()
            }
            Reason::Locked if state.deadline == 0 => " It has not logged in.".into(),
            Reason::Expired => format!(" The deadline was {:?} before.", since(state.deadline)),
            Reason::Idle => format!(
                " It was silent for {:?}, and may be for {:?}.",
                since(state.last_activity),
                Duration::from_millis(state.idle_timeout / 1_000_000)
            ),
            Reason::NotFresh => {
                format!(" It logged in {:?} before.", since(state.authenticated_at))
            }
            Reason::LevelTooLow => format!(" Its session is of level {}.", state.level),
            _ => String::new(),
        }
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "dropped {} ({} bytes, protocol {}, {} port {} -> {} port {}) as {}: {}",
            if self.from_peer {
                "from a peer"
            } else {
                "to a peer"
            },
            self.length,
            self.protocol,
            self.source.0,
            self.source.1,
            self.destination.0,
            self.destination.1,
            self.reason.name(),
            self.reason.explanation(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inv9_a_drop_is_explained_with_its_deadline() {
        let mut bytes = [0; size_of::<Event>()];
        bytes[offset_of!(Event, time)..][..8].copy_from_slice(&9_000_000_000_u64.to_ne_bytes());
        bytes[offset_of!(Event, peer)..][..4].copy_from_slice(&7_u32.to_ne_bytes());
        bytes[offset_of!(Event, reason)] = Reason::Expired as u8;
        let mut drop = Dropped::parse(&bytes).expect("an event");
        assert_eq!(drop.peer, 7);
        assert!(drop.to_string().contains(Reason::Expired.explanation()));
        let state = PeerState {
            deadline: 5_500_000_000,
            idle_timeout: 2_000_000_000,
            last_activity: 6_000_000_000,
            ..PeerState::default()
        };
        assert_eq!(drop.because(&state), " The deadline was 3.5s before.");
        drop.reason = Reason::Idle;
        assert_eq!(
            drop.because(&state),
            " It was silent for 3s, and may be for 2s."
        );
        drop.reason = Reason::Locked;
        let revoked = PeerState {
            ended: Ended::Revoked as u8,
            ..PeerState::default()
        };
        assert!(drop.because(&revoked).contains("revoked"));
        assert!(
            drop.because(&PeerState::default())
                .contains("not logged in")
        );
    }

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
