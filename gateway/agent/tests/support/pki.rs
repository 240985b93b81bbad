//! A certificate authority for one test.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// PEM of a certificate and its key.
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("key");
        Self(CertifiedIssuer::self_signed(params, key).expect("CA"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn der(&self) -> &CertificateDer<'static> {
        self.0.der()
    }

    pub fn fingerprint(&self) -> String {
        let digest = Sha256::digest(self.der());
        let digits: Vec<_> = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{}", digits.concat())
    }

    pub fn issue(&self, name: &str) -> Issued {
        let key = KeyPair::generate().expect("key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("name");
        let certificate = params.signed_by(&key, &self.0).expect("certificate").pem();
        Issued {
            certificate,
            key: key.serialize_pem(),
        }
    }

    /// Signs the key of a request, whatever else it says.
    pub fn sign(&self, csr_der: &[u8]) -> Vec<u8> {
        let csr = rcgen::CertificateSigningRequestParams::from_der(&csr_der.to_vec().into())
            .expect("a signing request");
        csr.signed_by(&self.0).expect("certificate").der().to_vec()
    }
}
