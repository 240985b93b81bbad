//! Control's own small certificate authority: it vouches for control to gateways and to users'
//! `login`, and for gateways to control.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    SerialNumber, date_time_ymd,
};
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::FromDer as _;
use zeroize::Zeroizing;

use crate::secrets::{RandomError, random};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA_LIFETIME: Duration = DAY.saturating_mul(3652);
/// Clients may refuse longer ones (825 days is a common limit). Made anew at each start.
const SERVER_LIFETIME: Duration = DAY.saturating_mul(800);
/// There is no renewal on the stream yet: a gateway enrols again before this is over.
const GATEWAY_LIFETIME: Duration = DAY.saturating_mul(365);
/// For gateways whose clocks are behind.
const BACKDATED: Duration = DAY;

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("cannot {what}: {source}")]
    Certificate {
        what: &'static str,
        source: rcgen::Error,
    },
    #[error("the certificate signing request is not valid: {0}")]
    Request(rcgen::Error),
    #[error("cannot configure TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the private key is not usable for TLS: {0}")]
    Key(&'static str),
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// The CA: its certificate and its key.
#[derive(Clone)]
pub(crate) struct Ca {
    certificate: CertificateDer<'static>,
    issuer: Arc<Issuer<'static, KeyPair>>,
}

/// A certificate with its key, both DER.
pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: Zeroizing<Vec<u8>>,
}

impl Ca {
    /// A new CA; also its key, for the store.
    pub(crate) fn generate(now_ms: i64) -> Result<Identity, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed("make a key"))?;
        let mut params = params("Portcullis CA", now_ms, CA_LIFETIME)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params
            .self_signed(&key)
            .map_err(failed("sign the CA certificate"))?;
        Ok(Identity {
            certificate: certificate.der().clone(),
            key: Zeroizing::new(key.serialize_der()),
        })
    }

    pub(crate) fn load(identity: Identity) -> Result<Self, CaError> {
        let key = PrivatePkcs8KeyDer::from(identity.key.as_slice());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256)
            .map_err(failed("read the CA key"))?;
        let issuer = Issuer::from_ca_cert_der(&identity.certificate, key)
            .map_err(failed("read the CA certificate"))?;
        Ok(Self {
            certificate: identity.certificate,
            issuer: Arc::new(issuer),
        })
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// `sha256:` and the hexadecimal SHA-256 of the certificate's DER form.
    pub(crate) fn fingerprint(&self) -> String {
        let mut text = String::from("sha256:");
        for byte in Sha256::digest(&self.certificate) {
            text.push_str(&format!("{byte:02x}"));
        }
        text
    }

    /// A fresh server certificate; its key lives only in this process.
    pub(crate) fn server(&self, names: &[String], now_ms: i64) -> Result<Identity, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed("make a key"))?;
        let mut params = params("Portcullis", now_ms, SERVER_LIFETIME)?;
        params.subject_alt_names = CertificateParams::new(names)
            .map_err(failed("put the configured names into a certificate"))?
            .subject_alt_names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(failed("sign a server certificate"))?;
        Ok(Identity {
            certificate: certificate.der().clone(),
            key: Zeroizing::new(key.serialize_der()),
        })
    }

    /// A gateway's client certificate. Only the public key is taken from the request, whose
    /// signature proves possession; the subject is the gateway's id.
    pub(crate) fn gateway(
        &self,
        id: &str,
        csr_der: &[u8],
        now_ms: i64,
    ) -> Result<CertificateDer<'static>, CaError> {
        let request = CertificateSigningRequestDer::from(csr_der);
        let request =
            CertificateSigningRequestParams::from_der(&request).map_err(CaError::Request)?;
        let mut params = params(id, now_ms, GATEWAY_LIFETIME)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params
            .signed_by(&request.public_key, &self.issuer)
            .map_err(failed("sign a gateway certificate"))?;
        Ok(certificate.der().clone())
    }

    /// A fresh server certificate for TLS. The chain includes the CA's certificate, so that a client that
    /// knows only its fingerprint can pin it.
    pub(crate) fn server_key(
        &self,
        names: &[String],
        now_ms: i64,
    ) -> Result<Arc<CertifiedKey>, CaError> {
        let identity = self.server(names, now_ms)?;
        let key = rustls_pki_types::PrivateKeyDer::try_from(identity.key.to_vec())
            .map_err(CaError::Key)?;
        let chain = vec![identity.certificate, self.certificate.clone()];
        let provider = rustls::crypto::ring::default_provider();
        Ok(Arc::new(CertifiedKey::from_der(chain, key, &provider)?))
    }
}

/// TLS for an HTTPS server with whichever certificate is chosen.
pub(crate) fn https(choose: Arc<dyn ResolvesServerCert>) -> Result<rustls::ServerConfig, CaError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(choose);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// What the store keeps of a certificate, to tell an enrolled one from an older one.
pub(crate) fn certificate_hash(der: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(Sha256::digest(der))
}

/// The common name of a verified client certificate.
pub(crate) fn subject(der: &[u8]) -> Option<String> {
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(der).ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}

/// When a certificate ends, in milliseconds since the Unix epoch.
pub(crate) fn expires_ms(der: &[u8]) -> Option<i64> {
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(der).ok()?;
    certificate
        .validity()
        .not_after
        .timestamp()
        .checked_mul(1000)
}

fn params(
    common_name: &str,
    now_ms: i64,
    lifetime: Duration,
) -> Result<CertificateParams, CaError> {
    let now = Duration::from_millis(u64::try_from(now_ms).unwrap_or(0));
    let start = date_time_ymd(1970, 1, 1) + now.saturating_sub(BACKDATED);
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.not_before = start;
    params.not_after = start + BACKDATED + lifetime;
    let mut serial = *random::<16>()?;
    serial[0] &= 0x7f; // RFC 5280, 4.1.2.2: positive
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn failed(what: &'static str) -> impl Fn(rcgen::Error) -> CaError {
    move |source| CaError::Certificate { what, source }
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ca({})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subject_of_a_gateway_certificate_is_ours_to_set() {
        let now_ms = 1_700_000_000_000;
        let ca = Ca::load(Ca::generate(now_ms).unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let request = params.serialize_request(&key).unwrap();
        let certificate = ca.gateway("gateway-id", request.der(), now_ms).unwrap();
        assert_eq!(subject(&certificate).as_deref(), Some("gateway-id"));
        let (_, parsed) =
            x509_parser::certificate::X509Certificate::from_der(&certificate).unwrap();
        assert!(!parsed.is_ca());
        assert!(parsed.subject_alternative_name().unwrap().is_none());
        let mut forged = request.der().to_vec();
        let last = forged.len() - 1;
        forged[last] ^= 1;
        assert!(ca.gateway("gateway-id", &forged, now_ms).is_err());
        assert!(!format!("{ca:?}").contains("KeyPair"));
    }
}
