//! The portal client trusts one CA, named by its fingerprint, and sends nothing to anyone else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use portcullis_client::{Fingerprint, PortalClient, PortalError};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

struct Ca {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    fn server(&self, name: &str, chain_end: &CertificateDer<'static>) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf, chain_end.clone()], key)
            .unwrap()
    }
}

/// Serves `answer` to every request on every connection; returns the port.
fn serve(config: ServerConfig, answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = Arc::new(config);
    thread::spawn(move || {
        for tcp in listener.incoming() {
            let mut tls =
                StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), tcp.unwrap());
            let mut request = [0; 4096];
            if matches!(tls.read(&mut request), Ok(n) if n > 0) {
                let _ = tls.write_all(answer.as_bytes());
            }
            tls.conn.send_close_notify();
            let _ = tls.flush();
        }
    });
    port
}

const NO_SESSION: &str =
    "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
const REDIRECT: &str = "HTTP/1.1 302 Found\r\nlocation: https://198.51.100.1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

fn url(port: u16) -> String {
    format!("https://127.0.0.1:{port}")
}

#[test]
fn the_named_ca_is_trusted() {
    let ca = Ca::new();
    let port = serve(ca.server("127.0.0.1", &ca.certificate), NO_SESSION);
    let client = PortalClient::connect(&url(port), Fingerprint::of(&ca.certificate)).unwrap();
    assert_eq!(client.session().unwrap(), None);
}

#[test]
fn another_ca_is_refused() {
    let (named, other) = (Ca::new(), Ca::new());
    let port = serve(other.server("127.0.0.1", &other.certificate), NO_SESSION);
    let error = PortalClient::connect(&url(port), Fingerprint::of(&named.certificate)).unwrap_err();
    assert!(matches!(error, PortalError::AnotherCa { .. }), "{error}");
}

/// Presenting the right CA certificate is no proof of having its key.
#[test]
fn the_named_ca_behind_a_certificate_of_another_is_refused() {
    let (named, other) = (Ca::new(), Ca::new());
    let port = serve(other.server("127.0.0.1", &named.certificate), NO_SESSION);
    let error = PortalClient::connect(&url(port), Fingerprint::of(&named.certificate)).unwrap_err();
    assert!(matches!(error, PortalError::Tls(_)), "{error}");
}

#[test]
fn a_certificate_for_another_host_is_refused() {
    let ca = Ca::new();
    let port = serve(ca.server("10.77.0.1", &ca.certificate), NO_SESSION);
    let error = PortalClient::connect(&url(port), Fingerprint::of(&ca.certificate)).unwrap_err();
    assert!(matches!(error, PortalError::Tls(_)), "{error}");
}

#[test]
fn redirects_are_not_followed() {
    let ca = Ca::new();
    let port = serve(ca.server("127.0.0.1", &ca.certificate), REDIRECT);
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
