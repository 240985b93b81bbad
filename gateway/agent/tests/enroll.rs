//! Enrolment against a real TLS server.

mod support;

use std::sync::Arc;

use portcullis_agent::enroll::{EnrollError, enroll};
use portcullis_agent::identity::{Enrolment, IdentityError};
use support::control::Control;
use support::pki::Authority;

#[tokio::test]
async fn a_token_and_a_fingerprint_become_an_enrolment() {
    let authority = Arc::new(Authority::new());
    let control = Control::start(Arc::clone(&authority)).await;
    let dir = tempfile::tempdir().expect("temporary directory");
    let enrolled = enroll(&control.url(), "good", &authority.fingerprint(), dir.path())
        .await
        .expect("enrolled");
    assert_eq!(
        (enrolled.gateway.as_str(), enrolled.location.as_str()),
        ("gw1", "office")
    );
    let stored = Enrolment::load(dir.path()).expect("stored");
    assert_eq!(stored.control, control.url());
    assert!(stored.ca.contains("BEGIN CERTIFICATE"));
}

#[tokio::test]
async fn another_ca_is_not_told_the_token_and_nothing_is_stored() {
    let control = Control::start(Arc::new(Authority::new())).await;
    let dir = tempfile::tempdir().expect("temporary directory");
    let other = Authority::new().fingerprint();
    let error = enroll(&control.url(), "good", &other, dir.path())
        .await
        .expect_err("refused");
    assert!(matches!(error, EnrollError::NotPinned { .. }), "{error}");
    let none = Enrolment::load(dir.path());
    assert!(matches!(none, Err(IdentityError::NotEnrolled { .. })));
}

#[tokio::test]
async fn a_refused_token_a_plaintext_address_and_a_closed_port_are_told_apart() {
    let authority = Arc::new(Authority::new());
    let control = Control::start(Arc::clone(&authority)).await;
    let dir = tempfile::tempdir().expect("temporary directory");
    let fingerprint = authority.fingerprint();
    let refused = enroll(&control.url(), "bad", &fingerprint, dir.path()).await;
    assert!(
        matches!(refused, Err(EnrollError::Refused(_))),
        "{refused:?}"
    );
    let plain = control.url().replace("https", "http");
    let plain = enroll(&plain, "good", &fingerprint, dir.path()).await;
    assert!(matches!(plain, Err(EnrollError::Address(_))), "{plain:?}");
    let closed = enroll("https://127.0.0.1:1", "good", &fingerprint, dir.path()).await;
    assert!(
        matches!(closed, Err(EnrollError::Connect { .. })),
        "{closed:?}"
    );
}
