//! What every request passes through, whichever page or call it asks for.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::api::Told;

/// The tunnel address of the device, from the socket.
#[derive(Clone, Copy, Debug)]
pub struct DeviceAddr(pub IpAddr);

/// The portal's own end of the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PortalAddr(pub(crate) SocketAddr);

/// Longer than the wait for a gateway to acknowledge a session.
const REQUEST_TIME: Duration = Duration::from_secs(20);

/// Ends a request that takes too long, a trickled body included.
pub(crate) async fn time_limit(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIME, next.run(request)).await {
        Ok(response) => response,
        Err(_) => (StatusCode::REQUEST_TIMEOUT, "the request took too long").into_response(),
    }
}

/// No request to the portal is larger than a new passkey.
const BODY_LIMIT: usize = 16 * 1024;

/// Refuses a body that is larger than any of ours, whether it would be looked at or not, and before anything is
/// done (RFC 9110, section 15.5.14). What is behind this has all of the body.
pub(crate) async fn body_limit(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    if let Ok(bytes) = to_bytes(body, BODY_LIMIT).await {
        return next.run(Request::from_parts(parts, bytes.into())).await;
    }
    let told = Told {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        code: "bad_request",
        text: "the request is too large".to_owned(),
        retry_after_s: None,
    };
    told.at(parts.uri.path())
}

/// Refuses state changes that another site's page asked this browser for. The portal knows a
/// device by its address, so a browser on it is always "logged in" and there is no cookie to
/// withhold: the browser's own word on where a request comes from has to be checked.
pub(crate) async fn same_origin(request: Request, next: Next) -> Response {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    if changes && !is_same_origin(request.headers()) {
        return (StatusCode::FORBIDDEN, "this request came from another site").into_response();
    }
    next.run(request).await
}

/// Browsers send `Origin` with each POST and DELETE, and `Sec-Fetch-Site` with everything.
/// A request with neither comes from a program, which no website can make send it, unless it is
/// a form, which programs have no use for.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let origin = headers.get(header::ORIGIN);
    let site = headers.get("sec-fetch-site");
    let is_form = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| !kind.as_bytes().starts_with(b"application/json"));
    if origin.is_none() && site.is_none() {
        return !is_form;
    }
    let site_is_ours = site.is_none_or(|site| matches!(site.as_bytes(), b"same-origin" | b"none"));
    let origin_is_ours = origin.is_none_or(|origin| match headers.get(header::HOST) {
        Some(host) => origin.as_bytes().strip_prefix(b"https://") == Some(host.as_bytes()),
        None => false,
    });
    site_is_ours && origin_is_ours
}

/// The pages load nothing from elsewhere. The one script is a file of ours, for passkeys, and speaks to
/// us alone; none is inline.
const HEADERS: [(HeaderName, &str); 9] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    // Not `no-referrer`: with that, browsers send `Origin: null` from our own forms.
    (header::REFERRER_POLICY, "same-origin"),
    // Passkeys are for these pages, and for no frame in them or around them.
    (
        HeaderName::from_static("permissions-policy"),
        "publickey-credentials-get=(self), publickey-credentials-create=(self)",
    ),
    (header::CACHE_CONTROL, "no-store"),
    (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// Adds the headers to every answer, refusals included.
pub(crate) async fn security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|&(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    const HOST: (&str, &str) = ("host", "10.77.0.1:8443");
    const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

    #[test]
    fn our_own_pages_and_programs_pass() {
        for ours in [
            &[HOST][..],
            &[HOST, ("content-type", "application/json")],
            &[HOST, FORM, ("origin", "https://10.77.0.1:8443")],
            &[
                HOST,
                FORM,
                ("origin", "https://10.77.0.1:8443"),
                ("sec-fetch-site", "same-origin"),
            ],
        ] {
            assert!(is_same_origin(&headers(ours)), "{ours:?}");
        }
    }

    #[test]
    fn other_sites_do_not() {
        for theirs in [
            &[HOST, FORM][..],
            &[HOST, ("origin", "https://evil.example")],
            &[HOST, ("origin", "null")],
            &[HOST, ("origin", "http://10.77.0.1:8443")],
            &[HOST, ("origin", "https://10.77.0.1")],
            &[HOST, ("sec-fetch-site", "cross-site")],
            &[HOST, ("sec-fetch-site", "same-site")],
            &[
                HOST,
                ("origin", "https://10.77.0.1:8443"),
                ("sec-fetch-site", "cross-site"),
            ],
            &[("origin", "https://10.77.0.1:8443")],
        ] {
            assert!(!is_same_origin(&headers(theirs)), "{theirs:?}");
        }
    }
}
