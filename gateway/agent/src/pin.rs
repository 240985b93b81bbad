//! Trust by fingerprint: the verifier of the one connection made before the CA is known.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest as _, Sha256};

/// SHA-256 of a CA certificate's DER encoding, written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

/// The text is not a fingerprint.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "a CA fingerprint is `sha256:` and 64 hexadecimal digits, as `portcullis gateway add` prints it"
)]
pub struct FingerprintError;

impl Fingerprint {
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        // Colons between bytes are how openssl(1) prints a fingerprint.
        let digits = text
            .strip_prefix("sha256:")
            .ok_or(FingerprintError)?
            .replace(':', "");
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(FingerprintError);
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| FingerprintError)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Accepts a server only where its chain contains the CA of that fingerprint *and* the chain is
/// valid, for the server's name and the present time, with that CA as the only root.
#[derive(Debug)]
pub(crate) struct PinnedCa {
    fingerprint: Fingerprint,
    provider: Arc<CryptoProvider>,
    found: Mutex<Option<CertificateDer<'static>>>,
}

impl PinnedCa {
    pub(crate) fn new(fingerprint: Fingerprint) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Self {
            fingerprint,
            provider,
            found: Mutex::new(None),
        }
    }

    /// The CA, once a server has been accepted.
    pub(crate) fn ca(&self) -> Option<CertificateDer<'static>> {
        self.found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ca = intermediates
            .iter()
            .find(|certificate| Fingerprint::of(certificate) == self.fingerprint)
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verified = WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&self.provider),
        )
        .build()
        .map_err(|error| Error::General(error.to_string()))?
        .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(ca.clone().into_owned());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose,
    };

    use super::*;

    fn ca() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("CA")
    }

    fn server(ca: &CertifiedIssuer<'static, KeyPair>, name: &str) -> CertificateDer<'static> {
        CertificateParams::new(vec![name.to_owned()])
            .and_then(|params| params.signed_by(&KeyPair::generate()?, ca))
            .expect("certificate")
            .into()
    }

    fn verify(
        pin: &PinnedCa,
        server: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
    ) -> Result<ServerCertVerified, Error> {
        let name = ServerName::try_from("control.test").expect("name");
        pin.verify_server_cert(server, chain, &name, &[], UnixTime::now())
    }

    #[test]
    fn the_pinned_ca_is_accepted_and_remembered() {
        let ca = ca();
        let pin = PinnedCa::new(Fingerprint::of(ca.der()));
        verify(&pin, &server(&ca, "control.test"), &[ca.der().clone()]).expect("accepted");
        assert_eq!(pin.ca().as_ref(), Some(ca.der()));
    }

    #[test]
    fn another_ca_another_name_and_an_unrelated_chain_are_refused() {
        let (ours, other) = (ca(), ca());
        let pin = PinnedCa::new(Fingerprint::of(ours.der()));
        verify(
            &pin,
            &server(&other, "control.test"),
            &[other.der().clone()],
        )
        .expect_err("other");
        verify(&pin, &server(&ours, "else.test"), &[ours.der().clone()]).expect_err("name");
        // The pinned CA's certificate is public: showing it beside a foreign chain proves nothing.
        let shown = [other.der().clone(), ours.der().clone()];
        verify(&pin, &server(&other, "control.test"), &shown).expect_err("shown only");
        verify(&pin, &server(&ours, "control.test"), &[]).expect_err("no CA shown");
        assert_eq!(pin.ca(), None);
    }

    #[test]
    fn a_fingerprint_is_parsed_strictly() {
        let text = format!("sha256:{}", "0f".repeat(32));
        let parsed: Fingerprint = text.parse().expect("valid");
        assert_eq!(parsed.to_string(), text);
        for bad in ["", "0f", "sha256:", "sha1:00", "sha256:+f00"] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(FingerprintError), "{bad}");
        }
        assert!(
            format!("sha256:{}", "é".repeat(32))
                .parse::<Fingerprint>()
                .is_err()
        );
    }
}
