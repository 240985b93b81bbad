//! One's own devices.

use std::net::IpAddr;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use portcullis_proto::v1::Level;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::tunnel::Tunnel;
use super::{SelfService, SelfServiceError, note};
use crate::core::Core;
use crate::domain::{DeviceKey, Invalid, Label};
use crate::error::OperationError;
use crate::fresh::SignedIn;
use crate::login::{self, LoginError};
use crate::ops::devices::{Making, gateway_key, make, unmake};
use crate::ops::{ended_with, new_id};
use crate::store::devices::{self, DeviceRow};
use crate::store::{Write, locations, sessions, temporary};

/// Hours that a user may choose for a temporary device.
const HOURS: std::ops::RangeInclusive<u32> = 1..=24;
/// Characters of a user's name in the name of a device.
const OWNER_AT_MOST: usize = 48;

/// A device as its user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnDevice {
    pub id: String,
    /// What the user calls it.
    pub name: String,
    pub location: String,
    pub addresses: Vec<String>,
    /// `SHA256:` and the hash of the public key in base64, as `ssh-keygen -l` writes them.
    pub fingerprint: String,
    pub created_ms: i64,
    /// `None`: never, as far as is known.
    pub last_handshake_ms: Option<i64>,
    /// When it is removed; `None`: it stays.
    pub ends_ms: Option<i64>,
    /// The one that asks.
    pub is_this: bool,
    pub is_signed_in: bool,
}

/// The devices of who is signed in.
#[derive(Clone, Debug)]
pub struct DeviceList {
    /// By name.
    pub devices: Vec<OwnDevice>,
    /// How many there may be before no more are added.
    pub limit: u32,
    /// Where new ones belong: the location that is signed in at.
    pub location: String,
    /// The level of the fresh login that adding or removing one needs first. `None`: none.
    pub change_needs: Option<Level>,
}

/// A device to be added.
#[derive(Clone, Debug)]
pub struct NewDevice<'a> {
    pub name: &'a str,
    /// Base64.
    pub public_key: &'a str,
    /// Removed after 1 to 24 hours; `None`: it stays.
    pub hours: Option<u32>,
}

/// A device that was added, and what its client has to be told.
#[derive(Clone, Debug)]
pub struct AddedDevice {
    pub device: OwnDevice,
    pub tunnel: Tunnel,
}

/// A device that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRemoval {
    /// Sessions that were ended with it.
    pub ended: usize,
    /// Some gateway has not acknowledged it in time: until it does, or the deadline of its session
    /// passes, it may let packets pass.
    pub pending: bool,
}

impl SelfService {
    /// The devices of the user who is signed in.
    pub async fn devices(&self, from: IpAddr) -> Result<DeviceList, SelfServiceError> {
        let now_ms = self.0.now_ms();
        let mut read = self.0.store.read().await?;
        let signed_in = self.0.signed_in(read.sql(), from, now_ms).await?;
        let rows = devices::list(read.sql(), &signed_in.device.user_id, "").await?;
        let live = sessions::list(read.sql(), &signed_in.device.user_id, "", false).await?;
        let mut devices = Vec::with_capacity(rows.len());
        for row in rows {
            let addresses = devices::addresses_of(read.sql(), &row.id).await?;
            let is_signed_in = live
                .iter()
                .any(|session| session.device_id == row.id && session.deadline_ms > now_ms);
            let is_this = row.id == signed_in.device.id;
            devices.push(OwnDevice {
                is_this,
                is_signed_in,
                ..view(row, addresses)
            });
        }
        read.end().await?;
        devices.sort_by_cached_key(|device| device.name.to_lowercase());
        Ok(DeviceList {
            devices,
            limit: self.0.config.devices_per_user,
            change_needs: signed_in.needs(now_ms),
            location: signed_in.device.location,
        })
    }

    /// Adds a device by its public key.
    pub async fn add_device(
        &self,
        from: IpAddr,
        new: NewDevice<'_>,
    ) -> Result<AddedDevice, SelfServiceError> {
        let new = new.check()?;
        let core = &self.0;
        let mut write = core.store.change(core.now_ms()).await?;
        let now_ms = write.now_ms();
        let signed_in = self.0.signed_in(write.sql(), from, now_ms).await?;
        signed_in.admit(&mut write, now_ms).await?;
        let mine = &signed_in.device;
        let owner = Owner {
            id: &mine.user_id,
            name: &mine.user,
        };
        let added = add(core, &mut write, owner, &mine.location_id, &new).await?;
        write.commit().await?;
        Ok(added)
    }

    /// Gives a device another name. A name opens nothing: any live session will do.
    pub async fn rename_device(
        &self,
        from: IpAddr,
        id: &str,
        name: &str,
    ) -> Result<(), SelfServiceError> {
        let label = Label::parse("a device", name)?;
        let mut write = self.0.store.record(self.0.now_ms()).await?;
        let now_ms = write.now_ms();
        let signed_in = self.0.signed_in(write.sql(), from, now_ms).await?;
        let row = own(&mut write, &signed_in, id).await?;
        if row.called() == label.as_str() {
            return Ok(());
        }
        temporary::call(write.sql(), &row.id, label.as_str()).await?;
        let detail = json!({ "called": label.as_str(), "was": row.called() });
        note(&mut write, &row.user, "device.rename", &row.name, detail).await?;
        write.commit().await?;
        Ok(())
    }

