//! A small internet: two peers and a gateway on one network, a protected server behind the gateway.
//!
//! ```text
//!  peer1 192.0.2.11 ──┐
//!  peer2 192.0.2.12 ──┼── wan (bridge) ── 192.0.2.1 gateway 10.9.0.1 ── 10.9.0.2 server
//!                     │                             fd09::1        fd09::2
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::sync::Arc;

use anyhow::Result;

use crate::command::run;
use crate::namespace::Namespace;

/// The protected server.
pub const SERVER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));
/// The protected server's other address.
pub const SERVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2));

/// The namespaces, wired together.
#[derive(Debug)]
pub struct World {
    /// Where the clients are.
    pub peers: [Arc<Namespace>; 2],
    /// Where Portcullis runs.
    pub gateway: Arc<Namespace>,
    /// The host behind it.
    pub server: Arc<Namespace>,
    _wan: Namespace,
}

impl World {
    /// Builds it.
    pub fn new() -> Result<Self> {
        let wan = Namespace::new("wan")?;
        let gateway = Arc::new(Namespace::new("gateway")?);
        let server = Arc::new(Namespace::new("server")?);
        let peers = [
            Arc::new(Namespace::new("peer1")?),
            Arc::new(Namespace::new("peer2")?),
        ];

        let mut links = String::new();
        for (port, namespace) in [
            ("gateway", &gateway),
            ("peer1", &peers[0]),
            ("peer2", &peers[1]),
        ] {
            links.push_str(&format!(
                "link add {port} netns {} type veth peer name wan0 netns {}\n",
                wan.name(),
                namespace.name()
            ));
        }
        links.push_str(&format!(
            "link add lan0 netns {} type veth peer name lan0 netns {}\n",
            gateway.name(),
            server.name()
        ));
        run(Command::new("ip").args(["-batch", "-"]), &links)?;

        wan.ip("link add bridge type bridge\n\
             link set bridge up\n\
             link set gateway master bridge up\n\
             link set peer1 master bridge up\n\
             link set peer2 master bridge up\n")?;
        gateway.ip("address add 192.0.2.1/24 dev wan0\n\
             address add 10.9.0.1/24 dev lan0\n\
             address add fd09::1/64 dev lan0 nodad\n\
             link set wan0 up\n\
             link set lan0 up\n")?;
        server.ip("address add 10.9.0.2/24 dev lan0\n\
             address add fd09::2/64 dev lan0 nodad\n\
             link set lan0 up\n\
             route add default via 10.9.0.1\n\
             route add default via fd09::1\n")?;
        for (index, peer) in peers.iter().enumerate() {
            peer.ip(&format!(
                "address add 192.0.2.{}/24 dev wan0\nlink set wan0 up\n",
                11 + index
            ))?;
        }
        Ok(Self {
            peers,
            gateway,
            server,
            _wan: wan,
        })
    }
}
