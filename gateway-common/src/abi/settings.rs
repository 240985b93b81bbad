//! What holds for the whole interface.

/// The one entry of its map. All-zero (what the map starts with) is a gateway without services and
/// without a policy.
///
/// Epoch and flags are one aligned word, written by one store and read by one load.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Changes with the policy or the services: cached verdicts of flows must be decided again. Its
    /// low bit, the parity, says which of the two sets of policy tables holds: a new policy adds 1,
    /// any other change 2.
    pub epoch: u32,
    /// Bits below.
    pub flags: u32,
    /// The bits of [`super::ServiceKey::filter_bit`] of all services: spares most packets of a
    /// locked peer the look-up.
    pub service_filter: u64,
    /// Id of the policy in each set of tables; 0 for none, or one that is being loaded. The programs
    /// do not read it.
    pub policies: [u64; 2],
    /// Marks the programs' own answers on their way through the interface; 0 until it is chosen, at
    /// random, for as long as the map lives.
    pub answer_mark: u32,
    /// Zero.
    pub pad: u32,
}

impl Settings {
    /// Some peer has an IPv4 prefix shorter than 32 bits.
    pub const WIDE_V4: u32 = 1;
    /// Some peer has an IPv6 prefix shorter than 128 bits.
    pub const WIDE_V6: u32 = 2;
    /// There is a policy. Without it [`crate::decide::gate`] holds.
    pub const POLICY: u32 = 4;
    /// Somebody wants to hear of flows that are opened, and of more drops than usual.
    pub const TRACE: u32 = 8;
    /// Senders of dropped openers are told.
    pub const ANSWER: u32 = 16;

    /// Which set of policy tables holds.
    #[inline(always)]
    pub const fn parity(&self) -> u32 {
        self.epoch & 1
    }

    /// Id of the policy that holds; 0 for none.
    pub const fn policy_id(&self) -> u64 {
        if self.flags & Self::POLICY == 0 {
            0
        } else {
            self.policies[self.parity() as usize]
        }
    }
}
