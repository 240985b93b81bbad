//! The verifier of the one connection that is made before the CA is known.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::Fingerprint;

/// Accepts a server only where its chain ends in the CA of that fingerprint *and* the chain is
/// valid, for the server's name and the present time, with that CA as the only root.
#[derive(Debug)]
pub struct PinnedCa {
    fingerprint: Fingerprint,
    provider: Arc<CryptoProvider>,
    presented: Mutex<Option<CertificateDer<'static>>>,
    accepted: Mutex<Option<CertificateDer<'static>>>,
}

impl PinnedCa {
    /// Trusts the CA of this fingerprint, and nothing else.
    pub fn new(fingerprint: Fingerprint) -> Self {
        Self {
            fingerprint,
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            presented: Mutex::default(),
            accepted: Mutex::default(),
        }
    }

    /// The CA, once a server has been accepted.
    pub fn ca(&self) -> Option<CertificateDer<'static>> {
        read(&self.accepted)
    }

    /// Fingerprint of the CA that a server presented, accepted or not.
    pub fn presented(&self) -> Option<Fingerprint> {
        read(&self.presented).map(|ca| Fingerprint::of(&ca))
    }

    /// The provider of the algorithms by which it verifies.
    pub fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }
}

fn read(slot: &Mutex<Option<CertificateDer<'static>>>) -> Option<CertificateDer<'static>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn write(slot: &Mutex<Option<CertificateDer<'static>>>, ca: &CertificateDer<'_>) {
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(ca.clone().into_owned());
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
        let unknown = || Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let (ca, between) = intermediates.split_last().ok_or_else(unknown)?;
        write(&self.presented, ca);
        if Fingerprint::of(ca) != self.fingerprint {
            return Err(unknown());
        }
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verified = WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&self.provider),
        )
        .build()
        .map_err(|error| Error::General(error.to_string()))?
        .verify_server_cert(end_entity, between, server_name, ocsp_response, now)?;
        write(&self.accepted, ca);
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
}
