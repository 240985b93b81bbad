//! Whether a chain and a key are a certificate that the portal may show.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use x509_parser::prelude::FromDer as _;

use crate::webauthn::PortalName;

/// The clock of a CA that has just signed may be ahead of this one.
const SKEW_MS: i64 = 5 * 60 * 1000;

/// Why a certificate is not used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("cannot read {}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is no PEM file of ours: it is larger than {most} bytes, or no file", .path.display())]
    Size { path: PathBuf, most: u64 },
    #[error(
        "everybody may read the private key {}: run `chmod 0600 {}`, and consider the key leaked",
        .0.display(), .0.display()
    )]
    Open(PathBuf),
    #[error("{} holds no {what} in PEM", .path.display())]
    Pem { path: PathBuf, what: &'static str },
    #[error("the certificate cannot be read: {0}")]
    Certificate(String),
    #[error(
        "the private key does not belong to the certificate, which has to come first in its file"
    )]
    OtherKey,
    #[error("the private key cannot be used: {0}")]
    Key(String),
    #[error("the certificate has expired ({0}): renew it")]
    Expired(String),
    #[error("the certificate is not valid yet ({0}): is this machine's clock right?")]
    Early(String),
    #[error("the certificate does not name {0}, which is [portal] name")]
    OtherName(String),
}

impl CertificateError {
    /// Whether the same certificate is in order at another time.
    pub(super) fn is_of_time(&self) -> bool {
        matches!(self, Self::Expired(_) | Self::Early(_))
    }
}

/// A certificate in order, with its key.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub(super) key: Arc<CertifiedKey>,
    pub(crate) not_before_ms: i64,
    pub(crate) not_after_ms: i64,
}

/// The certificate is the chain's first.
pub(super) fn check(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    name: &PortalName,
    now_ms: i64,
) -> Result<Checked, CertificateError> {
    let unreadable = |reason: String| CertificateError::Certificate(reason);
    let first = chain
        .first()
        .ok_or_else(|| unreadable("the chain is empty".into()))?
        .clone();
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&first)
        .map_err(|error| unreadable(error.to_string()))?;
    let validity = parsed.validity();
    let ms = |time: &x509_parser::time::ASN1Time| time.timestamp().saturating_mul(1000);
    let (not_before_ms, not_after_ms) = (ms(&validity.not_before), ms(&validity.not_after));
    if now_ms + SKEW_MS < not_before_ms {
        return Err(CertificateError::Early(validity.not_before.to_string()));
    }
    if now_ms >= not_after_ms {
        return Err(CertificateError::Expired(validity.not_after.to_string()));
    }
    let server = ParsedCertificate::try_from(&first).map_err(|e| unreadable(e.to_string()))?;
    let asked = ServerName::try_from(name.as_str()).map_err(|e| unreadable(e.to_string()))?;
    verify_server_name(&server, &asked)
        .map_err(|_| CertificateError::OtherName(name.to_string()))?;
    let provider = rustls::crypto::ring::default_provider();
    let key = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => CertificateError::OtherKey,
        other => CertificateError::Key(other.to_string()),
    })?;
    Ok(Checked {
        key: Arc::new(key),
        not_before_ms,
        not_after_ms,
    })
}
