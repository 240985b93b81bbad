//! The client's WireGuard interface, over netlink.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use portcullis_agent::keys::{PresharedKey, PrivateKey, PublicKey};
use portcullis_agent::link::{Link, LinkError};
use portcullis_agent::wireguard::{DeviceSettings, Kernel, PeerChange, PeerUpdate, WireGuard as _};
use portcullis_client::{Connection, KeyPair, Renewal};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::dns::Resolvers;
use crate::exit::UsageError;
use crate::time;

/// An interface that this process made.
pub(super) struct Tunnel {
    link: Link,
    kernel: Kernel,
    index: u32,
}

impl Tunnel {
    /// Makes the interface with the device's key: down, without a peer. One that a crash of ours has left, which
    /// the key tells, is replaced.
    pub(super) async fn prepare(name: &str, device: &KeyPair) -> Result<Self> {
        let link = Link::new(name)?;
        let kernel = Kernel::new(name);
        if let Some(found) = link.find().await? {
            if !(found.is_wireguard && has_key(&kernel, device)?) {
                bail!(UsageError(format!(
                    "there is an interface {name} that is not this command's: name another one with --interface"
                )));
            }
            link.clear_detour(found.index).await?;
            link.delete(found.index).await?;
            Resolvers::of_this_machine().forget(name);
        }
        let index = link.create().await?;
        let tunnel = Self {
            link,
            kernel,
            index,
        };
        match tunnel.use_key(device) {
            Ok(()) => Ok(tunnel),
            Err(error) => {
                // What counts is the first error.
                let _ = tunnel.remove().await;
                Err(error)
            }
        }
    }

