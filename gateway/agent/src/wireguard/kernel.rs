//! WireGuard in the kernel, over generic netlink.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_packet_wireguard::{WireguardAttribute, WireguardCmd, WireguardMessage};

use super::genl::{Genl, GenlError};
use super::{Device, DeviceSettings, PeerChange, WireGuard, WireGuardError, decode, encode};

/// A dump that peers changed under is asked for again this often.
const DUMP_ATTEMPTS: u32 = 8;

/// A WireGuard interface of this network namespace, by name.
#[derive(Clone, Debug)]
pub struct Kernel {
    interface: String,
}

impl Kernel {
    /// The interface need not exist yet.
    pub fn new(interface: impl Into<String>) -> Self {
        Self {
            interface: interface.into(),
        }
    }

    fn open(&self) -> Result<Genl, WireGuardError> {
        Genl::open("wireguard").map_err(|error| match io::Error::from(error) {
            error if error.kind() == io::ErrorKind::NotFound => WireGuardError::NoFamily,
            error => self.failed("opening")(error),
        })
    }

    fn set(
        &self,
        genl: &mut Genl,
        action: &'static str,
        attributes: impl IntoIterator<Item = WireguardAttribute>,
    ) -> Result<(), WireGuardError> {
        let name = WireguardAttribute::IfName(self.interface.clone());
        let request = WireguardMessage {
            cmd: WireguardCmd::SetDevice,
            attributes: [name].into_iter().chain(attributes).collect(),
        };
        genl.request(request, NLM_F_ACK)
            .map(drop)
            .map_err(|error| self.failed(action)(error.into()))
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> WireGuardError {
        let interface = self.interface.clone();
        move |source| match source.raw_os_error() {
            Some(libc::ENODEV) => WireGuardError::NoDevice(interface),
            _ => WireGuardError::Netlink {
                action,
                interface,
                source,
            },
        }
    }
}

impl WireGuard for Kernel {
    fn read(&self) -> Result<Device, WireGuardError> {
        let mut genl = self.open()?;
        let mut attempt = 1;
        loop {
            let request = WireguardMessage {
                cmd: WireguardCmd::GetDevice,
                attributes: vec![WireguardAttribute::IfName(self.interface.clone())],
            };
            match genl.request(request, NLM_F_DUMP) {
                Ok(messages) => return Ok(decode::device(messages)),
                Err(GenlError::Interrupted) if attempt < DUMP_ATTEMPTS => attempt += 1,
                Err(error) => return Err(self.failed("reading")(error.into())),
            }
        }
    }

    fn configure(&self, settings: &DeviceSettings) -> Result<(), WireGuardError> {
        // No flag that replaces the peers: they stay as they are, with their sessions.
        let attributes = [
            WireguardAttribute::PrivateKey(*settings.private_key.as_bytes()),
            WireguardAttribute::ListenPort(settings.listen_port),
        ];
        self.set(&mut self.open()?, "configuring", attributes)
    }

    fn apply(&self, changes: &[PeerChange]) -> Result<(), WireGuardError> {
        let mut genl = self.open()?;
        for peers in encode::messages(changes) {
            self.set(
                &mut genl,
                "changing peers",
                [WireguardAttribute::Peers(peers)],
            )?;
        }
        Ok(())
    }
}
