//! Writing a session so that no packet ever sees more than the old or the new one permits.
//!
//! The programs read the fields one by one while they are being written. So a change is made in two
//! steps: first *narrow* (each field to the lesser of old and new), then *widen* to the new values.
//! Between the two, where both happen, a grace period passes, so that no program mixes the old
//! state with the widened one. Locking (deadline 0) and pure widening, such as an extension or a
//! login, never wait. The generation comes last in each step: a verdict is never cached under a
//! generation that is younger than the state it was made from.
//!
//! A locked peer has the least value in every field, so that a login mixes with nothing.

use std::{
    mem::offset_of,
    sync::atomic::Ordering::{Acquire, Release, SeqCst},
};

use gateway_common::abi::{Ended, Level, PeerState};

use super::{shared::Shared, sys, types::SessionGrant};

/// The least idle timeout; 0 means that there is none.
const LEAST_IDLE: u64 = 1;

/// The peer states, memory-mapped.
#[derive(Debug)]
pub(super) struct States(pub(super) Shared);

/// The fields that a session is made of; greater permits more in each, idle timeout 0 the most.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Fields {
    deadline: u64,
    idle_timeout: u64,
    last_activity: u64,
    authenticated_at: u64,
    level: u8,
}

impl States {
    /// Makes the slot a new owner's: locked, and all earlier flows void.
    pub(super) fn reset(&self, index: u32) {
        self.lock(index, Ended::NeverLoggedIn);
        self.word(index, offset_of!(PeerState, policy))
            .store(0, Release);
        self.void_flows(index);
    }

    /// Takes the session away, at once.
    pub(super) fn lock(&self, index: u32, why: Ended) {
        self.word(index, offset_of!(PeerState, deadline))
            .store(0, SeqCst);
        self.word(index, offset_of!(PeerState, tag))
            .store(0, Release);
        self.word(index, offset_of!(PeerState, idle_timeout))
            .store(LEAST_IDLE, Release);
        self.word(index, offset_of!(PeerState, last_activity))
            .store(0, Release);
        self.word(index, offset_of!(PeerState, authenticated_at))
            .store(0, Release);
        self.store_level(index, Level::None as u8, why);
        self.half(index, offset_of!(PeerState, generation))
            .fetch_add(1, SeqCst);
    }

    /// Writes a session. The peer's own activity is a fact about the peer: a later one that the
    /// kernel has noted stays.
    pub(super) fn grant(&self, index: u32, session: &SessionGrant) {
        let old = self.fields(index);
        let new = Fields::of(session, old.last_activity);
        let both = old.lesser(&new);
        if both != old && both != new {
            // Until all is written the tag names neither, in case this process dies in between.
            self.word(index, offset_of!(PeerState, tag))
                .store(0, Release);
        }
        if both != old {
            self.store(index, &both, &old);
            if both != new {
                sys::grace_period();
            }
        }
        if both != new {
            self.store(index, &new, &both);
        }
        self.word(index, offset_of!(PeerState, tag))
            .store(session.tag, SeqCst);
    }

    /// Notes that an address is about to stop proving the peer, so that its flows have to be voided
    /// even if this process dies before [`Self::void_flows`].
    pub(super) fn mark_void(&self, index: u32) {
        self.half(index, offset_of!(PeerState, reserved))
            .store(1, SeqCst);
    }

    /// Whether flows were to be voided and have not been.
    pub(super) fn is_marked_void(&self, index: u32) -> bool {
        self.half(index, offset_of!(PeerState, reserved))
            .load(SeqCst)
            != 0
    }

    /// The number of the peer's effective policy in the set of tables of this parity.
    pub(super) fn class(&self, index: u32, parity: u32) -> u32 {
        self.half(index, class_offset(parity)).load(Acquire)
    }

    /// Writes that number. Where the parity is that of the epoch, [`Self::renew`] has to follow.
    pub(super) fn set_class(&self, index: u32, parity: u32, class: u32) {
        self.half(index, class_offset(parity)).store(class, SeqCst);
    }

    /// Has every flow of the slot decided again.
    pub(super) fn renew(&self, index: u32) {
        self.half(index, offset_of!(PeerState, generation))
            .fetch_add(1, SeqCst);
    }

    /// Brings the session down to the lesser of what it is and what it will be.
    pub(super) fn narrow(&self, index: u32, session: &SessionGrant) {
        let old = self.fields(index);
        let both = old.lesser(&Fields::of(session, old.last_activity));
        if both != old {
            self.word(index, offset_of!(PeerState, tag))
                .store(0, Release);
            self.store(index, &both, &old);
        }
    }

