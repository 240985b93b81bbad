//! The look-up, as the kernel does it.

use std::net::IpAddr;

use gateway_common::abi::Direction;

use super::compile::CompiledPolicy;
use super::outcome::RuleOutcome;

impl CompiledPolicy {
    /// What the policy of this number says about a flow opened in `direction`. `port` is the
    /// destination's, 0 where the protocol has none. An unknown policy permits nothing.
    pub fn lookup(
        &self,
        policy: u32,
        direction: Direction,
        remote: IpAddr,
        protocol: u8,
        port: u16,
    ) -> RuleOutcome {
        self.tables()
            .lookup(policy, direction, remote, protocol, port)
    }
}
