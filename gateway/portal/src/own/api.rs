//! The calls.

use axum::extract::Path;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::{Extension, Json};
use portcullis_control::{
    Activity, AddedDevice, DeviceRemoval, EndedSessions, NewDevice, OwnDevice, OwnSession,
    SelfServiceError, Tunnel, level_name,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Own;
use crate::api::{ApiError, Refusal};
use crate::guard::DeviceAddr;
use crate::site::Site;
use crate::view::{SessionJson, rfc3339};

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(devices, add))
        .routes(routes!(rename, remove))
        .routes(routes!(sessions))
        .routes(routes!(end_others))
        .routes(routes!(end))
        .routes(routes!(activity))
}

impl From<SelfServiceError> for ApiError {
    fn from(error: SelfServiceError) -> Self {
        Self::Told(error.into())
    }
}

/// One of the user's devices.
#[derive(Serialize, ToSchema)]
pub(super) struct DeviceJson {
    id: String,
    name: String,
    location: String,
    addresses: Vec<String>,
    /// `SHA256:` and the hash of the public key in base64.
    fingerprint: String,
    created_at: String,
    /// Null: never, as far as is known.
    last_handshake_at: Option<String>,
    /// When it is removed; null: it stays.
    ends_at: Option<String>,
    /// The one that asks.
    this_device: bool,
    signed_in: bool,
}

