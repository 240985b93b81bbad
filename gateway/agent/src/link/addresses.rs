//! The interface's own addresses, by difference.

use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};

use super::{Link, LinkError, answer, errno};

impl Link {
    /// Gives the interface exactly these addresses. Those it needs come before those that go, so
    /// that it is never without one.
    pub async fn set_addresses(&self, index: u32, wanted: &[IpNet]) -> Result<(), LinkError> {
        let present = self.addresses(index).await?;
        for address in wanted {
            if present.iter().any(|(_, present)| present == address) {
                continue;
            }
            let request = self
                .handle
                .address()
                .add(index, address.addr(), address.prefix_len());
            match answer(request.execute()).await {
                Err(error) if errno(&error) != Some(libc::EEXIST) => {
                    return Err(self.failed("add an address to", error));
                }
                _ => {}
            }
        }
        for (message, address) in present {
            if wanted.contains(&address) || is_link_local(&address) {
                continue;
            }
            match answer(self.handle.address().del(message).execute()).await {
                // Removing a primary IPv4 address takes its secondaries along.
                Err(error) if errno(&error) != Some(libc::EADDRNOTAVAIL) => {
                    return Err(self.failed("remove an address from", error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Every address of this machine, each with the index of its interface.
    pub async fn all_addresses(&self) -> Result<Vec<(u32, IpAddr)>, LinkError> {
        let messages: Vec<AddressMessage> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|error| self.failed("read addresses beside those of", error))?;
        Ok(messages
            .iter()
            .filter_map(|message| Some((message.header.index, address(message)?.addr())))
            .collect())
    }

    /// The addresses of the interface, each with its message.
    pub(super) async fn addresses(
        &self,
        index: u32,
    ) -> Result<Vec<(AddressMessage, IpNet)>, LinkError> {
        let request = self.handle.address().get().set_link_index_filter(index);
        let messages: Vec<AddressMessage> = answer(request.execute().try_collect())
            .await
            .map_err(|error| self.failed("read the addresses of", error))?;
        Ok(messages
            .into_iter()
            .filter_map(|m| address(&m).map(|net| (m, net)))
            .collect())
    }
}

fn address(message: &AddressMessage) -> Option<IpNet> {
    let find =
        |pick: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(pick);
    // IPv4 names the interface's own address "local", IPv6 "address" unless there is a peer's.
    let local = find(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = local.or_else(|| {
        find(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })?;
    IpNet::new(address, message.header.prefix_len).ok()
}

/// The kernel's own, if any.
fn is_link_local(address: &IpNet) -> bool {
    matches!(address, IpNet::V6(v6) if v6.addr().is_unicast_link_local())
}
