//! A login that a browser does, as the terminal sees it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod server;

use portcullis_client::{Fingerprint, PortalClient, PortalError};
use server::{Ca, serve, url};

const OFFERED: &str = r#"{"providers":["other","acme"],"pages":["https://p/o","https://p/a"]}"#;

fn answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

fn session(id: &str) -> String {
    let body = format!(
        r#"{{"id":"{id}","user":"ada","device":"laptop","location":"office","level":"mfa",
            "authenticated_at":"t","deadline":"t","idle_timeout_ms":0}}"#
    );
    answer("200 OK", &body)
}

/// A portal whose device has these sessions, one after the other; an empty one is none.
fn portal(sessions: &'static [&'static str], offered: &'static str) -> PortalClient {
    let ca = Ca::new();
    let mut sessions = sessions.iter();
    let port = serve(ca.server("127.0.0.1", &ca.certificate), move |request| {
        if request.starts_with("GET /api/v1/login/sso ") {
            return answer("200 OK", offered);
        }
        assert!(request.starts_with("GET /api/v1/session "), "{request}");
        match sessions.next() {
            Some(&"") => answer("404 Not Found", "{}"),
            Some(id) => session(id),
            None => answer("500 Internal Server Error", "{}"),
        }
    });
    PortalClient::connect(&url(port), Fingerprint::of(&ca.certificate)).unwrap()
}

#[test]
fn the_session_that_comes_of_it_is_another_one() {
    // One that is there already, and is replaced.
    let client = portal(&["old", "old", "new"], OFFERED);
    let before = client.session().unwrap();
    assert_eq!(client.sign_in_page("acme").unwrap(), "https://p/a");
    let session = client.wait_for_session(before.as_ref()).unwrap();
    assert_eq!(session.id, "new");
    // None before.
    let client = portal(&["", "", "first"], OFFERED);
    let before = client.session().unwrap();
    assert!(before.is_none());
    assert_eq!(client.wait_for_session(None).unwrap().id, "first");
}

/// As after the machine has changed networks: the server still has the connection, and hears nothing on it.
#[test]
fn no_call_relies_on_the_connection_of_another() {
    use std::io::{Read as _, Write as _};
    let ca = Ca::new();
    let config = std::sync::Arc::new(ca.server("127.0.0.1", &ca.certificate));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for tcp in listener.incoming() {
            let tls = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut tls = rustls::StreamOwned::new(tls, tcp.unwrap());
            let mut request = [0; 4096];
            if let Ok(1..) = tls.read(&mut request) {
                let kept = session("s").replace("connection: close\r\n", "");
                tls.write_all(kept.as_bytes()).unwrap();
                tls.flush().unwrap();
            }
            open.push(tls);
        }
    });
    let client = PortalClient::connect(&url(port), Fingerprint::of(&ca.certificate)).unwrap();
    for _ in 0..2 {
        assert_eq!(client.session().unwrap().unwrap().id, "s");
    }
}

#[test]
fn a_provider_that_is_not_offered_is_a_refusal() {
    let client = portal(&[], OFFERED);
    let error = client.sign_in_page("evil").unwrap_err();
    assert!(
        error.is_refusal() && error.to_string().contains("other, acme"),
        "{error}"
    );
    let client = portal(&[], r#"{"providers":[],"pages":[]}"#);
    let error = client.sign_in_page("acme").unwrap_err();
    assert!(
        error.is_refusal() && error.to_string().contains("no single sign-on"),
        "{error}"
    );
    assert!(PortalError::NotInTime(std::time::Duration::from_secs(600)).is_refusal());
}

#[test]
fn a_portal_that_has_a_problem_is_not_waited_for() {
    let client = portal(&[""], OFFERED);
    let before = client.session().unwrap();
    let error = client.wait_for_session(before.as_ref()).unwrap_err();
    assert!(
        matches!(error, PortalError::Unexpected { status: 500, .. }),
        "{error}"
    );
}
