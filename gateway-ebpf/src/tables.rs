//! The maps as the decision's tables.

use gateway_common::{
    abi::{
        AddressV4, AddressV6, Direction, FlowKeyV4, FlowKeyV6, FlowState, FragmentKey,
        FragmentState, PeerState, ServiceKey, Settings,
    },
    decide::{Requirement, Tables, gate},
};

use crate::{flows, maps};

/// All maps, at one moment.
pub(crate) struct Maps {
    pub(crate) now: u64,
}

macro_rules! tables {
    ($address:ty, $key:ty, $peer_of:ident, $flow:ident, $store_flow:ident) => {
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
            fn requirement(
                &self,
                _policy: u32,
                direction: Direction,
                _remote: $address,
                _protocol: u8,
                _port: u16,
            ) -> Option<Requirement> {
                gate(direction)
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
            fn touch(&mut self, index: u32, now: u64) {
                maps::touch(index, now);
            }
        }
    };
}

tables!(AddressV4, FlowKeyV4, peer_v4, get_v4, put_v4);
tables!(AddressV6, FlowKeyV6, peer_v6, get_v6, put_v6);
