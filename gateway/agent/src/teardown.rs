//! Takes everything of this gateway's out of the kernel: the one explicit clean-up.

use crate::config::AgentConfig;
use crate::datapath::{Datapath, Shield};
use crate::instance::Instance;
use crate::interface::InterfaceError;
use crate::link::Link;

/// Removes the WireGuard interface, and then the programs and maps: in this order, so that there is
/// no instant at which the interface is up and not enforced. Keys and enrolment stay.
///
/// An interface of that name that is not WireGuard's is left alone. While an agent runs on the
/// interface, nothing is done: it would make everything again.
pub async fn teardown(config: &AgentConfig) -> Result<(), InterfaceError> {
    let _instance = Instance::claim(&config.interface)?;
    let link = Link::new(&config.interface)?;
    if let Some(found) = link.find().await?.filter(|found| found.is_wireguard) {
        link.set_down(found.index).await?;
        link.delete(found.index).await?;
    }
    Shield::teardown(&config.datapath())?;
    Datapath::teardown(&config.datapath())?;
    Ok(())
}
