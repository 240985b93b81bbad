//! What a WireGuard client has to be told, all but its private key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::domain::DeviceKey;
use crate::error::OperationError;
use crate::ops::devices::portal_url;
use crate::store::StoreError;
use crate::store::locations::LocationRow;

/// The parts of a client's configuration that control knows. The private key is the device's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Each with its prefix length.
    pub addresses: Vec<String>,
    pub dns: Vec<String>,
    /// 0: up to the client.
    pub mtu: u32,
    /// Base64.
    pub server_public_key: String,
    /// `host:port`.
    pub endpoint: String,
    pub allowed_ips: Vec<String>,
    /// 0: off.
    pub persistent_keepalive_s: u32,
    /// Where to sign in.
    pub portal_url: String,
}

impl Tunnel {
    pub(crate) fn new(
        location: &LocationRow,
        addresses: &[String],
        gateway_key: DeviceKey,
    ) -> Result<Self, OperationError> {
        let small = |value: i64| u32::try_from(value).map_err(|_| StoreError::Value("number"));
        let pools = location.pools()?;
        let pools = pools.iter().map(|pool| pool.net().to_string());
        Ok(Self {
            addresses: addresses.iter().map(|a| with_prefix(a)).collect(),
            dns: location.dns.clone(),
            mtu: small(location.mtu)?,
            server_public_key: STANDARD.encode(gateway_key.as_bytes()),
            endpoint: location.endpoint.clone(),
            allowed_ips: pools.chain(location.routes.iter().cloned()).collect(),
            persistent_keepalive_s: small(location.persistent_keepalive_s)?,
            portal_url: portal_url(location)?,
        })
    }
}

fn with_prefix(address: &str) -> String {
    let bits = if address.contains(':') { 128 } else { 32 };
    format!("{address}/{bits}")
}
