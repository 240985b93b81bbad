//! Single sign-on: off to a provider, back from it, and what providers tell by themselves.

mod api;
mod backchannel;
mod page;

use std::convert::Infallible;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use portcullis_control::{Sso, SsoError};
use utoipa_axum::router::OpenApiRouter;

use crate::api::Told;
use crate::guard::DeviceAddr;
use crate::site::Site;

pub use backchannel::backchannel_app;

/// Calls below `/api/v1`.
pub(crate) fn calls() -> OpenApiRouter<Site> {
    api::routes()
}

/// Pages.
pub(crate) fn pages() -> Router<Site> {
    page::routes()
}

/// A provider on a page.
pub(crate) struct Shown {
    /// In addresses.
    pub(crate) name: String,
    /// For people.
    pub(crate) title: String,
}

/// Where to ask for the providers that this device may sign in by. Only pages that show them do.
pub(crate) struct Providers(Option<(Sso, DeviceAddr)>);

impl Providers {
    /// Their names.
    pub(crate) async fn offered(&self) -> Vec<String> {
        let Some((sso, DeviceAddr(from))) = &self.0 else {
            return Vec::new();
        };
        // Without them, the page is still good for everything else.
        sso.offered(*from).await.unwrap_or_else(|error| {
            tracing::error!(%error, "no sign-in by a provider can be offered");
            Vec::new()
        })
    }

    /// What the page shows of them.
    pub(crate) async fn shown(&self) -> Vec<Shown> {
        let names = self.offered().await;
        let titled = names.into_iter().filter_map(|name| {
            let (sso, _) = self.0.as_ref()?;
            let title = sso.title(&name)?.to_owned();
            Some(Shown { name, title })
        });
        titled.collect()
    }

    /// The page on which a login by one of them is begun.
    fn page(&self, name: &str, port: Option<u16>) -> Option<String> {
        let (sso, _) = self.0.as_ref()?;
        Some(sso.sign_in_page(name, port))
    }
}

impl FromRequestParts<Site> for Providers {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, Infallible> {
        let from = parts.extensions.get::<DeviceAddr>().copied();
        Ok(Self(site.sso.clone().zip(from)))
    }
}

/// Single sign-on, where there is any: where there is none, the request is refused with this.
struct On(Sso);

impl FromRequestParts<Site> for On {
    type Rejection = Told;

    async fn from_request_parts(_: &mut Parts, site: &Site) -> Result<Self, Told> {
        site.sso.clone().map(Self).ok_or_else(|| Told {
            status: StatusCode::NOT_FOUND,
            code: "sso_off",
            text: "single sign-on is off: it needs [portal] name and a [[control.sso]] in the portal's configuration"
                .to_owned(),
            retry_after_s: None,
        })
    }
}

/// The port by which the portal was reached. The name is not taken from there.
struct Port(Option<u16>);

impl FromRequestParts<Site> for Port {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Site) -> Result<Self, Infallible> {
        let host = parts.headers.get(header::HOST);
        let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
        Ok(Self(match host.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') && !name.is_empty() => port.parse().ok(),
            _ => Some(443),
        }))
    }
}

impl From<SsoError> for Told {
    fn from(error: SsoError) -> Self {
        let text = error.to_string();
        let (status, code) = match error {
            SsoError::Login(error) => return error.into(),
            SsoError::Busy { retry_after } => {
                return Self {
                    status: StatusCode::TOO_MANY_REQUESTS,
                    code: "delayed",
                    text,
                    retry_after_s: Some(retry_after.as_secs().max(1)),
                };
            }
            SsoError::UnknownProvider => (StatusCode::NOT_FOUND, "unknown_provider"),
            SsoError::NotAllowed => (StatusCode::FORBIDDEN, "not_allowed"),
            SsoError::Port => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            SsoError::UnknownVisit => (StatusCode::NOT_FOUND, "unknown_attempt"),
            SsoError::Declined(_) => (StatusCode::UNAUTHORIZED, "declined"),
            SsoError::Refused => (StatusCode::UNAUTHORIZED, "refused"),
            SsoError::Unavailable => (StatusCode::BAD_GATEWAY, "provider_unavailable"),
        };
        Self {
            status,
            code,
            text,
            retry_after_s: None,
        }
    }
}
