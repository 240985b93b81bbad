//! Routes to allowed IPs that lie outside the interface's own networks, by difference.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope,
};
use rtnetlink::RouteMessageBuilder;

use super::{Link, LinkError, answer, errno};

/// Marks the routes that are the agent's: no other of the interface's routes is touched. From the
/// range that rtnetlink(7) leaves to programs.
pub(super) const PROTOCOL: RouteProtocol = RouteProtocol::Other(0xb6);

impl Link {
    /// Gives the interface, which has to be up, exactly these routes of ours.
    pub async fn set_routes(&self, index: u32, wanted: &[IpNet]) -> Result<(), LinkError> {
        let present = self.routes(index).await?;
        for network in wanted {
            if present.iter().any(|(_, present)| present == network) {
                continue;
            }
            let request = self.handle.route().add(message(index, network));
            match answer(request.execute()).await {
                Err(error) if errno(&error) != Some(libc::EEXIST) => {
                    return Err(self.failed("add a route to", error));
                }
                _ => {}
            }
        }
        for (message, network) in present {
            if wanted.contains(&network) {
                continue;
            }
            match answer(self.handle.route().del(message).execute()).await {
                Err(error) if errno(&error) != Some(libc::ESRCH) => {
                    return Err(self.failed("remove a route from", error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn routes(&self, index: u32) -> Result<Vec<(RouteMessage, IpNet)>, LinkError> {
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new();
        let mut routes = Vec::new();
        for filter in [
            v4.protocol(PROTOCOL).output_interface(index).build(),
            v6.protocol(PROTOCOL).output_interface(index).build(),
        ] {
            let request = self.handle.route().get(filter).execute();
            let result = answer(request.try_collect::<Vec<_>>()).await;
            match result {
                Ok(messages) => routes.extend(
                    messages
                        .into_iter()
                        .filter_map(|m| ours(&m, index).map(|net| (m, net))),
                ),
                // The table does not exist yet: no route of this family was ever made.
                Err(error) if errno(&error) == Some(libc::ENOENT) => {}
                Err(error) => return Err(self.failed("read the routes of", error)),
            }
        }
        Ok(routes)
    }
}

fn message(index: u32, network: &IpNet) -> RouteMessage {
    match network {
        IpNet::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(v4.addr(), v4.prefix_len())
            .protocol(PROTOCOL)
            .scope(RouteScope::Link)
            .output_interface(index)
            .build(),
        IpNet::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(v6.addr(), v6.prefix_len())
            .protocol(PROTOCOL)
            .output_interface(index)
            .build(),
    }
}

/// The destination, where the route is one of ours.
fn ours(message: &RouteMessage, index: u32) -> Option<IpNet> {
    let mut destination = None;
    let mut leaves_here = false;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => leaves_here = *oif == index,
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => {
                destination = Some(IpAddr::from(*v4));
            }
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => {
                destination = Some(IpAddr::from(*v6));
            }
            _ => {}
        }
    }
    let ours = leaves_here && message.header.protocol == PROTOCOL;
    IpNet::new(destination?, message.header.destination_prefix_length)
        .ok()
        .filter(|_| ours)
}