    /// Removes what a crash of ours has left under this name, which the key tells. Another's stays.
    pub(super) async fn remove_left(name: &str, device: &KeyPair) -> Result<bool> {
        let Ok(link) = Link::new(name) else {
            return Ok(false);
        };
        match link.find().await? {
            Some(found) if found.is_wireguard && has_key(&Kernel::new(name), device)? => {
                link.clear_detour(found.index).await?;
                link.delete(found.index).await?;
                Resolvers::of_this_machine().forget(name);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// The one that another process of this device holds.
    pub(super) async fn existing(name: &str, device: &KeyPair) -> Result<Self> {
        let link = Link::new(name)?;
        let kernel = Kernel::new(name);
        match link.find().await? {
            Some(found) if found.is_wireguard && has_key(&kernel, device)? => Ok(Self {
                index: found.index,
                link,
                kernel,
            }),
            _ => bail!("there is no interface {name} of this device: connect anew"),
        }
    }

    /// What the next handshake mixes in. The keys of the last one carry on until then.
    pub(super) fn set_preshared_key(&self, renewal: &Renewal) -> Result<()> {
        Ok(self.kernel.apply(&[PeerChange::Update(PeerUpdate {
            key: gateway_key(&renewal.tunnel)?,
            create: false,
            preshared_key: Some(Some(preshared_key(&renewal.preshared_key)?)),
            endpoint: None,
            persistent_keepalive: None,
            allowed_ips: None,
        })])?)
    }

    fn use_key(&self, device: &KeyPair) -> Result<()> {
        let settings = DeviceSettings {
            private_key: PrivateKey::from_base64(&device.private_base64())?,
            listen_port: 0,
        };
        Ok(self.kernel.configure(&settings)?)
    }

    pub(super) fn name(&self) -> &str {
        self.link.name()
    }

    /// Peer, addresses and routes of the connection. The server stays where it is.
    pub(super) async fn bring_up(&self, connection: &Connection, server: &[IpAddr]) -> Result<()> {
        let tunnel = &connection.tunnel;
        let allowed_ips = networks(&tunnel.allowed_ips)?;
        let addresses = networks(&tunnel.addresses)?;
        let endpoint = resolve(&tunnel.endpoint)?;
        let around = [&[endpoint.ip()], server].concat();
        let (covering, beside): (Vec<IpNet>, Vec<IpNet>) = allowed_ips
            .iter()
            .partition(|net| net.prefix_len() == 0 || around.iter().any(|ip| net.contains(ip)));
        let preshared = preshared_key(&connection.preshared_key)?;
        let keepalive = u16::try_from(tunnel.persistent_keepalive_s)
            .context("the server's keepalive is longer than WireGuard's")?;
        self.kernel.apply(&[PeerChange::Update(PeerUpdate {
            key: gateway_key(tunnel)?,
            create: true,
            preshared_key: Some(Some(preshared)),
            endpoint: Some(endpoint),
            persistent_keepalive: Some(keepalive),
            allowed_ips: Some(allowed_ips.clone()),
        })])?;
        if tunnel.mtu != 0 {
            self.link.set_mtu(self.index, tunnel.mtu).await?;
        }
        self.link.set_addresses(self.index, &addresses).await?;
        self.link.set_up(self.index).await?;
        self.link.set_routes(self.index, &beside).await?;
        if !covering.is_empty() {
            self.link.set_detour(self.index, &covering, &around).await?;
        }
        Ok(())
    }

    /// No packet passes from here on.
    pub(super) async fn take_down(&self) -> Result<()> {
        match self.link.set_down(self.index).await {
            Err(LinkError::Gone(_)) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// By its number: another interface of the same name is not touched.
    pub(super) async fn remove(self) -> Result<()> {
        self.link.clear_detour(self.index).await?;
        match self.link.delete(self.index).await {
            Err(LinkError::Gone(_)) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn gateway_key(tunnel: &portcullis_client::Tunnel) -> Result<PublicKey> {
    let key = STANDARD
        .decode(&tunnel.server_public_key)
        .context("the server's answer holds no key of the gateway")?;
    Ok(PublicKey::try_from(key.as_slice())?)
}

fn preshared_key(base64: &str) -> Result<PresharedKey> {
    const NONE: &str = "the server's answer holds no pre-shared key";
    let key = Zeroizing::new(STANDARD.decode(base64).context(NONE)?);
    PresharedKey::from_wire(&key)?.context(NONE)
}

/// What the kernel counts of a tunnel.
pub(super) struct Traffic {
    /// The gateway's, as heard from last.
    pub(super) endpoint: Option<SocketAddr>,
    /// 0: never.
    pub(super) handshake_ms: i64,
    pub(super) received: u64,
    pub(super) sent: u64,
}

impl Traffic {
    pub(super) fn json(&self) -> Value {
        json!({
            "endpoint": self.endpoint.map(|at| at.to_string()),
            "handshake": time::json(self.handshake_ms),
            "rx_bytes": self.received,
            "tx_bytes": self.sent,
        })
    }
}

/// What passed through a tunnel of this device. Needs CAP_NET_ADMIN.
pub(super) fn traffic(interface: &str, device: &KeyPair) -> Result<Traffic> {
    let read = Kernel::new(interface).read()?;
    let ours = read.public_key.map(|key| *key.as_bytes()) == Some(*device.public().as_bytes());
    ensure!(ours, "interface {interface} is another's");
    let peer = read.peers.first().context("it has no peer")?;
    Ok(Traffic {
        endpoint: peer.status.endpoint,
        handshake_ms: peer.status.last_handshake_ms,
        received: peer.status.rx_bytes,
        sent: peer.status.tx_bytes,
    })
}

fn has_key(kernel: &Kernel, device: &KeyPair) -> Result<bool> {
    let key = kernel.read()?.public_key;
    Ok(key.is_some_and(|key| key.as_bytes() == device.public().as_bytes()))
}

/// A bare address stands for itself alone.
fn networks(texts: &[String]) -> Result<Vec<IpNet>> {
    let parse = |text: &String| {
        text.parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .with_context(|| format!("the server's answer names `{text}`, which is no network"))
    };
    texts.iter().map(parse).collect()
}

fn resolve(endpoint: &str) -> Result<SocketAddr> {
    endpoint
        .to_socket_addrs()
        .with_context(|| format!("cannot resolve the gateway's endpoint {endpoint}"))?
        .next()
        .with_context(|| format!("the gateway's endpoint {endpoint} has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_strictly() {
        let texts = ["10.88.0.2".to_owned(), "fd88::2/128".to_owned()];
        let found = networks(&texts).unwrap();
        assert_eq!(found[0].to_string(), "10.88.0.2/32");
        assert_eq!(found[1].to_string(), "fd88::2/128");
        assert!(networks(&["10.88.0.0/33".to_owned()]).is_err());
    }
}
