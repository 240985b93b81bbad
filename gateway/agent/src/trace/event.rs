//! One packet as the programs tell of it.

use std::fmt;
use std::mem::offset_of;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use gateway_common::abi::{Ended, Event, PeerState};
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
            source: (
                address(offset_of!(Event, source))?,
                half(offset_of!(Event, source_port))?,
            ),
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
        let text = |address: IpAddr| {
            if parsed {
                address.to_string()
            } else {
                String::new()
            }
        };
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

    /// What of the peer's state dropped the packet; empty where the reason says it all.
    ///
    /// The state is read after the fact: it may have changed since.
    pub(super) fn because(&self, state: &PeerState) -> String {
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
            Reason::NotFresh if state.authenticated_at == 0 => {
                " It logged in before this machine was started.".into()
            }
            Reason::NotFresh => {
                format!(" It logged in {:?} before.", since(state.authenticated_at))
            }
            Reason::LevelTooLow => format!(" Its session is of level {}.", state.level),
            _ => String::new(),
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} ({} bytes, protocol {}, {} port {} -> {} port {}) as {}: {}",
            match self.reason.verdict() {
                Verdict::Pass => "opened",
                Verdict::Drop => "dropped",
            },
            if self.direction == 0 {
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
        let mut drop = Seen::parse(&bytes).expect("an event");
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
        drop.reason = Reason::NotFresh;
        assert!(drop.because(&state).contains("before this machine"));
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
        bytes[offset_of!(Event, reason)] = Reason::Locked as u8;
        let drop = Seen::parse(&bytes).expect("an event");
        assert_eq!(drop.source.0.to_string(), "10.77.0.2");
        assert!(drop.to_string().contains("dropped from a peer"), "{drop}");
        assert_eq!(Seen::parse(&bytes[..20]), None);
    }
}
