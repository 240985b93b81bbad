//! What holds for the whole interface.

/// The one entry of its map. All-zero (what the map starts with) is a gateway without services.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Changes with the policy or the services: cached verdicts of flows must be decided again.
    pub epoch: u32,
    /// Bits below.
    pub flags: u32,
    /// The bits of [`super::ServiceKey::filter_bit`] of all services: spares most packets of a
    /// locked peer the look-up.
    pub service_filter: u64,
    /// Zero.
    pub reserved: u64,
}

impl Settings {
    /// Some peer has an IPv4 prefix shorter than 32 bits.
    pub const WIDE_V4: u32 = 1;
    /// Some peer has an IPv6 prefix shorter than 128 bits.
    pub const WIDE_V6: u32 = 2;
}
