//! The maps as the decision's tables.

use core::mem;

use gateway_common::{
    abi::{
        AddressV4, AddressV6, Direction, FlowKeyV4, FlowKeyV6, FlowState, FragmentKey,
        FragmentState, PeerState, RuleOutcome, ServiceKey, Settings,
    },
    decide::{Decision, Query, Tables},
    packet::Packet,
    verdict::Reason,
};

use crate::{clock, emit, flows, maps, policy};

/// All maps, at one moment.
pub(crate) struct Maps {
    pub(crate) now: u64,
    /// Length of the packet, for events.
    pub(crate) length: u32,
}

macro_rules! tables {
    ($address:ty, $key:ty, $peer_of:ident, $flow:ident, $store_flow:ident, $rule:ident) => {
        impl Tables<$address> for Maps {
            #[inline(always)]
            fn settings(&self) -> Option<Settings> {
                maps::settings()
            }

            #[inline(always)]
            fn peer_of(&self, settings: &Settings, address: $address) -> Option<u32> {
                maps::$peer_of(settings, address)
            }

            #[inline(always)]
            fn peer(&self, index: u32) -> Option<PeerState> {
                maps::peer(index)
            }

            #[inline(always)]
            fn flow(&self, key: &$key) -> Option<FlowState> {
                flows::$flow(key, self.now)
            }

            #[inline(always)]
            fn fragment(&self, key: &FragmentKey) -> Option<FragmentState> {
                maps::fragment(key)
            }

            #[inline(always)]
            fn is_service(&self, key: &ServiceKey) -> bool {
                maps::is_service(key)
            }

            #[inline(always)]
            fn rule(&self, query: &Query<$address>) -> RuleOutcome {
                policy::$rule(query)
            }

            #[inline(always)]
            fn opaque(&self, value: u8) -> u8 {
                value ^ clock::nothing(self.now) as u8
            }

            #[inline(always)]
            fn opaque_reason(&self, reason: Reason) -> Reason {
                let reason = reason as u8 ^ clock::nothing(self.now) as u8;
                // SAFETY: it is what it was.
                unsafe { mem::transmute::<u8, Reason>(reason) }
            }

            #[inline(always)]
            fn store_flow(&mut self, key: &$key, state: &FlowState) {
                flows::$store_flow(key, state, self.now);
            }

            #[inline(always)]
            fn store_fragment(&mut self, key: &FragmentKey, state: &FragmentState) {
                maps::store_fragment(key, state);
            }

            #[inline(always)]
            fn opened(
                &mut self,
                flags: u32,
                direction: Direction,
                packet: &Packet<$address>,
                decision: Decision,
                now: u64,
            ) {
                emit::opened(flags, self.length, direction, packet, decision, now);
            }

            #[inline(always)]
            fn touch(&mut self, index: u32, now: u64) {
                maps::touch(index, now);
            }
        }
    };
}

tables!(AddressV4, FlowKeyV4, peer_v4, get_v4, put_v4, rule_v4);
tables!(AddressV6, FlowKeyV6, peer_v6, get_v6, put_v6, rule_v6);
