//! Is the session live?

use crate::{abi::PeerState, verdict::Reason};

/// Why the peer's session permits nothing at `now`; `None` while it is live.
#[inline(always)]
pub(super) fn blocks(peer: &PeerState, now: u64) -> Option<Reason> {
    if peer.deadline == 0 {
        return Some(Reason::Locked);
    }
    if now >= peer.deadline {
        return Some(Reason::Expired);
    }
    if peer.idle_timeout != 0 && now.saturating_sub(peer.last_activity) >= peer.idle_timeout {
        return Some(Reason::Idle);
    }
    None
}
