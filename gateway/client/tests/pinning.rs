//! The portal client trusts one CA, named by its fingerprint, and sends nothing to anyone else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod server;

use std::net::TcpListener;

use portcullis_client::{Fingerprint, PortalClient, PortalError};
use server::{Ca, serve, url};

const NO_SESSION: &str =
    "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
const REDIRECT: &str = "HTTP/1.1 302 Found\r\nlocation: https://198.51.100.1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

#[test]
fn the_named_ca_is_trusted() {
    let ca = Ca::new();
    let port = serve(ca.server("127.0.0.1", &ca.certificate), |_| {
        NO_SESSION.into()
    });
    let client = PortalClient::connect(&url(port), Fingerprint::of(&ca.certificate)).unwrap();
    assert_eq!(client.session().unwrap(), None);
}

#[test]
fn another_ca_is_refused() {
    let (named, other) = (Ca::new(), Ca::new());
    let port = serve(other.server("127.0.0.1", &other.certificate), |_| {
        NO_SESSION.into()
    });
    let error = PortalClient::connect(&url(port), Fingerprint::of(&named.certificate)).unwrap_err();
    assert!(matches!(error, PortalError::AnotherCa { .. }), "{error}");
}

/// Presenting the right CA certificate is no proof of having its key.
#[test]
fn the_named_ca_behind_a_certificate_of_another_is_refused() {
    let (named, other) = (Ca::new(), Ca::new());
    let port = serve(other.server("127.0.0.1", &named.certificate), |_| {
        NO_SESSION.into()
    });
    let error = PortalClient::connect(&url(port), Fingerprint::of(&named.certificate)).unwrap_err();
    assert!(matches!(error, PortalError::Tls(_)), "{error}");
}

#[test]
fn a_certificate_for_another_host_is_refused() {
    let ca = Ca::new();
    let port = serve(ca.server("10.77.0.1", &ca.certificate), |_| {
        NO_SESSION.into()
    });
    let error = PortalClient::connect(&url(port), Fingerprint::of(&ca.certificate)).unwrap_err();
    assert!(matches!(error, PortalError::Tls(_)), "{error}");
}

#[test]
fn redirects_are_not_followed() {
    let ca = Ca::new();
    let port = serve(ca.server("127.0.0.1", &ca.certificate), |_| REDIRECT.into());
    let client = PortalClient::connect(&url(port), Fingerprint::of(&ca.certificate)).unwrap();
    let error = client.begin("ada", "correct horse").unwrap_err();
    assert!(
        matches!(error, PortalError::Unexpected { status: 302, .. }),
        "{error}"
    );
}

#[test]
fn nobody_listening_is_said_plainly() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let error = PortalClient::connect(&url(port), Fingerprint::of(b"any")).unwrap_err();
    assert!(error.to_string().contains("is the tunnel up?"), "{error}");
}
