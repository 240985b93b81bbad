//! A peer: who it is and what its session permits.

/// Index that stands for "no peer" in events.
pub const NO_PEER: u32 = u32::MAX;

/// Assurance level of a login, and what a destination requires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// No login.
    #[default]
    None = 0,
    /// Any two factors.
    Mfa = 1,
    /// WebAuthn with user verification.
    PhishingResistant = 2,
}

impl Level {
    /// The level of this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Mfa),
            2 => Some(Self::PhishingResistant),
            _ => None,
        }
    }
}

/// Why a peer is locked, for people; the decision does not read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Ended {
    /// No session has been written since the peer was added.
    #[default]
    NeverLoggedIn = 0,
    /// The last session was taken away.
    Revoked = 1,
}

/// WireGuard public key of a peer slot; all zero when the slot is free.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PeerKey(pub [u8; 32]);

/// Everything a packet's fate depends on besides its flow: 64 bytes, one cache line.
///
/// All-zero (what an array map starts with) is a locked peer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerState {
    /// Changes when the slot gets another owner or loses an address: earlier flows are void.
    pub incarnation: u32,
    /// Changes with the session or policy: cached verdicts of flows must be decided again.
    pub generation: u32,
    /// First instant at which the session permits nothing; 0 for locked. Nanoseconds.
    pub deadline: u64,
    /// Longest silence from the peer in nanoseconds; 0 for no limit.
    pub idle_timeout: u64,
    /// When a packet that came from the peer passed. Written by the kernel.
    pub last_activity: u64,
    /// When the login happened.
    pub authenticated_at: u64,
    /// Names the grant; 0 for none.
    pub tag: u64,
    /// Zero; for what later versions need.
    pub reserved: u32,
    /// [`Level`] of the session.
    pub level: u8,
    /// [`Ended`], where locked.
    pub ended: u8,
    /// Zero.
    pub pad: [u8; 2],
    /// Which effective policy holds for the peer, by parity of the settings' epoch.
    pub policy: [u32; 2],
}
