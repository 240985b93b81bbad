//! The page. Renaming and removing work without the script; making a passkey cannot.

use askama::Template;
use axum::extract::Path;
use axum::extract::rejection::FormRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Form, Router};
use portcullis_control::{Level, PasskeyError, PasskeyList, PasskeyView};
use serde::Deserialize;

use super::On;
use crate::api::Told;
use crate::guard::DeviceAddr;
use crate::nav::Nav;
use crate::own::script;
use crate::pages::{Notice, page};
use crate::site::{Offer, Site};
use crate::view::Moment;

const SCRIPT: &str = include_str!("../../assets/passkeys.js");

pub(super) fn routes() -> Router<Site> {
    Router::new()
        .route("/passkeys", get(passkeys))
        .route("/passkeys/{id}/rename", post(rename))
        .route("/passkeys/{id}/remove", post(remove))
        .route("/passkeys.js", get(passkeys_script))
}

#[derive(Template)]
#[template(path = "passkeys.html")]
struct PasskeysPage<'a> {
    nav: Nav,
    cards: Vec<Card<'a>>,
    /// Why nothing can be added or removed now.
    needs: Option<&'static str>,
    error: &'a str,
    offer: Offer,
}

struct Card<'a> {
    passkey: &'a PasskeyView,
    added: Moment,
    used: Option<Moment>,
}

impl<'a> PasskeysPage<'a> {
    fn new(list: &'a PasskeyList, error: &'a str, offer: Offer, nav: Nav) -> Self {
        let cards = list.passkeys.iter().map(|passkey| Card {
            passkey,
            added: passkey.created_ms.into(),
            used: passkey.last_used_ms.map(Into::into),
        });
        Self {
            nav,
            cards: cards.collect(),
            needs: list.change_needs.map(|level| match level {
                Level::PhishingResistant => {
                    "To add or remove a passkey, sign in again with a passkey."
                }
                _ => "To add or remove a passkey, sign in again.",
            }),
            error,
            offer,
        }
    }
}

pub(crate) async fn passkeys_script() -> Response {
    script(SCRIPT)
}

async fn passkeys(
    On(passkeys): On,
    offer: Offer,
    nav: Nav,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
) -> Response {
    match passkeys.list(from).await {
        Ok(list) => page(StatusCode::OK, &PasskeysPage::new(&list, "", offer, nav)),
        Err(PasskeyError::NoSession) => Redirect::to("/").into_response(),
        Err(error) => Told::from(error).into_page(),
    }
}

#[derive(Deserialize)]
struct RenameForm {
    name: String,
}

async fn rename(
    passkeys: On,
    offer: Offer,
    nav: Nav,
    device: Extension<DeviceAddr>,
    Path(id): Path<String>,
    form: Result<Form<RenameForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        return incomplete();
    };
    let Extension(DeviceAddr(from)) = device;
    match passkeys.0.rename(from, &id, &form.name).await {
        Ok(_) => Redirect::to("/passkeys").into_response(),
        Err(error) => again(passkeys, offer, nav, device, error).await,
    }
}

#[derive(Deserialize)]
struct RemoveForm {
    /// A checkbox: there or not.
    end_other_sessions: Option<String>,
}

async fn remove(
    passkeys: On,
    offer: Offer,
    nav: Nav,
    device: Extension<DeviceAddr>,
    Path(id): Path<String>,
    form: Result<Form<RemoveForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        return incomplete();
    };
    let Extension(DeviceAddr(from)) = device;
    let end_others = form.end_other_sessions.is_some();
    match passkeys.0.remove(from, &id, end_others).await {
        Ok(removed) if removed.pending => page(
            StatusCode::ACCEPTED,
            &Notice {
                text: "The passkey is removed and your other sessions have ended, but a gateway has not confirmed it yet: until it does, those devices may still be let through.",
            },
        ),
        Ok(_) => Redirect::to("/passkeys").into_response(),
        Err(error) => again(passkeys, offer, nav, device, error).await,
    }
}

/// The page once more, with what was wrong.
async fn again(
    On(passkeys): On,
    offer: Offer,
    nav: Nav,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    error: PasskeyError,
) -> Response {
    let told = Told::from(error);
    match passkeys.list(from).await {
        Ok(list) => page(
            told.status,
            &PasskeysPage::new(&list, &told.text, offer, nav),
        ),
        Err(_) => told.into_page(),
    }
}

fn incomplete() -> Response {
    let text = "the form is incomplete";
    page(StatusCode::BAD_REQUEST, &Notice { text })
}
