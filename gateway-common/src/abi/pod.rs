//! The map types may cross the system call as bytes.
#![expect(
    unsafe_code,
    reason = "aya::Pod is an unsafe trait; the types are plain data, see each"
)]

use aya::Pod;

use super::{
    AddressV4, AddressV6, CaptiveKey, CaptivePortal, EffectivePolicy, Event, EventBudget,
    FlowKeyV4, FlowKeyV6, FlowState, FragmentKey, FragmentState, GrantKey, IntervalList, LpmKey,
    Outcome, PeerDrops, PeerKey, PeerState, PolicyPrefix, PortInterval, Region, ServiceKey,
    Settings,
};

macro_rules! pod {
    ($($ty:ty),+ $(,)?) => {
        $(
            // SAFETY: `repr(C)` or `repr(transparent)` over integers and arrays of them, without
            // implicit padding (sizes asserted in the parent module), and valid for every bit pattern.
            unsafe impl Pod for $ty {}
        )+
    };
}

pod!(
    AddressV4,
    AddressV6,
    CaptiveKey,
    CaptivePortal,
    EffectivePolicy,
    Event,
    EventBudget,
    FlowKeyV4,
    FlowKeyV6,
    FlowState,
    FragmentKey,
    FragmentState,
    GrantKey,
    IntervalList,
    LpmKey<AddressV4>,
    LpmKey<AddressV6>,
    LpmKey<PolicyPrefix<AddressV4>>,
    LpmKey<PolicyPrefix<AddressV6>>,
    Outcome,
    PeerDrops,
    PeerKey,
    PeerState,
    PortInterval,
    Region,
    ServiceKey,
    Settings,
);