    /// Voids every flow of the slot.
    pub(super) fn void_flows(&self, index: u32) {
        self.half(index, offset_of!(PeerState, incarnation))
            .fetch_add(1, SeqCst);
        self.half(index, offset_of!(PeerState, reserved))
            .store(0, SeqCst);
    }

    /// Last activity that the kernel has noted.
    pub(super) fn activity(&self, index: u32) -> u64 {
        self.word(index, offset_of!(PeerState, last_activity))
            .load(Acquire)
    }

    fn fields(&self, index: u32) -> Fields {
        let [level, ..] = self
            .half(index, offset_of!(PeerState, level))
            .load(Acquire)
            .to_ne_bytes();
        Fields {
            deadline: self
                .word(index, offset_of!(PeerState, deadline))
                .load(Acquire),
            idle_timeout: self
                .word(index, offset_of!(PeerState, idle_timeout))
                .load(Acquire),
            last_activity: self.activity(index),
            authenticated_at: self
                .word(index, offset_of!(PeerState, authenticated_at))
                .load(Acquire),
            level,
        }
    }

    /// Stores what differs: a lower deadline before everything else, a higher one after it.
    fn store(&self, index: u32, new: &Fields, old: &Fields) {
        let deadline = self.word(index, offset_of!(PeerState, deadline));
        if new.deadline < old.deadline {
            deadline.store(new.deadline, SeqCst);
        }
        if new.idle_timeout != old.idle_timeout {
            self.word(index, offset_of!(PeerState, idle_timeout))
                .store(new.idle_timeout, Release);
        }
        if new.last_activity != old.last_activity {
            // The kernel may note something later meanwhile; that stays.
            self.word(index, offset_of!(PeerState, last_activity))
                .fetch_max(new.last_activity, SeqCst);
        }
        if new.authenticated_at != old.authenticated_at {
            self.word(index, offset_of!(PeerState, authenticated_at))
                .store(new.authenticated_at, Release);
        }
        if new.level != old.level {
            self.store_level(index, new.level, Ended::NeverLoggedIn);
        }
        if new.deadline > old.deadline {
            deadline.store(new.deadline, SeqCst);
        }
        self.half(index, offset_of!(PeerState, generation))
            .fetch_add(1, SeqCst);
    }

    fn store_level(&self, index: u32, level: u8, ended: Ended) {
        // One word: the level, why it ended, and two bytes of padding.
        let word = u32::from_ne_bytes([level, ended as u8, 0, 0]);
        self.half(index, offset_of!(PeerState, level))
            .store(word, Release);
    }

    fn word(&self, index: u32, offset: usize) -> &std::sync::atomic::AtomicU64 {
        self.0.word(index, offset)
    }

    fn half(&self, index: u32, offset: usize) -> &std::sync::atomic::AtomicU32 {
        self.0.half(index, offset)
    }
}

/// Where the number of the effective policy in the set of this parity lies.
fn class_offset(parity: u32) -> usize {
    offset_of!(PeerState, policy) + if parity & 1 == 0 { 0 } else { 4 }
}

impl Fields {
    fn of(session: &SessionGrant, noted_activity: u64) -> Self {
        Self {
            deadline: session.deadline,
            idle_timeout: session.idle_timeout,
            last_activity: session.last_activity.max(noted_activity),
            authenticated_at: session.authenticated_at,
            level: session.level as u8,
        }
    }

    fn lesser(&self, other: &Self) -> Self {
        Self {
            deadline: self.deadline.min(other.deadline),
            // Without a limit (0) is the greatest.
            idle_timeout: (self.idle_timeout.wrapping_sub(1))
                .min(other.idle_timeout.wrapping_sub(1))
                .wrapping_add(1),
            last_activity: self.last_activity.min(other.last_activity),
            authenticated_at: self.authenticated_at.min(other.authenticated_at),
            level: self.level.min(other.level),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inv1_the_lesser_of_two_sessions_permits_no_more_than_either() {
        let a = Fields {
            deadline: 10,
            idle_timeout: 0,
            last_activity: 5,
            authenticated_at: 3,
            level: 2,
        };
        let b = Fields {
            deadline: 20,
            idle_timeout: 7,
            last_activity: 6,
            authenticated_at: 1,
            level: 1,
        };
        let expected = Fields {
            deadline: 10,
            idle_timeout: 7,
            last_activity: 5,
            authenticated_at: 1,
            level: 1,
        };
        assert!(a.lesser(&b) == expected && b.lesser(&a) == expected);
    }
}
