//! Peer changes as messages to the kernel.

use ipnet::IpNet;
use netlink_packet_core::Emitable as _;
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardPeer,
    WireguardPeerAttribute, WireguardPeerFlags,
};

use super::{PeerChange, PeerUpdate};

/// Well under the 64 KiB that a nested attribute can hold, and small enough that one message
/// does not keep the interface's configuration lock for long.
const MESSAGE_BYTES: usize = 24 << 10;
/// At most 36 bytes each.
const ALLOWED_IPS_PER_ENTRY: usize = 400;

/// Groups the changes, in their order, into messages of bounded size.
pub(super) fn messages(changes: &[PeerChange]) -> Vec<Vec<WireguardPeer>> {
    let mut messages = Vec::new();
    let mut message = Vec::new();
    let mut size = 0;
    for peer in changes.iter().flat_map(entries) {
        let length = peer.0.as_slice().buffer_len() + 4;
        if size + length > MESSAGE_BYTES && !message.is_empty() {
            messages.push(std::mem::take(&mut message));
            size = 0;
        }
        size += length;
        message.push(peer);
    }
    if !message.is_empty() {
        messages.push(message);
    }
    messages
}

/// One entry, or several where a peer has more allowed IPs than an entry should carry.
fn entries(change: &PeerChange) -> Vec<WireguardPeer> {
    match change {
        PeerChange::Remove(key) => vec![WireguardPeer(vec![
            WireguardPeerAttribute::PublicKey(*key.as_bytes()),
            WireguardPeerAttribute::Flags(WireguardPeerFlags::RemoveMe),
        ])],
        PeerChange::Update(update) => update_entries(update),
    }
}

fn update_entries(update: &PeerUpdate) -> Vec<WireguardPeer> {
    let mut flags = WireguardPeerFlags::empty();
    if !update.create {
        flags |= WireguardPeerFlags::UpdateOnly;
    }
    if update.allowed_ips.is_some() {
        flags |= WireguardPeerFlags::ReplaceAllowedIps;
    }
    let mut attributes = vec![
        WireguardPeerAttribute::PublicKey(*update.key.as_bytes()),
        WireguardPeerAttribute::Flags(flags),
    ];
    if let Some(key) = &update.preshared_key {
        // The all-zero key removes it.
        let key = key.as_ref().map_or([0; 32], |key| *key.as_bytes());
        attributes.push(WireguardPeerAttribute::PresharedKey(key));
    }
    if let Some(endpoint) = update.endpoint {
        attributes.push(WireguardPeerAttribute::Endpoint(endpoint));
    }
    if let Some(seconds) = update.persistent_keepalive {
        attributes.push(WireguardPeerAttribute::PersistentKeepalive(seconds));
    }
    let mut chunks = update
        .allowed_ips
        .iter()
        .flat_map(|all| all.chunks(ALLOWED_IPS_PER_ENTRY));
    if let Some(first) = chunks.next() {
        attributes.push(allowed_ips(first));
    }
    let mut entries = vec![WireguardPeer(attributes)];
    entries.extend(chunks.map(|chunk| {
        // Added to the first entry's, which replaced what there was.
        WireguardPeer(vec![
            WireguardPeerAttribute::PublicKey(*update.key.as_bytes()),
            WireguardPeerAttribute::Flags(WireguardPeerFlags::UpdateOnly),
            allowed_ips(chunk),
        ])
    }));
    entries
}

fn allowed_ips(networks: &[IpNet]) -> WireguardPeerAttribute {
    let entry = |network: &IpNet| {
        let family = match network {
            IpNet::V4(_) => WireguardAddressFamily::Ipv4,
            IpNet::V6(_) => WireguardAddressFamily::Ipv6,
        };
        WireguardAllowedIp(vec![
            WireguardAllowedIpAttr::Family(family),
            WireguardAllowedIpAttr::IpAddr(network.addr()),
            WireguardAllowedIpAttr::Cidr(network.prefix_len()),
        ])
    };
    WireguardPeerAttribute::AllowedIps(networks.iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::keys::PublicKey;

    fn update(count: u32) -> PeerChange {
        let network = |n| IpNet::from(std::net::IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n)));
        PeerChange::Update(PeerUpdate {
            key: PublicKey::try_from([1; 32]).expect("key"),
            create: true,
            preshared_key: Some(None),
            endpoint: None,
            persistent_keepalive: None,
            allowed_ips: Some((0..count).map(network).collect()),
        })
    }

    #[test]
    fn messages_stay_small_and_lose_nothing() {
        let changes = vec![update(2); 2000];
        let messages = messages(&changes);
        assert_eq!(messages.iter().map(Vec::len).sum::<usize>(), 2000);
        assert!(
            messages
                .iter()
                .all(|m| m.as_slice().buffer_len() <= MESSAGE_BYTES)
        );
    }

    #[test]
    fn only_the_first_entry_of_a_peer_replaces_its_allowed_ips() {
        let entries = entries(&update(1000));
        assert_eq!(entries.len(), 3);
        let replaces = |peer: &WireguardPeer| {
            peer.0.iter().any(|attribute| {
                matches!(attribute, WireguardPeerAttribute::Flags(flags)
                    if flags.contains(WireguardPeerFlags::ReplaceAllowedIps))
            })
        };
        assert_eq!(
            entries.iter().map(replaces).collect::<Vec<_>>(),
            [true, false, false]
        );
    }

    #[test]
    fn emptied_allowed_ips_are_sent_as_a_replacement_by_nothing() {
        assert_eq!(entries(&update(0)).len(), 1);
    }
}
