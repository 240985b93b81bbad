//! One index in the table, in one word, so that it is taken, renewed and forgotten in one step.
//!
//! Bits 0 to 31: the index. Bits 32 and 33: [`Kind`]. From bit 34: when it expires, in ticks of 2^28 ns
//! (0.27 s), which is enough for nine years without a reboot. Zero is a free slot.

/// A tick in bits of nanoseconds.
const TICK_SHIFT: u32 = 28;
const KIND_SHIFT: u32 = 32;
const EXPIRY_SHIFT: u32 = 34;

/// What an index stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An initiation of the gateway's that waits for its response.
    Pending,
    /// A session: the gateway has sent the response.
    Session,
    /// An initiation of the gateway's that was answered: a session, unless the answer was a forgery.
    Answered,
}

/// An index, what it stands for, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub u64);

impl Slot {
    /// A slot that is good for `life` nanoseconds from `now` on, rounded up.
    #[inline(always)]
    pub const fn new(index: u32, kind: Kind, now: u64, life: u64) -> Self {
        let kind = match kind {
            Kind::Pending => 1,
            Kind::Session => 2,
            Kind::Answered => 3,
        };
        let expiry = ((now + life) >> TICK_SHIFT) + 1;
        Self(index as u64 | kind << KIND_SHIFT | expiry << EXPIRY_SHIFT)
    }

    /// The index.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.0 as u32
    }

    /// Whether it can be taken for another index: never used, or expired.
    #[inline(always)]
    pub const fn is_free(self, now: u64) -> bool {
        self.0 >> EXPIRY_SHIFT <= now >> TICK_SHIFT
    }

    /// Whether the gateway waits for the response to an initiation.
    #[inline(always)]
    pub const fn is_pending(self) -> bool {
        self.kind() == 1
    }

    /// Whether the gateway began the handshake, so that a response to it can be genuine.
    #[inline(always)]
    pub const fn is_initiator(self) -> bool {
        self.kind() & 1 == 1
    }

    #[inline(always)]
    const fn kind(self) -> u64 {
        self.0 >> KIND_SHIFT & 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::SECOND,
        shield::{PENDING_LIFE, SESSION_LIFE},
    };

    #[test]
    fn a_slot_lives_for_its_time_and_no_tick_longer() {
        let year = 365 * 24 * 3600 * SECOND;
        for now in [0, 1, SECOND, year, 8 * year] {
            let slot = Slot::new(u32::MAX, Kind::Session, now, SESSION_LIFE);
            assert_eq!(slot.index(), u32::MAX);
            assert!(!slot.is_pending());
            assert!(!slot.is_free(now) && !slot.is_free(now + SESSION_LIFE));
            assert!(slot.is_free(now + SESSION_LIFE + (1 << TICK_SHIFT)));
        }
        let kinds = [
            (Kind::Pending, true, true),
            (Kind::Session, false, false),
            (Kind::Answered, false, true),
        ];
        for (kind, pending, initiator) in kinds {
            let slot = Slot::new(7, kind, 9, PENDING_LIFE);
            assert_eq!(
                (slot.is_pending(), slot.is_initiator()),
                (pending, initiator)
            );
        }
        assert!(Slot(0).is_free(0));
    }
}
