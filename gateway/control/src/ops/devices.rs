//! Devices: a public key, addresses, perhaps a pre-shared key.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Instant;

use portcullis_proto::v1;
use serde_json::json;

use super::locations::view as location_view;
use super::revocation::Affected;
use super::{Result, by_admin, found, new_id};
use crate::core::Core;
use crate::domain::{DeviceKey, Mode, Name};
use crate::error::OperationError;
use crate::secrets::{Field, random};
use crate::store::devices::{DeviceRow, NewDevice};
use crate::store::locations::LocationRow;
use crate::store::{Write, devices, gateways, locations, sessions, to_i64, to_u64, users};

/// The shortest and the longest time that a temporary device may be there for.
const SHORTEST_MS: i64 = 60 * 1000;
const HOURS_AT_MOST: i64 = 24;

/// A device to be made within a change.
pub(crate) struct Making<'a> {
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    /// What its user calls it; empty where an administrator named it.
    pub(crate) label: &'a str,
    pub(crate) user_id: &'a str,
    pub(crate) location: &'a LocationRow,
    pub(crate) public_key: DeviceKey,
    /// Sealed.
    pub(crate) preshared_key: Option<String>,
    /// Removed after this time; 0: stays.
    pub(crate) for_ms: i64,
}

/// Makes a device with the lowest free address of each pool. Answers the addresses.
pub(crate) async fn make(write: &mut Write<'_>, making: Making<'_>) -> Result<Vec<String>> {
    let for_ms = making.for_ms;
    if for_ms != 0 && !(SHORTEST_MS..=HOURS_AT_MOST * 3_600_000).contains(&for_ms) {
        return Err(OperationError::invalid(format!(
            "a temporary device is there for a minute to {HOURS_AT_MOST} hours"
        )));
    }
    if making.preshared_key.is_some() && making.location.mode == Mode::SessionKey {
        return Err(OperationError::Precondition(format!(
            "location {:?} gives each session a pre-shared key of its own: add the device without one",
            making.location.name
        )));
    }
    let taken = devices::find_by_key(write.sql(), making.public_key).await?;
    if taken.is_some() {
        return Err(OperationError::Exists {
            what: "device with public key",
            name: making.public_key.to_base64(),
        });
    }
    // WireGuard knows no peer with its own interface's key: the gateway could never say that it has it.
    if gateways::has_key(write.sql(), making.public_key).await? {
        return Err(OperationError::Exists {
            what: "gateway with public key",
            name: making.public_key.to_base64(),
        });
    }
    let device = NewDevice {
        id: making.id,
        name: making.name,
        label: making.label,
        user_id: making.user_id,
        location_id: &making.location.id,
        public_key: making.public_key,
        preshared_key: making.preshared_key,
        revision: write.revision(),
        created_ms: write.now_ms(),
        ends_ms: match for_ms {
            0 => 0,
            for_ms => write.now_ms().saturating_add(for_ms),
        },
    };
    devices::insert(write.sql(), &device)
        .await
        .map_err(OperationError::taken("device", making.name))?;
    assign(write, making.id, making.location).await
}

/// Removes a device with its sessions. Answers the ids of those that were live.
pub(crate) async fn unmake(write: &mut Write<'_>, device: &DeviceRow) -> Result<Vec<String>> {
    let (revision, now_ms) = (write.revision(), write.now_ms());
    let ended = sessions::live_ids(write.sql(), &device.user_id, &device.id).await?;
    devices::delete(write.sql(), device, revision, now_ms).await?;
    Ok(ended)
}

/// Where a device's pre-shared key is sealed.
pub(crate) fn preshared_key_field(device_id: &str) -> Field<'_> {
    Field {
        table: "devices",
        column: "preshared_key",
        row: device_id,
    }
}

impl Core {
    pub(crate) async fn add_device(
        &self,
        request: v1::AddDeviceRequest,
    ) -> Result<v1::AddDeviceResponse> {
        let name = Name::parse("device", &request.name)?;
        let public_key = DeviceKey::parse(&request.public_key)?;
        let id = new_id();
        let preshared_key = if request.preshared_key {
            Some(random::<32>()?)
        } else {
            None
        };
        let sealed = preshared_key
            .as_ref()
            .map(|key| self.vault.seal(preshared_key_field(&id), key.as_slice()));

        let mut write = self.store.change(self.now_ms()).await?;
        let user = found(
            "user",
            &request.user,
            users::find(write.sql(), &request.user),
        )
        .await?;
        let location = location_or_only(&mut write, &request.location).await?;
        let making = Making {
            id: &id,
            name: name.as_str(),
            label: "",
            user_id: &user.id,
            location: &location,
            public_key,
            preshared_key: sealed.transpose()?,
            for_ms: to_i64(request.for_ms),
        };
        let addresses = make(&mut write, making).await?;
        let detail = json!({
            "user": user.name,
            "location": location.name,
            "addresses": addresses,
            "for_ms": request.for_ms,
        });
        write
            .audit(by_admin("device.add", name.as_str(), detail))
            .await?;
        let device = found("device", &id, devices::find(write.sql(), &id)).await?;
        let gateway_key = gateway_key(&mut write, &location).await?;
        write.commit().await?;

        Ok(v1::AddDeviceResponse {
            device: Some(view(device, addresses)),
            preshared_key: preshared_key.map(|key| key.to_vec()).unwrap_or_default(),
            gateway_public_key: gateway_key
                .map(|key| key.as_bytes().to_vec())
                .unwrap_or_default(),
            portal_url: portal_url(&location)?,
            location: Some(location_view(&location)),
            ca_fingerprint: self.ca.fingerprint(),
        })
    }

