//! Keys and values of the shield's maps, under the same rules as [`crate::abi`] and its version.

use crate::abi::AddressV6;

use super::{Budget, SHIELD_REASON_SLOTS};

/// Names of maps and programs in the shield's object and on the BPF file system.
pub mod names {
    /// [`super::ShieldSettings`], one entry.
    pub const SETTINGS: &str = "SHIELD_SETTINGS";
    /// [`super::Bucket`] by the low bits of an index.
    pub const INDEXES: &str = "INDEXES";
    /// [`super::LearnedBucket`], likewise.
    pub const LEARNED: &str = "LEARNED";
    /// State of a source's budget by [`super::super::source_key`].
    pub const SOURCES: &str = "SOURCES";
    /// When the gateway last answered a source, by [`super::super::source_key`].
    pub const KNOWN: &str = "KNOWN";
    /// [`super::Cpu`], one entry for each CPU.
    pub const CPUS: &str = "SHIELD_CPUS";
    /// Ring buffer of [`super::ShieldEvent`].
    pub const EVENTS: &str = "SHIELD_EVENTS";
    /// The XDP program.
    pub const GUARD: &str = "guard";
    /// The TC egress program.
    pub const LEARN: &str = "learn";
    /// The XDP program that does nothing, for measurements.
    pub const EMPTY: &str = "empty_xdp";
}

/// Most addresses of either family that the shield takes for the gateway's own.
pub const LOCAL_MOST: usize = 8;

/// The one entry of its map. All-zero, nothing is for WireGuard and everything passes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShieldSettings {
    /// Unknown indexes pass until then. Nanoseconds; 0 when that is over, which spares looking at the clock.
    pub learning_until: u64,
    /// Budget of handshake initiations for each source.
    pub source: Budget,
    /// Budget of handshake initiations for all sources, on each CPU that receives.
    pub overall: Budget,
    /// Interface that the programs are attached to.
    pub ifindex: u32,
    /// Buckets of the index table less one; their number is a power of two.
    pub mask: u32,
    /// WireGuard's UDP port in host order; 0 while it is not known.
    pub port: u16,
    /// [`Self::NATIVE`] or nothing.
    pub flags: u16,
    /// The gateway's own IPv4 addresses in network order; the first zero ends the list.
    pub local_v4: [u32; LOCAL_MOST],
    /// The gateway's own IPv6 addresses; the first zero ends the list.
    pub local_v6: [AddressV6; LOCAL_MOST],
    /// Zero.
    pub pad: u32,
}

impl ShieldSettings {
    /// The guard runs in the driver.
    pub const NATIVE: u16 = 1;
}

/// Indexes in a bucket of the table.
pub const BUCKET_SLOTS: usize = 7;

/// One cache line of the index table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// An index found no room here: unknown ones of this bucket pass until then. Nanoseconds.
    pub lenient_until: u64,
    /// [`super::Slot`]s.
    pub slots: [u64; BUCKET_SLOTS],
}

/// Whose index it is, as far as the outside of a handshake tells.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// Where the handshake message went, IPv4-mapped for IPv4.
    pub address: AddressV6,
    /// The index; the rest belongs to it only where it is the slot's.
    pub index: u32,
    /// UDP port in host order.
    pub port: u16,
    /// Zero.
    pub pad: u16,
}

/// What was learned about the indexes of one bucket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LearnedBucket {
    /// By slot.
    pub slots: [Learned; BUCKET_SLOTS],
}

/// What a CPU keeps for itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Messages by [`super::ShieldReason`].
    pub counters: [u64; SHIELD_REASON_SLOTS],
    /// State of its share of the overall budget.
    pub overall: u64,
    /// The window that `sent` counts in.
    pub window: u64,
    /// Events sent in this window.
    pub sent: u64,
}

impl Default for Cpu {
    fn default() -> Self {
        Self {
            counters: [0; SHIELD_REASON_SLOTS],
            overall: 0,
            window: 0,
            sent: 0,
        }
    }
}

/// One message that was dropped.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShieldEvent {
    /// When, in nanoseconds of the maps' clock.
    pub time: u64,
    /// Outer source address, IPv4-mapped for IPv4.
    pub source: AddressV6,
    /// Index it was addressed to, or 0.
    pub receiver: u32,
    /// UDP source port in host order.
    pub port: u16,
    /// Length of the message in bytes, as UDP says.
    pub length: u16,
    /// [`super::ShieldReason`].
    pub reason: u8,
    /// Zero.
    pub pad: [u8; 7],
}

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<Budget>() == 16);
    assert!(size_of::<ShieldSettings>() == 8 + 32 + 12 + 32 + 128 + 4);
    assert!(offset_of!(ShieldSettings, local_v6) == 84 && offset_of!(ShieldSettings, pad) == 212);
    assert!(size_of::<Bucket>() == 64);
    assert!(size_of::<Learned>() == 24);
    assert!(size_of::<LearnedBucket>() == 168);
    assert!(size_of::<Cpu>() == 152);
    assert!(size_of::<ShieldEvent>() == 40);
};

#[cfg(feature = "user")]
mod pod {
    #![expect(
        unsafe_code,
        reason = "aya::Pod is an unsafe trait; the types are plain data, see each"
    )]

    use super::{Bucket, Cpu, LearnedBucket, ShieldEvent, ShieldSettings};

    macro_rules! pod {
        ($($ty:ty),+ $(,)?) => {
            $(
                // SAFETY: `repr(C)` over integers and arrays of them, without implicit padding
                // (sizes asserted above), and valid for every bit pattern.
                unsafe impl aya::Pod for $ty {}
            )+
        };
    }

    pod!(Bucket, Cpu, LearnedBucket, ShieldEvent, ShieldSettings);
}
