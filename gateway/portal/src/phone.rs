//! A login that waits for its user's phone, as its computer shows it: in JSON, and as a page.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use portcullis_control::{PhonePrompt, PhoneStep};
use serde::Serialize;
use utoipa::ToSchema;

use crate::own::script;
use crate::pages::page;
use crate::seed::drawn;
use crate::view::wait;

const SCRIPT: &str = include_str!("../assets/phone.js");

/// What is to be shown: the address as a QR code, and the number.
#[derive(Serialize, ToSchema)]
#[schema(as = PhonePrompt)]
pub(crate) struct PromptJson {
    /// Opened by the phone that scans it. Good once.
    url: String,
    /// From 10 to 99; to be typed into the phone.
    number: u8,
    expires_in_s: u64,
}

impl From<PhonePrompt> for PromptJson {
    fn from(prompt: PhonePrompt) -> Self {
        Self {
            url: prompt.url.expose().to_owned(),
            number: prompt.number,
            expires_in_s: prompt.expires_in.as_secs(),
        }
    }
}

/// Nobody has answered on the phone yet.
#[derive(Serialize, ToSchema)]
#[schema(as = PhoneWaiting)]
pub(crate) struct Waiting {
    /// `waiting`.
    state: &'static str,
    expires_in_s: u64,
}

/// What finishing is answered: `waiting`, or what any last factor is.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Phoned<T> {
    Waiting(Waiting),
    Done(T),
}

impl<T, S: Into<T>> From<PhoneStep<S>> for Phoned<T> {
    fn from(step: PhoneStep<S>) -> Self {
        match step {
            PhoneStep::Waiting { expires_in } => Self::Waiting(Waiting {
                state: "waiting",
                expires_in_s: expires_in.as_secs(),
            }),
            PhoneStep::Done(step) => Self::Done(step.into()),
        }
    }
}

#[derive(Template)]
#[template(path = "phone.html")]
struct Phone<'a> {
    /// None once the phone has approved.
    prompt: Option<Prompt<'a>>,
    /// Of the page; its form is below.
    path: &'a str,
}

struct Prompt<'a> {
    url: &'a str,
    number: u8,
    /// Our own drawing: it is not escaped.
    qr: String,
    expires_in: String,
}

impl Phone<'_> {
    /// For the script.
    fn call(&self) -> String {
        format!("/api/v1{}/finish", self.path)
    }
}

/// The page at this path: the code while the phone is waited for, and then the button that goes on.
pub(crate) fn shown(prompt: Option<&PhonePrompt>, path: &str) -> Response {
    let prompt = prompt.map(|prompt| Prompt {
        url: prompt.url.expose(),
        number: prompt.number,
        qr: drawn(prompt.url.expose()),
        expires_in: wait(prompt.expires_in.as_secs()),
    });
    page(StatusCode::OK, &Phone { prompt, path })
}

pub(crate) async fn phone_script() -> Response {
    script(SCRIPT)
}