    pub(crate) async fn list_devices(
        &self,
        request: v1::ListDevicesRequest,
    ) -> Result<v1::Devices> {
        let mut read = self.store.read().await?;
        let user = match request.user.as_str() {
            "" => String::new(),
            name => found("user", name, users::find(read.sql(), name)).await?.id,
        };
        let location = match request.location.as_str() {
            "" => String::new(),
            name => {
                found("location", name, locations::find(read.sql(), name))
                    .await?
                    .id
            }
        };
        let devices = devices::list(read.sql(), &user, &location).await?;
        let mut addresses = devices::addresses(read.sql(), &location).await?;
        read.end().await?;
        let devices = devices.into_iter().map(|device| {
            let addresses = addresses.remove(&device.id).unwrap_or_default();
            view(device, addresses)
        });
        Ok(v1::Devices {
            devices: devices.collect(),
        })
    }

    pub(crate) async fn get_device(&self, name: &str) -> Result<v1::Device> {
        let mut read = self.store.read().await?;
        let device = found("device", name, devices::find(read.sql(), name)).await?;
        let addresses = devices::addresses_of(read.sql(), &device.id).await?;
        read.end().await?;
        Ok(view(device, addresses))
    }

    /// Removes the device from the gateways too, with its session.
    pub(crate) async fn remove_device(&self, name: &str) -> Result<v1::RevocationStatus> {
        let mut write = self.store.change(self.now_ms()).await?;
        let device = found("device", name, devices::find(write.sql(), name)).await?;
        let ended = unmake(&mut write, &device).await?;
        let detail = super::ended_with(&ended, json!({ "user": device.user }));
        write
            .audit(by_admin("device.remove", &device.name, detail))
            .await?;
        let revision = write.commit().await?;
        let affected = Affected {
            revision,
            sessions: super::count(&ended),
            locations: vec![device.location_id],
            committed: Instant::now(),
        };
        self.settle(affected).await
    }
}

/// The WireGuard key of the location's gateway, once one has connected.
pub(crate) async fn gateway_key(
    write: &mut Write<'_>,
    location: &LocationRow,
) -> Result<Option<DeviceKey>> {
    let gateways = gateways::list(write.sql(), &location.id).await?;
    let mut serving = gateways.iter().filter(|gateway| !gateway.removing);
    Ok(serving.find_map(|gateway| gateway.public_key))
}

async fn location_or_only(write: &mut Write<'_>, name: &str) -> Result<LocationRow> {
    if !name.is_empty() {
        return found("location", name, locations::find(write.sql(), name)).await;
    }
    let mut all = locations::list(write.sql()).await?;
    match (all.pop(), all.len()) {
        (Some(only), 0) => Ok(only),
        (None, _) => Err(OperationError::Precondition(
            "there is no location yet: add one first".into(),
        )),
        (Some(_), others) => Err(OperationError::invalid(format!(
            "there are {} locations: say which one",
            others + 1
        ))),
    }
}

/// The lowest free address of each pool.
async fn assign(
    write: &mut Write<'_>,
    device_id: &str,
    location: &LocationRow,
) -> Result<Vec<String>> {
    let assigned = devices::addresses(write.sql(), &location.id).await?;
    let mut taken: HashSet<IpAddr> = assigned
        .values()
        .flatten()
        .filter_map(|address| address.parse().ok())
        .collect();
    let reserved = location.dns.iter().chain(&location.portals);
    taken.extend(reserved.filter_map(|address| address.parse::<IpAddr>().ok()));
    let mut addresses = Vec::new();
    for pool in location.pools()? {
        let address = pool
            .lowest_free(&taken)
            .ok_or_else(|| OperationError::PoolExhausted(pool.net().to_string()))?
            .to_string();
        devices::add_address(write.sql(), device_id, &location.id, &address).await?;
        addresses.push(address);
    }
    Ok(addresses)
}

/// Where a user of this location logs in.
pub(crate) fn portal_url(location: &LocationRow) -> Result<String> {
    let address = match location
        .portals
        .first()
        .and_then(|portal| portal.parse().ok())
    {
        Some(portal) => portal,
        None => match location.pools()?.first() {
            Some(pool) => pool.gateway().addr(),
            None => return Ok(String::new()),
        },
    };
    let host = match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    };
    Ok(match location.portal_port {
        443 => format!("https://{host}"),
        port => format!("https://{host}:{port}"),
    })
}

fn view(device: DeviceRow, addresses: Vec<String>) -> v1::Device {
    v1::Device {
        id: device.id,
        name: device.name,
        user: device.user,
        location: device.location,
        public_key: device.public_key.as_bytes().to_vec(),
        addresses,
        has_preshared_key: device.has_preshared_key,
        created_ms: device.created_ms,
        endpoint: device.endpoint,
        last_handshake_ms: device.last_handshake_ms,
        rx_bytes: to_u64(device.rx_bytes),
        tx_bytes: to_u64(device.tx_bytes),
        label: device.label,
        ends_ms: device.ends_ms,
    }
}
