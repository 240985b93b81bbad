//! What the programs tell about single packets, a few a second at most.

use super::AddressV6;
use crate::verdict::Reason;

/// One packet: dropped, or the first of a permitted flow. Its reason tells which.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, in nanoseconds of the maps' clock.
    pub time: u64,
    /// Source, IPv4-mapped for IPv4; zero where the packet could not be parsed.
    pub source: AddressV6,
    /// Destination, likewise.
    pub destination: AddressV6,
    /// Source port in host order, or 0.
    pub source_port: u16,
    /// Destination port in host order, or 0.
    pub destination_port: u16,
    /// IP protocol number, or 0.
    pub protocol: u8,
    /// [`super::Direction`].
    pub direction: u8,
    /// [`crate::verdict::Reason`].
    pub reason: u8,
    /// Zero.
    pub pad: u8,
    /// Index of the peer, or [`super::NO_PEER`].
    pub peer: u32,
    /// Length of the packet in bytes.
    pub length: u32,
    /// The rule that decided, or [`super::NO_RULE`].
    pub rule: u32,
    /// Zero.
    pub reserved: u32,
}

/// What one CPU has told in the present window of time, and what it has not.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventBudget {
    /// Number of the window.
    pub window: u64,
    /// Events of dropped packets sent in it.
    pub dropped: u32,
    /// Events of opened flows sent in it.
    pub opened: u32,
    /// Dropped packets answered in it.
    pub answered: u32,
    /// Zero.
    pub pad: u32,
    /// Events that were not sent, ever: over the budget, or the buffer was full.
    pub lost: u64,
}

/// Packets of one peer that its session or a rule did not permit, both directions together: one cache
/// line. All other drops are counted for the whole interface only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerDrops {
    /// By [`PeerDrops::slot`].
    pub packets: [u64; PeerDrops::REASONS.len()],
}

impl PeerDrops {
    /// Reasons that are counted, by number of the counter.
    pub const REASONS: [Reason; 8] = [
        Reason::Locked,
        Reason::Expired,
        Reason::Idle,
        Reason::LevelTooLow,
        Reason::NotFresh,
        Reason::NoRule,
        Reason::Unsolicited,
        Reason::Denied,
    ];

    /// Which counter is this reason's.
    #[inline(always)]
    pub const fn slot(reason: Reason) -> Option<usize> {
        let mut slot = 0;
        while slot < Self::REASONS.len() {
            if Self::REASONS[slot] as u8 == reason as u8 {
                return Some(slot);
            }
            slot += 1;
        }
        None
    }
}