    /// Removes a device from the gateways too, with its session.
    pub async fn remove_device(
        &self,
        from: IpAddr,
        id: &str,
    ) -> Result<DeviceRemoval, SelfServiceError> {
        let core: &Core = &self.0;
        let mut write = core.store.change(core.now_ms()).await?;
        let now_ms = write.now_ms();
        let signed_in = self.0.signed_in(write.sql(), from, now_ms).await?;
        let row = own(&mut write, &signed_in, id).await?;
        signed_in.admit(&mut write, now_ms).await?;
        let ended = unmake(&mut write, &row).await?;
        let detail = ended_with(&ended, json!({ "called": row.called() }));
        note(&mut write, &row.user, "device.remove", &row.name, detail).await?;
        let committed = Instant::now();
        let revision = write.commit().await?;
        let pending = login::pending(core, &[row.location_id], revision, committed).await?;
        Ok(DeviceRemoval {
            ended: ended.len(),
            pending,
        })
    }
}

/// Whose a device will be.
#[derive(Clone, Copy)]
pub(crate) struct Owner<'a> {
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
}

/// A device to be added that looks like one.
pub(crate) struct Checked {
    label: Label,
    public_key: DeviceKey,
    for_ms: i64,
}

impl NewDevice<'_> {
    pub(crate) fn check(&self) -> Result<Checked, SelfServiceError> {
        Ok(Checked {
            label: Label::parse("a device", self.name)?,
            public_key: key(self.public_key).ok_or(SelfServiceError::Key)?,
            for_ms: match self.hours {
                None => 0,
                Some(hours) if HOURS.contains(&hours) => i64::from(hours) * 3_600_000,
                Some(_) => {
                    let text = "a temporary device is there for 1 to 24 hours";
                    return Err(Invalid(text.into()).into());
                }
            },
        })
    }
}

/// Adds a device by its user, within a change, if there is room for one more.
pub(crate) async fn add(
    core: &Core,
    write: &mut Write<'_>,
    owner: Owner<'_>,
    location_id: &str,
    new: &Checked,
) -> Result<AddedDevice, SelfServiceError> {
    let limit = core.config.devices_per_user;
    let held = devices::list(write.sql(), owner.id, "").await?;
    if held.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
        return Err(SelfServiceError::TooMany(limit));
    }
    let location = locations::find(write.sql(), location_id).await?;
    let location = location.ok_or(LoginError::UnknownDevice)?;
    let gateway_key = gateway_key(write, &location).await?;
    let gateway_key = gateway_key.ok_or(SelfServiceError::NoGateway)?;
    let id = new_id();
    let name = name_for(owner.name, &id);
    let making = Making {
        id: &id,
        name: &name,
        label: new.label.as_str(),
        user_id: owner.id,
        location: &location,
        public_key: new.public_key,
        preshared_key: None,
        for_ms: new.for_ms,
    };
    let addresses = make(write, making).await.map_err(|error| match error {
        OperationError::Exists { .. } => SelfServiceError::Key,
        error => error.into(),
    })?;
    let detail = json!({
        "called": new.label.as_str(),
        "location": location.name,
        "addresses": addresses,
        "for_ms": new.for_ms,
    });
    note(write, owner.name, "device.add", &name, detail).await?;
    let row = devices::find(write.sql(), &id).await?;
    let row = row.ok_or(SelfServiceError::UnknownDevice)?;
    let tunnel = Tunnel::new(&location, &addresses, gateway_key)?;
    Ok(AddedDevice {
        device: view(row, addresses),
        tunnel,
    })
}

/// A device of who is signed in, by its id alone: names of devices are shared by all.
async fn own(
    write: &mut Write<'_>,
    signed_in: &SignedIn,
    id: &str,
) -> Result<DeviceRow, SelfServiceError> {
    devices::find(write.sql(), id)
        .await?
        .filter(|row| row.id == id && row.user_id == signed_in.device.user_id)
        .ok_or(SelfServiceError::UnknownDevice)
}

fn key(base64: &str) -> Option<DeviceKey> {
    let bytes = STANDARD.decode(base64.trim()).ok()?;
    DeviceKey::parse(&bytes).ok()
}

/// What administrators call it. Whatever the user calls it, no other user's name is in its way.
fn name_for(user: &str, id: &str) -> String {
    let owner: String = user.chars().take(OWNER_AT_MOST).collect();
    let (mark, _) = id.split_once('-').unwrap_or((id, ""));
    format!("{owner}-{mark}")
}

fn view(row: DeviceRow, addresses: Vec<String>) -> OwnDevice {
    let hash = Sha256::digest(row.public_key.as_bytes());
    OwnDevice {
        name: row.called().to_owned(),
        id: row.id,
        location: row.location,
        addresses,
        fingerprint: format!("SHA256:{}", STANDARD_NO_PAD.encode(hash)),
        created_ms: row.created_ms,
        last_handshake_ms: (row.last_handshake_ms != 0).then_some(row.last_handshake_ms),
        ends_ms: (row.ends_ms != 0).then_some(row.ends_ms),
        is_this: false,
        is_signed_in: false,
    }
}
