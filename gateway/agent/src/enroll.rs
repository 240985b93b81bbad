//! Enrolment: a one-time token and the CA's fingerprint become a certificate for this gateway.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use portcullis_proto::v1::EnrollRequest;
use portcullis_proto::v1::enrollment_client::EnrollmentClient;
use portcullis_trust::{Fingerprint, FingerprintError, PinnedCa};
use rcgen::{CertificateParams, KeyPair};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tonic::transport::ClientTlsConfig;
use zeroize::Zeroizing;

use crate::identity::{Enrolment, IdentityError};
use crate::pem;
use crate::transport::{self, AddressError};

const TIMEOUT: Duration = Duration::from_secs(15);

/// Why a gateway could not be enrolled. Nothing has been stored.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    #[error(transparent)]
    Fingerprint(#[from] FingerprintError),
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("cannot reach control at {url}: {reason}")]
    Connect { url: String, reason: String },
    #[error(
        "the service at {url} does not present the CA of this fingerprint: it is not your control service, or the fingerprint is another one's ({reason})"
    )]
    NotPinned { url: String, reason: String },
    #[error("control refused the enrolment: {0}")]
    Refused(String),
    #[error("control's answer cannot be used: {0}")]
    Answer(String),
    #[error("cannot make a key and a signing request: {0}")]
    Request(#[from] rcgen::Error),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// What an enrolled gateway is called, and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// Its name.
    pub gateway: String,
    /// The location that it serves.
    pub location: String,
}

/// Exchanges `token` for a certificate and stores the enrolment in `state_dir`.
///
/// The token is sent only over TLS to a server whose chain is valid under the CA that
/// `ca_fingerprint` names. The private key is made here and stays here.
pub async fn enroll(
    control_url: &str,
    token: &str,
    ca_fingerprint: &str,
    state_dir: &Path,
) -> Result<Enrolled, EnrollError> {
    let fingerprint: Fingerprint = ca_fingerprint.trim().parse()?;
    let pin = Arc::new(PinnedCa::new(fingerprint));
    let endpoint = transport::endpoint(control_url)?;
    let tls = ClientTlsConfig::new()
        .domain_name(transport::host(control_url)?)
        .timeout(TIMEOUT);
    let connect = |reason: &dyn std::error::Error| {
        let (url, reason) = (control_url.to_owned(), transport::causes(reason));
        if reason.contains("invalid peer certificate") {
            EnrollError::NotPinned { url, reason }
        } else {
            EnrollError::Connect { url, reason }
        }
    };
    let channel = endpoint
        .timeout(TIMEOUT)
        .tls_config_with_verifier(tls, pin.clone())
        .map_err(|error| connect(&error))?
        .connect()
        .await
        .map_err(|error| connect(&error))?;

    let key = KeyPair::generate()?;
    let csr = CertificateParams::default().serialize_request(&key)?;
    let answer = EnrollmentClient::new(channel)
        .enroll(EnrollRequest {
            token: token.trim().to_owned(),
            csr_der: csr.der().to_vec(),
        })
        .await
        .map_err(|status| EnrollError::Refused(status.message().to_owned()))?
        .into_inner();

    let ca = pin
        .ca()
        .ok_or_else(|| EnrollError::Answer("no CA was verified".into()))?;
    if ca.as_ref() != answer.ca_der {
        return Err(EnrollError::Answer(
            "its CA is not the one of the fingerprint".into(),
        ));
    }
    check_certificate(&answer.certificate_der, &key)?;
    let enrolment = Enrolment {
        control: control_url.trim_end_matches('/').to_owned(),
        gateway: answer.gateway.clone(),
        location: answer.location.clone(),
        ca: pem::encode("CERTIFICATE", &answer.ca_der),
        certificate: pem::encode("CERTIFICATE", &answer.certificate_der),
        key: Zeroizing::new(key.serialize_pem()),
    };
    enrolment.store(state_dir)?;
    Ok(Enrolled {
        gateway: answer.gateway,
        location: answer.location,
    })
}

/// The certificate must be for the key that was just made.
fn check_certificate(certificate: &[u8], key: &KeyPair) -> Result<(), EnrollError> {
    let chain = vec![CertificateDer::from(certificate.to_vec())];
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())
        .map(drop)
        .map_err(|error| EnrollError::Answer(error.to_string()))
}