impl From<OwnDevice> for DeviceJson {
    fn from(device: OwnDevice) -> Self {
        Self {
            id: device.id,
            name: device.name,
            location: device.location,
            addresses: device.addresses,
            fingerprint: device.fingerprint,
            created_at: rfc3339(device.created_ms),
            last_handshake_at: device.last_handshake_ms.map(rfc3339),
            ends_at: device.ends_ms.map(rfc3339),
            this_device: device.is_this,
            signed_in: device.is_signed_in,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct Devices {
    devices: Vec<DeviceJson>,
    /// How many there may be before no more are added.
    limit: u32,
    /// Where new ones belong.
    location: String,
    /// The level of the fresh login that adding or removing one needs first; null when it needs none.
    change_needs: Option<&'static str>,
}

/// The user's devices.
#[utoipa::path(get, path = "/devices", tag = "devices",
    responses((status = 200, body = Devices), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn devices(
    Own(own): Own,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
) -> Result<Json<Devices>, ApiError> {
    let list = own.devices(from).await?;
    Ok(Json(Devices {
        devices: list.devices.into_iter().map(Into::into).collect(),
        limit: list.limit,
        location: list.location,
        change_needs: list.change_needs.map(level_name),
    }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Add {
    /// 1 to 64 characters on one line.
    #[schema(min_length = 1, max_length = 64)]
    name: String,
    /// Base64. The private key stays where it was made.
    public_key: String,
    /// Removed after so many hours; left out: it stays.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 24)]
    hours: Option<u32>,
}

/// What a WireGuard client has to be told beside its private key.
#[derive(Serialize, ToSchema)]
pub(crate) struct TunnelJson {
    addresses: Vec<String>,
    dns: Vec<String>,
    /// 0: up to the client.
    mtu: u32,
    server_public_key: String,
    endpoint: String,
    allowed_ips: Vec<String>,
    /// 0: off.
    persistent_keepalive_s: u32,
    /// Where to sign in.
    portal_url: String,
}

impl From<Tunnel> for TunnelJson {
    fn from(tunnel: Tunnel) -> Self {
        Self {
            addresses: tunnel.addresses,
            dns: tunnel.dns,
            mtu: tunnel.mtu,
            server_public_key: tunnel.server_public_key,
            endpoint: tunnel.endpoint,
            allowed_ips: tunnel.allowed_ips,
            persistent_keepalive_s: tunnel.persistent_keepalive_s,
            portal_url: tunnel.portal_url,
        }
    }
}

/// A device that was added.
#[derive(Serialize, ToSchema)]
pub(crate) struct Added {
    device: DeviceJson,
    tunnel: TunnelJson,
}

impl From<AddedDevice> for Added {
    fn from(added: AddedDevice) -> Self {
        Self {
            device: added.device.into(),
            tunnel: added.tunnel.into(),
        }
    }
}

/// Add a device by its public key. Needs a fresh login.
#[utoipa::path(post, path = "/devices", tag = "devices", request_body = Add,
    responses((status = 201, body = Added), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn add(
    Own(own): Own,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    body: Result<Json<Add>, JsonRejection>,
) -> Result<(StatusCode, Json<Added>), ApiError> {
    let Json(add) = body?;
    let new = NewDevice {
        name: &add.name,
        public_key: &add.public_key,
        hours: add.hours,
    };
    let added = own.add_device(from, new).await?;
    Ok((StatusCode::CREATED, Json(added.into())))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Rename {
    /// 1 to 64 characters on one line.
    #[schema(min_length = 1, max_length = 64)]
    name: String,
}

/// Give a device another name.
#[utoipa::path(patch, path = "/devices/{id}", tag = "devices", request_body = Rename,
    params(("id" = String, Path)),
    responses((status = 204), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn rename(
    Own(own): Own,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Path(id): Path<String>,
    body: Result<Json<Rename>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let Json(rename) = body?;
    own.rename_device(from, &id, &rename.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What ended, and whether that is certain.
#[derive(Serialize, ToSchema)]
pub(super) struct Ended {
    ended_sessions: usize,
    /// Not every gateway has acknowledged it yet.
    pending: bool,
}

impl From<DeviceRemoval> for Ended {
    fn from(removal: DeviceRemoval) -> Self {
        Self {
            ended_sessions: removal.ended,
            pending: removal.pending,
        }
    }
}

impl From<EndedSessions> for Ended {
    fn from(ended: EndedSessions) -> Self {
        Self {
            ended_sessions: ended.ended,
            pending: ended.pending,
        }
    }
}

/// Remove a device, and end its session. Needs a fresh login.
#[utoipa::path(delete, path = "/devices/{id}", tag = "devices", params(("id" = String, Path)),
    responses((status = 200, body = Ended), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn remove(
    Own(own): Own,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Path(id): Path<String>,
) -> Result<Json<Ended>, ApiError> {
    Ok(Json(own.remove_device(from, &id).await?.into()))
}

/// One of the user's live sessions.
#[derive(Serialize, ToSchema)]
struct OwnSessionJson {
    #[serde(flatten)]
    session: SessionJson,
    /// The one of the device that asks.
    this_device: bool,
    last_activity_at: String,
}

impl From<OwnSession> for OwnSessionJson {
    fn from(own: OwnSession) -> Self {
        Self {
            session: own.session.into(),
            this_device: own.is_this,
            last_activity_at: rfc3339(own.last_activity_ms),
        }
    }
}

#[derive(Serialize, ToSchema)]
struct Sessions {
    /// Newest first.
    sessions: Vec<OwnSessionJson>,
}

/// The user's live sessions on all devices.
#[utoipa::path(get, path = "/sessions", tag = "sessions",
    responses((status = 200, body = Sessions), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn sessions(
    Own(own): Own,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
) -> Result<Json<Sessions>, ApiError> {
    let sessions = own.sessions(from).await?;
    let sessions = sessions.into_iter().map(Into::into).collect();
    Ok(Json(Sessions { sessions }))
}

/// End one of them.
#[utoipa::path(delete, path = "/sessions/{id}", tag = "sessions", params(("id" = String, Path)),
    responses((status = 200, body = Ended), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn end(
    Own(own): Own,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Path(id): Path<String>,
) -> Result<Json<Ended>, ApiError> {
    Ok(Json(own.end_session(from, &id).await?.into()))
}

/// End all but the session of the device that asks.
#[utoipa::path(post, path = "/sessions/end-others", tag = "sessions",
    responses((status = 200, body = Ended), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn end_others(
    Own(own): Own,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
) -> Result<Json<Ended>, ApiError> {
    Ok(Json(own.end_other_sessions(from).await?.into()))
}

/// Something that happened to the account.
#[derive(Serialize, ToSchema)]
struct Event {
    at: String,
    /// In words.
    what: String,
    /// `you`, `an administrator`, `the system`, or `someone using it`: the device, before a login is done.
    by: &'static str,
}

impl From<Activity> for Event {
    fn from(activity: Activity) -> Self {
        Self {
            at: rfc3339(activity.at_ms),
            what: activity.what,
            by: activity.by,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct Events {
    /// Newest first, 50 at most.
    events: Vec<Event>,
}

/// What happened to the user's account.
#[utoipa::path(get, path = "/activity", tag = "sessions",
    responses((status = 200, body = Events), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn activity(
    Own(own): Own,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
) -> Result<Json<Events>, ApiError> {
    let events = own.activity(from).await?;
    let events = events.into_iter().map(Into::into).collect();
    Ok(Json(Events { events }))
}
