//! Who plays in the tests, and the states a peer can be in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gateway_common::{
    abi::{Direction, Level},
    clock::SECOND,
    verdict::Reason,
};
use portcullis_agent::datapath::{Service, SessionGrant};

/// The peer under test.
pub const PEER_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The same peer.
pub const PEER_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);
/// Another peer.
pub const OTHER_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
/// The same other peer.
pub const OTHER_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 3);
/// An address of no peer.
pub const STRANGER_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 99);
/// Likewise.
pub const STRANGER_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x99);
/// A protected server.
pub const SERVER_V4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// The same server.
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1);
/// A router on the way to it.
pub const ROUTER_V4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 254);
/// The same router.
pub const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 0xfe);
/// The gateway, where the portal is.
pub const PORTAL_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The same gateway.
pub const PORTAL_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
/// The portal's port.
pub const PORTAL_PORT: u16 = 443;

/// Key of the peer under test.
pub const PEER_KEY: [u8; 32] = [1; 32];
/// Key of the other peer.
pub const OTHER_KEY: [u8; 32] = [2; 32];

/// The addresses of one family.
#[derive(Clone, Copy, Debug)]
pub struct Cast {
    /// The peer under test.
    pub peer: IpAddr,
    /// Another peer.
    pub other: IpAddr,
    /// No peer.
    pub stranger: IpAddr,
    /// A protected server.
    pub server: IpAddr,
    /// A router.
    pub router: IpAddr,
    /// The gateway.
    pub portal: IpAddr,
}

/// IPv4.
pub const V4: Cast = Cast {
    peer: IpAddr::V4(PEER_V4),
    other: IpAddr::V4(OTHER_V4),
    stranger: IpAddr::V4(STRANGER_V4),
    server: IpAddr::V4(SERVER_V4),
    router: IpAddr::V4(ROUTER_V4),
    portal: IpAddr::V4(PORTAL_V4),
};

/// IPv6.
pub const V6: Cast = Cast {
    peer: IpAddr::V6(PEER_V6),
    other: IpAddr::V6(OTHER_V6),
    stranger: IpAddr::V6(STRANGER_V6),
    server: IpAddr::V6(SERVER_V6),
    router: IpAddr::V6(ROUTER_V6),
    portal: IpAddr::V6(PORTAL_V6),
};

/// What is reachable before login: the portal by TCP, and a resolver beside it.
pub fn services() -> Vec<Service> {
    [V4.portal, V6.portal]
        .into_iter()
        .flat_map(|addr| {
            [
                Service {
                    addr,
                    protocol: 6,
                    port: PORTAL_PORT,
                },
                Service {
                    addr,
                    protocol: 17,
                    port: 53,
                },
            ]
        })
        .collect()
}

/// What a peer's session is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There is no such peer.
    Unknown,
    /// It never logged in.
    Locked,
    /// It holds a session.
    Live,
    /// It held one until it was revoked.
    Revoked,
    /// It held one until its deadline.
    Expired,
    /// It held one until it fell silent.
    Idle,
    /// It holds one of too low a level.
    Low,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Unknown,
        Self::Locked,
        Self::Live,
        Self::Revoked,
        Self::Expired,
        Self::Idle,
        Self::Low,
    ];

    /// The session to write for it at `now`.
    pub fn session(self, now: u64) -> Option<SessionGrant> {
        let live = SessionGrant {
            tag: 1,
            level: Level::Mfa,
            authenticated_at: now.saturating_sub(60 * SECOND),
            deadline: now + 3600 * SECOND,
            idle_timeout: 600 * SECOND,
            last_activity: now,
        };
        match self {
            Self::Unknown | Self::Locked | Self::Revoked => None,
            Self::Live => Some(live),
            Self::Expired => Some(SessionGrant {
                tag: 2,
                deadline: now.saturating_sub(SECOND).max(1),
                ..live
            }),
            // One nanosecond is over by the time any packet comes.
            Self::Idle => Some(SessionGrant {
                tag: 3,
                idle_timeout: 1,
                last_activity: 1,
                ..live
            }),
            Self::Low => Some(SessionGrant {
                tag: 4,
                level: Level::None,
                ..live
            }),
        }
    }

    /// How a packet from the peer to a protected server ends.
    pub fn to_server(self) -> Reason {
        match self {
            Self::Unknown => Reason::UnknownPeer,
            Self::Locked | Self::Revoked => Reason::Locked,
            Self::Live => Reason::Session,
            Self::Expired => Reason::Expired,
            Self::Idle => Reason::Idle,
            Self::Low => Reason::LevelTooLow,
        }
    }
}

/// Something that decides about packets for the cast: the kernel, or the model in memory.
pub trait Gate {
    /// Puts the peer under test into this state, from whatever state it is in.
    fn put(&mut self, state: State);

    /// Decides about one packet.
    fn run(&mut self, direction: Direction, packet: &[u8]) -> Reason;
}
