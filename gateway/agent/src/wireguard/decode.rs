//! A dump of an interface, put together again.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_wireguard::{
    WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute, WireguardMessage,
    WireguardPeer, WireguardPeerAttribute,
};

use super::{Device, DevicePeer, PeerConfig, PeerStatus};
use crate::keys::{PresharedKey, PublicKey};

/// A peer whose allowed IPs do not fit into one message goes on in the next one, under the same
/// key; the device's own attributes come with the first message only.
pub(super) fn device(messages: Vec<WireguardMessage>) -> Device {
    let mut device = Device::default();
    for attribute in messages.into_iter().flat_map(|message| message.attributes) {
        match attribute {
            WireguardAttribute::PublicKey(key) => device.public_key = PublicKey::try_from(key).ok(),
            WireguardAttribute::ListenPort(port) => device.listen_port = port,
            WireguardAttribute::Peers(peers) => {
                for peer in peers.into_iter().filter_map(peer) {
                    match device.peers.last_mut() {
                        Some(last) if last.key == peer.key => {
                            last.config.allowed_ips.extend(peer.config.allowed_ips);
                        }
                        _ => device.peers.push(peer),
                    }
                }
            }
            _ => {}
        }
    }
    for peer in &mut device.peers {
        peer.config.allowed_ips.sort_unstable();
    }
    device
}

fn peer(peer: WireguardPeer) -> Option<DevicePeer> {
    let mut key = None;
    let mut config = PeerConfig {
        preshared_key: None,
        allowed_ips: Vec::new(),
        persistent_keepalive: 0,
    };
    let mut status = PeerStatus::default();
    for attribute in peer.0 {
        match attribute {
            WireguardPeerAttribute::PublicKey(bytes) => key = PublicKey::try_from(bytes).ok(),
            WireguardPeerAttribute::PresharedKey(bytes) => {
                config.preshared_key = PresharedKey::from_kernel(bytes);
            }
            WireguardPeerAttribute::PersistentKeepalive(seconds) => {
                config.persistent_keepalive = seconds;
            }
            WireguardPeerAttribute::AllowedIps(networks) => {
                config
                    .allowed_ips
                    .extend(networks.iter().filter_map(allowed_ip));
            }
            WireguardPeerAttribute::Endpoint(endpoint) => status.endpoint = Some(endpoint),
            WireguardPeerAttribute::LastHandshake(time) => {
                status.last_handshake_ms = time
                    .seconds
                    .saturating_mul(1000)
                    .saturating_add(time.nano_seconds / 1_000_000);
            }
            WireguardPeerAttribute::RxBytes(bytes) => status.rx_bytes = bytes,
            WireguardPeerAttribute::TxBytes(bytes) => status.tx_bytes = bytes,
            _ => {}
        }
    }
    Some(DevicePeer {
        key: key?,
        config,
        status,
    })
}

fn allowed_ip(network: &WireguardAllowedIp) -> Option<IpNet> {
    let mut address: Option<IpAddr> = None;
    let mut prefix = None;
    for attribute in &network.0 {
        match attribute {
            WireguardAllowedIpAttr::IpAddr(ip) => address = Some(*ip),
            WireguardAllowedIpAttr::Cidr(bits) => prefix = Some(*bits),
            _ => {}
        }
    }
    IpNet::new(address?, prefix?).ok()
}
