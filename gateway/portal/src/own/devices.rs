//! The page of devices. All of it works without the script, but for making a key: then the user pastes
//! the public half of one that was made elsewhere.

use askama::Template;
use axum::extract::Path;
use axum::extract::rejection::FormRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Form, Router};
use portcullis_control::{
    DeviceList, Level, NewDevice, OwnDevice, SelfService, SelfServiceError, Tunnel,
};
use serde::Deserialize;

use super::Own;
use crate::api::Told;
use crate::guard::DeviceAddr;
use crate::nav::Nav;
use crate::pages::{Notice, page};
use crate::site::Site;
use crate::view::Moment;

pub(crate) const DEVICES: &str = include_str!("../../assets/devices.js");
pub(crate) const QR: &str = include_str!("../../assets/qr.js");

pub(super) fn routes() -> Router<Site> {
    Router::new()
        .route("/devices", get(devices).post(add))
        .route("/devices/{id}/rename", post(rename))
        .route("/devices/{id}/remove", post(remove))
        .route("/devices.js", get(async || script(DEVICES)))
        .route("/qr.js", get(async || script(QR)))
}

pub(crate) fn script(text: &'static str) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/javascript; charset=utf-8")];
    (kind, text).into_response()
}

#[derive(Template)]
#[template(path = "devices.html")]
struct DevicesPage<'a> {
    nav: Nav,
    list: &'a DeviceList,
    cards: Vec<Card<'a>>,
    /// Why nothing can be added or removed now.
    needs: Option<&'static str>,
    full: bool,
    error: &'a str,
    typed: Typed<'a>,
}

/// What the form for a pasted key holds. Never the key: it may have been the private one.
struct Typed<'a> {
    name: &'a str,
    temporary: bool,
    hours: &'a str,
    refused: bool,
}

struct Card<'a> {
    device: &'a OwnDevice,
    added: Moment,
    handshake: Option<Moment>,
    ends: Option<Moment>,
}

impl<'a> DevicesPage<'a> {
    fn new(list: &'a DeviceList, error: &'a str, nav: Nav) -> Self {
        let cards = list.devices.iter().map(|device| Card {
            device,
            added: device.created_ms.into(),
            handshake: device.last_handshake_ms.map(Into::into),
            ends: device.ends_ms.map(Into::into),
        });
        Self {
            nav,
            cards: cards.collect(),
            needs: list.change_needs.map(|level| match level {
                Level::PhishingResistant => {
                    "To add or remove a device, sign in again with a passkey."
                }
                _ => "To add or remove a device, sign in again.",
            }),
            full: list.devices.len() >= usize::try_from(list.limit).unwrap_or(usize::MAX),
            list,
            error,
            typed: Typed {
                name: "",
                temporary: false,
                hours: "8",
                refused: false,
            },
        }
    }
}

#[derive(Template)]
#[template(path = "device_added.html")]
struct AddedPage<'a> {
    nav: Nav,
    device: &'a OwnDevice,
    ends: Option<Moment>,
    tunnel: &'a Tunnel,
}

async fn devices(
    Own(own): Own,
    nav: Nav,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
) -> Response {
    match own.devices(from).await {
        Ok(list) => page(StatusCode::OK, &DevicesPage::new(&list, "", nav)),
        Err(error) => told(error),
    }
}

/// A browser's form sends what is not filled in as well.
#[derive(Deserialize)]
struct AddForm {
    name: String,
    public_key: String,
    /// A checkbox: there or not.
    temporary: Option<String>,
    #[serde(default)]
    hours: String,
}

async fn add(
    Own(own): Own,
    nav: Nav,
    device: Extension<DeviceAddr>,
    form: Result<Form<AddForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        return incomplete();
    };
    let hours = match (&form.temporary, form.hours.trim().parse()) {
        (None, _) => None,
        (Some(_), Ok(hours)) => Some(hours),
        (Some(_), Err(_)) => return incomplete(),
    };
    let new = NewDevice {
        name: &form.name,
        public_key: &form.public_key,
        hours,
    };
    let Extension(DeviceAddr(from)) = device;
    match own.add_device(from, new).await {
        Ok(added) => page(
            StatusCode::CREATED,
            &AddedPage {
                nav,
                ends: added.device.ends_ms.map(Into::into),
                device: &added.device,
                tunnel: &added.tunnel,
            },
        ),
        Err(error) => again(&own, nav, device, error, Some(&form)).await,
    }
}

#[derive(Deserialize)]
struct RenameForm {
    name: String,
}

async fn rename(
    Own(own): Own,
    nav: Nav,
    device: Extension<DeviceAddr>,
    Path(id): Path<String>,
    form: Result<Form<RenameForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        return incomplete();
    };
    let Extension(DeviceAddr(from)) = device;
    match own.rename_device(from, &id, &form.name).await {
        Ok(()) => Redirect::to("/devices").into_response(),
        Err(error) => again(&own, nav, device, error, None).await,
    }
}

async fn remove(
    Own(own): Own,
    nav: Nav,
    device: Extension<DeviceAddr>,
    Path(id): Path<String>,
) -> Response {
    let Extension(DeviceAddr(from)) = device;
    match own.remove_device(from, &id).await {
        Ok(removal) if removal.pending => page(
            StatusCode::ACCEPTED,
            &Notice {
                text: "The device is removed, but a gateway has not confirmed it yet: until it does, the device may still be let through.",
            },
        ),
        Ok(_) => Redirect::to("/devices").into_response(),
        Err(error) => again(&own, nav, device, error, None).await,
    }
}

/// The page once more, with what was wrong.
async fn again(
    own: &SelfService,
    nav: Nav,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    error: SelfServiceError,
    adding: Option<&AddForm>,
) -> Response {
    if matches!(error, SelfServiceError::NoSession) {
        return told(error);
    }
    let why = Told::from(error);
    match own.devices(from).await {
        Ok(list) => {
            let mut again = DevicesPage::new(&list, &why.text, nav);
            if let Some(form) = adding {
                again.typed = Typed {
                    name: &form.name,
                    temporary: form.temporary.is_some(),
                    hours: &form.hours,
                    refused: true,
                };
            }
            page(why.status, &again)
        }
        Err(_) => why.into_page(),
    }
}

/// Without a session the way leads to the sign-in page.
pub(super) fn told(error: SelfServiceError) -> Response {
    match error {
        SelfServiceError::NoSession => Redirect::to("/").into_response(),
        error => Told::from(error).into_page(),
    }
}

pub(super) fn incomplete() -> Response {
    let text = "the form is incomplete";
    page(StatusCode::BAD_REQUEST, &Notice { text })
}
