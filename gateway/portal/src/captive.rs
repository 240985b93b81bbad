//! For devices whose user does not know yet that there is a portal: plain HTTP that arrives on the port of
//! the pages is sent on to them, and the captive-portal API says whether a login is wanted (RFC 8908).
//!
//! The gateway leads plain HTTP of a device that has to log in here, whatever its destination. In the
//! clear nothing is told but where to go, and nothing is changed.

use std::net::IpAddr;

use askama::Template;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use jiff::Timestamp;
use portcullis_control::{Logins, SessionView};
use serde::{Deserialize, Serialize};

use crate::api::Told;
use crate::guard::{DeviceAddr, PortalAddr};
use crate::pages::page;
use crate::site::Site;
use crate::view::{Moment, level_in_words};

/// The first byte of a TLS connection: a record of a handshake (RFC 8446, section 5.1).
pub(crate) const TLS_HANDSHAKE: u8 = 22;

/// The longest name that DNS has, and a port.
const HOST_MOST: usize = 259;

/// What arrives in the clear.
pub(crate) fn plain() -> Router<Site> {
    Router::new().fallback(lead)
}

/// What is served over TLS.
pub(crate) fn routes() -> Router<Site> {
    Router::new()
        .route("/step-up", get(step_up))
        .route("/captive-portal/api", get(status))
}

/// Sends a browser to the pages: to sign in or, where there is a session that was not enough for the
/// destination, to sign in again.
///
/// 302, whatever the method: systems that look for a captive portal know it.
async fn lead(
    State(site): State<Site>,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Extension(at): Extension<PortalAddr>,
    headers: HeaderMap,
) -> Response {
    let mut url = url(&site, at);
    // Whoever names the portal itself wants its first page.
    let wanted = host(&headers).filter(|host| !url.contains(host));
    if let Some(wanted) = wanted
        && matches!(site.logins.current(from).await, Ok(Some(_)))
    {
        url.push_str("step-up?for=");
        url.push_str(wanted);
    }
    let Ok(location) = HeaderValue::from_str(&url) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::CONNECTION, HeaderValue::from_static("close")),
    ];
    let text = format!("Sign in to open your tunnel: {url}\n");
    (StatusCode::FOUND, headers, text).into_response()
}

/// Where the pages are: by name where the portal has one, else at the address that the connection came to.
fn url(site: &Site, PortalAddr(at): PortalAddr) -> String {
    let host = match (&site.passkeys, at.ip()) {
        (Some(passkeys), _) => passkeys.name().to_string(),
        (None, IpAddr::V4(address)) => address.to_string(),
        (None, IpAddr::V6(address)) => format!("[{address}]"),
    };
    match at.port() {
        443 => format!("https://{host}/"),
        port => format!("https://{host}:{port}/"),
    }
}

/// The host that was asked for, if it looks like one: it goes into an address and onto a page.
fn host(headers: &HeaderMap) -> Option<&str> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    is_host(host).then_some(host)
}

fn is_host(text: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    !text.is_empty() && text.len() <= HOST_MOST && text.chars().all(known)
}

/// RFC 8908, section 5.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Status {
    captive: bool,
    user_portal_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    can_extend_session: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_remaining: Option<i64>,
}

async fn status(
    State(site): State<Site>,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Extension(at): Extension<PortalAddr>,
) -> Result<Response, Told> {
    let session = site.logins.current(from).await?;
    let left_ms = session
        .as_ref()
        .map(|session| session.deadline_ms - Timestamp::now().as_millisecond());
    let status = Status {
        captive: session.is_none(),
        user_portal_url: url(&site, at),
        can_extend_session: session.is_some().then_some(true),
        seconds_remaining: left_ms.map(|left| left.max(0) / 1000),
    };
    let kind = [(header::CONTENT_TYPE, "application/captive+json")];
    Ok((kind, Json(status)).into_response())
}

#[derive(Template)]
#[template(path = "step_up.html")]
struct StepUp<'a> {
    wanted: &'a str,
    session: &'a SessionView,
    level: &'static str,
    since: Moment,
}

#[derive(Deserialize)]
struct For {
    #[serde(default, rename = "for")]
    wanted: String,
}

/// For a session that is not enough: says so, and leads to another login.
async fn step_up(
    State(logins): State<Logins>,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Query(For { wanted }): Query<For>,
) -> Response {
    match logins.current(from).await {
        Ok(Some(session)) => page(
            StatusCode::OK,
            &StepUp {
                wanted: if is_host(&wanted) { &wanted } else { "" },
                session: &session,
                level: level_in_words(session.level),
                since: session.authenticated_at_ms.into(),
            },
        ),
        Ok(None) => axum::response::Redirect::to("/").into_response(),
        Err(error) => Told::from(error).into_page(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        for host in ["intranet", "a.example:8080", "10.1.0.5", "[fd00::1]:80"] {
            assert!(is_host(host), "{host}");
        }
        let long = "a".repeat(HOST_MOST + 1);
        for other in ["", "a b", "a/b", "a?b", "a\"b", "a@b", "a%2fb", "ä", &long] {
            assert!(!is_host(other), "{other}");
        }
    }
}
