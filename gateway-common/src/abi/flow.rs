//! A flow, and the positive verdict cached for it.

use super::{AddressV4, AddressV6};

/// A flow as seen from the peer, whichever way the packet goes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey<A> {
    /// The peer's tunnel address.
    pub peer: A,
    /// The other end.
    pub remote: A,
    /// The peer's port, or the identifier of an echo that the peer asks.
    pub peer_port: u16,
    /// The other end's port, or the identifier of an echo that it asks.
    pub remote_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Who asks, in an echo: 1 for the remote. 0 for every other protocol.
    pub remote_asks: u8,
    /// Zero.
    pub pad: u16,
}

/// IPv4 flow.
pub type FlowKeyV4 = FlowKey<AddressV4>;
/// IPv6 flow.
pub type FlowKeyV6 = FlowKey<AddressV6>;

/// Odd constants that spread a key's words over 64 bits (from the SplitMix64 and xxHash families).
const SPREAD: [u64; 5] = [
    0x9e37_79b9_7f4a_7c15,
    0xbf58_476d_1ce4_e5b9,
    0x94d0_49bb_1331_11eb,
    0xc2b2_ae3d_27d4_eb4f,
    0x1656_67b1_9e37_79f9,
];

/// What [`FlowState::check`] is computed from.
pub trait Check {
    /// A 64-bit digest of the key, cheap enough for every packet.
    fn check(&self) -> u64;

    /// Whether both are the same key, in one comparison.
    fn same(&self, other: &Self) -> bool;
}

#[inline(always)]
const fn spread(low: u32, high: u32, constant: usize) -> u64 {
    (low as u64 | (high as u64) << 32).wrapping_mul(SPREAD[constant])
}

impl<A> FlowKey<A> {
    #[inline(always)]
    const fn ports(&self) -> u32 {
        self.peer_port as u32 | (self.remote_port as u32) << 16
    }

    #[inline(always)]
    const fn kind(&self) -> u32 {
        self.protocol as u32 | (self.remote_asks as u32) << 8
    }
}

impl Check for FlowKeyV4 {
    #[inline(always)]
    fn check(&self) -> u64 {
        spread(self.peer.0, self.remote.0, 0).wrapping_add(spread(self.ports(), self.kind(), 1))
    }

    #[inline(always)]
    fn same(&self, other: &Self) -> bool {
        let addresses = (self.peer.0 ^ other.peer.0) | (self.remote.0 ^ other.remote.0);
        (addresses | (self.ports() ^ other.ports()) | (self.kind() ^ other.kind())) == 0
    }
}

impl Check for FlowKeyV6 {
    #[inline(always)]
    fn check(&self) -> u64 {
        let (peer, remote) = (&self.peer.0, &self.remote.0);
        spread(peer[0], peer[1], 0)
            .wrapping_add(spread(peer[2], peer[3], 1))
            .wrapping_add(spread(remote[0], remote[1], 2))
            .wrapping_add(spread(remote[2], remote[3], 3))
            .wrapping_add(spread(self.ports(), self.kind(), 4))
    }

    #[inline(always)]
    fn same(&self, other: &Self) -> bool {
        let rest = (self.ports() ^ other.ports()) | (self.kind() ^ other.kind());
        self.peer.differs(&other.peer) | self.remote.differs(&other.remote) | rest == 0
    }
}

/// A positive verdict, good until it expires or the peer's state or the settings change.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowState {
    /// [`Check::check`] of the key. The kernel may reuse an element of an LRU map while a program
    /// on another CPU still looks at it; one whose check is another key's is no entry.
    pub check: u64,
    /// When the flow is forgotten unless refreshed. Nanoseconds.
    pub expires: u64,
    /// When the login becomes too old for the flow's destination; `u64::MAX` for never.
    pub fresh_until: u64,
    /// Index of the peer.
    pub peer: u32,
    /// The peer's incarnation that the flow belongs to.
    pub incarnation: u32,
    /// The peer's generation that the verdict was made under.
    pub generation: u32,
    /// The settings' epoch that the verdict was made under.
    pub epoch: u32,
    /// Direction of the packet that opened the flow.
    pub opener: u8,
    /// Bits below.
    pub flags: u8,
    /// Least level the session must have.
    pub level: u8,
    /// Zero.
    pub pad: u8,
    /// The rule that permits it, or [`super::NO_RULE`].
    pub rule: u32,
}

impl FlowState {
    /// Needs no session: an open service, or a rule that requires none.
    pub const NO_SESSION: u8 = 1;
    /// A packet from the peer has passed.
    pub const SEEN_FROM_PEER: u8 = 2;
    /// A packet to the peer has passed.
    pub const SEEN_TO_PEER: u8 = 4;
    /// TCP: FIN or RST has passed.
    pub const CLOSING: u8 = 8;
}
