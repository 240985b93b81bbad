//! Networks that cover the way to the tunnel's own peer, such as all of them: a table of the interface's own, which
//! the machine asks after its own routes and before its default one. What the tunnel itself needs leaves the
//! table again (`throw`), to wherever the machine would send it without the tunnel, also after it has moved.
//!
//! ```text
//! priority p      lookup main suppress_prefixlength 0
//! priority p + 1  lookup T          T: throw PEER, NETWORKS dev INTERFACE
//! 32766           lookup main
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteMessage, RouteScope, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::RouteMessageBuilder;

use super::routes::PROTOCOL;
use super::{Link, LinkError, answer, errno};

/// `pc`, before the interface's number: other programs number theirs low.
const TABLES: u32 = 0x7063_0000;
/// Before the machine's own, which begin at 32766.
const PRIORITIES: u32 = 20_000;
const MAIN: u8 = 254;
const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

fn table(index: u32) -> u32 {
    TABLES | (index & 0xffff)
}

impl Link {
    /// Sends what goes to these networks into the interface, which has to be up, unless the machine has a route of its
    /// own for it that is not its default one, or it goes to one of the addresses `around`.
    pub async fn set_detour(
        &self,
        index: u32,
        networks: &[IpNet],
        around: &[IpAddr],
    ) -> Result<(), LinkError> {
        self.clear_detour(index).await?;
        let thrown = around.iter().copied().map(IpNet::from);
        let routes = thrown
            .map(|net| thrown_message(index, &net))
            .chain(networks.iter().map(|net| entering(index, net)));
        for message in routes {
            match answer(self.handle.route().add(message).execute()).await {
                Err(error) if errno(&error) != Some(libc::EEXIST) => {
                    return Err(self.failed("add a route to", error));
                }
                _ => {}
            }
        }
        let is_v4 = |family| family == AddressFamily::Inet;
        for family in FAMILIES {
            if !networks
                .iter()
                .any(|net| net.addr().is_ipv4() == is_v4(family))
            {
                continue;
            }
            for rule in rules(index, family) {
                let mut request = self.handle.rule().add();
                *request.message_mut() = rule;
                answer(request.execute())
                    .await
                    .map_err(|error| self.failed("add a routing rule for", error))?;
            }
        }
        Ok(())
    }

    /// Removes what [`set_detour`](Self::set_detour) has made for the interface of this number, if anything.
    pub async fn clear_detour(&self, index: u32) -> Result<(), LinkError> {
        for rule in FAMILIES.into_iter().flat_map(|family| rules(index, family)) {
            match answer(self.handle.rule().del(rule).execute()).await {
                Err(error) if !is_absent(&error) => {
                    return Err(self.failed("remove a routing rule of", error));
                }
                _ => {}
            }
        }
        // The others go with the interface; these belong to none.
        let table = table(index);
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new();
        let v4 = v4.table_id(table).kind(RouteType::Throw);
        let v6 = v6.table_id(table).kind(RouteType::Throw);
        for filter in [v4.protocol(PROTOCOL).build(), v6.protocol(PROTOCOL).build()] {
            let request = self.handle.route().get(filter).execute();
            let present: Vec<RouteMessage> = match answer(request.try_collect()).await {
                Ok(present) => present,
                Err(error) if is_absent(&error) => continue,
                Err(error) => return Err(self.failed("read the routes of", error)),
            };
            for message in present {
                match answer(self.handle.route().del(message).execute()).await {
                    Err(error) if !is_absent(&error) => {
                        return Err(self.failed("remove a route from", error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// There is no such rule, route, table, or family.
fn is_absent(error: &rtnetlink::Error) -> bool {
    const ABSENT: [i32; 3] = [libc::ENOENT, libc::ESRCH, libc::EAFNOSUPPORT];
    errno(error).is_some_and(|errno| ABSENT.contains(&errno))
}

fn entering(index: u32, network: &IpNet) -> RouteMessage {
    match network {
        IpNet::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(v4.addr(), v4.prefix_len())
            .protocol(PROTOCOL)
            .scope(RouteScope::Link)
            .output_interface(index)
            .table_id(table(index))
            .build(),
        IpNet::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(v6.addr(), v6.prefix_len())
            .protocol(PROTOCOL)
            .output_interface(index)
            .table_id(table(index))
            .build(),
    }
}

fn thrown_message(index: u32, network: &IpNet) -> RouteMessage {
    match network {
        IpNet::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(v4.addr(), v4.prefix_len())
            .protocol(PROTOCOL)
            .kind(RouteType::Throw)
            .table_id(table(index))
            .build(),
        IpNet::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(v6.addr(), v6.prefix_len())
            .protocol(PROTOCOL)
            .kind(RouteType::Throw)
            .table_id(table(index))
            .build(),
    }
}

/// The machine's own routes but for the default one, and then the table.
fn rules(index: u32, family: AddressFamily) -> [RuleMessage; 2] {
    let priority = PRIORITIES + 2 * (index % 6_000);
    let rule = |priority, main, attribute| {
        let mut message = RuleMessage::default();
        message.header.family = family;
        message.header.action = RuleAction::ToTable;
        message.header.table = main;
        message.attributes = vec![RuleAttribute::Priority(priority), attribute];
        message
    };
    [
        rule(priority, MAIN, RuleAttribute::SuppressPrefixLen(0)),
        rule(priority + 1, 0, RuleAttribute::Table(table(index))),
    ]
}
